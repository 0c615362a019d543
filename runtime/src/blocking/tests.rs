//! The pool of threads, and the calls of a loop.

use super::*;
use std::sync::mpsc;

struct Nobody;
impl Wake for Nobody {
    fn wake(self: Rc<Self>) {}
}

fn calls_and_pool(threads_max: usize, idle: Duration) -> (Rc<BlockingCalls>, &'static Pool) {
    /// Keeps the pools reachable, or Miri would report them as leaks.
    static POOLS: Mutex<Vec<&Pool>> = Mutex::new(Vec::new());
    let calls = BlockingCalls::new(RemoteWaker::new().unwrap(), usize::MAX);
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
        assert_eq!(finish(calls.call_in(pool, true, move || round).unwrap()).unwrap(), round);
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
    let first = calls.call_in(pool, true, move || blocked.recv().unwrap()).unwrap();
    let others: Vec<_> = (0..100)
        .map(|n| {
            let note = note.clone();
            calls.call_in(pool, true, move || note.send(n).unwrap()).unwrap()
        })
        .collect();
    assert_eq!(pool.lock().threads, 1);
    release.send(()).unwrap();
    finish(first).unwrap();
    others.into_iter().for_each(|call| finish(call).unwrap());
    assert!(begun.try_iter().eq(0..100));
}

#[test]
fn a_loop_has_no_more_calls_in_the_pool_than_it_may() {
    let (_, pool) = calls_and_pool(8, IDLE);
    let calls = BlockingCalls::new(RemoteWaker::new().unwrap(), 2);
    let (begin, begun) = mpsc::channel();
    let releases: Vec<_> = (0..6)
        .map(|number| {
            let (begin, (release, blocked)) = (begin.clone(), mpsc::channel::<()>());
            let call = calls.call_in(pool, true, move || {
                begin.send(number).unwrap();
                blocked.recv().unwrap();
            });
            (release, call.unwrap())
        })
        .collect();
    let next_two = || std::collections::BTreeSet::from([begun.recv().unwrap(), begun.recv().unwrap()]);
    assert!(next_two().into_iter().eq([0, 1]));
    assert_eq!((pool.lock().threads, calls.held.borrow().len(), calls.outstanding()), (2, 4, 6));
    // Lookups are not limited, nor are calls of other loops.
    finish(calls.call_in(pool, false, || ()).unwrap()).unwrap();
    let mut releases = releases.into_iter();
    // One that is held is given up, and never begins. One that runs leaves its place when it ends.
    let (first, second) = (releases.next().unwrap(), releases.next().unwrap());
    drop(releases.next().unwrap().1);
    drop(first.1);
    first.0.send(()).unwrap();
    second.0.send(()).unwrap();
    finish(second.1).unwrap();
    wait_until(|| {
        calls.wake_ended();
        calls.held.borrow().len() == 1
    });
    assert!(next_two().into_iter().eq([3, 4]));
    // Those that were not taken from the pool's queue would begin after the loop has ended.
    calls.close();
    releases.by_ref().take(2).for_each(|(release, _call)| release.send(()).unwrap());
    wait_until(|| {
        calls.wake_ended();
        calls.submitted.get() == 0
    });
    drop(begin);
    assert!(begun.try_recv().is_err());
}

#[test]
fn an_idle_thread_is_used_again_and_a_busy_one_is_not_waited_for() {
    let (calls, pool) = calls_and_pool(8, IDLE);
    for _ in 0..10 {
        finish(calls.call_in(pool, true, || ()).unwrap()).unwrap();
        wait_until(|| pool.lock().idle_threads == 1);
    }
    assert_eq!(pool.lock().threads, 1);
    // Each call waits for all the others, so they end only if they run on as many threads.
    let barrier = Arc::new(std::sync::Barrier::new(8));
    let meeting: Vec<_> = (0..8)
        .map(|_| {
            let barrier = barrier.clone();
            calls.call_in(pool, true, move || barrier.wait()).unwrap()
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
    let first = calls.call_in(pool, true, move || {
        begin.send(()).unwrap();
        blocked.recv().unwrap();
    });
    begun.recv().unwrap();
    let captured = Arc::new(());
    let held = captured.clone();
    let second = calls.call_in(pool, true, move || drop(held)).unwrap();
    drop(second);
    assert_eq!((Arc::strong_count(&captured), pool.lock().queue.len()), (1, 0));
    assert_eq!(calls.outstanding(), 1);
    release.send(()).unwrap();
    finish(first.unwrap()).unwrap();
}

#[test]
fn a_call_is_withdrawn_only_before_it_begins_whoever_holds_it() {
    // One of the loop is with the pool; the next waits there, or with the loop.
    for calls_max in [usize::MAX, 1] {
        let (_, pool) = calls_and_pool(1, IDLE);
        let calls = BlockingCalls::new(RemoteWaker::new().unwrap(), calls_max);
        let ((begin, begun), (release, blocked)) = (mpsc::channel(), mpsc::channel::<()>());
        let first = calls.call_in(pool, true, move || {
            begin.send(()).unwrap();
            blocked.recv().unwrap();
        });
        let mut first = first.unwrap();
        begun.recv().unwrap();
        let captured = Arc::new(());
        let held = captured.clone();
        let mut second = calls.call_in(pool, true, move || drop(held)).unwrap();
        let nobody: Rc<dyn Wake> = Rc::new(Nobody);
        assert!(second.poll(&nobody).is_pending());
        assert_eq!([second.withdraw(), second.withdraw()], [true, false]);
        let left = (Arc::strong_count(&captured), calls.outstanding(), calls.waiters.borrow().len());
        assert_eq!(left, (1, 1, 0));
        assert!(second.poll(&nobody).is_pending(), "for good");
        assert!(!first.withdraw(), "it has begun");
        release.send(()).unwrap();
        finish(first).unwrap();
        calls.wake_ended();
        assert_eq!((calls.submitted.get(), calls.outstanding()), (0, 0));
    }
}

#[test]
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
    let call = calls.call_in(pool, true, move || {
        begin.send(()).unwrap();
        blocked.recv().unwrap();
        Bomb(note)
    });
    begun.recv().unwrap();
    drop(call.unwrap());
    release.send(()).unwrap();
    let dropper = dropped.recv().unwrap();
    let next = finish(calls.call_in(pool, true, || thread::current().id()).unwrap()).unwrap();
    assert_eq!(dropper, next);
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no signals")]
fn signals_of_the_program_do_not_reach_the_threads() {
    let (calls, pool) = calls_and_pool(1, IDLE);
    let mask = calls.call_in(pool, true, || SigSet::thread_get_mask().unwrap()).unwrap();
    let mask = finish(mask).unwrap();
    for blocked in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM] {
        assert!(mask.contains(blocked), "{blocked}");
        assert!(!SigSet::thread_get_mask().unwrap().contains(blocked), "{blocked}: left in the caller");
    }
    assert!(!mask.contains(Signal::SIGSEGV));
}
