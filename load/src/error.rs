//! Why a run has no outcome.

use std::fmt;
use std::io;

/// Why there is no outcome.
#[derive(Debug)]
pub enum RunError {
    /// The plan cannot be run: what is wrong with it, and what was expected.
    BadPlan(String),
    /// The kernel does not allow as many connections, or not from there: the limit, and what to do.
    DoesNotFit(String),
    /// No connection could be made: the error of the first that was tried.
    Unreachable(io::Error),
    /// The event loop, or a fiber, failed.
    Failed(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPlan(text) | Self::DoesNotFit(text) => f.write_str(text),
            Self::Unreachable(error) => write!(f, "the target cannot be reached: {error}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}
