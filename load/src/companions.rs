//! Who goes along with a run.

use std::time::Duration;

use crate::interval::Recorder;

/// How a run stands.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How long requests have been sent.
    pub elapsed: Duration,
    /// The warm-up is not over.
    pub is_warming_up: bool,
    /// Right answers per second since the last call.
    pub rate_per_s: f64,
    /// Errors of all kinds.
    pub errors: u64,
    /// Connections that are open.
    pub connections_open: usize,
    /// The median of the measured response times so far, if there are any.
    pub p50: Option<Duration>,
    /// The 99th percentile of the measured response times so far, if there are any.
    pub p99: Option<Duration>,
}

/// Told once a second how the run stands.
pub type Observer = Box<dyn FnMut(&Progress)>;

/// Runs in a fiber during the run, which ends early when it returns.
pub type Stopper = Box<dyn FnOnce()>;

/// Who watches a run, and who may end it early; nobody at first.
#[derive(Default)]
pub struct Companions {
    /// Told how the run stands.
    pub observer: Option<Observer>,
    /// Ends the run by returning: no request is sent from then on, those in flight are waited for, and the
    /// outcome is that of the time until then. It may park, and is cancelled when the run ends by itself.
    pub stopper: Option<Stopper>,
    /// Told what each second of the measured part brought.
    pub recorder: Option<Recorder>,
}
