//! Pipes, and other descriptors that can be waited for and are no sockets.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ringspun_fibers::{self as fibers, wait_until_ready};
use ringspun_runtime::Interest;

use crate::error::{WriteInterrupted, interrupt_of};
use crate::machine::Budget;
use crate::system::{self, set_nonblocking};
use crate::waiting::current_loop;

/// One end of a pipe, or another descriptor that can be waited for: a FIFO, a terminal of one's own, an `eventfd(2)`.
/// For sockets there is [`Stream`](crate::Stream), for files [`File`](crate::fs::File), and for the standard streams of
/// the process, which it shares with others, [`stdin`](crate::stdin) and its kin.
///
/// Bytes stay in the kernel until they are read. A fiber that waits is woken by the kernel's readiness, on both
/// backends; the reads and writes themselves never block. All methods take `&self`; bytes of writers that write at the
/// same time may mix where the pipe is full in between.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader};
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let (reader, writer) = net::pipe()?;
///     fibers::spawn(move || writer.write(b"one\ntwo\n").unwrap())?;
///     let lines = BufReader::new(reader).lines().collect::<std::io::Result<Vec<_>>>()?;
///     assert_eq!(lines, ["one", "two"]);
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct Pipe {
    descriptor: OwnedFd,
    budget: Budget,
}

/// A new pipe (`pipe(2)`): first the end to read from, then the one to write to.
///
/// # Errors
///
/// The kernel's, such as too many open files.
pub fn pipe() -> io::Result<(Pipe, Pipe)> {
    let (reader, writer) = system::pipe()?;
    Ok((reader.try_into()?, writer.try_into()?))
}

impl Pipe {
    /// Parks until there are bytes, and reads up to `buffer.len()` of them. Returns 0 at the end, once all writers have
    /// closed theirs, or if the buffer is empty.
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber, which loses no byte; `Unsupported` outside of a runtime.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_ready(Interest::Readable, || system::read(self.descriptor.as_raw_fd(), buffer))
    }

    /// Writes all of `data`, parking while the pipe is full, and returns its length.
    ///
    /// As `write(2)` does, this raises SIGPIPE if nobody can read, in programs that do not ignore it, as those of Rust
    /// do.
    ///
    /// # Errors
    ///
    /// The kernel's, such as a broken pipe; after an interrupt of the fiber, [`WriteInterrupted`], with the number of
    /// bytes that the kernel took; `Unsupported` outside of a runtime.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        write_all(data, |rest| self.write_part(rest))
    }

    fn write_part(&self, data: &[u8]) -> io::Result<usize> {
        self.when_ready(Interest::Writable, || system::write(self.descriptor.as_raw_fd(), data))
    }

    /// Makes a system call that does not block, and again once the descriptor is ready.
    fn when_ready(
        &self,
        interest: Interest,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let event_loop = current_loop()?;
        fibers::check()?;
        while !self.budget.spend(&event_loop, Budget::RECEIVE, Budget::OF_STREAM) {
            fibers::yield_now()?;
        }
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_ready(self, interest)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                called => return called,
            }
        }
    }
}

/// Writes all of the data by calls of `write_part`; an interrupt says how much went.
pub(crate) fn write_all(
    data: &[u8],
    mut write_part: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut written_bytes = 0;
    while written_bytes < data.len() {
        match write_part(&data[written_bytes..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written_bytes += count,
            Err(error) => {
                return Err(match interrupt_of(&error) {
                    Some(interrupt) => {
                        #[cfg(feature = "mutations")]
                        let written_bytes = crate::mutations::tell_written(written_bytes);
                        WriteInterrupted { interrupt, written_bytes, total_bytes: data.len() }.into()
                    }
                    None => error,
                });
            }
        }
    }
    Ok(written_bytes)
}

/// Has the runtime of this thread use the descriptor, which is non-blocking from then on, also for whoever shares its
/// open file description: not for a terminal or another descriptor that other processes use.
impl TryFrom<OwnedFd> for Pipe {
    type Error = io::Error;

    fn try_from(descriptor: OwnedFd) -> io::Result<Self> {
        set_nonblocking(descriptor.as_raw_fd(), true)?;
        Ok(Self { descriptor, budget: Budget::default() })
    }
}

impl TryFrom<PipeReader> for Pipe {
    type Error = io::Error;

    fn try_from(reader: PipeReader) -> io::Result<Self> {
        OwnedFd::from(reader).try_into()
    }
}

impl TryFrom<PipeWriter> for Pipe {
    type Error = io::Error;

    fn try_from(writer: PipeWriter) -> io::Result<Self> {
        OwnedFd::from(writer).try_into()
    }
}

/// Gives the descriptor away; it stays non-blocking.
impl From<Pipe> for OwnedFd {
    fn from(pipe: Pipe) -> Self {
        pipe.descriptor
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Read for &Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Pipe::read(self, buffer)
    }
}

impl Write for &Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Pipe::write(self, data).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Pipe::read(self, buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Pipe::write(self, data).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
