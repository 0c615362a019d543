//! What sockets of all kinds have in common: one operation that brings input or tells of it, the readers who wait, and
//! how a socket is shared and closed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

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
    /// What a reader takes at a time.
    type Piece;
    /// A piece in a form that can go to another thread.
    type Detached: Send;
    /// The output side.
    type Output;

    /// The weight of pieces that nobody has taken, above which the socket stops receiving ahead.
    const QUEUE_MAX: usize;
    /// Whether an error is the end of the input, as in a stream; or else the next piece may be had all the same.
    const ERROR_IS_END: bool;
    /// Whether closing waits until the kernel has let go of the socket, so that its port is free then.
    const CLOSE_FREES_PORT: bool;
    /// What taking a piece from the kernel costs, of what the socket's calls may cost in a turn.
    const TAKE_COST: u8;
    /// That sum.
    const BUDGET: u8;

    /// How much a piece counts in the queue: at least 1.
    fn weight(piece: &Self::Piece) -> usize;

    /// The output side of a new socket.
    fn output_of(descriptor: &OwnedFd) -> Self::Output;

    /// The operation that brings pieces, or tells of them, until it is cancelled; `None` for a socket that has to be
    /// read one piece at a time.
    fn continuous_operation(socket: &Socket<Self>) -> Option<Operation>;

    /// Whether that operation is for every socket, and not only for those that have proven busy, because it leaves
    /// what it tells of in the kernel.
    fn only_tells(_: &Socket<Self>) -> bool {
        false
    }

    /// Takes a piece from the kernel without waiting, of up to `limit` bytes if it is one of bytes.
    ///
    /// # Errors
    ///
    /// Those of the system call, `EAGAIN` among them.
    fn take_now(socket: &Socket<Self>, limit: usize) -> io::Result<Taken<Self::Piece>>;

    /// The piece that a completion brings; `None` is the end of the input.
    fn piece_of(socket: &Socket<Self>, completion: Completion) -> Option<Self::Piece>;

    /// Lets go of a piece that came after the socket was closed.
    fn discard(piece: Self::Piece) {
        drop(piece);
    }

    /// Whether an error is no more than a pause, after which receiving goes on.
    fn passes(errno: i32) -> bool {
        matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN)
    }

    /// Makes a piece fit for another thread.
    fn detach(piece: Self::Piece) -> Self::Detached;

    /// The reverse of [`detach`](Self::detach).
    fn attach(detached: Self::Detached) -> Self::Piece;

    /// Takes a completion of the output side.
    fn output_completed(_: &Rc<Socket<Self>>, _: OperationKind, _: Completion) {}

    /// Ends what the output side has in flight, as the socket is being closed.
    fn end_output(_: &Rc<Socket<Self>>) {}

    /// Wakes whoever waits to write.
    fn wake_writers(_: &Socket<Self>) {}

    /// Tells, once, what has gone wrong with output that nobody waited for.
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

    /// Whether, besides that, nobody waits to write, and nothing has to be told.
    fn is_output_idle(_: &Socket<Self>) -> bool {
        true
    }
}

/// What [`Kind::take_now`] has found.
pub enum Taken<P> {
    /// A piece.
    Piece {
        /// The piece itself.
        piece: P,
        /// The kernel had no more at that time.
        is_last: bool,
    },
    /// The end of the input.
    End,
}

