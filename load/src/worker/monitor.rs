//! The monitor of a run: a fiber that periodically does what would cost too much per request.

use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, JoinHandle};

use super::Worker;
use crate::hooks::Observer;
use crate::interval::Cutter;
use crate::telling::Telling;
use crate::work::Work;

/// The period of looking for requests that exceed the timeout; it depends on the timeout.
const MONITOR_PERIOD_MIN: Duration = Duration::from_millis(1);
const MONITOR_PERIOD_MAX: Duration = Duration::from_millis(100);

impl Worker {
    /// Interrupts requests that exceed the timeout, records the CPU time at the beginning and the end of the
    /// measurement, ends intervals, and reports progress. Ends with the runtime.
    pub(super) fn monitor(&self, drivers: &[JoinHandle<()>], observer: Option<Observer>) {
        let clock = self.clock.get();
        let period = (self.plan.timeout / 8).clamp(MONITOR_PERIOD_MIN, MONITOR_PERIOD_MAX);
        let mut telling = observer.map(|observer| Telling::new(observer, clock.start, clock.measure_from));
        let (mut now, mut has_warmed_up) = (clock.start, false);
        loop {
            let cut_at = self.cutter.borrow().as_ref().map(Cutter::next_at);
            let edges = [Some(clock.measure_from), clock.end, cut_at].into_iter().flatten();
            let wake_at = edges.filter(|edge| *edge > now).fold(now + period, Instant::min);
            if fibers::sleep(wake_at.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
            now = Instant::now();
            let mut cpu = self.cpu.get();
            if let Some(cutter) = &mut *self.cutter.borrow_mut() {
                cutter.look(&self.tally, self.ended_at().map_or(now, |ended_at| ended_at.min(now)));
            }
            if !has_warmed_up && now >= clock.measure_from {
                has_warmed_up = true;
                if !self.plan.lead().is_zero() {
                    cpu.begin = Some(self.cpu_time());
                }
            }
            if self.is_over(&clock, now) && cpu.end.is_none() {
                cpu.end = Some(self.cpu_time());
                // Nothing more may ever arrive.
                if matches!(self.work, Work::Receive(_)) {
                    self.interrupt_waiting(drivers, now, Duration::ZERO);
                }
            }
            self.cpu.set(cpu);
            self.interrupt_waiting(drivers, now, self.plan.timeout);
            if let Some(telling) = &mut telling {
                telling.look(&self.tally, now);
            }
        }
    }

    /// Interrupts connections that have been waiting for a response for at least `patience`.
    fn interrupt_waiting(&self, drivers: &[JoinHandle<()>], now: Instant, patience: Duration) {
        for (waiting_since, driver) in self.waiting_since.iter().zip(drivers) {
            if waiting_since.get().is_some_and(|since| now.saturating_duration_since(since) >= patience) {
                // Only once: a second interrupt would reach a later request.
                waiting_since.set(None);
                driver.cancel();
            }
        }
    }
}
