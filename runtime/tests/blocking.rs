//! Blocking calls through the public interface: results, wake-ups, panics, and abandoned calls.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

use ringspun_runtime::{BlockingCall, BlockingKind, Configuration, EventLoop, Wait, Wake};

/// Counts its wakes, and asserts that they come on the loop's thread.
struct Waiter {
    thread: ThreadId,
    wakes: Cell<usize>,
}

impl Waiter {
    fn new() -> Rc<Self> {
        Rc::new(Self { thread: thread::current().id(), wakes: Cell::new(0) })
    }
}

impl Wake for Waiter {
    fn wake(self: Rc<Self>) {
        assert_eq!(thread::current().id(), self.thread);
        self.wakes.set(self.wakes.get() + 1);
    }
}

fn event_loop() -> Rc<EventLoop> {
    EventLoop::new(&Configuration::default()).unwrap()
}

/// Turns the loop until the waiter has been woken, and only then polls the call again.
fn finish<T>(event_loop: &EventLoop, mut call: BlockingCall<T>) -> thread::Result<T> {
    let waiter = Waiter::new();
    let wake: Rc<dyn Wake> = waiter.clone();
    if let Poll::Ready(value) = call.poll(&wake) {
        return value;
    }
    while waiter.wakes.get() == 0 {
        event_loop.turn(Wait::Block).unwrap();
    }
    match call.poll(&wake) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("woken before the call had ended"),
    }
}

/// Turns the loop until all calls have ended.
fn drain(event_loop: &EventLoop) {
    while event_loop.statistics().blocking_calls > 0 {
        event_loop.turn(Wait::Block).unwrap();
    }
}

#[test]
fn the_end_of_a_call_wakes_a_loop_that_blocks() {
    let event_loop = event_loop();
    for n in 0..200 {
        let call = event_loop.call_blocking(move || {
            // Some end before the loop blocks, and some after.
            thread::sleep(Duration::from_micros(n % 7 * 50));
            n
        });
        assert_eq!(finish(&event_loop, call.unwrap()).unwrap(), n);
    }
    drain(&event_loop);
}

#[test]
fn many_calls_of_one_loop_all_end_and_wake_once_each() {
    const CALLS: usize = 1000;
    let event_loop = event_loop();
    let waiter = Waiter::new();
    let wake: Rc<dyn Wake> = waiter.clone();
    let mut calls: Vec<_> = (0..CALLS).map(|n| event_loop.call_blocking(move || n * 2).unwrap()).collect();
    let mut results = vec![None; CALLS];
    let mut pending = 0;
    for (call, result) in calls.iter_mut().zip(&mut results) {
        match call.poll(&wake) {
            Poll::Ready(value) => *result = Some(value.unwrap()),
            Poll::Pending => pending += 1,
        }
    }
    drain(&event_loop);
    assert_eq!(waiter.wakes.get(), pending);
    for (call, result) in calls.iter_mut().zip(&mut results) {
        if let Poll::Ready(value) = call.poll(&wake) {
            assert_eq!(result.replace(value.unwrap()), None, "ready twice");
        }
    }
    assert!(results.into_iter().eq((0..CALLS).map(|n| Some(n * 2))));
}

