//! What a run found out second by second, handed out while it lasts.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::latencies::Latencies;
use crate::outcome::Traffic;
use crate::tally::Tally;

/// How long an interval is, but for the last one.
const INTERVAL: Duration = Duration::from_secs(1);

/// A part of the measured part of a run: a second, what is left of one at its end, or the time after it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Interval {
    /// When the measured part began, by the clock on the wall.
    pub measured_from: SystemTime,
    /// When the interval began, from the beginning of the measured part.
    pub start: Duration,
    /// How long it was: about a second, and longer where the generator was too busy to look.
    pub duration: Duration,
    /// The run's duration was over. In here are the answers that came then, which the rate does not count.
    pub is_after_end: bool,
    /// The step of the rate in which it began, counted from 0; `None` without steps.
    pub step: Option<usize>,
    /// Errors of all kinds.
    pub errors: u64,
    /// Bytes of the requests that were answered in the interval, and of their answers; none after the end.
    pub traffic: Traffic,
    /// The times of the answers that came in the interval, from when their requests were due. `None` in a
    /// closed loop, where they are the service times.
    pub response_times: Option<Latencies>,
    /// The times of the same answers from when their requests were sent.
    pub service_times: Latencies,
    /// Where it was to end, if it was cut at the end of a second or of a step: the last of those edges. The
    /// longest time there is, if it was cut because the run ended.
    pub(crate) edge: Duration,
}

impl Interval {
    /// The response times; in a closed loop the service times, as a request is due there when it is sent.
    pub fn times(&self) -> &Latencies {
        self.response_times.as_ref().unwrap_or(&self.service_times)
    }
}

/// Told what each second of the measured part brought, and then the rest. It takes the time of the
/// generator's thread, so that work like writing files belongs on another thread. It must not park.
pub type Recorder = Box<dyn FnMut(Interval)>;

/// Cuts the measured part into intervals.
pub(crate) struct Cutter {
    recorder: Recorder,
    measure_from: Instant,
    measured_from: SystemTime,
    /// Where the last cut was.
    start: Instant,
    next_at: Instant,
    /// The step that lasts, and when it and those after it end, but for the last.
    step: Option<usize>,
    step_ends: VecDeque<Instant>,
    errors_before: u64,
    traffic_before: Traffic,
    /// The warm-up is over, whose errors are of no interval.
    has_begun: bool,
}

impl Cutter {
    /// To be made when the clock of the run has been set. `step_ends` is `None` without steps.
    pub(crate) fn new(
        recorder: Recorder,
        measure_from: Instant,
        step_ends: Option<VecDeque<Instant>>,
        tally: &Tally,
    ) -> Self {
        Self {
            recorder,
            measure_from,
            has_begun: measure_from <= Instant::now(),
            measured_from: SystemTime::now() + measure_from.saturating_duration_since(Instant::now()),
            start: measure_from,
            next_at: measure_from + INTERVAL,
            step: step_ends.is_some().then_some(0),
            step_ends: step_ends.unwrap_or_default(),
            errors_before: tally.error_count(),
            traffic_before: tally.traffic(),
        }
    }

    /// When the next interval is full, or a step ends.
    pub(crate) fn next_at(&self) -> Instant {
        self.step_ends.front().map_or(self.next_at, |step_end| self.next_at.min(*step_end))
    }

    /// Cuts if it is time. `now` is not after the end of the measured part.
    pub(crate) fn look(&mut self, tally: &Tally, now: Instant) {
        if !self.has_begun && now >= self.measure_from {
            self.has_begun = true;
            self.errors_before = tally.error_count();
        }
        if now >= self.next_at() {
            self.cut(tally, now);
        }
    }

    /// Hands out what is left, when all connections are done.
    pub(crate) fn finish(mut self, tally: &Tally, ended_at: Instant) {
        if ended_at > self.start || tally.has_current_times() {
            self.cut(tally, ended_at.max(self.start));
        }
        let (response_times, service_times) = tally.times_after_end();
        let errors = tally.error_count() - self.errors_before;
        if service_times.count() > 0 || errors > 0 {
            let rest = Interval {
                measured_from: self.measured_from,
                start: self.start - self.measure_from,
                duration: self.start.elapsed(),
                is_after_end: true,
                step: self.step,
                errors,
                traffic: Traffic::default(),
                response_times,
                service_times,
                edge: Duration::MAX,
            };
            (self.recorder)(rest);
        }
    }

    fn cut(&mut self, tally: &Tally, now: Instant) {
        let (response_times, service_times) = tally.take_times();
        let (error_count, traffic) = (tally.error_count(), tally.traffic());
        let mut edge = None;
        while self.next_at <= now {
            edge = Some(self.next_at);
            self.next_at += INTERVAL;
        }
        let step = self.step;
        while let Some(step_end) = self.step_ends.front().copied().filter(|step_end| *step_end <= now) {
            self.step_ends.pop_front();
            edge = edge.max(Some(step_end));
            self.step = self.step.map(|step| step + 1);
        }
        let interval = Interval {
            measured_from: self.measured_from,
            start: self.start - self.measure_from,
            duration: now - self.start,
            is_after_end: false,
            step,
            errors: error_count - self.errors_before,
            traffic: Traffic {
                sent_bytes: traffic.sent_bytes - self.traffic_before.sent_bytes,
                received_bytes: traffic.received_bytes - self.traffic_before.received_bytes,
            },
            response_times,
            service_times,
            edge: edge.map_or(Duration::MAX, |edge| edge - self.measure_from),
        };
        self.start = now;
        self.errors_before = error_count;
        self.traffic_before = traffic;
        (self.recorder)(interval);
    }
}
