//! Conditions on the results of a run, such as `p99>5ms`: what gates, searches and early ends ask.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::{NamedOutcome, Outcome, Requests, StepOutcome};
use crate::plan::{Pace, Plan, Workload};
use crate::quantity::{format_count, format_duration, format_per_s, parse_count, parse_duration};
use crate::rate::Rate;
use crate::status::{StatusCounts, StatusSet};

/// The expected format, for error messages.
const FORM: &str = "expected a measure, a comparison and a limit, such as p99>5ms, errors>1% or rate<10k";

/// A condition on the results of a run, such as `p99>5ms`.
///
/// The measures are `p50`, `p99.9` and other percentiles of the response times, their `max` and `mean`, `rate`
/// (answered requests per second), `send-rate` and `receive-rate` (bytes of those and of their responses per
/// second), `errors` (the count of all kinds, or with a limit such as `5%` the share of requests that failed) and
/// `unsent`. Of the requests that failed, `wrong`, `bad-status`, `bad-body`, `timed-out` and `lost` are those that did
/// so in one way, as a count or a share. HTTP statuses such as `503` or `5xx` are the number of such responses, or
/// with a limit such as `1%` their share. The operators are `>`, `>=`, `<` and `<=`.
///
/// Requests that failed or could not be sent count as slower than any limit: if 2 % of the requests fail, then p99
/// exceeds every limit, and so do `max` and `mean`.
///
/// `p99>5ms@3` is about the third step, and `p99>5ms@buy` about the requests of a list that are called `buy`; other
/// conditions are about the whole run. Bytes per second are not counted for such parts.
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
    /// The part of the run that it is about; absent for the whole.
    part: Option<Part>,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A step, from 1.
    Step(usize),
    /// The requests of a list with this name.
    Named(String),
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => {
                Err("there is nothing behind @: expected a step such as @3, or the name of a request"
                    .to_string())
            }
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
                Ok(0) | Err(_) => Err(format!("the step is {text}: expected 1 or more")),
                Ok(step) => Ok(Self::Step(step)),
            },
            name => Ok(Self::Named(name.to_string())),
        }
    }
}

/// A measure and its limit.
#[derive(Clone, Debug, PartialEq)]
enum Limit {
    Time(TimeMeasure, Duration),
    /// Per second.
    Rate(RateMeasure, f64),
    Count(CountMeasure, u64),
    /// The share of the sent requests that failed in some way, in percent.
    FailedPercent(Failures, f64),
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
    Failed(Failures),
}

/// Requests that failed: all, or in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failures {
    All,
    Wrong,
    BadStatus,
    BadBody,
    TimedOut,
    Lost,
}

impl Failures {
    const NAMES: [(&'static str, Self); 5] = [
        ("wrong", Self::Wrong),
        ("bad-status", Self::BadStatus),
        ("bad-body", Self::BadBody),
        ("timed-out", Self::TimedOut),
        ("lost", Self::Lost),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, failures)| *failures)
    }

    fn count(self, requests: &Requests) -> u64 {
        match self {
            Self::All => requests.failed(),
            Self::Wrong => requests.wrong,
            Self::BadStatus => requests.bad_status,
            Self::BadBody => requests.bad_body,
            Self::TimedOut => requests.timed_out,
            Self::Lost => requests.lost,
        }
    }
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
        let (limit, part) = match limit.split_once('@') {
            Some((limit, part)) => (limit.trim(), Some(part.parse()?)),
            None => (limit, None),
        };
        let time = |measure| parse_duration(limit).map(|limit| Limit::Time(measure, limit));
        let bytes = |measure| parse_count(limit).map(|limit| Limit::Rate(measure, limit as f64));
        let count = |measure| parse_count(limit).map(|limit| Limit::Count(measure, limit));
        let condition = match measure {
            "max" => time(TimeMeasure::Max),
            "mean" => time(TimeMeasure::Mean),
            "rate" => limit.parse().map(|limit: Rate| Limit::Rate(RateMeasure::Answered, limit.as_per_s())),
            "send-rate" | "receive-rate" | "unsent"
                if part.is_some() && (measure != "unsent" || is_name(&part)) =>
            {
                Err(format!("{measure} is known of the whole run only: expected another measure before @"))
            }
            "send-rate" => bytes(RateMeasure::SentBytes),
            "receive-rate" => bytes(RateMeasure::ReceivedBytes),
            "errors" => match limit.strip_suffix('%') {
                Some(percent) => {
                    parse_percent(percent).map(|percent| Limit::FailedPercent(Failures::All, percent))
                }
                None => count(CountMeasure::Errors),
            },
            "unsent" => count(CountMeasure::Unsent),
            _ => match (measure.strip_prefix('p').map(str::parse::<f64>), Failures::named(measure)) {
                (Some(Ok(percentile @ 0.0..=100.0)), _) => time(TimeMeasure::Percentile(percentile)),
                _ if measure.parse::<StatusSet>().is_ok() => parse_status_limit(measure, limit),
                (_, Some(failures)) => match limit.strip_suffix('%') {
                    Some(percent) => {
                        parse_percent(percent).map(|percent| Limit::FailedPercent(failures, percent))
                    }
                    None => count(CountMeasure::Failed(failures)),
                },
                _ => Err(format!(
                    "the measure {measure:?} is unknown: expected p50, p99, p99.9 or another percentile, max, mean, \
                     rate, send-rate, receive-rate, errors, unsent, wrong, bad-status, bad-body, timed-out, lost, or \
                     an HTTP status"
                )),
            },
        };
        Ok(Self { text: text.to_string(), limit: condition?, comparison, part })
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

