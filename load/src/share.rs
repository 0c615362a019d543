//! One thread's share of a run, and the barrier at which all threads start together.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The delay between the last thread's arrival and the start, so that all others can wake up.
const WAKE: Duration = Duration::from_millis(2);

/// One thread's share of the connections and requests of a run: every n-th for n threads. So requests are shared
/// evenly, and due at the same times as with one thread.
pub(crate) struct Share {
    /// The index of the thread.
    worker: usize,
    workers: usize,
    /// Absent if there is a single thread, and after passing the barrier.
    barrier: Cell<Option<Arc<StartBarrier>>>,
}

/// A thread that fails before the barrier must not block the others.
impl Drop for Share {
    fn drop(&mut self) {
        if let Some(barrier) = self.barrier.take() {
            barrier.arrive(&mut barrier.lock(), false, None);
        }
    }
}

impl Share {
    /// The whole run.
    pub(crate) fn whole() -> Self {
        Self { worker: 0, workers: 1, barrier: Cell::new(None) }
    }

    /// The shares of several threads.
    pub(crate) fn split(workers: usize) -> Vec<Self> {
        let barrier = Arc::new(StartBarrier::new(workers));
        let barrier = || Cell::new(Some(barrier.clone()));
        (0..workers).map(|worker| Self { worker, workers, barrier: barrier() }).collect()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.workers == 1
    }

    /// Whether the first connection of the run belongs to this thread.
    pub(crate) fn is_first(&self) -> bool {
        self.worker == 0
    }

    /// This thread's part of a number of connections or requests. The parts add up.
    pub(crate) fn of(&self, amount: u64) -> u64 {
        let (worker, workers) = (self.worker as u64, self.workers as u64);
        amount / workers + u64::from(worker < amount % workers)
    }

    /// The number that a request or connection of this thread has in the whole run.
    #[inline]
    pub(crate) fn global_number(&self, number: u64) -> u64 {
        self.worker as u64 + number * self.workers as u64
    }

    /// How many of the first `count` requests of the whole run are this thread's.
    pub(crate) fn count_below(&self, count: u64) -> u64 {
        count.saturating_sub(self.worker as u64).div_ceil(self.workers as u64)
    }

    /// The index that a connection of this thread has in the whole run.
    #[inline]
    pub(crate) fn global_index(&self, index: usize) -> usize {
        self.worker + index * self.workers
    }

    /// Blocks until all threads have tried to open their connections. Returns the start of the run, not before
    /// `start_at`; `None` if no thread has opened a connection.
    pub(crate) fn meet(&self, has_opened: bool, start_at: Option<SystemTime>) -> Option<Instant> {
        match self.barrier.take() {
            Some(barrier) => barrier.meet(has_opened, start_at),
            None => has_opened.then(|| start(Instant::now(), start_at)),
        }
    }
}

/// The start of a run that is ready at `earliest`. The wall clock is read once, so that setting it later does not
/// move the start.
fn start(earliest: Instant, start_at: Option<SystemTime>) -> Instant {
    let wait = start_at.and_then(|start_at| start_at.duration_since(SystemTime::now()).ok());
    wait.map_or(earliest, |wait| earliest.max(Instant::now() + wait))
}

/// The barrier at the start of a run.
struct StartBarrier {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrived: usize,
    has_opened: bool,
    start_at: Option<SystemTime>,
    start: Option<Instant>,
}

impl StartBarrier {
    fn new(workers: usize) -> Self {
        Self { workers, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A poisoned lock is harmless, as no update can be left incomplete.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, state: &mut State, has_opened: bool, start_at: Option<SystemTime>) {
        state.arrived += 1;
        state.has_opened |= has_opened;
        state.start_at = state.start_at.max(start_at);
        if state.arrived == self.workers {
            state.start = Some(start(Instant::now() + WAKE, state.start_at));
            self.changed.notify_all();
        }
    }

    fn meet(&self, has_opened: bool, start_at: Option<SystemTime>) -> Option<Instant> {
        let mut state = self.lock();
        self.arrive(&mut state, has_opened, start_at);
        let state = self
            .changed
            .wait_while(state, |state| state.start.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.start.filter(|_| state.has_opened)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn shares_add_up_and_each_connection_is_in_one() {
        for (workers, amount) in [(1, 7), (2, 7), (3, 7), (7, 7), (4, 1_000)] {
            let shares = Share::split(workers);
            assert_eq!(shares.iter().map(|share| share.of(amount)).sum::<u64>(), amount);
            let mut indices: Vec<usize> = shares
                .iter()
                .flat_map(|share| (0..share.of(amount) as usize).map(|index| share.global_index(index)))
                .collect();
            indices.sort_unstable();
            assert_eq!(indices, (0..amount as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn all_start_at_once_if_one_has_opened_a_connection() {
        for (opened, starts) in [([true, false, false], true), ([false; 3], false)] {
            let threads: Vec<_> = Share::split(3)
                .into_iter()
                .zip(opened)
                .map(|(share, has_opened)| thread::spawn(move || share.meet(has_opened, None)))
                .collect();
            let found: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(found.iter().all(|start| *start == found[0]), "{found:?}");
            assert_eq!(found[0].is_some(), starts);
        }
    }

    #[test]
    fn nobody_waits_for_one_that_failed() {
        let mut shares = Share::split(2);
        let other = shares.pop().unwrap();
        drop(shares);
        assert!(other.meet(true, None).is_some());
    }
}