/// The shared part of a socket, which its operations keep alive.
///
/// With thousands of sockets, no cache holds them all, and each of their cache lines that is used costs time: what
/// every read and write needs comes first, in this order.
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

    /// Wraps a socket that was handed over, with what it had received until then.
    pub fn with_left_behind(
        event_loop: Rc<EventLoop>,
        descriptor: OwnedFd,
        left_behind: Option<LeftBehind<K::Detached>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            event_loop,
            output: K::output_of(&descriptor),
            descriptor: Descriptor::new(descriptor),
            budget: Budget::default(),
            input: Input::new(left_behind),
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

    /// The descriptor, for a call that is over before this is closed.
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
    pub(crate) fn check_open(&self) -> io::Result<()> {
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

    /// Takes the next piece: one that has been received ahead, or one of up to `limit` bytes that the kernel has.
    /// `None` is not for ever: [`input_ended`](Self::input_ended) says whether more may come, and
    /// [`wait_for_input`](Self::wait_for_input) waits for it.
    #[inline]
    pub(crate) fn take(&self, limit: usize) -> Option<K::Piece> {
        let piece = self.input.pop_front(K::weight);
        let is_told = self.input.announced.get() != Announced::Nothing || self.input.ahead.is_shared();
        if piece.is_some() || !is_told { piece } else { self.take_from_kernel(limit) }
    }

    fn take_from_kernel(&self, limit: usize) -> Option<K::Piece> {
        let input = &self.input;
        if input.ahead.is_shared()
            && let Some(detached) = input.ahead.take()
        {
            // Before the end, which may have come after this had been received.
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
                errno if K::passes(errno) => {}
                errno => input.end.set(End::Failed(errno)),
            },
        }
        None
    }

    /// Puts a piece back in front of those that nobody has taken, for the next reader.
    pub(crate) fn put_back(&self, piece: K::Piece) {
        if !self.is_closed() {
            let weight = K::weight(&piece);
            self.input.push_front(piece, weight);
            self.input.readers.wake_all();
        }
    }

    /// `Ok(true)` at the end of the input, `Ok(false)` if more may come.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed); what ended the input, once.
    pub(crate) fn input_ended(&self) -> io::Result<bool> {
        self.check_open()?;
        let has_ended = self.input.ended(K::ERROR_IS_END)?;
        if has_ended {
            // Who reads to the end may never write again, and is to know.
            K::check_output(self)?;
        }
        Ok(has_ended)
    }

    /// Has the waiter woken when there is input.
    #[inline]
    pub(crate) fn wait_for_input(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        self.input.readers.add(waiter);
        if self.input.announced.get() == Announced::Nothing {
            self.arm_input();
        } else {
            // There is more than may be taken in one turn, and nobody will tell of it again.
            self.event_loop.wake_next_turn(waiter.clone());
        }
    }

    /// Takes the waiter of a reader back who gives up.
    pub(crate) fn leave_readers(self: &Rc<Self>, waiter: &Rc<dyn Wake>) {
        self.input.readers.remove(waiter);
        self.sweep_if_ahead();
    }

    fn arm_input(self: &Rc<Self>) {
        if self.input.armed.get().is_none() {
            let may_go_on = (self.input.is_busy() || K::only_tells(self)) && self.input.ahead.is_allowed();
            let continuous = if may_go_on { K::continuous_operation(self) } else { None };
            let descriptor = self.descriptor();
            let once = || Operation::Poll { descriptor, interest: Interest::Readable };
            let operation = continuous.unwrap_or_else(once);
            self.input.armed.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }

    /// Has the loop ask in a while whether anybody still reads, where pieces may come ahead of the readers.
    #[inline]
    fn sweep_if_ahead(self: &Rc<Self>) {
        let input = &self.input;
        if !input.is_swept.get() && self.runs_ahead() && input.armed.get().is_some() {
            self.sweep_soon();
        }
    }

    /// Whether pieces are received before anybody asks for them, once the operation for that is armed.
    #[inline]
    pub(super) fn runs_ahead(&self) -> bool {
        self.input.is_busy() && !K::only_tells(self)
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
            Some(errno) if K::passes(errno) && !self.event_loop.is_shut_down() => {
                if !input.readers.is_empty() && !self.is_closed() {
                    self.arm_input();
                }
                return;
            }
            Some(errno) if K::passes(errno) => {}
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

    /// There may be something to take from the kernel.
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
                // Whoever waits arms it again.
                errno if K::passes(errno) => {}
                errno => input.end.set(End::Failed(errno)),
            },
        }
        input.readers.wake_all();
    }

    /// Prepares for another descriptor of the socket to be used in another thread: stops receiving ahead, and gives
    /// what that descriptor's [`with_left_behind`](Self::with_left_behind) needs.
    pub fn share(&self) -> LeftBehind<K::Detached> {
        let left_behind = self.input.ahead.share();
        self.stop_input();
        self.input.ahead.leave(self.input.drain().into_iter().map(K::detach));
        left_behind
    }

    /// Prepares for another process to use the socket: stops receiving ahead, for good. What has been received is for
    /// the readers here. The process finds a socket that blocks, as it expects of its standard streams; calls of ours
    /// do not block all the same.
    pub fn share_with_process(&self) {
        self.input.ahead.forbid();
        self.stop_input();
        if self.event_loop.check_process().is_ok() {
            // A socket that refuses is one that the process has to cope with.
            let _ = set_nonblocking(self.descriptor(), false);
        }
    }

    fn stop_input(&self) {
        if let Some(key) = self.input.armed.get() {
            // If the loop cannot be turned any more, nothing is received either.
            let _ = self.event_loop.cancel_and_wait(key);
        }
        // What was left behind, or is there, may be taken.
        self.input.announced.set(Announced::Some);
    }

    /// Closes the socket: operations in flight are cancelled, whoever waits is woken to find it closed, pieces that
    /// nobody has taken are dropped, and the descriptor is closed when the last terminal completion has come. Closing
    /// again does nothing.
    ///
    /// For listeners and datagram sockets, that completion is waited for, so that the port is free when this returns.
    pub fn close(self: &Rc<Self>) {
        if !self.descriptor.begin_close() {
            return;
        }
        if let Some(key) = self.input.armed.get() {
            if K::CLOSE_FREES_PORT {
                // If the loop cannot be turned any more, the descriptor stays open: the kernel may still use it.
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

    /// Closes the socket if nothing is in flight and nobody waits; true if it did.
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
            // In a forked child nothing is in flight, and no completion comes.
            if is_idle || self.event_loop.check_process().is_err() {
                self.descriptor.close();
            }
        }
    }
}

/// The number of an error; each of these is the kernel's.
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

/// Nobody has read from the socket for a while: what comes now is to stay in the kernel.
impl<K: Kind> Sweep for Socket<K> {
    fn sweep(self: Rc<Self>) -> bool {
        let input = &self.input;
        let is_ahead = self.runs_ahead() && !self.is_closed() && input.readers.is_empty();
        if is_ahead && let Some(key) = input.armed.get() {
            if input.was_read.take() {
                return true;
            }
            input.calm();
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
