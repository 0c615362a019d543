//! What a run has found out.

use std::time::Duration;

use crate::latencies::Latencies;
use crate::steps::Step;

/// What can go wrong with a connection or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody listens there. Over UDP, where there is no connecting, a request is lost with it.
    Refused,
    /// A connection was not made within the timeout.
    ConnectTimedOut,
    /// A connection could not be made for another reason.
    ConnectFailed,
    /// The target reset a connection. The request in flight is lost.
    Reset,
    /// The target closed a connection before it had answered. The request in flight is lost.
    Closed,
    /// A request was not answered within the timeout. Its connection is closed, as a late answer could be
    /// taken for the next one, and another is opened.
    TimedOut,
    /// An answer had other bytes than the request, or was no answer of HTTP.
    Wrong,
    /// An answer of HTTP has a status that is neither 2xx nor 3xx.
    Status,
    /// A request failed for another reason.
    Failed,
}

impl ErrorKind {
    /// All kinds, in the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::ConnectTimedOut,
        Self::ConnectFailed,
        Self::Reset,
        Self::Closed,
        Self::TimedOut,
        Self::Wrong,
        Self::Status,
        Self::Failed,
    ];

    /// The kind in a word, which may be relied on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimedOut => "connect_timed_out",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Wrong => "wrong",
            Self::Status => "status",
            Self::Failed => "failed",
        }
    }
}

/// What went wrong, by kind, from the beginning of a run: also what happened during the warm-up, whose requests
/// are not counted otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    counts: [u64; ErrorKind::ALL.len()],
    examples: [Option<String>; ErrorKind::ALL.len()],
}

impl Errors {
    /// Counts an error. The first of each kind is kept as its example.
    pub(crate) fn note(&mut self, kind: ErrorKind, example: impl FnOnce() -> String) {
        self.counts[kind as usize] += 1;
        self.examples[kind as usize].get_or_insert_with(example);
    }

    /// Adds those of another thread.
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

    /// How many errors there were of a kind.
    pub fn count(&self, kind: ErrorKind) -> u64 {
        self.counts[kind as usize]
    }

    /// The text of the first error of a kind, if there was one.
    pub fn example(&self, kind: ErrorKind) -> Option<&str> {
        self.examples[kind as usize].as_deref()
    }

    /// How many errors there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts of connections, or of sockets for datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// How many the plan asked for.
    pub wanted: usize,
    /// How many were opened, those included that took the place of lost ones.
    pub opened: u64,
    /// The most that were open at once; with several threads, the most of each together.
    pub open_max: usize,
}

/// Counts of requests, of which the [`Workload`](crate::Workload) says what they are. Those of the warm-up are not
/// among them. Of those sent, each is in exactly one of
/// `answered`, `wrong`, `bad_status`, `timed_out` and `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// How many were to be sent. A closed loop that ends by time has no such number, nor has a run that was
    /// stopped early.
    pub planned: Option<u64>,
    /// How many were sent, or begun to be.
    pub sent: u64,
    /// How many came back as they were sent; of HTTP, how many got an answer with status 2xx or 3xx.
    pub answered: u64,
    /// How many of those answered came back when the run's duration was over.
    pub answered_after_end: u64,
    /// How many came back changed; of HTTP, how many got what is no answer.
    pub wrong: u64,
    /// How many got an answer of HTTP with another status than 2xx or 3xx.
    pub bad_status: u64,
    /// How many did not come back within the timeout.
    pub timed_out: u64,
    /// How many were lost with their connection.
    pub lost: u64,
}

/// Bytes of requests and of their answers, as the target and this side gave them to the kernel: headers of
/// HTTP are among them, those of IP and TCP are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Bytes of answers.
    pub received_bytes: u64,
}

impl Requests {
    /// How many were to be sent and were not: in an open loop, because their connection still waited for
    /// earlier answers when the run ended; or because it was lost for good.
    pub fn unsent(&self) -> u64 {
        self.planned.map_or(0, |planned| planned.saturating_sub(self.sent))
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

/// What a run has found out.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The backend of the event loop that it ran on.
    pub backend: &'static str,
    /// How long the measured part took: the plan's duration, or the time until the last answer.
    pub measured: Duration,
    /// On how many threads it ran.
    pub workers: usize,
    /// The processor time that this process took in the measured part; with several threads, that of those.
    pub processor_time: Duration,
    /// The processor time of the busiest of the threads.
    pub busiest_processor_time: Duration,
    /// How much later it began than it was to ([`Plan::start_at`](crate::Plan::start_at)).
    pub started_late: Duration,
    /// Counts of connections.
    pub connections: Connections,
    /// Counts of requests.
    pub requests: Requests,
    /// Bytes of the requests that were answered rightly before the measured part was over, which are those of
    /// the rate, and of their answers.
    pub traffic: Traffic,
    /// What went wrong.
    pub errors: Errors,
    /// How many of the requests got an answer with status 2xx, 3xx, 4xx and 5xx; zeros without HTTP.
    pub status_classes: [u64; 4],
    /// How long answers took from when their requests were due. In a closed loop a request is due when it is
    /// sent. Only requests that were answered rightly are in here.
    pub response_times: Latencies,
    /// How long the same answers took from when their requests were sent.
    pub service_times: Latencies,
    /// How much later than due requests were sent whose connection was free: the delay of the generator itself,
    /// which the response times contain. Empty in a closed loop.
    pub send_delays: Latencies,
    /// What each step brought; empty without [`Pace::Steps`](crate::Pace::Steps).
    pub steps: Vec<StepOutcome>,
}

impl Outcome {
    /// Requests that were answered in the measured part, per second.
    pub fn rate_per_s(&self) -> f64 {
        self.per_s(self.requests.answered - self.requests.answered_after_end)
    }

    /// Bytes of those requests, per second.
    pub fn sent_bytes_per_s(&self) -> f64 {
        self.per_s(self.traffic.sent_bytes)
    }

    /// Bytes of their answers, per second.
    pub fn received_bytes_per_s(&self) -> f64 {
        self.per_s(self.traffic.received_bytes)
    }

    fn per_s(&self, count: u64) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// How busy the generator's thread, or the busiest of them, was in the measured part, in percent. Near 100, the latencies include
    /// time that answers waited for the generator itself.
    pub fn busy_percent(&self) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { 100.0 * self.busiest_processor_time.as_secs_f64() / seconds } else { 0.0 }
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
