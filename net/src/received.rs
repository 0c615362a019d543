//! Received bytes that stay where they were received.

use std::ops::Deref;

use crate::machine::Chunk;

/// Received bytes, from [`Stream::receive`](crate::Stream::receive) or
/// [`DatagramSocket::receive`](crate::DatagramSocket::receive). Those of a stream are at least one, and at most what a
/// receive buffer of the loop holds (64 KiB by default). Dropping them returns their buffer to the loop, which has few:
/// to keep bytes for long, copy them.
#[derive(Debug)]
pub struct Received {
    chunk: Chunk,
}

impl Received {
    pub(crate) fn new(chunk: Chunk) -> Self {
        Self { chunk }
    }

    pub(crate) fn into_chunk(self) -> Chunk {
        self.chunk
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk
    }
}
