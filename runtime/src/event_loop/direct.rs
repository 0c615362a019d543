//! Sends and receives without an operation: immediate system calls, and messages that the next submission sends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use super::EventLoop;
use crate::buffers::Buffer;
use crate::operation::{Address, Owner};
use crate::send_soon::Batch;

impl EventLoop {
    /// Sends a copy of a small message with the loop's next submission to the kernel, which is cheaper than a system
    /// call per message. `owner` gets a completion, of kind [`SendSoon`](crate::OperationKind::SendSoon), only if some
    /// bytes were not sent, because the socket had no room or failed. If the [batch is over](Self::is_over) without
    /// one, all bytes were sent.
    ///
    /// The socket must stay open until then. The message may overtake other sends in flight on the same socket,
    /// including earlier messages: there must be none. A message cannot be cancelled.
    ///
    /// Returns `None` and does nothing on a [readiness-based](Self::is_readiness_based) loop, on one that is shutting
    /// down, and if the messages of this turn would exceed 256 KiB.
    #[inline]
    pub fn send_soon(&self, socket: BorrowedFd<'_>, data: &[u8], owner: Rc<dyn Owner>) -> Option<Batch> {
        if self.is_readiness_based || !self.gate.is_open() {
            return None;
        }
        let (batch, request) = self.soon.borrow_mut().push(socket.as_raw_fd(), data, owner)?;
        self.backend.borrow_mut().send_soon(&request, &mut self.ready.borrow_mut());
        Some(batch)
    }

    /// Whether every message of a batch has been sent, or its owner has had the completion. This becomes true at the
    /// end of a turn, usually of the next one.
    #[inline]
    pub fn is_over(&self, batch: Batch) -> bool {
        self.soon.borrow().is_over(batch)
    }

    /// Whether there are messages that the next submission will send.
    pub fn has_messages(&self) -> bool {
        self.soon.borrow().len() > 0
    }

    /// Sends as many bytes as the socket has room for, by a `send(2)` that does not block, and returns their number.
    /// Use it if each send is a system call anyway ([`is_readiness_based`](Self::is_readiness_based)), for the first
    /// messages of a connection, and for large ones; io_uring batches many small sends in one call.
    ///
    /// It overtakes sends in flight on the same socket: there must be none.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`, including `EAGAIN` if the send would block; `ECANCELED` on a loop that is shutting down.
    pub fn try_send(&self, socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
        self.check_running()?;
        self.backend.borrow().try_send(socket, data)
    }

    /// Sends a whole datagram, by a `sendto(2)` that does not block, to `destination` or to the peer that the socket
    /// is connected to. Returns its size in bytes.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`, including `EAGAIN` if the send would block; `ECANCELED` on a loop that is shutting down.
    pub fn try_send_to(
        &self,
        socket: BorrowedFd<'_>,
        data: &[u8],
        destination: Option<&Address>,
    ) -> io::Result<usize> {
        self.check_running()?;
        self.backend.borrow().try_send_to(socket, data, destination)
    }

    /// Receives available bytes, up to `limit_bytes` or the size of one of the loop's buffers, by a `recv(2)` that
    /// does not block. An empty buffer means the end of the stream.
    ///
    /// [`Operation::Poll`](crate::Operation::Poll) and [`Operation::PollInput`](crate::Operation::PollInput) complete
    /// when there may be something to receive.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, including `EAGAIN` if nothing is available; `ENOBUFS` if no buffer is free; `ECANCELED` on
    /// a loop that is shutting down.
    #[inline]
    pub fn try_receive(&self, socket: BorrowedFd<'_>, limit_bytes: usize) -> io::Result<Buffer> {
        self.check_running()?;
        let pool = &self.streams.pool;
        let Some(id) = pool.take_returned() else {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        };
        let size_bytes = pool.buffer_size_bytes().min(limit_bytes);
        // SAFETY: the buffer is at least that long, and exclusively ours while it is taken.
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
