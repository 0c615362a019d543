//! Sending by calls of one's own, such as `sendfile(2)`, in turn with the other writers of a stream.

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{Interest, Operation, Wake};

use super::budget::Budget;
use super::socket::Kind;
use super::stream::{Bytes, StreamCore};

/// What an attempt costs: it may send much.
const COST: u8 = Budget::RECEIVE;

/// A writer that sends by calls that do not block. It keeps its turn from its first call until it
/// [leaves](Self::leave), so that the bytes of other writers do not get between its own.
pub(crate) struct Turn {
    stream: Rc<StreamCore>,
    waits_for_room: bool,
}

impl Turn {
    pub(crate) fn new(stream: Rc<StreamCore>) -> Self {
        Self { stream, waits_for_room: false }
    }

    /// Ready with the result of `attempt`, which is called when it is this writer's turn, and again when there is room
    /// after it would have blocked.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed); those of `attempt`; those of an earlier detached send.
    pub(crate) fn poll<T>(
        &mut self,
        waiter: &Rc<dyn Wake>,
        attempt: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if self.waits_for_room {
            let Some(result) = self.stream.take_output_result() else {
                // Waking all writers has emptied the queue.
                self.stream.writers().add(waiter);
                return Poll::Pending;
            };
            self.waits_for_room = false;
            self.stream.check_open()?;
            result?;
        }
        if self.stream.poll_turn(waiter)?.is_pending() {
            return Poll::Pending;
        }
        if !self.stream.budget.spend(self.stream.event_loop(), COST, Bytes::BUDGET) {
            // Lets others run.
            self.stream.event_loop().wake_next_turn(waiter.clone());
            return Poll::Pending;
        }
        match attempt(self.stream.socket()?) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let descriptor = self.stream.descriptor();
                self.stream.start_output(Operation::Poll { descriptor, interest: Interest::Writable });
                self.waits_for_room = true;
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    /// Lets the next writer go on.
    pub(crate) fn leave(&mut self, waiter: &Rc<dyn Wake>) {
        if std::mem::take(&mut self.waits_for_room) {
            self.stream.abandon_output();
        }
        self.stream.leave_writers(waiter);
    }
}
