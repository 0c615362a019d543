//! When the requests of an open loop are due.

use std::time::Duration;

use crate::plan::{Length, Plan};

const SECOND_NS: u64 = 1_000_000_000;

/// Requests at a constant rate: the first is due at once, each other one a fixed time after the one before it,
/// whatever became of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    rate_per_s: u64,
}

impl Schedule {
    /// `rate_per_s` is from 1 to a thousand million, which a [`Plan`](crate::Plan) checks.
    pub(crate) fn new(rate_per_s: u64) -> Self {
        Self { rate_per_s }
    }

    /// How long after the start a request is due. Rounded down to a nanosecond for each request on its own,
    /// so that no error adds up.
    pub(crate) fn due_after(self, request: u64) -> Duration {
        // Taken apart, so that no product exceeds 64 bits.
        let part_ns = (request % self.rate_per_s) * SECOND_NS / self.rate_per_s;
        Duration::new(request / self.rate_per_s, part_ns as u32)
    }

    /// How many requests are due before that much time has passed.
    pub(crate) fn due_before(self, elapsed: Duration) -> u64 {
        let requests = (elapsed.as_nanos() * u128::from(self.rate_per_s)).div_ceil(u128::from(SECOND_NS));
        requests.try_into().unwrap_or(u64::MAX)
    }
}

/// The numbers of requests in an open loop.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) schedule: Schedule,
    pub(crate) first_measured: u64,
    pub(crate) end: u64,
}

impl Numbers {
    pub(crate) fn new(rate_per_s: u64, plan: &Plan) -> Self {
        let schedule = Schedule::new(rate_per_s);
        let first_measured = schedule.due_before(plan.warmup);
        let end = match plan.length {
            Length::Duration(duration) => schedule.due_before(plan.warmup.saturating_add(duration)),
            Length::Count(count) => first_measured.saturating_add(count),
        };
        Self { schedule, first_measured, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances_that_do_not_drift() {
        let schedule = Schedule::new(4);
        let due_ms: Vec<u128> = (0..6).map(|request| schedule.due_after(request).as_millis()).collect();
        assert_eq!(due_ms, [0, 250, 500, 750, 1000, 1250]);
        // A third of a second is no whole number of nanoseconds.
        let schedule = Schedule::new(3);
        assert_eq!(schedule.due_after(1), Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due_after(3_000_000_000), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn the_fastest_rate_has_a_request_each_nanosecond() {
        let schedule = Schedule::new(SECOND_NS);
        assert_eq!(schedule.due_after(u64::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn the_count_before_a_time_agrees_with_the_times() {
        for rate_per_s in [1, 3, 7, 1000, 50_000, 999_999_999, SECOND_NS] {
            let schedule = Schedule::new(rate_per_s);
            assert_eq!(schedule.due_before(Duration::ZERO), 0);
            assert_eq!(schedule.due_before(Duration::from_secs(2)), 2 * rate_per_s);
            for elapsed in [1, 999, 333_333_333, 333_333_334, 1_500_000_001].map(Duration::from_nanos) {
                let count = schedule.due_before(elapsed);
                assert!(schedule.due_after(count - 1) < elapsed, "{rate_per_s} {elapsed:?}");
                assert!(schedule.due_after(count) >= elapsed, "{rate_per_s} {elapsed:?}");
            }
        }
    }
}
