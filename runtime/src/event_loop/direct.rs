//! Sends and receives without an operation: immediate system calls, and messages that the next submission sends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use super::EventLoop;
use crate::buffers::Buffer;
use crate::operation::{Address, Owner};
use crate::send_soon::Batch;

impl EventLoop {
    /// Sends a copy of a small message with the loop's next entry into the kernel, together with all others, on a loop
    /// for which that is cheaper than a call of its own. `owner` hears of it only where something is left, because the
    /// socket has no room or there is an error: its completion is one of [`OperationKind::SendSoon`]. When the
    /// [batch is over](Self::is_over) without one, all has been sent.
    ///
    /// The socket must stay open until then. Messages do not wait for sends that are in flight for the same socket, nor
    /// for one another: there must be none.
    ///
    /// `None`, and nothing is done, on a loop that is [based on readiness](Self::is_readiness_based), on one that is
    /// shutting down, and where the messages of this turn are more than 256 KiB.
    #[inline]
    pub fn send_soon(&self, socket: BorrowedFd<'_>, data: &[u8], owner: Rc<dyn Owner>) -> Option<Batch> {
        if self.is_readiness_based || !self.gate.is_open() {
            return None;
        }
        let (batch, request) = self.soon.borrow_mut().push(socket.as_raw_fd(), data, owner)?;
        self.backend.borrow_mut().send_soon(&request, &mut self.ready.borrow_mut());
        Some(batch)
    }

    /// Whether every message of a batch has been sent, or its owner has had its completion. That is so at the end of a
    /// turn, most often of the next.
    #[inline]
    pub fn is_over(&self, batch: Batch) -> bool {
        self.soon.borrow().is_over(batch)
    }

    /// Sends what the socket has room for, by a call of `send(2)` that does not wait. That is what to do where each
    /// send is a system call anyway ([`is_readiness_based`](Self::is_readiness_based)), for the first messages of a
    /// connection, and for large ones; io_uring takes many small sends in one call.
    ///
    /// It overtakes sends that are in flight for the same socket: there must be none.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`, among them `EAGAIN` where the send would have to wait; `ECANCELED` on a loop that is
    /// shutting down.
    pub fn try_send(&self, socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
        self.check_running()?;
        self.backend.borrow().try_send(socket, data)
    }

    /// Sends a datagram whole, by a call of `sendto(2)` that does not wait, to `destination` or to the peer that the
    /// socket is connected to.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`, among them `EAGAIN` where the send would have to wait; `ECANCELED` on a loop that is
    /// shutting down.
    pub fn try_send_to(
        &self,
        socket: BorrowedFd<'_>,
        data: &[u8],
        destination: Option<&Address>,
    ) -> io::Result<usize> {
        self.check_running()?;
        self.backend.borrow().try_send_to(socket, data, destination)
    }

    /// Receives what is there, up to `limit_bytes` or what one of the loop's buffers holds, by a call of `recv(2)` that
    /// does not wait. An empty buffer is the end of the stream.
    ///
    /// [`Operation::Poll`] and [`Operation::PollInput`] tell when there may be something.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, among them `EAGAIN` where there is nothing; `ENOBUFS` where no buffer is free;
    /// `ECANCELED` on a loop that is shutting down.
    #[inline]
    pub fn try_receive(&self, socket: BorrowedFd<'_>, limit_bytes: usize) -> io::Result<Buffer> {
        self.check_running()?;
        let pool = &self.streams.pool;
        let Some(id) = pool.take_returned() else {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        };
        let size_bytes = pool.buffer_size_bytes().min(limit_bytes);
        // SAFETY: the buffer is at least that long, and nobody else uses it while it is taken.
        let received = unsafe { self.backend.borrow().try_receive(socket, pool.address(id), size_bytes) };
        match received {
            Ok(count) => Ok(pool.lend(id, 0, count)),
            Err(error) => {
                pool.put_back(id);
                Err(error)
            }
        }
    }

    fn check_running(&self) -> io::Result<()> {
        if self.gate.is_open() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ECANCELED)) }
    }
}
