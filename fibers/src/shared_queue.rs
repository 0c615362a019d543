//! The queue of a channel between threads: who waits for it, and whom each change wakes.
//!
//! No value is ever handed to one that waits: it is woken, and takes a value when it runs, so that an interrupt in
//! between loses nothing. A wake removes the waiter from its list. What holds under the lock:
//!
//! ```text
//!   takers in the list > 0   implies   takers woken that have not looked again >= values
//!   givers in the list > 0   implies   givers woken that have not looked again >= free places
//! ```
//!
//! So a batch of values takes one wake per waiting taker at most, and one that was woken and leaves without a value
//! wakes the next.

use std::collections::VecDeque;

#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

use crate::channel::Closed;

#[cfg(all(test, not(loom)))]
mod tests;

/// What wakes one that waits, from any thread.
pub(crate) trait Notify: Clone {
    /// Has it look again.
    fn notify(self);
}

/// A place in a list of those that wait, once there is one.
pub(crate) type Ticket = Option<u64>;

pub(crate) struct SharedQueue<T, W> {
    state: Mutex<State<T, W>>,
}

struct State<T, W> {
    capacity: usize,
    closed: bool,
    values: VecDeque<T>,
    takers: Waiting<W>,
    givers: Waiting<W>,
}

/// Those that wait, sorted by ticket.
struct Waiting<W> {
    list: VecDeque<(u64, W)>,
    next_ticket: u64,
}

impl<W> Waiting<W> {
    fn new() -> Self {
        Self { list: VecDeque::new(), next_ticket: 0 }
    }

    /// Appends the waiter, unless it is in the list.
    fn add(&mut self, ticket: &mut Ticket, waiter: W) {
        if ticket.is_none_or(|ticket| self.place_of(ticket).is_none()) {
            *ticket = Some(self.next_ticket);
            self.list.push_back((self.next_ticket, waiter));
            self.next_ticket += 1;
        }
    }

    /// Takes the ticket back; true if its holder was in the list, so that it had not been woken.
    fn remove(&mut self, ticket: &mut Ticket) -> bool {
        let place = ticket.take().and_then(|ticket| self.place_of(ticket));
        place.is_some_and(|place| self.list.remove(place).is_some())
    }

    fn place_of(&self, ticket: u64) -> Option<usize> {
        self.list.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    fn first(&mut self) -> Option<W> {
        self.list.pop_front().map(|(_, waiter)| waiter)
    }
}

impl<T, W> State<T, W> {
    fn has_room(&self) -> bool {
        self.values.len() < self.capacity
    }
}

impl<T, W: Notify> SharedQueue<T, W> {
    /// A queue that holds `capacity` values, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State {
            capacity: capacity.max(1),
            closed: false,
            values: VecDeque::new(),
            takers: Waiting::new(),
            givers: Waiting::new(),
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the value in the slot. `None` if there is no room: then `waiter` is woken when there may be some.
    pub(crate) fn give(
        &self,
        slot: &mut Option<T>,
        ticket: &mut Ticket,
        waiter: impl FnOnce() -> Option<W>,
    ) -> Option<Result<(), Closed>> {
        let mut state = self.lock();
        if state.closed {
            state.givers.remove(ticket);
            return Some(Err(Closed));
        }
        if !state.has_room() {
            if let Some(waiter) = waiter() {
                state.givers.add(ticket, waiter);
            }
            return None;
        }
        state.givers.remove(ticket);
        state.values.extend(slot.take());
        let woken = state.takers.first();
        drop(state);
        woken.into_iter().for_each(W::notify);
        Some(Ok(()))
    }

    /// Takes the oldest value. `None` if there is none: then `waiter` is woken when there may be one.
    pub(crate) fn take(
        &self,
        ticket: &mut Ticket,
        waiter: impl FnOnce() -> Option<W>,
    ) -> Option<Result<T, Closed>> {
        let mut state = self.lock();
        let Some(value) = state.values.pop_front() else {
            if state.closed {
                state.takers.remove(ticket);
                return Some(Err(Closed));
            }
            if let Some(waiter) = waiter() {
                state.takers.add(ticket, waiter);
            }
            return None;
        };
        state.takers.remove(ticket);
        let woken = state.givers.first();
        drop(state);
        woken.into_iter().for_each(W::notify);
        Some(Ok(value))
    }

    /// Has `waiter` be woken when there may be room, which may be at once.
    pub(crate) fn wait_to_give(&self, ticket: &mut Ticket, waiter: W) {
        let mut state = self.lock();
        if state.closed || state.has_room() {
            drop(state);
            waiter.notify();
        } else {
            state.givers.add(ticket, waiter);
        }
    }

    /// Has `waiter` be woken when there may be a value, which may be at once.
    pub(crate) fn wait_to_take(&self, ticket: &mut Ticket, waiter: W) {
        let mut state = self.lock();
        if state.closed || !state.values.is_empty() {
            drop(state);
            waiter.notify();
        } else {
            state.takers.add(ticket, waiter);
        }
    }

