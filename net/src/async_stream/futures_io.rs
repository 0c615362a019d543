//! The traits of the crate futures-io, which async-std and smol use.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{AsyncStream, PollStream};

impl<S: PollStream + Unpin> ::futures_io::AsyncRead for AsyncStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        AsyncStream::poll_read(&mut self, context, buffer.len(), |bytes| {
            buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })
    }
}

impl<S: PollStream + Unpin> ::futures_io::AsyncWrite for AsyncStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncStream::poll_write(&mut self, context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncStream::poll_flush(&mut self, context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncStream::poll_close(&mut self, context)
    }
}
