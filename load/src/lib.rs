//! A load generator on Ringspun's fibers: it sends messages to a server over TCP, UDP or Unix sockets and waits
//! for answers, or only sends, only receives or only connects; or it sends requests to a server of HTTP/1.1. It
//! tells how long that took, what went wrong, and whether it could keep up itself.
//!
//! A [`Plan`] says what to do, [`run`] does it, and the [`Outcome`] has what was found out: counts and
//! histograms. Nothing is printed here; `ringspun load` is the command on top.
//!
//! # Two times
//!
//! With [`Pace::Open`], requests are due at a constant rate, whatever the target does. The *response time* of
//! one counts from when it was due, the *service time* from when it was sent. A target that stalls for a
//! second makes all the requests wait that are due in it, as it would make people wait: the response times
//! show that, and the service times show it for the one request that was in flight.

mod bins;
mod companions;
mod compare;
mod error;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod http;
mod interval;
mod latencies;
mod log;
mod merge;
mod messages;
mod outcome;
mod payload;
mod plan;
mod quantity;
mod reading;
mod room;
mod run;
mod schedule;
mod share;
mod step_tally;
mod steps;
mod tally;
mod target;
mod transport;
mod wall_clock;
mod work;
mod worker;
mod workers;

pub use bins::Bin;
pub use companions::{Companions, Observer, Progress, Stopper};
pub use compare::{Comparison, Row, compare};
pub use error::RunError;
pub use framing::{DELIMITER_MAX_BYTES, Framing};
pub use gate::{Gate, Verdict};
pub use http::{BODY_MAX_BYTES, Header, HttpRequest};
pub use interval::{Interval, Recorder};
pub use latencies::Latencies;
pub use log::{Log, LogError, Merged, Second, write_log};
pub use outcome::{Connections, ErrorKind, Errors, Outcome, Requests, StepOutcome, Traffic};
pub use payload::{Payload, Sizes};
pub use plan::{
    CONNECTIONS_MAX, DATAGRAM_PAYLOAD_MAX_BYTES, Length, MESSAGE_MAX_BYTES, Pace, Plan,
    STREAM_PAYLOAD_MAX_BYTES, WORKERS_MAX, Workload,
};
pub use quantity::{parse_count, parse_duration, show_bytes, show_count, show_duration};
pub use run::run;
pub use steps::{RATE_MAX_PER_S, Rates, STEP_MAX, Step, parse_steps};
pub use target::{HttpTarget, Target};
pub use wall_clock::parse_time;
