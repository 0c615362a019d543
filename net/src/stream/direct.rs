//! Writes by calls other than `send(2)`: of several parts, of files, without waiting; and copies between streams.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::Poll;

use ringspun_fibers as fibers;
use ringspun_runtime::Wake;

use super::{Stream, WriteError};
use crate::ancillary::send_parts;
use crate::machine::{Sent, Turn, Write};
use crate::sending_files::{FileSender, SENT_AT_ONCE_MAX_BYTES};
use crate::waiting::{reason_of, wait_on};

/// Bytes that went from one place to another before an error.
pub struct TransferError {
    /// How many bytes the kernel has taken; all of them may still be delivered.
    pub transferred_bytes: u64,
    /// Why it ended.
    pub error: io::Error,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} bytes: {}", self.transferred_bytes, self.error)
    }
}

impl fmt::Debug for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferError({self})")
    }
}

impl std::error::Error for TransferError {}

impl From<TransferError> for io::Error {
    /// Converted to its cause, without the count.
    fn from(error: TransferError) -> Self {
        error.error
    }
}

impl Stream {
    /// As [`write`](Self::write), without waiting: sends as much of the data as there is room for, and returns the
    /// number of bytes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room, or if others are writing; otherwise as [`write`](Self::write).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     let mut sent = 0;
    ///     let error = loop {
    ///         match client.try_write(&[7; 4096]) {
    ///             Ok(count) => sent += count,
    ///             Err(error) => break error,
    ///         }
    ///     };
    ///     assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    ///     assert_eq!(server.chunk(&mut vec![0; sent])?, sent);
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.send_now(data).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => error,
            _ => self.failed("write to", error),
        })
    }

    /// As [`try_write`](Self::try_write), with errors that do not name the stream.
    fn send_now(&self, data: &[u8]) -> io::Result<usize> {
        let core = self.core();
        core.check_open()?;
        core.check_behind()?;
        if !core.is_free_to_send() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if data.is_empty() {
            return Ok(0);
        }
        core.event_loop().try_send(core.socket()?, data)
    }

    /// A write of a fiber that panics: what there is room for, such as what a `BufWriter` holds that is dropped.
    /// Parking now would show the thread's panic to other fibers.
    #[cold]
    pub(super) fn write_without_parking(&self, data: &[u8]) -> Result<(), (usize, WriteError)> {
        let cancelled = |written| (written, WriteError::Interrupted(fibers::Interrupt::Cancelled));
        // Elsewhere, the calls below would panic.
        if !fibers::runs_on(self.core().event_loop()) {
            return Err(cancelled(0));
        }
        let sent = match self.write_at_once(data).map_err(|error| (0, error))? {
            Sent::All => return Ok(()),
            Sent::Part(sent) => sent,
        };
        // It may have been left for a send that has to be waited for.
        match self.send_now(&data[sent..]) {
            Ok(count) if sent + count == data.len() => Ok(()),
            Ok(count) => Err(cancelled(sent + count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(cancelled(sent)),
            Err(error) => Err((sent, WriteError::Failed(error))),
        }
    }

    /// As [`write`](Self::write), but the kernel may send the data from where it is, instead of copying it first: on
    /// io_uring, over TCP, where the network card can do that (`io_uring_prep_send_zc(3)`, Linux 6.0). Elsewhere, as on
    /// the loopback device, the data is copied.
    ///
    /// It returns once the kernel no longer uses the data, that is when the peer's kernel has acknowledged it: later
    /// than a `write`, which need not wait for the network. It pays for large data, of a hundred KiB and more.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write). **An interrupt, or a write timeout, while the data is on its way resets the
    /// connection**: nothing else makes the kernel release the data of a peer that does not answer.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let listener = net::listen("127.0.0.1:0")?;
    ///     let client = net::connect(listener.localname()?)?;
    ///     let server = listener.accept()?;
    ///     let reading = fibers::spawn(move || client.chunk(&mut vec![0; 1_000_000]))?;
    ///     let video = vec![7; 1_000_000];
    ///     assert_eq!(server.write_zero_copy(&video)?, 1_000_000);
    ///     assert_eq!(reading.join()??, 1_000_000);
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn write_zero_copy(&self, data: &[u8]) -> io::Result<usize> {
        // A fiber that panics cannot wait for the peer.
        if self.core().event_loop().is_readiness_based() || std::thread::panicking() {
            return self.write(data);
        }
        let written = self
            .check_may_write()
            .map_err(|error| (0, error))
            .and_then(|()| self.write_by(Write::zero_copy(self.core().clone()), data));
        match written {
            Ok(()) => Ok(data.len()),
            Err((written_bytes, error)) => Err(self.write_failed(error, written_bytes, data.len())),
        }
    }

    /// As [`write`](Self::write), for data in several parts, which are not copied (`sendmsg(2)`). Other writers' bytes
    /// do not get between them.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     let body = vec![b'x'; 10_000];
    ///     client.write_parts(&[IoSlice::new(b"HTTP/1.1 200 OK\r\n\r\n"), IoSlice::new(&body)])?;
    ///     let mut response = vec![0; 10_019];
    ///     server.chunk(&mut response)?;
    ///     assert!(response.ends_with(b"\r\n\r\nxxx") == false && response.ends_with(&body));
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn write_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_parts_with(parts, &[])
    }

    /// Writes parts, with descriptors that travel with the first byte.
    pub(super) fn write_parts_with(
        &self,
        parts: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut rest = parts.to_vec();
        let (mut rest, mut written) = (rest.as_mut_slice(), 0);
        IoSlice::advance_slices(&mut rest, 0);
        let event_loop = self.core().event_loop().clone();
        let sent = self.send_directly(&mut |socket| {
            if written < total {
                let with = if written == 0 { descriptors } else { &[] };
                let count = send_parts(&event_loop, socket, rest, with)?;
                IoSlice::advance_slices(&mut rest, count);
                written += count;
            }
            Ok(written < total)
        });
        match sent {
            Ok(()) => Ok(total),
            Err(error) => Err(self.write_failed(error, written, total)),
        }
    }

    /// The contract of [`io::Write::write_vectored`] for large parts: sends once, and returns how much.
    pub(super) fn write_some_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let event_loop = self.core().event_loop().clone();
        let mut written = 0;
        let sent = self.send_directly(&mut |socket| {
            written = send_parts(&event_loop, socket, parts, &[])?;
            Ok(false)
        });
        sent.map(|()| written).map_err(|error| match error {
            WriteError::Interrupted(interrupt) => self.failed("write to", interrupt.into()),
            WriteError::Failed(error) => self.failed("write to", error),
        })
    }

    /// Sends a part of a file, from the offset `start` on, until `end` or the end of the file, and returns the number
    /// of bytes. The file's own position is neither used nor changed. Other writers' bytes do not get between them.
    ///
    /// On Linux, the bytes do not pass through the process (`sendfile(2)`); parts that are not in memory are first read
    /// on another thread, and so are all parts of files of which the kernel cannot tell that, such as those of FUSE.
    /// Elsewhere, and for files that `sendfile(2)` does not support, they are read and written. As `sendfile(2)` does,
    /// this raises SIGPIPE on a broken connection in programs that do not ignore it, as those of Rust do.
    ///
    /// # Errors
    ///
    /// [`TransferError`], with the number of bytes sent, and the error as for [`write`](Self::write), or the file's.
    /// A write timeout applies to each piece of some 128 KiB.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     let file = std::fs::File::open("/etc/passwd")?;
    ///     let sent = server.send_file(&file, 0..10)?;
    ///     let mut first = [0; 10];
    ///     client.chunk(&mut first)?;
    ///     assert_eq!((sent, &first[..]), (10, &std::fs::read("/etc/passwd")?[..10]));
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn send_file(&self, file: impl AsFd, range: Range<u64>) -> Result<u64, TransferError> {
        self.send_file_after(&[], file, range)
    }

    /// As [`send_file`](Self::send_file), with `head` before the part of the file, and counts its bytes, too. On Linux,
    /// both leave in the same segments, as far as they fit: a header and what it announces.
    ///
    /// # Errors
    ///
    /// As [`send_file`](Self::send_file).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     let file = std::fs::File::open("/etc/passwd")?;
    ///     assert_eq!(server.send_file_after(b"10 bytes: ", &file, 0..10)?, 20);
    ///     let mut received = [0; 20];
    ///     client.chunk(&mut received)?;
    ///     assert_eq!(&received[..15], b"10 bytes: root:");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn send_file_after(
        &self,
        head: &[u8],
        file: impl AsFd,
        range: Range<u64>,
    ) -> Result<u64, TransferError> {
        let mut sender = FileSender::new(head, file.as_fd(), range);
        let sent = self.send_file_rest(&mut sender);
        let transferred_bytes = sender.sent_bytes();
        sent.map(|()| transferred_bytes).map_err(|error| TransferError { transferred_bytes, error })
    }

    fn send_file_rest(&self, sender: &mut FileSender<'_>) -> io::Result<()> {
        let failed = |error| match error {
            WriteError::Interrupted(interrupt) => self.failed("send a file to", interrupt.into()),
            WriteError::Failed(error) => self.failed("send a file to", error),
        };
        if std::thread::panicking() && !fibers::runs_on(self.core().event_loop()) {
            // Reading the file would panic.
            return Err(failed(WriteError::Interrupted(fibers::Interrupt::Cancelled)));
        }
        // The turn is kept while the file is read.
        let mut turn = HeldTurn::new(self);
        while sender.prepare()? {
            let mut sent_bytes = 0;
            turn.send(&mut |socket| {
                let count = sender.send_to(self.core().event_loop(), socket)?;
                sent_bytes += count;
                Ok(count > 0 && sent_bytes < SENT_AT_ONCE_MAX_BYTES && sender.is_prepared())
            })
            .map_err(failed)?;
        }
        Ok(())
    }

    /// Copies what this stream receives to another, until its end, and returns the number of bytes. Neither stream is
    /// shut down or closed. To copy in both directions, use two fibers.
    ///
    /// # Errors
    ///
    /// [`TransferError`], with the number of bytes that the other stream has taken, and the error of either stream.
    /// Bytes that were received and not sent are left to the next read of this stream: none is lost.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Shutdown;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, downstream) = net::Stream::pair()?;
    ///     let (upstream, server) = net::Stream::pair()?;
    ///     client.write(b"through a proxy")?;
    ///     client.shutdown(Shutdown::Write)?;
    ///     assert_eq!(downstream.copy_to(&upstream)?, 15);
    ///     assert_eq!(&*server.receive()?.unwrap(), b"through a proxy");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn copy_to(&self, other: &Self) -> Result<u64, TransferError> {
        let mut transferred_bytes = 0;
        loop {
            let received = match self.receive() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(transferred_bytes),
                Err(error) => return Err(TransferError { transferred_bytes, error }),
            };
            let written = other.write_within(&received);
            match written {
                Ok(()) => transferred_bytes += received.len() as u64,
                Err((count, error)) => {
                    transferred_bytes += count as u64;
                    let error = other.write_failed(error, count, received.len());
                    let mut chunk = received.into_chunk();
                    chunk.consume(count);
                    if !chunk.is_empty() {
                        self.core().put_back(chunk.kept());
                    }
                    return Err(TransferError { transferred_bytes, error });
                }
            }
        }
    }

    /// Calls `attempt`, which sends by a call that does not block, in this fiber's turn among the writers, until it
    /// says that nothing is left. The write timeout limits each wait for room.
    fn send_directly(
        &self,
        attempt: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<bool>,
    ) -> Result<(), WriteError> {
        HeldTurn::new(self).send(attempt)
    }
}

