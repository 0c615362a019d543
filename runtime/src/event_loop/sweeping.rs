//! Asking those who hold something that runs ahead of its user whether it is still in use.

use std::rc::Rc;
use std::time::Duration;

use super::EventLoop;
use crate::wake::Sweep;

/// How long a loop is idle before it asks [`Sweep`]s whether they are still in use, and after how many turns a busy one
/// does, which reads no clock for that.
const SWEEP_IDLE: Duration = Duration::from_millis(50);
const SWEEP_TURNS: u32 = 1024;

impl EventLoop {
    /// Has `user` asked in a while, and then again and again, whether it is still in use ([`Sweep::sweep`]).
    pub fn sweep_later(&self, user: Rc<dyn Sweep>) {
        if !self.gate.is_open() {
            return;
        }
        let mut swept = self.swept.borrow_mut();
        if swept.is_empty() {
            self.swept_in.set((self.turns.get(), None));
        }
        swept.push(user);
    }

    /// How long the loop may wait until it should ask; `None` if there is nobody to ask.
    pub(super) fn longest_wait_for_sweep(&self) -> Option<Duration> {
        (!self.swept.borrow().is_empty()).then_some(SWEEP_IDLE)
    }

    /// Asks at the end of a turn, if it is time. `is_idle` says that the turn had waited for nothing.
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
                self.turns.get().wrapping_sub(turn) >= SWEEP_TURNS
            }
        };
        if is_due {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&self) {
        self.swept_in.set((self.turns.get(), None));
        let asked = self.swept.take();
        let still: Vec<_> = asked.into_iter().filter(|user| user.clone().sweep()).collect();
        self.swept.borrow_mut().extend(still);
    }
}
