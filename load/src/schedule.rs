//! When the requests of an open loop are due.

use std::time::Duration;

use crate::arrivals::{Arrivals, Position, Spread};
use crate::payload::mix;
use crate::plan::{Length, Pace, Plan};
use crate::rate::Rate;
use crate::steps::Step;

const SECOND_NS: u64 = 1_000_000_000;
const NANOSECOND: Duration = Duration::from_nanos(1);

/// Requests at a constant or linearly changing rate.
#[derive(Clone, Debug)]
struct Stage {
    /// When it begins, relative to the start of the schedule.
    start: Duration,
    /// The number of its first request.
    first: u64,
    course: Course,
    spread: Spread,
}

impl Stage {
    fn due_after(&self, request: u64) -> Duration {
        self.start + self.course.due_after(self.spread.position(request - self.first))
    }

    /// The number of requests of all stages so far that are due before a time in this one.
    fn due_before(&self, elapsed: Duration) -> u64 {
        let elapsed = elapsed.saturating_sub(self.start);
        let is_due = |position| self.course.due_after(position) < elapsed;
        let even = self.course.position_at(elapsed).round_up();
        self.first.saturating_add(self.spread.count(even, is_due))
    }
}

/// The course of a rate: requests in so many seconds, which is one for whole rates per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Constant { requests: u64, seconds: u64 },
    Linear { from: u64, to: u64, seconds: u64, duration_ns: u64 },
}

impl Course {
    /// Requires a checked step, which keeps the sums below within 128 bits.
    fn of(step: Step) -> Self {
        let ([from, to], seconds) = Rate::over_common_seconds([step.from, step.to]);
        match from == to {
            true => Self::Constant { requests: from, seconds },
            false => {
                let duration_ns = u64::try_from(step.duration.as_nanos()).unwrap_or(u64::MAX);
                Self::Linear { from, to, seconds, duration_ns }
            }
        }
    }

    /// When so many requests' worth of time has passed, since the beginning. Each is rounded down to a nanosecond on
    /// its own, so that errors do not accumulate.
    fn due_after(self, Position { whole, part }: Position) -> Duration {
        match self {
            Self::Constant { requests, seconds: 1 } => {
                // Split, so that no product exceeds 64 bits.
                let part_ns = SECOND_NS * u64::from(part) / u64::from(Position::ONE);
                let part_ns = ((whole % requests) * SECOND_NS + part_ns) / requests;
                Duration::new(whole / requests, part_ns as u32)
            }
            Self::Constant { requests, seconds } => {
                let span_ns = u128::from(seconds) * u128::from(SECOND_NS);
                let part_ns = span_ns * u128::from(part) / u128::from(Position::ONE);
                let part_ns = (u128::from(whole % requests) * span_ns + part_ns) / u128::from(requests);
                // Less than the span, which is below 1,000 hours.
                Duration::from_secs((whole / requests).saturating_mul(seconds))
                    .saturating_add(Duration::from_nanos(part_ns as u64))
            }
            Self::Linear { duration_ns, seconds, .. } => {
                // The last nanosecond before which no more requests are due than those before this one.
                let scale = 2 * u128::from(duration_ns) * u128::from(SECOND_NS) * u128::from(seconds);
                let target = scale * u128::from(whole) + scale * u128::from(part) / u128::from(Position::ONE);
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

    /// How many requests' worth of time has passed. A part of one is never rounded down to nothing.
    fn position_at(self, elapsed: Duration) -> Position {
        let (requests, scale) = match self {
            Self::Constant { requests, seconds } => {
                (elapsed.as_nanos() * u128::from(requests), u128::from(SECOND_NS) * u128::from(seconds))
            }
            Self::Linear { duration_ns, seconds, .. } => {
                let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).min(duration_ns);
                let scale = 2 * u128::from(duration_ns) * u128::from(SECOND_NS) * u128::from(seconds);
                (self.area(elapsed_ns), scale)
            }
        };
        let rest = requests % scale;
        let part = (rest * u128::from(Position::ONE) / scale).max(u128::from(rest > 0));
        // The part is below one.
        Position { whole: (requests / scale).try_into().unwrap_or(u64::MAX), part: part as u32 }
    }

    /// The number of requests until a time, which is the area under the rate's line, scaled by 2e9 times the
    /// duration in nanoseconds, and the seconds of the rates, to stay an integer.
    fn area(self, elapsed_ns: u64) -> u128 {
        match self {
            Self::Constant { .. } => 0,
            Self::Linear { from, to, duration_ns, .. } => {
                let (elapsed, duration) = (u128::from(elapsed_ns), u128::from(duration_ns));
                u128::from(from) * elapsed * (2 * duration - elapsed) + u128::from(to) * elapsed * elapsed
            }
        }
    }
}

/// The due times of an open loop, in order; they do not depend on what becomes of earlier requests.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// At least one; the last one never ends.
    stages: Vec<Stage>,
}

impl Schedule {
    /// Rates in sequence, preceded by the first one for `lead`. Goes on at the last rate.
    fn new(lead: Duration, steps: &[Step], (arrivals, seed): (Arrivals, u64)) -> Self {
        let lead_rate = steps.first().map_or(Rate::ZERO, |step| step.from);
        let lead = Step { from: lead_rate, to: lead_rate, duration: lead };
        let (mut start, mut first) = (Duration::ZERO, 0_u64);
        let all = Some(lead).filter(|lead| !lead.duration.is_zero()).into_iter().chain(steps.iter().copied());
        let stages = all.map(|step| {
            let course = Course::of(step);
            let end = course.position_at(step.duration);
            let stage = Stage { start, first, course, spread: Spread::new(arrivals, mix(seed ^ first), end) };
            start += step.duration;
            first = first.saturating_add(end.round_up());
            stage
        });
        Self { stages: stages.collect() }
    }

