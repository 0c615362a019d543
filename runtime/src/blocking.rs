//! Calls that block, such as `getaddrinfo(3)`: threads of their own run them, and the loop goes on.
//!
//! ```text
//!   call_blocking(function) ──► queue ──► a thread of the pool: runs the function
//!                                               │ result ──► the call
//!   waiter.wake() ◄── the loop's turn ◄── inbox ◄── ticket
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::process::ProcessMark;
use crate::wake::{RemoteWaker, Wake};

/// The most threads of the process that block at a time. They wait for others and use no processor, so
/// the number has nothing to do with cores: it is how many unanswered name lookups it takes until the
/// next one has to queue, against 2 MiB of address space for each.
const MAXIMUM_THREADS: usize = 32;
/// How long a thread stays without work, so that calls one after the other share it.
const IDLE: Duration = Duration::from_secs(10);
/// What `top -H` shows for the threads; the kernel keeps 15 bytes.
const THREAD_NAME: &str = "ringspun-block";

/// The pool that all loops of the process share, once there is one.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

type Job = Box<dyn FnOnce() + Send>;

/// Threads that are made when there is work, and end when there has been none for a while.
///
/// A forked child has none of these threads, and its locks may be held by threads that it does not have: it makes
/// a pool of its own.
struct Pool {
    process: ProcessMark,
    maximum_threads: usize,
    idle: Duration,
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    /// Jobs by ticket. Tickets grow, so the first is the oldest, and any can be withdrawn.
    queue: BTreeMap<u64, Job>,
    next_ticket: u64,
    threads: usize,
    /// Threads that wait for work, those among them that have been notified included.
    idle_threads: usize,
}

impl Pool {
    fn new(maximum_threads: usize, idle: Duration) -> io::Result<Self> {
        let state = PoolState { queue: BTreeMap::new(), next_ticket: 0, threads: 0, idle_threads: 0 };
        let (process, state) = (ProcessMark::new()?, Mutex::new(state));
        Ok(Self { process, maximum_threads, idle, state, work: Condvar::new() })
    }

    /// The pool of this process.
    fn shared() -> io::Result<&'static Self> {
        let present = POOL.load(Ordering::Acquire);
        // SAFETY: what is stored there comes from a box, and is never freed.
        if let Some(pool) = unsafe { present.as_ref() }
            && pool.process.is_current()
        {
            return Ok(pool);
        }
        let made = Box::into_raw(Box::new(Self::new(MAXIMUM_THREADS, IDLE)?));
        let stored = POOL.compare_exchange(present, made, Ordering::AcqRel, Ordering::Acquire);
        let pool = stored.map_or_else(
            |first| {
                // SAFETY: another thread was faster, and nobody has seen this one.
                drop(unsafe { Box::from_raw(made) });
                first
            },
            |_| made,
        );
        // SAFETY: as above; nobody has stored null.
        Ok(unsafe { &*pool })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the job that `make_job` makes for its ticket. Fails if there is no thread to run it, and none
    /// can be made.
    fn submit(&'static self, make_job: impl FnOnce(u64) -> Job) -> io::Result<u64> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.insert(ticket, make_job(ticket));
        if state.queue.len() <= state.idle_threads {
            self.work.notify_one();
            return Ok(ticket);
        }
        if state.threads < self.maximum_threads {
            // Under the lock: the count of threads then never includes one that could not be made.
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

    /// Takes a job back; `None` if it has begun, and in a forked child.
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
        // A thread starts with the mask of its maker, so no signal can slip in before it has its own.
        let before = program_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = thread::Builder::new().name(THREAD_NAME.to_string()).spawn(move || self.work());
        let restored = before.thread_set_mask();
        debug_assert!(restored.is_ok(), "the mask was valid before: {restored:?}");
        spawned.map(drop)
    }

    /// What each thread does.
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
                // Only the drop of a result that nobody wants panics here. Leaked, as it may do so again.
                std::mem::forget(payload);
            }
            state = self.lock();
        }
        state.threads -= 1;
    }
}

/// The signals that a program may handle on threads of its own: all but those that a fault raises where it
/// happens, which would end the process without a word if they were blocked.
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
    /// Calls that were neither withdrawn nor found in the inbox, so that a turn without any takes no lock.
    outstanding: Cell<usize>,
    /// The loop has shut down: keeping a waiter would keep alive whatever it refers to, for nothing.
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

    /// Queues a call of `function`. Fails if no thread runs and none can be made.
    pub(crate) fn call<T: Send + 'static>(
        self: &Rc<Self>,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        self.call_in(Pool::shared()?, function)
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
                // What a panic leaves half done is only seen by the caller, who learns of it.
                let value = catch_unwind(AssertUnwindSafe(function));
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                inbox.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
                waker.wake();
                // Of an abandoned call, this drops the result; last, as it may do what it likes.
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

    /// Forgets who waits, without waking anybody, and who will.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let waiters = self.waiters.take();
        drop(waiters);
    }
}

/// A call of [`EventLoop::call_blocking`](crate::EventLoop::call_blocking), under way on another thread.
///
/// Dropping it abandons the call: if it has not begun, it never does; if it has, it runs to its end, and
/// its result is dropped on the thread that made it. Nobody is woken.
pub struct BlockingCall<T> {
    pool: &'static Pool,
    calls: Rc<BlockingCalls>,
    ticket: u64,
    /// Where the thread leaves the result; absent once it has been taken.
    result: Option<Arc<Mutex<Option<thread::Result<T>>>>>,
}

impl<T> BlockingCall<T> {
    /// The result if the call has ended, or its panic's payload. Otherwise `waiter`, and only the last one
    /// given, is woken in a turn of the loop when it has. Never blocks. A call that has been ready once is
    /// pending for good, and so is every call in a forked child.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<thread::Result<T>> {
        let Some(place) = &self.result else { return Poll::Pending };
        // In a forked child, nobody is left to finish it, or to unlock what it holds.
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

    fn forget_waiter(&self) {
        let waiter = self.calls.waiters.borrow_mut().remove(&self.ticket);
        // Dropped here, where it may do what it likes.
        drop(waiter);
    }
}

impl<T> Drop for BlockingCall<T> {
    fn drop(&mut self) {
        if self.result.is_none() {
            return;
        }
        self.forget_waiter();
        if let Some(job) = self.pool.withdraw(self.ticket) {
            self.calls.outstanding.set(self.calls.outstanding.get() - 1);
            drop(job);
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

    fn calls_and_pool(maximum_threads: usize, idle: Duration) -> (Rc<BlockingCalls>, &'static Pool) {
        /// For Miri, which takes a pool that nothing refers to any more to be leaked.
        static POOLS: Mutex<Vec<&Pool>> = Mutex::new(Vec::new());
        let calls = BlockingCalls::new(RemoteWaker::new().unwrap());
        let pool = Box::leak(Box::new(Pool::new(maximum_threads, idle).unwrap()));
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
        // Each waits for all: they only end if as many threads run at once.
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
