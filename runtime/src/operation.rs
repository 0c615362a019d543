//! What the loop can be asked to do, and how it answers: the closed set of operations that every
//! backend implements.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use nix::sys::socket::SockaddrLike;

use crate::Buffer;

/// Names one submitted operation of one [`EventLoop`](crate::EventLoop).
///
/// The generation makes keys of finished operations harmless: they match nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OperationKey {
    /// The 64 bits that travel through the kernel with the operation.
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// An operation to submit with [`EventLoop::submit`](crate::EventLoop::submit). Each fails with the errors
/// of the system call that it is named after.
///
/// The descriptors must stay open until the operation's terminal completion; the loop does not own them.
/// Closing one earlier ends nothing: the kernel holds on to the socket, and its number may come to mean
/// another.
#[non_exhaustive]
#[derive(Debug)]
pub enum Operation {
    /// Accept connections, one completion each, until cancelled or failed (`accept(2)`;
    /// `io_uring_prep_multishot_accept(3)`, Linux 5.19). A completion's count is the descriptor of a
    /// connection, close-on-exec and non-blocking, which belongs to the owner from then on: also where it
    /// comes after a cancel.
    Accept {
        /// The listening socket.
        listener: RawFd,
    },
    /// Receive bytes into the loop's buffers, one completion per piece, until the end of the stream (a count of 0),
    /// an error, or a cancel. It may also end after any piece, for the owner to submit it again (`recv(2)`;
    /// `io_uring_prep_recv_multishot(3)`, Linux 6.0). Where no buffer is free, the loop goes on with it as soon as
    /// some have come back.
    Receive {
        /// A connected socket.
        socket: RawFd,
    },
    /// Send all of the data, or its first GiB if it has more. A lower count in the completion means that
    /// the send was cut short, by a cancel or an error (`send(2)` with `MSG_NOSIGNAL` and `MSG_WAITALL`).
    Send {
        /// A connected socket.
        socket: RawFd,
        /// The bytes, which live until the terminal completion.
        data: SendData,
    },
    /// Receive datagrams into the loop's buffers, one completion each, until an error or a cancel; with a lack
    /// of buffers it goes as for [`Receive`](Self::Receive) (`recvmsg(2)`;
    /// `io_uring_prep_recvmsg_multishot(3)`, Linux 6.0). The count is that of the datagram's bytes, which
    /// may be 0; [`Buffer::source`] tells who sent it.
    ///
    /// A datagram of more than 65,535 bytes, which Unix sockets can carry, is cut:
    /// [`Buffer::is_truncated`].
    ReceiveFrom {
        /// A datagram socket.
        socket: RawFd,
    },
    /// Send one datagram, whole and at once: where it would have to wait for room, it ends with `EAGAIN`
    /// (`sendmsg(2)` with `MSG_NOSIGNAL` and `MSG_DONTWAIT`). Of a datagram that has to wait, io_uring may send
    /// less when it tries again, and not every socket tells when there is room: see `unix(7)`.
    SendTo {
        /// A datagram socket; connected, if the datagram names no destination.
        socket: RawFd,
        /// The bytes and where they go, which live until the terminal completion.
        datagram: Box<Datagram>,
    },
    /// Connect a socket to an address (`connect(2)`). The completion's count is 0. Where the backlog of a Unix listener
    /// is full, it ends with `EAGAIN`, as for any socket that does not block.
    Connect {
        /// An unconnected socket.
        socket: RawFd,
        /// The peer, which is kept until the terminal completion.
        address: Box<Address>,
    },
    /// Wait once for a descriptor to become readable or writable. The completion's count is the
    /// `poll(2)` event mask, which may have `POLLERR` and `POLLHUP` alone.
    Poll {
        /// Any pollable descriptor.
        descriptor: RawFd,
        /// What to wait for.
        interest: Interest,
    },
    /// Tell each time that a socket may have become readable, one completion each, until cancelled or failed
    /// (`io_uring_prep_poll_multishot(3)`, Linux 5.13). It may tell so although there is nothing to read, and it
    /// may end after any completion, for the owner to submit it again.
    ///
    /// A completion's count is the `poll(2)` event mask. Where it is `POLLIN` alone, a receive that brings less
    /// than there was room for says that nothing more is there, and what comes later is told again.
    PollInput {
        /// A connected socket.
        socket: RawFd,
    },
}

