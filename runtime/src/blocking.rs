//! Blocking calls, such as `getaddrinfo(3)`, on a thread pool.
//!
//! ```text
//!   call_blocking(function) ──► queue ──► a thread of the pool: runs the function
//!                                               │ result ──► the call
//!   waiter.wake() ◄── the loop's turn ◄── inbox ◄── ticket
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::contained::contained;
use crate::process::ProcessMark;
use crate::wake::{RemoteWaker, Wake};

#[cfg(test)]
mod tests;

/// The maximum number of threads of a kind in the process, unless the program sets another. They mostly wait, so the
/// number is unrelated to that of cores. Each thread takes 2 MiB of address space.
const DEFAULT_THREADS_MAX: usize = 32;
/// The same of calls that wait for another process: one that queues may be what another waits for.
const DEFAULT_PEER_THREADS_MAX: usize = 512;
/// How long an idle thread waits for work before it ends, so that successive calls share a thread.
const IDLE: Duration = Duration::from_secs(10);
/// As shown by `top -H`; the kernel keeps 15 bytes.
const THREAD_NAME: &str = "ringspun-block";

/// The next ticket of a call. Tickets of different pools differ, as one loop waits for calls of both.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(0);

/// Which threads of the process make a blocking call. Calls of one kind never queue behind those of another: without
/// that, a slow disk would keep names from being looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingKind {
    /// Files, computations, and whatever else blocks.
    Other,
    /// Lookups of names, by `getaddrinfo(3)`.
    Lookup,
    /// Calls that wait for another process, for as long as that likes, such as an open of a FIFO.
    Peer,
}

/// The pool of one kind that all loops of the process share, made by the first call.
struct SharedPool {
    pool: AtomicPtr<Pool>,
    threads_max: AtomicUsize,
}

impl SharedPool {
    const fn new(threads_max: usize) -> Self {
        Self { pool: AtomicPtr::new(ptr::null_mut()), threads_max: AtomicUsize::new(threads_max) }
    }
}

static OTHERS: SharedPool = SharedPool::new(DEFAULT_THREADS_MAX);
static LOOKUPS: SharedPool = SharedPool::new(DEFAULT_THREADS_MAX);
static PEERS: SharedPool = SharedPool::new(DEFAULT_PEER_THREADS_MAX);

