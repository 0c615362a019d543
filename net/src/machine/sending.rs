//! The send of a datagram, or the wait for room for one.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ringspun_runtime::{
    Completion, Datagram, Interest, Operation, OperationKey, OperationKind, Owner, SendData, Wake,
};

use super::datagrams::DatagramCore;
use crate::address::Address;

/// A send or a wait for room in flight, and its waiter.
pub(crate) struct Sending {
    core: Rc<DatagramCore>,
    /// Its index in the socket's list.
    index: usize,
    key: Cell<Option<OperationKey>>,
    result: Cell<Option<io::Result<u32>>>,
    waiter: RefCell<Option<Rc<dyn Wake>>>,
}

impl Sending {
    /// Starts to send a datagram.
    pub(crate) fn start(core: &Rc<DatagramCore>, data: SendData, destination: Option<Address>) -> Rc<Self> {
        let datagram = Datagram::new(data, destination.map(Address::raw));
        Self::submit(core, Operation::SendTo { socket: core.descriptor(), datagram })
    }

    /// Starts to wait until there is room for a datagram.
    pub(crate) fn wait_for_room(core: &Rc<DatagramCore>) -> Rc<Self> {
        Self::submit(core, Operation::Poll { descriptor: core.descriptor(), interest: Interest::Writable })
    }

    fn submit(core: &Rc<DatagramCore>, operation: Operation) -> Rc<Self> {
        let index = core.output.in_flight.borrow_mut().insert(None);
        let sending = Rc::new(Self {
            core: core.clone(),
            index,
            key: Cell::new(None),
            result: Cell::new(None),
            waiter: RefCell::new(None),
        });
        let key = core.event_loop().submit(operation, sending.clone());
        sending.key.set(Some(key));
        core.output.in_flight.borrow_mut()[index] = Some(key);
        sending
    }

    pub(crate) fn poll(&self, waiter: &Rc<dyn Wake>) -> Option<io::Result<u32>> {
        let result = self.result.take();
        let waiting = result.is_none().then(|| waiter.clone());
        drop(self.waiter.replace(waiting));
        result
    }

    /// Requests cancellation; the result still follows.
    pub(crate) fn cancel(&self) {
        if let Some(key) = self.key.get() {
            self.core.event_loop().cancel(key);
        }
    }

    /// Removes the waiter, and requests cancellation.
    pub(crate) fn abandon(&self) {
        drop(self.waiter.take());
        self.cancel();
    }
}

impl Owner for Sending {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.key.set(None);
        self.core.output.in_flight.borrow_mut().remove(self.index);
        self.core.close_descriptor_when_idle();
        self.result.set(Some(completion.result));
        let waiter = self.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sending {{ on: {:?} }}", self.core)
    }
}
