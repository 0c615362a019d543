//! Writing to streams: with one send in flight per stream.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{Operation, SendData, Wake};

use super::stream::StreamCore;

/// Writes to a stream. Concurrent writes are queued; their bytes never interleave.
#[derive(Debug)]
pub struct Write {
    stream: Rc<StreamCore>,
    written: usize,
    in_flight: bool,
    stopping: bool,
    pausing: bool,
    /// Sends without a copy, as far as the socket can.
    is_zero_copy: bool,
    /// `poll` was ready because of `pause`, and the waiter has kept its place.
    is_paused: bool,
}

impl Write {
    /// Prepares to write to `stream`.
    pub fn new(stream: Rc<StreamCore>) -> Self {
        Self {
            stream,
            written: 0,
            in_flight: false,
            stopping: false,
            pausing: false,
            is_zero_copy: false,
            is_paused: false,
        }
    }

    /// The same, without a copy of the data, which the kernel may use until the peer has acknowledged it. On sockets
    /// and loops that do not have that, the data is copied.
    pub fn zero_copy(stream: Rc<StreamCore>) -> Self {
        Self { is_zero_copy: true, ..Self::new(stream) }
    }

    /// The same, with the first `written` bytes already sent.
    pub fn after(stream: Rc<StreamCore>, written: usize) -> Self {
        Self { written, ..Self::new(stream) }
    }

    /// Ready when the kernel has taken all of `total` bytes. To start a send, calls `data_at` for the bytes from an
    /// offset on, or some of them.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), `WriteZero`, or the kernel's, including `ECANCELED`; [`written`](Self::written) is
    /// the number of bytes sent before.
    #[inline]
    pub fn poll(
        &mut self,
        waiter: &Rc<dyn Wake>,
        total: usize,
        data_at: impl FnOnce(usize) -> SendData,
    ) -> Poll<io::Result<()>> {
        self.is_paused = false;
        let polled = self.advance(waiter, total, data_at);
        if polled.is_ready() && !self.is_paused {
            self.stream.leave_writers(waiter);
        }
        polled
    }

    #[inline]
    fn advance(
        &mut self,
        waiter: &Rc<dyn Wake>,
        total: usize,
        data_at: impl FnOnce(usize) -> SendData,
    ) -> Poll<io::Result<()>> {
        if self.in_flight {
            let Some(result) = self.stream.take_output_result() else {
                // Waking all writers has emptied the queue.
                self.stream.writers().add(waiter);
                return Poll::Pending;
            };
            self.in_flight = false;
            match result {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count as usize,
                // The kernel had taken nothing.
                Err(error) if self.is_zero_copy && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.is_zero_copy = false;
                }
                Err(error) if self.pausing && error.raw_os_error() == Some(libc::ECANCELED) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.written >= total {
            return Poll::Ready(Ok(()));
        }
        self.stream.check_open()?;
        self.stream.check_behind()?;
        if self.stopping || self.pausing {
            self.is_paused = !self.stopping;
            self.pausing = false;
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        // The waiter stays in the stream's queue of writers until the write is ready, and at its head during a send.
        let is_first = self.stream.writers().add(waiter);
        if is_first && self.stream.output_is_idle() {
            let (socket, data) = (self.stream.descriptor(), data_at(self.written));
            self.stream.start_output(match self.is_zero_copy {
                true => Operation::SendZeroCopy { socket, data },
                false => Operation::Send { socket, data },
            });
            self.in_flight = true;
        } else if is_first {
            self.stream.wait_for_batch(waiter);
        }
        Poll::Pending
    }

    /// Whether it sends without a copy.
    pub fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// The number of bytes that the kernel has taken so far.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Requests cancellation: [`poll`](Self::poll) becomes ready once the kernel no longer reads the bytes, with
    /// `ECANCELED` unless it has taken all of them.
    pub fn cancel(&mut self) {
        self.stopping = true;
        if self.in_flight {
            self.stream.cancel_output();
        }
    }

    /// Ends the send in flight, so that [`written`](Self::written) tells what the kernel has taken: then
    /// [`poll`](Self::poll) becomes ready with `ECANCELED`, unless the kernel has taken all of the bytes. If
    /// [`is_paused`](Self::is_paused) then, the write has kept its place among the writers, and the next poll goes on.
    pub fn pause(&mut self) {
        self.pausing = true;
        if self.in_flight {
            self.stream.cancel_output();
        }
    }

    /// Whether the last poll was ready because of [`pause`](Self::pause).
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Gives up. The send in flight, which must not be of lent bytes, is cancelled; bytes that the kernel has already
    /// taken are still sent.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        if self.in_flight {
            self.stream.abandon_output();
        }
        self.stream.leave_writers(waiter);
    }
}
