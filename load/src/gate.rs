//! Conditions under which a run counts as failed.

use std::fmt;
use std::str::FromStr;

use crate::condition::Condition;
use crate::outcome::Outcome;

/// A [`Condition`] under which a run counts as failed, such as `p99>5ms`.
///
/// # Examples
///
/// ```
/// use ringspun_load::Gate;
///
/// let gate: Gate = "p99.9>5ms".parse().unwrap();
/// assert_eq!(gate.to_string(), "p99.9>5ms");
/// assert!("p99>5".parse::<Gate>().unwrap_err().contains("with a unit"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gate(Condition);

impl FromStr for Gate {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Gate {
    /// The condition under which it fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::Gate;
    ///
    /// let gate: Gate = "503>1%".parse().unwrap();
    /// assert!(gate.condition().needs_http());
    /// ```
    pub fn condition(&self) -> &Condition {
        &self.0
    }
}

/// The result of a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the condition holds, so that the run counts as failed.
    pub is_broken: bool,
    /// The measured value, for people.
    pub value: String,
}

impl Gate {
    /// Evaluates the gate. A gate also breaks if nothing was measured that could tell, such as one on times if
    /// nothing was answered: there is no evidence that the target is fast enough. Not if the run was stopped before it
    /// could measure that.
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        let finding = self.0.evaluate(outcome);
        Verdict { is_broken: finding.holds.unwrap_or(!outcome.was_stopped), value: finding.value }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latencies::Latencies;
    use crate::outcome::{Connections, ErrorKind, Errors, NamedOutcome, Requests, StepOutcome, Traffic};
    use crate::rate::Rate;
    use crate::status::StatusCounts;
    use crate::steps::Step;

