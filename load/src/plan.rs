//! The description of a run.

mod checks;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::arrivals::Arrivals;
use crate::framing::Framing;
use crate::http::HttpRequest;
use crate::payload::Payload;
use crate::rate::Rate;
use crate::request_list::RequestList;
use crate::sessions::Sessions;
use crate::steps::Step;
use crate::target::{Detour, HttpTarget, Target};
use crate::tls::TlsOptions;
use crate::websocket::WebSocketRequest;

/// The maximum size of an echo message over a stream, and of all pipelined requests in flight on a connection, in
/// bytes. They must fit into the socket buffers: a target that does not read while it responds would otherwise
/// deadlock with the generator.
pub const STREAM_PAYLOAD_MAX_BYTES: usize = 65_536;
/// The maximum size of a message over a stream in workloads other than echo, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// The maximum size of a datagram over UDP, in bytes: 64 KiB minus the headers of IPv4 and UDP.
pub const DATAGRAM_PAYLOAD_MAX_BYTES: usize = 65_507;
/// The maximum number of connections.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// The maximum number of streams of a connection, with HTTP/2.
pub const STREAMS_MAX: usize = 10_000;
/// The maximum number of threads.
pub const WORKERS_MAX: usize = 1024;
/// The maximum of all durations in a plan: a thousand days.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 24 * 3600);

/// When requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Closed loop: each connection sends its next request when the previous one is answered. A stall of the
    /// target also delays the requests that would have shown it, so that latencies look better than they are
    /// for users (coordinated omission).
    Closed,
    /// Open loop: requests are due at a constant rate, from [`Rate::MIN`] to [`Rate::MAX`] over all
    /// connections. The next free connection takes the next request. If none is free when a request is due, it is
    /// sent as soon as one is, and its response time includes that wait.
    Open {
        /// The rate over all connections.
        rate: Rate,
    },
    /// An open loop with a rate per step. The plan's length must be the sum of the steps: [`Plan::set_steps`] sets
    /// both. The warm-up uses the first rate.
    Steps(Vec<Step>),
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Sends requests for this long after the warm-up, then waits for those in flight.
    Duration(Duration),
    /// Sends this many requests after the warm-up, or makes this many sessions ([`Plan::sessions`]).
    Count(u64),
}

/// What each connection does repeatedly. It defines what a request is, and when it counts as answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Sends a message and waits for the same bytes. For TCP, UDP and Unix sockets, as are the next four.
    Echo {
        /// The content of the messages.
        payload: Payload,
    },
    /// Sends a message and waits for a response with any content.
    Request {
        /// The content of the messages.
        payload: Payload,
        /// How the end of a response is found.
        framing: Framing,
    },
    /// Only sends. A message counts as answered when the kernel has accepted it. Received bytes are discarded.
    Send {
        /// The content of the messages.
        payload: Payload,
    },
    /// Only receives. A request is the wait for the next bytes, however many arrive at once, or for the next
    /// datagram. If the target closes a connection that has received something, it is reopened without an error.
    Receive {
        /// If present, each connection first sends one such message, such as a subscription.
        payload: Option<Payload>,
    },
    /// Connects and closes. A request is a connection; it counts as answered when it is established. For TCP and
    /// Unix sockets.
    Churn {
        /// If present, each connection sends one message and counts as answered when the echo has arrived.
        payload: Option<Payload>,
    },
    /// Sends a request and waits for its response. For HTTP.
    Http(HttpRequest),
    /// Sends a message and waits for the next data message. For WebSocket, with the feature `websocket` of this crate.
    WebSocket(WebSocketRequest),
    /// Sessions that a program of the caller's makes: [`run_driven`](crate::run_driven). A request is a step of one.
    /// Not for WebSocket, whose program may speak it over `http` or `https` itself.
    Driven {
        /// What the program is called.
        name: String,
    },
}

impl Workload {
    /// A stable identifier of the workload.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::Request { .. } => "request",
            Self::Send { .. } => "send",
            Self::Receive { .. } => "receive",
            Self::Churn { .. } => "churn",
            Self::Http(_) => "http",
            Self::WebSocket(_) => "websocket",
            Self::Driven { .. } => "script",
        }
    }

    /// The content of its messages; `None` if it sends none, and for HTTP.
    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Echo { payload } | Self::Request { payload, .. } | Self::Send { payload } => Some(payload),
            Self::Receive { payload } | Self::Churn { payload } => payload.as_ref(),
            Self::WebSocket(request) => Some(&request.payload),
            Self::Http(_) | Self::Driven { .. } => None,
        }
    }
}

