//! Servers without time, for tests: what theory knows about queues can be compared with what is measured.

use crate::arrivals::{Arrivals, Position, Spread};
use crate::payload::mix;

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(!seed))
    }

    /// Exponentially distributed, with a mean of 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        self.0 = mix(self.0);
        -(((self.0 >> 11) + 1) as f64 / (1_u64 << 53) as f64).ln()
    }
}

/// A run against a server that takes one request at a time, for a time of `service`, with Poisson arrivals as of a real
/// run. Tells its response times; all times are in service times.
pub(crate) fn response_times(
    utilization: f64,
    requests: u64,
    seed: u64,
    mut service: impl FnMut() -> f64,
    mut took: impl FnMut(f64),
) {
    let spread = Spread::new(Arrivals::Poisson, seed, Position::whole(requests));
    let mut free_at = 0.0_f64;
    for request in 0..requests {
        let Position { whole, part } = spread.position(request);
        let due = (whole as f64 + f64::from(part) / f64::from(Position::ONE)) / utilization;
        free_at = free_at.max(due) + service();
        took(free_at - due);
    }
}
