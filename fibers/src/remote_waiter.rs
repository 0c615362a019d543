//! Waking a parked fiber from any thread.

use std::cell::RefCell;
use std::rc::Rc;

use ringspun_runtime::Wake;
use slab::Slab;

use crate::remote::Remote;
use crate::scheduler::Scheduler;

thread_local! {
    static WAITERS: RefCell<Waiters> = RefCell::default();
}

/// The waiters of this thread that other threads may wake. What crosses threads is only their number.
#[derive(Default)]
struct Waiters {
    slots: Slab<(u64, Rc<dyn Wake>)>,
    /// Tells the users of a slot apart: a wake may come after its waiter has left.
    next_serial: u64,
}

/// Wakes a waiter of one thread from any thread. It may outlive the waiter, and the waiter's runtime.
#[derive(Clone)]
pub(crate) struct RemoteWaiter {
    remote: Remote,
    slot: usize,
    serial: u64,
}

/// A waiter's place among those of its thread, until it is dropped there.
pub(crate) struct Registered {
    waiter: RemoteWaiter,
    /// Not `Send`.
    _of_thread: std::marker::PhantomData<Rc<()>>,
}

impl Registered {
    /// Registers a waiter of this thread; `None` if no runtime runs on it.
    pub(crate) fn new(waiter: Rc<dyn Wake>) -> Option<Self> {
        let remote = Scheduler::current()?.remote().sender();
        let (slot, serial) = WAITERS.with_borrow_mut(|waiters| {
            let serial = waiters.next_serial;
            waiters.next_serial += 1;
            (waiters.slots.insert((serial, waiter)), serial)
        });
        let waiter = RemoteWaiter { remote, slot, serial };
        Some(Self { waiter, _of_thread: std::marker::PhantomData })
    }

    /// What wakes it.
    pub(crate) fn waiter(&self) -> RemoteWaiter {
        self.waiter.clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // At the end of the thread, the list may be gone already.
        let left = WAITERS.try_with(|waiters| {
            let mut waiters = waiters.borrow_mut();
            let is_its_own =
                waiters.slots.get(self.waiter.slot).is_some_and(|(serial, _)| *serial == self.waiter.serial);
            is_its_own.then(|| waiters.slots.remove(self.waiter.slot))
        });
        drop(left);
    }
}

impl RemoteWaiter {
    /// Wakes the waiter, unless it has left. On its own thread, this takes no detour by way of the event loop.
    pub(crate) fn wake(&self) {
        let (slot, serial) = (self.slot, self.serial);
        let is_here = Scheduler::current().is_some_and(|scheduler| scheduler.remote().is_of(&self.remote));
        if is_here {
            wake_here(slot, serial);
        } else {
            // A runtime that has ended has no waiters.
            let _ = self.remote.execute(move || wake_here(slot, serial));
        }
    }
}

fn wake_here(slot: usize, serial: u64) {
    let found = WAITERS.with_borrow(|waiters| {
        waiters.slots.get(slot).filter(|(of_slot, _)| *of_slot == serial).map(|(_, waiter)| waiter.clone())
    });
    if let Some(waiter) = found {
        waiter.wake();
    }
}
