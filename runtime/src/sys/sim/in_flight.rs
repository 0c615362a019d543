//! Operations in flight in the simulated kernel, and completions that wait to be reaped.

use std::fmt;

use super::socket::SocketId;
use crate::operation::{Address, Interest};

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
    /// An operation that is not simulated.
    Unknown,
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
            Task::Unknown => "operation that is not simulated".to_string(),
        };
        write!(f, "operation {} ({what}, socket {})", self.number, self.socket)
    }
}
