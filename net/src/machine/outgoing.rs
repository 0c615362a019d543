//! How each write is sent: at once, with those of other streams, or after it has returned.

use std::io::{self, IoSlice};
use std::rc::Rc;

use super::budget::Budget;
use super::input::End;
use super::output::{Output, State};
use super::socket::{Kind, Socket};
use crate::ancillary::send_parts;

/// The largest message that is copied into a batch or submitted with those of other streams. Copying more would cost
/// more than the wait that it saves; larger messages are worth a system call each.
const SMALL_MAX_BYTES: usize = 4 * 1024;
/// How many small messages must be sent one by one before a stream counts as busy.
const BUSY_AFTER: u8 = 4;
/// The result of `Socket::try_send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of the data has been sent, or will be by a detached send.
    All,
    /// This number of bytes, possibly zero, has been sent; the writer must wait to send the rest.
    Part(usize),
}

impl<K: Kind<Output = Output>> Socket<K> {
    /// Sends what can be sent without waiting. With `may_detach`, it may return before the kernel has the bytes: the
    /// send is then *detached*. Decides how each write is sent:
    ///
    /// | output | stream | data | action |
    /// | --- | --- | --- | --- |
    /// | in use | any | any | none: the writer queues |
    /// | free | busy, on a ring | small, may detach | a copy joins the batch of this turn; done |
    /// | free | busy, on a ring | small | none: the caller submits it, with those of other streams |
    /// | free | any | other, and budget left | `send(2)`; the caller submits the rest |
    /// | free | any | other | none: the caller submits it, so that other fibers run |
    ///
    /// A stream is busy if it is read repeatedly, or has sent a number of messages. For the first few messages, a
    /// system call each is cheaper.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) on a closed stream; the kernel's, including those of earlier detached sends.
    #[inline]
    pub fn try_send(self: &Rc<Self>, data: &[u8], may_detach: bool) -> io::Result<Sent> {
        self.check_open()?;
        self.check_behind()?;
        if !self.output_is_idle() || !self.output.writers.is_empty() || data.is_empty() {
            return Ok(Sent::Part(0));
        }
        let is_small = data.len() <= SMALL_MAX_BYTES;
        if is_small && self.shares_sends() {
            return if may_detach { self.send_soon(data) } else { Ok(Sent::Part(0)) };
        }
        self.send_now(data, is_small)
    }

    /// Whether a write may return before the kernel has its bytes without having been asked to: on a stream that is
    /// read repeatedly, because its next read sends them.
    pub fn is_conversing(&self) -> bool {
        self.runs_ahead()
    }

    /// Whether small messages are sent together with those of other streams. Not where a send is likely to fail: the
    /// write itself returns the error of a system call.
    #[inline]
    fn shares_sends(&self) -> bool {
        let has_sent_much = self.output.sent.get() == BUSY_AFTER && self.input.may_become_busy();
        let is_busy = self.input.is_busy() || has_sent_much;
        let may_fail = self.output.is_shut_down.get() || self.input.end.get() != End::NotYet;
        is_busy && !may_fail && !self.event_loop().is_readiness_based()
    }

    fn send_now(&self, data: &[u8], is_small: bool) -> io::Result<Sent> {
        if !self.budget.spend(self.event_loop(), Budget::of_send(data.len()), K::BUDGET) {
            return Ok(Sent::Part(0));
        }
        if is_small {
            self.output.sent.set((self.output.sent.get() + 1).min(BUSY_AFTER));
        }
        match self.event_loop().try_send(self.socket()?, data) {
            Ok(count) if count == data.len() => Ok(Sent::All),
            Ok(count) => Ok(Sent::Part(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Part(0)),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn send_soon(self: &Rc<Self>, data: &[u8]) -> io::Result<Sent> {
        // Without room in the batch, the writer waits.
        Ok(self.event_loop().send_soon(self.socket()?, data, self.clone()).map_or(Sent::Part(0), |batch| {
            self.output.state.set(State::Soon(batch));
            Sent::All
        }))
    }

    /// Sends data without waiting: what cannot be sent at once is copied, and sent by detached sends after everything
    /// before it. For data that must not be cut off by a cancel, such as encrypted records. As nothing waits, the
    /// caller must bound what it sends: by [`poll_turn`](Self::poll_turn), or by sending only a few small messages.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn send_detached(self: &Rc<Self>, data: &[u8]) -> io::Result<()> {
        if let Sent::Part(count) = self.try_send(data, true)?
            && count < data.len()
        {
            self.queue(&data[count..]);
        }
        Ok(())
    }

    /// As [`send_detached`](Self::send_detached), for data in several parts, which are not joined if they are large.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn send_parts_detached(self: &Rc<Self>, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let total_bytes = parts.iter().map(|part| part.len()).sum();
        if total_bytes <= SMALL_MAX_BYTES {
            return self.send_detached(&joined(parts));
        }
        self.check_open()?;
        self.check_behind()?;
        let cost = Budget::of_send(total_bytes);
        let mut sent = 0;
        if self.is_free_to_send() && self.budget.spend(self.event_loop(), cost, K::BUDGET) {
            sent = match send_parts(self.event_loop(), self.socket()?, parts, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                result => result?,
            };
        }
        if sent < total_bytes {
            self.queue(&joined(parts)[sent..]);
        }
        Ok(())
    }
}

fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    parts.iter().map(|part| &**part).collect::<Vec<_>>().concat()
}
