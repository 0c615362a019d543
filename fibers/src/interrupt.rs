//! Why a wait ended before what it waited for.

use std::fmt;
use std::io;
use std::time::Instant;

/// Why a wait ended early: an error raised at the point where the fiber waits, as by Janet's `ev/cancel`
/// and `ev/deadline`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The fiber has been cancelled, or its runtime is ending. A cancel interrupts one wait; the end of
    /// the runtime interrupts every later one. A fiber that unwinds from a panic cannot wait and gets
    /// this as well.
    Cancelled,
    /// The earliest of the deadlines that [`with_deadline`](crate::with_deadline) or [`timeout`](crate::timeout) set
    /// for the fiber has passed. It interrupts every wait until that call has returned.
    DeadlineExpired,
    /// The time limit of the call itself has passed, such as the read timeout of a socket: calling again waits again.
    /// An expired deadline of a scope around the call is [`DeadlineExpired`](Self::DeadlineExpired).
    TimedOut,
}

/// When waits of a fiber end, and how.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) interrupt: Interrupt,
    /// The number of the scope that set it.
    pub(crate) scope: u32,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "fiber cancelled",
            Self::DeadlineExpired => "deadline expired",
            Self::TimedOut => "timed out",
        })
    }
}

impl std::error::Error for Interrupt {}

impl From<Interrupt> for io::Error {
    /// `TimedOut` for a time limit of the call itself. Cancels and deadlines, which are of the code around it, are
    /// `Other`, so that no loop retries them: [`io::Read::read_to_end`] would retry `Interrupted`, and loops with a
    /// read timeout `TimedOut`.
    fn from(interrupt: Interrupt) -> Self {
        let kind = match interrupt {
            Interrupt::Cancelled | Interrupt::DeadlineExpired => io::ErrorKind::Other,
            Interrupt::TimedOut => io::ErrorKind::TimedOut,
        };
        Self::new(kind, interrupt)
    }
}
