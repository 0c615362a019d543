//! Waiting awake for a moment, before the thread goes to sleep.
//!
//! To go to sleep and be woken takes longer than the work for a request: on a virtual machine some 30 µs. Where the
//! next completion comes sooner than that, to look for it again and again takes less time, and less of the processor's,
//! too: with echoes on 4 connections, it was 4.3 times as many per second, for 0.45 of the processor time each. A loop
//! that waits for longer goes to sleep at once, so that an idle one is idle; and so does one that looks in vain, as it
//! does where whoever it waits for needs this core: there, echoes are as many as without. Where many completions come
//! at once, a sleep costs each of them little, and lets more come together: looking took 15 % more of the processor's
//! time for the requests of 64 connections that send 16 at once.

use std::io;
use std::time::{Duration, Instant};

use crate::ready::ReadyQueue;
use crate::sys::Backend;

/// How long to look, in microseconds.
const VARIABLE: &str = "RINGSPUN_SPIN_MAX_US";
/// About as much as a sleep costs, so that to look never costs more than twice what would be best.
const MAX: Duration = Duration::from_micros(50);
/// A look in vain weighs as much as so many that were not.
const VAIN_WEIGHT: u8 = 2;
/// With so much of it, there is no looking for a while.
const VAIN_MAX: u8 = 8;
/// How many waits that while is: looks in vain then take less than 1 % of the time.
const RESTING_WAITS: u16 = 10_000;
/// With more completions at once than this, a sleep is cheap.
const SMALL_BATCH: usize = 16;

/// Whether to look for a while before sleeping, by what came of it until now.
#[derive(Debug)]
pub(crate) struct Spin {
    max: Duration,
    /// In the last sleep, something came before it would have been time to give up.
    was_short: bool,
    /// How many completions have come at once lately.
    batch: usize,
    vain: u8,
    resting_waits: u16,
}

impl Spin {
    /// Without a `max`, the environment says how long, or it is the usual time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for another value of the variable.
    pub(crate) fn new(max: Option<Duration>) -> io::Result<Self> {
        let max = match max {
            Some(max) => max,
            None => max_of_environment()?.unwrap_or(MAX),
        };
        Ok(Self { max, was_short: false, batch: 0, vain: 0, resting_waits: 0 })
    }

    /// As [`Backend::wait`].
    pub(crate) fn wait(
        &mut self,
        backend: &mut Backend,
        timeout: Option<Duration>,
        ready: &mut ReadyQueue,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) || self.rests() || backend.is_simulated() {
            return backend.wait(timeout, ready);
        }
        // What is submitted takes its time, which is no wait.
        if look(backend, ready)? {
            self.found(ready.len());
            return Ok(());
        }
        let start = Instant::now();
        if self.was_short && self.batch <= SMALL_BATCH {
            let max = timeout.map_or(self.max, |timeout| timeout.min(self.max));
            while start.elapsed() < max {
                std::hint::spin_loop();
                if look(backend, ready)? {
                    self.looked_in_time();
                    self.found(ready.len());
                    return Ok(());
                }
            }
            self.looked_in_vain();
        }
        backend.wait(timeout.map(|timeout| timeout.saturating_sub(start.elapsed())), ready)?;
        self.slept(start.elapsed(), has_work(backend, ready));
        Ok(())
    }

    /// Whether this wait is one without looking.
    fn rests(&mut self) -> bool {
        let rests = self.resting_waits > 0;
        self.resting_waits = self.resting_waits.saturating_sub(1);
        rests || self.max.is_zero()
    }

    fn found(&mut self, completions: usize) {
        // Forgotten within some waits: a busy loop has small batches, too.
        self.batch = completions.max(self.batch - self.batch.div_ceil(8));
    }

    fn looked_in_time(&mut self) {
        self.vain = self.vain.saturating_sub(1);
    }

    fn looked_in_vain(&mut self) {
        self.vain += VAIN_WEIGHT;
        if self.vain >= VAIN_MAX {
            self.vain = 0;
            self.resting_waits = RESTING_WAITS;
        }
    }

    fn slept(&mut self, elapsed: Duration, has_work: bool) {
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

fn look(backend: &mut Backend, ready: &mut ReadyQueue) -> io::Result<bool> {
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
    fn who_slept_for_long_or_for_nothing_sleeps_at_once() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        assert!(!spin.was_short, "nothing is known yet");
        spin.slept(MAX, true);
        assert!(spin.was_short);
        spin.slept(MAX + Duration::from_nanos(1), true);
        assert!(!spin.was_short);
        spin.slept(MAX, true);
        spin.slept(MAX, false);
        assert!(!spin.was_short);
    }

    #[test]
    fn looks_in_vain_end_the_looking_for_a_while() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        for _ in 0..VAIN_MAX / VAIN_WEIGHT {
            assert!(!spin.rests());
            spin.looked_in_vain();
        }
        assert!((0..RESTING_WAITS).all(|_| spin.rests()));
        assert!(!spin.rests());
    }

    #[test]
    fn looks_that_pay_go_on() {
        let mut spin = Spin::new(Some(MAX)).unwrap();
        for _ in 0..100_000 {
            assert!(!spin.rests());
            (0..VAIN_WEIGHT).for_each(|_| spin.looked_in_time());
            spin.looked_in_vain();
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
    fn without_time_to_look_there_is_no_looking() {
        let mut spin = Spin::new(Some(Duration::ZERO)).unwrap();
        assert!((0..100_000).all(|_| spin.rests()));
    }
}
