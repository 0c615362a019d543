//! Streams for crates that are written for futures: the traits that those read and write by.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ringspun_fibers::TaskWaiter;
use ringspun_runtime::Wake;

use crate::machine::{Amount, Read};
use crate::stream::Stream;
use crate::waiting::check_loop;

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tokio")]
mod tokio;

/// A stream in the form in which crates for futures want it, for use in
/// [`block_on`](ringspun_fibers::block_on): implements their traits for reading and writing, each with a feature
/// of this crate.
///
/// | feature | traits |
/// | --- | --- |
/// | `futures-io` | `futures_io::AsyncRead`, `AsyncWrite` |
/// | `tokio` | `tokio::io::AsyncRead`, `AsyncWrite`: the traits alone, without tokio's event loop |
/// | `hyper` | `hyper::rt::Read`, `Write`, and a timer and an executor in the module `hyper` |
///
/// A write copies what it cannot send at once, up to 64 KiB, and is then ready, as its bytes cannot be borrowed; the
/// next one waits until they are in the kernel. An error of those is reported once: by the next write or flush, or by a
/// read at the end. Flushing waits for all bytes but those of a small write that the loop sends in its next turn.
/// Shutting down or dropping the stream takes effect after everything that has been written.
///
/// Timeouts of the stream do not apply: the crates bring their own. Fibers may use clones of the stream in straight
/// code at the same time. It is not `Send`, as the stream is not; a future with it belongs to the thread. Where it is
/// polled outside of a fiber it panics.
///
/// # Examples
///
/// The methods that the traits are made of work without any of the features:
///
/// ```
/// use std::future::poll_fn;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net::{self as net, AsyncStream};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let (client, server) = net::Stream::pair()?;
///     let (mut client, mut server) = (AsyncStream::new(client), AsyncStream::new(server));
///     fibers::block_on(async {
///         poll_fn(|context| client.poll_write(context, b"hello")).await?;
///         let mut read = Vec::new();
///         poll_fn(|context| server.poll_read(context, 16, |bytes| read.extend_from_slice(bytes))).await?;
///         assert_eq!(read, b"hello");
///         Ok(())
///     })?
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct AsyncStream<S: PollStream = Stream> {
    stream: S,
    reader: Side,
    writer: Side,
}

/// The task that reads, or writes.
#[derive(Debug, Default)]
struct Side {
    waiter: TaskWaiter,
    /// Whether the waiter may be in a list of the stream.
    is_waiting: bool,
}

impl Side {
    fn poll<T>(
        &mut self,
        context: &Context<'_>,
        poll: impl FnOnce(&Rc<dyn Wake>) -> Poll<T>,
        leave: impl FnOnce(&Rc<dyn Wake>),
    ) -> Poll<T> {
        let waiter = self.waiter.for_task(context);
        let polled = poll(&waiter);
        if polled.is_pending() {
            self.is_waiting = true;
        } else if std::mem::take(&mut self.is_waiting) {
            leave(&waiter);
        }
        polled
    }
}

/// What an [`AsyncStream`] is made of: a [`Stream`], or a stream of a protocol above it, such as TLS. Each method is
/// ready, or has the waiter be woken when it should be called again.
pub trait PollStream {
    /// Passes up to `limit` bytes, at least one, to `sink`, which may be called several times, and returns how many; 0
    /// at the end of the stream.
    ///
    /// # Errors
    ///
    /// The stream's.
    fn poll_read(
        &self,
        waiter: &Rc<dyn Wake>,
        limit: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>>;

    /// Sends the first of some bytes, or copies them to send them later, and returns how many.
    ///
    /// # Errors
    ///
    /// The stream's, also of earlier writes. No byte has been taken then.
    fn poll_write(&self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready when what was written is sent, or will be by the loop's next turn.
    ///
    /// # Errors
    ///
    /// The stream's, also of earlier writes.
    fn poll_flush(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>>;

    /// Ends the output after what was written.
    ///
    /// # Errors
    ///
    /// The stream's.
    fn end(&self) -> io::Result<()>;

    /// A reader gives up: its waiter is no longer to be woken.
    fn leave_readers(&self, waiter: &Rc<dyn Wake>);

    /// A writer gives up.
    fn leave_writers(&self, waiter: &Rc<dyn Wake>);
}

impl PollStream for Stream {
    fn poll_read(
        &self,
        waiter: &Rc<dyn Wake>,
        limit: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        check_loop(self.core().event_loop())?;
        Read::new(self.core().clone(), Amount::UpTo(limit))
            .poll(waiter, sink)
            .map_err(|error| self.failed("read from", error))
    }

    fn poll_write(&self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<usize>> {
        check_loop(self.core().event_loop())?;
        self.core().poll_send(waiter, data).map_err(|error| self.failed("write to", error))
    }

    fn poll_flush(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.core().poll_sent(waiter).map_err(|error| self.failed("write to", error))
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn leave_readers(&self, waiter: &Rc<dyn Wake>) {
        self.core().leave_readers(waiter);
    }

    fn leave_writers(&self, waiter: &Rc<dyn Wake>) {
        self.core().leave_writers(waiter);
    }
}

impl<S: PollStream> AsyncStream<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, reader: Side::default(), writer: Side::default() }
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Passes up to `limit` bytes to `sink`, and returns how many; 0 at the end of the stream, or for a limit of 0.
    ///
    /// # Errors
    ///
    /// As [`Stream::read`], without the timeout.
    pub fn poll_read(
        &mut self,
        context: &Context<'_>,
        limit: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if limit == 0 {
            return Poll::Ready(Ok(0));
        }
        let stream = &self.stream;
        self.reader.poll(
            context,
            |waiter| stream.poll_read(waiter, limit, &mut sink),
            |waiter| stream.leave_readers(waiter),
        )
    }

    /// Sends or copies the first of some bytes, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`Stream::write`], without the timeout; also those of earlier writes. No byte has been taken then.
    pub fn poll_write(&mut self, context: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let stream = &self.stream;
        self.writer.poll(
            context,
            |waiter| stream.poll_write(waiter, data),
            |waiter| stream.leave_writers(waiter),
        )
    }

    /// Ready when what was written is sent, or will be by the loop's next turn.
    ///
    /// # Errors
    ///
    /// As [`poll_write`](Self::poll_write).
    pub fn poll_flush(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let stream = &self.stream;
        self.writer.poll(context, |waiter| stream.poll_flush(waiter), |waiter| stream.leave_writers(waiter))
    }

    /// Flushes, and ends the output: the peer reads the end of the stream. Does nothing if the peer has ended the
    /// connection already.
    ///
    /// # Errors
    ///
    /// As [`poll_write`](Self::poll_write).
    pub fn poll_close(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        Poll::Ready(match self.stream.end() {
            Err(error) if crate::errno_of(&error) == Some(libc::ENOTCONN) => Ok(()),
            ended => ended,
        })
    }
}

impl<S: PollStream> Drop for AsyncStream<S> {
    fn drop(&mut self) {
        if self.reader.is_waiting {
            self.reader.waiter.get().inspect(|waiter| self.stream.leave_readers(waiter));
        }
        if self.writer.is_waiting {
            self.writer.waiter.get().inspect(|waiter| self.stream.leave_writers(waiter));
        }
    }
}