impl<'a> From<&'a StepOutcome> for Figures<'a> {
    fn from(step: &'a StepOutcome) -> Self {
        let rate_per_s = step.rate_per_s();
        Self::of_part(&step.response_times, step.requests, &step.statuses, rate_per_s)
    }
}

impl<'a> Figures<'a> {
    fn named(named: &'a NamedOutcome, measured: Duration) -> Self {
        let answered = named.requests.answered - named.requests.answered_after_end;
        let rate_per_s = answered as f64 / measured.as_secs_f64().max(1e-9);
        Self::of_part(&named.response_times, named.requests, &named.statuses, rate_per_s)
    }

    /// Errors of a part are requests that failed, and bytes are not known.
    fn of_part(
        times: &'a Latencies,
        requests: Requests,
        statuses: &'a StatusCounts,
        rate_per_s: f64,
    ) -> Self {
        Self {
            response_times: times,
            requests,
            errors: requests.failed(),
            statuses,
            rate_per_s,
            sent_bytes_per_s: 0.0,
            received_bytes_per_s: 0.0,
        }
    }
}

/// Whether a part is that of a name.
fn is_name(part: &Option<Part>) -> bool {
    matches!(part, Some(Part::Named(_)))
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

    /// Checks that a run of a plan has the part that the condition is about.
    ///
    /// # Errors
    ///
    /// A message that names the part and what was expected.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::{Condition, Plan, parse_steps};
    ///
    /// let mut plan = Plan::new("tcp://127.0.0.1:7000".parse().unwrap());
    /// plan.set_steps(parse_steps("1k,2k,3k:10s").unwrap());
    /// assert_eq!("p99>5ms@3".parse::<Condition>().unwrap().check(&plan), Ok(()));
    /// let error = "p99>5ms@4".parse::<Condition>().unwrap().check(&plan).unwrap_err();
    /// assert_eq!(error, "p99>5ms@4: there is no step 4: expected 1 to 3");
    /// ```
    pub fn check(&self, plan: &Plan) -> Result<(), String> {
        let text = &self.text;
        let steps = match &plan.pace {
            Pace::Steps(steps) => steps.len(),
            Pace::Closed | Pace::Open { .. } => 0,
        };
        match &self.part {
            Some(Part::Step(step)) if steps == 0 => {
                Err(format!("{text}: there is no step {step}: expected a run with steps"))
            }
            Some(Part::Step(step)) if *step > steps => {
                Err(format!("{text}: there is no step {step}: expected 1 to {steps}"))
            }
            // Which steps there are, only the run shows.
            Some(Part::Named(_)) if matches!(plan.workload, Workload::Driven { .. }) => Ok(()),
            Some(Part::Named(name)) => {
                let names = plan.requests.as_ref().map_or_else(Vec::new, |list| list.names().0);
                match names.is_empty() {
                    true => Err(format!("{text}: no request is called {name}: expected a list of requests")),
                    false if names.contains(name) => Ok(()),
                    false => {
                        let names = names.join(", ");
                        Err(format!("{text}: no request is called {name}: expected one of {names}"))
                    }
                }
            }
            Some(Part::Step(_)) | None => Ok(()),
        }
    }

    /// Whether it is about a part of a run: a step, or the requests with a name.
    pub fn is_of_part(&self) -> bool {
        self.part.is_some()
    }

    /// Evaluates the condition on the results of a run.
    pub fn evaluate(&self, outcome: &Outcome) -> Finding {
        let figures = match &self.part {
            None => Some(outcome.into()),
            Some(Part::Step(step)) => outcome.steps.get(step - 1).map(Figures::from),
            Some(Part::Named(name)) => {
                let named = outcome.named.iter().find(|named| named.name == *name);
                named.map(|named| Figures::named(named, outcome.measured))
            }
        };
        figures
            .map_or_else(|| Finding::unknown("there was no such part"), |figures| self.evaluate_on(&figures))
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
                let shown = format!("{}{unit}/s", format_per_s(rate_per_s));
                self.found(rate_per_s, limit, shown)
            }
            Limit::Count(measure, limit) => {
                let value = match measure {
                    CountMeasure::Errors => figures.errors,
                    CountMeasure::Unsent => requests.unsent(),
                    CountMeasure::Failed(failures) => failures.count(requests),
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
            Limit::FailedPercent(..) if requests.sent == 0 => Finding::unknown("no request was sent"),
            Limit::FailedPercent(failures, limit) => share(failures.count(requests), requests.sent, limit),
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
