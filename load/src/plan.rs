//! What a run is to do.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::framing::Framing;
use crate::http::HttpRequest;
use crate::payload::Payload;
use crate::steps::{RATE_MAX_PER_S, Step};
use crate::target::Target;

/// How long one message of an echo may be over a stream, in bytes, and all requests together that are sent on
/// a connection before the first is answered. They have to fit into the buffers between the two ends while
/// the target does not read because it is answering, or both would wait for each other.
pub const STREAM_PAYLOAD_MAX_BYTES: usize = 65_536;
/// How long one message may be over a stream that is no echo, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long one datagram may be over UDP, in bytes: 64 KiB with the headers of IPv4 and UDP.
pub const DATAGRAM_PAYLOAD_MAX_BYTES: usize = 65_507;
/// The most connections of one run.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// The most threads of one run.
pub const WORKERS_MAX: usize = 1024;
/// No duration of a plan is longer: a thousand days.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 24 * 3600);

/// When requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each connection sends its next request when the one before it is answered. A stall of the target
    /// delays the requests that would have shown it, so latencies look better than users find them.
    Closed,
    /// Requests are due at a constant rate, from 1 to [`RATE_MAX_PER_S`] per second over all connections,
    /// which take turns. One that is due while its connection waits for an answer is sent after that, and
    /// its response time counts from when it was due.
    Open {
        /// Requests per second.
        rate_per_s: u64,
    },
    /// As in an open loop, but with rates that change from step to step. The plan's length is that of the steps
    /// together: [`Plan::set_steps`] sets both. During the warm-up the first step's rate is held.
    Steps(Vec<Step>),
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// No request is sent once this much time has passed after the warm-up. Those in flight are waited for.
    Duration(Duration),
    /// That many requests are sent after the warm-up.
    Count(u64),
}

/// What every connection does, over and over. What a request is, and when it is answered, depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Sends a message and waits until the target has sent it back. For TCP, UDP and Unix sockets, as the
    /// following ones.
    Echo {
        /// What the messages contain.
        payload: Payload,
    },
    /// Sends a message and waits for an answer, whatever is in it.
    Request {
        /// What the messages contain.
        payload: Payload,
        /// How the end of an answer is known.
        framing: Framing,
    },
    /// Only sends. A message is answered when the kernel has taken it. What the target sends is dropped.
    Send {
        /// What the messages contain.
        payload: Payload,
    },
    /// Only receives. A request is the wait for what comes next: for bytes, however many come at once, or for a
    /// datagram. That the target ends a connection that brought something is no error: another one is made.
    Receive {
        /// With one, each connection sends one message first, to ask for what is to come.
        payload: Option<Payload>,
    },
    /// Connects and closes. A request is a connection, and answered when it is made. For TCP and Unix sockets.
    Churn {
        /// With one, each connection sends one message before it is closed, and is answered when the target has
        /// sent it back.
        payload: Option<Payload>,
    },
    /// Sends a request and waits for its answer. For HTTP.
    Http(HttpRequest),
}

impl Workload {
    /// The workload in a word, which may be relied on.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::Request { .. } => "request",
            Self::Send { .. } => "send",
            Self::Receive { .. } => "receive",
            Self::Churn { .. } => "churn",
            Self::Http(_) => "http",
        }
    }

    /// What its messages contain, if it sends any; `None` for HTTP, too.
    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Echo { payload } | Self::Request { payload, .. } | Self::Send { payload } => Some(payload),
            Self::Receive { payload } | Self::Churn { payload } => payload.as_ref(),
            Self::Http(_) => None,
        }
    }
}

