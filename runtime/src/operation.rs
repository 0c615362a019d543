//! Operations and their completions: the closed set that every backend implements.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use nix::sys::socket::SockaddrLike;

use crate::Buffer;

/// Identifies a submitted operation of an [`EventLoop`](crate::EventLoop).
///
/// The key of an operation that is over matches no later operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OperationKey {
    /// The `user_data` of the operation's submission and completions.
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// An operation to submit with [`EventLoop::submit`](crate::EventLoop::submit). Each fails with the errors of the
/// system call that it is named after. The kernel versions are for the io_uring backend.
///
/// The loop does not own descriptors: they must stay open until the operation's terminal completion. Closing one
/// earlier does not end the operation: the kernel keeps the socket alive, and the number may be reused for another.
#[non_exhaustive]
#[derive(Debug)]
pub enum Operation {
    /// Accept connections, one completion each, until cancelled or failed (`accept(2)`;
    /// `io_uring_prep_multishot_accept(3)`, Linux 5.19). A completion's count is the descriptor of a connection,
    /// close-on-exec and non-blocking, which the owner must close, even if it arrives after a cancel.
    Accept {
        /// The listening socket.
        listener: RawFd,
    },
    /// Receive bytes into the loop's buffers, one completion per piece, until the end of the stream (a count of 0),
    /// an error, or a cancel. It may also end after any piece, for the owner to submit it again (`recv(2)`;
    /// `io_uring_prep_recv_multishot(3)`, Linux 6.0). If no buffer is free, the loop continues it once some have been
    /// returned.
    Receive {
        /// A connected socket.
        socket: RawFd,
    },
    /// Send all of the data, or its first GiB if it is longer. A lower count in the completion means that a cancel or
    /// an error ended the send early (`send(2)` with `MSG_NOSIGNAL` and `MSG_WAITALL`).
    Send {
        /// A connected socket.
        socket: RawFd,
        /// The bytes, kept until the terminal completion.
        data: SendData,
    },
    /// As [`Send`](Self::Send), but the kernel may send the bytes from where they are instead of copying them
    /// (`io_uring_prep_send_zc(3)`, Linux 6.0): the completion comes once it no longer uses them, that is when the peer
    /// has acknowledged them. A cancel between the two [disconnects](crate::EventLoop::cancel) the socket, as nothing
    /// else ends the wait. On readiness-based loops, it is a `Send`. Ends with `EOPNOTSUPP` on sockets other than those
    /// of IPv4 and IPv6.
    SendZeroCopy {
        /// A connected socket.
        socket: RawFd,
        /// The bytes, kept until the terminal completion.
        data: SendData,
    },
    /// Receive datagrams into the loop's buffers, one completion each, until an error or a cancel (`recvmsg(2)`;
    /// `io_uring_prep_recvmsg_multishot(3)`, Linux 6.0). If no buffer is free, it waits, as [`Receive`](Self::Receive)
    /// does. The count is the size of the datagram in bytes, which may be 0; its sender is [`Buffer::source`].
    ///
    /// A datagram that is longer than a buffer, as on Unix sockets, is truncated: [`Buffer::is_truncated`].
    ReceiveFrom {
        /// A datagram socket.
        socket: RawFd,
    },
    /// Send a whole datagram without waiting: if there is no room, it ends with `EAGAIN` (`sendmsg(2)` with
    /// `MSG_NOSIGNAL` and `MSG_DONTWAIT`). It does not wait for room because io_uring may truncate a datagram when it
    /// retries, and because not every socket signals room: see `unix(7)`.
    SendTo {
        /// A datagram socket; connected, if the datagram names no destination.
        socket: RawFd,
        /// The bytes and their destination, kept until the terminal completion.
        datagram: Box<Datagram>,
    },
    /// Connect a socket to an address (`connect(2)`). The completion's count is 0. If the backlog of a Unix listener is
    /// full, it ends with `EAGAIN`, as on any non-blocking socket.
    Connect {
        /// An unconnected socket.
        socket: RawFd,
        /// The peer's address, kept until the terminal completion.
        address: Box<Address>,
    },
    /// Wait once for a descriptor to become readable or writable. The completion's count is the `poll(2)` event mask,
    /// which may consist of `POLLERR` and `POLLHUP` only.
    Poll {
        /// Any pollable descriptor.
        descriptor: RawFd,
        /// What to wait for.
        interest: Interest,
    },
    /// Complete each time that a socket may have become readable, until cancelled or failed
    /// (`io_uring_prep_poll_multishot(3)`, Linux 5.13). Completions may be spurious. It may end after any completion,
    /// for the owner to submit it again.
    ///
    /// A completion's count is the `poll(2)` event mask. If it is `POLLIN` alone, a receive that does not fill its
    /// buffer has emptied the socket, and later data causes another completion.
    PollInput {
        /// A connected socket.
        socket: RawFd,
    },
    /// Open, read, write or synchronize a file. On loops that do not
    /// [perform these](crate::EventLoop::performs_files), it ends with `EOPNOTSUPP`.
    File(Box<FileOperation>),
}

