//! Locks of fibers: fair, and an interrupt at any moment loses no permit, no notification and no value.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::sync::{self, Barrier, BroadcastError, Mutex, Notify, OnceCell, RwLock, Semaphore};
use ringspun_fibers::{self as fibers, ChannelError, Elapsed, Interrupt, Select};

use common::{Chance, on_both_stacks, settle, spawn};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(2);

/// Who came to something, in which order.
#[derive(Clone, Default)]
struct Order(Rc<RefCell<Vec<u32>>>);

impl Order {
    fn note(&self, number: u32) {
        self.0.borrow_mut().push(number);
    }

    fn take(&self) -> Vec<u32> {
        self.0.take()
    }
}

#[test]
fn a_mutex_goes_to_the_fibers_in_the_order_of_their_calls() {
    on_both_stacks(|| {
        let (mutex, order) = (Rc::new(Mutex::new(0)), Order::default());
        let held = mutex.lock().unwrap();
        let waiting: Vec<_> = (0..5)
            .map(|number| {
                let (mutex, order) = (mutex.clone(), order.clone());
                spawn(move || {
                    let mut value = mutex.lock()?;
                    order.note(number);
                    *value += 1;
                    fibers::sleep(SOON)
                })
            })
            .collect();
        settle();
        waiting[2].cancel();
        drop(held);
        // Those that wait come first, though the lock is free now.
        assert!(mutex.try_lock().is_none());
        let after = (mutex.clone(), order.clone());
        let last = spawn(move || after.0.lock().map(|_| after.1.note(9)));
        for (number, fiber) in waiting.into_iter().enumerate() {
            assert_eq!(fiber.join().unwrap().is_err(), number == 2);
        }
        last.join().unwrap().unwrap();
        assert_eq!((order.take(), *mutex.lock().unwrap()), (vec![0, 1, 3, 4, 9], 4));
    });
}

#[test]
fn a_lock_that_is_given_up_after_the_wake_goes_to_the_next() {
    on_both_stacks(|| {
        let mutex = Rc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let lock = || {
            let mutex = mutex.clone();
            spawn(move || mutex.lock().map(drop))
        };
        let (first, second) = (lock(), lock());
        settle();
        // The first is woken, and cancelled before it runs: a result has priority, so it has the lock.
        drop(held);
        first.cancel();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(()), Ok(())));
        let held = mutex.lock().unwrap();
        let (first, second) = (lock(), lock());
        settle();
        first.cancel();
        drop(held);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(()), Ok(())));
        // Interrupted while it is not its turn.
        let held = mutex.lock().unwrap();
        let (first, second) = (lock(), lock());
        settle();
        first.cancel();
        settle();
        drop(held);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Err(Interrupt::Cancelled), Ok(())));
    });
}

