//! Fibers as their users see them: spawn, join, cancel, sleep, deadlines, and what ends them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Channel, FiberBuilder, Interrupt, JoinError};

const AGES: Duration = Duration::from_secs(3600);

#[test]
fn a_join_gives_the_result() {
    let total = fibers::run(|| {
        let handles: Vec<_> = (0..100).map(|n| fibers::spawn(move || n).unwrap()).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
    });
    assert_eq!(total.unwrap(), 4950);
}

/// Of any size and alignment, on this thread and on another.
#[test]
fn a_function_may_own_much() {
    #[repr(align(64))]
    struct Aligned([u8; 1000]);

    fn owns<const SIZE: usize>() {
        let owned = [7_u8; SIZE];
        let fiber = fibers::spawn(move || owned.iter().map(|byte| u64::from(*byte)).sum::<u64>()).unwrap();
        assert_eq!(fiber.join().unwrap(), 7 * SIZE as u64);
    }

    fibers::run(|| {
        owns::<400>();
        owns::<600>();
        owns::<1025>();
        owns::<100_000>();
    })
    .unwrap();
    let aligned = Aligned([7; 1000]);
    let place = fibers::run(move || &raw const aligned as usize + usize::from(aligned.0[0])).unwrap();
    assert_eq!(place % 64, 7);
}

#[test]
fn a_panic_reaches_the_joiner_and_nobody_else() {
    let (panicked, other) = fibers::run(|| {
        let panics = fibers::spawn(|| -> i32 { panic!("at the disco") }).unwrap();
        let unobserved = fibers::spawn(|| panic!("nobody joins this one")).unwrap();
        drop(unobserved);
        let other = fibers::spawn(|| {
            fibers::yield_now().unwrap();
            7
        })
        .unwrap();
        (panics.join(), other.join())
    })
    .unwrap();
    match panicked {
        Err(JoinError::Panicked(payload)) => {
            assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "at the disco");
        }
        other => panic!("expected the panic, got {other:?}"),
    }
    assert_eq!(other.unwrap(), 7);
}

#[test]
#[should_panic(expected = "from the main fiber")]
fn a_panic_of_the_main_fiber_reaches_the_caller_of_run() {
    let _ = fibers::run(|| panic!("from the main fiber"));
}

#[test]
fn a_cancel_is_raised_where_the_fiber_waits_and_once() {
    let waits = fibers::run(|| {
        let sleeper = fibers::spawn(|| {
            let first = fibers::sleep(AGES);
            let second = fibers::sleep(Duration::from_millis(1));
            (first, second)
        })
        .unwrap();
        fibers::yield_now().unwrap();
        sleeper.cancel();
        sleeper.join().unwrap()
    });
    assert_eq!(waits.unwrap(), (Err(Interrupt::Cancelled), Ok(())));
}

#[test]
fn a_cancel_before_the_first_run_is_raised_at_the_first_wait() {
    let waited = fibers::run(|| {
        let sleeper = fibers::spawn(|| fibers::sleep(AGES)).unwrap();
        sleeper.cancel();
        sleeper.join().unwrap()
    });
    assert_eq!(waited.unwrap(), Err(Interrupt::Cancelled));
}

#[test]
fn a_join_that_is_interrupted_can_be_repeated() {
    fibers::run(|| {
        let channel = Channel::bounded(1);
        let result = channel.clone();
        let slow = Rc::new(fibers::spawn(move || result.take().unwrap()).unwrap());
        let joined = slow.clone();
        let joiner = fibers::spawn(move || joined.join()).unwrap();
        fibers::yield_now().unwrap();
        joiner.cancel();
        assert!(matches!(joiner.join().unwrap(), Err(JoinError::Interrupted(Interrupt::Cancelled))));
        let hurried = fibers::with_deadline(Duration::ZERO, || slow.join());
        assert!(matches!(hurried, Err(JoinError::Interrupted(Interrupt::DeadlineExpired))));
        channel.give(7).unwrap();
        assert_eq!(slow.join().unwrap(), 7);
    })
    .unwrap();
}

#[test]
fn of_several_joiners_one_gets_the_result_and_none_hangs() {
    fibers::run(|| {
        let slow = Rc::new(fibers::spawn(|| fibers::sleep(Duration::from_millis(1))).unwrap());
        let joiners: Vec<_> = (0..3)
            .map(|_| {
                let slow = slow.clone();
                fibers::spawn(move || slow.join()).unwrap()
            })
            .collect();
        let results: Vec<_> = joiners.iter().map(|joiner| joiner.join().unwrap()).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(results.iter().filter(|result| matches!(result, Err(JoinError::Taken))).count(), 2);
    })
    .unwrap();
}