/// The description of a run.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Length, Pace, Plan, Rate, Workload};
///
/// let mut plan = Plan::new("tcp://127.0.0.1:7000".parse().unwrap());
/// plan.connections = 64;
/// plan.pace = Pace::Open { rate: Rate::per_s(50_000) };
/// plan.length = Length::Duration(Duration::from_secs(3));
/// assert_eq!(plan.check(), Ok(()));
/// plan.workload = Workload::Echo { payload: 0.into() };
/// assert_eq!(plan.check().unwrap_err(), "the payload has 0 bytes: expected 1 to 65536");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The server to measure.
    pub target: Target,
    /// Where to connect instead, with the target's own name in the header `Host` and for certificates; not for `udp`
    /// and `unix` targets.
    pub detour: Option<Detour>,
    /// The number of connections, or of datagram sockets; 1 by default.
    pub connections: usize,
    /// What each connection does; by default echoes of 64 bytes, or `GET` for HTTP targets.
    pub workload: Workload,
    /// The HTTP requests to send in place of that of the workload; none by default. For [`Workload::Http`], whose own
    /// request is not sent.
    pub requests: Option<RequestList>,
    /// Other servers that redirects may lead to ([`HttpRequest::follow`]), besides that of the target; none by default.
    /// What the URLs have besides scheme, host and port is of no meaning. A connection to such a server is kept for
    /// the next request that is led there. `Authorization`, `Cookie` and `Host` are left out of what is sent there, and
    /// the cookies of sessions; other headers, and bodies where a redirect keeps them, are not.
    pub follow_to: Vec<HttpTarget>,
    /// The maximum number of unanswered requests per connection; 1 by default. More than 1 requires a workload
    /// with responses over streams: echo, request or HTTP. A closed loop keeps this many in flight; in an open
    /// loop, requests wait if this many are. Together they may have [`STREAM_PAYLOAD_MAX_BYTES`]. A lost
    /// connection loses all of them.
    pub pipeline: usize,
    /// Whether to speak HTTP/2 with an HTTP target; off by default. With `https://` it is agreed upon in TLS (ALPN),
    /// with `http://` the target has to know (prior knowledge). Needs the feature `http2` of this crate.
    pub http2: bool,
    /// The maximum number of unanswered requests per connection with HTTP/2, each on a stream of its own; 1 by default,
    /// and never more than the target allows. A closed loop keeps this many in flight; in an open loop, the next free
    /// stream takes the next request.
    pub streams: usize,
    /// After how many requests a connection is closed and replaced; absent by default: as long as the target keeps
    /// it. For one request at a time over streams: echo, request or HTTP.
    pub requests_per_connection: Option<u64>,
    /// Sessions of several requests, in place of single ones; none by default. For one request at a time over streams,
    /// echo, request, HTTP/1.1 or WebSocket. Then the rate of an open loop is that at which sessions begin (a partly
    /// open loop: later requests wait for the answers before them), and [`Length::Count`] is a number of sessions; in
    /// a closed loop, each connection makes one session after the other. A connection is kept for the next session. If
    /// the target closes it, the session goes on over another one. A request that fails does not end a session; the end
    /// of the run does. With HTTP, each session sends the cookies that it got (RFC 6265). A request is measured if it
    /// is due after the warm-up.
    pub sessions: Option<Sessions>,
    /// When requests are sent; by default in a closed loop.
    pub pace: Pace,
    /// How the requests of an open loop follow each other; by default as a Poisson process.
    pub arrivals: Arrivals,
    /// What chooses the times of a Poisson process: with the same seed, they are the same. 0 by default; several
    /// generators that run together need different ones.
    pub seed: u64,
    /// When the run ends; by default after 10 seconds.
    pub length: Length,
    /// The number of threads, each with its own event loop and an equal share of the connections; by default 1,
    /// the calling thread.
    pub workers: usize,
    /// When to start sending (wall clock), so that several machines start together. Connections are opened before
    /// that time; ramp-up and warm-up follow it. If absent or in the past, the run starts as soon as the
    /// connections are open.
    pub start_at: Option<SystemTime>,
    /// Source addresses for connections, used in turn; empty by default, which lets the kernel choose.
    pub sources: Vec<IpAddr>,
    /// The time over which to spread the opening of connections; zero by default. Each connection sends requests
    /// as soon as it is open, without catching up on earlier ones. Nothing in this time is counted. The warm-up
    /// follows.
    pub ramp_up: Duration,
    /// How long to send requests before the measurement; zero by default.
    pub warmup: Duration,
    /// The maximum time to wait for a connection and for a response; 5 seconds by default. Kept exactly: what
    /// arrives later counts as timed out.
    pub timeout: Duration,
    /// How to speak TLS, with `tls://` and `https://`.
    pub tls: TlsOptions,
}

