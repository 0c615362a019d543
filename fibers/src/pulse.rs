//! Whether a loop turns, as other threads see it.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The turns of a loop, for those that watch it from another thread. In a cache line of its own, as it changes often.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Pulse(AtomicU64, Thread);

/// The number of the thread that can be asked what it runs; 0 if there is none.
#[derive(Default)]
struct Thread(AtomicI32);

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

    /// The thread of the loop can be asked what it runs.
    #[cfg(target_os = "linux")]
    pub(crate) fn note_thread(&self, number: i32) {
        self.1.0.store(number, Ordering::Release);
    }

    /// The number of the thread that can be asked what it runs.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.1.0.load(Ordering::Acquire)).filter(|number| *number != 0)
    }
}
