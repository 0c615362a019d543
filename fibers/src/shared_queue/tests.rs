//! Threads that give, take, leave and close at random; Miri runs them in several orders (`scripts/check miri`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use super::*;

/// Values of each giver; Miri is slow.
const VALUES: u32 = if cfg!(miri) { 12 } else { 5000 };
const GIVERS: u32 = 2;
const TAKERS: u32 = 2;

/// A thread that waits.
#[derive(Clone)]
struct Parker(Arc<(AtomicBool, Thread)>);

impl Parker {
    fn of_this_thread() -> Self {
        Self(Arc::new((AtomicBool::new(false), thread::current())))
    }

    fn park(&self) {
        while !self.0.0.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

impl Notify for Parker {
    fn notify(self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.unpark();
    }
}

type Queue = SharedQueue<Box<u32>, Parker>;

fn next_of(chance: &mut u32) -> u32 {
    *chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *chance >> 16
}

/// Gives all values of a giver. Now and then it gives up waiting, as an interrupted fiber does, and begins anew.
fn give_all(queue: &Queue, giver: u32) {
    let (parker, mut chance) = (Parker::of_this_thread(), giver);
    for number in 0..VALUES {
        let (mut slot, mut ticket) = (Some(Box::new(giver * VALUES + number)), None);
        while queue.give(&mut slot, &mut ticket, || Some(parker.clone())).is_none() {
            if next_of(&mut chance).is_multiple_of(4) {
                queue.leave_givers(&mut ticket);
            } else {
                parker.park();
            }
        }
    }
}

/// Takes until the queue is closed. Now and then it leaves as one that was woken for nothing.
fn take_all(queue: &Queue, taker: u32, taken: &Mutex<Vec<u32>>) {
    let (parker, mut chance) = (Parker::of_this_thread(), taker + GIVERS);
    loop {
        let mut ticket = None;
        loop {
            match queue.take(&mut ticket, || Some(parker.clone())) {
                Some(Ok(value)) => break taken.lock().unwrap().push(*value),
                Some(Err(Closed)) => return,
                None if next_of(&mut chance).is_multiple_of(4) => queue.leave_takers(&mut ticket),
                None => parker.park(),
            }
        }
        if next_of(&mut chance).is_multiple_of(3) {
            let mut ticket = None;
            queue.wait_to_take(&mut ticket, parker.clone());
            queue.leave_takers(&mut ticket);
        }
    }
}

#[test]
fn threads_that_come_and_go_lose_no_value_and_no_wake() {
    for capacity in [1, 3] {
        let (queue, taken) = (Queue::new(capacity), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let (queue, taken) = (&queue, &taken);
            for taker in 0..TAKERS {
                scope.spawn(move || take_all(queue, taker, taken));
            }
            let givers: Vec<_> =
                (0..GIVERS).map(|giver| scope.spawn(move || give_all(queue, giver))).collect();
            givers.into_iter().for_each(|giver| giver.join().unwrap());
            queue.close();
        });
        let mut values = taken.into_inner().unwrap();
        values.extend(std::iter::from_fn(|| queue.take(&mut None, || None)?.ok().map(|value| *value)));
        assert_eq!(values.len() as u32, GIVERS * VALUES);
        assert!(values.into_iter().collect::<BTreeSet<_>>().into_iter().eq(0..GIVERS * VALUES));
    }
}

#[test]
fn what_is_left_in_a_queue_is_dropped_with_it() {
    let value = Arc::new(());
    let queue: SharedQueue<Arc<()>, Parker> = SharedQueue::new(2);
    for _ in 0..2 {
        assert_eq!(queue.give(&mut Some(value.clone()), &mut None, || None), Some(Ok(())));
    }
    assert_eq!(Arc::strong_count(&value), 3);
    drop(queue);
    assert_eq!(Arc::strong_count(&value), 1);
}
