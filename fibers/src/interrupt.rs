//! Why a wait ended before what it waited for.

use std::fmt;
use std::io;

/// Why a wait ended early: an error raised at the point where the fiber waits, as by Janet's `ev/cancel`
/// and `ev/deadline`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The fiber has been cancelled, or its runtime is ending. A cancel interrupts one wait; the end of
    /// the runtime interrupts every later one. A fiber that unwinds from a panic cannot wait and gets
    /// this as well.
    Cancelled,
    /// The earliest of the deadlines that [`with_deadline`](crate::with_deadline) set for the fiber has
    /// passed. It interrupts every wait until that call has returned.
    DeadlineExpired,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "fiber cancelled",
            Self::DeadlineExpired => "deadline expired",
        })
    }
}

impl std::error::Error for Interrupt {}

impl From<Interrupt> for io::Error {
    /// `TimedOut` for a deadline. A cancel is `Other` and not `Interrupted`, because loops such as
    /// [`io::Read::read_to_end`] retry on that one, as after a signal.
    fn from(interrupt: Interrupt) -> Self {
        let kind = match interrupt {
            Interrupt::Cancelled => io::ErrorKind::Other,
            Interrupt::DeadlineExpired => io::ErrorKind::TimedOut,
        };
        Self::new(kind, interrupt)
    }
}