/// What a run is to do.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Length, Pace, Plan, Workload};
///
/// let mut plan = Plan::new("tcp://127.0.0.1:7000".parse().unwrap());
/// plan.connections = 64;
/// plan.pace = Pace::Open { rate_per_s: 50_000 };
/// plan.length = Length::Duration(Duration::from_secs(3));
/// assert_eq!(plan.check(), Ok(()));
/// plan.workload = Workload::Echo { payload: 0.into() };
/// assert_eq!(plan.check().unwrap_err(), "a payload of 0 bytes: expected 1 to 65536");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whom to send requests to.
    pub target: Target,
    /// How many connections to hold open, or sockets for datagrams; 1 at first.
    pub connections: usize,
    /// What each of them does; at first echoes of 64 bytes, or `GET` where the target is for HTTP.
    pub workload: Workload,
    /// How many requests each connection may have sent that are not answered yet; 1 at first. For exchanges
    /// over streams: echoes, requests and HTTP. In a closed loop there are always so many, and each answer
    /// is followed by the next request; in an open loop a request waits when there are so many. All of them
    /// together are no longer than [`STREAM_PAYLOAD_MAX_BYTES`]. When a connection is lost, so are all.
    pub pipeline: usize,
    /// When requests are sent; closed at first.
    pub pace: Pace,
    /// When the run ends; after 10 seconds at first.
    pub length: Length,
    /// On how many threads to run, each with an event loop of its own and an equal share of the connections; 1
    /// at first, which is the thread that calls.
    pub workers: usize,
    /// When to begin to send requests, by the clock on the wall, so that several machines begin together. The
    /// connections are opened before, and the ramp-up and the warm-up follow. At once where it is absent or has
    /// passed, as soon as the connections are open.
    pub start_at: Option<SystemTime>,
    /// Local addresses to open connections from, in turn; the kernel chooses where there is none, as at first.
    pub sources: Vec<IpAddr>,
    /// How long to take to open the connections, evenly one after the other; zero, all at once, at first. Each
    /// sends requests as soon as it is open, and in an open loop none that were due before. None of this time is
    /// counted; the warm-up follows.
    pub ramp_up: Duration,
    /// How long requests are sent before any is counted; zero at first.
    pub warmup: Duration,
    /// How long to wait for a connection, and for an answer; 5 seconds at first. What takes longer is given
    /// up at most an eighth of it later, and at most 100 ms later.
    pub timeout: Duration,
}

impl Plan {
    /// One connection, 64 bytes or a `GET`, a closed loop for 10 seconds.
    pub fn new(target: Target) -> Self {
        let workload = match target {
            Target::Http(_) => Workload::Http(HttpRequest::default()),
            Target::Tcp(_) | Target::Udp(_) | Target::Unix(_) => Workload::Echo { payload: 64.into() },
        };
        Self {
            target,
            connections: 1,
            workload,
            pipeline: 1,
            pace: Pace::Closed,
            length: Length::Duration(Duration::from_secs(10)),
            workers: 1,
            start_at: None,
            sources: Vec::new(),
            ramp_up: Duration::ZERO,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(5),
        }
    }

    /// Makes the run an open loop with these steps, and as long as they are together.
    pub fn set_steps(&mut self, steps: Vec<Step>) {
        self.length = Length::Duration(total(&steps));
        self.pace = Pace::Steps(steps);
    }

    /// How long requests are sent before any is counted.
    pub(crate) fn lead(&self) -> Duration {
        self.ramp_up.saturating_add(self.warmup)
    }