#[test]
fn a_panic_releases_the_lock_and_does_not_poison_it() {
    on_both_stacks(|| {
        let mutex = Rc::new(Mutex::new(1));
        let inner = mutex.clone();
        let panics = spawn(move || {
            let _held = inner.lock().unwrap();
            std::panic::resume_unwind(Box::new("in the lock"))
        });
        assert!(panics.join().is_err());
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn a_writer_is_not_starved_by_readers() {
    on_both_stacks(|| {
        let (lock, order) = (Rc::new(RwLock::new(0)), Order::default());
        let reading = lock.read().unwrap();
        let (writes, reads) = ((lock.clone(), order.clone()), (lock.clone(), order.clone()));
        let writer = spawn(move || {
            *writes.0.write().unwrap() += 1;
            writes.1.note(1);
        });
        settle();
        let reader = spawn(move || {
            reads.1.note(2);
            assert_eq!(*reads.0.read().unwrap(), 1);
            reads.1.note(3);
        });
        settle();
        assert!(lock.try_read().is_none(), "a writer waits");
        drop(reading);
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(order.take(), [2, 1, 3]);
        let both = (lock.try_read(), lock.try_read());
        assert!(both.0.is_some() && both.1.is_some() && lock.try_write().is_none());
    });
}

#[test]
fn many_permits_are_not_starved_by_few_and_none_is_lost() {
    on_both_stacks(|| {
        let semaphore = Rc::new(Semaphore::new(3));
        let one = semaphore.try_acquire(1).unwrap();
        let (all, more) = (semaphore.clone(), semaphore.clone());
        let wants_all = spawn(move || all.acquire(3).map(drop));
        settle();
        let wants_one = spawn(move || more.acquire(1).map(drop));
        settle();
        assert!(!wants_one.is_finished(), "though there are two");
        wants_all.cancel();
        assert_eq!(wants_all.join().unwrap(), Err(Interrupt::Cancelled));
        wants_one.join().unwrap().unwrap();
        drop(one);
        assert_eq!(semaphore.available(), 3);
        semaphore.acquire(2).unwrap().forget();
        semaphore.add(1);
        assert_eq!(semaphore.available(), 2);
    });
}

#[test]
fn a_notification_is_for_one_and_is_passed_on() {
    on_both_stacks(|| {
        let (notify, order) = (Rc::new(Notify::new()), Order::default());
        let wait = |number| {
            let (notify, order) = (notify.clone(), order.clone());
            let fiber = spawn(move || notify.wait().map(|()| order.note(number)));
            settle();
            fiber
        };
        let fibers = [wait(0), wait(1), wait(2)];
        notify.notify_one();
        settle();
        assert_eq!(order.take(), [0]);
        // Left by the one that it was for.
        fibers[1].cancel();
        settle();
        notify.notify_one();
        settle();
        assert_eq!(order.take(), [2]);
        // Kept once, for the next.
        notify.notify_one();
        notify.notify_one();
        wait(3).join().unwrap().unwrap();
        assert_eq!(fibers::timeout(SOON, || notify.wait()), Err(Elapsed));
        let all = [wait(4), wait(5)];
        notify.notify_all();
        all.into_iter().for_each(|fiber| fiber.join().unwrap().unwrap());
        assert_eq!(fibers::timeout(SOON, || notify.wait()), Err(Elapsed), "not kept");
        assert_eq!(order.take(), [3, 4, 5]);
    });
}

#[test]
fn a_barrier_lets_all_go_and_forgets_those_that_gave_up() {
    on_both_stacks(|| {
        let barrier = Rc::new(Barrier::new(3));
        let wait = || {
            let barrier = barrier.clone();
            spawn(move || barrier.wait())
        };
        for _ in 0..3 {
            let (first, gives_up) = (wait(), wait());
            settle();
            gives_up.cancel();
            settle();
            let second = wait();
            settle();
            assert!(!first.is_finished() && !second.is_finished());
            assert_eq!(barrier.wait(), Ok(true));
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(false), Ok(false)));
            assert_eq!(gives_up.join().unwrap(), Err(Interrupt::Cancelled));
        }
    });
}

#[test]
fn a_value_is_made_once_and_a_failure_is_not_kept() {
    on_both_stacks(|| {
        let cell = Rc::new(OnceCell::new());
        let tries = Rc::new(Cell::new(0));
        let make = |result: Result<u32, Interrupt>| {
            let (cell, tries) = (cell.clone(), tries.clone());
            spawn(move || {
                cell.get_or_try_init(|| {
                    tries.set(tries.get() + 1);
                    fibers::sleep(SOON)?;
                    result
                })
                .copied()
            })
        };
        let (fails, makes, gets) = (make(Err(Interrupt::Cancelled)), make(Ok(7)), make(Ok(8)));
        settle();
        assert_eq!(cell.set(9), Err(9), "it is being made");
        assert!(fails.join().unwrap().is_err());
        assert_eq!((makes.join().unwrap(), gets.join().unwrap()), (Ok(7), Ok(7)));
        assert_eq!((tries.get(), cell.get(), cell.get_or_init(|| 1)), (2, Some(&7), Ok(&7)));
    });
}

#[test]
fn one_value_arrives_or_tells_that_it_will_not() {
    on_both_stacks(|| {
        let (sender, receiver) = sync::one_shot();
        let late = fibers::timeout(SOON, || receiver.receive());
        assert_eq!(late, Err(Elapsed));
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!((receiver.receive(), receiver.receive()), (Ok(7), Err(ChannelError::Closed)));
        let (sender, receiver) = sync::one_shot::<u32>();
        let waits = spawn(move || sender.closed().map(|()| sender.send(7)));
        settle();
        drop(receiver);
        assert_eq!(waits.join().unwrap(), Ok(Err(7)));
        let (sender, receiver) = sync::one_shot::<u32>();
        let waits = spawn(move || receiver.receive());
        settle();
        drop(sender);
        assert_eq!(waits.join().unwrap(), Err(ChannelError::Closed));
    });
}

#[test]
fn a_watch_skips_to_the_newest_value() {
    on_both_stacks(|| {
        let (sender, mut receiver) = sync::watch(0);
        let mut other = receiver.clone();
        let seen = spawn(move || {
            let mut seen = Vec::new();
            while other.changed().is_ok() {
                seen.push(*other.get());
            }
            seen
        });
        assert_eq!(fibers::timeout(SOON, || receiver.changed()), Err(Elapsed));
        for values in [[1, 2], [3, 4]] {
            values.into_iter().for_each(|value| sender.set(value));
            settle();
        }
        sender.update(|value| *value += 1);
        drop(sender.clone());
        settle();
        drop(sender);
        assert_eq!(seen.join().unwrap(), [2, 4, 5]);
        assert_eq!((receiver.changed(), *receiver.get()), (Ok(()), 5));
        assert_eq!(receiver.changed(), Err(ChannelError::Closed));
    });
}

#[test]
fn a_broadcast_reaches_all_and_counts_what_was_missed() {
    on_both_stacks(|| {
        let (sender, mut first) = sync::broadcast(3);
        let mut second = sender.receiver();
        let waiting = spawn(move || second.receive());
        settle();
        (0..5).for_each(|value| sender.send(value));
        assert_eq!(waiting.join().unwrap(), Err(BroadcastError::Missed(2)));
        assert_eq!(first.receive(), Err(BroadcastError::Missed(2)));
        let mut third = first.clone();
        for receiver in [&mut first, &mut third] {
            assert_eq!([(); 3].map(|()| receiver.receive()), [Ok(2), Ok(3), Ok(4)]);
        }
        assert_eq!(fibers::timeout(SOON, || first.receive()), Err(Elapsed));
        drop(sender);
        assert_eq!(first.receive(), Err(BroadcastError::Closed));
    });
}

#[test]
fn a_selection_waits_for_any_of_them_and_takes_only_one() {
    on_both_stacks(|| {
        let (mutex, notify) = (Mutex::new(()), Notify::new());
        let (reply, answer) = sync::one_shot();
        let (level, mut levels) = sync::watch(0);
        let never = spawn(|| fibers::sleep(AGES));
        let held = mutex.lock().unwrap();
        // Where something else is there, time must not come first, however late this fiber is.
        let mut select_within = |limit| {
            Select::new()
                .on(mutex.locking(), |_| "lock")
                .on(notify.notified(), |()| "notified")
                .on(answer.received(), |value| if value == Some(7) { "answer" } else { "no answer" })
                .on(levels.change(), |_| "level")
                .on(never.joining(), |_| "joined")
                .on(fibers::after(limit), |()| "time")
                .wait_shuffled()
                .unwrap()
        };
        assert_eq!(select_within(SOON), "time");
        let mut select = || select_within(AGES);
        notify.notify_one();
        assert_eq!(select(), "notified");
        level.set(1);
        assert_eq!(select(), "level");
        reply.send(7).unwrap();
        assert_eq!(select(), "answer");
        drop(held);
        let first = select();
        assert!(first == "lock" || first == "no answer", "{first}");
        assert!(mutex.try_lock().is_some(), "nothing is left in a queue");
        assert_eq!(fibers::timeout(SOON, || notify.wait()), Err(Elapsed));
        never.cancel();
    });
}

#[test]
fn the_end_of_a_runtime_ends_every_wait() {
    let alive = fibers::run(|| {
        let (mutex, lock) = (Rc::new(Mutex::new(())), Rc::new(RwLock::new(())));
        let (semaphore, barrier) = (Rc::new(Semaphore::new(0)), Rc::new(Barrier::new(2)));
        let (notify, held) = (Rc::new(Notify::new()), mutex.clone());
        let holder = lock.clone();
        let holds = spawn(move || {
            let _held = (held.lock().unwrap(), holder.read().unwrap());
            fibers::sleep(AGES)
        });
        settle();
        let (sender, receiver) = sync::one_shot::<()>();
        let (levels, mut level) = sync::watch(());
        let (chat, mut heard) = sync::broadcast::<()>(1);
        let waits = [
            spawn(move || mutex.lock().is_err()),
            spawn(move || lock.write().is_err()),
            spawn(move || semaphore.acquire(1).is_err()),
            spawn(move || barrier.wait().is_err()),
            spawn(move || notify.wait().is_err()),
            spawn(move || receiver.receive().is_err()),
            spawn(move || level.changed().is_err()),
            spawn(move || heard.receive().is_err()),
        ];
        settle();
        let alive = fibers::statistics().unwrap().alive;
        std::mem::forget((sender, levels, chat, waits, holds));
        alive
    });
    assert_eq!(alive.unwrap(), 10);
}

#[test]
fn random_interrupts_lose_no_permit() {
    fibers::run(|| {
        for seed in 0..20 {
            let chance = Rc::new(RefCell::new(Chance::new(seed)));
            let (semaphore, taken) = (Rc::new(Semaphore::new(4)), Rc::new(Cell::new(0)));
            let fibers: Vec<_> = (0..8)
                .map(|_| {
                    let (chance, semaphore, taken) = (chance.clone(), semaphore.clone(), taken.clone());
                    spawn(move || {
                        for _ in 0..50 {
                            let count = 1 + chance.borrow_mut().below(4);
                            let Ok(permit) = semaphore.acquire(count) else { continue };
                            taken.set(taken.get() + count);
                            assert!(taken.get() <= 4);
                            let _ = fibers::yield_now();
                            taken.set(taken.get() - count);
                            drop(permit);
                        }
                    })
                })
                .collect();
            while !fibers.iter().all(|fiber| fiber.is_finished()) {
                fibers[chance.borrow_mut().below(8)].cancel();
                fibers::yield_now().unwrap();
            }
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            assert_eq!((semaphore.available(), taken.get()), (4, 0));
        }
    })
    .unwrap();
}