    /// When a request is due, relative to the start.
    #[inline]
    pub(crate) fn due_after(&self, request: u64) -> Duration {
        self.stage_by(|stage| stage.first <= request).due_after(request)
    }

    /// The number of requests that are due before this time.
    pub(crate) fn due_before(&self, elapsed: Duration) -> u64 {
        self.stage_by(|stage| stage.start < elapsed).due_before(elapsed)
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
        let (all, steps) = match &plan.pace {
            Pace::Closed => return None,
            Pace::Open { rate } => (vec![constant(*rate, plan.length)], [].as_slice()),
            Pace::Steps(steps) => (steps.clone(), steps.as_slice()),
        };
        let schedule = Schedule::new(lead, &all, (plan.arrivals, plan.seed));
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

/// The step of a constant rate, as checked by [`Plan`].
fn constant(rate: Rate, length: Length) -> Step {
    let duration = match length {
        Length::Duration(duration) => duration,
        Length::Count(count) => duration_of(rate, count),
    };
    Step { from: rate, to: rate, duration }
}

/// The time in which so many requests are due at a rate: until just after the last one.
fn duration_of(rate: Rate, count: u64) -> Duration {
    let ([requests], seconds) = Rate::over_common_seconds([rate]);
    let last = Position::whole(count.saturating_sub(1));
    Course::Constant { requests, seconds }.due_after(last).saturating_add(NANOSECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from_per_s: u64, to_per_s: u64, duration: Duration) -> Step {
        Step { from: Rate::per_s(from_per_s), to: Rate::per_s(to_per_s), duration }
    }

    fn of_steps(steps: &[Step]) -> Schedule {
        Schedule::new(Duration::ZERO, steps, (Arrivals::Even, 0))
    }

    fn even(per_s: u64) -> Schedule {
        of_steps(&[constant(Rate::per_s(per_s), Length::Duration(Duration::from_secs(1)))])
    }

    #[test]
    fn requests_are_due_at_even_distances_that_do_not_drift() {
        let schedule = even(4);
        let due_ms: Vec<u128> = (0..6).map(|request| schedule.due_after(request).as_millis()).collect();
        assert_eq!(due_ms, [0, 250, 500, 750, 1000, 1250]);
        // A third of a second is no whole number of nanoseconds.
        let schedule = even(3);
        assert_eq!(schedule.due_after(1), Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due_after(3_000_000_000), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn the_fastest_rate_has_a_request_each_nanosecond() {
        let schedule = even(SECOND_NS);
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
            let schedule = even(rate_per_s);
            assert_eq!(schedule.due_before(Duration::ZERO), 0);
            assert_eq!(schedule.due_before(Duration::from_secs(2)), 2 * rate_per_s);
            for elapsed in [1, 999, 333_333_333, 333_333_334, 1_500_000_001].map(Duration::from_nanos) {
                assert_agrees(&schedule, elapsed);
            }
        }
    }

    fn poisson(steps: &[Step], seed: u64) -> Schedule {
        Schedule::new(Duration::ZERO, steps, (Arrivals::Poisson, seed))
    }

    #[test]
    fn arrivals_at_random_are_in_order_and_as_many_as_even_ones() {
        let seconds = Duration::from_secs(3);
        for steps in [
            vec![step(7, 7, seconds)],
            vec![step(5000, 5000, seconds)],
            vec![step(0, 9000, seconds), step(4096, 4096, seconds), step(9000, 1, seconds)],
        ] {
            let (random, even) = (poisson(&steps, 1), of_steps(&steps));
            let end = seconds * steps.len() as u32;
            let total = even.due_before(end);
            assert_eq!(random.due_before(end), total);
            for edge in 1..steps.len() as u32 {
                assert_eq!(random.due_before(seconds * edge), even.due_before(seconds * edge));
            }
            let due: Vec<_> = (0..total).map(|request| random.due_after(request)).collect();
            assert!(due.is_sorted() && due.iter().all(|due| *due < end));
            // Asked again from the end, and with another seed.
            assert!((0..total).rev().all(|request| random.due_after(request) == due[request as usize]));
            assert_ne!(poisson(&steps, 2).due_after(total / 2), due[total as usize / 2]);
            for part in 1..500 {
                assert_agrees(&random, end * part / 500);
            }
        }
    }

    #[test]
    fn arrivals_at_random_have_the_distances_of_a_poisson_process() {
        let schedule = poisson(&[step(1000, 1000, Duration::from_secs(1000))], 3);
        let mut before = Duration::ZERO;
        let distances: Vec<f64> = (0..1_000_000)
            .map(|request| {
                let due = schedule.due_after(request);
                (due - std::mem::replace(&mut before, due)).as_secs_f64() * 1000.0
            })
            .collect();
        let share_above =
            |limit: f64| distances.iter().filter(|distance| **distance > limit).count() as f64 / 1e6;
        for limit in [0.1, 0.5, 1.0, 2.0, 4.0] {
            let expected = f64::exp(-limit);
            let tolerance = 4.0 * (expected * (1.0 - expected) / 1e6).sqrt() + 1e-4;
            assert!((share_above(limit) - expected).abs() < tolerance, "{limit}: {}", share_above(limit));
        }
        // Neighbours do not know of each other.
        let correlation: f64 = distances.windows(2).map(|pair| (pair[0] - 1.0) * (pair[1] - 1.0)).sum();
        assert!((correlation / 1e6).abs() < 5e-3, "{correlation}");
    }

    /// The mean response time of a server that takes a request at a time, in service times. `service` makes the
    /// next service time, with a mean of 1.
    fn mean_response(
        utilization: f64,
        arrivals: Arrivals,
        seed: u64,
        mut service: impl FnMut() -> f64,
    ) -> f64 {
        const REQUESTS: u64 = 400_000;
        let per_s = 1000;
        let step = step(per_s, per_s, Duration::from_secs(REQUESTS / per_s));
        let schedule = Schedule::new(Duration::ZERO, &[step], (arrivals, seed));
        let (mut free_at, mut sum) = (0.0_f64, 0.0);
        for request in 0..REQUESTS {
            let due = schedule.due_after(request).as_secs_f64() * per_s as f64 / utilization;
            free_at = free_at.max(due) + service();
            sum += free_at - due;
        }
        sum / REQUESTS as f64
    }

    #[test]
    fn queues_are_as_long_as_theory_says() {
        for utilization in [0.3, 0.5, 0.8, 0.9] {
            for seed in 0..5 {
                // M/M/1: 1 / (1 - u). M/D/1: 1 + u / (2 (1 - u)).
                let mut random = seed;
                let exponential = || {
                    random = mix(random);
                    -((random >> 11) as f64 + 1.0).ln() + (2.0_f64).powi(53).ln()
                };
                let response = mean_response(utilization, Arrivals::Poisson, seed, exponential);
                let expected = 1.0 / (1.0 - utilization);
                assert!(
                    (response / expected - 1.0).abs() < 0.08,
                    "M/M/1 {utilization}: {response} {expected}"
                );
                let response = mean_response(utilization, Arrivals::Poisson, seed, || 1.0);
                let expected = 1.0 + utilization / (2.0 * (1.0 - utilization));
                assert!(
                    (response / expected - 1.0).abs() < 0.05,
                    "M/D/1 {utilization}: {response} {expected}"
                );
                let response = mean_response(utilization, Arrivals::Even, seed, || 1.0);
                assert!((response - 1.0).abs() < 1e-6, "no queue at even distances: {response}");
            }
        }
    }

    #[test]
    fn a_rate_that_rises_evenly_has_the_mean_rate_and_distances_that_shrink() {
        // 0 to 8 per second in 2 seconds: 2 t^2 requests, so that request n is due at sqrt(n / 2).
        let schedule = of_steps(&[step(0, 8, Duration::from_secs(2))]);
        assert_eq!(schedule.due_before(Duration::from_secs(2)), 8);
        assert_eq!(schedule.due_after(0), Duration::ZERO);
        assert_eq!(schedule.due_after(2), Duration::from_secs(1));
        // The square root of a half, cut off.
        assert_eq!(schedule.due_after(1), Duration::from_nanos(707_106_781));
        // Falling is rising from the other end.
        let falling = of_steps(&[step(8, 0, Duration::from_secs(2))]);
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
            let schedule = of_steps(&[step(from_per_s, to_per_s, duration)]);
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
    fn rates_below_one_per_second_have_exact_times_and_counts() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        let minute = Duration::from_secs(60);
        for (text, minutes, expected) in [("1/m", 1, 1), ("1/m", 3, 3), ("0.5", 1, 30), ("7/h", 60, 7)] {
            let schedule = of_steps(&[constant(rate(text), Length::Duration(minutes * minute))]);
            assert_eq!(schedule.due_before(minutes * minute), expected, "{text}");
            for part in [1, 7, 999] {
                assert_agrees(&schedule, minutes * minute / part);
            }
        }
        let schedule = of_steps(&[constant(rate("100/m"), Length::Count(1_000_000))]);
        assert_eq!(schedule.due_after(5), Duration::from_secs(3));
        assert_eq!(schedule.due_after(1), Duration::from_millis(600));
        assert_eq!(schedule.due_after(5_000_000_002), Duration::from_millis(3_000_000_001_200));
        // From 0 to 1 per second in a minute, in which 30 requests are due: number n at the root of 120 n seconds.
        let rising = Step { from: Rate::ZERO, to: rate("60/m"), duration: minute };
        assert_eq!(of_steps(&[rising]).due_after(30), minute);
        let rising = Step { from: rate("1/m"), to: rate("59/m"), duration: minute };
        assert_eq!(of_steps(&[rising]).due_before(minute), 30);
        let random = poisson(&[Step { from: rate("20/m"), to: rate("0.1"), duration: 100 * minute }], 5);
        assert_eq!(random.due_before(100 * minute), 1300);
        assert_agrees(&random, 33 * minute);
    }

    #[test]
    fn steps_follow_each_other_after_the_lead() {
        let second = Duration::from_secs(1);
        let steps = vec![step(10, 10, second), step(10, 30, second), step(5, 5, 2 * second)];
        let mut plan = Plan::new("tcp://localhost:1".parse().unwrap());
        plan.warmup = second / 2;
        plan.arrivals = Arrivals::Even;
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
        let schedule = of_steps(&steps);
        let due_ms: Vec<u128> = (0..3).map(|request| schedule.due_after(request).as_millis()).collect();
        assert_eq!(due_ms, [0, 333, 833]);
        assert_eq!(schedule.due_before(Duration::from_millis(1083)), 3);
    }
}
