//! Received bytes on their way to a reader.

use std::collections::VecDeque;
use std::ops::Deref;

use ringspun_runtime::Buffer;

/// How many pieces of a stream may wait for a reader. Each takes memory besides its bytes, which a peer that sends
/// single bytes would otherwise have us hold a quarter of a million times.
const LONG_PIECES: usize = 1024;

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
    /// Itself, or a copy if too few of the loop's buffers are left: bytes that wait for their reader must not
    /// starve the streams whose readers are ready.
    #[inline(always)]
    pub(crate) fn kept(self) -> Self {
        match self {
            Self::Lent(buffer) if buffer.is_scarce() => Self::copy(&buffer),
            chunk => chunk,
        }
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

/// Pieces of received data, in order.
#[derive(Default)]
pub(crate) struct ChunkQueue {
    /// Mostly all there is, so that the common case needs no other memory. None, if the queue is empty.
    first: Option<Chunk>,
    rest: VecDeque<Chunk>,
}

impl ChunkQueue {
    #[inline]
    pub(crate) fn push_back(&mut self, chunk: Chunk) {
        match self.first {
            None => self.first = Some(chunk),
            Some(_) => self.rest.push_back(chunk),
        }
    }

    pub(crate) fn push_front(&mut self, chunk: Chunk) {
        if let Some(second) = self.first.replace(chunk) {
            self.rest.push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Chunk> {
        let first = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(first)
    }

    /// Whether there are so many that the stream should stop receiving, few bytes though they may be.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.rest.len() >= LONG_PIECES
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.first.iter().chain(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(byte: u8) -> Chunk {
        Chunk::Owned { bytes: Box::new([byte]), start: 0 }
    }

    fn bytes(queue: &ChunkQueue) -> Vec<u8> {
        queue.iter().map(|chunk| chunk[0]).collect()
    }

    #[test]
    fn pieces_come_in_order_from_either_end() {
        let mut queue = ChunkQueue::default();
        assert!(queue.pop_front().is_none());
        for byte in 2..5 {
            queue.push_back(chunk(byte));
        }
        queue.push_front(chunk(1));
        assert_eq!(bytes(&queue), [1, 2, 3, 4]);
        assert_eq!(queue.pop_front().map(|chunk| chunk[0]), Some(1));
        queue.push_back(chunk(5));
        assert_eq!(bytes(&queue), [2, 3, 4, 5]);
        while queue.pop_front().is_some() {}
        queue.push_front(chunk(6));
        assert_eq!(bytes(&queue), [6]);
    }

    #[test]
    fn many_pieces_are_long_however_short_they_are() {
        let mut queue = ChunkQueue::default();
        for _ in 0..LONG_PIECES {
            queue.push_back(chunk(0));
        }
        assert!(!queue.is_long());
        queue.push_back(chunk(0));
        assert!(queue.is_long());
    }
}
