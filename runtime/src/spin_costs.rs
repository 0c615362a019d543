//! What the two ways of waiting cost, and the choice between them.

use std::time::Duration;

use crate::configuration::SpinFor;

/// How a loop waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Block,
    /// Busy-poll, and block if nothing has come.
    Spin,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Block => Self::Spin,
            Self::Spin => Self::Block,
        }
    }
}

/// How to wait this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) way: Way,
    /// [`Costs::record`] is to be told what it has cost.
    pub(crate) is_measured: bool,
}

/// Of the waits in the chosen way, one in this many is measured: reading the clock is a system call.
const MEASURE_EVERY: u32 = 16;
/// The other way is tried after this many waits, or as many more as its tries would take more than one part in
/// `TRY_SHARE` of the cost otherwise.
const TRY_EVERY_MIN: u32 = 128;
const TRY_EVERY_MAX: u32 = 1 << 20;
const TRY_SHARE: u64 = 100;
/// A try is this many waits. The first is not measured: completions that would have come together come apart in it.
const TRIES: u32 = 16;
/// For about the same processor time, completions come sooner by polling. For the same time, polling takes more of the
/// processor.
const CPU_PERCENT: u64 = 103;
const LATENCY_PERCENT: u64 = 97;
/// A sample changes the mean by one part in this many.
const SMOOTHING: u64 = 16;
/// A wait that was interrupted, by the hypervisor for instance, counts as at most this many times the mean.
const OUTLIER: u64 = 8;

/// The mean cost of a unit of work, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Mean(Option<u64>);

impl Mean {
    fn add(&mut self, sample_ns: u64) {
        self.0 = Some(match self.0 {
            None => sample_ns,
            Some(mean_ns) => {
                let sample_ns = sample_ns.min(mean_ns.saturating_mul(OUTLIER));
                (mean_ns.saturating_mul(SMOOTHING - 1) + sample_ns).div_ceil(SMOOTHING)
            }
        });
    }
}

/// The costs of both ways, and which of them is chosen or tried.
#[derive(Debug)]
pub(crate) struct Costs {
    chosen: Way,
    /// The waits are in the other way.
    is_trying: bool,
    /// After this many more waits, a try begins or ends.
    left: u32,
    blocking: Mean,
    spinning: Mean,
    /// Spins where that costs up to this many percent of blocking.
    spins_up_to: u64,
}

impl Costs {
    pub(crate) fn new(saves: SpinFor) -> Self {
        Self {
            spins_up_to: match saves {
                SpinFor::Cpu => CPU_PERCENT,
                SpinFor::Latency => LATENCY_PERCENT,
            },
            chosen: Way::Block,
            is_trying: false,
            left: TRY_EVERY_MIN,
            blocking: Mean::default(),
            spinning: Mean::default(),
        }
    }

    /// The mean cost of a unit of work.
    pub(crate) fn of(&self, way: Way) -> Option<Duration> {
        self.mean(way).0.map(Duration::from_nanos)
    }

    /// How to wait next.
    pub(crate) fn choose(&mut self) -> Choice {
        if self.left == 0 {
            self.is_trying = !self.is_trying;
            self.left = if self.is_trying { TRIES } else { self.until_next_try() };
        }
        self.left -= 1;
        match self.is_trying {
            true => Choice { way: self.chosen.other(), is_measured: self.left + 1 < TRIES },
            false => Choice { way: self.chosen, is_measured: self.left.is_multiple_of(MEASURE_EVERY) },
        }
    }

    /// How long to wait in the chosen way, after the other one has been tried.
    fn until_next_try(&self) -> u32 {
        let [chosen_ns, other_ns] =
            [self.chosen, self.chosen.other()].map(|way| self.mean(way).0.unwrap_or(1).max(1));
        let extra_ns = other_ns.saturating_sub(chosen_ns).saturating_mul(u64::from(TRIES));
        let waits = extra_ns.saturating_mul(TRY_SHARE) / chosen_ns;
        u32::try_from(waits).unwrap_or(u32::MAX).clamp(TRY_EVERY_MIN, TRY_EVERY_MAX)
    }

    fn mean(&self, way: Way) -> Mean {
        match way {
            Way::Block => self.blocking,
            Way::Spin => self.spinning,
        }
    }

