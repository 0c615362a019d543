//! A connected socket: at most one receive and one send in flight, and the queue between the kernel
//! and the readers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use ringspun_runtime::{
    Completion, EventLoop, Interest, Operation, OperationKey, OperationKind, Owner, Wake,
};

use super::chunk::{Chunk, ChunkQueue};
use super::read_ahead::{LeftBehind, ReadAhead};
use super::stream_output::Output;
use crate::descriptor::Descriptor;
use crate::error::closed;
use crate::options::SocketOption;
use crate::system::{option_number, receive_now, set_nonblocking};
use crate::wait_list::WaitList;

/// Received bytes that nobody has read yet, above which a stream stops receiving until they are read.
const UNREAD_MAX_BYTES: usize = 256 * 1024;
/// Receives in a row that do not wait for a turn of the loop.
const RECEIVES_AT_ONCE_MAX: u8 = 4;
/// How much is received at once on demand, where that is not into one of the loop's buffers.
const ON_DEMAND_MAX_BYTES: usize = 64 * 1024;

/// The shared part of a stream, which its operations keep alive.
///
/// With thousands of streams, no cache holds them all, and each of their cache lines that is used costs time:
/// what every read and write needs comes first, in this order.
#[repr(C)]
pub struct StreamCore {
    event_loop: Rc<EventLoop>,
    descriptor: Descriptor,
    /// Sends that have not waited for a turn of the loop, since the last completion.
    pub(super) sent_at_once: Cell<u8>,
    end: Cell<End>,
    /// Receives that have not waited for a turn of the loop, likewise.
    received_at_once: Cell<u8>,
    announced: Cell<Announced>,
    /// What brings input, or tells of it, while it is armed.
    input: Cell<Option<OperationKey>>,
    pub(super) output: Cell<Output>,
    /// Once nothing that a write has left behind is in flight.
    pub(super) shuts_down_behind: Cell<bool>,
    unread_bytes: Cell<usize>,
    readers: WaitList,
    pub(super) writers: WaitList,
    unread: RefCell<ChunkQueue>,
    /// What the send or connect gave, until the machine that started it takes it.
    pub(super) output_result: Cell<Option<io::Result<u32>>>,
    ahead: ReadAhead<Box<[u8]>>,
}

/// Whether there may be something to receive at once, on a backend that works so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    Nothing,
    /// A receive that does not fill its buffer takes all.
    Bytes,
    /// There may be something up to the end, or until there is nothing.
    Anything,
}

/// How far the input has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Reached,
    /// An errno, to be raised once.
    Failed(i32),
}

