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
            barrier.arrive(&mut barrier.lock(), None, None);
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
    /// `start_at`, or why it does not start.
    pub(crate) fn meet(&self, arrival: Arrival, start_at: Option<SystemTime>) -> Result<Instant, NoStart> {
        match self.barrier.take() {
            Some(barrier) => barrier.meet(arrival, start_at),
            None if arrival.has_opened => Ok(start(Instant::now(), start_at)),
            None => Err(NoStart::Unreachable),
        }
    }
}

/// What a thread brings to the start of a run.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Whether it has opened a connection.
    pub(crate) has_opened: bool,
    /// The backend of its event loop.
    pub(crate) backend: &'static str,
    /// Why that is not io_uring, if it was tried.
    pub(crate) refusal: Option<String>,
}

/// Why a run does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoStart {
    /// No thread has opened a connection.
    Unreachable,
    /// The threads have different backends, whose results must not be mixed: the numbers, and the reason.
    MixedBackends(String),
}

/// Fails if the threads have different backends.
fn check_backends(arrivals: &[Arrival]) -> Result<(), NoStart> {
    let Some(first) = arrivals.first() else { return Ok(()) };
    let others = arrivals.iter().filter(|arrival| arrival.backend != first.backend).count();
    if others == 0 {
        return Ok(());
    }
    let on_ring = arrivals.iter().filter(|arrival| arrival.refusal.is_none()).count();
    let reason =
        arrivals.iter().find_map(|arrival| arrival.refusal.as_deref()).unwrap_or("no reason is known");
    Err(NoStart::MixedBackends(format!(
        "only {on_ring} of {} workers can use io_uring, and the others would measure something else: {reason}. \
         Lower --workers, raise the limit on locked memory (ulimit -l), or set RINGSPUN_BACKEND=poll for all",
        arrivals.len()
    )))
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
    arrivals: Vec<Arrival>,
    start_at: Option<SystemTime>,
    start: Option<Result<Instant, NoStart>>,
}

impl StartBarrier {
    fn new(workers: usize) -> Self {
        Self { workers, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A poisoned lock is harmless, as no update can be left incomplete.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `arrival` is absent for a thread that failed.
    fn arrive(&self, state: &mut State, arrival: Option<Arrival>, start_at: Option<SystemTime>) {
        state.arrived += 1;
        state.arrivals.extend(arrival);
        state.start_at = state.start_at.max(start_at);
        if state.arrived == self.workers {
            let has_opened = state.arrivals.iter().any(|arrival| arrival.has_opened);
            state.start = Some(check_backends(&state.arrivals).and_then(|()| match has_opened {
                true => Ok(start(Instant::now() + WAKE, state.start_at)),
                false => Err(NoStart::Unreachable),
            }));
            self.changed.notify_all();
        }
    }

    fn meet(&self, arrival: Arrival, start_at: Option<SystemTime>) -> Result<Instant, NoStart> {
        let mut state = self.lock();
        self.arrive(&mut state, Some(arrival), start_at);
        let state = self
            .changed
            .wait_while(state, |state| state.start.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.start.clone().unwrap_or(Err(NoStart::Unreachable))
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

    fn arrival(has_opened: bool, backend: &'static str) -> Arrival {
        let refusal = (backend == "poll").then(|| "no memory".to_string());
        Arrival { has_opened, backend, refusal }
    }

    #[test]
    fn threads_with_different_backends_do_not_start() {
        let threads: Vec<_> = Share::split(3)
            .into_iter()
            .zip(["io_uring", "poll", "io_uring"])
            .map(|(share, backend)| thread::spawn(move || share.meet(arrival(true, backend), None)))
            .collect();
        for thread in threads {
            let Err(NoStart::MixedBackends(text)) = thread.join().unwrap() else { panic!("it started") };
            assert!(text.starts_with("only 2 of 3 workers") && text.contains("no memory. Lower"), "{text}");
        }
    }

    #[test]
    fn all_start_at_once_if_one_has_opened_a_connection() {
        for (opened, starts) in [([true, false, false], true), ([false; 3], false)] {
            let threads: Vec<_> = Share::split(3)
                .into_iter()
                .zip(opened)
                .map(|(share, has_opened)| {
                    thread::spawn(move || share.meet(arrival(has_opened, "io_uring"), None))
                })
                .collect();
            let found: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(found.iter().all(|start| *start == found[0]), "{found:?}");
            assert_eq!(found[0].is_ok(), starts);
        }
    }

    #[test]
    fn nobody_waits_for_one_that_failed() {
        let mut shares = Share::split(2);
        let other = shares.pop().unwrap();
        drop(shares);
        assert!(other.meet(arrival(true, "io_uring"), None).is_ok());
    }
}
