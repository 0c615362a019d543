//! The common part of all sockets: an operation that receives or announces input, waiting readers, handing over and
//! closing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use ringspun_runtime::trace_point;
use ringspun_runtime::{Completion, EventLoop, Interest, Operation, OperationKind, Owner, Sweep, Wake};

use super::budget::Budget;
use super::input::{Announced, End, Input};
use super::read_ahead::LeftBehind;
use crate::descriptor::Descriptor;
use crate::error::closed;
use crate::options::SocketOption;
use crate::system::set_nonblocking;

/// A kind of socket, by what it receives: bytes, connections or datagrams.
pub trait Kind: Sized + 'static {
    /// The unit of input.
    type Piece;
    /// A piece in a form that can be sent to another thread.
    type Detached: Send;
    /// The output side.
    type Output;

    /// The weight of queued pieces above which the socket stops receiving ahead.
    const QUEUE_MAX: usize;
    /// Whether an error ends the input, as on streams; otherwise, more pieces may follow.
    const ERROR_IS_END: bool;
    /// Whether closing waits until the kernel no longer uses the socket, so that its port is free afterwards.
    const CLOSE_FREES_PORT: bool;
    /// The cost of taking a piece from the kernel, in units of the budget.
    const TAKE_COST: u8;
    /// The budget of the socket's calls in a turn.
    const BUDGET: u8;

    /// The weight of a piece in the queue: at least 1.
    fn weight(piece: &Self::Piece) -> usize;

    /// The output side of a new socket.
    fn output_of(descriptor: &OwnedFd) -> Self::Output;

    /// The operation that receives or announces pieces until it is cancelled; `None` for a socket that must be read one
    /// piece at a time.
    fn continuous_operation(socket: &Socket<Self>) -> Option<Operation>;

    /// Whether that operation only announces input and leaves it in the kernel, so that it also suits sockets that are
    /// not busy.
    fn only_announces(_: &Socket<Self>) -> bool {
        false
    }

    /// Takes a piece from the kernel without waiting. `limit` is the maximum size of a piece of bytes.
    ///
    /// # Errors
    ///
    /// Those of the system call, including `EAGAIN`.
    fn take_now(socket: &Socket<Self>, limit: usize) -> io::Result<Taken<Self::Piece>>;

    /// The piece of a completion; `None` at the end of the input.
    fn piece_of(socket: &Socket<Self>, completion: Completion) -> Option<Self::Piece>;

    /// Discards a piece that arrived after the socket was closed.
    fn discard(piece: Self::Piece) {
        drop(piece);
    }

    /// Whether an error is transient, so that receiving continues.
    fn is_transient(errno: i32) -> bool {
        matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN)
    }

    /// Converts a piece so that it can be sent to another thread.
    fn detach(piece: Self::Piece) -> Self::Detached;

    /// The reverse of [`detach`](Self::detach).
    fn attach(detached: Self::Detached) -> Self::Piece;

    /// Handles a completion of the output side.
    fn output_completed(_: &Rc<Socket<Self>>, _: OperationKind, _: Completion) {}

    /// Ends the output in flight of a socket that is being closed.
    fn end_output(_: &Rc<Socket<Self>>) {}

    /// Wakes all waiting writers.
    fn wake_writers(_: &Socket<Self>) {}

    /// Returns, once, the error of output that no writer waited for.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn check_output(_: &Socket<Self>) -> io::Result<()> {
        Ok(())
    }

    /// Whether the output side has nothing in flight.
    fn is_output_over(_: &Socket<Self>) -> bool {
        true
    }

    /// Whether the output side has nothing in flight, no waiting writers, and no error to report.
    fn is_output_idle(_: &Socket<Self>) -> bool {
        true
    }
}

/// The result of [`Kind::take_now`].
pub enum Taken<P> {
    /// A piece.
    Piece {
        /// The piece itself.
        piece: P,
        /// Whether the kernel had no more.
        is_last: bool,
    },
    /// The end of the input.
    End,
}

/// The shared part of a socket, which its operations keep alive.
///
/// With thousands of sockets, each cache line touched is a cache miss: the fields that every read and write needs come
/// first, in this order.
#[repr(C)]
pub struct Socket<K: Kind> {
    event_loop: Rc<EventLoop>,
    descriptor: Descriptor,
    pub(super) budget: Budget,
    pub(super) input: Input<K::Piece, K::Detached>,
    pub(super) output: K::Output,
}

