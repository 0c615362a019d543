//! The output of a connected socket: at most one send or connect in flight, and those who wait to write.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::{Operation, OperationKey, SendData, TimerKey, Wake};

use super::stream_core::StreamCore;
use crate::address::Address;
use crate::error::Closed;
use crate::system::{reset_at_close, shutdown};
use crate::wait_list::WaitList;

/// Sends in a row that do not wait for a turn of the loop. A large one counts for several, by its size.
const SENDS_AT_ONCE_MAX: usize = 16;
const SEND_AT_ONCE_BYTES: usize = 16 * 1024;
/// How much a write may leave behind: a copy of more would cost more than the wait that it saves.
/// More than that is worth a system call of its own.
const BEHIND_MAX_BYTES: usize = 4 * 1024;
/// How long a closed stream goes on with what a write has left behind: without an end, a peer that never reads would
/// keep its descriptor for as long as it likes.
const ENDING_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Idle,
    InFlight(OperationKey),
    /// In flight, but nobody will take the result.
    Abandoned(OperationKey),
    /// So many bytes are in flight for a write that has returned. Nobody may cancel this.
    Behind {
        send: OperationKey,
        total: u32,
    },
    /// The same on a closed stream, until a timer cancels it. Then the time is up, and the timer makes sure.
    Ending {
        send: OperationKey,
        timer: TimerKey,
        is_time_up: bool,
    },
    /// What a write had left behind has failed, with this errno. The next write, or a read at the end, is to be told; a close
    /// before that has the peer find a reset.
    Lost(i32),
    /// Done; the result has not been taken.
    Finished,
}

impl Output {
    pub(super) fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight(_) | Self::Abandoned(_)) || self.is_behind()
    }

    fn is_behind(self) -> bool {
        matches!(self, Self::Behind { .. } | Self::Ending { .. })
    }
}

/// Ends what a closed stream still has in flight, when it has had its time.
struct Ending(Rc<StreamCore>);

impl Wake for Ending {
    fn wake(self: Rc<Self>) {
        self.0.cancel_ending();
    }
}

impl StreamCore {
    pub(crate) fn writers(&self) -> &WaitList {
        &self.writers
    }

    pub(crate) fn output_is_idle(&self) -> bool {
        self.output.get() == Output::Idle
    }

    /// Starts a send. The output must be idle.
    pub(crate) fn start_send(self: &Rc<Self>, data: SendData) {
        debug_assert!(self.output_is_idle());
        let operation = Operation::Send { socket: self.descriptor(), data };
        self.output.set(Output::InFlight(self.event_loop().submit(operation, self.clone())));
    }

    /// Sends what goes without waiting for a turn of the loop, where a send costs a call of its own anyway, or there
    /// is so much that the call does not count: in echoes of 64 KiB, that takes 4 % less time than to wait. Sends
    /// nothing where somebody else is writing, and where it would have to wait. Not too often in between: a fiber
    /// that never waits would keep the others from running.
    ///
    /// # Errors
    ///
    /// The kernel's.
    #[inline]
    pub(crate) fn send_at_once(&self, data: &SendData, length: usize) -> io::Result<usize> {
        if length <= BEHIND_MAX_BYTES && !self.event_loop().works_at_once() {
            return Ok(0);
        }
        let count = self.sent_at_once.get();
        let is_free = self.output_is_idle() && self.writers.is_empty() && self.check_open().is_ok();
        if !is_free || usize::from(count) >= SENDS_AT_ONCE_MAX {
            return Ok(0);
        }
        let sends = 1 + (length / SEND_AT_ONCE_BYTES).min(SENDS_AT_ONCE_MAX);
        self.sent_at_once.set(count + sends as u8);
        match self.event_loop().send_at_once(self.descriptor(), data) {
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Some(Ok(count)) => Ok(count as usize),
            _ => Ok(0),
        }
    }

