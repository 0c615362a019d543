//! Panics of code that runs between fibers: everything ends in order, and the panic is passed on.

mod common;

use std::cell::Cell;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::spawn;
use ringspun_fibers::{self as fibers, Channel, FiberBuilder, FiberEvent, Interrupt};
use ringspun_runtime::Wake;

const AGES: Duration = Duration::from_secs(3600);

/// A waiter that breaks the rules.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Rc<Self>) {
        panic!("a wake panics");
    }
}

fn light_fuse() {
    let event_loop = fibers::event_loop().unwrap();
    event_loop.insert_timer(Instant::now(), Rc::new(Bomb));
}

/// Runs `scene` in a runtime that panics, and gives the text of that.
fn panic_of(scene: impl FnOnce() + 'static) -> &'static str {
    let ran = catch_unwind(AssertUnwindSafe(|| fibers::run(scene)));
    ran.unwrap_err().downcast_ref::<&'static str>().unwrap()
}

#[test]
fn fibers_are_unwound_when_a_wake_panics_and_the_runtime_passes_it_on() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let text = panic_of(move || {
        for _ in 0..3 {
            spawn(|| {
                assert_eq!(fibers::sleep(AGES), Err(Interrupt::Cancelled));
                ENDED.fetch_add(1, Ordering::Relaxed);
            });
        }
        // They wait for the next turn, the last part of which the panic skips.
        spawn(|| {
            while fibers::yield_now().is_ok() {}
            ENDED.fetch_add(1, Ordering::Relaxed);
        });
        light_fuse();
        let _ = fibers::sleep(AGES);
        drop(ours);
    });
    assert_eq!(text, "a wake panics");
    assert_eq!(ENDED.load(Ordering::Relaxed), 4);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "what the fibers had is closed");
    // The thread can have another.
    assert_eq!(fibers::run(|| 5).unwrap(), 5);
}

#[test]
fn what_panics_again_while_the_runtime_ends_does_not_keep_it() {
    let text = panic_of(|| {
        spawn(|| {
            while fibers::yield_now().is_ok() {}
            // As its runtime ends.
            light_fuse();
            let _ = fibers::yield_now();
        });
        light_fuse();
        let _ = fibers::sleep(AGES);
    });
    assert_eq!(text, "a wake panics");
}

thread_local! {
    static ENDED: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn those_that_were_to_run_next_still_do_when_the_end_of_one_panics() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("a message panics");
        }
    }
    let text = panic_of(|| {
        // The message has no reader, and goes with the channel, when the scheduler forgets the fiber.
        let events = Channel::unbounded();
        let told = FiberBuilder::new().supervisor(&events).spawn(|| {
            let supervisor = fibers::supervisor().unwrap();
            supervisor.give(FiberEvent::message(PanicsWhenDropped)).unwrap();
        });
        drop((told, events));
        for _ in 0..3 {
            spawn(|| ENDED.set(ENDED.get() + 1));
        }
        let _ = fibers::sleep(AGES);
    });
    assert_eq!((text, ENDED.get()), ("a message panics", 3));
}
