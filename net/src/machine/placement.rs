//! Which worker a new connection goes to.
//!
//! A connection lands on a worker, as the kernel chooses, and stays there unless that worker has clearly more than the
//! one that has the least. What a worker has is counted in connections:
//!
//! ```text
//!   usually                              its live connections
//!   if the workers have something to do, and its processor time is not in proportion to its connections:
//!                                        that processor time, divided by that of an average connection
//! ```
//!
//! Where connections come and go quickly, it may be ahead by more: that evens itself out sooner than it pays to hand
//! connections over.
//!
//! All this happens once per connection, under a lock. Requests touch none of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often processor times are read, at most: a system call per worker.
const MEASURED_EVERY: Duration = Duration::from_millis(100);
/// How long it takes until a change of load counts by two thirds.
const MEMORY: Duration = Duration::from_millis(300);
/// The share of a core that workers must use on average for their processor times to count.
const BUSY_SHARE_MIN: f64 = 0.1;
/// The same where other processes leave them little: if it is also so much per new connection that it is not for
/// accepting, which the kernel distributes unevenly.
const STARVED_SHARE_MIN: f64 = 0.015;
const SECONDS_PER_ACCEPT_MIN: f64 = 0.001;
/// By how many connections a worker may be ahead of the least busy one and keep what lands on it; for many
/// connections, this share of the mean.
const AHEAD_MAX: f64 = 2.0;
const AHEAD_SHARE_MAX: f64 = 0.05;
/// It may also be ahead by as many connections as have lately ended on it in such a time.
const TURNOVER_SECONDS: f64 = 0.005;
/// What differs less than that from the number of connections is noise of the measurement.
const NOISE_MAX: f64 = 2.0;
const NOISE_SHARE_MAX: f64 = 0.125;

/// The workers of a server, and what each has to do.
#[derive(Debug)]
pub struct Placement {
    workers: Box<[Place]>,
    loads: Mutex<Loads>,
}

/// What one worker changes often, in cache lines of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Place {
    /// The live connections in the lower half, the term in the upper one.
    live: AtomicU64,
    served: AtomicU64,
    handed_over: AtomicU64,
    gone: AtomicBool,
    clock: Mutex<Option<ThreadClock>>,
}

impl Place {
    fn live(&self) -> usize {
        (self.live.load(Ordering::SeqCst) & ((1 << TERM_SHIFT) - 1)) as usize
    }

    fn processor_time(&self) -> Option<Duration> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.processor_time()
    }
}

/// Which of the threads that have had a worker's place one after another a connection was counted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term(u32);

impl Term {
    /// The term with this number.
    pub fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// How many threads have had the place before, modulo 2^32.
    pub fn number(self) -> u32 {
        self.0
    }
}

const TERM_SHIFT: u32 = 32;

/// Shares of a core that the workers have used recently.
#[derive(Debug)]
struct Loads {
    measured_at: Instant,
    processor_times: Box<[Duration]>,
    loads: Box<[f64]>,
    /// The live connections at that time.
    connections: Box<[f64]>,
    /// The connections that had ended by then, and how many have ended per second.
    ended: Box<[u64]>,
    ends_per_second: Box<[f64]>,
    /// The same of the connections that had come to all.
    begun: u64,
    begins_per_second: f64,
}

impl Placement {
    /// Workers without connections.
    pub fn new(workers: usize) -> Self {
        let loads = Loads {
            measured_at: Instant::now(),
            processor_times: vec![Duration::ZERO; workers].into(),
            loads: vec![0.0; workers].into(),
            connections: vec![0.0; workers].into(),
            ended: vec![0; workers].into(),
            ends_per_second: vec![0.0; workers].into(),
            begun: 0,
            begins_per_second: 0.0,
        };
        Self { workers: (0..workers).map(|_| Place::default()).collect(), loads: Mutex::new(loads) }
    }

    /// Notes the calling thread as that of a worker, which gets connections from now on.
    pub fn enter(&self, worker: usize) {
        let place = &self.workers[worker];
        *place.clock.lock().unwrap_or_else(PoisonError::into_inner) = ThreadClock::of_this_thread();
        place.gone.store(false, Ordering::Relaxed);
    }