impl BlockingKind {
    fn shared(self) -> &'static SharedPool {
        match self {
            Self::Other => &OTHERS,
            Self::Lookup => &LOOKUPS,
            Self::Peer => &PEERS,
        }
    }

    /// Sets how many threads of the process make calls of this kind at a time; further calls queue. 32 by default, and
    /// 512 for [`Peer`](Self::Peer).
    /// Threads beyond a lower limit make the calls that they have begun, and others while calls are queued, and end
    /// when idle.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    ///
    /// use ringspun_runtime::BlockingKind;
    ///
    /// // As many files at a time as the disk serves well.
    /// BlockingKind::Other.set_threads_max(NonZeroUsize::new(64).unwrap());
    /// assert_eq!(BlockingKind::Other.threads_max(), 64);
    /// assert_eq!(BlockingKind::Lookup.threads_max(), 32);
    /// ```
    pub fn set_threads_max(self, threads_max: NonZeroUsize) {
        self.shared().threads_max.store(threads_max.get(), Ordering::Relaxed);
    }

    /// How many threads of the process make calls of this kind at a time.
    pub fn threads_max(self) -> usize {
        self.shared().threads_max.load(Ordering::Relaxed)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that are started on demand, and end when idle for a while.
///
/// A forked child has none of these threads, and its locks may be held by threads that it does not have: it makes
/// a pool of its own.
struct Pool {
    process: ProcessMark,
    threads_max: &'static AtomicUsize,
    idle: Duration,
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    /// Jobs by ticket. Tickets increase, so the first job is the oldest; any can be withdrawn.
    queue: BTreeMap<u64, Job>,
    threads: usize,
    /// Threads that wait for work, including those that have been notified but not run yet.
    idle_threads: usize,
}

impl Pool {
    fn new(threads_max: &'static AtomicUsize, idle: Duration) -> io::Result<Self> {
        let state = PoolState { queue: BTreeMap::new(), threads: 0, idle_threads: 0 };
        let (process, state) = (ProcessMark::new()?, Mutex::new(state));
        Ok(Self { process, threads_max, idle, state, work: Condvar::new() })
    }

    /// The pool of this process for calls of a kind.
    fn shared(kind: BlockingKind) -> io::Result<&'static Self> {
        let SharedPool { pool: shared, threads_max } = kind.shared();
        let present = shared.load(Ordering::Acquire);
        // SAFETY: the pointer is null or from a leaked box.
        if let Some(pool) = unsafe { present.as_ref() }
            && pool.process.is_current()
        {
            return Ok(pool);
        }
        let made = Box::into_raw(Box::new(Self::new(threads_max, IDLE)?));
        let stored = shared.compare_exchange(present, made, Ordering::AcqRel, Ordering::Acquire);
        let pool = stored.map_or_else(
            |first| {
                // SAFETY: another thread has stored its pool first; this one was never shared.
                drop(unsafe { Box::from_raw(made) });
                first
            },
            |_| made,
        );
        // SAFETY: a leaked box, as above; null is never stored.
        Ok(unsafe { &*pool })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. Fails, and gives it back, if the pool has no thread and none can be started.
    fn submit(&'static self, ticket: u64, job: Job) -> Result<(), (io::Error, Option<Job>)> {
        #[cfg(feature = "simulation")]
        if let Some(simulation) = crate::simulation::current() {
            simulation.call(ticket, job);
            return Ok(());
        }
        let mut state = self.lock();
        state.queue.insert(ticket, job);
        if state.queue.len() <= state.idle_threads {
            self.work.notify_one();
            return Ok(());
        }
        if state.threads < self.threads_max.load(Ordering::Relaxed) {
            // Under the lock, so that `threads` never includes one that could not be started.
            match self.spawn_thread() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let job = state.queue.remove(&ticket);
                    let text = format!("no thread can be made for a blocking call: {error}");
                    return Err((io::Error::new(error.kind(), text), job));
                }
                Err(error) => {
                    let threads = state.threads;
                    tracing::warn!(%error, threads, "no further thread for blocking calls; the call queues");
                }
            }
        }
        Ok(())
    }

    /// Takes a job out of the queue; `None` if it has begun, and in a forked child.
    fn withdraw(&self, ticket: u64) -> Option<Job> {
        if !self.process.is_current() {
            return None;
        }
        #[cfg(feature = "simulation")]
        if let Some(simulation) = crate::simulation::current() {
            return simulation.withdraw_call(ticket);
        }
        self.lock().queue.remove(&ticket)
    }

    fn spawn_thread(&'static self) -> io::Result<()> {
        // Miri has no signals.
        if cfg!(miri) {
            return thread::Builder::new().spawn(move || self.work()).map(drop);
        }
        // A thread inherits the mask of its creator, so that it never runs with signals unblocked.
        let before = program_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = thread::Builder::new().name(THREAD_NAME.to_string()).spawn(move || self.work());
        let restored = before.thread_set_mask();
        debug_assert!(restored.is_ok(), "the mask was valid before: {restored:?}");
        spawned.map(drop)
    }

    /// The main function of each thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.queue.is_empty() {
                state.idle_threads += 1;
                let waited = self.work.wait_timeout_while(state, self.idle, |state| state.queue.is_empty());
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle_threads -= 1;
            }
            let Some((_, job)) = state.queue.pop_first() else { break };
            drop(state);
            // Only the drop of an abandoned result panics here.
            contained(job);
            state = self.lock();
        }
        state.threads -= 1;
    }
}

