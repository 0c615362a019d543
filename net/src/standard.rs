//! The standard streams of the process, which it shares with others: the shell that has started it, its children, the
//! reader of a pipe.
//!
//! They are never made non-blocking, as that would be so for all of these. A fiber waits until a stream is ready; then
//! a thread for blocking calls reads or writes a little, which blocks it only if another process is faster.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringspun_fibers::{self as fibers, wait_until_ready};
use ringspun_runtime::Interest;

use crate::pipe::write_all;

/// The most bytes that are read at a time.
const READ_MAX_BYTES: usize = 64 * 1024;
/// What a pipe that is writable has room for in any case (`PIPE_BUF`).
const WRITTEN_AT_ONCE_BYTES: usize = 4096;
/// The same for what never makes a writer wait for a reader.
const WRITTEN_TO_FILE_AT_ONCE_BYTES: usize = 1024 * 1024;

/// What has been read from standard input, and not been taken.
static READ_AHEAD: Mutex<ReadAhead> = Mutex::new(ReadAhead { bytes: VecDeque::new(), has_ended: false });
/// Held while standard input is read.
static READING: Mutex<()> = Mutex::new(());

struct ReadAhead {
    bytes: VecDeque<u8>,
    /// The last read was at the end, and nobody has been told.
    has_ended: bool,
}

impl ReadAhead {
    /// What a read returns now; `None` if it has to wait.
    fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.bytes.is_empty() {
            // At a terminal, more may follow.
            return std::mem::take(&mut self.has_ended).then_some(0);
        }
        self.bytes.read(buffer).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The standard input of the process, for fibers, from [`stdin`].
///
/// Bytes that are read for a fiber that is interrupted meanwhile are left to the next read, by any fiber of the
/// process: none is lost. They are not those that [`std::io::stdin`] buffers: use one or the other.
#[derive(Clone, Copy, Debug)]
pub struct Stdin {
    _private: (),
}

/// The standard input of the process. It may be a terminal, a pipe, a socket or a file.
///
/// # Examples
///
/// ```no_run
/// use std::io::{BufRead, BufReader};
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     for line in BufReader::new(net::stdin()).lines() {
///         net::stdout().write(format!("{}\n", line?.to_uppercase()).as_bytes())?;
///     }
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn stdin() -> Stdin {
    Stdin { _private: () }
}

impl Stdin {
    /// Parks until there are bytes, and reads up to `buffer.len()` of them. Returns 0 at the end, or if the buffer is
    /// empty.
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        fibers::check()?;
        loop {
            if let Some(count) = lock(&READ_AHEAD).take(buffer) {
                return Ok(count);
            }
            wait_until_ready(io::stdin(), Interest::Readable)?;
            fibers::blocking(read_ahead)??;
        }
    }
}

/// Reads what is there, for whoever takes it.
fn read_ahead() -> io::Result<()> {
    let _reading = lock(&READING);
    let has_some = {
        let read = lock(&READ_AHEAD);
        !read.bytes.is_empty() || read.has_ended
    };
    // Another fiber may have been faster.
    if has_some || !is_ready(libc::STDIN_FILENO, libc::POLLIN) {
        return Ok(());
    }
    let mut bytes = vec![0; READ_MAX_BYTES];
    loop {
        // SAFETY: the buffer is valid for writes of its length.
        let count = unsafe { libc::read(libc::STDIN_FILENO, bytes.as_mut_ptr().cast(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) => {
                let mut read = lock(&READ_AHEAD);
                read.has_ended = count == 0;
                read.bytes.extend(&bytes[..count]);
                return Ok(());
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody has made it non-blocking.
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                error => return Err(error),
            },
        }
    }
}

fn is_ready(descriptor: RawFd, events: libc::c_short) -> bool {
    let mut descriptor = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: one valid descriptor; does not wait.
    unsafe { libc::poll(&raw mut descriptor, 1, 0) > 0 }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stdin::read(self, buffer)
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the standard streams stay open.
        unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) }
    }
}

/// Standard output or standard error of the process, for fibers, from [`stdout`] and [`stderr`].
///
/// It has no buffer, and takes nothing of those of [`std::io::stdout`]; for many small pieces, put a
/// [`BufWriter`](std::io::BufWriter) or [`LineWriter`](std::io::LineWriter) before it. Bytes of writers that write at
/// the same time may mix.
#[derive(Clone, Copy, Debug)]
pub struct StandardOutput {
    descriptor: RawFd,
}

/// The standard output of the process.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| net::stdout().write(b"hello\n")).unwrap().unwrap();
/// ```
pub fn stdout() -> StandardOutput {
    StandardOutput { descriptor: libc::STDOUT_FILENO }
}

/// The standard error of the process.
pub fn stderr() -> StandardOutput {
    StandardOutput { descriptor: libc::STDERR_FILENO }
}

impl StandardOutput {
    /// Writes all of `data`, parking while its reader has no room, and returns its length.
    ///
    /// # Errors
    ///
    /// The kernel's, such as a broken pipe; after an interrupt of the fiber,
    /// [`WriteInterrupted`](crate::WriteInterrupted), with the number of bytes that the kernel took.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        let at_once = match is_file(self.descriptor) {
            true => WRITTEN_TO_FILE_AT_ONCE_BYTES,
            false => WRITTEN_AT_ONCE_BYTES,
        };
        write_all(data, |rest| self.write_part(&rest[..rest.len().min(at_once)]))
    }

    fn write_part(&self, data: &[u8]) -> io::Result<usize> {
        let descriptor = self.descriptor;
        loop {
            wait_until_ready(self, Interest::Writable)?;
            // SAFETY: the data is valid for reads of its length.
            let write = || match unsafe { libc::write(descriptor, data.as_ptr().cast(), data.len()) } {
                -1 => Err(io::Error::last_os_error()),
                count => Ok(count as usize),
            };
            match fibers::blocking_scoped(write)? {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }
}

fn is_file(descriptor: RawFd) -> bool {
    // SAFETY: a zeroed structure is valid, and has room for what the call writes.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(descriptor, &raw mut status) == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

impl AsFd for StandardOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the standard streams stay open.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

impl AsRawFd for StandardOutput {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

impl Write for StandardOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(&data[..data.len().min(WRITTEN_AT_ONCE_BYTES)])
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        StandardOutput::write(self, data).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
