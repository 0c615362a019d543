//! Workers, tasks on them, and channels between threads.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Chance, spawn};
use ringspun_fibers::{
    self as fibers, Channel, ChannelError, Closed, Interrupt, JoinError, RuntimeEnded, Select, SharedChannel,
    TryGiveError, Workers, WorkersBuilder,
};

const AGES: Duration = Duration::from_secs(3600);

fn workers(count: usize) -> Workers {
    WorkersBuilder::new().count(count).start().unwrap()
}

#[test]
fn each_worker_is_a_thread_with_a_runtime() {
    let workers = workers(3);
    let threads = workers.broadcast(|| (thread::current().id(), fibers::is_fiber()));
    let mut threads: Vec<_> = threads.iter().map(|task| task.join().unwrap()).collect();
    assert!(threads.iter().all(|(_, is_fiber)| *is_fiber));
    threads.sort_by_key(|(id, _)| format!("{id:?}"));
    threads.dedup();
    assert_eq!((threads.len(), workers.len()), (3, 3));
    assert!(workers.iter().map(|worker| worker.index()).eq(0..3));
    workers.join().unwrap();
}

#[test]
fn a_task_may_own_much() {
    #[repr(align(64))]
    struct Aligned([u8; 1000]);

    let (large, aligned, workers) = ([7_u8; 5000], Aligned([7; 1000]), workers(1));
    let sent = workers.get(0).unwrap().spawn(move || (large[4999], aligned.0[999])).unwrap();
    assert_eq!(sent.join().unwrap(), (7, 7));
}

#[test]
fn by_default_there_is_one_for_each_core_that_may_be_used() {
    let workers = WorkersBuilder::new().start().unwrap();
    assert_eq!(workers.len(), thread::available_parallelism().unwrap().get());
}

#[cfg(target_os = "linux")]
#[test]
fn pinned_workers_stay_on_one_core_each() {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    let allowed = |set: &CpuSet| (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap()).count();
    let all = allowed(&sched_getaffinity(Pid::from_raw(0)).unwrap());
    let pinned = WorkersBuilder::new().count(3).pinned(true).start().unwrap();
    let cores = pinned.broadcast(move || allowed(&sched_getaffinity(Pid::from_raw(0)).unwrap()));
    assert!(cores.iter().all(|task| task.join().unwrap() == 1));
    let unpinned = workers(1);
    let free = unpinned.broadcast(move || allowed(&sched_getaffinity(Pid::from_raw(0)).unwrap()));
    assert_eq!(free[0].join().unwrap(), all);
}

#[test]
fn the_calling_thread_can_be_the_first_worker() {
    let calling = thread::current().id();
    let ran = WorkersBuilder::new().count(2).run(move |workers| {
        let ids = workers.broadcast(|| thread::current().id());
        let ids: Vec<_> = ids.iter().map(|task| task.join().unwrap()).collect();
        // Fibers that wait do not keep it from ending.
        workers.broadcast(|| fibers::sleep(AGES));
        ids
    });
    let ids = ran.unwrap();
    assert_eq!(ids[0], calling);
    assert_ne!(ids[1], calling);
}

#[test]
fn a_panic_ends_its_fiber_and_no_worker() {
    let workers = workers(2);
    let worker = workers.get(1).unwrap();
    let panics = worker.spawn(|| -> u8 { panic!("on another thread") }).unwrap();
    let error = panics.join().unwrap_err();
    assert_eq!(error.to_string(), "the fiber panicked: on another thread");
    assert!(matches!(panics.join(), Err(JoinError::Taken)));
    assert_eq!(worker.spawn(|| 5).unwrap().join().unwrap(), 5);
    assert!(workers.iter().all(|worker| !worker.has_ended()));
    workers.join().unwrap();
}

#[test]
fn a_task_can_be_cancelled_from_anywhere() {
    let workers = workers(1);
    let (running, runs) = (SharedChannel::bounded(1), SharedChannel::bounded(1));
    let tell = running.clone();
    let worker = workers.get(0).unwrap();
    let sleeper = worker.spawn(move || {
        tell.give(()).unwrap();
        fibers::sleep(AGES)
    });
    let sleeper = sleeper.unwrap();
    running.take().unwrap();
    assert!(!sleeper.is_finished());
    sleeper.cancel();
    assert_eq!(sleeper.join().unwrap(), Err(Interrupt::Cancelled));
    // Before it has begun: the worker is busy until we tell it to go on.
    let go_on = runs.clone();
    worker.remote().execute(move || while !matches!(go_on.try_take(), Ok(Some(()))) {}).unwrap();
    let second = worker.spawn(|| fibers::sleep(AGES)).unwrap();
    second.cancel();
    runs.give(()).unwrap();
    assert_eq!(second.join().unwrap(), Err(Interrupt::Cancelled));
    // It has ended.
    second.cancel();
}

