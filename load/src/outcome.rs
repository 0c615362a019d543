//! The results of a run.

use std::time::Duration;

use crate::latencies::Latencies;
use crate::status::StatusCounts;
use crate::steps::Step;

/// The kinds of errors of connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A connection was refused. Over UDP, which has no connections, this loses a request.
    Refused,
    /// A connection was not established within the timeout.
    ConnectTimedOut,
    /// A connection could not be established for another reason.
    ConnectFailed,
    /// The TLS handshake failed, or the target does not speak HTTP/2 or WebSocket, where that was asked for.
    HandshakeFailed,
    /// The target reset a connection, losing the requests in flight.
    Reset,
    /// The target closed a connection before it responded, losing the requests in flight.
    Closed,
    /// The target reset the stream of a request over HTTP/2. Its connection stays.
    StreamReset,
    /// A request was not answered within the timeout. Without HTTP/2, its connection is replaced, as a late
    /// response could be mistaken for the next one.
    TimedOut,
    /// A response had unexpected bytes, was not valid HTTP, or came before its request was sent.
    Wrong,
    /// An HTTP response had an unexpected status ([`HttpRequest::expected`](crate::HttpRequest::expected)).
    Status,
    /// An HTTP response had an expected status, but its body did not contain what it must
    /// ([`HttpRequest::expected_body`](crate::HttpRequest::expected_body)).
    Body,
    /// A step of a driven run failed, or its session did between steps ([`run_driven`](crate::run_driven)).
    Script,
    /// A request failed for another reason.
    Failed,
}

impl ErrorKind {
    /// All kinds, in display order.
    pub const ALL: [Self; 13] = [
        Self::Refused,
        Self::ConnectTimedOut,
        Self::ConnectFailed,
        Self::HandshakeFailed,
        Self::Reset,
        Self::Closed,
        Self::StreamReset,
        Self::TimedOut,
        Self::Wrong,
        Self::Status,
        Self::Body,
        Self::Script,
        Self::Failed,
    ];

    /// A stable identifier of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimedOut => "connect_timed_out",
            Self::ConnectFailed => "connect_failed",
            Self::HandshakeFailed => "handshake_failed",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::StreamReset => "stream_reset",
            Self::TimedOut => "timed_out",
            Self::Wrong => "wrong",
            Self::Status => "status",
            Self::Body => "body",
            Self::Script => "script",
            Self::Failed => "failed",
        }
    }
}

/// Errors by kind, since the beginning of the run: unlike other counts, they include the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    counts: [u64; ErrorKind::ALL.len()],
    examples: [Option<String>; ErrorKind::ALL.len()],
}

impl Errors {
    /// Counts an error. The first message of each kind is kept as an example.
    pub(crate) fn note(&mut self, kind: ErrorKind, example: impl FnOnce() -> String) {
        self.counts[kind as usize] += 1;
        self.examples[kind as usize].get_or_insert_with(example);
    }

    /// Adds the errors of another thread.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, others) in self.counts.iter_mut().zip(other.counts) {
            *count += others;
        }
        for (example, others) in self.examples.iter_mut().zip(&other.examples) {
            if example.is_none() {
                example.clone_from(others);
            }
        }
    }

    /// The number of errors of a kind.
    pub fn count(&self, kind: ErrorKind) -> u64 {
        self.counts[kind as usize]
    }

    /// The message of the first error of a kind, if there was one.
    pub fn example(&self, kind: ErrorKind) -> Option<&str> {
        self.examples[kind as usize].as_deref()
    }

    /// The number of errors of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts of connections, or of datagram sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// The planned number.
    pub wanted: usize,
    /// How many were opened, including replacements of lost ones.
    pub opened: u64,
    /// The maximum open at the same time; with churn, including those being established. With several threads, the
    /// sum of their maxima.
    pub open_max: usize,
    /// How many the target closed while they were idle, which is not an error; they were reopened.
    pub closed_idle: u64,
    /// How many were opened to other servers, to follow redirects there ([`Plan::follow_to`](crate::Plan::follow_to));
    /// not among the opened ones.
    pub elsewhere: u64,
    /// How many of all of these resumed an earlier TLS session.
    pub resumed: u64,
    /// How many streams the target allowed on a connection, where those were fewer than planned; with HTTP/2.
    pub streams_allowed: Option<usize>,
}