impl Plan {
    /// A plan with the defaults: one connection, messages of 64 bytes or `GET`, with the name and the password of the
    /// target, a closed loop for 10 seconds.
    pub fn new(target: Target) -> Self {
        let workload = match target {
            Target::Http(ref target) => Workload::Http(HttpRequest {
                headers: target.user().cloned().into_iter().collect(),
                ..HttpRequest::default()
            }),
            Target::WebSocket(ref target) => Workload::WebSocket(WebSocketRequest {
                headers: target.user().cloned().into_iter().collect(),
                ..WebSocketRequest::default()
            }),
            Target::Tcp(_) | Target::Tls(_) | Target::Udp(_) | Target::Unix(_) => {
                Workload::Echo { payload: 64.into() }
            }
        };
        Self {
            target,
            detour: None,
            connections: 1,
            workload,
            requests: None,
            follow_to: Vec::new(),
            pipeline: 1,
            http2: false,
            streams: 1,
            requests_per_connection: None,
            sessions: None,
            pace: Pace::Closed,
            arrivals: Arrivals::default(),
            seed: 0,
            length: Length::Duration(Duration::from_secs(10)),
            workers: 1,
            start_at: None,
            sources: Vec::new(),
            ramp_up: Duration::ZERO,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(5),
            tls: TlsOptions::default(),
        }
    }

    /// The target as it may be shown to others, and where connections go if that is not its own place.
    pub fn shown_target(&self) -> String {
        let target = self.target.without_query();
        self.detour.as_ref().map_or(target.clone(), |detour| format!("{target} at {detour}"))
    }

    /// Where connections go: `HOST:PORT`, `unix:PATH` or `unix:@NAME`.
    pub fn place(&self) -> String {
        match (&self.detour, &self.target) {
            (Some(detour), _) => detour.to_string(),
            (None, Target::Http(target) | Target::WebSocket(target)) => target.endpoint().to_string(),
            (None, Target::Tcp(endpoint) | Target::Tls(endpoint) | Target::Udp(endpoint)) => {
                endpoint.to_string()
            }
            (None, Target::Unix(address)) => address.to_string(),
        }
    }

    /// Sets the pace to these steps, and the length to their sum.
    pub fn set_steps(&mut self, steps: Vec<Step>) {
        self.length = Length::Duration(total(&steps));
        self.pace = Pace::Steps(steps);
    }

    /// Whether any connection is secured.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.target.tls_host().is_some() || self.follow_to.iter().any(HttpTarget::is_secure)
    }

    /// Whether messages go over WebSocket.
    pub(crate) fn speaks_websocket(&self) -> bool {
        matches!(self.workload, Workload::WebSocket(_))
    }

    /// The time before the measurement: ramp-up and warm-up.
    pub(crate) fn lead(&self) -> Duration {
        self.ramp_up.saturating_add(self.warmup)
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
                "payload has 0 bytes",
            ),
            (
                Plan { workload: Workload::Send { payload: 0.into() }, ..good.clone() },
                "expected 1 to 67108864",
            ),
            (Plan { workload: request(Framing::Length(0)), ..good.clone() }, "responses is 0 bytes"),
            (Plan { workload: request(Framing::Delimiter(vec![])), ..good.clone() }, "expected 1 to 1024"),
            (
                Plan { workload: Workload::Churn { payload: None }, ..plan("udp://a:1") },
                "expected tcp or unix",
            ),
            (
                Plan {
                    workload: Workload::Receive { payload: None },
                    pace: Pace::Open { rate: Rate::per_s(1) },
                    ..good.clone()
                },
                "expected a workload that sends",
            ),
            (
                Plan { pipeline: 0, ..good.clone() },
                "the pipeline depth is 0 with requests of 64 bytes: expected 1 to 1024",
            ),
            (Plan { pipeline: 1025, ..good.clone() }, "expected 1 to 1024"),
            (
                Plan { pipeline: 2, workload: Workload::Receive { payload: None }, ..good.clone() },
                "expected a workload with responses",
            ),
            (Plan { pipeline: 2, ..plan("udp://localhost:1") }, "expected more connections"),
            (Plan { pipeline: 70_000, ..http.clone() }, "expected 1 to 1872, or 65536 bytes"),
            (Plan { workload: echo(64), ..http.clone() }, "expected an HTTP request"),
            (Plan { workload: http.workload.clone(), ..good.clone() }, "expected http:// or https://"),
            (Plan { connections: 0, ..good.clone() }, "0 connections: expected 1"),
            (Plan { connections: 1_000_001, ..good.clone() }, "1000001 connections: expected 1 to 1000000"),
            (Plan { pace: Pace::Open { rate: Rate::ZERO }, ..good.clone() }, "rate is 0/s: expected 1/h to"),
            (
                Plan { pace: Pace::Open { rate: Rate::MIN }, length: Length::Count(24_001), ..good.clone() },
                "24001 requests at 1/h take more than 1000 days: expected fewer",
            ),
            (Plan { length: Length::Count(0), ..good.clone() }, "0 requests: expected 1"),
            (Plan { length: Length::Duration(Duration::ZERO), ..good.clone() }, "duration is 0: expected"),
            (Plan { timeout: Duration::ZERO, ..good.clone() }, "timeout is 0: expected"),
            (Plan { warmup: Duration::MAX, ..good.clone() }, "warm-up is"),
        ];
        for (plan, expected) in bad {
            let error = plan.check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