/// A socket address in the form the kernel takes (`sockaddr_storage`, `socket(7)`).
pub type Address = nix::sys::socket::SockaddrStorage;

/// Which readiness [`Operation::Poll`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read, or the end of the stream.
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
    /// [`Operation::ReceiveFrom`]
    ReceiveFrom,
    /// [`Operation::SendTo`]
    SendTo,
    /// [`Operation::Connect`]
    Connect,
    /// [`Operation::Poll`]
    Poll,
    /// [`Operation::PollInput`]
    PollInput,
    /// [`EventLoop::send_soon`](crate::EventLoop::send_soon), of which something is left to send.
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
            Self::ReceiveFrom { .. } => OperationKind::ReceiveFrom,
            Self::SendTo { .. } => OperationKind::SendTo,
            Self::Connect { .. } => OperationKind::Connect,
            Self::Poll { .. } => OperationKind::Poll,
            Self::PollInput { .. } => OperationKind::PollInput,
        }
    }
}

/// The bytes of a send.
#[derive(Debug)]
pub enum SendData {
    /// Bytes that the loop owns until the terminal completion.
    Owned(Vec<u8>),
    /// Bytes that belong to someone who waits for the terminal completion.
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

/// Borrowed bytes without the borrow: the kernel reads them while the lender waits.
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
    /// The bytes must stay valid and unmodified until the operation's terminal completion, whatever
    /// becomes of the lender: a panic must not unwind past them. A fiber holds to that by not resuming
    /// before the completion.
    pub unsafe fn new(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len() }
    }
}

/// A datagram to send, in the form that the kernel takes (`struct msghdr`).
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
        // SAFETY: a header of zeros is valid: it refers to nothing.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { data, destination, header, vector })
    }

    /// The header, which points into this box and must not be used once that is gone.
    pub(crate) fn header(&mut self) -> *const libc::msghdr {
        let (start, length) = self.data.as_raw();
        // The kernel only reads what a send points to.
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

/// What became of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The count in bytes, descriptor or event mask of a success; the kernel's error otherwise. A
    /// cancelled operation ends with `ECANCELED`, unless it succeeded before the cancel reached it.
    pub result: io::Result<u32>,
    /// Further completions of the same operation will follow: this one is not terminal.
    pub more: bool,
    /// What an [`Operation::Receive`] or [`Operation::ReceiveFrom`] received; `None` at the end of the
    /// stream and for an error.
    pub buffer: Option<Buffer>,
    /// All bytes of an [`Operation::Send`] that was cut short, if the loop owned them; of
    /// [`EventLoop::send_soon`](crate::EventLoop::send_soon), those that have not been sent.
    pub unsent: Option<Vec<u8>>,
}

/// Receives the completions of the operations it submitted. The loop keeps an owner alive until the
/// terminal completion of each; an owner that holds the loop thus keeps it alive as well.
pub trait Owner {
    /// Takes one completion. Called from [`EventLoop::turn`](crate::EventLoop::turn),
    /// [`EventLoop::cancel_and_wait`](crate::EventLoop::cancel_and_wait) and
    /// [`EventLoop::shutdown`](crate::EventLoop::shutdown); it may submit and cancel, and must not block
    /// or panic.
    ///
    /// An owner that submits an operation again whenever it ends has to stop at `ECANCELED`: on a loop
    /// that shuts down, each ends with that, and the shutdown waits for the last.
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion);
}
