//! Blocking calls from fibers: results, panics, interrupts, and that the other fibers run meanwhile.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use common::{on_both_stacks, settle, spawn};
use ringspun_fibers::{self as fibers, BlockingError, Interrupt, Runtime};

#[test]
fn other_fibers_run_while_a_call_blocks() {
    on_both_stacks(|| {
        let (release, blocked) = mpsc::channel();
        let ran = Rc::new(Cell::new(0));
        let count = ran.clone();
        // The call only returns if this fiber runs.
        let other = spawn(move || {
            while count.get() < 10 {
                count.set(count.get() + 1);
                fibers::yield_now().unwrap();
            }
            release.send(7).unwrap();
        });
        assert_eq!(fibers::blocking(move || blocked.recv().unwrap()).unwrap(), 7);
        assert_eq!(ran.get(), 10);
        other.join().unwrap();
    });
}

#[test]
fn each_of_many_fibers_gets_its_own_result() {
    on_both_stacks(|| {
        let fibers: Vec<_> = (0..300).map(|n| spawn(move || fibers::blocking(move || n).unwrap())).collect();
        for (n, fiber) in fibers.iter().enumerate() {
            assert_eq!(fiber.join().unwrap(), n);
        }
    });
}

#[test]
fn a_panic_of_the_call_reaches_its_caller() {
    fibers::run(|| {
        let error = fibers::blocking(|| -> u8 { panic!("on another thread") }).unwrap_err();
        assert_eq!(error.to_string(), "the blocking call panicked: on another thread");
        assert!(matches!(error, BlockingError::Panicked(payload) if payload.is::<&str>()));
        assert_eq!(fibers::blocking(|| 5).unwrap(), 5);
    })
    .unwrap();
}

#[test]
fn an_interrupt_ends_the_wait_and_not_the_call() {
    on_both_stacks(|| {
        let ((begin, begun), (note, noted)) = (mpsc::channel(), mpsc::channel());
        let (release, blocked) = mpsc::channel::<()>();
        let waiting = spawn(move || {
            fibers::with_deadline(Duration::from_secs(3600), || {
                fibers::blocking(move || {
                    begin.send(()).unwrap();
                    blocked.recv().unwrap();
                    note.send(()).unwrap();
                })
            })
        });
        while begun.try_recv().is_err() {
            fibers::yield_now().unwrap();
        }
        waiting.cancel();
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(BlockingError::Interrupted(Interrupt::Cancelled))), "{waited:?}");
        assert_eq!(fibers::event_loop().unwrap().statistics().timers, 0);
        release.send(()).unwrap();
        fibers::blocking(move || noted.recv().unwrap()).unwrap();

        let (release, blocked) = mpsc::channel::<()>();
        let late = fibers::with_deadline(Duration::from_millis(1), || {
            fibers::blocking(move || blocked.recv().is_ok())
        });
        assert!(matches!(late, Err(BlockingError::Interrupted(Interrupt::DeadlineExpired))), "{late:?}");
        drop(release);
    });
}

#[test]
fn after_a_cancel_no_call_begins() {
    on_both_stacks(|| {
        let called = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = called.clone();
        let caller =
            spawn(move || fibers::blocking(move || mark.store(true, std::sync::atomic::Ordering::SeqCst)));
        caller.cancel();
        let waited = caller.join().unwrap();
        assert!(matches!(waited, Err(BlockingError::Interrupted(Interrupt::Cancelled))), "{waited:?}");
        assert_eq!(fibers::event_loop().unwrap().statistics().blocking_calls, 0);
        assert!(!called.load(std::sync::atomic::Ordering::SeqCst));
    });
}

#[test]
fn the_end_of_main_does_not_wait_for_a_call() {
    let (release, blocked) = mpsc::channel::<()>();
    let waited = Rc::new(Cell::new(None));
    let result = waited.clone();
    fibers::run(move || {
        spawn(move || result.set(Some(fibers::blocking(move || blocked.recv().is_ok()))));
        settle();
    })
    .unwrap();
    let waited = waited.take();
    assert!(matches!(waited, Some(Err(BlockingError::Interrupted(Interrupt::Cancelled)))), "{waited:?}");
    drop(release);
}

#[test]
fn a_runtime_makes_no_more_calls_at_a_time_than_it_may() {
    let (tell, told) = mpsc::channel::<(u32, mpsc::Sender<()>)>();
    let (begin, begun) = mpsc::channel();
    let releasing = std::thread::spawn(move || {
        let mut order = Vec::new();
        begun.recv().unwrap();
        while let Ok((number, release)) = told.recv() {
            // The next one has not begun as long as this one lasts.
            std::thread::sleep(Duration::from_millis(1));
            assert!(told.try_recv().is_err(), "two calls at a time");
            order.push(number);
            release.send(()).unwrap();
        }
        order
    });
    let limited = Runtime::new().blocking_calls_max(1);
    limited
        .run(move || {
            let fibers: Vec<_> = (0..5)
                .map(|number| {
                    let tell = tell.clone();
                    spawn(move || {
                        fibers::blocking(move || {
                            let (release, released) = mpsc::channel();
                            tell.send((number, release)).unwrap();
                            released.recv().unwrap();
                        })
                    })
                })
                .collect();
            // An interrupt takes one out that waits for its turn.
            settle();
            fibers[2].cancel();
            let cancelled = fibers[2].join().unwrap();
            assert!(matches!(cancelled, Err(BlockingError::Interrupted(Interrupt::Cancelled))));
            begin.send(()).unwrap();
            let others = [0, 1, 3, 4].map(|index: usize| fibers[index].join().unwrap());
            assert!(others.iter().all(Result::is_ok));
        })
        .unwrap();
    assert_eq!(releasing.join().unwrap(), [0, 1, 3, 4]);
}