    /// Starts to send a copy of the data, for a write that does not wait for it, and true; or nothing, and false,
    /// where there is too much of it, somebody else is writing, or a send costs a call of its own anyway.
    ///
    /// In an echo server with 1,000 connections, the second wait of each round takes 6 % of the time.
    #[inline]
    pub(crate) fn send_behind(self: &Rc<Self>, data: &[u8]) -> bool {
        let is_free = self.output_is_idle() && self.writers.is_empty() && self.check_open().is_ok();
        if !is_free || data.is_empty() || data.len() > BEHIND_MAX_BYTES || self.event_loop().works_at_once() {
            return false;
        }
        let mut copy = self.event_loop().take_send_buffer();
        copy.extend_from_slice(data);
        let operation = Operation::Send { socket: self.descriptor(), data: SendData::Owned(copy) };
        let send = self.event_loop().submit(operation, self.clone());
        self.output.set(Output::Behind { send, total: data.len() as u32 });
        true
    }

    /// Ready when nothing that a write has left behind is in flight any more.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) once the stream is. The kernel's, if what was left behind has not been sent. It is
    /// told once.
    pub(crate) fn poll_behind(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        match self.output.get() {
            Output::Behind { .. } => {
                self.writers.add(waiter);
                return Poll::Pending;
            }
            Output::Ending { .. } => {
                self.leave_writers(waiter);
                return Poll::Ready(Err(Closed.into()));
            }
            _ => {}
        }
        self.leave_writers(waiter);
        Poll::Ready(self.check_behind())
    }

