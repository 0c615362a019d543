//! Received bytes on their way to a reader.

use std::ops::Deref;

use ringspun_runtime::Buffer;

/// A piece of received data.
#[derive(Debug)]
pub enum Chunk {
    /// In one of the loop's receive buffers.
    Lent(Buffer),
    /// Copied out because receive buffers had become scarce.
    Owned {
        /// The bytes as received.
        bytes: Box<[u8]>,
        /// How many of them have been consumed.
        start: usize,
    },
}

impl Chunk {
    /// Keeps a buffer, or a copy of it if too few buffers are left: bytes that wait for their reader
    /// must not starve the streams whose readers are ready.
    #[inline(always)]
    pub(crate) fn keep(buffer: Buffer) -> Self {
        if buffer.is_scarce() { Self::copy(&buffer) } else { Self::Lent(buffer) }
    }

    #[cold]
    fn copy(bytes: &[u8]) -> Self {
        Self::Owned { bytes: Box::from(bytes), start: 0 }
    }

    pub(crate) fn consume(&mut self, count: usize) {
        match self {
            Self::Lent(buffer) => buffer.consume(count),
            Self::Owned { bytes, start } => *start = bytes.len().min(*start + count),
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(buffer) => buffer,
            Self::Owned { bytes, start } => &bytes[*start..],
        }
    }
}