    /// A hundred answers, of 1 to 100 ms, in 2 seconds, and 3 errors.
    fn outcome() -> Outcome {
        let mut times = Latencies::new().unwrap();
        (1..=100).for_each(|milliseconds| times.record(Duration::from_millis(milliseconds)));
        let mut errors = Errors::default();
        (0..3).for_each(|_| errors.note(ErrorKind::Reset, String::new));
        let mut statuses = StatusCounts::default();
        [200, 200, 200, 503].iter().for_each(|status| statuses.note(*status));
        Outcome {
            backend: "none",
            measured: Duration::from_secs(2),
            was_stopped: false,
            target_loss: None,
            workers: 1,
            cpu_time: Duration::ZERO,
            busiest_cpu_time: Duration::ZERO,
            started_late: Duration::ZERO,
            connections: Connections::default(),
            requests: Requests {
                planned: Some(110),
                sent: 103,
                answered: 100,
                lost: 3,
                ..Default::default()
            },
            sessions: None,
            errors,
            traffic: Traffic { sent_bytes: 6_400, received_bytes: 100_000 },
            statuses,
            response_times: times.clone(),
            service_times: times,
            failure_times: Latencies::new().unwrap(),
            handshake_times: Latencies::new().unwrap(),
            send_delays: Latencies::new().unwrap(),
            named: Vec::new(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn gates_break_where_their_condition_holds() {
        let outcome = outcome();
        for (text, is_broken) in [
            ("p90>98ms", true),
            ("p90>100ms", false),
            ("p88>98ms", false),
            ("p91>10s", true),
            ("p90<10s", true),
            ("p92<10s", false),
            ("p50 <= 56ms", true),
            ("max>1s", true),
            ("mean>1h", true),
            ("p0>10ms", false),
            ("errors>0", true),
            ("errors>2", true),
            ("errors>3", false),
            ("errors>=3", true),
            ("errors>2.9%", true),
            ("errors>2.92%", false),
            ("lost>2", true),
            ("lost>2.92%", false),
            ("bad-body>0", false),
            ("timed-out<1%", true),
            ("503>0", true),
            ("503>1", false),
            ("5xx>24%", true),
            ("400-599>=25%", true),
            ("5xx>25%", false),
            ("2xx<80%", true),
            ("404>0", false),
            ("unsent>6", true),
            ("unsent>7", false),
            ("rate<50", false),
            ("rate<=50", true),
            ("rate<0.1k", true),
            ("rate<50.5/s", true),
            ("rate<2.9k/m", false),
            ("send-rate<3.2k", false),
            ("send-rate<=3.2k", true),
            ("receive-rate<51k", true),
            ("receive-rate<50k", false),
        ] {
            let verdict = text.parse::<Gate>().unwrap().judge(&outcome);
            assert_eq!(verdict.is_broken, is_broken, "{text}: {}", verdict.value);
        }
        assert_eq!("errors>0".parse::<Gate>().unwrap().judge(&outcome).value, "3");
        assert_eq!("rate<1".parse::<Gate>().unwrap().judge(&outcome).value, "50/s");
        assert_eq!("receive-rate<1".parse::<Gate>().unwrap().judge(&outcome).value, "50,000 bytes/s");
        assert_eq!("p10>1s".parse::<Gate>().unwrap().judge(&outcome).value, "11.0 ms");
        assert_eq!(
            "p99>1s".parse::<Gate>().unwrap().judge(&outcome).value,
            "10 of 110 requests failed or were not sent"
        );
        assert_eq!("errors>1%".parse::<Gate>().unwrap().judge(&outcome).value, "2.913%");
    }

    #[test]
    fn a_run_that_was_stopped_before_it_measured_breaks_no_gate() {
        let mut outcome = outcome();
        (outcome.requests, outcome.response_times) = (Requests::default(), Latencies::new().unwrap());
        let gate: Gate = "p99>1ms".parse().unwrap();
        assert!(gate.judge(&outcome).is_broken);
        outcome.was_stopped = true;
        assert!(!gate.judge(&outcome).is_broken);
    }

    #[test]
    fn a_gate_on_a_part_looks_at_that_part() {
        let mut outcome = outcome();
        let mut slow = Latencies::new().unwrap();
        (0..10).for_each(|_| slow.record(Duration::from_secs(2)));
        let mut statuses = StatusCounts::default();
        [200, 503].iter().for_each(|status| statuses.note(*status));
        let rate = Rate::per_s(10);
        let step = StepOutcome {
            step: Step { from: rate, to: rate, duration: Duration::from_secs(1) },
            measured: Duration::from_secs(1),
            answered_in_time: 8,
            requests: Requests { sent: 11, answered: 10, lost: 1, ..Requests::default() },
            sessions: None,
            statuses: statuses.clone(),
            response_times: slow.clone(),
            service_times: slow.clone(),
        };
        outcome.named = vec![NamedOutcome {
            name: "buy".to_string(),
            requests: step.requests,
            statuses,
            response_times: slow,
        }];
        outcome.steps = vec![step];
        for (text, is_broken, value) in [
            ("p50>1s", false, "55.0 ms"),
            ("p50>1s@1", true, "2.00 s"),
            ("p50 > 1s @ buy", true, "2.00 s"),
            ("p99>5s@1", true, "1 of 11 requests failed or were not sent"),
            ("503>40%@buy", true, "50.000%"),
            ("503>40%", false, "25.000%"),
            ("errors>0@1", true, "1"),
            ("rate<8@1", false, "8/s"),
            ("rate<6@buy", true, "5/s"),
            ("p50>1s@2", true, "there was no such part"),
        ] {
            let verdict = text.parse::<Gate>().unwrap().judge(&outcome);
            assert_eq!((verdict.is_broken, verdict.value.as_str()), (is_broken, value), "{text}");
        }
    }

    #[test]
    fn a_gate_on_times_breaks_where_there_are_none() {
        let outcome = Outcome { response_times: Latencies::new().unwrap(), ..outcome() };
        for text in ["p99>5ms", "max<1s"] {
            assert!(text.parse::<Gate>().unwrap().judge(&outcome).is_broken, "{text}");
        }
    }

    #[test]
    fn what_is_no_gate_gets_what_was_expected() {
        for text in [
            "",
            "p99",
            "errors>x%",
            "600>1",
            "503>x",
            "5xx>101%",
            "errors>101%",
            "p99=5ms",
            "p99>",
            "p99>5",
            "p101>5ms",
            "pinf>5ms",
            "q>1",
            "errors>5ms",
            "p99>5ms@",
            "p99>5ms@0",
            "send-rate<5@1",
            "unsent>5@buy",
            "rate<x",
        ] {
            let error = text.parse::<Gate>().unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
        }
    }
}
