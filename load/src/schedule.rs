//! When the requests of an open loop are due.

use std::time::Duration;

use crate::plan::{Length, Pace, Plan};
use crate::steps::Step;

const SECOND_NS: u64 = 1_000_000_000;

/// Requests at a constant or linearly changing rate. The first is due at the beginning of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    /// When it begins, relative to the start of the schedule.
    start: Duration,
    /// The number of its first request.
    first: u64,
    rate: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Constant { per_s: u64 },
    Linear { from_per_s: u64, to_per_s: u64, duration_ns: u64 },
}

impl Rate {
    /// Requires a checked step: rates up to 1e9 per second and up to a day keep the sums below within 128 bits.
    fn of(step: Step) -> Self {
        match step.from_per_s == step.to_per_s {
            true => Self::Constant { per_s: step.from_per_s },
            false => Self::Linear {
                from_per_s: step.from_per_s,
                to_per_s: step.to_per_s,
                duration_ns: u64::try_from(step.duration.as_nanos()).unwrap_or(u64::MAX),
            },
        }
    }

    /// When a request is due, relative to the beginning. Each request is rounded down to a nanosecond on its own,
    /// so that errors do not accumulate.
    fn due_after(self, request: u64) -> Duration {
        match self {
            Self::Constant { per_s } => {
                // Split, so that no product exceeds 64 bits.
                let part_ns = (request % per_s) * SECOND_NS / per_s;
                Duration::new(request / per_s, part_ns as u32)
            }
            Self::Linear { duration_ns, .. } => {
                // The last nanosecond before which no more requests are due than those before this one.
                let target = 2 * u128::from(duration_ns) * u128::from(request) * u128::from(SECOND_NS);
                let (mut low_ns, mut high_ns) = (0, duration_ns);
                while low_ns < high_ns {
                    let middle_ns = low_ns + (high_ns - low_ns).div_ceil(2);
                    if self.area(middle_ns) <= target {
                        low_ns = middle_ns;
                    } else {
                        high_ns = middle_ns - 1;
                    }
                }
                Duration::from_nanos(low_ns)
            }
        }
    }

    /// The number of requests that are due before this time.
    fn due_before(self, elapsed: Duration) -> u64 {
        let requests = match self {
            Self::Constant { per_s } => {
                (elapsed.as_nanos() * u128::from(per_s)).div_ceil(u128::from(SECOND_NS))
            }
            Self::Linear { duration_ns, .. } => {
                let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).min(duration_ns);
                self.area(elapsed_ns).div_ceil(2 * u128::from(duration_ns) * u128::from(SECOND_NS))
            }
        };
        requests.try_into().unwrap_or(u64::MAX)
    }

    /// The number of requests until a time, which is the area under the rate's line, scaled by 2e9 times the
    /// duration in nanoseconds to stay an integer.
    fn area(self, elapsed_ns: u64) -> u128 {
        match self {
            Self::Constant { .. } => 0,
            Self::Linear { from_per_s, to_per_s, duration_ns } => {
                let (elapsed, duration) = (u128::from(elapsed_ns), u128::from(duration_ns));
                u128::from(from_per_s) * elapsed * (2 * duration - elapsed)
                    + u128::from(to_per_s) * elapsed * elapsed
            }
        }
    }
}

/// The due times of an open loop, in order; they do not depend on what becomes of earlier requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// At least one; the last one never ends.
    stages: Vec<Stage>,
}

impl Schedule {
    /// A constant rate, from 1 to 1e9 per second, as checked by [`Plan`].
    fn constant(per_s: u64) -> Self {
        Self { stages: vec![Stage { start: Duration::ZERO, first: 0, rate: Rate::Constant { per_s } }] }
    }

    /// Steps in sequence, preceded by the first rate for `lead`.
    fn of_steps(lead: Duration, steps: &[Step]) -> Self {
        let lead_rate = steps.first().map_or(0, |step| step.from_per_s);
        let lead = Step { from_per_s: lead_rate, to_per_s: lead_rate, duration: lead };
        let (mut start, mut first) = (Duration::ZERO, 0_u64);
        let all = Some(lead).filter(|lead| !lead.duration.is_zero()).into_iter().chain(steps.iter().copied());
        let stages = all.map(|step| {
            let stage = Stage { start, first, rate: Rate::of(step) };
            start += step.duration;
            first = first.saturating_add(stage.rate.due_before(step.duration));
            stage
        });
        Self { stages: stages.collect() }
    }

