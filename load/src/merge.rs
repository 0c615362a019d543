//! Merges the results of several threads.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hooks::{Observer, Progress};
use crate::interval::{Interval, Recorder};
use crate::outcome::{Connections, Outcome, Requests, SessionCounts, StepOutcome, TargetLoss, Traffic};

impl Requests {
    /// Adds the counts of another thread, or time. `planned` is that of the whole run in each of them.
    pub(crate) fn add(&mut self, other: &Self) {
        self.planned = self.planned.and(other.planned);
        self.sent += other.sent;
        self.answered += other.answered;
        self.answered_after_end += other.answered_after_end;
        self.wrong += other.wrong;
        self.bad_status += other.bad_status;
        self.bad_body += other.bad_body;
        self.timed_out += other.timed_out;
        self.lost += other.lost;
        self.resent += other.resent;
        self.redirects += other.redirects;
    }
}

impl Traffic {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
    }
}

impl Connections {
    fn add(&mut self, other: &Self) {
        self.wanted += other.wanted;
        self.opened += other.opened;
        self.open_max += other.open_max;
        self.closed_idle += other.closed_idle;
        self.elsewhere += other.elsewhere;
        self.resumed += other.resumed;
        let allowed = [self.streams_allowed, other.streams_allowed].into_iter().flatten();
        self.streams_allowed = allowed.min();
    }
}

impl SessionCounts {
    fn add(&mut self, other: &Self) {
        self.planned = self.planned.and(other.planned);
        self.begun += other.begun;
        self.completed += other.completed;
    }
}

impl StepOutcome {
    fn add(&mut self, other: &Self) {
        self.measured = self.measured.max(other.measured);
        self.answered_in_time += other.answered_in_time;
        self.requests.add(&other.requests);
        for (sessions, others) in self.sessions.iter_mut().zip(&other.sessions) {
            sessions.add(others);
        }
        self.statuses.add(&other.statuses);
        self.response_times.add(&other.response_times);
        self.service_times.add(&other.service_times);
    }
}

impl Outcome {
    /// Adds the results of another thread of the same run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.measured = self.measured.max(other.measured);
        self.was_stopped |= other.was_stopped;
        // The target is lost if no thread reached it.
        self.target_loss = match (self.target_loss.take(), &other.target_loss) {
            (Some(a), Some(b)) => Some(TargetLoss { before_end: a.before_end.min(b.before_end), ..a }),
            _ => None,
        };
        self.workers += other.workers;
        self.started_late = self.started_late.max(other.started_late);
        self.cpu_time += other.cpu_time;
        self.busiest_cpu_time = self.busiest_cpu_time.max(other.busiest_cpu_time);
        self.connections.add(&other.connections);
        self.requests.add(&other.requests);
        for (sessions, others) in self.sessions.iter_mut().zip(&other.sessions) {
            sessions.add(others);
        }
        self.traffic.add(&other.traffic);
        self.errors.add(&other.errors);
        self.statuses.add(&other.statuses);
        self.response_times.add(&other.response_times);
        self.service_times.add(&other.service_times);
        self.failure_times.add(&other.failure_times);
        self.handshake_times.add(&other.handshake_times);
        self.send_delays.add(&other.send_delays);
        for others in &other.named {
            match self.named.iter_mut().find(|named| named.name == others.name) {
                None => self.named.push(others.clone()),
                Some(named) => {
                    named.requests.add(&others.requests);
                    named.statuses.add(&others.statuses);
                    named.response_times.add(&others.response_times);
                }
            }
        }
        for (step, others) in self.steps.iter_mut().zip(&other.steps) {
            step.add(others);
        }
    }
}

/// Merges the intervals of several threads, each of which ends its intervals when it gets to it.
pub(crate) struct IntervalMerger {
    recorder: Recorder,
    /// For each thread, the intervals that have not been reported yet.
    pending: Vec<VecDeque<Interval>>,
    has_ended: Vec<bool>,
    /// The end of the last reported interval.
    end: Duration,
}