#[test]
fn the_earliest_deadline_counts_and_ends_with_its_scope() {
    let waits = fibers::run(|| {
        let inner = fibers::with_deadline(AGES, || {
            fibers::with_deadline(Duration::from_millis(1), || (fibers::sleep(AGES), fibers::sleep(AGES)))
        });
        let outer = fibers::with_deadline(Duration::from_millis(1), || {
            fibers::with_deadline(AGES, || fibers::sleep(AGES))
        });
        (inner, outer, fibers::sleep(Duration::from_millis(1)))
    });
    let expired = Err(Interrupt::DeadlineExpired);
    assert_eq!(waits.unwrap(), ((expired, expired), expired, Ok(())));
}

#[test]
fn timers_that_did_not_fire_are_removed() {
    fibers::run(|| {
        for _ in 0..1000 {
            fibers::with_deadline(AGES, || fibers::sleep(Duration::ZERO)).unwrap();
            let handle = fibers::spawn(|| fibers::sleep(AGES)).unwrap();
            fibers::yield_now().unwrap();
            handle.cancel();
            handle.join().unwrap().unwrap_err();
        }
        assert_eq!(fibers::event_loop().unwrap().statistics().timers, 0);
    })
    .unwrap();
}

#[test]
fn fibers_take_turns() {
    let order = fibers::run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = (0..3)
            .map(|id| {
                let order = order.clone();
                fibers::spawn(move || {
                    for step in 0..2 {
                        order.borrow_mut().push((step, id));
                        fibers::yield_now().unwrap();
                    }
                })
                .unwrap()
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
        order.take()
    });
    assert_eq!(order.unwrap(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
}

#[test]
fn the_end_of_main_cancels_the_rest_and_runs_their_destructors() {
    struct Note(Rc<RefCell<Vec<&'static str>>>, &'static str);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let ended = Rc::new(RefCell::new(Vec::new()));
    let (polite, stubborn) = (Note(ended.clone(), "polite"), Note(ended.clone(), "stubborn"));
    fibers::run(move || {
        fibers::spawn(move || {
            let _note = polite;
            fibers::sleep(AGES).unwrap_err();
        })
        .unwrap();
        fibers::spawn(move || {
            let _note = stubborn;
            loop {
                let _ = fibers::sleep(AGES);
            }
        })
        .unwrap();
        fibers::yield_now().unwrap();
    })
    .unwrap();
    let mut ended = ended.take();
    ended.sort_unstable();
    assert_eq!(ended, ["polite", "stubborn"]);
}

#[test]
fn other_threads_reach_the_fibers() {
    let got = fibers::run(|| {
        let sleeper = fibers::spawn(|| fibers::sleep(AGES)).unwrap();
        let remote = fibers::remote().unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..100 {
                let task = || drop(fibers::spawn(|| fibers::sleep(Duration::from_millis(1))));
                remote.execute(task).unwrap();
            }
        });
        // The thread's last task has run when the fibers it spawned are gone again.
        thread.join().unwrap();
        while fibers::statistics().unwrap().alive > 2 {
            fibers::sleep(Duration::from_millis(1)).unwrap();
        }
        sleeper.cancel();
        sleeper.join().unwrap()
    });
    assert_eq!(got.unwrap(), Err(Interrupt::Cancelled));
}

#[test]
fn each_thread_has_its_own_runtime_and_only_one() {
    let threads: Vec<_> = (0..4)
        .map(|n| {
            std::thread::spawn(move || fibers::run(move || fibers::spawn(move || n).unwrap().join().unwrap()))
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().unwrap(), n);
    }
    let nested = fibers::run(|| std::panic::catch_unwind(|| fibers::run(|| ())).is_err());
    assert!(nested.unwrap(), "a second runtime on a thread is a mistake in the program");
}

#[test]
fn outside_of_a_runtime_spawning_is_an_error() {
    let error = fibers::spawn(|| ()).unwrap_err();
    assert!(error.to_string().contains("no runtime of fibers runs on this thread"), "{error}");
    assert!(!fibers::is_fiber());
}

#[test]
fn a_fiber_uses_the_stack_it_asked_for() {
    fn burn(depth: usize) -> usize {
        let page = std::hint::black_box([depth as u8; 1024]);
        if depth == 0 { page[0] as usize } else { burn(depth - 1) + page[1023] as usize % 2 }
    }
    let deep = fibers::run(|| {
        let builder = FiberBuilder::new().stack_size_bytes(4 * 1024 * 1024);
        builder.spawn(|| burn(1500)).unwrap().join().unwrap()
    });
    assert!(deep.unwrap() > 0);
}