/// Counts of requests (the [`Workload`](crate::Workload) defines what a request is), without those of the warm-up.
/// Each sent request is in exactly one of `answered`, `wrong`, `bad_status`, `bad_body`, `timed_out` and `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The planned number; `None` for a closed loop limited by duration, and for a run that was stopped early.
    pub planned: Option<u64>,
    /// How many were sent, at least in part.
    pub sent: u64,
    /// How many were answered as expected; for HTTP, with an expected status and body.
    pub answered: u64,
    /// How many of those were answered after the end of the measurement.
    pub answered_after_end: u64,
    /// How many got unexpected bytes, or an invalid HTTP response; or were not sent, as bytes had come before; in a
    /// driven run, how many steps failed otherwise than with a status, by the timeout or for want of a connection.
    pub wrong: u64,
    /// How many got an HTTP response with an unexpected status.
    pub bad_status: u64,
    /// How many got an HTTP response with an expected status whose body did not contain what it must.
    pub bad_body: u64,
    /// How many were not answered within the timeout.
    pub timed_out: u64,
    /// How many were lost with their connection, or with their stream.
    pub lost: u64,
    /// How many were sent again: HTTP requests with idempotent methods whose reused connection the target closed
    /// before a response began, and over HTTP/2 those that the target says it did not process. Each counts once as
    /// sent.
    pub resent: u64,
    /// How many redirects were followed: requests that are not counted otherwise, before the last response to each that
    /// is ([`HttpRequest::follow`](crate::HttpRequest::follow)).
    pub redirects: u64,
}

/// Bytes of requests and of their responses at the socket level: they include HTTP headers, but no headers of TCP
/// or IP. Over HTTP/2, bytes of bodies only, as headers are compressed for a connection and
/// not for a request; over WebSocket, bytes of messages without their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Bytes of responses.
    pub received_bytes: u64,
}

impl Requests {
    /// How many were sent and failed.
    pub fn failed(&self) -> u64 {
        self.wrong + self.bad_status + self.bad_body + self.timed_out + self.lost
    }

    /// The counts since earlier ones, without what was planned. A request that was taken back counts as none.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            planned: None,
            sent: self.sent.saturating_sub(earlier.sent),
            answered: self.answered - earlier.answered,
            answered_after_end: self.answered_after_end - earlier.answered_after_end,
            wrong: self.wrong - earlier.wrong,
            bad_status: self.bad_status - earlier.bad_status,
            bad_body: self.bad_body - earlier.bad_body,
            timed_out: self.timed_out - earlier.timed_out,
            lost: self.lost - earlier.lost,
            resent: self.resent.saturating_sub(earlier.resent),
            redirects: self.redirects - earlier.redirects,
        }
    }

    /// How many were planned but not sent: because their connection was still waiting for earlier responses when
    /// the run ended, or could not be reopened.
    pub fn unsent(&self) -> u64 {
        self.planned.map_or(0, |planned| planned.saturating_sub(self.sent))
    }
}

/// The results of a step.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// The step.
    pub step: Step,
    /// How long it lasted: less than planned if the run was stopped early.
    pub measured: Duration,
    /// The number of expected responses that arrived during the step, also those to requests of earlier steps.
    pub answered_in_time: u64,
    /// Counts of the requests that were due in the step. `answered_after_end` refers to the end of the whole
    /// measurement.
    pub requests: Requests,
    /// Counts of the sessions that were due in the step; `None` but in driven runs.
    pub sessions: Option<SessionCounts>,
    /// How many of those requests were answered with each HTTP status.
    pub statuses: StatusCounts,
    /// Response times of those requests.
    pub response_times: Latencies,
    /// Service times of those requests.
    pub service_times: Latencies,
}

impl StepOutcome {
    /// Expected responses per second during the step. It is below the step's rate if the target or the generator
    /// could not keep up.
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { self.answered_in_time as f64 / seconds } else { 0.0 }
    }
}

/// The results of the requests of a list that have the same name.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct NamedOutcome {
    /// That of [`ListedRequest::name`](crate::ListedRequest::name) or of [`DrivenStep::name`](crate::DrivenStep::name),
    /// or `others` for all beyond a hundred names.
    pub name: String,
    /// Counts of the requests. Nothing is planned, as they are chosen at random.
    pub requests: Requests,
    /// How many of them were answered with each HTTP status.
    pub statuses: StatusCounts,
    /// Response times of those that were answered as expected.
    pub response_times: Latencies,
}

/// Counts of sessions, without those that began in the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// The planned number; `None` for a closed loop limited by duration, and for a run that was stopped early.
    pub planned: Option<u64>,
    /// How many have sent a request.
    pub begun: u64,
    /// How many of those have made all of their requests, whatever became of them. The end of the run cuts the others
    /// off.
    pub completed: u64,
}

