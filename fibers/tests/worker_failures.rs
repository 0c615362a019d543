//! Workers that fail or stall: nobody is taken along, they are told of, and replaced if that was asked for.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ringspun_fibers::{
    self as fibers, Interrupt, SharedChannel, TakeOver, Worker, WorkerEvent, Workers, WorkersBuilder,
};
use ringspun_runtime::Wake;

const AGES: Duration = Duration::from_secs(3600);

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Rc<Self>) {
        panic!("a wake panics");
    }
}

/// Has the loop of a worker panic.
fn break_down(worker: &Worker) {
    let broken = worker.spawn(|| fibers::event_loop().unwrap().insert_timer(Instant::now(), Rc::new(Bomb)));
    drop(broken.unwrap());
}

/// Workers that report what happens to them.
fn observed(builder: WorkersBuilder) -> (Workers, mpsc::Receiver<WorkerEvent>) {
    let (tell, told) = mpsc::channel();
    let workers = builder.observer(move |event| tell.send(event.clone()).unwrap_or(())).start().unwrap();
    (workers, told)
}

#[test]
fn a_worker_that_fails_takes_no_other_along_and_is_told_of() {
    let (workers, told) = observed(WorkersBuilder::new().count(3));
    let sleepers = workers.broadcast(|| fibers::sleep(AGES));
    let (failing, others) = (workers.get(1).unwrap(), [0, 2].map(|index| workers.get(index).unwrap()));
    break_down(failing);
    let WorkerEvent::Failed { worker: 1, error, is_replaced: false } = told.recv().unwrap() else {
        panic!("another event")
    };
    assert_eq!(error, "a panic: a wake panics");
    assert!(failing.has_ended() && failing.spawn(|| ()).is_err());
    // Its fibers have ended, those of others have not.
    assert_eq!(sleepers[1].join().unwrap(), Err(Interrupt::Cancelled));
    for other in others {
        assert!(!other.has_ended());
        assert_eq!(other.spawn(|| 5).unwrap().join().unwrap(), 5);
    }
    assert!(!sleepers[0].is_finished() && !sleepers[2].is_finished());
    assert!(workers.join().unwrap_err().to_string().contains("a wake panics"));
}

#[test]
fn a_replacement_takes_the_place_again_and_again() {
    let (workers, told) = observed(WorkersBuilder::new().count(2).replace_failed(true));
    let (worker, began) = (workers.get(0).unwrap().clone(), SharedChannel::bounded(10));
    let tell = began.clone();
    let succeed: Arc<TakeOver> = Arc::new(move |failed, successor| {
        tell.give((failed, successor.index(), fibers::is_fiber(), thread::current().id())).unwrap();
    });
    workers.on_failure(&succeed);
    let mut threads = vec![worker.spawn(|| thread::current().id()).unwrap().join().unwrap()];
    for _ in 0..2 {
        break_down(&worker);
        let WorkerEvent::Failed { worker: 0, is_replaced: true, .. } = told.recv().unwrap() else {
            panic!("another event")
        };
        let (failed, successor, is_fiber, thread) = began.take().unwrap();
        assert_eq!((failed, successor, is_fiber), (0, 0, true));
        assert!(!worker.has_ended());
        assert_eq!(worker.spawn(|| thread::current().id()).unwrap().join().unwrap(), thread);
        threads.push(thread);
    }
    threads.dedup();
    assert_eq!(threads.len(), 3, "the place has had three threads");
    // Those that have been replaced are no failure of the set.
    workers.join().unwrap();
    assert!(worker.has_ended() && worker.is_to_end());
}

#[test]
fn without_a_replacement_another_worker_takes_over() {
    let (workers, _told) = observed(WorkersBuilder::new().count(3));
    let began = SharedChannel::bounded(10);
    let tell = began.clone();
    let succeed: Arc<TakeOver> = Arc::new(move |failed, successor| {
        tell.give((failed, successor.index())).unwrap();
    });
    workers.on_failure(&succeed);
    break_down(workers.get(1).unwrap());
    assert_eq!(began.take(), Ok((1, 2)));
    break_down(workers.get(2).unwrap());
    assert_eq!(began.take(), Ok((2, 0)));
    // What nobody holds is not called.
    drop(succeed);
    break_down(workers.get(0).unwrap());
    while workers.iter().any(|worker| !worker.has_ended()) {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(workers.join().is_err());
    assert_eq!(began.try_take(), Ok(None));
}

#[test]
fn a_set_that_ends_replaces_nobody() {
    let (workers, told) = observed(WorkersBuilder::new().count(2).replace_failed(true));
    let begun = SharedChannel::bounded(1);
    let tell = begun.clone();
    let failing = workers.get(0).unwrap().spawn(move || {
        tell.give(()).unwrap();
        let _ = fibers::sleep(AGES);
        // The set ends, and the worker fails while it does: a turn comes before the next fiber.
        fibers::event_loop().unwrap().insert_timer(Instant::now(), Rc::new(Bomb));
        drop(fibers::spawn(|| ()));
    });
    begun.take().unwrap();
    drop(failing);
    assert!(workers.join().is_err());
    let WorkerEvent::Failed { worker: 0, is_replaced: false, .. } = told.recv().unwrap() else {
        panic!("another event")
    };
}

#[test]
fn the_calling_thread_fails_with_its_panic_and_the_others_end() {
    let (tell, told) = mpsc::channel();
    let ran = std::panic::catch_unwind(|| {
        WorkersBuilder::new().count(2).replace_failed(true).run(move |workers| -> io::Result<()> {
            tell.send(workers.get(1).unwrap().clone()).unwrap();
            break_down(workers.get(0).unwrap());
            let _ = fibers::sleep(AGES);
            Ok(())
        })
    });
    assert_eq!(ran.unwrap_err().downcast_ref(), Some(&"a wake panics"));
    let other: Worker = told.recv().unwrap();
    while !other.has_ended() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_stall_is_told_once_and_waiting_is_none() {
    let limit = Duration::from_millis(20);
    let (workers, told) = observed(WorkersBuilder::new().count(2).report_stalls(limit));
    let stalls_of_1 = |event: &WorkerEvent| match event {
        WorkerEvent::Stalled { worker: 1, stalled_for, .. } => *stalled_for == limit,
        other => panic!("the other worker only waits: {other:?}"),
    };
    for _ in 0..2 {
        let (begun, go_on) = (SharedChannel::bounded(1), SharedChannel::<()>::bounded(1));
        let (tell, goes_on) = (begun.clone(), go_on.clone());
        let stalling = workers.get(1).unwrap().spawn(move || {
            tell.give(()).unwrap();
            while goes_on.try_take() == Ok(None) {
                std::hint::spin_loop();
            }
        });
        begun.take().unwrap();
        assert!(stalls_of_1(&told.recv().unwrap()));
        // That may have been the turn before, where threads get little time.
        thread::sleep(5 * limit);
        assert!(told.try_iter().filter(stalls_of_1).count() <= 1);
        // However long it lasts, it is not told again.
        thread::sleep(5 * limit);
        assert_eq!(told.try_iter().filter(stalls_of_1).count(), 0);
        go_on.give(()).unwrap();
        stalling.unwrap().join().unwrap();
        // Where threads get little time, the rest of that turn may count.
        thread::sleep(2 * limit);
        told.try_iter().for_each(|event| assert!(stalls_of_1(&event)));
    }
    workers.join().unwrap();
}
