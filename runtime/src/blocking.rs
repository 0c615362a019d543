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

use crate::process::ProcessMark;
use crate::wake::{RemoteWaker, Wake};

/// The maximum number of threads of a kind in the process, unless the program sets another. They mostly wait, so the
/// number is unrelated to that of cores. Each thread takes 2 MiB of address space.
const DEFAULT_THREADS_MAX: usize = 32;
/// How long an idle thread waits for work before it ends, so that successive calls share a thread.
const IDLE: Duration = Duration::from_secs(10);
/// As shown by `top -H`; the kernel keeps 15 bytes.
const THREAD_NAME: &str = "ringspun-block";

/// The next ticket of a call. Tickets of different pools differ, as one loop waits for calls of both.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(0);

/// Which threads of the process make a blocking call. Calls of one kind never queue behind those of the other: without
/// that, a slow disk would keep names from being looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingKind {
    /// Files, computations, and whatever else blocks.
    Other,
    /// Lookups of names, by `getaddrinfo(3)`.
    Lookup,
}

/// The pool of one kind that all loops of the process share, made by the first call.
struct SharedPool {
    pool: AtomicPtr<Pool>,
    threads_max: AtomicUsize,
}

impl SharedPool {
    const fn new() -> Self {
        Self { pool: AtomicPtr::new(ptr::null_mut()), threads_max: AtomicUsize::new(DEFAULT_THREADS_MAX) }
    }
}

static OTHERS: SharedPool = SharedPool::new();
static LOOKUPS: SharedPool = SharedPool::new();

impl BlockingKind {
    fn shared(self) -> &'static SharedPool {
        match self {
            Self::Other => &OTHERS,
            Self::Lookup => &LOOKUPS,
        }
    }

    /// Sets how many threads of the process make calls of this kind at a time; further calls queue. 32 by default.
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

    /// Queues the job that `make_job` makes for its ticket. Fails if the pool has no thread and none can be started.
    fn submit(&'static self, make_job: impl FnOnce(u64) -> Job) -> io::Result<u64> {
        let mut state = self.lock();
        // Under the lock, so that the tickets in the queue are those of the calls in their order.
        let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        state.queue.insert(ticket, make_job(ticket));
        if state.queue.len() <= state.idle_threads {
            self.work.notify_one();
            return Ok(ticket);
        }
        if state.threads < self.threads_max.load(Ordering::Relaxed) {
            // Under the lock, so that `threads` never includes one that could not be started.
            match self.spawn_thread() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let job = state.queue.remove(&ticket);
                    drop(state);
                    drop(job);
                    let text = format!("no thread can be made for a blocking call: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
                Err(error) => {
                    let threads = state.threads;
                    tracing::warn!(%error, threads, "no further thread for blocking calls; the call queues");
                }
            }
        }
        Ok(ticket)
    }

    /// Takes a job out of the queue; `None` if it has begun, and in a forked child.
    fn withdraw(&self, ticket: u64) -> Option<Job> {
        if !self.process.is_current() {
            return None;
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
            if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                // Only the drop of an abandoned result panics here. If dropping the payload panics too, the thread
                // would end: leak it.
                std::mem::forget(payload);
            }
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
    /// Tickets of the calls that have ended since the last turn.
    inbox: Arc<Mutex<Vec<u64>>>,
    waiters: RefCell<HashMap<u64, Rc<dyn Wake>>>,
    /// Calls that were neither withdrawn nor taken from the inbox; if there are none, a turn takes no lock.
    outstanding: Cell<usize>,
    /// The loop has shut down and wakes no waiter any more, so none is kept.
    closed: Cell<bool>,
    waker: RemoteWaker,
}

