//! The cost of the inner parts of fibers: spawning and joining, switching, timers that do not fire, and
//! channels.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringspun::fibers::{self, Channel, Select};

/// Times `iterations` of `body` in a fiber; the runtime's start and end do not count.
fn in_fiber(iterations: u64, mut body: impl FnMut() + 'static) -> Duration {
    let timed = ringspun::run(move || {
        let start = Instant::now();
        for _ in 0..iterations {
            body();
        }
        start.elapsed()
    });
    timed.expect("a runtime for the benchmark")
}

fn fibers_cost(criterion: &mut Criterion) {
    criterion.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|iterations| {
            in_fiber(iterations, || {
                let fiber = fibers::spawn(|| black_box(1)).expect("a stack");
                black_box(fiber.join().expect("no panic"));
            })
        });
    });
    criterion.bench_function("yield", |bencher| {
        bencher.iter_custom(|iterations| in_fiber(iterations, || fibers::yield_now().expect("no cancel")));
    });
    criterion.bench_function("switch, one of 64 fibers that yield", |bencher| {
        bencher.iter_custom(|iterations| {
            // A turn of the event loop comes with each round, so that of its time a 64th is a switch's.
            let rounds = iterations.div_ceil(64);
            let timed = ringspun::run(move || {
                for _ in 1..64 {
                    fibers::spawn(|| while fibers::yield_now().is_ok() {}).expect("a stack");
                }
                fibers::yield_now().expect("no cancel");
                let start = Instant::now();
                for _ in 0..rounds {
                    fibers::yield_now().expect("no cancel");
                }
                start.elapsed()
            });
            timed.expect("a runtime for the benchmark").mul_f64(iterations as f64 / (rounds * 64) as f64)
        });
    });
    criterion.bench_function("a deadline that does not pass", |bencher| {
        bencher.iter_custom(|iterations| {
            in_fiber(iterations, || {
                fibers::with_deadline(Duration::from_secs(60), fibers::yield_now).expect("no cancel");
            })
        });
    });
}

fn channels_cost(criterion: &mut Criterion) {
    criterion.bench_function("give and take without parking", |bencher| {
        bencher.iter_custom(|iterations| {
            let channel = Channel::bounded(1);
            in_fiber(iterations, move || {
                channel.give(black_box(1)).expect("room");
                black_box(channel.take().expect("a value"));
            })
        });
    });
    for capacity in [0, 64] {
        let name = format!("give to a fiber that takes, capacity {capacity}");
        criterion.bench_function(&name, |bencher| {
            bencher.iter_custom(|iterations| {
                let channel = Channel::bounded(capacity);
                let (taken, mut taker) = (channel.clone(), None);
                in_fiber(iterations, move || {
                    taker.get_or_insert_with(|| {
                        let taken = taken.clone();
                        fibers::spawn(move || while taken.take().is_ok() {}).expect("a stack")
                    });
                    channel.give(black_box(1)).expect("a taker");
                })
            });
        });
    }
    criterion.bench_function("select of two without parking", |bencher| {
        bencher.iter_custom(|iterations| {
            let (idle, busy) = (Channel::<u32>::bounded(1), Channel::bounded(1));
            in_fiber(iterations, move || {
                busy.give(black_box(1)).expect("room");
                black_box(Select::new().take(&idle, |_| 0).take(&busy, |_| 1).wait().expect("no cancel"));
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50);
    targets = fibers_cost, channels_cost
}
criterion_main!(benches);
