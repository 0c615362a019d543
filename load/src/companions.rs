//! Who goes along with a run.

use std::time::Duration;

use crate::interval::Recorder;
use crate::latencies::Latencies;

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

/// How a run, or a thread's share of it, stands.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) elapsed: Duration,
    pub(crate) is_warming_up: bool,
    pub(crate) rate_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) connections_open: usize,
    pub(crate) response_times: Latencies,
}

impl Standing {
    pub(crate) fn progress(&self) -> Progress {
        let percentile = |percentile| {
            (self.response_times.count() > 0).then(|| self.response_times.percentile(percentile))
        };
        Progress {
            elapsed: self.elapsed,
            is_warming_up: self.is_warming_up,
            rate_per_s: self.rate_per_s,
            errors: self.errors,
            connections_open: self.connections_open,
            p50: percentile(50.0),
            p99: percentile(99.0),
        }
    }
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

/// Companions of one thread's share of a run.
pub(crate) struct Watchers {
    pub(crate) observer: Option<Box<dyn FnMut(Standing)>>,
    pub(crate) stopper: Option<Stopper>,
    pub(crate) recorder: Option<Recorder>,
}

impl From<Companions> for Watchers {
    fn from(companions: Companions) -> Self {
        let Companions { observer, stopper, recorder } = companions;
        let observer = observer.map(|mut observer| {
            Box::new(move |standing: Standing| observer(&standing.progress())) as Box<dyn FnMut(Standing)>
        });
        Self { observer, stopper, recorder }
    }
}
