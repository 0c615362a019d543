//! The results of a thread's share of a run.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::{REOPEN_PAUSE, Worker};
use crate::outcome::{Outcome, TargetLoss};
use crate::plan::Length;

impl Worker {
    /// The CPU time of this process; with several threads, of this thread.
    pub(super) fn cpu_time(&self) -> Duration {
        let clock = match self.share.is_whole() {
            true => ClockId::CLOCK_PROCESS_CPUTIME_ID,
            false => ClockId::CLOCK_THREAD_CPUTIME_ID,
        };
        // Never fails on supported kernels.
        clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
    }

    /// The results, after all connections are done.
    pub(super) fn outcome(&self, backend: &'static str, ended_at: Instant) -> Outcome {
        let measured = ended_at.saturating_duration_since(self.clock.get().measure_from);
        let cpu = self.cpu.get();
        let cpu_end = cpu.end.unwrap_or_else(|| self.cpu_time());
        let cpu_time = cpu_end.saturating_sub(cpu.begin.unwrap_or_default());
        // One more attempt must have failed, too.
        let target_loss = self.tally.unreachable().and_then(|(since, error)| {
            let before_end = ended_at.saturating_duration_since(since);
            (before_end >= REOPEN_PAUSE).then_some(TargetLoss { before_end, error })
        });
        let start = self.clock.get().start;
        let was_stopped = self.is_stopped();
        let mut requests = self.tally.requests();
        let planned = match (&self.numbers, self.plan.length) {
            _ if was_stopped => None,
            (_, Length::Count(count)) => Some(count),
            (Some(numbers), Length::Duration(_)) => Some(numbers.end - numbers.first_measured),
            (None, Length::Duration(_)) => None,
        };
        let sessions = self.plan.sessions.is_some().then(|| self.visits.outcome(planned));
        requests.planned = planned.filter(|_| sessions.is_none());
        let mut outcome = Outcome {
            backend,
            measured,
            was_stopped,
            target_loss,
            cpu_time,
            busiest_cpu_time: cpu_time,
            started_late: self.started_late.get(),
            requests,
            sessions,
            named: self.names.outcome(),
            steps: self.steps.outcome(ended_at.saturating_duration_since(start), was_stopped),
            ..self.tally.outcome()
        };
        if let Some(elsewhere) = self.work.elsewhere() {
            elsewhere.add_to(&mut outcome);
        }
        outcome
    }
}