impl BlockingCalls {
    pub(crate) fn new(waker: RemoteWaker) -> Rc<Self> {
        Rc::new(Self {
            inbox: Arc::default(),
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
        self.call_in(Pool::shared(kind)?, function)
    }

    fn call_in<T: Send + 'static>(
        self: &Rc<Self>,
        pool: &'static Pool,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        let result = Arc::new(Mutex::new(None));
        let (inbox, waker, place) = (self.inbox.clone(), self.waker.clone(), result.clone());
        let ticket = pool.submit(|ticket| {
            Box::new(move || {
                // Unwind-safe: only the caller sees state that a panic leaves behind, and it gets the payload.
                let value = catch_unwind(AssertUnwindSafe(function));
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                inbox.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
                waker.wake();
                // Drops the result of an abandoned call; last, as it may run arbitrary code.
                drop(place);
            })
        })?;
        self.outstanding.set(self.outstanding.get() + 1);
        Ok(BlockingCall { pool, calls: self.clone(), ticket, result: Some(result) })
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Wakes the waiters of the calls that have ended.
    pub(crate) fn wake_ended(&self) {
        if self.outstanding.get() == 0 {
            return;
        }
        let ended = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for ticket in ended {
            self.outstanding.set(self.outstanding.get() - 1);
            let waiter = self.waiters.borrow_mut().remove(&ticket);
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }

    /// Drops all waiters without waking them, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let waiters = self.waiters.take();
        drop(waiters);
    }
}

/// A pending call of [`EventLoop::call_blocking`](crate::EventLoop::call_blocking) on another thread.
///
/// Dropping it abandons the call: if it has not begun, it never does; if it has, it runs to completion, and its
/// result is dropped on the thread that ran it. No waiter is woken.
pub struct BlockingCall<T> {
    pool: &'static Pool,
    calls: Rc<BlockingCalls>,
    ticket: u64,
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
                let replaced = self.calls.waiters.borrow_mut().insert(self.ticket, waiter.clone());
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
        let Some(job) = self.pool.withdraw(self.ticket) else { return false };
        self.calls.outstanding.set(self.calls.outstanding.get() - 1);
        self.forget_waiter();
        self.result = None;
        drop(job);
        true
    }

    fn forget_waiter(&self) {
        let waiter = self.calls.waiters.borrow_mut().remove(&self.ticket);
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
        f.debug_struct("BlockingCall").field("ticket", &self.ticket).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Rc<Self>) {}
    }

    fn calls_and_pool(threads_max: usize, idle: Duration) -> (Rc<BlockingCalls>, &'static Pool) {
        /// Keeps the pools reachable, or Miri would report them as leaks.
        static POOLS: Mutex<Vec<&Pool>> = Mutex::new(Vec::new());
        let calls = BlockingCalls::new(RemoteWaker::new().unwrap());
        let pool = Box::leak(Box::new(Pool::new(Box::leak(Box::new(threads_max.into())), idle).unwrap()));
        POOLS.lock().unwrap().push(pool);
        (calls, pool)
    }