impl StreamCore {
    /// Wraps a stream socket.
    pub fn new(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Rc<Self> {
        Self::with_left_behind(event_loop, descriptor, None)
    }

    /// Wraps a stream socket that was handed over, with what it had received until then.
    pub fn with_left_behind(
        event_loop: Rc<EventLoop>,
        descriptor: OwnedFd,
        left_behind: Option<LeftBehind<Box<[u8]>>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            event_loop,
            descriptor: Descriptor::new(descriptor),
            input: Cell::new(None),
            unread: RefCell::default(),
            unread_bytes: Cell::new(0),
            ahead: ReadAhead::new(left_behind),
            end: Cell::new(End::NotYet),
            readers: WaitList::default(),
            output: Cell::new(Output::Idle),
            shuts_down_behind: Cell::new(false),
            output_result: Cell::new(None),
            writers: WaitList::default(),
            sent_at_once: Cell::new(0),
            received_at_once: Cell::new(0),
            announced: Cell::new(Announced::Nothing),
        })
    }

    /// The loop that this stream belongs to.
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

    /// Closes the stream: operations in flight are cancelled, whoever waits is woken to find it closed, and the
    /// descriptor is closed when the last terminal completion has come. What a write has left behind is cancelled
    /// only if the peer has not made room for it in 30 s, and then the peer finds the connection reset; that of a Unix
    /// socket, which knows no such thing, finds its end. Unread bytes are dropped. Closing again does nothing.
    pub fn close(self: &Rc<Self>) {
        if !self.descriptor.begin_close() {
            return;
        }
        if let Some(key) = self.input.get() {
            self.event_loop.cancel(key);
        }
        self.end_output();
        self.unread.take();
        self.unread_bytes.set(0);
        self.ahead.end();
        self.close_descriptor_when_idle();
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// Prepares for another descriptor of the socket to be used in another thread: stops receiving ahead, and
    /// gives what that descriptor's [`with_left_behind`](Self::with_left_behind) needs.
    pub fn share(&self) -> LeftBehind<Box<[u8]>> {
        let left_behind = self.ahead.share();
        self.stop_receiving_ahead();
        self.unread_bytes.set(0);
        self.ahead.leave(self.unread.take().iter().map(|chunk| Box::from(&**chunk)));
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
        self.announced.set(Announced::Nothing);
    }

    /// Receives for a reader who finds nothing unread, where nothing is received ahead: up to `limit` bytes, or
    /// what one of the loop's buffers holds. `None` if nothing is there; [`input_ended`](Self::input_ended) says
    /// whether more may come.
    #[inline]
    pub(crate) fn receive_on_demand(&self, limit: usize) -> Option<Chunk> {
        if self.announced.get() == Announced::Nothing {
            // What is armed brings input, or tells of it.
            return if self.input.get().is_some() { None } else { self.receive_shared(limit) };
        }
        if self.received_at_once.get() >= RECEIVES_AT_ONCE_MAX
            || self.end.get() != End::NotYet
            || self.is_closed()
        {
            return None;
        }
        self.received_at_once.set(self.received_at_once.get() + 1);
        let buffer = match self.event_loop.receive_at_once(self.descriptor.raw())? {
            Ok(buffer) => buffer,
            Err(error) => return self.receive_without_buffer(error),
        };
        if buffer.is_empty() {
            self.end.set(End::Reached);
            return None;
        }
        if self.announced.get() == Announced::Bytes && !buffer.is_full() {
            self.announced.set(Announced::Nothing);
        }
        Some(Chunk::Lent(buffer))
    }

    #[cold]
    fn receive_without_buffer(&self, error: io::Error) -> Option<Chunk> {
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => self.receive_owned(ON_DEMAND_MAX_BYTES),
            Some(libc::EAGAIN) => {
                self.announced.set(Announced::Nothing);
                None
            }
            errno => {
                self.end.set(End::Failed(errno.unwrap_or(libc::EIO)));
                None
            }
        }
    }

    /// Receives where others may receive from the socket, too.
    #[cold]
    fn receive_shared(&self, limit: usize) -> Option<Chunk> {
        if self.ahead.is_allowed() || self.check_open().is_err() {
            return None;
        }
        match self.ahead.take() {
            // Before the end, which may have come when these had been received.
            Some(bytes) => Some(Chunk::Owned { bytes, start: 0 }),
            None if self.end.get() == End::NotYet => self.receive_owned(limit),
            None => None,
        }
    }

    fn receive_owned(&self, limit: usize) -> Option<Chunk> {
        let mut bytes = vec![0; limit.clamp(1, ON_DEMAND_MAX_BYTES)];
        match receive_now(self.descriptor(), &mut bytes) {
            Ok(0) => self.end.set(End::Reached),
            Ok(count) => {
                bytes.truncate(count);
                return Some(Chunk::Owned { bytes: bytes.into_boxed_slice(), start: 0 });
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => self.announced.set(Announced::Nothing),
                errno => self.end.set(End::Failed(errno.unwrap_or(libc::EIO))),
            },
        }
        None
    }

    /// Keeps a piece for the readers, who take it with [`take_unread`](Self::take_unread).
    pub(crate) fn keep_unread(&self, chunk: Chunk) {
        self.unread_bytes.set(self.unread_bytes.get() + chunk.len());
        self.unread.borrow_mut().push_back(chunk.kept());
    }

    /// Closes the stream if nothing is in flight and nobody waits; true if it did.
    pub fn close_if_idle(self: &Rc<Self>) -> bool {
        let idle = self.input.get().is_none() && self.output_is_idle();
        let idle = idle && self.readers.is_empty() && self.writers.is_empty();
        if idle {
            self.close();
        }
        idle
    }

    /// Sends what the kernel holds back to fill a segment, by switching Nagle's algorithm off and on
    /// again, as Janet's `net/flush` does. There is no other buffering.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) on a closed stream; the kernel's for a socket that is not TCP.
    pub fn flush(&self) -> io::Result<()> {
        self.check_open()?;
        // With the algorithm off, nothing is held back, and it must stay off.
        if option_number(self.descriptor(), libc::IPPROTO_TCP, libc::TCP_NODELAY)? == 0 {
            for nodelay in [true, false] {
                SocketOption::NoDelay(nodelay).set(self.socket()?)?;
            }
        }
        Ok(())
    }

    /// Sets an option of the socket.
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](crate::Closed) on a closed stream.
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

    pub(crate) fn readers(&self) -> &WaitList {
        &self.readers
    }

    /// Takes the next piece of received data, up to `limit` bytes of it.
    pub(crate) fn take_unread(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        // Taken out while the sink looks at it: the sink may use the stream.
        let Some(mut chunk) = self.unread.borrow_mut().pop_front() else { return 0 };
        let count = chunk.len().min(limit);
        self.unread_bytes.set(self.unread_bytes.get() - count);
        sink(&chunk[..count]);
        chunk.consume(count);
        if !chunk.is_empty() {
            self.unread.borrow_mut().push_front(chunk);
        }
        count
    }

    /// Puts bytes back in front of what is unread, for the next reader.
    pub(crate) fn put_back(&self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.is_closed() {
            self.unread_bytes.set(self.unread_bytes.get() + bytes.len());
            self.unread.borrow_mut().push_front(Chunk::Owned { bytes: Box::from(bytes), start: 0 });
            self.readers.wake_all();
        }
    }

    /// Takes the next piece of received data, or receives it.
    #[inline]
    pub(crate) fn take_chunk(&self) -> Option<Chunk> {
        if !self.has_unread() {
            return self.receive_on_demand(usize::MAX);
        }
        let chunk = self.unread.borrow_mut().pop_front()?;
        self.unread_bytes.set(self.unread_bytes.get() - chunk.len());
        Some(chunk)
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.unread_bytes.get() > 0
    }

    /// `Ok(true)` at the end of the stream, `Ok(false)` if more may come; an error is raised once, and
    /// is the end of the stream from then on, as in the kernel.
    pub(crate) fn input_ended(&self) -> io::Result<bool> {
        self.check_open()?;
        match self.end.get() {
            End::NotYet => Ok(false),
            // Who reads to the end may never write again, and is to know.
            End::Reached => self.check_behind().map(|()| true),
            End::Failed(errno) => {
                // A socket that has no peer yet may get one.
                self.end.set(if errno == libc::ENOTCONN { End::NotYet } else { End::Reached });
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// Has the waiter woken when there is input.
    #[inline]
    pub(crate) fn wait_for_input(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        self.readers.add(waiter);
        self.arm_input();
        if self.announced.get() != Announced::Nothing {
            self.wait_for_turn(waiter);
        }
    }

    /// There is more to receive than may be in one turn; nobody will tell of it again.
    #[cold]
    fn wait_for_turn(&self, waiter: &Rc<dyn Wake>) {
        self.received_at_once.set(0);
        self.event_loop.insert_timer(self.event_loop.now(), waiter.clone());
    }

    fn arm_input(self: &Rc<Self>) {
        if self.input.get().is_none() {
            let socket = self.descriptor.raw();
            let operation = match self.ahead.is_allowed() {
                true if self.event_loop.works_at_once() => Operation::PollInput { socket },
                true => Operation::Receive { socket },
                false => Operation::Poll { descriptor: socket, interest: Interest::Readable },
            };
            self.input.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }

    fn input_completed(self: &Rc<Self>, completion: Completion) {
        if !completion.more {
            self.input.set(None);
        }
        if self.is_closed() {
            return;
        }
        let mut news = true;
        match completion.result {
            Ok(0) => self.end.set(End::Reached),
            Ok(_) => {
                if let Some(buffer) = completion.buffer {
                    #[cfg(feature = "mutations")]
                    let buffer = crate::mutations::without_late_byte(buffer, completion.more, &self.readers);
                    self.keep_unread(Chunk::Lent(buffer));
                }
                if (self.unread_bytes.get() > UNREAD_MAX_BYTES || self.unread.borrow().is_long())
                    && let Some(key) = self.input.get()
                {
                    self.event_loop.cancel(key);
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    self.event_loop.wait_for_buffers(OperationKind::Receive, self.clone());
                    return;
                }
                // We paused it ourselves, or nothing happened: the stream goes on, unless the loop ends.
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => news = self.event_loop.is_shut_down(),
                errno => self.end.set(End::Failed(errno.unwrap_or(libc::EIO))),
            },
        }
        if news {
            self.readers.wake_all();
        } else if !self.readers.is_empty() {
            self.arm_input();
        }
    }

    /// There may be something to receive at once.
    #[inline]
    fn input_announced(&self, completion: &Completion) {
        self.sent_at_once.set(0);
        self.received_at_once.set(0);
        if !completion.more {
            self.input.set(None);
        }
        if self.is_closed() {
            return;
        }
        match &completion.result {
            Ok(events) if *events == libc::POLLIN as u32 && self.announced.get() != Announced::Anything => {
                self.announced.set(Announced::Bytes);
            }
            Ok(_) => self.announced.set(Announced::Anything),
            Err(error) => match error.raw_os_error() {
                // Whoever waits arms it again.
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                errno => self.end.set(End::Failed(errno.unwrap_or(libc::EIO))),
            },
        }
        self.readers.wake_all();
    }

    /// There may be something to receive on demand.
    fn input_polled(&self) {
        self.input.set(None);
        self.readers.wake_all();
    }

    fn close_descriptor_when_idle(&self) {
        let is_idle = self.input.get().is_none() && !self.output.get().is_in_flight();
        // In a forked child nothing is in flight, and no completion comes.
        if self.is_closed() && (is_idle || self.event_loop.check_process().is_err()) {
            self.descriptor.close();
        }
    }
}

impl Owner for StreamCore {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        match kind {
            OperationKind::PollInput => self.input_announced(&completion),
            OperationKind::Receive => self.input_completed(completion),
            OperationKind::Poll => self.input_polled(),
            _ => self.output_completed(completion.result, completion.unsent),
        }
        self.close_descriptor_when_idle();
    }
}

/// There are receive buffers again.
impl Wake for StreamCore {
    fn wake(self: Rc<Self>) {
        if !self.is_closed() && !self.readers.is_empty() {
            self.arm_input();
        }
    }
}

impl std::fmt::Debug for StreamCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamCore {{ descriptor: {}, closed: {} }}", self.descriptor(), self.is_closed())
    }
}