#[test]
fn the_end_of_workers_cancels_what_waits_and_refuses_more() {
    let workers = workers(2);
    let (channel, begun) = (SharedChannel::<u8>::bounded(1), SharedChannel::bounded(3));
    let (taking, tell, told) = (channel.clone(), begun.clone(), begun.clone());
    let sleepers = workers.broadcast(move || {
        tell.give(()).unwrap();
        fibers::sleep(AGES)
    });
    let taker = workers.get(1).unwrap().spawn(move || {
        told.give(()).unwrap();
        taking.take()
    });
    let taker = taker.unwrap();
    (0..3).for_each(|_| begun.take().unwrap());
    let first = workers.get(0).unwrap().clone();
    workers.join().unwrap();
    assert!(sleepers.iter().all(|sleeper| sleeper.join().unwrap() == Err(Interrupt::Cancelled)));
    assert_eq!(taker.join().unwrap(), Err(ChannelError::Interrupted(Interrupt::Cancelled)));
    assert!(first.has_ended());
    assert_eq!(first.spawn(|| 1).unwrap_err(), RuntimeEnded);
    // What has left takes no value with it.
    channel.give(7).unwrap();
    assert_eq!(channel.try_take(), Ok(Some(7)));
}

#[test]
fn a_task_whose_runtime_ends_first_is_lost() {
    let ((sender, remotes), (tell, told)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let thread = thread::spawn(move || {
        fibers::run(move || {
            sender.send(fibers::remote().unwrap()).unwrap();
            // The task comes while this blocks the loop, and the runtime ends before its loop turns.
            told.recv().unwrap();
        })
    });
    let task = remotes.recv().unwrap().spawn(|| 1).unwrap();
    tell.send(()).unwrap();
    thread.join().unwrap().unwrap();
    assert!(matches!(task.join(), Err(JoinError::Lost)));
}

#[test]
fn a_full_channel_holds_its_giver_up() {
    let channel = SharedChannel::bounded(2);
    assert_eq!(channel.capacity(), 2);
    let giver = channel.clone();
    let thread = thread::spawn(move || (0..100).for_each(|number| giver.give(number).unwrap()));
    fibers::run(move || {
        for number in 0..100 {
            assert!(channel.len() <= 2);
            assert_eq!(channel.take(), Ok(number));
        }
        assert_eq!(channel.try_take(), Ok(None));
    })
    .unwrap();
    thread.join().unwrap();
}

#[test]
fn closing_a_channel_ends_every_wait_on_any_thread() {
    let (full, empty) = (SharedChannel::bounded(1), SharedChannel::<u32>::bounded(1));
    full.give(1).unwrap();
    let workers = workers(2);
    let (giving, taking) = (full.clone(), empty.clone());
    let given = workers.broadcast(move || giving.give(2).unwrap_err().value);
    let taken = workers.broadcast(move || taking.take());
    let blocked = empty.clone();
    let thread = thread::spawn(move || blocked.take());
    thread::sleep(Duration::from_millis(5));
    full.close();
    empty.close();
    assert!(given.iter().all(|task| task.join().unwrap() == 2));
    assert!(taken.iter().all(|task| task.join().unwrap() == Err(ChannelError::Closed)));
    assert_eq!(thread.join().unwrap(), Err(ChannelError::Closed));
    assert_eq!(full.try_give(3), Err(TryGiveError::Closed(3)));
    assert_eq!(full.take(), Ok(1));
    assert_eq!(full.take(), Err(ChannelError::Closed));
}

#[test]
fn an_interrupted_giver_gets_its_value_back() {
    fibers::run(|| {
        let channel = SharedChannel::bounded(1);
        channel.give(1).unwrap();
        let late = fibers::with_deadline(Duration::from_millis(1), || channel.give(2));
        let error = late.unwrap_err();
        assert_eq!((error.value, error.cause), (2, ChannelError::Interrupted(Interrupt::DeadlineExpired)));
        assert_eq!(channel.take(), Ok(1));
        assert!(channel.is_empty());
    })
    .unwrap();
}

#[test]
fn a_woken_taker_that_is_cancelled_lets_another_have_the_value() {
    fibers::run(|| {
        let channel = SharedChannel::bounded(1);
        let take = |channel: &SharedChannel<u8>| {
            let channel = channel.clone();
            spawn(move || channel.take())
        };
        let (first, second) = (take(&channel), take(&channel));
        common::settle();
        // It is woken for the value, and cancelled before it runs.
        channel.try_give(9).unwrap();
        first.cancel();
        let taken = (first.join().unwrap(), channel.is_empty());
        if taken.0 == Ok(9) {
            second.cancel();
            assert!(second.join().unwrap().is_err());
        } else {
            assert_eq!(second.join().unwrap(), Ok(9));
        }
    })
    .unwrap();
}

#[test]
fn a_selection_waits_for_local_and_shared_channels_together() {
    let workers = workers(2);
    let (to_second, from_first) = (SharedChannel::bounded(1), SharedChannel::bounded(1));
    let (giving, taking) = (to_second.clone(), from_first.clone());
    let selecting = workers.get(0).unwrap().spawn(move || {
        let local = Channel::<u32>::bounded(1);
        let mut seen = Vec::new();
        let mut slot = Some(1);
        while seen.len() < 3 {
            let event = Select::new()
                .take_shared(&taking, |taken| ("taken", taken.unwrap_or(0)))
                .give_shared(&giving, &mut slot, |given: Result<(), Closed>| {
                    ("given", u32::from(given.is_ok()))
                })
                .take(&local, |taken| ("local", taken.unwrap_or(0)))
                .wait()
                .unwrap();
            if event.0 == "given" {
                local.give(5).unwrap();
            }
            seen.push(event);
        }
        seen.sort();
        seen
    });
    assert_eq!(to_second.take(), Ok(1));
    from_first.give(7).unwrap();
    assert_eq!(selecting.unwrap().join().unwrap(), [("given", 1), ("local", 5), ("taken", 7)]);
}

#[test]
fn a_selection_that_chooses_otherwise_takes_nothing_from_a_shared_channel() {
    fibers::run(|| {
        let (local, shared) = (Channel::bounded(1), SharedChannel::bounded(1));
        let (theirs, ours) = (shared.clone(), local.clone());
        let selecting = spawn(move || Select::new().take(&ours, |v| v).take_shared(&theirs, |v| v).wait());
        common::settle();
        // Both become possible before it runs.
        shared.try_give(2).unwrap();
        local.give(1).unwrap();
        assert_eq!(selecting.join().unwrap(), Ok(Ok(1)));
        assert_eq!(shared.try_take(), Ok(Some(2)));
    })
    .unwrap();
}

/// What became of the values of a storm.
#[derive(Default)]
struct Fates {
    taken: Mutex<Vec<u32>>,
    returned: Mutex<Vec<u32>>,
}

/// Gives or takes at random, with deadlines and selections, until `goal` values have been given up or taken.
fn act(seed: u64, channel: &SharedChannel<u32>, next: &AtomicUsize, goal: usize, fates: &Fates) {
    let mut chance = Chance::new(seed);
    let local = Channel::<u32>::bounded(1);
    loop {
        let patience = Duration::from_micros(chance.below(300) as u64);
        if chance.below(2) == 0 {
            let value = next.fetch_add(1, Ordering::Relaxed);
            if value >= goal {
                break;
            }
            let value = value as u32;
            match chance.below(3) {
                0 => match channel.try_give(value) {
                    Ok(()) => {}
                    Err(error) => fates.returned.lock().unwrap().push(error.into_value()),
                },
                1 => {
                    let given = fibers::with_deadline(patience, || channel.give(value));
                    fates.returned.lock().unwrap().extend(given.err().map(|error| error.value));
                }
                _ => {
                    let mut slot = Some(value);
                    let _ = fibers::with_deadline(patience, || {
                        Select::new().take(&local, drop).give_shared(channel, &mut slot, drop).wait()
                    });
                    fates.returned.lock().unwrap().extend(slot);
                }
            }
        } else {
            let taken = match chance.below(3) {
                0 => channel.try_take().ok().flatten(),
                1 => fibers::with_deadline(patience, || channel.take()).ok(),
                _ => fibers::with_deadline(patience, || {
                    Select::new().take(&local, Result::ok).take_shared(channel, Result::ok).wait()
                })
                .ok()
                .flatten(),
            };
            fates.taken.lock().unwrap().extend(taken);
        }
    }
}

#[test]
fn no_value_is_lost_or_doubled_between_threads_that_give_up() {
    const GOAL: usize = 6000;
    let (channel, next, fates) =
        (SharedChannel::bounded(3), Arc::new(AtomicUsize::new(0)), Arc::<Fates>::default());
    let workers = workers(3);
    let tasks: Vec<_> = (0..12)
        .map(|number: usize| {
            let (channel, next, fates) = (channel.clone(), next.clone(), fates.clone());
            let worker = workers.get(number % 3).unwrap();
            worker.spawn(move || act(number as u64, &channel, &next, GOAL, &fates)).unwrap()
        })
        .collect();
    tasks.iter().for_each(|task| task.join().unwrap());
    let mut values = fates.taken.lock().unwrap().clone();
    assert!(values.len() > GOAL / 20, "only {} were taken", values.len());
    values.extend(fates.returned.lock().unwrap().iter());
    while let Ok(Some(left)) = channel.try_take() {
        values.push(left);
    }
    values.sort_unstable();
    assert!(values.iter().copied().eq(0..GOAL as u32), "lost or doubled");
}
