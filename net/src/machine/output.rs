//! The output side of a stream socket: at most one send or connect in flight, and a queue of waiting writers.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::{Batch, Operation, OperationKey, SendData, TimerKey, WaitList, Wake};

use super::socket::{Kind, Socket, errno_of};
use crate::address::Address;
use crate::error::closed;
use crate::system::{reset_at_close, shutdown};

/// How long a closed stream continues a pending send: otherwise, a peer that never reads would keep its descriptor open
/// indefinitely.
const ENDING_MAX: Duration = Duration::from_secs(30);

/// The output side of a stream.
#[derive(Default)]
#[repr(C)]
pub struct Output {
    pub(super) state: Cell<State>,
    /// The number of small messages sent by a system call each, up to `BUSY_AFTER`.
    pub(super) sent: Cell<u8>,
    /// Shut down writing once no detached send is in flight.
    shuts_down_behind: Cell<bool>,
    /// Writing has been shut down, or will be.
    pub(super) is_shut_down: Cell<bool>,
    /// How many handles there are besides the first. Here, it takes no room.
    clones: Cell<u32>,
    pub(super) writers: WaitList,
    /// The result of the send or connect, until the machine that started it takes it.
    result: Cell<Option<io::Result<u32>>>,
    /// Data of detached sends that follows what is in flight.
    queued: Cell<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Idle,
    InFlight(OperationKey),
    /// In flight; the result will be discarded.
    Abandoned(OperationKey),
    /// A message of a write that has returned is in this batch: a detached send. The output is idle after the batch.
    Soon(Batch),
    /// The same, with more data queued behind the message.
    SoonThen(Batch),
    /// The rest of such a message, or queued data, `total` bytes, is in flight. Must not be cancelled.
    Behind {
        send: OperationKey,
        total: u32,
    },
    /// The same on a closed stream, until the timer cancels it. Then `is_time_up`, and the timer repeats the cancel.
    Ending {
        send: OperationKey,
        timer: TimerKey,
        is_time_up: bool,
    },
    /// A detached send has failed with this errno. The next write, or a read at the end, reports it; a close before
    /// that resets the connection.
    Lost(i32),
    /// Done; the result has not been taken.
    Finished,
}

/// Waits for the batch with a message of a socket that will be shut down or closed afterwards.
struct AfterBatch<K: Kind>(Rc<Socket<K>>);

impl<K: Kind<Output = Output>> Wake for AfterBatch<K> {
    fn wake(self: Rc<Self>) {
        self.0.check_batch();
    }
}

/// Cancels the pending send of a closed stream when its time is up.
struct Ending<K: Kind>(Rc<Socket<K>>);

impl<K: Kind<Output = Output>> Wake for Ending<K> {
    fn wake(self: Rc<Self>) {
        self.0.cancel_ending();
    }
}

impl<K: Kind<Output = Output>> Socket<K> {
    pub(crate) fn has_clones(&self) -> bool {
        self.output.clones.get() > 0
    }

    /// There is another handle.
    pub(crate) fn add_clone(&self) {
        self.output.clones.set(self.output.clones.get().saturating_add(1));
    }

    /// A handle is gone; true for the last one.
    #[inline]
    pub(crate) fn drop_clone(&self) -> bool {
        let clones = self.output.clones.get();
        self.output.clones.set(clones.saturating_sub(1));
        clones == 0
    }

    pub(crate) fn writers(&self) -> &WaitList {
        &self.output.writers
    }

    #[inline]
    pub(crate) fn output_is_idle(&self) -> bool {
        match self.output.state.get() {
            State::Idle => true,
            State::Soon(batch) => self.event_loop().is_over(batch),
            _ => false,
        }
    }

    /// Whether a send or connect is in flight.
    pub(crate) fn output_is_in_flight(&self) -> bool {
        match self.output.state.get() {
            State::InFlight(_) | State::Abandoned(_) => true,
            _ => self.is_behind(),
        }
    }

    /// Whether a detached send is in flight.
    fn is_behind(&self) -> bool {
        match self.output.state.get() {
            State::Soon(batch) => !self.event_loop().is_over(batch),
            State::SoonThen(_) | State::Behind { .. } | State::Ending { .. } => true,
            _ => false,
        }
    }