/// The signals to block in pool threads: all but those that faults raise synchronously, which would kill the process
/// without running a handler if they were blocked.
fn program_signals() -> SigSet {
    let mut signals = SigSet::all();
    let faults =
        [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP, Signal::SIGSYS];
    for fault in faults {
        signals.remove(fault);
    }
    signals
}

/// The blocking calls of one loop.
pub(crate) struct BlockingCalls {
    /// The calls that have ended since the last turn.
    inbox: Arc<Mutex<Vec<Ended>>>,
    /// How many calls the pool may have of this loop at a time, other than lookups of names.
    calls_max: usize,
    /// How many it has.
    submitted: Cell<usize>,
    /// Calls beyond that, by ticket.
    held: RefCell<BTreeMap<u64, (&'static Pool, Job)>>,
    waiters: RefCell<HashMap<u64, Rc<dyn Wake>>>,
    /// Calls that were neither withdrawn nor taken from the inbox; if there are none, a turn takes no lock.
    outstanding: Cell<usize>,
    /// The loop has shut down and wakes no waiter any more, so none is kept.
    closed: Cell<bool>,
    waker: RemoteWaker,
}

#[derive(Clone, Copy)]
struct Ended {
    ticket: u64,
    is_limited: bool,
}

impl BlockingCalls {
    pub(crate) fn new(waker: RemoteWaker, calls_max: usize) -> Rc<Self> {
        Rc::new(Self {
            inbox: Arc::default(),
            calls_max: calls_max.max(1),
            submitted: Cell::new(0),
            held: RefCell::default(),
            waiters: RefCell::default(),
            outstanding: Cell::new(0),
            closed: Cell::new(false),
            waker,
        })
    }

    /// Queues a call of `function`. Fails if its pool has no thread and none can be started.
    pub(crate) fn call<T: Send + 'static>(
        self: &Rc<Self>,
        kind: BlockingKind,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        self.call_in(Pool::shared(kind)?, kind == BlockingKind::Other, function)
    }

