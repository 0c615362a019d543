//! Counts and times per step of a run in progress.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::{Requests, SessionCounts, StepOutcome};
use crate::plan::{Pace, Plan, Workload};
use crate::schedule::Numbers;
use crate::status::StatusCounts;
use crate::steps::Step;

/// Counts and times per step; empty without steps.
pub(crate) struct StepTally {
    steps: Vec<StepCounts>,
    /// Whether what is planned are sessions.
    has_sessions: bool,
    /// The step during which the last response arrived.
    current: Cell<usize>,
}

struct StepCounts {
    step: Step,
    /// When it ends, relative to the start of the run.
    end: Duration,
    /// The number of requests that are due in it, or of sessions.
    planned: u64,
    /// Sessions that were due in it.
    begun: Cell<u64>,
    completed: Cell<u64>,
    answered_in_time: Cell<u64>,
    requests: Cell<Requests>,
    statuses: RefCell<StatusCounts>,
    times: RefCell<(Latencies, Latencies)>,
}

impl StepTally {
    /// Counts for a checked plan.
    pub(crate) fn of(plan: &Plan, numbers: Option<&Numbers>) -> io::Result<Self> {
        match (&plan.pace, numbers) {
            (Pace::Steps(steps), Some(numbers)) => {
                let has_sessions = matches!(plan.workload, Workload::Driven { .. });
                Ok(Self { has_sessions, ..Self::new(steps, &numbers.planned_by_step(), plan.lead())? })
            }
            _ => Self::new(&[], &[], Duration::ZERO),
        }
    }

    /// `lead` is the time before the first step; `planned` has the number of requests of each step.
    fn new(steps: &[Step], planned: &[u64], lead: Duration) -> io::Result<Self> {
        let mut end = lead;
        let steps = steps.iter().zip(planned).map(|(step, planned)| {
            end += step.duration;
            Ok(StepCounts {
                step: *step,
                end,
                planned: *planned,
                begun: Cell::new(0),
                completed: Cell::new(0),
                answered_in_time: Cell::new(0),
                requests: Cell::default(),
                statuses: RefCell::default(),
                times: RefCell::new((Latencies::new()?, Latencies::new()?)),
            })
        });
        Ok(Self { steps: steps.collect::<io::Result<_>>()?, has_sessions: false, current: Cell::new(0) })
    }

    /// The step of a time, since the start of the run and not before the measurement; `None` without steps.
    pub(crate) fn at(&self, elapsed: Duration) -> Option<usize> {
        let last = self.steps.len().checked_sub(1)?;
        Some(self.steps.partition_point(|counts| counts.end <= elapsed).min(last))
    }

    /// Counts a session that was due in a step as begun.
    pub(crate) fn began_session(&self, step: usize) {
        let begun = &self.steps[step].begun;
        begun.set(begun.get() + 1);
    }

    /// Counts a session that was due in a step as completed.
    pub(crate) fn completed_session(&self, step: usize) {
        let completed = &self.steps[step].completed;
        completed.set(completed.get() + 1);
    }

    /// Updates the counts of requests that were due in a step.
    pub(crate) fn count(&self, step: usize, change: impl FnOnce(&mut Requests)) {
        let counts = &self.steps[step];
        let mut requests = counts.requests.get();
        change(&mut requests);
        counts.requests.set(requests);
    }

    /// Counts an HTTP response to a request of a step.
    pub(crate) fn got_status(&self, step: usize, status: u16) {
        self.steps[step].statuses.borrow_mut().note(status);
    }

    /// Counts an expected response to a request of a step. `elapsed` is the time since the start of the run.
    pub(crate) fn answered(
        &self,
        step: usize,
        (response_time, service_time): (Duration, Duration),
        elapsed: Duration,
        is_after_end: bool,
    ) {
        self.count(step, |requests| {
            requests.answered += 1;
            requests.answered_after_end += u64::from(is_after_end);
        });
        let mut times = self.steps[step].times.borrow_mut();
        times.0.record(response_time);
        times.1.record(service_time);
        if !is_after_end {
            let mut current = self.current.get();
            while current + 1 < self.steps.len() && elapsed >= self.steps[current].end {
                current += 1;
            }
            self.current.set(current);
            let in_time = &self.steps[current].answered_in_time;
            in_time.set(in_time.get() + 1);
        }
    }

    /// The ends of all steps but the last, relative to the start of the run.
    pub(crate) fn edges(&self) -> impl Iterator<Item = Duration> {
        self.steps.iter().rev().skip(1).rev().map(|counts| counts.end)
    }

    /// The results. `elapsed` is the time from the start of the run to its end; `was_stopped` if it ended early.
    pub(crate) fn outcome(&self, elapsed: Duration, was_stopped: bool) -> Vec<StepOutcome> {
        let outcomes = self.steps.iter().map(|counts| {
            let start = counts.end - counts.step.duration;
            let mut requests = counts.requests.get();
            let planned = (!was_stopped).then_some(counts.planned);
            // With sessions, what they are made of is planned when all have ended.
            requests.planned = planned.filter(|_| !self.has_sessions);
            let sessions = self.has_sessions.then(|| SessionCounts {
                planned,
                begun: counts.begun.get(),
                completed: counts.completed.get(),
            });
            let (response_times, service_times) = counts.times.borrow().clone();
            StepOutcome {
                step: counts.step,
                measured: elapsed.saturating_sub(start).min(counts.step.duration),
                answered_in_time: counts.answered_in_time.get(),
                requests,
                sessions,
                statuses: counts.statuses.borrow().clone(),
                response_times,
                service_times,
            }
        });
        outcomes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    #[test]
    fn an_answer_counts_for_the_step_of_its_request_and_for_the_rate_of_its_time() {
        let second = Duration::from_secs(1);
        let steps: Vec<Step> =
            [10, 20, 30].map(Rate::per_s).map(|rate| Step { from: rate, to: rate, duration: second }).into();
        let tally = StepTally::new(&steps, &[10, 20, 30], second).unwrap();
        assert_eq!(tally.edges().collect::<Vec<_>>(), [2 * second, 3 * second]);
        // Due in the first step, answered in the time of the third, and after the end.
        for (elapsed, is_after_end) in [(3 * second, false), (4 * second, true)] {
            tally.count(0, |requests| requests.sent += 1);
            tally.answered(0, (2 * second, second), elapsed, is_after_end);
        }
        let outcome = tally.outcome(4 * second, false);
        let first = &outcome[0].requests;
        assert_eq!(
            (first.planned, first.sent, first.answered, first.answered_after_end),
            (Some(10), 2, 2, 1)
        );
        assert_eq!((outcome[0].response_times.count(), outcome[0].rate_per_s()), (2, 0.0));
        assert_eq!((outcome[2].requests.answered, outcome[2].rate_per_s()), (0, 1.0));
        // Stopped in the middle of the second.
        let stopped = tally.outcome(second * 5 / 2, true);
        assert_eq!(
            (stopped[0].measured, stopped[1].measured, stopped[2].measured),
            (second, second / 2, Duration::ZERO)
        );
        assert_eq!(stopped[0].requests.planned, None);
    }
}
