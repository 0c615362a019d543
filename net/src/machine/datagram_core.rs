//! A datagram socket: one multishot receive, the queue between the kernel and the readers, and any number
//! of sends in flight.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{MsgFlags, recv};
use ringspun_runtime::{
    Completion, Datagram, EventLoop, Interest, Operation, OperationKey, OperationKind, Owner, SendData, Wake,
};
use slab::Slab;

use super::chunk::Chunk;
use super::read_ahead::{LeftBehind, ReadAhead};
use crate::address::{Address, local_address};
use crate::descriptor::Descriptor;
use crate::error::closed;
use crate::options::SocketOption;
use crate::system::set_nonblocking;
use crate::wait_list::WaitList;

/// Received bytes that nobody has read yet, above which a socket stops receiving until they are read: what
/// comes then waits in the kernel's buffer, which drops what does not fit.
const UNREAD_MAX_BYTES: usize = 256 * 1024;
/// Datagrams received one after the other without a wait, after which there is one all the same: who sends as
/// fast as they are received must not keep everybody else from running.
const UNWAITED_MAX: u32 = 64;
/// Sends in a row that do not wait for a turn of the loop.
const SENDS_AT_ONCE_MAX: u8 = 16;
/// What a datagram takes besides its bytes, so that empty ones count too.
const OVERHEAD_BYTES: usize = 256;

/// A received datagram.
#[derive(Debug)]
pub struct Arrived {
    /// Its bytes.
    pub bytes: Chunk,
    /// Who sent it.
    pub source: Address,
}

/// A datagram that was received ahead, and left to other descriptors of its socket.
pub type Arrival = (Box<[u8]>, Address);

/// The shared part of a datagram socket, which its operations keep alive.
pub struct DatagramCore {
    event_loop: Rc<EventLoop>,
    descriptor: Descriptor,
    /// Datagrams of Unix sockets can be longer than the loop's buffers: we wait until there is one, and
    /// receive it into as much memory as it takes.
    unbounded: bool,
    /// Datagrams received since the last wait, where each takes calls of its own.
    unwaited: Cell<u32>,
    /// Sends that have not waited for a turn of the loop, since the last completion.
    sent_at_once: Cell<u8>,
    /// The receive, or the wait for there to be something, while it is armed.
    input: Cell<Option<OperationKey>>,
    unread: RefCell<VecDeque<Arrived>>,
    unread_bytes: Cell<usize>,
    ahead: ReadAhead<Arrival>,
    /// An errno, to be raised once.
    failed: Cell<Option<i32>>,
    readers: WaitList,
    /// The sends in flight, and the waits for room.
    sends: RefCell<Slab<Option<OperationKey>>>,
    /// Senders that try again in a while.
    pausing: WaitList,
}

impl DatagramCore {
    /// Wraps a datagram socket.
    pub fn new(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Rc<Self> {
        Self::with_left_behind(event_loop, descriptor, None)
    }

    /// Wraps a datagram socket that was handed over, with what it had received until then.
    pub fn with_left_behind(
        event_loop: Rc<EventLoop>,
        descriptor: OwnedFd,
        left_behind: Option<LeftBehind<Arrival>>,
    ) -> Rc<Self> {
        let unbounded = local_address(&descriptor).is_ok_and(|address| address.is_unix());
        let descriptor = Descriptor::new(descriptor);
        Rc::new(Self {
            event_loop,
            descriptor,
            unbounded,
            unwaited: Cell::new(0),
            sent_at_once: Cell::new(0),
            input: Cell::new(None),
            unread: RefCell::default(),
            unread_bytes: Cell::new(0),
            ahead: ReadAhead::new(left_behind),
            failed: Cell::new(None),
            readers: WaitList::default(),
            sends: RefCell::default(),
            pausing: WaitList::default(),
        })
    }

    /// The loop that this socket belongs to.
    pub fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    /// The descriptor, which is open unless [`is_closed`](Self::is_closed).
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.raw()
    }

