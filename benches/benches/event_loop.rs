//! The cost of the inner parts of the event loop: an operation from its submission to its completion, with and
//! without a fiber that parks on it, with others in its slots, and timers, with others armed.

use std::cell::Cell;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringspun::fibers;
use ringspun::runtime::{
    Completion, Configuration, EventLoop, Interest, Operation, OperationKind, Owner, Wait, Wake,
};

/// Owns operations of which only the end matters, and wakes a waiter.
#[derive(Default)]
struct Ended {
    count: Cell<u64>,
    waiter: Cell<Option<Rc<dyn Wake>>>,
}

impl Owner for Ended {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        if !completion.more {
            self.count.set(self.count.get() + 1);
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

/// Waits for timers that never fire.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Rc<Self>) {}
}

/// An operation that is over as soon as the kernel sees it: the runtime has none that does nothing at all.
fn ready_at_once(socket: &UnixStream) -> Operation {
    Operation::Poll { descriptor: socket.as_raw_fd(), interest: Interest::Writable }
}

fn operations_cost(criterion: &mut Criterion) {
    criterion.bench_function("park on an operation that is ready, and resume", |bencher| {
        bencher.iter_custom(|iterations| {
            let timed = ringspun::run(move || {
                let (socket, _peer) = UnixStream::pair().expect("two sockets");
                let event_loop = fibers::event_loop().expect("a fiber has one");
                let ended = Rc::new(Ended::default());
                let start = Instant::now();
                for iteration in 0..iterations {
                    event_loop.submit(ready_at_once(&socket), ended.clone());
                    let completed = |_: &mut (), waiter: &Rc<dyn Wake>| {
                        if ended.count.get() > iteration {
                            return Poll::Ready(());
                        }
                        ended.waiter.set(Some(waiter.clone()));
                        Poll::Pending
                    };
                    fibers::wait_for_completion(
                        &mut (),
                        completed,
                        |_| (),
                        |_| fibers::WaitReason::new("a completion", ""),
                    );
                }
                start.elapsed()
            });
            timed.expect("a runtime for the benchmark")
        });
    });

    let mut group = criterion.benchmark_group("an operation, with others in flight");
    for others in [0, 1_000, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(others), |bencher| {
            let event_loop = EventLoop::new(&Configuration::default()).expect("an event loop");
            let (socket, _peer) = UnixStream::pair().expect("two sockets");
            let (ended, waiting) = (Rc::new(Ended::default()), Rc::new(Ended::default()));
            for _ in 0..others {
                // Nothing ever comes from the peer, so these keep their slots.
                let descriptor = socket.as_raw_fd();
                event_loop
                    .submit(Operation::Poll { descriptor, interest: Interest::Readable }, waiting.clone());
            }
            event_loop.turn(Wait::No).expect("a turn");
            assert_eq!(waiting.count.get(), 0, "the others are in flight");
            let (ready, _ready_peer) = UnixStream::pair().expect("two sockets");
            bencher.iter(|| {
                let before = ended.count.get();
                event_loop.submit(ready_at_once(&ready), ended.clone());
                while ended.count.get() == before {
                    event_loop.turn(Wait::Block).expect("a turn");
                }
            });
            event_loop.shutdown().expect("an end");
        });
    }
    group.finish();

    criterion.bench_function("64 operations in one turn", |bencher| {
        let event_loop = EventLoop::new(&Configuration::default()).expect("an event loop");
        let (socket, _peer) = UnixStream::pair().expect("two sockets");
        let ended = Rc::new(Ended::default());
        bencher.iter(|| {
            let before = ended.count.get();
            for _ in 0..64 {
                event_loop.submit(ready_at_once(&socket), ended.clone());
            }
            while ended.count.get() < before + 64 {
                event_loop.turn(Wait::Block).expect("a turn");
            }
        });
    });
    criterion.bench_function("a key whose operation is over", |bencher| {
        let event_loop = EventLoop::new(&Configuration::default()).expect("an event loop");
        let (socket, _peer) = UnixStream::pair().expect("two sockets");
        let ended = Rc::new(Ended::default());
        let key = event_loop.submit(ready_at_once(&socket), ended.clone());
        while ended.count.get() == 0 {
            event_loop.turn(Wait::Block).expect("a turn");
        }
        bencher.iter(|| event_loop.cancel(black_box(key)));
    });
}

fn timers_cost(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert and remove a timer, with others armed");
    for others in [0, 1_000, 100_000] {
        group.bench_function(BenchmarkId::from_parameter(others), |bencher| {
            let event_loop = EventLoop::new(&Configuration::default()).expect("an event loop");
            let waiter: Rc<dyn Wake> = Rc::new(Nobody);
            let base = Instant::now() + Duration::from_secs(3600);
            let deadlines = scattered_deadlines(base);
            for deadline in &deadlines[..others] {
                event_loop.insert_timer(*deadline, waiter.clone());
            }
            // Among the others, and not all in one place: what a timer costs depends on where it sorts in.
            let mut next = deadlines.iter().rev().cycle();
            bencher.iter(|| {
                let deadline = next.next().copied().unwrap_or(base);
                let key = event_loop.insert_timer(black_box(deadline), waiter.clone());
                event_loop.remove_timer(black_box(key));
            });
        });
    }
    group.finish();
}

/// 100,000 points of time in the hour after `base`, in no order but the same in each run.
fn scattered_deadlines(base: Instant) -> Vec<Instant> {
    let mut state = 1u64;
    let mut next = || {
        // A full-period generator; its upper bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        base + Duration::from_millis((state >> 33) % 3_600_000)
    };
    (0..100_000).map(|_| next()).collect()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50);
    targets = operations_cost, timers_cost
}
criterion_main!(benches);