#[test]
fn loops_of_two_threads_get_their_own_results() {
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            thread::spawn(move || {
                let event_loop = event_loop();
                for n in 0..500 {
                    let call = event_loop.call_blocking(move || (thread, n)).unwrap();
                    assert_eq!(finish(&event_loop, call).unwrap(), (thread, n));
                }
                drain(&event_loop);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_panic_reaches_the_caller_with_its_payload() {
    let event_loop = event_loop();
    let call = event_loop.call_blocking(|| -> u8 { panic!("in a blocking call") }).unwrap();
    let payload = finish(&event_loop, call).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"in a blocking call"));
    let next = event_loop.call_blocking(|| 7).unwrap();
    assert_eq!(finish(&event_loop, next).unwrap(), 7);
}

#[test]
fn a_call_abandoned_while_it_runs_wakes_nobody_and_its_result_is_dropped() {
    struct Noted(mpsc::Sender<ThreadId>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }
    let event_loop = event_loop();
    let ((begin, begun), (release, blocked)) = (mpsc::channel(), mpsc::channel::<()>());
    let (note, dropped) = mpsc::channel();
    let mut call = event_loop
        .call_blocking(move || {
            begin.send(()).unwrap();
            blocked.recv().unwrap();
            Noted(note)
        })
        .unwrap();
    let waiter = Waiter::new();
    let wake: Rc<dyn Wake> = waiter.clone();
    assert!(call.poll(&wake).is_pending());
    begun.recv().unwrap();
    drop(call);
    drop(wake);
    assert_eq!(Rc::strong_count(&waiter), 1, "the loop keeps no waiter of an abandoned call");
    assert_eq!(event_loop.statistics().blocking_calls, 1);
    release.send(()).unwrap();
    assert_ne!(dropped.recv().unwrap(), thread::current().id());
    drain(&event_loop);
    assert_eq!(waiter.wakes.get(), 0);
}

#[test]
fn calls_abandoned_at_random_moments_run_at_most_once() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let event_loop = event_loop();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let token = Arc::new(());
    let (mut calls, mut results, mut made) = (Vec::new(), 0, 0);
    let wake: Rc<dyn Wake> = Waiter::new();
    for _ in 0..5000 {
        match random(4) {
            0 | 1 => {
                let held = token.clone();
                let call = event_loop.call_blocking(move || {
                    RUNS.fetch_add(1, Ordering::Relaxed);
                    held
                });
                calls.push(call.unwrap());
                made += 1;
            }
            2 if !calls.is_empty() => {
                let mut call = calls.swap_remove(random(calls.len() as u64) as usize);
                results += usize::from(call.poll(&wake).is_ready());
            }
            _ => event_loop.turn(Wait::No).unwrap(),
        }
    }
    calls.clear();
    drain(&event_loop);
    assert!(RUNS.load(Ordering::Relaxed) <= made);
    assert!(results <= RUNS.load(Ordering::Relaxed));
    // The threads may not yet have dropped the results of calls that have ended.
    while Arc::strong_count(&token) > 1 {
        thread::yield_now();
    }
}

#[test]
fn shutting_down_does_not_wait_for_a_call() {
    let event_loop = event_loop();
    let (release, blocked) = mpsc::channel::<()>();
    let mut call = event_loop.call_blocking(move || blocked.recv().is_ok()).unwrap();
    let waiter = Waiter::new();
    let wake: Rc<dyn Wake> = waiter.clone();
    assert!(call.poll(&wake).is_pending());
    event_loop.shutdown().unwrap();
    drop(wake);
    assert_eq!(Rc::strong_count(&waiter), 1, "a loop that has shut down keeps no waiter");
    let refused: io::Error = event_loop.call_blocking(|| ()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECANCELED));
    drop(event_loop);
    release.send(()).unwrap();
    // The loop has been dropped; the call still has its result.
    let wake: Rc<dyn Wake> = waiter.clone();
    let ended = loop {
        if let Poll::Ready(value) = call.poll(&wake) {
            break value;
        }
        thread::yield_now();
    };
    assert!(ended.unwrap());
    assert_eq!(waiter.wakes.get(), 0);
}

#[test]
fn lookups_do_not_queue_behind_other_calls() {
    let event_loop = event_loop();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    // Twice as many as there are threads, none of which ends before the lookup has.
    let others: Vec<_> = (0..2 * BlockingKind::Other.threads_max())
        .map(|_| {
            let blocked = blocked.clone();
            event_loop.call_blocking(move || blocked.lock().unwrap().recv().is_err()).unwrap()
        })
        .collect();
    let lookup = event_loop.call_blocking_of(BlockingKind::Lookup, || 7).unwrap();
    assert_eq!(finish(&event_loop, lookup).unwrap(), 7);
    drop(release);
    for call in others {
        assert!(finish(&event_loop, call).unwrap());
    }
}
