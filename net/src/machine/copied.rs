//! Writes that lend no memory: what cannot be sent at once is copied, for tasks, which may be dropped at any time.

use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

use ringspun_runtime::Wake;

use super::outgoing::Sent;
use super::output::State;
use super::stream::StreamCore;

/// The most that is copied by a write.
const COPIED_MAX_BYTES: usize = 64 * 1024;

impl StreamCore {
    /// Ready with the number of bytes, the first of `data`, that have been sent, or copied for a detached send: then
    /// the next write waits for that. Never 0 unless `data` is empty.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn poll_send(self: &Rc<Self>, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.try_send(data, true)? {
            Sent::All => return Poll::Ready(Ok(data.len())),
            Sent::Part(0) => {}
            Sent::Part(count) => return Poll::Ready(Ok(count)),
        }
        ready!(self.poll_turn(waiter))?;
        let count = data.len().min(COPIED_MAX_BYTES);
        self.queue(&data[..count]);
        self.leave_writers(waiter);
        Poll::Ready(Ok(count))
    }

    /// Ready when all detached sends have ended, or the loop's next turn will end them.
    ///
    /// # Errors
    ///
    /// As [`poll_behind`](Self::poll_behind).
    pub fn poll_sent(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        match self.output.state.get() {
            State::Soon(_) => Poll::Ready(self.check_open()),
            _ => self.poll_behind(waiter),
        }
    }
}