    /// Whether the plan can be run.
    ///
    /// # Errors
    ///
    /// A text with the first value that is out of bounds, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        self.check_workload()?;
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(format!("{} connections: expected 1 to {CONNECTIONS_MAX}", self.connections));
        }
        if !(1..=self.connections.min(WORKERS_MAX)).contains(&self.workers) {
            let max = self.connections.min(WORKERS_MAX);
            return Err(format!(
                "{} workers for {} connections: expected 1 to {max}",
                self.workers, self.connections
            ));
        }
        if let (Target::Unix(_), Some(source)) = (&self.target, self.sources.first()) {
            return Err(format!(
                "the source address {source} with {}: expected tcp://, udp:// or http://",
                self.target
            ));
        }
        self.check_pace()?;
        if self.timeout.is_zero() {
            return Err("a timeout of 0: expected more".to_string());
        }
        let length = match self.length {
            Length::Count(0) => return Err("a count of 0 requests: expected 1 or more".to_string()),
            Length::Count(_) => Duration::ZERO,
            Length::Duration(Duration::ZERO) => return Err("a duration of 0: expected more".to_string()),
            Length::Duration(duration) => duration,
        };
        for (name, duration) in [
            ("timeout", self.timeout),
            ("ramp-up", self.ramp_up),
            ("warm-up", self.warmup),
            ("duration", length),
        ] {
            if duration > DURATION_MAX {
                return Err(format!("a {name} of {} s: expected 1000 days or less", duration.as_secs()));
            }
        }
        Ok(())
    }

    fn check_pace(&self) -> Result<(), String> {
        match &self.pace {
            Pace::Closed => Ok(()),
            Pace::Open { rate_per_s } if !(1..=RATE_MAX_PER_S).contains(rate_per_s) => {
                Err(format!("a rate of {rate_per_s} requests/s: expected 1 to {RATE_MAX_PER_S}"))
            }
            Pace::Open { .. } => Ok(()),
            Pace::Steps(steps) => {
                steps.iter().try_for_each(Step::check)?;
                let first = steps.first().ok_or("no step: expected one or more")?;
                if first.from_per_s == 0 && !self.lead().is_zero() {
                    return Err(format!(
                        "a ramp-up or a warm-up before a rate of {first}: expected a first rate of 1 or more, \
                         which they hold"
                    ));
                }
                match self.length == Length::Duration(total(steps)) {
                    true => Ok(()),
                    false => Err(format!(
                        "a length of {:?} with steps: expected that of all steps, {:?}",
                        self.length,
                        total(steps)
                    )),
                }
            }
        }
    }

    fn check_workload(&self) -> Result<(), String> {
        let Self { workload, target, .. } = self;
        match (workload, target) {
            (Workload::Http(request), Target::Http(_)) => request.check()?,
            (Workload::Http(_), _) => {
                return Err(format!("requests of HTTP to {target}: expected http://HOST:PORT/PATH"));
            }
            (_, Target::Http(_)) => {
                let name = workload.name();
                return Err(format!("the workload {name} for {target}: expected a request of HTTP"));
            }
            (Workload::Churn { .. }, Target::Udp(_)) => {
                return Err(format!("the workload churn for {target}: expected tcp or unix"));
            }
            (Workload::Receive { .. }, _) if self.pace != Pace::Closed => {
                return Err("a rate for the workload receive: expected one that sends".to_string());
            }
            (Workload::Request { framing, .. }, _) => framing.check()?,
            _ => {}
        }
        if let Some(payload) = workload.payload() {
            let max_bytes = match (workload, target) {
                (_, Target::Udp(_)) => DATAGRAM_PAYLOAD_MAX_BYTES,
                (Workload::Echo { .. } | Workload::Churn { .. }, _) => STREAM_PAYLOAD_MAX_BYTES,
                _ => MESSAGE_MAX_BYTES,
            };
            for bytes in [payload.min_bytes(), payload.max_bytes()] {
                if !(1..=max_bytes).contains(&bytes) {
                    return Err(format!("a payload of {bytes} bytes: expected 1 to {max_bytes}"));
                }
            }
        }
        self.check_pipeline()
    }

    fn check_pipeline(&self) -> Result<(), String> {
        let depth = self.pipeline;
        let request_bytes = match (&self.workload, &self.target) {
            _ if depth == 1 => return Ok(()),
            (_, Target::Udp(_)) => {
                return Err(format!(
                    "a pipeline of {depth} over UDP, where answers have no order: expected more connections"
                ));
            }
            (Workload::Http(request), Target::Http(_)) if request.asks_to_close() => {
                return Err(format!(
                    "a pipeline of {depth} with Connection: close: expected connections that are kept"
                ));
            }
            (Workload::Http(request), Target::Http(target)) => request.bytes(target).len(),
            (Workload::Echo { payload } | Workload::Request { payload, .. }, _) => payload.max_bytes(),
            (workload, _) => {
                return Err(format!(
                    "a pipeline of {depth} for the workload {}: expected requests with answers",
                    workload.name()
                ));
            }
        };
        match STREAM_PAYLOAD_MAX_BYTES / request_bytes.max(1) {
            max if (1..=max).contains(&depth) => Ok(()),
            max => Err(format!(
                "a pipeline of {depth} requests of {request_bytes} bytes: expected 1 to {}, or \
                 {STREAM_PAYLOAD_MAX_BYTES} bytes together",
                max.max(1)
            )),
        }
    }
}