#[test]
fn a_panic_while_an_unwanted_result_is_dropped_ends_only_that() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop of a result");
        }
    }
    let other = fibers::run(|| {
        drop(fibers::spawn(|| Bomb).unwrap());
        let remote = fibers::remote().unwrap();
        remote.execute(|| panic!("in a remote task")).unwrap();
        fibers::sleep(Duration::from_millis(1)).unwrap();
        fibers::spawn(|| 5).unwrap().join().unwrap()
    });
    assert_eq!(other.unwrap(), 5);
}

#[test]
fn a_remote_learns_that_its_runtime_has_ended() {
    let remote = fibers::run(|| fibers::remote().unwrap()).unwrap();
    assert_eq!(remote.execute(|| ()), Err(fibers::RuntimeEnded));
}

#[test]
fn a_stack_of_absurd_size_is_an_error_that_names_it() {
    let error = fibers::run(|| FiberBuilder::new().stack_size_bytes(usize::MAX).spawn(|| ()).unwrap_err());
    assert!(error.unwrap().to_string().contains(&usize::MAX.to_string()));
}

/// Has another thread wake the loop, then runs `between` in the fiber, then waits for what the wake-up
/// brings. A deadline that had to wake the loop does not count.
fn wakes_after(between: fn(&ringspun_runtime::EventLoop)) -> Result<(), Interrupt> {
    thread_local! {
        static RAN: Cell<bool> = const { Cell::new(false) };
        static WAITER: RefCell<Option<Rc<dyn ringspun_runtime::Wake>>> = const { RefCell::new(None) };
    }
    RAN.set(false);
    let woken = fibers::run(move || {
        let remote = fibers::remote().unwrap();
        let wake = || {
            RAN.set(true);
            WAITER.take().into_iter().for_each(ringspun_runtime::Wake::wake);
        };
        std::thread::spawn(move || remote.execute(wake)).join().unwrap().unwrap();
        between(&fibers::event_loop().unwrap());
        fibers::with_deadline(Duration::from_secs(60), || {
            fibers::wait(|waiter| {
                WAITER.set(Some(waiter.clone()));
                let in_time = RAN.get() && fibers::pending_interrupt().is_none();
                if in_time { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
        })
    });
    woken.unwrap()
}

/// Submits operations that never complete by themselves, and cancels them one by one.
fn submit_and_cancel(event_loop: &ringspun_runtime::EventLoop, count: usize) {
    use ringspun_runtime::{Completion, Interest, Operation, OperationKind, Owner};
    struct Nobody;
    impl Owner for Nobody {
        fn complete(self: Rc<Self>, _: OperationKind, _: Completion) {}
    }
    let (silent, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&silent);
    let poll = || Operation::Poll { descriptor, interest: Interest::Readable };
    let keys: Vec<_> = (0..count).map(|_| event_loop.submit(poll(), Rc::new(Nobody))).collect();
    keys.into_iter().for_each(|key| event_loop.cancel_and_wait(key).unwrap());
}

#[test]
fn a_wake_up_that_a_full_queue_reaps_is_not_lost() {
    // More than a submission queue holds, so the ring is entered, and the wake-up reaped, in the fiber. Not many more:
    // on poll, each cancel tries all that are left.
    assert_eq!(wakes_after(|event_loop| submit_and_cancel(event_loop, 1500)), Ok(()));
}

#[test]
fn a_wake_up_that_a_cancel_reaps_is_not_lost() {
    assert_eq!(wakes_after(|event_loop| submit_and_cancel(event_loop, 1)), Ok(()));
}

/// A panic there would end the process.
#[test]
fn destructors_of_the_variables_of_a_thread_find_no_runtime() {
    struct AtExit(mpsc::Sender<[bool; 4]>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let spawned = fibers::spawn(|| ()).is_ok();
            let ran = fibers::run(|| ()).is_ok();
            let found = [spawned, fibers::remote().is_some(), fibers::event_loop().is_some(), ran];
            self.0.send(found).unwrap();
        }
    }
    thread_local! {
        static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(|| {
        // It is destroyed after what the runtime has for the thread, whose first use comes later.
        AT_EXIT.set(Some(AtExit(sender)));
        fibers::run(|| fibers::yield_now().unwrap()).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(receiver.recv().unwrap(), [false; 4]);
}
