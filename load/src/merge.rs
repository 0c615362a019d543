//! What several threads found out, as if one had done it all.

use std::collections::VecDeque;
use std::time::Duration;

use crate::companions::{Observer, Standing};
use crate::interval::{Interval, Recorder};
use crate::outcome::{Connections, Outcome, Requests, StepOutcome, Traffic};

impl Requests {
    /// Adds the counts of another thread. What was planned is that of the whole run in each.
    fn add(&mut self, other: &Self) {
        self.planned = self.planned.and(other.planned);
        self.sent += other.sent;
        self.answered += other.answered;
        self.answered_after_end += other.answered_after_end;
        self.wrong += other.wrong;
        self.bad_status += other.bad_status;
        self.timed_out += other.timed_out;
        self.lost += other.lost;
    }
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
    }
}

impl Connections {
    fn add(&mut self, other: &Self) {
        self.wanted += other.wanted;
        self.opened += other.opened;
        self.open_max += other.open_max;
    }
}

impl StepOutcome {
    fn add(&mut self, other: &Self) {
        self.measured = self.measured.max(other.measured);
        self.answered_in_time += other.answered_in_time;
        self.requests.add(&other.requests);
        self.response_times.add(&other.response_times);
        self.service_times.add(&other.service_times);
    }
}

impl Outcome {
    /// Adds what another thread found out in the same run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.measured = self.measured.max(other.measured);
        self.workers += other.workers;
        self.started_late = self.started_late.max(other.started_late);
        self.processor_time += other.processor_time;
        self.busiest_processor_time = self.busiest_processor_time.max(other.busiest_processor_time);
        self.connections.add(&other.connections);
        self.requests.add(&other.requests);
        self.traffic.add(&other.traffic);
        self.errors.add(&other.errors);
        for (count, others) in self.status_classes.iter_mut().zip(other.status_classes) {
            *count += others;
        }
        self.response_times.add(&other.response_times);
        self.service_times.add(&other.service_times);
        self.send_delays.add(&other.send_delays);
        for (step, others) in self.steps.iter_mut().zip(&other.steps) {
            step.add(others);
        }
    }
}

/// The intervals of several threads, which cut them each when they come to it.
pub(crate) struct IntervalMerger {
    recorder: Recorder,
    /// Those that are not handed out yet, of each thread; a thread that has ended has no more to come.
    pending: Vec<VecDeque<Interval>>,
    has_ended: Vec<bool>,
    /// Where the last one that was handed out ended.
    end: Duration,
}

impl IntervalMerger {
    pub(crate) fn new(recorder: Recorder, workers: usize) -> Self {
        let pending = (0..workers).map(|_| VecDeque::new()).collect();
        Self { recorder, pending, has_ended: vec![false; workers], end: Duration::ZERO }
    }

    /// Takes what one thread hands out.
    pub(crate) fn take(&mut self, worker: usize, interval: Interval) {
        self.pending[worker].push_back(interval);
        self.hand_out();
    }

    /// A thread has handed out all.
    pub(crate) fn end(&mut self, worker: usize) {
        self.has_ended[worker] = true;
        self.hand_out();
        if self.has_ended.iter().all(|has_ended| *has_ended) {
            let rest: Vec<Interval> = self.pending.iter_mut().flat_map(|queue| queue.drain(..)).collect();
            let (after_end, rest): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|interval| interval.is_after_end);
            self.hand_out_sum(rest);
            self.hand_out_sum(after_end);
        }
    }

    /// Hands out what is complete: up to each edge at which all threads that go on have made a cut. One that
    /// was too busy to cut at an edge makes the interval longer, as it does alone.
    fn hand_out(&mut self) {
        while let Some(edge) = self.common_edge() {
            let mut parts = Vec::new();
            for (queue, has_ended) in self.pending.iter_mut().zip(&self.has_ended) {
                let count = queue.partition_point(|interval| {
                    // The last one of a thread that has ended was not cut at an edge.
                    let is_last = *has_ended && !interval.is_after_end && interval.start < edge;
                    interval.edge <= edge || is_last
                });
                parts.extend(queue.drain(..count));
            }
            self.hand_out_sum(parts);
        }
    }

    fn common_edge(&self) -> Option<Duration> {
        let mut going = self.pending.iter().zip(&self.has_ended).filter(|(_, has_ended)| !**has_ended);
        let (first, _) = going.next()?;
        let others: Vec<_> = going.map(|(queue, _)| queue).collect();
        let mut edges = first.iter().map(|interval| interval.edge).filter(|edge| *edge < Duration::MAX);
        edges.find(|edge| others.iter().all(|queue| queue.iter().any(|interval| interval.edge == *edge)))
    }

    fn hand_out_sum(&mut self, parts: Vec<Interval>) {
        let end = parts.iter().map(|part| part.start + part.duration).fold(self.end, Duration::max);
        let sum = parts.into_iter().reduce(|mut sum, part| {
            sum.errors += part.errors;
            sum.traffic.add(&part.traffic);
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

/// How several threads stand.
pub(crate) struct StandingMerger {
    observer: Observer,
    /// What each has told last, and whether that was after the observer was told.
    latest: Vec<(Option<Standing>, bool)>,
    has_ended: Vec<bool>,
}

impl StandingMerger {
    pub(crate) fn new(observer: Observer, workers: usize) -> Self {
        let latest = (0..workers).map(|_| (None, false)).collect();
        Self { observer, latest, has_ended: vec![false; workers] }
    }

    /// Tells the observer when all threads that go on have told how they stand.
    pub(crate) fn take(&mut self, worker: usize, standing: Standing) {
        self.latest[worker] = (Some(standing), true);
        let is_fresh = |((_, is_fresh), has_ended): (&(_, bool), &bool)| *is_fresh || *has_ended;
        if self.latest.iter().zip(&self.has_ended).all(is_fresh) {
            let standings = self.latest.iter_mut().filter_map(|(standing, is_fresh)| {
                *is_fresh = false;
                standing.clone()
            });
            let sum = standings.reduce(|mut sum, part| {
                sum.rate_per_s += part.rate_per_s;
                sum.errors += part.errors;
                sum.connections_open += part.connections_open;
                sum.response_times.add(&part.response_times);
                sum
            });
            if let Some(sum) = sum {
                (self.observer)(&sum.progress());
            }
        }
    }

    /// A thread has ended: from now on it answers nothing.
    pub(crate) fn end(&mut self, worker: usize) {
        self.has_ended[worker] = true;
        if let (Some(standing), _) = &mut self.latest[worker] {
            (standing.rate_per_s, standing.connections_open) = (0.0, 0);
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

    /// Cut at no edge.
    const LAST: u64 = u64::MAX;

    /// An interval from one millisecond to another, cut at an edge, with a time.
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
            traffic: Traffic::default(),
            response_times: None,
            service_times,
            edge: if edge_ms == LAST { Duration::MAX } else { Duration::from_millis(edge_ms) },
        }
    }

    /// What is handed out: when it starts and ends, and how many intervals are in it.
    fn handed_out(takes: &[(usize, Option<Interval>)]) -> Vec<(u64, u64, u64)> {
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
        let found = handed_out(&[
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
        let found = handed_out(&[
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
        let found = handed_out(&[
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
