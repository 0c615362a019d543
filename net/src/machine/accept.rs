//! Accepting connections.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::Wake;

use super::listener::ListenerCore;
use crate::error::errno_of;

/// How long to wait before accepting again after an error that [`is_exhausted`], so that connections can end.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Whether accepting failed because descriptors or memory ran out (`accept(2)`): a later attempt may succeed.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(errno_of(error), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Accepts connections from a listener.
#[derive(Debug)]
pub struct Accept {
    listener: Rc<ListenerCore>,
}

impl Accept {
    /// Prepares to accept from `listener`.
    pub fn new(listener: Rc<ListenerCore>) -> Self {
        Self { listener }
    }

    /// Ready with the next connection; can be polled again for the one after it.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's, such as `EMFILE` when descriptors run out, after which it can be
    /// polled again.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<OwnedFd>> {
        self.listener.check_open()?;
        if let Some(connection) = self.listener.take(usize::MAX) {
            return Poll::Ready(Ok(connection));
        }
        self.listener.input_ended()?;
        self.listener.wait_for_input(waiter);
        Poll::Pending
    }

    /// Gives up. Connections that arrive later are kept for the next accept.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        self.listener.leave_readers(waiter);
    }
}