    /// The descriptor for a call of the system, such as that for an option.
    pub(crate) fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        self.descriptor.borrow()
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.descriptor.is_closing()
    }

    /// Closes the socket; whoever waits is woken to find it closed, unread datagrams are dropped. Closing
    /// again does nothing.
    ///
    /// The operations in flight are cancelled and their ends are waited for, so that the port is free when
    /// this returns.
    pub fn close(&self) {
        if !self.descriptor.begin_close() {
            return;
        }
        let mut in_flight: Vec<OperationKey> =
            self.sends.borrow().iter().filter_map(|(_, key)| *key).collect();
        in_flight.extend(self.input.get());
        for key in in_flight {
            // If the loop cannot be turned any more, the descriptor stays open: the kernel may still use it.
            let _ = self.event_loop.cancel_and_wait(key);
        }
        self.unread.take();
        self.unread_bytes.set(0);
        self.ahead.end();
        self.close_descriptor_when_idle();
        self.readers.wake_all();
        self.pausing.wake_all();
    }

    /// Prepares for another descriptor of the socket to be used in another thread: stops receiving ahead, and
    /// gives what that descriptor's [`with_left_behind`](Self::with_left_behind) needs.
    pub fn share(&self) -> LeftBehind<Arrival> {
        let left_behind = self.ahead.share();
        self.stop_receiving_ahead();
        self.unread_bytes.set(0);
        let unread = self.unread.take().into_iter();
        self.ahead.leave(unread.map(|arrived| (Box::from(&*arrived.bytes), arrived.source)));
        left_behind
    }

    /// Prepares for another process to use the socket: stops receiving ahead, for good. What has been
    /// received is for the readers here. The process finds a socket that blocks, as it expects of its standard
    /// streams; calls of ours do not block all the same.
    pub fn share_with_process(&self) {
        self.ahead.forbid();
        self.stop_receiving_ahead();
        if self.event_loop.check_process().is_ok() {
            // A socket that refuses is one that the process has to cope with.
            let _ = set_nonblocking(self.descriptor(), false);
        }
    }

    fn stop_receiving_ahead(&self) {
        if let Some(key) = self.input.get() {
            // If the loop cannot be turned any more, nothing is received either.
            let _ = self.event_loop.cancel_and_wait(key);
        }
    }

    fn is_on_demand(&self) -> bool {
        self.unbounded || !self.ahead.is_allowed()
    }

    /// Closes the socket if that takes no waiting and concerns nobody; true if it did.
    pub fn close_if_idle(&self) -> bool {
        let idle = self.input.get().is_none() && self.sends.borrow().is_empty();
        let idle = idle && self.readers.is_empty() && self.pausing.is_empty();
        if idle {
            self.close();
        }
        idle
    }

    /// Sets an option of the socket.
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](crate::Closed) on a closed socket.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.check_open()?;
        option.set(self.socket()?)
    }

    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.is_closed() || self.event_loop.is_shut_down() {
            Err(closed(&self.event_loop))
        } else {
            Ok(())
        }
    }

    /// Sends a datagram, if it goes without waiting; false if it would have to, and after many sends without a turn
    /// of the loop: a fiber that never waits would keep the others from running.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's.
    pub(crate) fn send_at_once(&self, data: &SendData, destination: Option<Address>) -> io::Result<bool> {
        self.check_open()?;
        let count = self.sent_at_once.get();
        if count == SENDS_AT_ONCE_MAX {
            return Ok(false);
        }
        self.sent_at_once.set(count + 1);
        let destination = destination.map(Address::raw);
        match self.event_loop.send_to_at_once(self.descriptor(), data, destination.as_ref()) {
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(false),
        }
    }

    pub(crate) fn readers(&self) -> &WaitList {
        &self.readers
    }

    pub(crate) fn pausing(&self) -> &WaitList {
        &self.pausing
    }

    /// Whether the socket tells when there is room for a datagram to this destination. A Unix socket only knows
    /// of the peer that it is connected to.
    pub(crate) fn tells_of_room(&self, destination: Option<Address>) -> bool {
        !self.unbounded || destination.is_none()
    }

    /// The next datagram, or the error that came instead of one. `None` is not for ever, and calls for
    /// [`wait_for_input`](Self::wait_for_input).
    pub(crate) fn take(&self) -> io::Result<Option<Arrived>> {
        self.check_open()?;
        let arrived = self.unread.borrow_mut().pop_front();
        if let Some(arrived) = arrived {
            self.unread_bytes.set(self.unread_bytes.get() - arrived.bytes.len() - OVERHEAD_BYTES);
            return Ok(Some(arrived));
        }
        if let Some(errno) = self.failed.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Some((bytes, source)) = self.ahead.take() {
            return Ok(Some(Arrived { bytes: Chunk::Owned { bytes, start: 0 }, source }));
        }
        if self.is_on_demand() { self.receive_whole() } else { Ok(None) }
    }

    /// Puts bytes back in front of what is unread, for the next reader.
    pub(crate) fn put_back(&self, bytes: &[u8], source: Address) {
        if !self.is_closed() {
            self.unread_bytes.set(self.unread_bytes.get() + bytes.len() + OVERHEAD_BYTES);
            let bytes = Chunk::Owned { bytes: Box::from(bytes), start: 0 };
            self.unread.borrow_mut().push_front(Arrived { bytes, source });
            self.readers.wake_all();
        }
    }

    /// Receives one datagram of any length, if there is one.
    fn receive_whole(&self) -> io::Result<Option<Arrived>> {
        let unwaited = self.unwaited.get();
        if unwaited == UNWAITED_MAX {
            return Ok(None);
        }
        self.unwaited.set(unwaited + 1);
        loop {
            match receive_whole(self.descriptor()) {
                Ok(arrived) => return Ok(Some(arrived)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Has the waiter woken when there is something to take, and arms the receive if it is not armed.
    pub(crate) fn wait_for_input(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        self.readers.add(waiter);
        self.arm_input();
    }

    fn arm_input(self: &Rc<Self>) {
        if self.input.get().is_none() {
            let socket = self.descriptor.raw();
            let operation = match self.is_on_demand() {
                true => Operation::Poll { descriptor: socket, interest: Interest::Readable },
                false => Operation::ReceiveFrom { socket },
            };
            self.input.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }

    fn input_completed(self: &Rc<Self>, completion: Completion) {
        if !completion.more {
            self.input.set(None);
            self.unwaited.set(0);
        }
        if self.is_closed() {
            return;
        }
        match (completion.result, completion.buffer) {
            (Ok(_), Some(buffer)) => {
                self.unread_bytes.set(self.unread_bytes.get() + buffer.len() + OVERHEAD_BYTES);
                let source = buffer.source().map_or_else(Address::unnamed, Address::from_raw);
                self.unread.borrow_mut().push_back(Arrived { bytes: Chunk::Lent(buffer).kept(), source });
                if self.unread_bytes.get() > UNREAD_MAX_BYTES
                    && let Some(key) = self.input.get()
                {
                    self.event_loop.cancel(key);
                }
            }
            // There is something to receive, or the socket was shut down, which readers find out.
            (Ok(_), None) => {}
            (Err(error), _) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    self.event_loop.wait_for_buffers(OperationKind::ReceiveFrom, self.clone());
                    return;
                }
                // We paused it ourselves, or nothing happened: the socket goes on, unless the loop ends.
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                    if !self.event_loop.is_shut_down() {
                        if !self.readers.is_empty() {
                            self.arm_input();
                        }
                        return;
                    }
                }
                errno => self.failed.set(Some(errno.unwrap_or(libc::EIO))),
            },
        }
        self.readers.wake_all();
    }

    fn close_descriptor_when_idle(&self) {
        if self.is_closed() && self.input.get().is_none() && self.sends.borrow().is_empty() {
            self.descriptor.close();
        }
    }
}

impl Owner for DatagramCore {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.sent_at_once.set(0);
        self.input_completed(completion);
        self.close_descriptor_when_idle();
    }
}

