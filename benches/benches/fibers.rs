//! What the inner parts of fibers cost: spawning and joining, switching, and timers that do not fire.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringspun::fibers;

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
    criterion.bench_function("a deadline that does not pass", |bencher| {
        bencher.iter_custom(|iterations| {
            in_fiber(iterations, || {
                fibers::with_deadline(Duration::from_secs(60), fibers::yield_now).expect("no cancel");
            })
        });
    });
}

criterion_group!(benches, fibers_cost);
criterion_main!(benches);
