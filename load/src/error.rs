//! Why a run has no outcome.

use std::fmt;
use std::io;

/// Why there is no outcome.
#[derive(Debug)]
pub enum RunError {
    /// The plan is invalid: the value, and what was expected.
    BadPlan(String),
    /// A limit of the kernel does not allow the plan: the limit, and the remedy.
    DoesNotFit(String),
    /// No connection could be established: the error of the first attempt.
    Unreachable(io::Error),
    /// The event loop or a fiber failed.
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