/// An operation on a file. A cancel may come too late for one that has begun: it then ends as if there had been none.
#[non_exhaustive]
#[derive(Debug)]
pub enum FileOperation {
    /// Open a file, relative to the current directory (`open(2)`; `io_uring_prep_openat(3)`, Linux 5.6). The
    /// completion's count is the descriptor, which the owner must close, even if it arrives after a cancel.
    Open {
        /// The path, kept until the terminal completion.
        path: CString,
        /// As for `open(2)`; should have `O_CLOEXEC`.
        flags: i32,
        /// The permissions of a new file.
        mode: u32,
    },
    /// Read bytes at an offset, up to a GiB (`pread(2)`; `io_uring_prep_read(3)`, Linux 5.6). The completion's count is
    /// that of the bytes; 0 at the end of the file.
    Read {
        /// A file with offsets.
        file: RawFd,
        /// Where to put them.
        buffer: LentBuffer,
        /// Where they are in the file.
        offset: u64,
    },
    /// Write bytes at an offset, up to a GiB (`pwrite(2)`; `io_uring_prep_write(3)`, Linux 5.6). The completion's count
    /// is that of the bytes, which may be lower.
    Write {
        /// A file with offsets.
        file: RawFd,
        /// The bytes, kept until the terminal completion.
        data: SendData,
        /// Where to put them in the file.
        offset: u64,
    },
    /// Wait until what has been written is on the disk (`fsync(2)`, `fdatasync(2)`; `io_uring_prep_fsync(3)`, Linux
    /// 5.1). The completion's count is 0.
    Synchronize {
        /// The file.
        file: RawFd,
        /// Only the bytes, and what is needed to read them.
        data_only: bool,
    },
}

/// A socket address in the kernel's format (`sockaddr_storage`, `socket(7)`).
pub type Address = nix::sys::socket::SockaddrStorage;

/// Which readiness [`Operation::Poll`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There are bytes to read, or the stream has ended.
    Readable,
    /// A write would not block.
    Writable,
}

/// The kind of an [`Operation`], for the owner's `match`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// [`Operation::Accept`]
    Accept,
    /// [`Operation::Receive`]
    Receive,
    /// [`Operation::Send`]
    Send,
    /// [`Operation::SendZeroCopy`]
    SendZeroCopy,
    /// [`Operation::ReceiveFrom`]
    ReceiveFrom,
    /// [`Operation::SendTo`]
    SendTo,
    /// [`Operation::Connect`]
    Connect,
    /// [`Operation::Poll`] for [`Interest::Readable`]
    Poll,
    /// [`Operation::Poll`] for [`Interest::Writable`]
    PollOutput,
    /// [`Operation::PollInput`]
    PollInput,
    /// [`Operation::File`]
    File,
    /// [`EventLoop::send_soon`](crate::EventLoop::send_soon), if not all bytes were sent.
    SendSoon,
}

impl Operation {
    /// The kind of this operation.
    #[inline]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Accept { .. } => OperationKind::Accept,
            Self::Receive { .. } => OperationKind::Receive,
            Self::Send { .. } => OperationKind::Send,
            Self::SendZeroCopy { .. } => OperationKind::SendZeroCopy,
            Self::ReceiveFrom { .. } => OperationKind::ReceiveFrom,
            Self::SendTo { .. } => OperationKind::SendTo,
            Self::Connect { .. } => OperationKind::Connect,
            Self::Poll { interest: Interest::Readable, .. } => OperationKind::Poll,
            Self::Poll { interest: Interest::Writable, .. } => OperationKind::PollOutput,
            Self::PollInput { .. } => OperationKind::PollInput,
            Self::File(_) => OperationKind::File,
        }
    }
}

