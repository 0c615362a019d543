//! What a run is to do.

use std::time::Duration;

use crate::http::HttpRequest;
use crate::target::Target;

/// How long one message may be over a stream, in bytes. The answer has to fit into the buffers between the two
/// ends while a request is still being written, or both would wait for each other.
pub const STREAM_PAYLOAD_MAX_BYTES: usize = 65_536;
/// How long one datagram may be over UDP, in bytes: 64 KiB with the headers of IPv4 and UDP.
pub const DATAGRAM_PAYLOAD_MAX_BYTES: usize = 65_507;
/// The highest rate of an open loop, in requests per second.
pub const RATE_MAX_PER_S: u64 = 1_000_000_000;
/// The most connections of one run.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// No duration of a plan is longer: a thousand days.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 24 * 3600);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// No request is sent once this much time has passed after the warm-up. Those in flight are waited for.
    Duration(Duration),
    /// That many requests are sent after the warm-up.
    Count(u64),
}

/// What every connection does, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Sends a message and waits until the target has sent it back. For TCP, UDP and Unix sockets.
    Echo {
        /// How long each message is.
        payload_bytes: usize,
    },
    /// Sends a request and waits for its answer. For HTTP.
    Http(HttpRequest),
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
/// plan.workload = Workload::Echo { payload_bytes: 0 };
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
    /// When requests are sent; closed at first.
    pub pace: Pace,
    /// When the run ends; after 10 seconds at first.
    pub length: Length,
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
            Target::Tcp(_) | Target::Udp(_) | Target::Unix(_) => Workload::Echo { payload_bytes: 64 },
        };
        Self {
            target,
            connections: 1,
            workload,
            pace: Pace::Closed,
            length: Length::Duration(Duration::from_secs(10)),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(5),
        }
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
        if let Pace::Open { rate_per_s } = self.pace
            && !(1..=RATE_MAX_PER_S).contains(&rate_per_s)
        {
            return Err(format!("a rate of {rate_per_s} requests/s: expected 1 to {RATE_MAX_PER_S}"));
        }
        if self.timeout.is_zero() {
            return Err("a timeout of 0: expected more".to_string());
        }
        let length = match self.length {
            Length::Count(0) => return Err("a count of 0 requests: expected 1 or more".to_string()),
            Length::Count(_) => Duration::ZERO,
            Length::Duration(Duration::ZERO) => return Err("a duration of 0: expected more".to_string()),
            Length::Duration(duration) => duration,
        };
        for (name, duration) in [("timeout", self.timeout), ("warm-up", self.warmup), ("duration", length)] {
            if duration > DURATION_MAX {
                return Err(format!("a {name} of {} s: expected 1000 days or less", duration.as_secs()));
            }
        }
        Ok(())
    }

    fn check_workload(&self) -> Result<(), String> {
        let (payload_bytes, payload_max_bytes) = match (&self.workload, &self.target) {
            (Workload::Http(request), Target::Http(_)) => return request.check(),
            (Workload::Http(_), target) => {
                return Err(format!("requests of HTTP to {target}: expected http://HOST:PORT/PATH"));
            }
            (Workload::Echo { .. }, Target::Http(_)) => {
                return Err(format!("echoes of {}: expected a request of HTTP", self.target));
            }
            (Workload::Echo { payload_bytes }, Target::Udp(_)) => {
                (*payload_bytes, DATAGRAM_PAYLOAD_MAX_BYTES)
            }
            (Workload::Echo { payload_bytes }, Target::Tcp(_) | Target::Unix(_)) => {
                (*payload_bytes, STREAM_PAYLOAD_MAX_BYTES)
            }
        };
        match (1..=payload_max_bytes).contains(&payload_bytes) {
            true => Ok(()),
            false => Err(format!("a payload of {payload_bytes} bytes: expected 1 to {payload_max_bytes}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_out_of_bounds_is_named_with_what_was_expected() {
        let plan = |target: &str| Plan::new(target.parse().unwrap());
        let echo = |payload_bytes| Workload::Echo { payload_bytes };
        let good = plan("tcp://localhost:1");
        let http = plan("http://localhost/");
        assert_eq!(http.check(), Ok(()));
        assert_eq!(good.check(), Ok(()));
        let bad = [
            (Plan { workload: echo(65_537), ..good.clone() }, "65537 bytes: expected 1 to 65536"),
            (Plan { workload: echo(65_508), ..plan("udp://localhost:1") }, "expected 1 to 65507"),
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