    /// Excludes a worker that has failed, and begins its next term: what it had counts no more, even if it never ends.
    pub fn fail(&self, worker: usize) {
        self.leave(worker);
        let next_term = |state: u64| Some((state >> TERM_SHIFT).wrapping_add(1) << TERM_SHIFT);
        let _ = self.workers[worker].live.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next_term);
    }

    /// Excludes a worker, because it has ended.
    pub fn leave(&self, worker: usize) {
        self.workers[worker].gone.store(true, Ordering::Relaxed);
    }

    /// Chooses the worker for a connection that has landed on `here`, and counts it there. Gives the worker and its
    /// term.
    pub fn place(&self, here: usize) -> (usize, Term) {
        self.place_beside(here, &self.live(), &mut self.lock())
    }

    /// As [`place`](Self::place); `None` if there are `connections_max` connections.
    pub fn place_within(&self, here: usize, connections_max: usize) -> Option<(usize, Term)> {
        // One connection is placed at a time, so that no two take the last place.
        let mut loads = self.lock();
        let live = self.live();
        (live.iter().sum::<usize>() < connections_max).then(|| self.place_beside(here, &live, &mut loads))
    }

    fn place_beside(&self, here: usize, live: &[usize], loads: &mut Loads) -> (usize, Term) {
        loads.measure(&self.workers);
        let weights = loads.weights(live);
        let is_open = |worker: &usize| !self.workers[*worker].gone.load(Ordering::Relaxed);
        let chosen = choose(&weights, here, loads.ends_per_second[here], is_open);
        if chosen != here {
            self.workers[here].handed_over.fetch_add(1, Ordering::Relaxed);
        }
        (chosen, self.count(chosen))
    }

    /// Counts a connection as one of this worker, wherever it would be placed.
    pub fn count(&self, worker: usize) -> Term {
        self.workers[worker].served.fetch_add(1, Ordering::Relaxed);
        self.count_again(worker)
    }

    /// Counts a connection that the worker has got in its last term.
    pub fn count_again(&self, worker: usize) -> Term {
        Term((self.workers[worker].live.fetch_add(1, Ordering::SeqCst) >> TERM_SHIFT) as u32)
    }

    /// The worker's term.
    pub fn term(&self, worker: usize) -> Term {
        Term((self.workers[worker].live.load(Ordering::SeqCst) >> TERM_SHIFT) as u32)
    }

    /// Whether the worker has not failed since.
    pub fn is_in_term(&self, worker: usize, term: Term) -> bool {
        self.term(worker) == term
    }

    /// A connection has ended that was counted for a worker in this term.
    pub fn ended(&self, worker: usize, term: Term) {
        let one_less = |state: u64| (state >> TERM_SHIFT == u64::from(term.0)).then(|| state - 1);
        // Otherwise it counts no more.
        let _ = self.workers[worker].live.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
    }

    /// The live connections of each worker.
    pub fn live(&self) -> Vec<usize> {
        self.workers.iter().map(Place::live).collect()
    }

    /// The live and the served connections of each worker, those that it has handed over, and its processor time.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64, u64, Option<Duration>)> {
        self.workers.iter().map(|place| {
            let (served, handed_over) = (&place.served, &place.handed_over);
            (
                place.live(),
                served.load(Ordering::Relaxed),
                handed_over.load(Ordering::Relaxed),
                place.processor_time(),
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loads {
    fn measure(&mut self, workers: &[Place]) {
        let now = Instant::now();
        let passed = now.duration_since(self.measured_at);
        if passed < MEASURED_EVERY {
            return;
        }
        self.measured_at = now;
        let processor_times: Vec<Option<Duration>> = workers.iter().map(Place::processor_time).collect();
        let live: Vec<f64> = workers.iter().map(|place| place.live() as f64).collect();
        self.add(passed, &processor_times, &live);
        let begun = workers.iter().map(|place| place.served.load(Ordering::Relaxed)).sum::<u64>();
        let newly = begun.saturating_sub(std::mem::replace(&mut self.begun, begun));
        self.begins_per_second +=
            share_of_new(passed) * (newly as f64 / passed.as_secs_f64() - self.begins_per_second);
        for (worker, place) in workers.iter().enumerate() {
            let ended = place.served.load(Ordering::Relaxed).saturating_sub(live[worker] as u64);
            let newly = ended.saturating_sub(std::mem::replace(&mut self.ended[worker], ended));
            let rate = &mut self.ends_per_second[worker];
            *rate += share_of_new(passed) * (newly as f64 / passed.as_secs_f64() - *rate);
        }
    }

    /// Adds what was measured after `passed`.
    fn add(&mut self, passed: Duration, processor_times: &[Option<Duration>], live: &[f64]) {
        let share_of_new = share_of_new(passed);
        for (worker, processor_time) in processor_times.iter().enumerate() {
            let processor_time = processor_time.unwrap_or(self.processor_times[worker]);
            let used = processor_time.saturating_sub(self.processor_times[worker]);
            self.processor_times[worker] = processor_time;
            let load = used.as_secs_f64() / passed.as_secs_f64();
            self.loads[worker] += share_of_new * (load - self.loads[worker]);
            self.connections[worker] += share_of_new * (live[worker] - self.connections[worker]);
        }
    }

    /// What each worker has, in connections.
    fn weights(&self, live: &[usize]) -> Vec<f64> {
        let (load, connections) = (self.loads.iter().sum::<f64>(), self.connections.iter().sum::<f64>());
        let share = load / live.len() as f64;
        let is_busy = share >= BUSY_SHARE_MIN
            || (share >= STARVED_SHARE_MIN && load >= SECONDS_PER_ACCEPT_MIN * self.begins_per_second);
        if connections < 1.0 || !is_busy {
            return live.iter().map(|live| *live as f64).collect();
        }
        let of_connection = load / connections;
        let weight = |(worker, live): (usize, &usize)| {
            let live = *live as f64;
            // Those that have come or gone since count as average ones.
            let weight = self.loads[worker] / of_connection + live - self.connections[worker];
            let is_noise = (weight - live).abs() <= (live * NOISE_SHARE_MAX).max(NOISE_MAX);
            if is_noise { live } else { weight.max(0.0) }
        };
        live.iter().enumerate().map(weight).collect()
    }
}

/// How much what was measured in such a time counts.
fn share_of_new(passed: Duration) -> f64 {
    1.0 - (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

/// The worker for a connection that has landed on `here`, where so many end per second. Of those that have the least,
/// the next one after `here`.
fn choose(weights: &[f64], here: usize, ends_per_second: f64, is_open: impl Fn(&usize) -> bool) -> usize {
    let from_here = (0..weights.len()).map(|offset| (here + offset) % weights.len());
    let least = from_here
        .filter(&is_open)
        .reduce(|least, worker| if weights[worker] < weights[least] { worker } else { least });
    let Some(least) = least else { return here };
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let ahead_max = (mean * AHEAD_SHARE_MAX).max(AHEAD_MAX).max(ends_per_second * TURNOVER_SECONDS);
    if is_open(&here) && weights[here] - weights[least] < ahead_max { here } else { least }
}

/// The processor time of a thread, which any thread can read.
#[derive(Clone, Copy, Debug)]
struct ThreadClock(#[cfg(any(target_os = "linux", target_os = "android"))] nix::time::ClockId);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl ThreadClock {
    fn of_this_thread() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: writes the number of a clock, of a thread that exists.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (failed == 0).then(|| Self(nix::time::ClockId::from_raw(clock)))
    }

    /// `None` once the thread has ended.
    fn processor_time(&self) -> Option<Duration> {
        self.0.now().ok().map(Duration::from)
    }
}

/// Elsewhere, only connections count.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl ThreadClock {
    fn of_this_thread() -> Option<Self> {
        None
    }

    fn processor_time(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The connections of each worker after `count` have come, landing as `land` says.
    fn placed(workers: usize, count: usize, land: impl Fn(usize) -> usize) -> Vec<usize> {
        let placement = Placement::new(workers);
        for number in 0..count {
            placement.place(land(number));
        }
        placement.live()
    }

    #[test]
    fn connections_are_even_wherever_they_land() {
        // All on one; half on one; at random.
        let lands: [fn(usize) -> usize; 3] = [|_| 2, |n| (n % 2) * (n % 4), |n| (n * 7919 + n / 5) % 4];
        for land in lands {
            let live = placed(4, 64, land);
            assert_eq!(live.iter().sum::<usize>(), 64);
            assert!(live.iter().all(|live| (15..=17).contains(live)), "{live:?}");
        }
    }

    #[test]
    fn a_short_connection_stays_where_it_lands() {
        let placement = Placement::new(4);
        for number in 0..1000 {
            let here = number % 4;
            let (worker, term) = placement.place(here);
            assert_eq!(worker, here);
            placement.ended(here, term);
        }
        assert!(
            placement
                .counts()
                .all(|(live, served, handed_over, _)| (live, served, handed_over) == (0, 250, 0))
        );
    }

    #[test]
    fn nothing_goes_to_a_worker_that_has_ended() {
        let placement = Placement::new(3);
        placement.leave(1);
        for _ in 0..30 {
            assert_ne!(placement.place(1).0, 1);
        }
        assert_eq!(placement.live(), [15, 0, 15]);
    }

    #[test]
    fn no_more_connections_are_placed_than_there_may_be() {
        let placement = Placement::new(3);
        let placed: Vec<_> = (0..10).filter_map(|here| placement.place_within(here % 3, 4)).collect();
        assert_eq!((placed.len(), placement.live().iter().sum::<usize>()), (4, 4));
        placement.ended(placed[0].0, placed[0].1);
        assert!(placement.place_within(0, 4).is_some() && placement.place_within(0, 4).is_none());
        assert_eq!(placement.counts().map(|(_, served, ..)| served).sum::<u64>(), 5);
    }

    fn loads(loads: &[f64], connections: &[f64]) -> Loads {
        Loads {
            measured_at: Instant::now(),
            processor_times: vec![Duration::ZERO; loads.len()].into(),
            loads: loads.into(),
            connections: connections.into(),
            ended: vec![0; loads.len()].into(),
            ends_per_second: vec![0.0; loads.len()].into(),
            begun: 0,
            begins_per_second: 100.0,
        }
    }

    #[test]
    fn what_ends_soon_is_not_worth_being_handed_over() {
        // Of 64 connections that live for 5 ms each, 6,400 end per second on each of two workers.
        let weights = [45.0, 19.0];
        assert_eq!(choose(&weights, 0, 6400.0, |_| true), 0);
        assert_eq!(choose(&weights, 0, 10.0, |_| true), 1);
    }

    #[test]
    fn ends_are_counted_over_time() {
        let placement = Placement::new(1);
        let terms: Vec<Term> = (0..200).map(|_| placement.count(0)).collect();
        terms[..100].iter().for_each(|term| placement.ended(0, *term));
        let mut loads = loads(&[0.0], &[0.0]);
        loads.measured_at = Instant::now() - Duration::from_secs(10);
        loads.measure(&placement.workers);
        // 100 in 10 s or somewhat more.
        assert!((5.0..=10.0).contains(&loads.ends_per_second[0]), "{:?}", loads.ends_per_second);
        assert_eq!(loads.ended[0], 100);
    }

    #[test]
    fn processor_time_counts_where_it_is_out_of_proportion() {
        let measured = loads(&[0.9, 0.3, 0.3, 0.3], &[16.0; 4]);
        let rounded: Vec<_> = measured.weights(&[16; 4]).iter().map(|weight| weight.round() as u32).collect();
        assert_eq!(rounded, [32, 11, 11, 11]);
        // Of the next ones none stays on the first worker, until the others have as much to do.
        assert_eq!(choose(&measured.weights(&[16; 4]), 0, 0.0, |_| true), 1);
        // Small differences are noise, and so is what hardly takes time.
        assert_eq!(loads(&[0.52, 0.5, 0.5, 0.48], &[16.0; 4]).weights(&[16; 4]), [16.0; 4]);
        let mut little = loads(&[0.09, 0.0, 0.0, 0.0], &[16.0; 4]);
        assert_eq!(little.weights(&[16; 4]), [16.0; 4]);
        // Where it can only be for the connections' own work, it counts.
        little.begins_per_second = 10.0;
        assert_eq!(little.weights(&[16; 4]), [64.0, 0.0, 0.0, 0.0]);
        assert_eq!(loads(&[0.01; 4], &[16.0; 4]).weights(&[16; 4]), [16.0; 4]);
    }

    #[test]
    fn load_is_forgotten_when_it_is_over() {
        let mut measured = loads(&[0.0; 2], &[0.0; 2]);
        let second = Duration::from_secs(1);
        measured.add(second, &[Some(second), Some(Duration::ZERO)], &[8.0, 8.0]);
        assert!(measured.loads[0] > 0.9 && measured.loads[1] == 0.0, "{:?}", measured.loads);
        assert_eq!(choose(&measured.weights(&[8, 8]), 0, 0.0, |_| true), 1);
        measured.add(10 * second, &[Some(second), Some(Duration::ZERO)], &[8.0, 8.0]);
        assert_eq!(choose(&measured.weights(&[8, 8]), 0, 0.0, |_| true), 0);
    }

    #[test]
    fn what_a_failed_worker_had_counts_no_more() {
        let placement = Placement::new(2);
        let before: Vec<Term> = (0..5).map(|_| placement.count(1)).collect();
        placement.fail(1);
        assert_eq!(placement.live(), [0, 0]);
        // Nothing is placed there until it is back.
        assert_eq!(placement.place(1).0, 0);
        placement.enter(1);
        let after = placement.count_again(1);
        before.iter().for_each(|term| placement.ended(1, *term));
        assert_eq!(placement.live(), [1, 1]);
        assert!(placement.is_in_term(1, after) && !placement.is_in_term(1, before[0]));
        placement.ended(1, after);
        assert_eq!(placement.live(), [1, 0]);
        assert_eq!(placement.counts().nth(1).unwrap().1, 5);
    }

    #[test]
    fn a_clock_counts_its_threads_time() {
        let placement = Placement::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                placement.enter(0);
                let before = placement.counts().next().unwrap().3;
                let mut sum = 0_u64;
                for number in 0..200_000_u64 {
                    sum = sum.wrapping_add(std::hint::black_box(number));
                }
                std::hint::black_box(sum);
                if cfg!(target_os = "linux") {
                    assert!(placement.counts().next().unwrap().3 > before);
                }
            });
        });
    }
}