    /// Whether a message is in a batch that is not over. No completion signals its end.
    fn is_in_batch(&self) -> bool {
        match self.output.state.get() {
            State::Soon(batch) | State::SoonThen(batch) => !self.event_loop().is_over(batch),
            _ => false,
        }
    }

    /// Wakes a queued writer in the next turn of the loop if it waits for a batch, whose end no completion signals.
    pub(crate) fn wait_for_batch(&self, waiter: &Rc<dyn Wake>) {
        if self.is_in_batch() {
            self.event_loop().wake_next_turn(waiter.clone());
        }
    }

    fn follow_batch(self: &Rc<Self>) {
        self.event_loop().wake_next_turn(Rc::new(AfterBatch(self.clone())));
    }

    #[cold]
    fn check_batch(self: &Rc<Self>) {
        if self.is_in_batch() {
            return self.follow_batch();
        }
        if matches!(self.output.state.get(), State::SoonThen(_)) {
            self.send_queued();
        }
        if self.output_is_idle() {
            self.shut_down_behind();
        }
        self.close_descriptor_when_idle();
    }

    /// Starts an operation of the output, which must be idle.
    pub(crate) fn start_output(self: &Rc<Self>, operation: Operation) {
        debug_assert!(self.output_is_idle());
        self.output.state.set(State::InFlight(self.event_loop().submit(operation, self.clone())));
    }

    #[cold]
    pub(super) fn queue(self: &Rc<Self>, data: &[u8]) {
        let mut queued = self.output.queued.take();
        queued.extend_from_slice(data);
        self.output.queued.set(queued);
        match self.output.state.get() {
            State::Soon(batch) if !self.event_loop().is_over(batch) => {
                self.output.state.set(State::SoonThen(batch));
                self.follow_batch();
            }
            State::Idle | State::Soon(_) => self.send_queued(),
            // When what is in flight has ended.
            _ => {}
        }
    }

    /// Starts to send what is queued; the output is idle if nothing is.
    #[inline]
    fn send_queued(self: &Rc<Self>) {
        let queued = self.output.queued.take();
        self.output.state.set(if queued.is_empty() { State::Idle } else { self.start_behind(queued) });
    }

    fn start_behind(self: &Rc<Self>, data: Vec<u8>) -> State {
        let total = data.len() as u32;
        let send = self.send_rest(data, 0);
        match self.is_closed() {
            true => State::Ending { send, timer: self.ending_timer(), is_time_up: false },
            false => State::Behind { send, total },
        }
    }

    /// The state after a detached send has failed: what is queued behind it is lost, too.
    #[cold]
    fn lost(&self, errno: i32) -> State {
        drop(self.output.queued.take());
        State::Lost(errno)
    }

    /// Whether a write would begin now: nothing is in flight, and no writer waits.
    #[inline]
    pub fn is_free_to_send(&self) -> bool {
        self.output_is_idle() && self.output.writers.is_empty()
    }

    /// Ready when it is this waiter's turn to write, and everything sent before is in the kernel. Other writers wait
    /// until it calls [`leave_writers`](Self::leave_writers), which it must do in any case.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) on a closed stream; the kernel's if a detached send has failed, once.
    pub fn poll_turn(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.check_open()?;
        self.check_behind()?;
        let is_first = self.output.writers.add(waiter);
        if is_first && self.output_is_idle() {
            return Poll::Ready(Ok(()));
        }
        if is_first {
            self.wait_for_batch(waiter);
        }
        Poll::Pending
    }

    /// Ready when no detached send is in flight.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) on a closed stream; the kernel's if a detached send has failed, once.
    pub fn poll_behind(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        match self.output.state.get() {
            State::Behind { .. } | State::SoonThen(_) => {
                self.output.writers.add(waiter);
                return Poll::Pending;
            }
            State::Soon(_) if self.is_in_batch() => {
                self.wait_for_batch(waiter);
                return Poll::Pending;
            }
            State::Ending { .. } => {
                self.leave_writers(waiter);
                return Poll::Ready(Err(closed(self.event_loop())));
            }
            _ => {}
        }
        self.leave_writers(waiter);
        Poll::Ready(self.check_behind())
    }