impl<K: Kind> Socket<K> {
    /// Wraps a socket of this kind.
    pub fn new(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Rc<Self> {
        Self::with_left_behind(event_loop, descriptor, None)
    }

    /// Wraps a socket that was handed over, with the data that was received ahead by then.
    pub fn with_left_behind(
        event_loop: Rc<EventLoop>,
        descriptor: OwnedFd,
        left_behind: Option<LeftBehind<K::Detached>>,
    ) -> Rc<Self> {
        trace_point!(socket_open, descriptor.as_raw_fd());
        Rc::new(Self {
            event_loop,
            output: K::output_of(&descriptor),
            descriptor: Descriptor::new(descriptor),
            budget: Budget::default(),
            input: Input::new(left_behind),
        })
    }

    /// The event loop of this socket.
    pub fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    /// The descriptor, which is open unless [`is_closed`](Self::is_closed).
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.raw()
    }

    /// The descriptor, borrowed for a call.
    pub(crate) fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        self.descriptor.borrow().ok_or_else(|| closed(&self.event_loop))
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.descriptor.is_closing()
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

    /// Fails on a socket that is closed, when the loop is shutting down, and in a forked child.
    #[inline]
    pub fn check_open(&self) -> io::Result<()> {
        let is_over = self.is_closed() || self.event_loop.is_shut_down();
        if is_over { Err(closed(&self.event_loop)) } else { Ok(()) }
    }

