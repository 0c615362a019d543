//! Encrypting and sending.

use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

use ringspun_runtime::Wake;

use super::core::TlsCore;

/// Writes to a session. Concurrent writes are queued; their bytes never interleave.
#[derive(Debug)]
pub struct Write {
    tls: Rc<TlsCore>,
    written: usize,
    /// Whether the waiter is in the stream's queue of writers.
    is_queued: bool,
    may_stay_behind: bool,
    is_stopping: bool,
    is_pausing: bool,
    /// `poll` was ready because of `pause`, and the waiter has kept its place.
    is_paused: bool,
}

impl Write {
    /// Prepares to write. With `may_stay_behind`, the last bytes may be in the process when the write is ready, and are
    /// sent later.
    pub fn new(tls: Rc<TlsCore>, may_stay_behind: bool) -> Self {
        Self {
            tls,
            written: 0,
            is_queued: false,
            may_stay_behind,
            is_stopping: false,
            is_pausing: false,
            is_paused: false,
        }
    }

    /// The same, with the first `written` bytes already sent, and nothing that stays behind.
    pub fn after(tls: Rc<TlsCore>, written: usize) -> Self {
        Self { written, ..Self::new(tls, false) }
    }

    /// Ready when all of `data`, which must be the same in each call, is encrypted and with the kernel. The first write
    /// or read of a session performs the handshake.
    ///
    /// # Errors
    ///
    /// The stream's, such as `ECANCELED` after a [`cancel`](Self::cancel); [`TlsError`](crate::TlsError). The first
    /// [`written`](Self::written) bytes are on their way nevertheless, unless the connection is lost.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<()>> {
        self.is_paused = false;
        let polled = self.advance(waiter, data);
        if polled.is_ready() && self.is_queued && !self.is_paused {
            self.tls.stream().leave_writers(waiter);
            self.is_queued = false;
        }
        polled.map_err(|error| self.tls.reason_of(error))
    }

    fn advance(&mut self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<()>> {
        let stream = self.tls.stream().clone();
        stream.check_open()?;
        if self.tls.is_handshaking() {
            if self.is_stopping || self.is_pausing {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
            ready!(self.tls.poll_handshake(waiter))?;
        }
        loop {
            let is_done = self.written == data.len();
            if is_done && self.may_stay_behind {
                return Poll::Ready(Ok(()));
            }
            if self.is_queued || !stream.is_free_to_send() {
                if self.is_stopping {
                    return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
                }
                self.is_queued = true;
                let turn = stream.poll_turn(waiter);
                if turn.is_pending() && std::mem::take(&mut self.is_pausing) {
                    self.is_paused = true;
                    return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
                }
                ready!(turn)?;
            }
            if is_done {
                return Poll::Ready(Ok(()));
            }
            self.written += self.tls.encrypt(&data[self.written..])?;
        }
    }

    /// The number of bytes that have been encrypted so far.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Has the next [`poll`](Self::poll) be ready, with `ECANCELED` unless all has been written.
    pub fn cancel(&mut self) {
        self.is_stopping = true;
    }

    /// Has the next [`poll`](Self::poll) that would be pending be ready, with `ECANCELED`. If it
    /// [`is_paused`](Self::is_paused) then, the write has kept its place among the writers, and the next poll goes on.
    pub fn pause(&mut self) {
        self.is_pausing = true;
    }

    /// Whether the last poll was ready because of [`pause`](Self::pause).
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Gives up. What has been encrypted is still sent.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        self.tls.stream().leave_readers(waiter);
        self.tls.stream().leave_writers(waiter);
    }
}