/// The loss of the target: from some time on nothing was answered, and connections could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLoss {
    /// How long before the end of the run it happened.
    pub before_end: Duration,
    /// The error of the first attempt to connect.
    pub error: String,
}

/// The results of a run.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The backend of the event loop.
    pub backend: &'static str,
    /// The length of the measurement: the plan's duration, or the time until the last response.
    pub measured: Duration,
    /// Whether the run was stopped early ([`Hooks::stopper`](crate::Hooks::stopper)).
    pub was_stopped: bool,
    /// Whether the target was lost before the end.
    pub target_loss: Option<TargetLoss>,
    /// The number of threads.
    pub workers: usize,
    /// The CPU time of this process during the measurement; with several threads, the sum of theirs.
    pub cpu_time: Duration,
    /// The CPU time of the busiest thread.
    pub busiest_cpu_time: Duration,
    /// How much later than [`Plan::start_at`](crate::Plan::start_at) it started.
    pub started_late: Duration,
    /// Counts of connections.
    pub connections: Connections,
    /// Counts of requests. With sessions, their later requests are not planned: the planned ones are those that were
    /// sent, and the first one of each planned session that did not begin.
    pub requests: Requests,
    /// Counts of sessions; `None` without [`Plan::sessions`](crate::Plan::sessions) and outside of driven runs.
    pub sessions: Option<SessionCounts>,
    /// Bytes of the requests that were answered as expected during the measurement, and of their responses.
    pub traffic: Traffic,
    /// Errors by kind.
    pub errors: Errors,
    /// How many requests were answered with each HTTP status.
    pub statuses: StatusCounts,
    /// Response times of the requests that were answered as expected, from when they were due. In a closed loop
    /// requests are due when they are sent.
    pub response_times: Latencies,
    /// Service times of those requests.
    pub service_times: Latencies,
    /// Times of the requests that were sent and failed, from when they were due until that was known.
    pub failure_times: Latencies,
    /// Times of TLS handshakes, from when TCP was connected; since the beginning of the run, unlike the others. They
    /// are no part of the times of requests, except with [`Workload::Churn`](crate::Workload::Churn).
    pub handshake_times: Latencies,
    /// Delays of the generator itself, which the response times include: how much later than due requests were
    /// sent although their connection was free. Empty in a closed loop.
    pub send_delays: Latencies,
    /// Results per name; empty without [`Plan::requests`](crate::Plan::requests) and outside of driven runs.
    pub named: Vec<NamedOutcome>,
    /// Results per step; empty without [`Pace::Steps`](crate::Pace::Steps).
    pub steps: Vec<StepOutcome>,
}

impl Outcome {
    /// The planned requests, from the counts of sessions of all threads.
    pub(crate) fn with_planned_requests(mut self) -> Self {
        let steps = self.steps.iter_mut().map(|step| (step.sessions, &mut step.requests));
        for (sessions, requests) in steps.chain([(self.sessions, &mut self.requests)]) {
            if let Some(SessionCounts { planned, begun, .. }) = sessions {
                let unbegun = planned.map(|planned| planned.saturating_sub(begun));
                requests.planned = unbegun.map(|unbegun| requests.sent + unbegun);
            }
        }
        self
    }

    /// Requests answered per second of the measurement.
    pub fn rate_per_s(&self) -> f64 {
        self.per_s(self.requests.answered - self.requests.answered_after_end)
    }

    /// Bytes of those requests, per second.
    pub fn sent_bytes_per_s(&self) -> f64 {
        self.per_s(self.traffic.sent_bytes)
    }

    /// Bytes of their responses, per second.
    pub fn received_bytes_per_s(&self) -> f64 {
        self.per_s(self.traffic.received_bytes)
    }

    fn per_s(&self, count: u64) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// CPU utilization of the generator's busiest thread during the measurement, in percent. Near 100, latencies
    /// include queueing in the generator itself.
    pub fn busy_percent(&self) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { 100.0 * self.busiest_cpu_time.as_secs_f64() / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind_with_the_first_as_example() {
        let mut errors = Errors::default();
        for text in ["first", "second"] {
            errors.note(ErrorKind::Reset, || text.to_string());
        }
        errors.note(ErrorKind::Wrong, || "third".to_string());
        assert_eq!((errors.count(ErrorKind::Reset), errors.total()), (2, 3));
        assert_eq!(errors.example(ErrorKind::Reset), Some("first"));
        assert_eq!(errors.example(ErrorKind::Closed), None);
    }

    #[test]
    fn the_list_of_kinds_is_in_the_order_of_their_numbers() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
