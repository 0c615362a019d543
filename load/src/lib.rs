//! A load generator on Ringspun's fibers. It sends messages over TCP, TLS, UDP or Unix sockets and waits for the
//! responses, or only sends, only receives, or only connects; or it sends HTTP requests or WebSocket messages, with or
//! without TLS. It reports latencies, errors, and whether the generator itself kept up.
//!
//! A [`Plan`] describes a run, [`run`] executes it, and the [`Outcome`] holds the results: counts and
//! histograms. This crate prints nothing; the command `ringspun load` is built on it.
//!
//! # Sessions
//!
//! With [`Plan::sessions`], what arrives are sessions of several requests, with think times. With [`run_driven`], a
//! program of the caller's makes them, and this crate says when they begin, and counts their steps.
//!
//! # Features
//!
//! Off by default: `http2` for [`Plan::http2`], `websocket` for [`Workload::WebSocket`].
//!
//! # Response time and service time
//!
//! With [`Pace::Open`], requests are due at a given rate, at random or evenly spaced ([`Plan::arrivals`]), whatever the
//! target does. The *response time* of a request starts when it was due, its *service time* when it was sent. If a
//! target stalls for a second, every request that is due in that second waits, as users would: the response times show
//! this, whereas the service times show it only for the requests that were in flight.

mod arrivals;
mod bins;
mod capacity;
mod compare;
mod condition;
mod cookies;
mod driven;
mod elsewhere;
mod error;
mod estimate;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod header;
mod hooks;
mod http;
#[cfg(feature = "http2")]
mod http2;
mod interval;
mod latencies;
mod link;
mod log;
mod merge;
mod messages;
mod name_tally;
mod outcome;
mod payload;
mod plan;
mod quantity;
mod rate;
mod reading;
mod redirect;
mod request_list;
mod run;
mod schedule;
mod search;
mod sessions;
mod share;
#[cfg(test)]
mod simulated;
mod status;
mod step_tally;
mod steps;
mod tally;
mod target;
mod telling;
mod template;
mod tls;
mod transport;
mod wall_clock;
mod watch;
mod websocket;
#[cfg(feature = "websocket")]
mod websocket_client;
mod work;
mod worker;
mod workers;

pub use arrivals::Arrivals;
pub use bins::Bin;
pub use compare::{Comparison, Row, compare};
pub use condition::{Condition, Finding};
pub use cookies::Jar;
pub use driven::{DrivenStep, Driver, DueSession, Ledger, run_driven};
pub use error::RunError;
pub use estimate::Estimate;
pub use framing::{DELIMITER_MAX_BYTES, Framing};
pub use gate::{Gate, Verdict};
pub use header::Header;
pub use hooks::{Hooks, Observer, Progress, Stopper};
pub use http::{BODY_MAX_BYTES, FOLLOW_MAX, HttpRequest};
pub use interval::{Interval, Recorder};
pub use latencies::Latencies;
pub use log::{Log, LogError, Merged, Second, write_log};
pub use outcome::{
    Connections, ErrorKind, Errors, NamedOutcome, Outcome, Requests, SessionCounts, StepOutcome, TargetLoss,
    Traffic,
};
pub use payload::{Payload, Sizes};
pub use plan::{
    CONNECTIONS_MAX, DATAGRAM_PAYLOAD_MAX_BYTES, Length, MESSAGE_MAX_BYTES, Pace, Plan,
    STREAM_PAYLOAD_MAX_BYTES, STREAMS_MAX, WORKERS_MAX, Workload,
};
pub use quantity::{format_bytes, format_count, format_duration, format_per_s, parse_count, parse_duration};
pub use rate::Rate;
pub use request_list::{ListedRequest, RequestList};
pub use run::run;
pub use search::{Found, SearchBounds, SearchResult, TrialPurpose, search};
pub use sessions::{SESSION_MAX, Sessions};
pub use status::{StatusCounts, StatusSet};
pub use steps::{Rates, STEP_MAX, Step, parse_steps};
pub use target::{Detour, HttpTarget, Target};
pub use template::DataRows;
pub use tls::TlsOptions;
pub use wall_clock::parse_time;
pub use watch::{Breach, Watch};
pub use websocket::{WebSocketAnswer, WebSocketRequest};
