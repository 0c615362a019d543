//! Conditions on the last seconds of a run, which end it early.

use std::collections::VecDeque;
use std::time::Duration;

use crate::condition::{Condition, Figures, Finding};
use crate::interval::Interval;
use crate::latencies::Latencies;
use crate::outcome::{Requests, Traffic};
use crate::status::StatusCounts;

/// Evaluates conditions on the last seconds of a run, as a [`Recorder`](crate::Recorder) gets them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Hooks, Watch};
///
/// let mut watch = Watch::new(vec!["errors>10%".parse().unwrap()], Duration::from_secs(3));
/// let hooks = Hooks {
///     recorder: Some(Box::new(move |interval| {
///         if let Some(breach) = watch.look(interval) {
///             println!("{} holds: {}", breach.condition, breach.value);
///         }
///     })),
///     ..Hooks::default()
/// };
/// ```
pub struct Watch {
    conditions: Vec<Condition>,
    window: Duration,
    /// The last intervals, which are together as long as the window, or shorter.
    intervals: VecDeque<Interval>,
}

/// A condition that held over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// The condition.
    pub condition: Condition,
    /// What was measured in the window, for people.
    pub value: String,
    /// The end of the window, relative to the beginning of the measurement.
    pub at: Duration,
}

impl Watch {
    /// Watches for conditions that hold over a window of this length, rounded up to whole intervals.
    pub fn new(conditions: Vec<Condition>, window: Duration) -> Self {
        // At least an interval is looked at.
        Self { conditions, window: window.max(Duration::from_nanos(1)), intervals: VecDeque::new() }
    }

    /// Takes the next interval. Returns the first condition that holds over the window that ends with it; `None` before
    /// the measurement is as long as the window. A condition on times also holds if nothing was answered, but requests
    /// failed.
    pub fn look(&mut self, interval: Interval) -> Option<Breach> {
        if interval.is_after_end {
            return None;
        }
        let at = interval.start + interval.duration;
        self.intervals.push_back(interval);
        let length = |intervals: &VecDeque<Interval>| {
            intervals.iter().map(|interval| interval.duration).sum::<Duration>()
        };
        while let Some(first) = self.intervals.front()
            && length(&self.intervals) - first.duration >= self.window
        {
            self.intervals.pop_front();
        }
        let total = length(&self.intervals);
        if total < self.window {
            return None;
        }
        let sums = Sums::of(&self.intervals)?;
        let figures = sums.figures(total);
        self.conditions.iter().find_map(|condition| {
            let Finding { holds, value } = condition.evaluate_on(&figures);
            let holds = holds.unwrap_or(figures.requests.failed() > 0);
            holds.then(|| Breach { condition: condition.clone(), value, at })
        })
    }
}

/// The sums of several intervals.
struct Sums {
    times: Latencies,
    requests: Requests,
    errors: u64,
    statuses: StatusCounts,
    traffic: Traffic,
}

impl Sums {
    fn of(intervals: &VecDeque<Interval>) -> Option<Self> {
        let first = intervals.front()?;
        let mut sums = Self {
            times: first.times().clone(),
            requests: first.requests,
            errors: first.errors,
            statuses: first.statuses.clone(),
            traffic: first.traffic,
        };
        for interval in intervals.iter().skip(1) {
            sums.times.add(interval.times());
            sums.requests.add(&interval.requests);
            sums.errors += interval.errors;
            sums.statuses.add(&interval.statuses);
            sums.traffic.add(&interval.traffic);
        }
        Some(sums)
    }

    fn figures(&self, total: Duration) -> Figures<'_> {
        let per_s = |count: u64| count as f64 / total.as_secs_f64().max(1e-9);
        Figures {
            response_times: &self.times,
            requests: self.requests,
            errors: self.errors,
            statuses: &self.statuses,
            rate_per_s: per_s(self.times.count()),
            sent_bytes_per_s: per_s(self.traffic.sent_bytes),
            received_bytes_per_s: per_s(self.traffic.received_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// A second with so many answers of a time, and so many failures.
    fn second(number: u64, answered: u64, time_ms: u64, lost: u64) -> Interval {
        let mut times = Latencies::new().unwrap();
        (0..answered).for_each(|_| times.record(Duration::from_millis(time_ms)));
        Interval {
            measured_from: SystemTime::UNIX_EPOCH,
            start: Duration::from_secs(number),
            duration: Duration::from_secs(1),
            is_after_end: false,
            step: None,
            errors: lost,
            requests: Requests { sent: answered + lost, answered, lost, ..Requests::default() },
            traffic: Traffic::default(),
            statuses: StatusCounts::default(),
            response_times: None,
            service_times: times,
            edge: Duration::MAX,
        }
    }

    fn watch(condition: &str, window_s: u64) -> Watch {
        Watch::new(vec![condition.parse().unwrap()], Duration::from_secs(window_s))
    }

    #[test]
    fn a_condition_has_to_hold_over_the_whole_window() {
        let mut watch = watch("errors>10%", 3);
        // A bad second alone is 1 in 12 of three.
        for (number, lost) in [(0, 0), (1, 0), (2, 10), (3, 0), (4, 0), (5, 0)] {
            assert_eq!(watch.look(second(number, 40, 1, lost)), None, "{number}");
        }
        assert_eq!(watch.look(second(6, 40, 1, 10)), None);
        let breach = watch.look(second(7, 40, 1, 10)).unwrap();
        assert_eq!((breach.value.as_str(), breach.at), ("14.286%", Duration::from_secs(8)));
    }

    #[test]
    fn nothing_is_judged_before_the_window_is_full_nor_after_the_end() {
        let mut watch = watch("p50>5ms", 2);
        assert_eq!(watch.look(second(0, 10, 100, 0)), None);
        assert_eq!(watch.look(Interval { is_after_end: true, ..second(1, 10, 100, 0) }), None);
        assert!(watch.look(second(1, 10, 100, 0)).is_some());
    }

    #[test]
    fn times_without_answers_hold_only_if_requests_failed() {
        let mut watch = watch("p99>5ms", 1);
        assert_eq!(watch.look(second(0, 0, 1, 0)), None);
        assert_eq!(watch.look(second(1, 0, 1, 3)).unwrap().value, "nothing was answered");
    }

    #[test]
    fn rates_are_those_of_the_window() {
        let mut watch = watch("rate<15", 2);
        assert_eq!(watch.look(second(0, 10, 1, 0)), None);
        assert_eq!(watch.look(second(1, 20, 1, 0)), None);
        assert_eq!(watch.look(second(2, 8, 1, 0)).unwrap().value, "14/s");
    }
}
