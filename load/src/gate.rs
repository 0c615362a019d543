//! Conditions under which a run counts as failed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::Outcome;
use crate::quantity::{format_count, format_duration, parse_count, parse_duration};
use crate::status::StatusSet;

/// The expected format, for error messages.
const FORM: &str = "expected a measure, a comparison and a limit, such as p99>5ms, errors>1% or rate<10k";

/// A condition under which a run counts as failed, such as `p99>5ms`.
///
/// The measures are `p50`, `p99.9` and other percentiles of the response times, their `max` and `mean`, `rate`
/// (answered requests per second), `send-rate` and `receive-rate` (bytes of those and of their responses per
/// second), `errors` (the count of all kinds, or with a limit such as `5%` the share of requests that failed) and
/// `unsent`. HTTP statuses such as `503` or `5xx` are the number of such responses, or with a limit such as `1%`
/// their share. The operators are `>`, `>=`, `<` and `<=`.
///
/// Requests that failed or could not be sent count as slower than any limit: if 2 % of the requests fail, then p99
/// exceeds every limit, and so do `max` and `mean`.
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
pub struct Gate {
    text: String,
    condition: Condition,
    comparison: Comparison,
}

/// A measure and its limit.
#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Time(TimeMeasure, Duration),
    Rate(RateMeasure, u64),
    Count(CountMeasure, u64),
    /// The share of the sent requests that failed, in percent.
    FailedPercent(f64),
    /// The number of responses with these HTTP statuses.
    Status(StatusSet, u64),
    /// The share of the responses with these HTTP statuses, in percent.
    StatusPercent(StatusSet, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TimeMeasure {
    Percentile(f64),
    Mean,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RateMeasure {
    Answered,
    SentBytes,
    ReceivedBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CountMeasure {
    Errors,
    Unsent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Comparison {
    /// Longer operators come first, so that `>=` is not parsed as `>`.
    const OPERATORS: [(&'static str, Self); 4] =
        [(">=", Self::AtLeast), ("<=", Self::AtMost), (">", Self::Above), ("<", Self::Below)];

    fn holds<T: PartialOrd>(self, value: T, limit: T) -> bool {
        match self {
            Self::Above => value > limit,
            Self::AtLeast => value >= limit,
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
        }
    }
}

impl FromStr for Gate {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = Comparison::OPERATORS.into_iter().find_map(|(operator, comparison)| {
            text.split_once(operator).map(|(measure, limit)| (measure.trim(), comparison, limit.trim()))
        });
        let (measure, comparison, limit) = parts.ok_or(FORM)?;
        let time = |measure| parse_duration(limit).map(|limit| Condition::Time(measure, limit));
        let rate = |measure| parse_count(limit).map(|limit| Condition::Rate(measure, limit));
        let count = |measure| parse_count(limit).map(|limit| Condition::Count(measure, limit));
        let condition = match measure {
            "max" => time(TimeMeasure::Max),
            "mean" => time(TimeMeasure::Mean),
            "rate" => rate(RateMeasure::Answered),
            "send-rate" => rate(RateMeasure::SentBytes),
            "receive-rate" => rate(RateMeasure::ReceivedBytes),
            "errors" => match limit.strip_suffix('%') {
                Some(percent) => parse_percent(percent).map(Condition::FailedPercent),
                None => count(CountMeasure::Errors),
            },
            "unsent" => count(CountMeasure::Unsent),
            _ => match measure.strip_prefix('p').map(str::parse::<f64>) {
                Some(Ok(percentile @ 0.0..=100.0)) => time(TimeMeasure::Percentile(percentile)),
                _ if measure.parse::<StatusSet>().is_ok() => parse_status_limit(measure, limit),
                _ => Err(format!(
                    "the measure {measure:?} is unknown: expected p50, p99, p99.9 or another percentile, max, mean, \
                     rate, send-rate, receive-rate, errors, unsent or an HTTP status"
                )),
            },
        };
        Ok(Self { text: text.to_string(), condition: condition?, comparison })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
    /// Evaluates the gate. A gate on times breaks if nothing was answered: there is no evidence that the target
    /// is fast enough.
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        match self.condition {
            Condition::Time(..) if outcome.response_times.count() == 0 => {
                Verdict { is_broken: true, value: "nothing was answered".to_string() }
            }
            Condition::Time(measure, limit) => {
                let (requests, times) = (&outcome.requests, &outcome.response_times);
                let failed = requests.failed() + requests.unsent();
                let value = match measure {
                    TimeMeasure::Percentile(percentile) => {
                        percentile_with_failures(times, failed, percentile)
                    }
                    TimeMeasure::Mean => (failed == 0).then(|| times.mean()),
                    TimeMeasure::Max => (failed == 0).then(|| times.max()),
                };
                let shown = value.map(format_duration).unwrap_or_else(|| {
                    let all = times.count() + failed;
                    format!("{} of {} requests failed", format_count(failed), format_count(all))
                });
                // Longer than any time of a response.
                let value = value.unwrap_or(Duration::MAX);
                Verdict { is_broken: self.comparison.holds(value, limit), value: shown }
            }
            Condition::Rate(measure, limit) => {
                let (rate_per_s, unit) = match measure {
                    RateMeasure::Answered => (outcome.rate_per_s(), ""),
                    RateMeasure::SentBytes => (outcome.sent_bytes_per_s(), " bytes"),
                    RateMeasure::ReceivedBytes => (outcome.received_bytes_per_s(), " bytes"),
                };
                Verdict {
                    is_broken: self.comparison.holds(rate_per_s, limit as f64),
                    value: format!("{}{unit}/s", format_count(rate_per_s as u64)),
                }
            }
            Condition::Count(measure, limit) => {
                let value = match measure {
                    CountMeasure::Errors => outcome.errors.total(),
                    CountMeasure::Unsent => outcome.requests.unsent(),
                };
                Verdict { is_broken: self.comparison.holds(value, limit), value: format_count(value) }
            }
            Condition::Status(ref statuses, limit) => {
                let count = outcome.statuses.count_in(statuses);
                Verdict { is_broken: self.comparison.holds(count, limit), value: format_count(count) }
            }
            Condition::StatusPercent(..) if outcome.statuses.total() == 0 => {
                Verdict { is_broken: true, value: "there was no response".to_string() }
            }
            Condition::StatusPercent(ref statuses, limit) => {
                let (count, total) = (outcome.statuses.count_in(statuses), outcome.statuses.total());
                let percent = 100.0 * count as f64 / total as f64;
                Verdict { is_broken: self.comparison.holds(percent, limit), value: format!("{percent:.3}%") }
            }
            Condition::FailedPercent(_) if outcome.requests.sent == 0 => {
                Verdict { is_broken: true, value: "no request was sent".to_string() }
            }
            Condition::FailedPercent(limit) => {
                let requests = &outcome.requests;
                let percent = 100.0 * requests.failed() as f64 / requests.sent as f64;
                Verdict { is_broken: self.comparison.holds(percent, limit), value: format!("{percent:.3}%") }
            }
        }
    }
}

/// A condition on statuses that were parsed before.
fn parse_status_limit(measure: &str, limit: &str) -> Result<Condition, String> {
    let statuses = measure.parse()?;
    match limit.strip_suffix('%') {
        Some(percent) => Ok(Condition::StatusPercent(statuses, parse_percent(percent)?)),
        None => Ok(Condition::Status(statuses, parse_count(limit)?)),
    }
}

/// A percentile of all requests, where those that failed count as slower than those that did not; `None` if it is
/// one that failed.
fn percentile_with_failures(times: &Latencies, failed: u64, percentile: f64) -> Option<Duration> {
    let all = (times.count() + failed) as f64;
    // Rounded like `Latencies::percentile`.
    let rank = (percentile / 100.0 * (1.0 - 4.0 * f64::EPSILON) * all).ceil().max(1.0);
    (rank <= times.count() as f64).then(|| times.percentile(100.0 * rank / times.count() as f64))
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent = text.parse().ok().filter(|percent| is_decimal && (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| format!("the share is {text:?}: expected 0% to 100%, such as errors>0.1%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Connections, ErrorKind, Errors, Requests, Traffic};
    use crate::status::StatusCounts;

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
            errors,
            traffic: Traffic { sent_bytes: 6_400, received_bytes: 100_000 },
            statuses,
            response_times: times.clone(),
            service_times: times,
            failure_times: Latencies::new().unwrap(),
            handshake_times: Latencies::new().unwrap(),
            send_delays: Latencies::new().unwrap(),
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
        assert_eq!("p99>1s".parse::<Gate>().unwrap().judge(&outcome).value, "10 of 110 requests failed");
        assert_eq!("errors>1%".parse::<Gate>().unwrap().judge(&outcome).value, "2.913%");
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
            "rate<x",
        ] {
            let error = text.parse::<Gate>().unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
        }
    }
}