    /// Notes what a wait has cost, with the turn after it, that has brought so much work.
    pub(crate) fn record(&mut self, way: Way, cost: Duration, work: usize) {
        let cost_ns = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let sample_ns = cost_ns / work.max(1) as u64;
        match way {
            Way::Block => self.blocking.add(sample_ns),
            Way::Spin => self.spinning.add(sample_ns),
        }
        let (Some(blocking_ns), Some(spinning_ns)) = (self.blocking.0, self.spinning.0) else { return };
        let limit_ns = blocking_ns.saturating_mul(self.spins_up_to) / 100;
        let best = if spinning_ns <= limit_ns { Way::Spin } else { Way::Block };
        if best != self.chosen {
            (self.chosen, self.is_trying, self.left) = (best, false, TRY_EVERY_MIN);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MICROSECOND: u64 = 1_000;

    /// A machine, in nanoseconds.
    #[derive(Clone, Copy)]
    struct Machine {
        /// The processor time to block and to be woken, and what caches that have become cold cost afterwards.
        block_cost: u64,
        /// From a completion until the thread runs again.
        wake_latency: u64,
        /// The peer runs only while this thread does not.
        has_one_core: bool,
        /// One wait in this many is interrupted for a millisecond. 0: none.
        interrupted_every: u64,
    }

    const FAST: Machine = Machine {
        block_cost: 2 * MICROSECOND,
        wake_latency: 3 * MICROSECOND,
        has_one_core: false,
        interrupted_every: 0,
    };
    const SLOW: Machine = Machine {
        block_cost: 25 * MICROSECOND,
        wake_latency: 40 * MICROSECOND,
        has_one_core: false,
        interrupted_every: 0,
    };

    #[derive(Clone, Copy, Default, Debug)]
    struct Total {
        processor: u64,
        elapsed: u64,
    }

    impl Machine {
        /// What one wait costs for a completion that comes after `gap`.
        fn wait(&self, way: Way, gap: u64, number: u64) -> Total {
            let longest_poll = 50 * MICROSECOND;
            let interruption = if self.interrupted_every > 0 && number.is_multiple_of(self.interrupted_every)
            {
                1_000_000
            } else {
                0
            };
            let blocked = Total { processor: self.block_cost, elapsed: gap + self.wake_latency };
            let mut total = match way {
                Way::Block => blocked,
                Way::Spin if !self.has_one_core && gap <= longest_poll => {
                    Total { processor: gap, elapsed: gap }
                }
                Way::Spin => {
                    let delay = if self.has_one_core { longest_poll } else { 0 };
                    Total { processor: longest_poll + blocked.processor, elapsed: delay + blocked.elapsed }
                }
            };
            // Neighbours take time, not processor time.
            total.elapsed += interruption;
            total
        }

        fn run(&self, gaps: &dyn Fn(u64) -> u64, saves_latency: bool, fixed: Option<Way>) -> Total {
            const WAITS: u64 = 200_000;
            /// In which nothing is known yet.
            const FIRST: u64 = 1_000;
            let saves = if saves_latency { SpinFor::Latency } else { SpinFor::Cpu };
            let (mut costs, mut total) = (Costs::new(saves), Total::default());
            for number in 0..WAITS {
                let choice = costs.choose();
                let way = fixed.unwrap_or(choice.way);
                let cost = self.wait(way, gaps(number), number);
                if number >= FIRST {
                    total.processor += cost.processor;
                    total.elapsed += cost.elapsed;
                }
                if choice.is_measured && fixed.is_none() {
                    let shown = if saves_latency { cost.elapsed } else { cost.processor };
                    costs.record(way, Duration::from_nanos(shown), 1);
                }
            }
            total
        }

        /// Whether the choice is as good as the better of both ways, all the time, but for the tries.
        fn check(&self, name: &str, gaps: &dyn Fn(u64) -> u64) {
            for saves_latency in [false, true] {
                let of = |total: Total| if saves_latency { total.elapsed } else { total.processor };
                let chosen = of(self.run(gaps, saves_latency, None));
                let best = [Way::Block, Way::Spin]
                    .map(|way| of(self.run(gaps, saves_latency, Some(way))))
                    .into_iter()
                    .min()
                    .unwrap();
                assert!(
                    chosen as f64 <= best as f64 * 1.05,
                    "{name}, saves latency: {saves_latency}: {chosen} ns, and {best} ns at best"
                );
            }
        }
    }

    /// A repeatable sequence of gaps up to `most`, most of them short.
    fn scattered(most: u64) -> impl Fn(u64) -> u64 {
        move |number| {
            let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) % 1_000;
            most * random / 1_000 * random / 1_000
        }
    }

    #[test]
    fn the_choice_is_right_on_fast_and_on_slow_machines() {
        for (name, machine) in [("fast", FAST), ("slow", SLOW)] {
            for gap_us in [1, 2, 3, 5, 10, 20, 30, 50, 100, 1_000, 100_000] {
                machine.check(&format!("{name}, each {gap_us} µs"), &|_| gap_us * MICROSECOND);
                machine.check(&format!("{name}, up to {gap_us} µs"), &scattered(gap_us * MICROSECOND));
            }
        }
    }

    #[test]
    fn a_loop_does_not_poll_while_its_peer_needs_the_core() {
        for machine in [FAST, SLOW] {
            Machine { has_one_core: true, ..machine }.check("one core", &scattered(5 * MICROSECOND));
        }
    }

    #[test]
    fn busy_neighbours_do_not_change_the_choice() {
        for machine in [FAST, SLOW] {
            for interrupted_every in [7, 100, 5_000] {
                let machine = Machine { interrupted_every, ..machine };
                machine.check("neighbours, short", &|_| MICROSECOND);
                machine.check("neighbours, long", &|_| 500 * MICROSECOND);
            }
        }
    }

    #[test]
    fn the_choice_follows_the_load() {
        let phases =
            |number: u64| if (number / 20_000).is_multiple_of(2) { MICROSECOND } else { 300 * MICROSECOND };
        let (chosen, blocking) = (SLOW.run(&phases, false, None), SLOW.run(&phases, false, Some(Way::Block)));
        // Half of the waits are worth polling.
        assert!(chosen.processor as f64 <= blocking.processor as f64 * 0.6, "{chosen:?} of {blocking:?}");
    }
}
