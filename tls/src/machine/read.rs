//! Reading decrypted bytes.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_net::machine::Amount;
use ringspun_runtime::Wake;

use super::core::{Advance, TlsCore};

/// Reads from a session.
#[derive(Debug)]
pub struct Read {
    tls: Rc<TlsCore>,
    remaining: usize,
    fill: bool,
    received: usize,
}

impl Read {
    /// Prepares to read.
    pub fn new(tls: Rc<TlsCore>, amount: Amount) -> Self {
        let (remaining, fill) = match amount {
            Amount::UpTo(count) => (count, false),
            Amount::Exactly(count) => (count, true),
        };
        Self { tls, remaining, fill, received: 0 }
    }

    /// Ready with the number of bytes passed to `sink`, which is 0 after the peer's close_notify.
    ///
    /// # Errors
    ///
    /// The stream's; [`TlsError`](crate::TlsError), such as a cut, after the bytes that came before it have been passed
    /// to the sink.
    ///
    /// # Panics
    ///
    /// If the sink uses the session.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>, sink: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        let stream = self.tls.stream();
        stream.check_open()?;
        loop {
            let count = self.tls.drain(self.remaining, sink);
            self.received += count;
            self.remaining -= count;
            let has_some = self.received > 0 && !self.fill;
            // Also reads what else has been received.
            if self.remaining == 0 || (has_some && !stream.has_received()) {
                return Poll::Ready(Ok(self.received));
            }
            let mut passed = 0;
            let advanced = self.tls.advance(self.remaining, &mut |bytes| {
                passed += bytes.len();
                sink(bytes);
            });
            self.received += passed;
            self.remaining -= passed;
            let has_some = self.received > 0 && !self.fill;
            match advanced {
                Ok(Advance::More) => {}
                Ok(Advance::End) => return Poll::Ready(Ok(self.received)),
                // The next read finds the error again.
                Err(_) if has_some || self.remaining == 0 => return Poll::Ready(Ok(self.received)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Advance::Nothing) if has_some => return Poll::Ready(Ok(self.received)),
                Ok(Advance::Nothing) => {
                    stream.wait_for_input(waiter);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The number of bytes passed to the sink so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Gives up. What arrives later is kept for the next reader, as are the bytes of `put_back`: those that were passed
    /// to the sink, but will not be used.
    pub fn abandon(self, waiter: &Rc<dyn Wake>, put_back: &[u8]) {
        self.tls.stream().leave_readers(waiter);
        self.tls.put_back(put_back);
    }
}