impl IntervalMerger {
    pub(crate) fn new(recorder: Recorder, workers: usize) -> Self {
        let pending = (0..workers).map(|_| VecDeque::new()).collect();
        Self { recorder, pending, has_ended: vec![false; workers], end: Duration::ZERO }
    }

    /// Takes an interval of a thread.
    pub(crate) fn take(&mut self, worker: usize, interval: Interval) {
        self.pending[worker].push_back(interval);
        self.report();
    }

    /// A thread has no more intervals.
    pub(crate) fn end(&mut self, worker: usize) {
        self.has_ended[worker] = true;
        self.report();
        if self.has_ended.iter().all(|has_ended| *has_ended) {
            let rest: Vec<Interval> = self.pending.iter_mut().flat_map(|queue| queue.drain(..)).collect();
            let (after_end, rest): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|interval| interval.is_after_end);
            self.report_sum(rest);
            self.report_sum(after_end);
        }
    }

    /// Reports what is complete: up to each scheduled end at which all running threads ended an interval. If one
    /// was too busy to do so, the merged interval is longer, as it is with a single thread.
    fn report(&mut self) {
        while let Some(edge) = self.common_edge() {
            let mut parts = Vec::new();
            for (queue, has_ended) in self.pending.iter_mut().zip(&self.has_ended) {
                let count = queue.partition_point(|interval| {
                    // The last interval of a finished thread does not end at a scheduled end.
                    let is_last = *has_ended && !interval.is_after_end && interval.start < edge;
                    interval.edge <= edge || is_last
                });
                parts.extend(queue.drain(..count));
            }
            self.report_sum(parts);
        }
    }

    fn common_edge(&self) -> Option<Duration> {
        let mut going = self.pending.iter().zip(&self.has_ended).filter(|(_, has_ended)| !**has_ended);
        let (first, _) = going.next()?;
        let others: Vec<_> = going.map(|(queue, _)| queue).collect();
        let mut edges = first.iter().map(|interval| interval.edge).filter(|edge| *edge < Duration::MAX);
        edges.find(|edge| others.iter().all(|queue| queue.iter().any(|interval| interval.edge == *edge)))
    }

    fn report_sum(&mut self, parts: Vec<Interval>) {
        let end = parts.iter().map(|part| part.start + part.duration).fold(self.end, Duration::max);
        let sum = parts.into_iter().reduce(|mut sum, part| {
            sum.errors += part.errors;
            sum.requests.add(&part.requests);
            sum.traffic.add(&part.traffic);
            sum.statuses.add(&part.statuses);
            sum.service_times.add(&part.service_times);
            if let (Some(times), Some(others)) = (&mut sum.response_times, &part.response_times) {
                times.add(others);
            }
            sum.step = sum.step.min(part.step);
            sum
        });
        if let Some(mut sum) = sum {
            sum.start = self.end;
            sum.duration = end - self.end;
            self.end = end;
            (self.recorder)(sum);
        }
    }
}

/// Merges the progress of several threads.
pub(crate) struct ProgressMerger {
    observer: Observer,
    /// The latest progress of each thread, and whether it is newer than the last report.
    latest: Vec<(Option<Progress>, bool)>,
    has_ended: Vec<bool>,
}

impl ProgressMerger {
    pub(crate) fn new(observer: Observer, workers: usize) -> Self {
        let latest = (0..workers).map(|_| (None, false)).collect();
        Self { observer, latest, has_ended: vec![false; workers] }
    }

    /// Reports once all running threads have told theirs anew.
    pub(crate) fn take(&mut self, worker: usize, progress: Progress) {
        self.latest[worker] = (Some(progress), true);
        let is_fresh = |((_, is_fresh), has_ended): (&(_, bool), &bool)| *is_fresh || *has_ended;
        if self.latest.iter().zip(&self.has_ended).all(is_fresh) {
            let parts = self.latest.iter_mut().filter_map(|(progress, is_fresh)| {
                *is_fresh = false;
                progress.clone()
            });
            let sum = parts.reduce(|mut sum, part| {
                sum.rate_per_s += part.rate_per_s;
                sum.errors += part.errors;
                sum.connections_open += part.connections_open;
                sum.response_times.add(&part.response_times);
                sum
            });
            if let Some(sum) = sum {
                (self.observer)(sum);
            }
        }
    }