/// There are receive buffers again.
impl Wake for DatagramCore {
    fn wake(self: Rc<Self>) {
        if !self.is_closed() && !self.readers.is_empty() {
            self.arm_input();
        }
    }
}

impl std::fmt::Debug for DatagramCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatagramCore {{ descriptor: {}, closed: {} }}", self.descriptor(), self.is_closed())
    }
}

/// Receives one datagram into as much memory as it takes, without waiting.
fn receive_whole(descriptor: RawFd) -> io::Result<Arrived> {
    // With TRUNC, the count is that of the whole datagram.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut bytes = vec![0_u8; recv(descriptor, &mut [], peek)?];
    let mut name = [0_u64; size_of::<libc::sockaddr_storage>() / size_of::<u64>()];
    let mut name_length = size_of_val(&name) as libc::socklen_t;
    // SAFETY: the buffer and the name are valid for the lengths that are passed.
    let count = unsafe {
        libc::recvfrom(
            descriptor,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
            name.as_mut_ptr().cast(),
            &raw mut name_length,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(count);
    let name_length = size_of_val(&name).min(name_length as usize);
    // SAFETY: so many bytes of the name were there, and the kernel has written them.
    let name = unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), name_length) };
    let source = Address::from_bytes(name).unwrap_or_else(Address::unnamed);
    Ok(Arrived { bytes: Chunk::Owned { bytes: bytes.into_boxed_slice(), start: 0 }, source })
}