    /// Whether there is certainly nothing to take now, and nothing to report: the usual case before a wait.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        let input = &self.input;
        input.weight() == 0
            && input.announced.get() == Announced::Nothing
            && input.end.get() == End::NotYet
            && !input.ahead.is_shared()
            && !self.is_closed()
            && !self.event_loop.is_shut_down()
    }

    /// Takes the next piece: one that was received ahead, or one from the kernel, of up to `limit` bytes. After `None`,
    /// [`input_ended`](Self::input_ended) says whether more may follow, and
    /// [`wait_for_input`](Self::wait_for_input) waits for it.
    #[inline]
    pub fn take(&self, limit: usize) -> Option<K::Piece> {
        let piece = self.input.pop_front(K::weight);
        let may_have = self.input.announced.get() != Announced::Nothing || self.input.ahead.is_shared();
        if piece.is_some() || !may_have { piece } else { self.take_from_kernel(limit) }
    }

    /// As [`take`](Self::take), for callers that do not wait: also looks into the kernel if nothing has been announced,
    /// unless an operation in flight is to announce it.
    pub fn try_take(&self, limit: usize) -> Option<K::Piece> {
        let piece = self.take(limit);
        if piece.is_some() || self.input.armed.get().is_some() { piece } else { self.take_from_kernel(limit) }
    }

    /// Out of line, for the sake of the frames of streams that receive ahead.
    #[inline(never)]
    fn take_from_kernel(&self, limit: usize) -> Option<K::Piece> {
        let input = &self.input;
        if input.ahead.is_shared()
            && let Some(detached) = input.ahead.take()
        {
            // Before the end of the input, which is behind it.
            return Some(K::attach(detached));
        }
        if input.end.get() != End::NotYet || self.is_closed() {
            return None;
        }
        if !self.budget.spend(&self.event_loop, K::TAKE_COST, K::BUDGET) {
            return None;
        }
        let limit = if input.is_busy() { usize::MAX } else { limit };
        match K::take_now(self, limit) {
            Ok(Taken::Piece { piece, is_last }) => {
                input.count_taken();
                if is_last && input.announced.get() == Announced::Some {
                    input.announced.set(Announced::Nothing);
                }
                return Some(piece);
            }
            Ok(Taken::End) => input.end.set(End::Reached),
            Err(error) => match errno_of(&error) {
                libc::EAGAIN => input.announced.set(Announced::Nothing),
                errno if K::is_transient(errno) => {}
                errno => input.end.set(End::Failed(errno)),
            },
        }
        None
    }

    /// Puts a piece back at the front of the queue, for the next reader.
    pub fn put_back(&self, piece: K::Piece) {
        if !self.is_closed() {
            let weight = K::weight(&piece);
            self.input.push_front(piece, weight);
            self.input.readers.wake_all();
        }
    }

    /// `Ok(true)` at the end of the input, `Ok(false)` if more may follow.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed); the error that ended the input, once.
    pub fn input_ended(&self) -> io::Result<bool> {
        self.check_open()?;
        let has_ended = self.input.ended(K::ERROR_IS_END)?;
        if has_ended {
            // A caller that has read to the end may never write again, so this is the place to report errors of output.
            K::check_output(self)?;
        }
        Ok(has_ended)
    }

    /// A call has found nothing in the kernel: from now on, an operation announces input.
    pub(crate) fn note_nothing_to_take(&self) {
        self.input.announced.set(Announced::Nothing);
    }

    /// Whether a look into the kernel has found nothing, and nothing was announced since.
    pub(crate) fn has_nothing_to_take(&self) -> bool {
        self.input.announced.get() == Announced::Nothing
    }

    /// Wakes the waiter when there is input.
    #[inline]
    pub fn wait_for_input(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        if self.input.announced.get() == Announced::Nothing {
            self.input.readers.add(waiter);
            self.arm_input();
        } else {
            // The budget of this turn is used up, and no event will announce the rest. Nobody would take the waiter out
            // of the list of readers.
            self.event_loop.wake_next_turn(waiter.clone());
        }
    }

    /// Wakes all waiting readers: a layer above has something for them.
    pub fn wake_readers(&self) {
        self.input.readers.wake_all();
    }

    /// Removes the waiter of a reader that gives up.
    pub fn leave_readers(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        self.input.readers.remove(waiter);
        self.sweep_if_ahead();
    }

    fn arm_input(self: &Rc<Self>) {
        if self.input.armed.get().is_none() {
            let is_suited = self.input.is_busy() || K::only_announces(self);
            let may_continue = is_suited && self.input.ahead.is_allowed();
            let continuous = if may_continue { K::continuous_operation(self) } else { None };
            let descriptor = self.descriptor();
            let once = || Operation::Poll { descriptor, interest: Interest::Readable };
            let operation = continuous.unwrap_or_else(once);
            self.input.armed.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }

    /// Registers the socket for sweeps if it receives ahead.
    #[inline]
    fn sweep_if_ahead(self: &Rc<Self>) {
        let input = &self.input;
        if !input.is_swept.get() && self.runs_ahead() && input.armed.get().is_some() {
            self.sweep_soon();
        }
    }

    /// Whether the socket receives ahead of its readers while its operation is armed.
    #[inline]
    pub(super) fn runs_ahead(&self) -> bool {
        self.input.is_busy() && !K::only_announces(self)
    }

    #[cold]
    fn sweep_soon(self: &Rc<Self>) {
        self.input.is_swept.set(true);
        self.event_loop.sweep_later(self.clone());
    }

    #[inline]
    fn input_completed(self: &Rc<Self>, completion: Completion) {
        let input = &self.input;
        if !completion.more {
            input.armed.set(None);
        }
        match completion.result.as_ref().err().map(errno_of) {
            None => match K::piece_of(self, completion) {
                Some(piece) if self.is_closed() => return K::discard(piece),
                Some(piece) => {
                    let weight = K::weight(&piece);
                    input.push_back(piece, weight);
                    self.pause_if_full();
                }
                None => input.end.set(End::Reached),
            },
            Some(errno) if K::is_transient(errno) && !self.event_loop.is_shut_down() => {
                if !input.readers.is_empty() && !self.is_closed() {
                    self.arm_input();
                }
                return;
            }
            Some(errno) if K::is_transient(errno) => {}
            Some(errno) => input.end.set(End::Failed(errno)),
        }
        self.sweep_if_ahead();
        input.readers.wake_all();
    }

    #[inline]
    fn pause_if_full(&self) {
        if self.input.weight() > K::QUEUE_MAX
            && let Some(key) = self.input.armed.get()
        {
            self.event_loop.cancel(key);
        }
    }

    /// Handles a completion that announces input.
    #[inline]
    fn input_announced(self: &Rc<Self>, result: io::Result<u32>, more: bool) {
        let input = &self.input;
        if !more {
            input.armed.set(None);
        }
        if self.is_closed() {
            return;
        }
        match result {
            Ok(events)
                if events == libc::POLLIN as u32 && input.announced.get() != Announced::UntilNothing =>
            {
                input.announced.set(Announced::Some);
            }
            Ok(_) => input.announced.set(Announced::UntilNothing),
            Err(error) => match errno_of(&error) {
                // Woken readers arm it again.
                errno if K::is_transient(errno) => {}
                errno => input.end.set(End::Failed(errno)),
            },
        }
        input.readers.wake_all();
    }

    /// Prepares for the use of another descriptor of the socket in another thread: stops receiving ahead, and returns
    /// the argument for that descriptor's [`with_left_behind`](Self::with_left_behind).
    pub fn share(&self) -> LeftBehind<K::Detached> {
        let left_behind = self.input.ahead.share();
        self.stop_input();
        self.input.ahead.leave(self.input.drain().into_iter().map(K::detach));
        left_behind
    }

    /// Prepares for the use of the socket in another process: stops receiving ahead permanently. Data already received
    /// stays with the readers of this process. Makes the socket blocking, as processes expect of their standard
    /// streams; our own calls still do not block.
    pub fn share_with_process(&self) {
        self.leave_in_kernel();
        if self.event_loop.check_process().is_ok() {
            // On failure, the process gets a non-blocking socket.
            let _ = set_nonblocking(self.descriptor(), false);
        }
    }

    /// Prepares for other users of the descriptor in this thread: from now on, input stays in the kernel until a reader
    /// takes it, and the bytes of a write that has returned are in the kernel. Data already received stays with the
    /// readers, and writes that have returned already are not waited for.
    pub fn leave_in_kernel(&self) {
        self.input.never_receive_ahead();
        self.stop_input();
    }

    /// Whether something has been received that nobody has read.
    pub fn has_received(&self) -> bool {
        self.input.weight() > 0 || self.input.ahead.has_left_behind()
    }

    /// Has [`close`](Self::close) leave the descriptor open, for another owner.
    pub fn leave_descriptor_open(&self) {
        self.descriptor.leave_open();
    }

    /// Takes the descriptor, with nothing in flight on it. `None` if it is another owner's.
    pub(super) fn release_descriptor(&self) -> Option<OwnedFd> {
        self.descriptor.release()
    }

    fn stop_input(&self) {
        if let Some(key) = self.input.armed.get() {
            // After an error of the loop, nothing is received anyway.
            let _ = self.event_loop.cancel_and_wait(key);
        }
        // The kernel may have input.
        self.input.announced.set(Announced::Some);
    }

    /// Closes the socket: cancels operations in flight, wakes all waiters, drops queued pieces, and closes the
    /// descriptor after the last terminal completion. Closing again does nothing.
    ///
    /// On listeners and datagram sockets, waits for that completion, so that the port is free when this returns.
    pub fn close(self: &Rc<Self>) {
        if !self.descriptor.begin_close() {
            return;
        }
        if let Some(key) = self.input.armed.get() {
            if K::CLOSE_FREES_PORT {
                // After an error of the loop, the descriptor stays open: the kernel may still use it.
                let _ = self.event_loop.cancel_and_wait(key);
            } else {
                self.event_loop.cancel(key);
            }
        }
        K::end_output(self);
        drop(self.input.drain());
        self.input.ahead.end();
        self.close_descriptor_when_idle();
        self.input.readers.wake_all();
        K::wake_writers(self);
    }

    /// Closes the socket if it has nothing in flight and no waiters; true if it did.
    pub fn close_if_idle(self: &Rc<Self>) -> bool {
        let input = &self.input;
        let idle = input.armed.get().is_none() && input.readers.is_empty() && K::is_output_idle(self);
        if idle {
            self.close();
        }
        idle
    }

    #[inline]
    pub(super) fn close_descriptor_when_idle(&self) {
        if self.is_closed() {
            let is_idle = self.input.armed.get().is_none() && K::is_output_over(self);
            // In a forked child, nothing is in flight, and no completion arrives.
            if is_idle || self.event_loop.check_process().is_err() {
                self.descriptor.close();
            }
        }
    }
}

/// The errno of an error, which must be one of the kernel's.
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl<K: Kind> Owner for Socket<K> {
    #[inline]
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        match kind {
            OperationKind::Receive | OperationKind::ReceiveFrom | OperationKind::Accept => {
                self.input_completed(completion);
            }
            OperationKind::Poll | OperationKind::PollInput => {
                self.input_announced(completion.result, completion.more)
            }
            _ => K::output_completed(&self, kind, completion),
        }
        self.close_descriptor_when_idle();
    }
}

/// Stops receiving ahead on a socket that has not been read for a while.
impl<K: Kind> Sweep for Socket<K> {
    fn sweep(self: Rc<Self>) -> bool {
        let input = &self.input;
        let is_ahead = self.runs_ahead() && !self.is_closed() && input.readers.is_empty();
        if is_ahead && let Some(key) = input.armed.get() {
            if input.was_read.take() {
                return true;
            }
            input.reset_busy();
            self.event_loop.cancel(key);
        }
        input.is_swept.set(false);
        false
    }
}

impl<K: Kind> std::fmt::Debug for Socket<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket {{ descriptor: {}, closed: {} }}", self.descriptor(), self.is_closed())
    }
}
