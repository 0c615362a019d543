//! Whether a loop turns, as other threads see it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The turns of a loop, for those that watch it from another thread. In a cache line of its own, as it changes often.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Pulse(AtomicU64);

/// Set while the thread may sleep.
const WAITS: u64 = 1;

impl Pulse {
    /// The loop is about to wait for something to do.
    pub(crate) fn note_wait(&self) {
        // Only one thread writes.
        self.0.store(self.0.load(Ordering::Relaxed) | WAITS, Ordering::Relaxed);
    }

    /// The loop has turned.
    pub(crate) fn note_turn(&self) {
        self.0.store((self.0.load(Ordering::Relaxed) | WAITS).wrapping_add(1), Ordering::Relaxed);
    }

    /// A number that changes with each turn; `None` while the loop waits for something to do.
    pub(crate) fn busy_turn(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|turn| turn & WAITS == 0)
    }
}
