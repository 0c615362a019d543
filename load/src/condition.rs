//! Conditions on the results of a run, such as `p99>5ms`: what gates, searches and early ends ask.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::{Outcome, Requests};
use crate::quantity::{format_count, format_duration, parse_count, parse_duration};
use crate::status::{StatusCounts, StatusSet};

/// The expected format, for error messages.
const FORM: &str = "expected a measure, a comparison and a limit, such as p99>5ms, errors>1% or rate<10k";

/// A condition on the results of a run, such as `p99>5ms`.
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
/// use ringspun_load::Condition;
///
/// let condition: Condition = "p99.9>5ms".parse().unwrap();
/// assert_eq!(condition.to_string(), "p99.9>5ms");
/// assert!("p99>5".parse::<Condition>().unwrap_err().contains("with a unit"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    limit: Limit,
    comparison: Comparison,
}

/// A measure and its limit.
#[derive(Clone, Debug, PartialEq)]
enum Limit {
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

impl FromStr for Condition {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = Comparison::OPERATORS.into_iter().find_map(|(operator, comparison)| {
            text.split_once(operator).map(|(measure, limit)| (measure.trim(), comparison, limit.trim()))
        });
        let (measure, comparison, limit) = parts.ok_or(FORM)?;
        let time = |measure| parse_duration(limit).map(|limit| Limit::Time(measure, limit));
        let rate = |measure| parse_count(limit).map(|limit| Limit::Rate(measure, limit));
        let count = |measure| parse_count(limit).map(|limit| Limit::Count(measure, limit));
        let condition = match measure {
            "max" => time(TimeMeasure::Max),
            "mean" => time(TimeMeasure::Mean),
            "rate" => rate(RateMeasure::Answered),
            "send-rate" => rate(RateMeasure::SentBytes),
            "receive-rate" => rate(RateMeasure::ReceivedBytes),
            "errors" => match limit.strip_suffix('%') {
                Some(percent) => parse_percent(percent).map(Limit::FailedPercent),
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
        Ok(Self { text: text.to_string(), limit: condition?, comparison })
    }
}

impl Condition {
    /// Whether it is about HTTP statuses, which responses of other protocols do not have.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::Condition;
    ///
    /// let needs_http = |text: &str| text.parse::<Condition>().unwrap().needs_http();
    /// assert!(needs_http("5xx>0") && !needs_http("errors>0"));
    /// ```
    pub fn needs_http(&self) -> bool {
        matches!(self.limit, Limit::Status(..) | Limit::StatusPercent(..))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What conditions are evaluated on: the figures of a run, or of a part of one.
pub(crate) struct Figures<'a> {
    pub(crate) response_times: &'a Latencies,
    pub(crate) requests: Requests,
    /// Of all kinds.
    pub(crate) errors: u64,
    pub(crate) statuses: &'a StatusCounts,
    pub(crate) rate_per_s: f64,
    pub(crate) sent_bytes_per_s: f64,
    pub(crate) received_bytes_per_s: f64,
}

impl<'a> From<&'a Outcome> for Figures<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        Self {
            response_times: &outcome.response_times,
            requests: outcome.requests,
            errors: outcome.errors.total(),
            statuses: &outcome.statuses,
            rate_per_s: outcome.rate_per_s(),
            sent_bytes_per_s: outcome.sent_bytes_per_s(),
            received_bytes_per_s: outcome.received_bytes_per_s(),
        }
    }
}

/// What a condition was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds; `None` if nothing was measured that could tell.
    pub holds: Option<bool>,
    /// The measured value, for people.
    pub value: String,
}

impl Finding {
    fn unknown(why: &str) -> Self {
        Self { holds: None, value: why.to_string() }
    }
}

impl Condition {
    /// The limit of a condition on times; `None` for others.
    pub fn time_limit(&self) -> Option<Duration> {
        match self.limit {
            Limit::Time(_, limit) => Some(limit),
            _ => None,
        }
    }

    /// Evaluates the condition on the results of a run.
    pub fn evaluate(&self, outcome: &Outcome) -> Finding {
        self.evaluate_on(&outcome.into())
    }

    pub(crate) fn evaluate_on(&self, figures: &Figures<'_>) -> Finding {
        let (requests, statuses) = (&figures.requests, figures.statuses);
        let share = |count: u64, total: u64, limit: f64| {
            let percent = 100.0 * count as f64 / total as f64;
            self.found(percent, limit, format!("{percent:.3}%"))
        };
        match self.limit {
            Limit::Time(..) if figures.response_times.count() == 0 => {
                Finding::unknown("nothing was answered")
            }
            Limit::Time(measure, limit) => {
                let (value, shown) = time_of(figures, measure);
                self.found(value, limit, shown)
            }
            Limit::Rate(measure, limit) => {
                let (rate_per_s, unit) = match measure {
                    RateMeasure::Answered => (figures.rate_per_s, ""),
                    RateMeasure::SentBytes => (figures.sent_bytes_per_s, " bytes"),
                    RateMeasure::ReceivedBytes => (figures.received_bytes_per_s, " bytes"),
                };
                let shown = format!("{}{unit}/s", format_count(rate_per_s as u64));
                self.found(rate_per_s, limit as f64, shown)
            }
            Limit::Count(measure, limit) => {
                let value = match measure {
                    CountMeasure::Errors => figures.errors,
                    CountMeasure::Unsent => requests.unsent(),
                };
                self.found(value, limit, format_count(value))
            }
            Limit::Status(ref wanted, limit) => {
                let count = statuses.count_in(wanted);
                self.found(count, limit, format_count(count))
            }
            Limit::StatusPercent(..) if statuses.total() == 0 => Finding::unknown("there was no response"),
            Limit::StatusPercent(ref wanted, limit) => {
                share(statuses.count_in(wanted), statuses.total(), limit)
            }
            Limit::FailedPercent(_) if requests.sent == 0 => Finding::unknown("no request was sent"),
            Limit::FailedPercent(limit) => share(requests.failed(), requests.sent, limit),
        }
    }

    fn found<T: PartialOrd>(&self, value: T, limit: T, shown: String) -> Finding {
        Finding { holds: Some(self.comparison.holds(value, limit)), value: shown }
    }
}

/// A time, where requests that failed or were not sent count as slower than any limit; and how to show it.
fn time_of(figures: &Figures<'_>, measure: TimeMeasure) -> (Duration, String) {
    let times = figures.response_times;
    let failed = figures.requests.failed() + figures.requests.unsent();
    let value = match measure {
        TimeMeasure::Percentile(percentile) => percentile_with_failures(times, failed, percentile),
        TimeMeasure::Mean => (failed == 0).then(|| times.mean()),
        TimeMeasure::Max => (failed == 0).then(|| times.max()),
    };
    match value {
        Some(value) => (value, format_duration(value)),
        // Longer than any time of a response.
        None => {
            let (failed, all) = (format_count(failed), format_count(times.count() + failed));
            (Duration::MAX, format!("{failed} of {all} requests failed or were not sent"))
        }
    }
}

/// A limit of statuses that were parsed before.
fn parse_status_limit(measure: &str, limit: &str) -> Result<Limit, String> {
    let statuses = measure.parse()?;
    match limit.strip_suffix('%') {
        Some(percent) => Ok(Limit::StatusPercent(statuses, parse_percent(percent)?)),
        None => Ok(Limit::Status(statuses, parse_count(limit)?)),
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