    fn call_in<T: Send + 'static>(
        self: &Rc<Self>,
        pool: &'static Pool,
        is_limited: bool,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        let result = Arc::new(Mutex::new(None));
        let (inbox, waker, place) = (self.inbox.clone(), self.waker.clone(), result.clone());
        let ended = Ended { ticket: NEXT_TICKET.fetch_add(1, Ordering::Relaxed), is_limited };
        let job: Job = Box::new(move || {
            // Unwind-safe: only the caller sees state that a panic leaves behind, and it gets the payload.
            let value = catch_unwind(AssertUnwindSafe(function));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            inbox.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
            waker.wake();
            // Drops the result of an abandoned call; last, as it may run arbitrary code.
            drop(place);
        });
        if is_limited && self.submitted.get() >= self.calls_max {
            self.held.borrow_mut().insert(ended.ticket, (pool, job));
        } else {
            pool.submit(ended.ticket, job).map_err(|(error, _)| error)?;
            self.submitted.set(self.submitted.get() + usize::from(is_limited));
        }
        self.outstanding.set(self.outstanding.get() + 1);
        Ok(BlockingCall { pool, calls: self.clone(), ended, result: Some(result) })
    }

    /// Notes that the pool has one limited call less, and submits one that has been held.
    fn submit_held(&self) {
        self.submitted.set(self.submitted.get() - 1);
        let next = self.held.borrow_mut().pop_first();
        if let Some((ticket, (pool, job))) = next {
            self.submitted.set(self.submitted.get() + 1);
            if let Err((error, job)) = pool.submit(ticket, job) {
                // Its caller has been told that it would be made.
                tracing::error!(%error, "a call that was held back blocks the event loop");
                job.and_then(contained);
            }
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Wakes the waiters of the calls that have ended.
    pub(crate) fn wake_ended(&self) {
        #[cfg(feature = "simulation")]
        if let Some(simulation) = crate::simulation::current() {
            simulation.finish_calls(false);
        }
        if self.outstanding.get() == 0 {
            return;
        }
        let ended = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for Ended { ticket, is_limited } in ended {
            self.outstanding.set(self.outstanding.get() - 1);
            if is_limited {
                self.submit_held();
            }
            let waiter = self.waiters.borrow_mut().remove(&ticket);
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }

    /// Drops all waiters without waking them, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        #[cfg(feature = "simulation")]
        if let Some(simulation) = crate::simulation::current() {
            simulation.finish_calls(true);
        }
        let dropped = (self.waiters.take(), self.held.take());
        drop(dropped);
    }
}

/// A pending call of [`EventLoop::call_blocking`](crate::EventLoop::call_blocking) on another thread.
///
/// Dropping it abandons the call: if it has not begun, it never does; if it has, it runs to completion, and its
/// result is dropped on the thread that ran it. No waiter is woken.
pub struct BlockingCall<T> {
    pool: &'static Pool,
    calls: Rc<BlockingCalls>,
    ended: Ended,
    /// Where the thread stores the result; `None` once it has been taken.
    result: Option<Arc<Mutex<Option<thread::Result<T>>>>>,
}

impl<T> BlockingCall<T> {
    /// Returns the result of a call that has ended; an error is the payload of its panic. Otherwise, a turn of the
    /// loop wakes `waiter` once the call ends, in place of any waiter given earlier. Never blocks. After it has
    /// returned the result, and in a forked child, it is always pending.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<thread::Result<T>> {
        let Some(place) = &self.result else { return Poll::Pending };
        // In a forked child, no thread is left to finish the call, or to release its lock.
        if !self.pool.process.is_current() {
            return Poll::Pending;
        }
        let ended = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        match ended {
            Some(value) => {
                self.result = None;
                self.forget_waiter();
                Poll::Ready(value)
            }
            None if self.calls.closed.get() => Poll::Pending,
            None => {
                let replaced = self.calls.waiters.borrow_mut().insert(self.ended.ticket, waiter.clone());
                drop(replaced);
                Poll::Pending
            }
        }
    }

    /// Withdraws a call that has not begun, which it never will then, and whose function is dropped here; false if it
    /// has begun. A call that has been withdrawn is always pending.
    pub fn withdraw(&mut self) -> bool {
        if self.result.is_none() {
            return false;
        }
        let ticket = self.ended.ticket;
        let held = self.calls.held.borrow_mut().remove(&ticket);
        let is_held = held.is_some();
        let job = held.map(|(_, job)| job).or_else(|| self.pool.withdraw(ticket));
        let Some(job) = job else { return false };
        self.calls.outstanding.set(self.calls.outstanding.get() - 1);
        if self.ended.is_limited && !is_held {
            self.calls.submit_held();
        }
        self.forget_waiter();
        self.result = None;
        drop(job);
        true
    }

    /// Whether a thread makes the call, or has made it; false while it waits for one.
    pub fn has_begun(&self) -> bool {
        let ticket = &self.ended.ticket;
        #[cfg(feature = "simulation")]
        if let Some(simulation) = crate::simulation::current() {
            return !simulation.is_call_queued(*ticket);
        }
        let is_held = self.calls.held.borrow().contains_key(ticket);
        // In a forked child, the lock may be held by a thread that is not there.
        !is_held && (!self.pool.process.is_current() || !self.pool.lock().queue.contains_key(ticket))
    }

    fn forget_waiter(&self) {
        let waiter = self.calls.waiters.borrow_mut().remove(&self.ended.ticket);
        // Dropped with no borrow held, as it may run arbitrary code.
        drop(waiter);
    }
}

impl<T> Drop for BlockingCall<T> {
    fn drop(&mut self) {
        if self.result.is_some() && !self.withdraw() {
            self.forget_waiter();
        }
    }
}

impl<T> std::fmt::Debug for BlockingCall<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockingCall").field("ticket", &self.ended.ticket).finish()
    }
}
