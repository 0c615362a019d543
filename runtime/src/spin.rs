//! Busy-polls briefly before blocking.
//!
//! Blocking and waking up takes longer than the work for a request: about 30 µs on a virtual machine. If the next
//! completion arrives sooner than that, polling for it takes less time and less CPU: 4.3 times as many echoes per
//! second on 4 connections, each for 0.45 of the CPU time. A loop whose waits are longer blocks immediately, so that
//! an idle loop uses no CPU; so does one whose polls keep finding nothing, as they do if the peer needs this core: its
//! throughput is the same as without polling. If many completions arrive together, the cost of blocking is shared
//! among them and lets more come together: polling took 15 % more CPU for the requests of 64 connections that send 16
//! at once.

use std::io;
use std::time::{Duration, Instant};

use crate::ready::ReadyQueue;
use crate::sys::Backend;

/// The longest poll, in microseconds.
const VARIABLE: &str = "RINGSPUN_SPIN_MAX_US";
/// About the cost of blocking, so that polling costs at most twice the optimum.
const MAX: Duration = Duration::from_micros(50);
/// How much a miss adds to the penalty; a hit subtracts 1.
const MISS_PENALTY: u8 = 2;
/// The penalty at which polling is suspended.
const PENALTY_MAX: u8 = 8;
/// For how many waits it is suspended: misses then take less than 1 % of the time.
const SUSPENDED_WAITS: u16 = 10_000;
/// With more completions at once than this, blocking is cheap.
const SMALL_BATCH: usize = 16;

/// Decides, from the outcome of earlier waits, whether to poll before blocking.
#[derive(Debug)]
pub(crate) struct Spin {
    max: Duration,
    /// The last time that the loop blocked, a completion arrived within `max`.
    was_short: bool,
    /// How many completions have recently arrived together.
    batch: usize,
    penalty: u8,
    suspended_waits: u16,
}

impl Spin {
    /// Without a `max`, the environment variable decides, or else the default.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the variable is not a number of microseconds.
    pub(crate) fn new(max: Option<Duration>) -> io::Result<Self> {
        let max = match max {
            Some(max) => max,
            None => max_of_environment()?.unwrap_or(MAX),
        };
        Ok(Self { max, was_short: false, batch: 0, penalty: 0, suspended_waits: 0 })
    }

    /// As [`Backend::wait`].
    pub(crate) fn wait(
        &mut self,
        backend: &mut Backend,
        timeout: Option<Duration>,
        ready: &mut ReadyQueue,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) || self.skips_polling() || backend.is_simulated() {
            return backend.wait(timeout, ready);
        }
        // Submits first: the time of submitting is not part of the wait.
        if poll(backend, ready)? {
            self.found(ready.len());
            return Ok(());
        }
        let start = Instant::now();
        if self.was_short && self.batch <= SMALL_BATCH {
            let max = timeout.map_or(self.max, |timeout| timeout.min(self.max));
            while start.elapsed() < max {
                std::hint::spin_loop();
                if poll(backend, ready)? {
                    self.hit();
                    self.found(ready.len());
                    return Ok(());
                }
            }
            self.missed();
        }
        backend.wait(timeout.map(|timeout| timeout.saturating_sub(start.elapsed())), ready)?;
        self.blocked(start.elapsed(), has_work(backend, ready));
        Ok(())
    }

    /// Whether this wait blocks without polling. Counts the wait.
    fn skips_polling(&mut self) -> bool {
        let is_suspended = self.suspended_waits > 0;
        self.suspended_waits = self.suspended_waits.saturating_sub(1);
        is_suspended || self.max.is_zero()
    }

    fn found(&mut self, completions: usize) {
        // Decays within some waits: a busy loop has small batches, too.
        self.batch = completions.max(self.batch - self.batch.div_ceil(8));
    }

    fn hit(&mut self) {
        self.penalty = self.penalty.saturating_sub(1);
    }

    fn missed(&mut self) {
        self.penalty += MISS_PENALTY;
        if self.penalty >= PENALTY_MAX {
            self.penalty = 0;
            self.suspended_waits = SUSPENDED_WAITS;
        }
    }

    fn blocked(&mut self, elapsed: Duration, has_work: bool) {
        self.was_short = has_work && elapsed <= self.max;
    }
}

fn max_of_environment() -> io::Result<Option<Duration>> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
        Some(micros) => Ok(Some(Duration::from_micros(micros.into()))),
        None => {
            let text = format!("{VARIABLE}={}: expected microseconds, such as 50, or 0", value.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

fn poll(backend: &mut Backend, ready: &mut ReadyQueue) -> io::Result<bool> {
    backend.wait(Some(Duration::ZERO), ready)?;
    Ok(has_work(backend, ready))
}

fn has_work(backend: &Backend, ready: &ReadyQueue) -> bool {
    !ready.is_empty() || backend.is_woken()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn after_a_long_or_fruitless_wait_the_loop_blocks_immediately() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        assert!(!spin.was_short, "nothing is known yet");
        spin.blocked(MAX, true);
        assert!(spin.was_short);
        spin.blocked(MAX + Duration::from_nanos(1), true);
        assert!(!spin.was_short);
        spin.blocked(MAX, true);
        spin.blocked(MAX, false);
        assert!(!spin.was_short);
    }

    #[test]
    fn misses_suspend_polling() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        for _ in 0..PENALTY_MAX / MISS_PENALTY {
            assert!(!spin.skips_polling());
            spin.missed();
        }
        assert!((0..SUSPENDED_WAITS).all(|_| spin.skips_polling()));
        assert!(!spin.skips_polling());
    }

    #[test]
    fn as_many_hits_as_the_miss_penalty_keep_polling() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        for _ in 0..100_000 {
            assert!(!spin.skips_polling());
            (0..MISS_PENALTY).for_each(|_| spin.hit());
            spin.missed();
        }
    }

    #[test]
    fn a_large_batch_is_remembered_for_some_waits() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        spin.found(1000);
        (0..8).for_each(|_| spin.found(1));
        assert!(spin.batch > SMALL_BATCH);
        (0..100).for_each(|_| spin.found(1));
        assert_eq!(spin.batch, 1);
    }

    #[test]
    fn a_maximum_of_zero_disables_polling() {
        let mut spin = Spin::new(Some(Duration::ZERO)).unwrap();
        assert!((0..100_000).all(|_| spin.skips_polling()));
    }
}