    /// Returns, once, the error of a failed detached send.
    ///
    /// # Errors
    ///
    /// The kernel's.
    #[inline]
    pub(crate) fn check_behind(&self) -> io::Result<()> {
        match self.output.state.get() {
            State::Lost(errno) => {
                self.output.state.set(State::Idle);
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    /// Shuts down one or both directions (`shutdown(2)`), writing only after detached sends.
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](crate::Closed) on a closed stream.
    pub fn shutdown(self: &Rc<Self>, how: Shutdown) -> io::Result<()> {
        self.check_open()?;
        if how == Shutdown::Read || !self.is_behind() {
            shutdown(self.descriptor(), how)?;
            self.output.is_shut_down.set(how != Shutdown::Read || self.output.is_shut_down.get());
            return Ok(());
        }
        self.output.is_shut_down.set(true);
        self.output.shuts_down_behind.set(true);
        if self.is_in_batch() {
            self.follow_batch();
        }
        if how == Shutdown::Both { shutdown(self.descriptor(), Shutdown::Read) } else { Ok(()) }
    }

    /// Starts a connect. The output must be idle.
    pub(crate) fn start_connect(self: &Rc<Self>, address: Address) {
        let address = Box::new(address.raw());
        self.start_output(Operation::Connect { socket: self.descriptor(), address });
    }

    /// Takes the result of the send or connect that the caller started; `None` while it is in flight.
    #[inline]
    pub(crate) fn take_output_result(&self) -> Option<io::Result<u32>> {
        if self.output.state.get() != State::Finished {
            return None;
        }
        self.output.state.set(State::Idle);
        self.output.result.take()
    }

    /// Removes a writer from the queue, and wakes the next one if it was first.
    #[inline]
    pub fn leave_writers(&self, waiter: &Rc<dyn Wake>) {
        let was_first = self.output.writers.remove(waiter);
        #[cfg(feature = "mutations")]
        let was_first = was_first && !crate::mutations::loses_wake();
        if was_first {
            self.output.writers.wake_first();
        }
    }

    /// Requests cancellation of the output in flight unless it is detached; its result still follows.
    pub(crate) fn cancel_output(&self) {
        if let State::InFlight(key) = self.output.state.get() {
            self.event_loop().cancel(key);
        }
    }

    /// Cancels the output in flight of a stream that is being closed. A detached send may continue for some time.
    pub(super) fn end_output(self: &Rc<Self>) {
        self.cancel_output();
        match self.output.state.get() {
            State::Behind { send, .. } => {
                self.output.state.set(State::Ending { send, timer: self.ending_timer(), is_time_up: false });
            }
            State::Soon(_) if self.is_in_batch() => self.follow_batch(),
            State::Lost(_) => self.reset_at_close(),
            _ => {}
        }
    }

    /// Makes the close reset the connection: after an orderly close, the peer would believe that it has received
    /// everything. Ignores errors, as the connection has then ended. Not in a forked child, which must not affect the
    /// parent's connection.
    fn reset_at_close(&self) {
        if self.event_loop().check_process().is_ok() {
            let _ = reset_at_close(self.descriptor());
        }
    }

    fn ending_timer(self: &Rc<Self>) -> TimerKey {
        let event_loop = self.event_loop();
        event_loop.insert_timer(event_loop.now() + ENDING_MAX, Rc::new(Ending(self.clone())))
    }

    /// Cancels the pending send, and arms the timer to repeat that: the cancel does not find a send that is just being
    /// resubmitted.
    #[cold]
    fn cancel_ending(self: &Rc<Self>) {
        if let State::Ending { send, .. } = self.output.state.get() {
            self.event_loop().cancel(send);
            self.output.state.set(State::Ending { send, timer: self.ending_timer(), is_time_up: true });
        }
    }

    /// Cancels the output in flight, and discards its result.
    pub(crate) fn abandon_output(&self) {
        match self.output.state.get() {
            State::InFlight(key) => {
                self.event_loop().cancel(key);
                self.output.state.set(State::Abandoned(key));
            }
            State::Finished => drop(self.take_output_result()),
            State::Idle
            | State::Abandoned(_)
            | State::Soon(_)
            | State::SoonThen(_)
            | State::Behind { .. }
            | State::Ending { .. }
            | State::Lost(_) => {}
        }
    }

    #[inline]
    pub(super) fn output_completed(self: &Rc<Self>, result: io::Result<u32>, unsent: Option<Vec<u8>>) {
        match self.output.state.get() {
            State::Behind { total, .. } => self.behind_completed(result, total, unsent),
            State::Ending { timer, is_time_up, .. } => {
                self.ending_completed(result, timer, is_time_up, unsent);
            }
            State::Abandoned(_) => self.send_queued(),
            _ => {
                self.output.state.set(State::Finished);
                self.output.result.set(Some(result));
            }
        }
        self.output.writers.wake_first();
    }

    /// Handles the completion of a message of which the kernel has not taken all.
    #[cold]
    pub(super) fn message_completed(self: &Rc<Self>, result: io::Result<u32>, rest: Vec<u8>) {
        let errno = result.err().map(|error| errno_of(&error)).filter(|errno| *errno != libc::EAGAIN);
        self.output.state.set(match errno {
            Some(errno) => self.lost(errno),
            None => self.start_behind(rest),
        });
        if errno.is_some() && self.is_closed() {
            self.reset_at_close();
        }
        self.output.writers.wake_first();
    }

    #[inline]
    fn behind_completed(self: &Rc<Self>, result: io::Result<u32>, total: u32, unsent: Option<Vec<u8>>) {
        self.output.state.set(match (result, unsent) {
            (Ok(count), None) if count == total => return self.go_on_behind(),
            (Ok(count), Some(data)) => {
                let send = self.send_rest(data, count);
                return self.output.state.set(State::Behind { send, total: total - count });
            }
            (Ok(_), None) => self.lost(libc::EPIPE),
            (Err(error), _) => self.lost(errno_of(&error)),
        });
        self.shut_down_behind();
    }

    /// Sends what is queued, or does what has to follow detached sends.
    #[inline]
    fn go_on_behind(self: &Rc<Self>) {
        self.send_queued();
        if self.output_is_idle() {
            self.shut_down_behind();
        }
    }

    /// Performs the shutdown that was requested while a send was in flight. Not after a failed send: the peer would
    /// mistake a truncated message for a complete one.
    #[inline]
    fn shut_down_behind(&self) {
        if self.output.shuts_down_behind.take() && self.output_is_idle() {
            // Fails only if the connection has ended, when there is nothing to shut down.
            let _ = shutdown(self.descriptor(), Shutdown::Write);
        }
    }

    #[cold]
    fn ending_completed(
        self: &Rc<Self>,
        result: io::Result<u32>,
        timer: TimerKey,
        is_time_up: bool,
        unsent: Option<Vec<u8>>,
    ) {
        let lost = match (result, unsent) {
            (Ok(count), Some(data)) if !is_time_up => {
                let send = self.send_rest(data, count);
                return self.output.state.set(State::Ending { send, timer, is_time_up });
            }
            (Ok(_), Some(_)) => Some(libc::ETIMEDOUT),
            (Ok(_), None) => {
                let queued = self.output.queued.take();
                if !queued.is_empty() && !is_time_up {
                    let send = self.send_rest(queued, 0);
                    return self.output.state.set(State::Ending { send, timer, is_time_up });
                }
                (!queued.is_empty()).then_some(libc::ETIMEDOUT)
            }
            (Err(error), _) => Some(errno_of(&error)),
        };
        self.event_loop().remove_timer(timer);
        self.output.state.set(lost.map_or(State::Idle, |errno| self.lost(errno)));
        match lost {
            None => self.shut_down_behind(),
            Some(_) => self.reset_at_close(),
        }
    }

    /// Submits the rest of a send that ended early. If the cause persists, this send returns it.
    #[cold]
    fn send_rest(self: &Rc<Self>, mut data: Vec<u8>, sent: u32) -> OperationKey {
        data.drain(..sent as usize);
        let operation = Operation::Send { socket: self.descriptor(), data: SendData::Owned(data) };
        self.event_loop().submit(operation, self.clone())
    }
}