    /// When a request is due, relative to the start.
    #[inline]
    pub(crate) fn due_after(&self, request: u64) -> Duration {
        let stage = self.stage_by(|stage| stage.first <= request);
        stage.start + stage.rate.due_after(request - stage.first)
    }

    /// The number of requests that are due before this time.
    pub(crate) fn due_before(&self, elapsed: Duration) -> u64 {
        let stage = self.stage_by(|stage| stage.start < elapsed);
        stage.first.saturating_add(stage.rate.due_before(elapsed.saturating_sub(stage.start)))
    }

    /// The last stage for which `is_begun` holds; it holds for all stages before it, too.
    #[inline]
    fn stage_by(&self, is_begun: impl Fn(&Stage) -> bool) -> &Stage {
        let count = self.stages.partition_point(is_begun);
        &self.stages[count.saturating_sub(1)]
    }
}

/// The requests of an open loop by number: due times, steps, and which ones are measured.
#[derive(Clone)]
pub(crate) struct Numbers {
    pub(crate) schedule: Schedule,
    pub(crate) first_measured: u64,
    pub(crate) end: u64,
    /// The first request of each step; empty without steps.
    step_starts: Vec<u64>,
}

impl Numbers {
    /// `None` in a closed loop.
    pub(crate) fn new(plan: &Plan) -> Option<Self> {
        let lead = plan.lead();
        let (schedule, steps) = match &plan.pace {
            Pace::Closed => return None,
            Pace::Open { rate_per_s } => (Schedule::constant(*rate_per_s), [].as_slice()),
            Pace::Steps(steps) => (Schedule::of_steps(lead, steps), steps.as_slice()),
        };
        let first_measured = schedule.due_before(lead);
        let end = match plan.length {
            Length::Duration(duration) => schedule.due_before(lead.saturating_add(duration)),
            Length::Count(count) => first_measured.saturating_add(count),
        };
        let mut step_start = lead;
        let step_starts = steps.iter().map(|step| {
            let first = schedule.due_before(step_start);
            step_start += step.duration;
            first
        });
        let step_starts = step_starts.collect();
        Some(Self { schedule, first_measured, end, step_starts })
    }

    /// The number of requests in each step.
    pub(crate) fn planned_by_step(&self) -> Vec<u64> {
        let ends = self.step_starts.iter().copied().skip(1).chain([self.end]);
        self.step_starts.iter().zip(ends).map(|(start, end)| end - start).collect()
    }

    /// The index of the step in which a request is due; `None` before the first, and without steps.
    #[inline]
    pub(crate) fn step_of(&self, request: u64) -> Option<usize> {
        self.step_starts.partition_point(|first| *first <= request).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from_per_s: u64, to_per_s: u64, duration: Duration) -> Step {
        Step { from_per_s, to_per_s, duration }
    }

