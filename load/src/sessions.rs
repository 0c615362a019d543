//! Sessions: what a user requests, one request after the other, with pauses.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::payload::mix;

/// The most requests of a session.
pub const SESSION_MAX: u32 = 1_000_000;
/// Tell the random numbers for a session from those for other purposes.
const LENGTH_SALT: u64 = 0x7365_7373_696f_6e73;
const THINK_SALT: u64 = 0x7468_696e_6b69_6e67;

/// Sessions in place of single requests: [`Plan::sessions`](crate::Plan::sessions).
///
/// A session makes its requests one after the other on one connection, and pauses between an answer and its next
/// request. What is drawn depends on [`Plan::seed`](crate::Plan::seed) and on the number of the session in the run, so
/// that the same sessions come again with the same seed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Pace, Plan, Rate, Sessions};
///
/// let mut plan = Plan::new("http://localhost/".parse().unwrap());
/// plan.connections = 100;
/// // Ten users a second, each with 1 to 20 requests, half a second to two seconds apart.
/// plan.pace = Pace::Open { rate: Rate::per_s(10) };
/// let mut sessions = Sessions::of(1..=20);
/// sessions.think = Duration::from_millis(500)..=Duration::from_secs(2);
/// plan.sessions = Some(sessions);
/// assert_eq!(plan.check(), Ok(()));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// The number of requests of a session, uniformly distributed; up to [`SESSION_MAX`].
    pub requests: RangeInclusive<u32>,
    /// The think time between an answer, or a failure, and the session's next request, uniformly distributed; zero by
    /// default. It is part of no latency.
    pub think: RangeInclusive<Duration>,
}

impl Sessions {
    /// Sessions of so many requests, without pauses.
    pub fn of(requests: RangeInclusive<u32>) -> Self {
        Self { requests, think: Duration::ZERO..=Duration::ZERO }
    }

    pub(crate) fn check(&self, think_max: Duration) -> Result<(), String> {
        let (min, max) = (self.requests.start(), self.requests.end());
        if *min == 0 || min > max || *max > SESSION_MAX {
            return Err(format!(
                "sessions of {min} to {max} requests: expected 1 to {SESSION_MAX}, the smaller number first"
            ));
        }
        let (min, max) = (self.think.start(), self.think.end());
        if min > max || *max > think_max {
            let days = think_max.as_secs() / (24 * 60 * 60);
            return Err(format!(
                "think times of {min:?} to {max:?}: expected the shorter one first, and {days} days or less"
            ));
        }
        Ok(())
    }

    /// How many requests the session with this number makes.
    pub(crate) fn length(&self, seed: u64, session: u64) -> u32 {
        let (min, max) = (u64::from(*self.requests.start()), u64::from(*self.requests.end()));
        // Not above the maximum.
        uniform(min, max, mix(seed ^ mix(session ^ LENGTH_SALT))) as u32
    }

    /// The pause of a session after so many requests.
    pub(crate) fn think(&self, seed: u64, session: u64, made: u32) -> Duration {
        let nanoseconds = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (min_ns, max_ns) = (nanoseconds(self.think.start()), nanoseconds(self.think.end()));
        let random = mix(seed ^ mix(session ^ THINK_SALT).wrapping_add(u64::from(made)));
        Duration::from_nanos(uniform(min_ns, max_ns, random))
    }
}

/// A uniformly distributed number, of 64 random bits.
fn uniform(min: u64, max: u64, random: u64) -> u64 {
    let span = u128::from(max - min) + 1;
    // Below the span.
    min + ((u128::from(random) * span) >> u64::BITS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_pauses_are_uniform_and_repeat_with_the_seed() {
        let mut sessions = Sessions::of(2..=5);
        sessions.think = Duration::from_millis(100)..=Duration::from_millis(300);
        let mut counts = [0_u32; 4];
        let (mut total, mut below) = (Duration::ZERO, 0);
        for session in 0..40_000 {
            let length = sessions.length(7, session);
            counts[length as usize - 2] += 1;
            let think = sessions.think(7, session, 1);
            assert!(sessions.think.contains(&think), "{think:?}");
            total += think;
            below += u32::from(think < Duration::from_millis(150));
            assert_eq!((length, think), (sessions.length(7, session), sessions.think(7, session, 1)));
        }
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 400), "{counts:?}");
        let mean_us = (total / 40_000).as_micros();
        assert!(mean_us.abs_diff(200_000) < 2_000 && below.abs_diff(10_000) < 400, "{mean_us} {below}");
        let differ = |other: &dyn Fn(u64) -> Duration| {
            (0..100).filter(|session| other(*session) != sessions.think(7, *session, 1)).count() > 90
        };
        assert!(differ(&|session| sessions.think(8, session, 1)));
        assert!(differ(&|session| sessions.think(7, session, 2)));
    }

    #[test]
    fn single_values_are_not_drawn() {
        let mut sessions = Sessions::of(4..=4);
        sessions.think = Duration::from_secs(1)..=Duration::from_secs(1);
        assert_eq!((sessions.length(1, 2), sessions.think(1, 2, 3)), (4, Duration::from_secs(1)));
        assert_eq!(uniform(0, u64::MAX, u64::MAX), u64::MAX);
    }
}
