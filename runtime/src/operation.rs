//! What the loop can be asked to do, and how it answers: the closed set of operations that every
//! backend implements.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::Buffer;

/// Names one submitted operation.
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

/// An operation to submit.
///
/// The descriptors must stay open until the operation's terminal completion; the loop does not own them.
#[derive(Debug)]
pub enum Operation {
    /// Accept connections, one completion each, until cancelled or failed (multishot, Linux 5.19).
    /// Accepted descriptors are close-on-exec and non-blocking.
    Accept {
        /// The listening socket.
        listener: RawFd,
    },
    /// Receive bytes into the loop's buffers, one completion per piece, until the end of the stream,
    /// an error, a cancel, or a lack of buffers (multishot, Linux 6.0).
    Receive {
        /// A connected socket.
        socket: RawFd,
    },
    /// Send all of the data; a lower count in the completion means that the send was cut short.
    Send {
        /// A connected socket.
        socket: RawFd,
        /// The bytes, which live until the terminal completion.
        data: SendData,
    },
    /// Connect a socket to an address.
    Connect {
        /// An unconnected socket.
        socket: RawFd,
        /// The peer, which is kept until the terminal completion.
        address: Box<Address>,
    },
    /// Wait once for a descriptor to become readable or writable. The completion's count is the
    /// `poll(2)` event mask.
    Poll {
        /// Any pollable descriptor.
        descriptor: RawFd,
        /// What to wait for.
        interest: Interest,
    },
}

/// A socket address in the form the kernel takes.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// [`Operation::Accept`]
    Accept,
    /// [`Operation::Receive`]
    Receive,
    /// [`Operation::Send`]
    Send,
    /// [`Operation::Connect`]
    Connect,
    /// [`Operation::Poll`]
    Poll,
}

impl Operation {
    /// The kind of this operation.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Accept { .. } => OperationKind::Accept,
            Self::Receive { .. } => OperationKind::Receive,
            Self::Send { .. } => OperationKind::Send,
            Self::Connect { .. } => OperationKind::Connect,
            Self::Poll { .. } => OperationKind::Poll,
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
    /// The bytes must stay valid and unmodified until the operation's terminal completion. A fiber
    /// holds to that by not resuming before it.
    pub unsafe fn new(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len() }
    }
}

/// What became of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The count, descriptor or event mask of a success; the kernel's error otherwise. A cancelled
    /// operation ends with `ECANCELED`, unless it succeeded before the cancel reached it.
    pub result: io::Result<u32>,
    /// Further completions of the same operation will follow: this one is not terminal.
    pub more: bool,
    /// The received bytes of an [`Operation::Receive`].
    pub buffer: Option<Buffer>,
}

/// Receives the completions of the operations it submitted. An owner is kept alive until then.
pub trait Owner {
    /// Takes one completion. Called from [`EventLoop::turn`](crate::EventLoop::turn) and
    /// [`EventLoop::cancel_and_wait`](crate::EventLoop::cancel_and_wait); it may submit and cancel,
    /// and must not block.
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion);
}
