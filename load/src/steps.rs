//! Steps of an open loop: rates that are held, or reached evenly, one after the other, and what each brought.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::Requests;
use crate::plan::{Pace, Plan, RATE_MAX_PER_S};
use crate::quantity::{parse_count, parse_duration, show_count};
use crate::schedule::Numbers;

/// The longest step: a day. The sums of a rate that rises over longer could exceed 128 bits.
pub const STEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// What steps look like, for messages.
const FORM: &str = "expected rates in requests per second and how long each lasts, such as 10k,20k,40k:30s, \
                    or 1k..50k:1m for a rate that rises evenly";

/// A rate in requests per second: the same throughout, or one that rises or falls evenly.
///
/// # Examples
///
/// ```
/// use ringspun_load::Rates;
///
/// assert_eq!("50k".parse(), Ok(Rates { from_per_s: 50_000, to_per_s: 50_000 }));
/// assert_eq!("1k..50k".parse(), Ok(Rates { from_per_s: 1_000, to_per_s: 50_000 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// At the beginning.
    pub from_per_s: u64,
    /// At the end.
    pub to_per_s: u64,
}

impl FromStr for Rates {
    type Err = String;

    /// The error says what was expected; whoever asked names the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from_per_s: parse_count(from)?, to_per_s: parse_count(to)? }),
            None => parse_count(text).map(|rate_per_s| Self { from_per_s: rate_per_s, to_per_s: rate_per_s }),
        }
    }
}

/// A part of an open loop with a rate of its own: constant if both ends are the same, else rising or falling
/// evenly from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Requests per second at its beginning.
    pub from_per_s: u64,
    /// Requests per second at its end.
    pub to_per_s: u64,
    /// How long it takes, up to [`STEP_MAX`].
    pub duration: Duration,
}

impl Step {
    /// Whether it can be run; a text with what is wrong if not.
    pub(crate) fn check(&self) -> Result<(), String> {
        for rate_per_s in [self.from_per_s, self.to_per_s] {
            if rate_per_s > RATE_MAX_PER_S || self.from_per_s + self.to_per_s == 0 {
                return Err(format!("a rate of {rate_per_s} requests/s: expected 1 to {RATE_MAX_PER_S}"));
            }
        }
        if self.duration.is_zero() {
            return Err(format!("0 s of {self}: expected more"));
        }
        if self.duration > STEP_MAX {
            return Err(format!("{} s of {self}: expected a day or less", self.duration.as_secs()));
        }
        Ok(())
    }
}

/// The rate, without how long it lasts: `10,000/s`, or `1,000 to 50,000/s`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from_per_s != self.to_per_s {
            write!(f, "{} to ", show_count(self.from_per_s))?;
        }
        write!(f, "{}/s", show_count(self.to_per_s))
    }
}

/// Reads steps: rates with commas between them, and behind the last of those that last equally long, a colon and
/// how long each of them lasts.
///
/// # Errors
///
/// A text that says what was expected; whoever asked names the value in front of it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Step, parse_steps};
///
/// let steps = parse_steps("10k,20k:30s,1k..5k:1m").unwrap();
/// assert_eq!(steps.len(), 3);
/// assert_eq!((steps[0].duration, steps[1].duration), (Duration::from_secs(30), Duration::from_secs(30)));
/// let rising = Step { from_per_s: 1_000, to_per_s: 5_000, duration: Duration::from_secs(60) };
/// assert_eq!(steps[2], rising);
/// ```
pub fn parse_steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut untimed = 0;
    for part in text.split(',') {
        let (rates, duration) = match part.split_once(':') {
            Some((rates, duration)) => {
                let duration =
                    parse_duration(duration).map_err(|error| format!("{duration:?}: {error}; {FORM}"))?;
                (rates, Some(duration))
            }
            None => (part, None),
        };
        let rates: Rates = rates.parse().map_err(|error| format!("{rates:?}: {error}; {FORM}"))?;
        let Rates { from_per_s, to_per_s } = rates;
        steps.push(Step { from_per_s, to_per_s, duration: Duration::ZERO });
        if let Some(duration) = duration {
            steps[untimed..].iter_mut().for_each(|step| step.duration = duration);
            untimed = steps.len();
        }
    }
    match untimed == steps.len() {
        true => Ok(steps),
        false => Err(format!("nothing says how long the last step lasts, {FORM}")),
    }
}

