//! Results per second, reported while a run lasts.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::latencies::Latencies;
use crate::outcome::{Requests, Traffic};
use crate::status::StatusCounts;
use crate::tally::Tally;

/// The length of all intervals but the last.
const INTERVAL: Duration = Duration::from_secs(1);

/// A second of the measurement, the rest at its end, or the time after it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Interval {
    /// When the measurement began (wall clock).
    pub measured_from: SystemTime,
    /// When the interval began, relative to the beginning of the measurement.
    pub start: Duration,
    /// Its length: about a second, or more if the generator was too busy to end it in time.
    pub duration: Duration,
    /// The measurement was over: this holds the responses that arrived later, which no rate counts.
    pub is_after_end: bool,
    /// The index of the step in which it began; `None` without steps.
    pub step: Option<usize>,
    /// The number of errors of all kinds.
    pub errors: u64,
    /// Counts of the requests that were sent, answered or lost in the interval; `planned` is absent.
    pub requests: Requests,
    /// Bytes of the requests answered in the interval and of their responses; zero after the end.
    pub traffic: Traffic,
    /// How many requests were answered in the interval with each HTTP status.
    pub statuses: StatusCounts,
    /// Response times of the responses that arrived in the interval. `None` in a closed loop, where they equal
    /// the service times.
    pub response_times: Option<Latencies>,
    /// Service times of the same responses.
    pub service_times: Latencies,
    /// The scheduled end (of a second or a step) at which it was cut; `Duration::MAX` if the end of the run cut
    /// it.
    pub(crate) edge: Duration,
}

impl Interval {
    /// The response times; in a closed loop the service times, as requests are due when they are sent.
    pub fn times(&self) -> &Latencies {
        self.response_times.as_ref().unwrap_or(&self.service_times)
    }
}

/// Receives the interval of each second of the measurement, and then the rest. It runs on the generator's
/// thread, so that slow work such as writing files belongs on another thread. It must not park.
pub type Recorder = Box<dyn FnMut(Interval)>;

/// Divides the measurement into intervals.
pub(crate) struct Cutter {
    recorder: Recorder,
    measure_from: Instant,
    measured_from: SystemTime,
    /// The beginning of the current interval.
    start: Instant,
    next_at: Instant,
    /// The current step, and the ends of it and of later steps but the last.
    step: Option<usize>,
    step_ends: VecDeque<Instant>,
    errors_before: u64,
    requests_before: Requests,
    traffic_before: Traffic,
    statuses_before: StatusCounts,
    /// The warm-up, whose errors belong to no interval, is over.
    has_begun: bool,
}

impl Cutter {
    /// Requires that the run's clock has been set. `step_ends` is `None` without steps.
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
            requests_before: tally.requests(),
            traffic_before: tally.traffic(),
            statuses_before: tally.statuses(),
        }
    }

    /// When the current interval ends: after a second, or with a step.
    pub(crate) fn next_at(&self) -> Instant {
        self.step_ends.front().map_or(self.next_at, |step_end| self.next_at.min(*step_end))
    }

    /// Ends the current interval if it is time. `now` must not be after the end of the measurement.
    pub(crate) fn look(&mut self, tally: &Tally, now: Instant) {
        if !self.has_begun && now >= self.measure_from {
            self.has_begun = true;
            self.errors_before = tally.error_count();
        }
        if now >= self.next_at() {
            self.cut(tally, now);
        }
    }

    /// Reports the rest, after all connections are done.
    pub(crate) fn finish(mut self, tally: &Tally, ended_at: Instant) {
        if ended_at > self.start || tally.has_current_times() {
            self.cut(tally, ended_at.max(self.start));
        }
        let (response_times, service_times) = tally.times_after_end();
        let errors = tally.error_count() - self.errors_before;
        let statuses = tally.statuses().since(&self.statuses_before);
        if service_times.count() > 0 || errors > 0 {
            let rest = Interval {
                measured_from: self.measured_from,
                start: self.start - self.measure_from,
                duration: self.start.elapsed(),
                is_after_end: true,
                step: self.step,
                errors,
                requests: tally.requests().since(&self.requests_before),
                traffic: Traffic::default(),
                statuses,
                response_times,
                service_times,
                edge: Duration::MAX,
            };
            (self.recorder)(rest);
        }
    }

    fn cut(&mut self, tally: &Tally, now: Instant) {
        let (response_times, service_times) = tally.take_times();
        let (error_count, traffic, statuses) = (tally.error_count(), tally.traffic(), tally.statuses());
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
            requests: tally.requests().since(&self.requests_before),
            traffic: Traffic {
                sent_bytes: traffic.sent_bytes - self.traffic_before.sent_bytes,
                received_bytes: traffic.received_bytes - self.traffic_before.received_bytes,
            },
            statuses: statuses.since(&self.statuses_before),
            response_times,
            service_times,
            edge: edge.map_or(Duration::MAX, |edge| edge - self.measure_from),
        };
        self.start = now;
        self.errors_before = error_count;
        self.requests_before = tally.requests();
        self.traffic_before = traffic;
        self.statuses_before = statuses;
        (self.recorder)(interval);
    }
}