    /// A thread has ended, and contributes no rate and no connections from now on.
    pub(crate) fn end(&mut self, worker: usize) {
        self.has_ended[worker] = true;
        if let (Some(progress), _) = &mut self.latest[worker] {
            (progress.rate_per_s, progress.connections_open) = (0.0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::SystemTime;

    use super::*;
    use crate::latencies::Latencies;
    use crate::status::StatusCounts;

    /// No scheduled end.
    const LAST: u64 = u64::MAX;

    /// An interval between two milliseconds, with a scheduled end and one service time.
    fn interval(start_ms: u64, end_ms: u64, edge_ms: u64) -> Interval {
        let mut service_times = Latencies::new().unwrap();
        service_times.record(Duration::from_millis(1));
        Interval {
            measured_from: SystemTime::UNIX_EPOCH,
            start: Duration::from_millis(start_ms),
            duration: Duration::from_millis(end_ms - start_ms),
            is_after_end: false,
            step: None,
            errors: 1,
            requests: Requests::default(),
            traffic: Traffic::default(),
            statuses: StatusCounts::default(),
            response_times: None,
            service_times,
            edge: if edge_ms == LAST { Duration::MAX } else { Duration::from_millis(edge_ms) },
        }
    }

    /// The reported intervals: start, end, and number of merged intervals.
    fn reported(takes: &[(usize, Option<Interval>)]) -> Vec<(u64, u64, u64)> {
        let found = Rc::new(RefCell::new(Vec::new()));
        let kept = found.clone();
        let recorder = move |interval: Interval| {
            let (start, end) = (interval.start.as_millis(), (interval.start + interval.duration).as_millis());
            assert_eq!(interval.errors, interval.service_times.count());
            kept.borrow_mut().push((start as u64, end as u64, interval.errors));
        };
        let mut merger = IntervalMerger::new(Box::new(recorder), 2);
        for (worker, taken) in takes {
            match taken {
                Some(interval) => merger.take(*worker, interval.clone()),
                None => merger.end(*worker),
            }
        }
        found.take()
    }

    #[test]
    fn intervals_that_were_cut_at_the_same_edge_are_one() {
        let found = reported(&[
            (0, Some(interval(0, 1001, 1000))),
            (0, Some(interval(1001, 2000, 2000))),
            (1, Some(interval(0, 1003, 1000))),
            (1, Some(interval(1003, 2001, 2000))),
            (0, Some(interval(2000, 2500, LAST))),
            (0, None),
            (1, Some(interval(2001, 2500, LAST))),
            (1, None),
        ]);
        assert_eq!(found, [(0, 1003, 2), (1003, 2001, 2), (2001, 2500, 2)]);
    }

    #[test]
    fn an_edge_that_one_thread_missed_is_none() {
        let found = reported(&[
            (0, Some(interval(0, 1000, 1000))),
            (1, Some(interval(0, 2900, 2000))),
            (0, Some(interval(1000, 2000, 2000))),
            (0, None),
            (1, None),
        ]);
        assert_eq!(found, [(0, 2900, 3)]);
    }

    #[test]
    fn a_thread_that_has_ended_is_not_waited_for() {
        let mut after_end = interval(3500, 3600, LAST);
        after_end.is_after_end = true;
        let found = reported(&[
            (0, Some(interval(0, 500, LAST))),
            (0, None),
            (1, Some(interval(0, 1000, 1000))),
            (1, Some(interval(1000, 3500, 3000))),
            (1, Some(after_end)),
            (1, None),
        ]);
        assert_eq!(found, [(0, 1000, 2), (1000, 3500, 1), (3500, 3600, 1)]);
    }
}