    fn finish<T>(mut call: BlockingCall<T>) -> thread::Result<T> {
        let nobody: Rc<dyn Wake> = Rc::new(Nobody);
        loop {
            if let Poll::Ready(value) = call.poll(&nobody) {
                return value;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_until(mut reached: impl FnMut() -> bool) {
        while !reached() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_thread_ends_when_idle_and_the_next_call_makes_another() {
        let (calls, pool) = calls_and_pool(4, Duration::from_millis(1));
        for round in 0..20 {
            assert_eq!(finish(calls.call_in(pool, move || round).unwrap()).unwrap(), round);
            wait_until(|| pool.lock().threads == 0);
        }
        assert_eq!(calls.outstanding(), 20);
        calls.wake_ended();
        assert_eq!(calls.outstanding(), 0);
    }

    #[test]
    fn calls_queue_for_a_full_pool_and_begin_in_order() {
        let (calls, pool) = calls_and_pool(1, IDLE);
        let (release, blocked) = mpsc::channel::<()>();
        let (note, begun) = mpsc::channel();
        let first = calls.call_in(pool, move || blocked.recv().unwrap()).unwrap();
        let others: Vec<_> = (0..100)
            .map(|n| {
                let note = note.clone();
                calls.call_in(pool, move || note.send(n).unwrap()).unwrap()
            })
            .collect();
        assert_eq!(pool.lock().threads, 1);
        release.send(()).unwrap();
        finish(first).unwrap();
        others.into_iter().for_each(|call| finish(call).unwrap());
        assert!(begun.try_iter().eq(0..100));
    }

    #[test]
    fn an_idle_thread_is_used_again_and_a_busy_one_is_not_waited_for() {
        let (calls, pool) = calls_and_pool(8, IDLE);
        for _ in 0..10 {
            finish(calls.call_in(pool, || ()).unwrap()).unwrap();
            wait_until(|| pool.lock().idle_threads == 1);
        }
        assert_eq!(pool.lock().threads, 1);
        // Each call waits for all the others, so they end only if they run on as many threads.
        let barrier = Arc::new(std::sync::Barrier::new(8));
        let meeting: Vec<_> = (0..8)
            .map(|_| {
                let barrier = barrier.clone();
                calls.call_in(pool, move || barrier.wait()).unwrap()
            })
            .collect();
        for call in meeting {
            finish(call).unwrap();
        }
        assert_eq!(pool.lock().threads, 8);
    }

    #[test]
    fn an_abandoned_call_leaves_the_queue_at_once() {
        let (calls, pool) = calls_and_pool(1, IDLE);
        let ((begin, begun), (release, blocked)) = (mpsc::channel(), mpsc::channel::<()>());
        let first = calls.call_in(pool, move || {
            begin.send(()).unwrap();
            blocked.recv().unwrap();
        });
        begun.recv().unwrap();
        let captured = Arc::new(());
        let held = captured.clone();
        let second = calls.call_in(pool, move || drop(held)).unwrap();
        drop(second);
        assert_eq!((Arc::strong_count(&captured), pool.lock().queue.len()), (1, 0));
        assert_eq!(calls.outstanding(), 1);
        release.send(()).unwrap();
        finish(first.unwrap()).unwrap();
    }

    #[test]
    fn a_call_is_withdrawn_only_before_it_begins() {
        let (calls, pool) = calls_and_pool(1, IDLE);
        let ((begin, begun), (release, blocked)) = (mpsc::channel(), mpsc::channel::<()>());
        let mut first = calls.call_in(pool, move || {
            begin.send(()).unwrap();
            blocked.recv().unwrap();
        });
        begun.recv().unwrap();
        let captured = Arc::new(());
        let held = captured.clone();
        let mut second = calls.call_in(pool, move || drop(held)).unwrap();
        let nobody: Rc<dyn Wake> = Rc::new(Nobody);
        assert!(second.poll(&nobody).is_pending());
        assert_eq!([second.withdraw(), second.withdraw()], [true, false]);
        assert_eq!(
            (Arc::strong_count(&captured), calls.outstanding(), calls.waiters.borrow().len()),
            (1, 1, 0)
        );
        assert!(second.poll(&nobody).is_pending(), "for good");
        assert!(!first.as_mut().unwrap().withdraw(), "it has begun");
        release.send(()).unwrap();
        finish(first.unwrap()).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "leaks what panics when dropped, on purpose")]
    fn a_thread_outlives_a_result_whose_drop_panics() {
        struct Bomb(mpsc::Sender<thread::ThreadId>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                self.0.send(thread::current().id()).unwrap();
                panic!("in the drop of an abandoned result");
            }
        }
        let (calls, pool) = calls_and_pool(1, IDLE);
        let ((note, dropped), (release, blocked)) = (mpsc::channel(), mpsc::channel::<()>());
        let (begin, begun) = mpsc::channel();
        let call = calls.call_in(pool, move || {
            begin.send(()).unwrap();
            blocked.recv().unwrap();
            Bomb(note)
        });
        begun.recv().unwrap();
        drop(call.unwrap());
        release.send(()).unwrap();
        let dropper = dropped.recv().unwrap();
        let next = finish(calls.call_in(pool, || thread::current().id()).unwrap()).unwrap();
        assert_eq!(dropper, next);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no signals")]
    fn signals_of_the_program_do_not_reach_the_threads() {
        let (calls, pool) = calls_and_pool(1, IDLE);
        let mask = calls.call_in(pool, || SigSet::thread_get_mask().unwrap()).unwrap();
        let mask = finish(mask).unwrap();
        for blocked in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM] {
            assert!(mask.contains(blocked), "{blocked}");
            assert!(!SigSet::thread_get_mask().unwrap().contains(blocked), "{blocked}: left in the caller");
        }
        assert!(!mask.contains(Signal::SIGSEGV));
    }
}