/// A send or a wait for room in flight, and who waits for it.
pub(crate) struct Sending {
    core: Rc<DatagramCore>,
    /// Where the socket lists it.
    index: usize,
    key: Cell<Option<OperationKey>>,
    result: Cell<Option<io::Result<u32>>>,
    waiter: RefCell<Option<Rc<dyn Wake>>>,
}

impl Sending {
    /// Starts to send a datagram.
    pub(crate) fn start(core: &Rc<DatagramCore>, data: SendData, destination: Option<Address>) -> Rc<Self> {
        let datagram = Datagram::new(data, destination.map(Address::raw));
        Self::submit(core, Operation::SendTo { socket: core.descriptor.raw(), datagram })
    }

    /// Starts to wait until there is room for a datagram.
    pub(crate) fn wait_for_room(core: &Rc<DatagramCore>) -> Rc<Self> {
        Self::submit(
            core,
            Operation::Poll { descriptor: core.descriptor.raw(), interest: Interest::Writable },
        )
    }

    fn submit(core: &Rc<DatagramCore>, operation: Operation) -> Rc<Self> {
        let index = core.sends.borrow_mut().insert(None);
        let sending = Rc::new(Self {
            core: core.clone(),
            index,
            key: Cell::new(None),
            result: Cell::new(None),
            waiter: RefCell::new(None),
        });
        let key = core.event_loop.submit(operation, sending.clone());
        sending.key.set(Some(key));
        core.sends.borrow_mut()[index] = Some(key);
        sending
    }

    pub(crate) fn poll(&self, waiter: &Rc<dyn Wake>) -> Option<io::Result<u32>> {
        let result = self.result.take();
        let waiting = result.is_none().then(|| waiter.clone());
        drop(self.waiter.replace(waiting));
        result
    }

    /// Ends it soon; its result still comes.
    pub(crate) fn hurry(&self) {
        if let Some(key) = self.key.get() {
            self.core.event_loop.cancel(key);
        }
    }

    /// Nobody waits any more.
    pub(crate) fn abandon(&self) {
        drop(self.waiter.take());
        self.hurry();
    }
}

impl Owner for Sending {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.key.set(None);
        self.core.sent_at_once.set(0);
        self.core.sends.borrow_mut().remove(self.index);
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