    /// Stops waiting to give. One that was woken lets the next have its turn.
    pub(crate) fn leave_givers(&self, ticket: &mut Ticket) {
        if ticket.is_none() {
            return;
        }
        let mut state = self.lock();
        let was_woken = !state.givers.remove(ticket);
        let woken = if was_woken && state.has_room() { state.givers.first() } else { None };
        drop(state);
        woken.into_iter().for_each(W::notify);
    }

    /// Stops waiting to take. One that was woken lets the next have its turn.
    pub(crate) fn leave_takers(&self, ticket: &mut Ticket) {
        if ticket.is_none() {
            return;
        }
        let mut state = self.lock();
        let was_woken = !state.takers.remove(ticket);
        let woken = if was_woken && !state.values.is_empty() { state.takers.first() } else { None };
        drop(state);
        woken.into_iter().for_each(W::notify);
    }

    /// Accepts no more values, and wakes all that wait.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let (takers, givers) =
            (std::mem::take(&mut state.takers.list), std::mem::take(&mut state.givers.list));
        drop(state);
        takers.into_iter().chain(givers).for_each(|(_, waiter)| waiter.notify());
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().values.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.lock().capacity
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// Exhaustive interleavings, run by `scripts/check loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A thread that waits, as a parked fiber does. Leaked, as loom's `Arc` cannot be dropped after a deadlock.
    #[derive(Clone, Copy)]
    struct Parker(&'static (Mutex<bool>, Condvar));

    impl Parker {
        fn new() -> Self {
            Self(Box::leak(Box::new((Mutex::new(false), Condvar::new()))))
        }

        fn park(&self) {
            let mut woken = self.0.0.lock().unwrap();
            while !*woken {
                woken = self.0.1.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    impl Notify for Parker {
        fn notify(self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    type Queue = &'static SharedQueue<u32, Parker>;

    fn queue_of(capacity: usize) -> Queue {
        Box::leak(Box::new(SharedQueue::new(capacity)))
    }

    fn give(queue: Queue, value: u32) {
        let (parker, mut slot, mut ticket) = (Parker::new(), Some(value), None);
        while queue.give(&mut slot, &mut ticket, || Some(parker)).is_none() {
            parker.park();
        }
    }

    fn take(queue: Queue) -> Result<u32, Closed> {
        let (parker, mut ticket) = (Parker::new(), None);
        loop {
            match queue.take(&mut ticket, || Some(parker)) {
                Some(taken) => return taken,
                None => parker.park(),
            }
        }
    }

    fn check(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn no_value_and_no_wake_is_lost_through_a_full_queue() {
        check(|| {
            let queue = queue_of(1);
            let given = thread::spawn(move || (1..=3).for_each(|value| give(queue, value)));
            assert_eq!([take(queue), take(queue), take(queue)], [Ok(1), Ok(2), Ok(3)]);
            given.join().unwrap();
        });
    }

    #[test]
    fn two_takers_get_a_value_each() {
        check(|| {
            let queue = queue_of(2);
            let taken = thread::spawn(move || take(queue).unwrap());
            let given = thread::spawn(move || [1, 2].map(|value| give(queue, value)));
            let sum = take(queue).unwrap() + taken.join().unwrap();
            given.join().unwrap();
            assert_eq!(sum, 3);
        });
    }

    #[test]
    fn a_taker_that_was_woken_and_leaves_wakes_the_next() {
        check(|| {
            let queue = queue_of(1);
            // As a selection that is carried out elsewhere, before or after it was woken.
            let (mut leaving, parker) = (None, Parker::new());
            queue.wait_to_take(&mut leaving, parker);
            let given = thread::spawn(move || give(queue, 1));
            let taken = thread::spawn(move || take(queue));
            queue.leave_takers(&mut leaving);
            assert_eq!(taken.join().unwrap(), Ok(1));
            given.join().unwrap();
        });
    }

    #[test]
    fn closing_wakes_all_and_values_stay() {
        check(|| {
            let queue = queue_of(1);
            let taken = thread::spawn(move || [take(queue), take(queue)]);
            give(queue, 1);
            queue.close();
            assert_eq!(taken.join().unwrap(), [Ok(1), Err(Closed)]);
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_wake_that_is_lost_where_it_is_not_passed_on() {
        check(|| {
            let queue = queue_of(1);
            let (mut leaving, parker) = (None, Parker::new());
            queue.wait_to_take(&mut leaving, parker);
            let taken = thread::spawn(move || take(queue));
            let given = thread::spawn(move || give(queue, 1));
            queue.lock().takers.remove(&mut leaving);
            taken.join().unwrap().unwrap();
            given.join().unwrap();
        });
    }
}