/// A fiber's turn among the writers of a stream, which it leaves when this is dropped.
struct HeldTurn<'a> {
    stream: &'a Stream,
    turn: Turn,
    /// The fiber's, once it may be among the writers.
    waiter: Option<Rc<dyn Wake>>,
}

impl<'a> HeldTurn<'a> {
    fn new(stream: &'a Stream) -> Self {
        Self { stream, turn: Turn::new(stream.core().clone()), waiter: None }
    }

    fn send(
        &mut self,
        attempt: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<bool>,
    ) -> Result<(), WriteError> {
        if std::thread::panicking() {
            return self.send_without_parking(attempt);
        }
        self.stream.check_may_write()?;
        // Outside of a fiber this panics, when there is nothing to leave yet.
        self.waiter = Some(fibers::waiter());
        loop {
            let sent = wait_on(
                self.stream.core().event_loop(),
                (),
                self.stream.write_timeout.get(),
                |(), waiter| self.turn.poll(waiter, attempt),
                |(), _| {},
                |()| reason_of("write to", &**self.stream.core()),
            );
            match sent {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(WriteError::of_wait(error)),
            }
        }
    }
}

impl HeldTurn<'_> {
    /// As [`send`](Self::send), in a fiber that panics: what there is room for. Parking now would show the thread's
    /// panic to other fibers.
    #[cold]
    fn send_without_parking(
        &mut self,
        attempt: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<bool>,
    ) -> Result<(), WriteError> {
        const CANCELLED: WriteError = WriteError::Interrupted(fibers::Interrupt::Cancelled);
        // Elsewhere, the calls below would panic.
        if !fibers::runs_on(self.stream.core().event_loop()) {
            return Err(CANCELLED);
        }
        self.stream.check_may_write()?;
        let waiter = self.waiter.insert(fibers::waiter());
        loop {
            match self.turn.poll(waiter, attempt) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Ok(()),
                Poll::Ready(Err(error)) => return Err(WriteError::Failed(error)),
                Poll::Pending => return Err(CANCELLED),
            }
        }
    }
}

impl Drop for HeldTurn<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            self.turn.leave(waiter);
        }
    }
}
