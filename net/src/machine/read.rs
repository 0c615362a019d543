//! Reading from streams.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use super::stream::StreamCore;

/// How much a [`Read`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Any available bytes, up to this number: `net/read`.
    UpTo(usize),
    /// This number of bytes, or fewer at the end of the stream: `net/chunk`.
    Exactly(usize),
}

/// Reads from a stream.
#[derive(Debug)]
pub struct Read {
    stream: Rc<StreamCore>,
    remaining: usize,
    fill: bool,
    received: usize,
}

impl Read {
    /// Prepares to read from `stream`.
    pub fn new(stream: Rc<StreamCore>, amount: Amount) -> Self {
        let (remaining, fill) = match amount {
            Amount::UpTo(count) => (count, false),
            Amount::Exactly(count) => (count, true),
        };
        Self { stream, remaining, fill, received: 0 }
    }

    /// Ready with the number of bytes passed to `sink`, which is 0 at the end of the stream. Reading up to 0 bytes
    /// waits until there is something to read, and reads nothing.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's, after the bytes that arrived before it have been passed to the sink.
    ///
    /// # Panics
    ///
    /// If the sink reads from the stream or closes it.
    #[inline(always)]
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>, sink: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        if self.stream.is_quiet() {
            self.stream.wait_for_input(waiter);
            return Poll::Pending;
        }
        while self.remaining > 0 {
            let Some(count) = self.stream.take_bytes(self.remaining, sink) else { break };
            self.received += count;
            self.remaining -= count;
            // Also takes all other pieces that have been received.
            if !self.fill && !self.stream.has_unread() {
                break;
            }
        }
        let has_all = match self.received {
            0 => self.remaining == 0 && self.stream.has_input(),
            _ => self.remaining == 0 || !self.fill,
        };
        if has_all {
            return Poll::Ready(Ok(self.received));
        }
        match self.stream.input_ended() {
            Ok(false) => {
                self.stream.wait_for_input(waiter);
                Poll::Pending
            }
            Ok(true) => Poll::Ready(Ok(self.received)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The number of bytes passed to the sink so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Gives up. Bytes that arrive later are kept for the next reader, as are those of `put_back`: bytes that were
    /// passed to the sink, but will not be used.
    pub fn abandon(self, waiter: &Rc<dyn Wake>, put_back: &[u8]) {
        self.stream.leave_readers(waiter);
        self.stream.put_back_bytes(put_back);
    }
}
