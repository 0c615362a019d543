//! Progress reports of a thread.

use std::time::{Duration, Instant};

use crate::hooks::{Observer, Progress};
use crate::tally::Tally;

/// The period of the reports.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// The reports of a thread, from the start of its run.
pub(crate) struct Telling {
    observer: Observer,
    start: Instant,
    measure_from: Instant,
    told_at: Instant,
    /// How many requests had been answered by then.
    told_answers: u64,
}

impl Telling {
    pub(crate) fn new(observer: Observer, start: Instant, measure_from: Instant) -> Self {
        Self { observer, start, measure_from, told_at: start, told_answers: 0 }
    }

    /// Reports what has been counted, if it is time for that.
    pub(crate) fn look(&mut self, tally: &Tally, now: Instant) {
        let since = now.saturating_duration_since(self.told_at);
        if since < TOLD_EVERY {
            return;
        }
        let answers = tally.answered_ever();
        (self.observer)(Progress {
            elapsed: now.saturating_duration_since(self.start),
            is_warming_up: now < self.measure_from,
            rate_per_s: (answers - self.told_answers) as f64 / since.as_secs_f64(),
            errors: tally.error_count(),
            connections_open: tally.open_now(),
            response_times: tally.response_times(),
        });
        (self.told_at, self.told_answers) = (now, answers);
    }
}
