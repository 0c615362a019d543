//! Fibers that keep their worker are told with their stack while they run.
#![cfg(target_os = "linux")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ringspun_fibers::{
    self as fibers, FiberBuilder, SharedChannel, StalledFiber, Worker, WorkerEvent, Workers, WorkersBuilder,
};

const LIMIT: Duration = Duration::from_millis(20);
/// How many stalls of each kind are planted.
const PLANTED: usize = 25;

/// Signals that the handler has seen which is there before ours.
static SEEN: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(_: i32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
}

type Stall = fn(&AtomicBool) -> u64;
type Told = mpsc::Receiver<(usize, Option<StalledFiber>)>;

fn observed() -> (Workers, Told) {
    let (tell, told) = mpsc::channel();
    let builder = WorkersBuilder::new().count(2).report_stalls(LIMIT).observer(move |event| {
        if let WorkerEvent::Stalled { worker, fiber, .. } = event {
            let _ = tell.send((*worker, fiber.clone()));
        }
    });
    (builder.start().unwrap(), told)
}

/// Computes until it is told to stop.
#[inline(never)]
fn computes(stop: &AtomicBool) -> u64 {
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        number = black_box(number.wrapping_mul(3));
    }
    number
}

/// Allocates all the time: the signal comes in the allocator.
#[inline(never)]
fn allocates(stop: &AtomicBool) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        drop(black_box(vec![0_u8; 300]));
    }
    0
}

/// Blocks its thread.
#[inline(never)]
fn blocks(stop: &AtomicBool) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
    0
}

/// Waits for a lock of the standard library that another thread holds.
#[inline(never)]
fn locks(stop: &AtomicBool) -> u64 {
    let (lock, begun) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let (held, has_begun) = (lock.clone(), begun.clone());
    thread::scope(|scope| {
        scope.spawn(move || {
            let _held = held.lock().unwrap();
            has_begun.store(true, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        drop(lock.lock().unwrap());
    });
    0
}

/// Plants a stall, and returns what is told of that turn of the worker. It lasts until then.
fn planted(worker: &Worker, told: &Told, stall: Stall) -> (Option<StalledFiber>, u64) {
    let (stop, id) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, own) = (stop.clone(), id.clone());
    let begun = SharedChannel::bounded(1);
    let begins = begun.clone();
    let stalling = worker.spawn(move || {
        let fiber = FiberBuilder::new().name("greedy").spawn(move || {
            own.store(fibers::current_id().unwrap(), Ordering::Relaxed);
            begins.give(()).unwrap();
            stall(&stopped)
        });
        fiber.unwrap().join().unwrap()
    });
    begun.take().unwrap();
    let (index, fiber) = told.recv().unwrap();
    assert_eq!(index, worker.index(), "the other one only waits");
    stop.store(true, Ordering::Relaxed);
    stalling.unwrap().join().unwrap();
    (fiber, id.load(Ordering::Relaxed))
}

#[test]
fn each_planted_stall_is_told_with_the_function_that_keeps_the_loop() {
    // SAFETY: the handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGURG, note as *const () as usize) };
    let (workers, told) = observed();
    // A signal that is not ours goes to the handler that was there before.
    // SAFETY: a signal that is handled.
    assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
    assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    let worker = workers.get(1).unwrap();
    let kinds: [(&str, Stall); 4] = [
        ("stalls::computes", computes),
        ("stalls::allocates", allocates),
        ("stalls::blocks", blocks),
        ("stalls::locks", locks),
    ];
    for (name, stall) in kinds {
        for _ in 0..PLANTED {
            // Where threads get little time, other code may be told of instead, of the worker or of the fiber before it
            // stalls: each turn is told of once.
            let fibers = std::iter::repeat_with(|| planted(worker, &told, stall));
            let is_planted = |(fiber, id): (Option<StalledFiber>, u64)| {
                let stalls = |fiber: &StalledFiber| fiber.stack().iter().any(|frame| frame.contains(name));
                fiber.filter(|fiber| fiber.id() == id && stalls(fiber)).map(|fiber| (fiber, id))
            };
            let (fiber, id) = fibers.take(100).find_map(is_planted).expect("it is asked while it runs");
            assert_eq!((fiber.id(), fiber.name()), (id, Some("greedy")));
            let stack = fiber.stack();
            let own = stack.iter().position(|frame| frame.contains(name));
            assert!(own.is_some_and(|own| stack[own].contains("tests/stalls.rs:")), "{fiber}");
            // What is above it is the test's own.
            assert!(stack.last().unwrap().contains("stalls::planted"), "{fiber}");
        }
    }
    workers.join().unwrap();
    assert_eq!(SEEN.load(Ordering::Relaxed), 1, "ours do not");
}
