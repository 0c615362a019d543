//! Callbacks that observe a run, or end it early.

use std::time::Duration;

use crate::interval::Recorder;
use crate::latencies::Latencies;

/// The progress of a run.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Progress {
    /// The time since the first request.
    pub elapsed: Duration,
    /// Whether the warm-up is still running.
    pub is_warming_up: bool,
    /// Expected responses per second since the last call.
    pub rate_per_s: f64,
    /// The number of errors of all kinds.
    pub errors: u64,
    /// The number of open connections.
    pub connections_open: usize,
    /// The response times so far; in a closed loop, the service times. Without those of the warm-up.
    pub response_times: Latencies,
}

/// Receives the progress of a run once a second. It delays the run's requests for as long as it takes: what takes time,
/// such as printing, is for another thread.
pub type Observer = Box<dyn FnMut(Progress)>;

/// Runs in a fiber during the run; when it returns, the run ends early.
pub type Stopper = Box<dyn FnOnce()>;

/// Callbacks of a run; none by default.
#[derive(Default)]
pub struct Hooks {
    /// Receives the progress.
    pub observer: Option<Observer>,
    /// Ends the run early by returning: no further request is sent, those in flight are awaited, and the outcome
    /// covers the time until then. It may park; it is cancelled when the run ends normally.
    pub stopper: Option<Stopper>,
    /// Receives the results of each second of the measurement.
    pub recorder: Option<Recorder>,
}