/// What a step has found out.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// The step.
    pub step: Step,
    /// How much of it was over when the run ended: all of it, unless the run was stopped early.
    pub measured: Duration,
    /// How many right answers came in its time, whenever their requests were due.
    pub answered_in_time: u64,
    /// The requests that were due in it, whenever they were answered. `answered_after_end` counts those that came
    /// after the end of the whole run.
    pub requests: Requests,
    /// How long the answers to those requests took from when they were due.
    pub response_times: Latencies,
    /// How long the same answers took from when their requests were sent.
    pub service_times: Latencies,
}

impl StepOutcome {
    /// Right answers that came in the time of the step, per second. It stays below the step's rate where the
    /// target, or the generator, could not keep up.
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { self.answered_in_time as f64 / seconds } else { 0.0 }
    }

    /// Requests that were due in the step and got no right answer.
    pub fn unanswered(&self) -> u64 {
        let requests = &self.requests;
        requests.wrong + requests.bad_status + requests.timed_out + requests.lost
    }
}

/// The counts of the steps while a run lasts; empty without steps.
pub(crate) struct StepTally {
    steps: Vec<StepCounts>,
    /// The step in whose time the last answer came.
    current: Cell<usize>,
}

struct StepCounts {
    step: Step,
    /// How long after the start of the run it ends.
    end: Duration,
    /// How many requests are due in it.
    planned: u64,
    answered_in_time: Cell<u64>,
    requests: Cell<Requests>,
    times: RefCell<(Latencies, Latencies)>,
}

impl StepTally {
    /// The counts of a plan that was checked; none without steps.
    pub(crate) fn of(plan: &Plan, numbers: Option<&Numbers>) -> io::Result<Self> {
        match (&plan.pace, numbers) {
            (Pace::Steps(steps), Some(numbers)) => Self::new(steps, &numbers.planned_by_step(), plan.lead()),
            _ => Self::new(&[], &[], Duration::ZERO),
        }
    }

    /// `lead` is how long after the start the first step begins; `planned` has the requests of each.
    fn new(steps: &[Step], planned: &[u64], lead: Duration) -> io::Result<Self> {
        let mut end = lead;
        let steps = steps.iter().zip(planned).map(|(step, planned)| {
            end += step.duration;
            Ok(StepCounts {
                step: *step,
                end,
                planned: *planned,
                answered_in_time: Cell::new(0),
                requests: Cell::default(),
                times: RefCell::new((Latencies::new()?, Latencies::new()?)),
            })
        });
        Ok(Self { steps: steps.collect::<io::Result<_>>()?, current: Cell::new(0) })
    }

    /// Counts a request that was due in a step, of which `change` knows something new.
    pub(crate) fn count(&self, step: usize, change: impl FnOnce(&mut Requests)) {
        let counts = &self.steps[step];
        let mut requests = counts.requests.get();
        change(&mut requests);
        counts.requests.set(requests);
    }

    /// Counts a right answer to a request that was due in a step. `elapsed` is since the start of the run.
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

    /// When each step but the last ends, after the start of the run.
    pub(crate) fn edges(&self) -> impl Iterator<Item = Duration> {
        self.steps.iter().rev().skip(1).rev().map(|counts| counts.end)
    }

    /// What was found out; `elapsed` is how much time of the run had passed at its end, and `was_stopped` whether
    /// that was early.
    pub(crate) fn outcome(&self, elapsed: Duration, was_stopped: bool) -> Vec<StepOutcome> {
        let outcomes = self.steps.iter().map(|counts| {
            let start = counts.end - counts.step.duration;
            let mut requests = counts.requests.get();
            requests.planned = (!was_stopped).then_some(counts.planned);
            let (response_times, service_times) = counts.times.borrow().clone();
            StepOutcome {
                step: counts.step,
                measured: elapsed.saturating_sub(start).min(counts.step.duration),
                answered_in_time: counts.answered_in_time.get(),
                requests,
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

    #[test]
    fn what_are_no_steps_gets_the_form_that_was_expected() {
        for (text, expected) in [
            ("10k,20k", "how long the last step lasts"),
            ("10k:5s,20k", "how long the last step lasts"),
            ("", "whole number"),
            ("fast:5s", "\"fast\""),
            ("10k:5", "with a unit"),
            ("1..:5s", "\"1..\""),
            ("10k:5s:6s", "with a unit"),
        ] {
            let error = parse_steps(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("such as 10k,20k,40k:30s"), "{text}: {error}");
        }
    }

    #[test]
    fn an_answer_counts_for_the_step_of_its_request_and_for_the_rate_of_its_time() {
        let second = Duration::from_secs(1);
        let steps: Vec<Step> =
            [10, 20, 30].map(|rate| Step { from_per_s: rate, to_per_s: rate, duration: second }).into();
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
