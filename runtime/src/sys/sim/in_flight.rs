//! Operations in flight in the simulated kernel, and completions that wait to be reaped.

use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;

use super::socket::SocketId;
use crate::operation::{Address, FileOperation, Interest, SendData};

pub(super) enum Request {
    Start(u64),
    Cancel(u64),
    /// A message that is sent on submission.
    SendSoon {
        user_data: u64,
        socket: SocketId,
        bytes: Box<[u8]>,
    },
}

pub(super) struct InFlight {
    /// A sequence number, for the trace and the digest.
    pub(super) number: u64,
    pub(super) socket: SocketId,
    pub(super) task: Task,
    pub(super) state: State,
    /// An attempt is scheduled.
    pub(super) attempt_due: bool,
    /// A cancel was too late to stop it immediately.
    pub(super) giving_up: bool,
    /// The time of its last completion, as completions of one operation stay in order.
    pub(super) posted_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Armed,
    /// A zero-copy send that has its result: the kernel uses the bytes until the notification.
    Notifying,
    /// Its terminal completion waits to be reaped.
    Over,
}

pub(super) enum Task {
    Accept,
    Receive,
    Send(Outgoing),
    Connect(Box<Address>),
    Poll(Interest),
    PollInput,
    File(FileTask),
    /// An operation that is not simulated.
    Unknown,
}

/// An operation on a file.
pub(super) enum FileTask {
    Open { path: CString, flags: i32 },
    Read { start: *mut u8, length: usize, offset: u64 },
    Write { data: Outgoing, offset: u64 },
    Synchronize,
}

impl FileTask {
    /// The task, and the descriptor of the file unless it is to be opened.
    pub(super) fn new(operation: &FileOperation) -> (Option<RawFd>, Self) {
        match operation {
            FileOperation::Open { path, flags, .. } => {
                (None, Self::Open { path: path.clone(), flags: *flags })
            }
            FileOperation::Read { file, buffer, offset } => {
                (Some(*file), Self::Read { start: buffer.start, length: buffer.length, offset: *offset })
            }
            FileOperation::Write { file, data, offset } => {
                (Some(*file), Self::Write { data: Outgoing::new(data, false), offset: *offset })
            }
            FileOperation::Synchronize { file, .. } => (Some(*file), Self::Synchronize),
        }
    }
}

impl Task {
    /// The bytes that the kernel uses until the terminal completion.
    pub(super) fn outgoing(&self) -> Option<&Outgoing> {
        match self {
            Self::Send(data) | Self::File(FileTask::Write { data, .. }) => Some(data),
            _ => None,
        }
    }

    /// Whether its count is the number of a descriptor, which is not reproducible: it depends on other open files of
    /// the process.
    pub(super) fn gives_descriptor(&self) -> bool {
        matches!(self, Self::Accept | Self::File(FileTask::Open { .. }))
    }
}

/// The bytes of a send: their location, and a copy made at submission.
pub(super) struct Outgoing {
    pub(super) start: *const u8,
    pub(super) bytes: Box<[u8]>,
    pub(super) sent: usize,
    /// The kernel sends them from where they are, and notifies once it no longer uses them.
    pub(super) is_zero_copy: bool,
}

impl Outgoing {
    pub(super) fn new(data: &SendData, is_zero_copy: bool) -> Self {
        let (start, length) = data.as_raw();
        let bytes = match length {
            0 => Box::default(),
            // SAFETY: the bytes belong to the operation, or to its lender, until its terminal completion.
            _ => unsafe { std::slice::from_raw_parts(start, length) }.into(),
        };
        Self { start, bytes, sent: 0, is_zero_copy }
    }

    /// Whether the bytes equal the copy.
    pub(super) fn is_unchanged(&self) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        // SAFETY: the operation's slot or its lender keeps the bytes until the terminal completion, which has not been
        // reaped.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes.len()) == &*self.bytes }
    }
}

/// What a thread is to run.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// A blocking call that has not ended.
pub(super) struct Call {
    pub(super) job: Job,
    pub(super) has_begun: bool,
}

/// A completion that waits to be reaped.
pub(super) struct Posted {
    pub(super) user_data: u64,
    pub(super) at_ns: u64,
    pub(super) result: i32,
    pub(super) more: bool,
    pub(super) buffer: Option<u16>,
    pub(super) cancel_missed: bool,
}

/// The outcome of an attempt that completed.
pub(super) struct Outcome {
    pub(super) result: Result<usize, i32>,
    pub(super) buffer: Option<u16>,
    pub(super) more: bool,
}

impl Outcome {
    pub(super) fn last(result: Result<usize, i32>) -> Option<Self> {
        Some(Self { result, buffer: None, more: false })
    }

    pub(super) fn one_of_many(count: usize, buffer: Option<u16>) -> Option<Self> {
        Some(Self { result: Ok(count), buffer, more: true })
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.task {
            Task::Accept => "accept".to_string(),
            Task::Receive => "receive".to_string(),
            Task::Send(outgoing) if outgoing.is_zero_copy => {
                format!("zero-copy send of {} bytes", outgoing.bytes.len())
            }
            Task::Send(outgoing) => format!("send of {} bytes", outgoing.bytes.len()),
            Task::Connect(address) => format!("connect to {address}"),
            Task::Poll(interest) => format!("poll for {interest:?}"),
            Task::PollInput => "poll for input".to_string(),
            Task::File(FileTask::Open { path, .. }) => format!("open of {path:?}"),
            Task::File(FileTask::Read { length, offset, .. }) => {
                format!("read of {length} bytes at {offset}")
            }
            Task::File(FileTask::Write { data, offset }) => {
                format!("write of {} bytes at {offset}", data.bytes.len())
            }
            Task::File(FileTask::Synchronize) => "synchronization".to_string(),
            Task::Unknown => "operation that is not simulated".to_string(),
        };
        write!(f, "operation {} ({what}, socket {})", self.number, self.socket)
    }
}
