//! Bytes on their way from one fiber to another: every one of them is known, so that none can be lost, come
//! twice or out of order without being noticed.

use std::cell::Cell;
use std::error::Error;
use std::io;

use ringspun_net::{OperationError, WriteInterrupted};

use crate::context::Context;

/// One direction of a connection, or of a chain of them.
pub struct Flow {
    number: u64,
    /// Bytes that the sender knows to have been taken.
    sent: Cell<u64>,
    /// Bytes of a write that failed: some of them may have been taken.
    doubtful: Cell<u64>,
    received: Cell<u64>,
    finished: Cell<bool>,
    ended: Cell<bool>,
    failed: Cell<bool>,
    /// The bytes of a write; kept, so that one that still uses them is noticed.
    buffer: Cell<Vec<u8>>,
}

impl Flow {
    pub fn new(number: u64) -> Self {
        Self {
            number,
            sent: Cell::new(0),
            doubtful: Cell::new(0),
            received: Cell::new(0),
            finished: Cell::new(false),
            ended: Cell::new(false),
            failed: Cell::new(false),
            buffer: Cell::default(),
        }
    }

    fn byte_at(&self, offset: u64) -> u8 {
        let mixed = (self.number << 40 | offset).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 56) as u8
    }

    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// One of the ends has failed, other than by an interrupt.
    pub fn fail(&self) {
        self.failed.set(true);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Writes the next bytes, up to so many, by `write`.
    pub fn write(
        &self,
        context: &Context,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
        count: usize,
    ) -> io::Result<()> {
        let start = self.sent.get();
        let mut bytes = self.buffer.take();
        bytes.clear();
        bytes.extend((start..start + count as u64).map(|offset| self.byte_at(offset)));
        let written = write(&bytes);
        // Whoever still reads them is to find others.
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        self.buffer.set(bytes);
        self.account(context, written, count)
    }

    /// Counts the outcome of a write.
    pub fn account(&self, context: &Context, written: io::Result<usize>, count: usize) -> io::Result<()> {
        match written {
            Ok(all) => {
                context.check(all == count, || format!("a write of {count} bytes wrote {all}"));
                self.sent.set(self.sent.get() + count as u64);
                Ok(())
            }
            Err(error) => {
                match write_interrupted(&error) {
                    Some(interrupted) => {
                        self.sent.set(self.sent.get() + interrupted.written_bytes as u64);
                        context.tally("interrupted writes", 1);
                    }
                    None => {
                        self.doubtful.set(count as u64);
                        self.failed.set(true);
                    }
                }
                Err(error)
            }
        }
    }

    /// Takes bytes that have arrived, which must be the next.
    pub fn take(&self, context: &Context, bytes: &[u8]) {
        let start = self.received.get();
        let wrong = (start..).zip(bytes).find(|(offset, byte)| self.byte_at(*offset) != **byte);
        if let Some((offset, byte)) = wrong {
            let (number, expected) = (self.number, self.byte_at(offset));
            context.fail(format!("flow {number}: byte {offset} is {byte:#x}, expected {expected:#x}"));
        }
        context.check(!self.ended.get(), || format!("flow {}: bytes came after its end", self.number));
        self.received.set(start + bytes.len() as u64);
        context.tally("bytes", bytes.len() as u64);
    }

    /// The sender has sent all and said so.
    pub fn finish(&self) {
        self.finished.set(true);
    }

    #[allow(dead_code, reason = "only an end by TLS must have been sent by somebody")]
    pub fn has_finished(&self) -> bool {
        self.finished.get()
    }

    /// A receiver has met the end.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// Checks that all bytes have arrived, or that an error reported their loss.
    pub fn settle(&self, context: &Context) {
        let (number, sent, received) = (self.number, self.sent.get(), self.received.get());
        context.check(received <= sent + self.doubtful.get(), || {
            format!("flow {number}: {received} bytes arrived, and only {sent} were sent")
        });
        if self.failed.get() {
            context.tally("flows that failed", 1);
            return;
        }
        let (finished, ended) = (self.finished.get(), self.ended.get());
        context.check(finished && ended && received == sent, || {
            format!(
                "flow {number}: {received} of {sent} bytes arrived and nobody was told; \
                 finished: {finished}, ended: {ended}"
            )
        });
        context.tally("flows that arrived", 1);
    }
}

/// What an interrupted write says of the bytes.
pub fn write_interrupted(error: &io::Error) -> Option<WriteInterrupted> {
    if let Some(interrupted) = error.get_ref()?.downcast_ref::<WriteInterrupted>() {
        // Of a pipe.
        return Some(*interrupted);
    }
    let cause = error.get_ref()?.downcast_ref::<OperationError>()?.source()?;
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref().copied()
}