fn total(steps: &[Step]) -> Duration {
    steps.iter().fold(Duration::ZERO, |total, step| total.saturating_add(step.duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_out_of_bounds_is_named_with_what_was_expected() {
        let plan = |target: &str| Plan::new(target.parse().unwrap());
        let echo = |bytes: usize| Workload::Echo { payload: bytes.into() };
        let request = |framing| Workload::Request { payload: 64.into(), framing };
        let sizes = |text: &str| Payload::Generated(text.parse().unwrap());
        let good = plan("tcp://localhost:1");
        let http = plan("http://localhost/");
        assert_eq!(http.check(), Ok(()));
        assert_eq!(good.check(), Ok(()));
        let bad = [
            (Plan { workload: echo(65_537), ..good.clone() }, "65537 bytes: expected 1 to 65536"),
            (Plan { workload: echo(65_508), ..plan("udp://localhost:1") }, "expected 1 to 65507"),
            (
                Plan { workload: Workload::Echo { payload: sizes("0-5") }, ..good.clone() },
                "payload of 0 bytes",
            ),
            (
                Plan { workload: Workload::Send { payload: 0.into() }, ..good.clone() },
                "expected 1 to 67108864",
            ),
            (Plan { workload: request(Framing::Length(0)), ..good.clone() }, "answer of 0 bytes"),
            (Plan { workload: request(Framing::Delimiter(vec![])), ..good.clone() }, "expected 1 to 1024"),
            (
                Plan { workload: Workload::Churn { payload: None }, ..plan("udp://a:1") },
                "expected tcp or unix",
            ),
            (
                Plan {
                    workload: Workload::Receive { payload: None },
                    pace: Pace::Open { rate_per_s: 1 },
                    ..good.clone()
                },
                "expected one that sends",
            ),
            (
                Plan { pipeline: 0, ..good.clone() },
                "a pipeline of 0 requests of 64 bytes: expected 1 to 1024",
            ),
            (Plan { pipeline: 1025, ..good.clone() }, "expected 1 to 1024"),
            (
                Plan { pipeline: 2, workload: Workload::Receive { payload: None }, ..good.clone() },
                "expected requests with answers",
            ),
            (Plan { pipeline: 2, ..plan("udp://localhost:1") }, "expected more connections"),
            (Plan { pipeline: 70_000, ..http.clone() }, "expected 1 to 1872, or 65536 bytes"),
            (Plan { workload: echo(64), ..http.clone() }, "expected a request of HTTP"),
            (Plan { workload: http.workload.clone(), ..good.clone() }, "expected http://HOST:PORT/PATH"),
            (Plan { connections: 0, ..good.clone() }, "0 connections: expected 1"),
            (Plan { connections: 1_000_001, ..good.clone() }, "1000001 connections: expected 1 to 1000000"),
            (Plan { pace: Pace::Open { rate_per_s: 0 }, ..good.clone() }, "0 requests/s: expected 1 to"),
            (Plan { length: Length::Count(0), ..good.clone() }, "0 requests: expected 1"),
            (Plan { length: Length::Duration(Duration::ZERO), ..good.clone() }, "duration of 0: expected"),
            (Plan { timeout: Duration::ZERO, ..good.clone() }, "timeout of 0: expected"),
            (Plan { warmup: Duration::MAX, ..good.clone() }, "warm-up of"),
        ];
        for (plan, expected) in bad {
            let error = plan.check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
