//! Sends bytes and a part of a file over a socket, piece by piece: a piece is first brought into memory, then sent by
//! calls that do not block.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ringspun_fibers as fibers;
use ringspun_runtime::EventLoop;

use crate::error::errno_of;
use crate::system::read_now;

/// How much is brought into memory at a time, and sent in one turn of the loop at most.
pub(crate) const SENT_AT_ONCE_MAX_BYTES: usize = 128 * 1024;

/// A part of a file that is being sent.
pub(crate) struct FileSender<'a> {
    /// What is to go first.
    head: &'a [u8],
    file: BorrowedFd<'a>,
    offset: u64,
    end: u64,
    sent_bytes: u64,
    /// What is in memory: bytes that have been read, or pages that the kernel has.
    source: Source,
}

enum Source {
    /// `sendfile(2)` finds the file's pages in memory up to this offset.
    Pages { until: u64 },
    /// Bytes that follow the offset, of which this many have been sent.
    Bytes { bytes: Vec<u8>, sent: usize },
}

impl<'a> FileSender<'a> {
    pub(crate) fn new(head: &'a [u8], file: BorrowedFd<'a>, range: Range<u64>) -> Self {
        let source = match cfg!(target_os = "linux") {
            true => Source::Pages { until: 0 },
            false => Source::Bytes { bytes: Vec::new(), sent: 0 },
        };
        Self { head, file, offset: range.start, end: range.end, sent_bytes: 0, source }
    }

    /// How many bytes have been sent, of the head and of the file.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Whether something of the file is in memory that has not been sent.
    pub(crate) fn is_prepared(&self) -> bool {
        match &self.source {
            Source::Pages { until } => self.offset < *until,
            Source::Bytes { bytes, sent } => *sent < bytes.len(),
        }
    }

    /// Brings the next piece into memory, by a parked wait if it is not there; false if nothing is left to send.
    ///
    /// # Errors
    ///
    /// The file's; an interrupt of the fiber.
    pub(crate) fn prepare(&mut self) -> io::Result<bool> {
        if self.is_prepared() {
            return Ok(true);
        }
        let length = self.end.saturating_sub(self.offset).min(SENT_AT_ONCE_MAX_BYTES as u64) as usize;
        if length == 0 {
            return Ok(!self.head.is_empty());
        }
        if let Source::Pages { until } = &mut self.source
            && is_in_memory(self.file, self.offset, length)
        {
            *until = self.offset + length as u64;
            return Ok(true);
        }
        let bytes = read_elsewhere(self.file.try_clone_to_owned()?, self.offset, length)?;
        let has_some = !bytes.is_empty() || !self.head.is_empty();
        match &mut self.source {
            Source::Pages { until } => *until = self.offset + bytes.len() as u64,
            Source::Bytes { bytes: prepared, sent } => (*prepared, *sent) = (bytes, 0),
        }
        Ok(has_some)
    }

    /// Sends some of what has been prepared. Returns 0 if it has to be prepared again.
    ///
    /// # Errors
    ///
    /// The socket's, including `EAGAIN`.
    pub(crate) fn send_to(&mut self, event_loop: &EventLoop, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let count = match self.head.is_empty() {
            true => self.send_file_to(event_loop, socket)?,
            false => {
                let count = send_head(event_loop, socket, self.head, self.is_prepared())?;
                self.head = &self.head[count..];
                count
            }
        };
        self.sent_bytes += count as u64;
        Ok(count)
    }

    fn send_file_to(&mut self, event_loop: &EventLoop, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let count = match &mut self.source {
            Source::Pages { until } => {
                let length = (*until - self.offset) as usize;
                let sent = match blocks(socket) || event_loop.is_shut_down() || is_simulated() {
                    true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                    false => send_pages(socket, self.file, self.offset, length),
                };
                match sent {
                    // The file has become shorter.
                    Ok(0) => {
                        self.end = self.offset;
                        *until = self.offset;
                        0
                    }
                    Err(error) if is_unsupported(&error) => {
                        self.source = Source::Bytes { bytes: Vec::new(), sent: 0 };
                        0
                    }
                    sent => sent?,
                }
            }
            Source::Bytes { bytes, sent } => {
                let count = event_loop.try_send(socket, &bytes[*sent..])?;
                *sent += count;
                count
            }
        };
        self.offset += count as u64;
        Ok(count)
    }
}

/// Whether the file or the socket is of a kind that `sendfile(2)` does not take.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(errno_of(error), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ESPIPE))
}

fn is_simulated() -> bool {
    #[cfg(feature = "simulation")]
    return ringspun_runtime::simulation::current().is_some();
    #[cfg(not(feature = "simulation"))]
    false
}

/// Sends bytes that more follow, or not: then the kernel keeps what does not fill a segment for that (`MSG_MORE` in
/// `send(2)`), and the receiver wakes up once.
fn send_head(
    event_loop: &EventLoop,
    socket: BorrowedFd<'_>,
    head: &[u8],
    more_follow: bool,
) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    if more_follow && !event_loop.is_shut_down() && !is_simulated() {
        use nix::sys::socket::{MsgFlags, send};

        let flags =
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | MsgFlags::from_bits_retain(libc::MSG_MORE);
        return Ok(send(socket.as_raw_fd(), head, flags)?);
    }
    let _ = more_follow;
    event_loop.try_send(socket, head)
}

/// Whether calls on the descriptor may block.
fn blocks(descriptor: BorrowedFd<'_>) -> bool {
    // SAFETY: only reads flags.
    let flags = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_NONBLOCK == 0
}

/// Reads on a thread that may block; fewer bytes only at the end of the file.
fn read_elsewhere(file: OwnedFd, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let read = move || -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;

        let file = std::fs::File::from(file);
        let (mut bytes, mut count) = (vec![0; length], 0);
        while count < length {
            match file.read_at(&mut bytes[count..], offset + count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(count);
        Ok(bytes)
    };
    if std::thread::panicking() {
        // Parking now would show the thread's panic to other fibers.
        return read();
    }
    fibers::blocking(read)?
}

/// Whether a part of a file is in memory, as far as its first and last bytes show: the kernel reads ahead between them.
fn is_in_memory(file: BorrowedFd<'_>, offset: u64, length: usize) -> bool {
    let is_present = |offset| read_now(file, &mut [0], offset) == Some(1);
    is_present(offset) && is_present(offset + length as u64 - 1)
}

#[cfg(target_os = "linux")]
fn send_pages(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
    let mut offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    loop {
        // SAFETY: the offset is valid during the call.
        let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, length) };
        match usize::try_from(sent) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn send_pages(_: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