/// The bytes of a send.
#[derive(Debug)]
pub enum SendData {
    /// Bytes that the loop owns until the terminal completion.
    Owned(Vec<u8>),
    /// Borrowed bytes, whose lender waits for the terminal completion.
    Lent(LentBytes),
}

impl SendData {
    pub(crate) fn as_raw(&self) -> (*const u8, usize) {
        match self {
            Self::Owned(bytes) => (bytes.as_ptr(), bytes.len()),
            Self::Lent(lent) => (lent.start, lent.length),
        }
    }
}

/// Borrowed bytes without a lifetime: the kernel reads them while the lender waits.
#[derive(Debug)]
pub struct LentBytes {
    start: *const u8,
    length: usize,
}

impl LentBytes {
    /// Lends `bytes` to an operation.
    ///
    /// # Safety
    ///
    /// The bytes must stay valid and unmodified until the operation's terminal completion, even if the lender panics:
    /// it must not unwind past them. A fiber guarantees that by not resuming before the completion.
    pub unsafe fn new(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len() }
    }
}

/// A borrowed buffer without a lifetime: the kernel writes to it while the lender waits.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only the ring reads files itself"))]
pub struct LentBuffer {
    pub(crate) start: *mut u8,
    pub(crate) length: usize,
}

impl LentBuffer {
    /// Lends `buffer` to an operation.
    ///
    /// # Safety
    ///
    /// As for [`LentBytes::new`]; and nobody else may use the buffer meanwhile.
    pub unsafe fn new(buffer: &mut [u8]) -> Self {
        Self { start: buffer.as_mut_ptr(), length: buffer.len() }
    }
}

/// A datagram to send, in the kernel's format (`struct msghdr`).
pub struct Datagram {
    pub(crate) data: SendData,
    destination: Option<Address>,
    header: libc::msghdr,
    vector: libc::iovec,
}

impl Datagram {
    /// A datagram for `destination`, or for the peer that the socket is connected to.
    pub fn new(data: SendData, destination: Option<Address>) -> Box<Self> {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a zeroed header is valid: it has no pointers.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { data, destination, header, vector })
    }

    /// The header, which points into this box and must not outlive it.
    pub(crate) fn header(&mut self) -> *const libc::msghdr {
        let (start, length) = self.data.as_raw();
        // The kernel only reads the data of a send.
        self.vector = libc::iovec { iov_base: start.cast_mut().cast(), iov_len: length };
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        if let Some(address) = &self.destination {
            self.header.msg_name = address.as_ptr().cast_mut().cast();
            self.header.msg_namelen = address.len();
        }
        &raw const self.header
    }
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Datagram {{ {} bytes to {:?} }}", self.data.as_raw().1, self.destination)
    }
}

/// The outcome of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The count in bytes, descriptor or event mask of a success; the kernel's error otherwise. A cancelled operation
    /// ends with `ECANCELED`, unless it succeeded before the cancel reached it.
    pub result: io::Result<u32>,
    /// Whether further completions of the operation follow: this one is not terminal.
    pub more: bool,
    /// The bytes of an [`Operation::Receive`] or [`Operation::ReceiveFrom`]; `None` at the end of the stream and for
    /// an error.
    pub buffer: Option<Buffer>,
    /// All bytes of an [`Operation::Send`] that ended early, if the loop owned them; the unsent bytes of
    /// [`EventLoop::send_soon`](crate::EventLoop::send_soon).
    pub unsent: Option<Vec<u8>>,
}

/// Receives the completions of the operations it submitted. The loop keeps an owner alive until the terminal
/// completion of each; an owner that holds the loop thus keeps the loop alive as well.
pub trait Owner {
    /// Takes a completion. Called from [`EventLoop::turn`](crate::EventLoop::turn),
    /// [`EventLoop::cancel_and_wait`](crate::EventLoop::cancel_and_wait) and
    /// [`EventLoop::shutdown`](crate::EventLoop::shutdown); it may submit and cancel, and must not block or panic.
    ///
    /// An owner that resubmits operations whenever they end must stop at `ECANCELED`: during a shutdown, all
    /// operations end with it, and the shutdown waits until none is left.
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion);
}
