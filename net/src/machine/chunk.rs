//! Pieces of received data.

use std::ops::Deref;

use ringspun_runtime::Buffer;

/// A piece of received data.
#[derive(Debug)]
pub enum Chunk {
    /// In one of the loop's receive buffers.
    Lent(Buffer),
    /// In memory of its own, because receive buffers were scarce.
    Owned {
        /// The received bytes.
        bytes: Box<[u8]>,
        /// How many of them have been consumed.
        start: usize,
    },
}

impl Chunk {
    pub(crate) fn owned(bytes: impl Into<Box<[u8]>>) -> Self {
        Self::Owned { bytes: bytes.into(), start: 0 }
    }

    /// The chunk in a form that may be kept: a copy if few of the loop's buffers are left, so that bytes that wait for
    /// a reader cannot starve streams whose readers are ready.
    #[inline(always)]
    pub fn kept(self) -> Self {
        match self {
            Self::Lent(buffer) if buffer.is_scarce() => Self::copy(&buffer),
            chunk => chunk,
        }
    }

    #[cold]
    fn copy(bytes: &[u8]) -> Self {
        Self::owned(bytes)
    }

    /// Removes bytes at the front.
    pub fn consume(&mut self, count: usize) {
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