    /// Tells, once, that what a write had left behind has not been sent.
    ///
    /// # Errors
    ///
    /// The kernel's.
    #[inline]
    pub(crate) fn check_behind(&self) -> io::Result<()> {
        match self.output.get() {
            Output::Lost(errno) => {
                self.output.set(Output::Idle);
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    /// Shuts down one or both directions (`shutdown(2)`). What a write has left behind is sent before.
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](crate::Closed) on a closed stream.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.check_open()?;
        if how == Shutdown::Read || !self.output.get().is_behind() {
            return shutdown(self.descriptor(), how);
        }
        self.shuts_down_behind.set(true);
        if how == Shutdown::Both { shutdown(self.descriptor(), Shutdown::Read) } else { Ok(()) }
    }

    /// Starts a connect. The output must be idle.
    pub(crate) fn start_connect(self: &Rc<Self>, address: Address) {
        debug_assert!(self.output_is_idle());
        let address = Box::new(address.raw());
        let operation = Operation::Connect { socket: self.descriptor(), address };
        self.output.set(Output::InFlight(self.event_loop().submit(operation, self.clone())));
    }

    /// Takes the result of the send or connect that the caller started, once it is there.
    #[inline]
    pub(crate) fn take_output_result(&self) -> Option<io::Result<u32>> {
        if self.output.get() != Output::Finished {
            return None;
        }
        self.output.set(Output::Idle);
        self.output_result.take()
    }

    /// Takes a writer out of the queue, and lets the next one try.
    #[inline]
    pub(crate) fn leave_writers(&self, waiter: &Rc<dyn Wake>) {
        let was_first = self.writers.remove(waiter);
        #[cfg(feature = "mutations")]
        let was_first = was_first && !crate::mutations::loses_wake();
        if was_first {
            self.writers.wake_first();
        }
    }

    /// Hurries the output in flight, if somebody waits for it; its result still comes.
    pub(crate) fn cancel_output(&self) {
        if let Output::InFlight(key) = self.output.get() {
            self.event_loop().cancel(key);
        }
    }

    /// Cancels the output in flight, on a stream that is being closed. What a write has left behind has some time yet.
    pub(super) fn end_output(self: &Rc<Self>) {
        self.cancel_output();
        match self.output.get() {
            Output::Behind { send, .. } => {
                self.output.set(Output::Ending { send, timer: self.ending_timer(), is_time_up: false });
            }
            Output::Lost(_) => self.reset_at_close(),
            _ => {}
        }
    }

    /// A plain close would tell the peer that it has got all. If the connection is gone, it knows. In a forked child,
    /// what the peer finds is up to the parent.
    fn reset_at_close(&self) {
        if self.event_loop().check_process().is_ok() {
            let _ = reset_at_close(self.descriptor());
        }
    }

    fn ending_timer(self: &Rc<Self>) -> TimerKey {
        let event_loop = self.event_loop();
        event_loop.insert_timer(event_loop.now() + ENDING_MAX, Rc::new(Ending(self.clone())))
    }

    /// A send that is just being made again, because it was cut short, is not found: it is looked for another time.
    #[cold]
    fn cancel_ending(self: &Rc<Self>) {
        if let Output::Ending { send, .. } = self.output.get() {
            self.event_loop().cancel(send);
            self.output.set(Output::Ending { send, timer: self.ending_timer(), is_time_up: true });
        }
    }

    /// Cancels the output in flight, and lets its result go to nobody.
    pub(crate) fn abandon_output(&self) {
        match self.output.get() {
            Output::InFlight(key) => {
                self.event_loop().cancel(key);
                self.output.set(Output::Abandoned(key));
            }
            Output::Finished => drop(self.take_output_result()),
            Output::Idle
            | Output::Abandoned(_)
            | Output::Behind { .. }
            | Output::Ending { .. }
            | Output::Lost(_) => {}
        }
    }

    #[inline]
    pub(super) fn output_completed(self: &Rc<Self>, result: io::Result<u32>, unsent: Option<Vec<u8>>) {
        self.sent_at_once.set(0);
        match self.output.get() {
            Output::Behind { total, .. } => self.behind_completed(result, total, unsent),
            Output::Ending { timer, is_time_up, .. } => {
                self.ending_completed(result, timer, is_time_up, unsent);
            }
            Output::Abandoned(_) => self.output.set(Output::Idle),
            _ => {
                self.output.set(Output::Finished);
                self.output_result.set(Some(result));
            }
        }
        self.writers.wake_first();
    }

    #[inline]
    fn behind_completed(self: &Rc<Self>, result: io::Result<u32>, total: u32, unsent: Option<Vec<u8>>) {
        self.output.set(match (result, unsent) {
            (Ok(count), None) if count == total => Output::Idle,
            (Ok(count), Some(data)) => {
                let send = self.send_rest(data, count);
                return self.output.set(Output::Behind { send, total: total - count });
            }
            (Ok(_), None) => Output::Lost(libc::EPIPE),
            (Err(error), _) => Output::Lost(error.raw_os_error().unwrap_or(libc::EIO)),
        });
        self.shut_down_behind();
    }

    /// Shuts down as was asked for while this was in flight, unless it is lost: the peer would take what it has for all.
    #[inline]
    fn shut_down_behind(&self) {
        if self.shuts_down_behind.take() && self.output_is_idle() {
            // A socket without a peer any more has nothing to shut down.
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
                return self.output.set(Output::Ending { send, timer, is_time_up });
            }
            (Ok(_), Some(_)) => Some(libc::ETIMEDOUT),
            (Ok(_), None) => None,
            (Err(error), _) => Some(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        self.event_loop().remove_timer(timer);
        self.output.set(lost.map_or(Output::Idle, Output::Lost));
        match lost {
            None => self.shut_down_behind(),
            Some(_) => self.reset_at_close(),
        }
    }

    /// What ended a send before its end, if it lasts, is met by the next one.
    #[cold]
    fn send_rest(self: &Rc<Self>, mut data: Vec<u8>, sent: u32) -> OperationKey {
        data.drain(..sent as usize);
        let operation = Operation::Send { socket: self.descriptor(), data: SendData::Owned(data) };
        self.event_loop().submit(operation, self.clone())
    }
}