    #[test]
    fn requests_are_due_at_even_distances_that_do_not_drift() {
        let schedule = Schedule::constant(4);
        let due_ms: Vec<u128> = (0..6).map(|request| schedule.due_after(request).as_millis()).collect();
        assert_eq!(due_ms, [0, 250, 500, 750, 1000, 1250]);
        // A third of a second is no whole number of nanoseconds.
        let schedule = Schedule::constant(3);
        assert_eq!(schedule.due_after(1), Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due_after(3_000_000_000), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn the_fastest_rate_has_a_request_each_nanosecond() {
        let schedule = Schedule::constant(SECOND_NS);
        assert_eq!(schedule.due_after(u64::MAX), Duration::from_nanos(u64::MAX));
    }

    /// The count before a time is the number of the first request that is due at it or later.
    fn assert_agrees(schedule: &Schedule, elapsed: Duration) {
        let count = schedule.due_before(elapsed);
        assert!(count == 0 || schedule.due_after(count - 1) < elapsed, "{schedule:?} {elapsed:?} {count}");
        assert!(schedule.due_after(count) >= elapsed, "{schedule:?} {elapsed:?} {count}");
    }

    #[test]
    fn the_count_before_a_time_agrees_with_the_times() {
        for rate_per_s in [1, 3, 7, 1000, 50_000, 999_999_999, SECOND_NS] {
            let schedule = Schedule::constant(rate_per_s);
            assert_eq!(schedule.due_before(Duration::ZERO), 0);
            assert_eq!(schedule.due_before(Duration::from_secs(2)), 2 * rate_per_s);
            for elapsed in [1, 999, 333_333_333, 333_333_334, 1_500_000_001].map(Duration::from_nanos) {
                assert_agrees(&schedule, elapsed);
            }
        }
    }

    #[test]
    fn a_rate_that_rises_evenly_has_the_mean_rate_and_distances_that_shrink() {
        // 0 to 8 per second in 2 seconds: 2 t^2 requests, so that request n is due at sqrt(n / 2).
        let schedule = Schedule::of_steps(Duration::ZERO, &[step(0, 8, Duration::from_secs(2))]);
        assert_eq!(schedule.due_before(Duration::from_secs(2)), 8);
        assert_eq!(schedule.due_after(0), Duration::ZERO);
        assert_eq!(schedule.due_after(2), Duration::from_secs(1));
        // The square root of a half, cut off.
        assert_eq!(schedule.due_after(1), Duration::from_nanos(707_106_781));
        // Falling is rising from the other end.
        let falling = Schedule::of_steps(Duration::ZERO, &[step(8, 0, Duration::from_secs(2))]);
        assert_eq!(falling.due_after(6), Duration::from_secs(1));
        assert_eq!(falling.due_after(7), Duration::from_nanos(2_000_000_000 - 707_106_782));
    }

    #[test]
    fn counts_and_times_of_slopes_agree() {
        let day = Duration::from_secs(24 * 3600);
        for (from_per_s, to_per_s, duration) in [
            (0, 1, Duration::from_secs(10)),
            (1, 50_000, Duration::from_secs(3)),
            (50_000, 0, Duration::from_millis(1)),
            (7, 3, Duration::from_nanos(12_345_678_901)),
            (0, SECOND_NS, day),
            (SECOND_NS, SECOND_NS - 1, day),
        ] {
            let schedule = Schedule::of_steps(Duration::ZERO, &[step(from_per_s, to_per_s, duration)]);
            // Twice the mean rate by the duration, rounded up.
            let total =
                (u128::from(from_per_s + to_per_s) * duration.as_nanos()).div_ceil(2 * u128::from(SECOND_NS));
            assert_eq!(u128::from(schedule.due_before(duration)), total);
            for part in [1, 2, 3, 1000, 999_983] {
                assert_agrees(&schedule, duration / part);
            }
        }
    }

    #[test]
    fn steps_follow_each_other_after_the_lead() {
        let second = Duration::from_secs(1);
        let steps = vec![step(10, 10, second), step(10, 30, second), step(5, 5, 2 * second)];
        let mut plan = Plan::new("tcp://localhost:1".parse().unwrap());
        plan.warmup = second / 2;
        plan.set_steps(steps);
        let numbers = Numbers::new(&plan).unwrap();
        assert_eq!((numbers.first_measured, numbers.end), (5, 5 + 10 + 20 + 10));
        assert_eq!(numbers.step_starts, [5, 15, 35]);
        for (request, step) in [(4, None), (5, Some(0)), (14, Some(0)), (15, Some(1)), (35, Some(2))] {
            assert_eq!(numbers.step_of(request), step, "{request}");
        }
        for (request, due_ms) in [(0, 0), (5, 500), (14, 1400), (15, 1500), (35, 2500), (36, 2700)] {
            assert_eq!(numbers.schedule.due_after(request), Duration::from_millis(due_ms), "{request}");
        }
    }

    #[test]
    fn steps_whose_parts_are_no_whole_requests_begin_with_one() {
        // A third of a request per step: each step still begins with its own.
        let steps = [step(1, 1, Duration::from_millis(333)), step(2, 2, Duration::from_millis(750))];
        let schedule = Schedule::of_steps(Duration::ZERO, &steps);
        let due_ms: Vec<u128> = (0..3).map(|request| schedule.due_after(request).as_millis()).collect();
        assert_eq!(due_ms, [0, 333, 833]);
        assert_eq!(schedule.due_before(Duration::from_millis(1083)), 3);
    }
}
