//! Sweeps: periodically lets holders release resources that are no longer in use.

use std::rc::Rc;
use std::time::Duration;

use super::EventLoop;
use crate::wake::Sweep;

/// How long a loop is idle before it sweeps, and after how many turns at least a busy loop does, without reading the
/// clock.
const SWEEP_IDLE: Duration = Duration::from_millis(50);
const SWEEP_TURNS: u32 = 1024;

impl EventLoop {
    /// Calls [`Sweep::sweep`] of `holder` periodically, until it returns false. Does nothing on a loop that is shutting
    /// down.
    pub fn sweep_later(&self, holder: Rc<dyn Sweep>) {
        if !self.gate.is_open() {
            return;
        }
        let mut swept = self.swept.borrow_mut();
        if swept.is_empty() {
            self.swept_in.set((self.turns.get(), None));
        }
        swept.push(holder);
    }

    /// How long the loop may block before it should sweep; `None` if there is nothing to sweep.
    pub(super) fn longest_wait_for_sweep(&self) -> Option<Duration> {
        (!self.swept.borrow().is_empty()).then_some(SWEEP_IDLE)
    }

    /// Sweeps at the end of a turn if it is due. `is_idle`: the turn blocked and got no completion.
    pub(super) fn sweep_if_due(&self, is_idle: bool) {
        let (turn, idle_since) = self.swept_in.get();
        let is_due = match (is_idle, idle_since) {
            (true, Some(since)) => self.now().saturating_duration_since(since) >= SWEEP_IDLE,
            (true, None) => {
                self.swept_in.set((turn, Some(self.now())));
                false
            }
            (false, _) => {
                self.swept_in.set((turn, None));
                let turns = self.turns.get().wrapping_sub(turn);
                // With many holders, a sweep costs each turn one visit at most.
                turns >= SWEEP_TURNS && turns as usize >= self.swept.borrow().len()
            }
        };
        if is_due {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&self) {
        self.swept_in.set((self.turns.get(), None));
        let holders = self.swept.take();
        let remaining: Vec<_> = holders.into_iter().filter(|holder| holder.clone().sweep()).collect();
        self.swept.borrow_mut().extend(remaining);
    }
}
