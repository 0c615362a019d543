//! Timers in user space: a binary heap with the position of each timer, so that a timer that has not fired is
//! removed in O(log n) instead of lingering until its deadline.

use std::rc::Rc;
use std::time::Instant;

use slab::Slab;

use crate::wake::Wake;

/// Identifies an armed timer of an [`EventLoop`](crate::EventLoop).
///
/// The key of a timer that has fired or been removed matches no later timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

#[derive(Default)]
pub(crate) struct Timers {
    /// Indices into `slab`, ordered as a binary min-heap by deadline.
    heap: Vec<u32>,
    slab: Slab<Timer>,
    next_generation: u32,
}

struct Timer {
    deadline: Instant,
    generation: u32,
    /// Its position in `heap`.
    position: u32,
    waiter: Rc<dyn Wake>,
}

impl Timers {
    pub(crate) fn insert(&mut self, deadline: Instant, waiter: Rc<dyn Wake>) -> TimerKey {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let position = self.heap.len();
        let index =
            self.slab.insert(Timer { deadline, generation, position: position as u32, waiter }) as u32;
        self.heap.push(index);
        self.sift_up(position);
        TimerKey { index, generation }
    }

    /// Removes a timer that has not fired; does nothing for one that has.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Rc<dyn Wake>> {
        let timer = self.slab.get(key.index as usize)?;
        let position = timer.position as usize;
        (timer.generation == key.generation).then(|| self.take_at(position))
    }

    pub(crate) fn contains(&self, key: TimerKey) -> bool {
        self.slab.get(key.index as usize).is_some_and(|timer| timer.generation == key.generation)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|&index| self.slab[index as usize].deadline)
    }

    /// Takes the earliest timer if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Rc<dyn Wake>> {
        if self.next_deadline()? > now {
            return None;
        }
        Some(self.take_at(0))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn take_at(&mut self, position: usize) -> Rc<dyn Wake> {
        let index = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.place(position, self.heap[position]);
            let settled = self.sift_up(position);
            self.sift_down(settled);
        }
        self.slab.remove(index as usize).waiter
    }

    fn deadline_at(&self, position: usize) -> Instant {
        self.slab[self.heap[position] as usize].deadline
    }

    fn place(&mut self, position: usize, index: u32) {
        self.heap[position] = index;
        self.slab[index as usize].position = position as u32;
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (at_a, at_b) = (self.heap[a], self.heap[b]);
        self.place(a, at_b);
        self.place(b, at_a);
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.deadline_at(parent) <= self.deadline_at(position) {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let (left, right) = (2 * position + 1, 2 * position + 2);
            let mut smallest = position;
            for child in [left, right] {
                if child < self.heap.len() && self.deadline_at(child) < self.deadline_at(smallest) {
                    smallest = child;
                }
            }
            if smallest == position {
                return;
            }
            self.swap(position, smallest);
            position = smallest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::time::Duration;

    struct Note(usize, Rc<RefCell<Vec<usize>>>);
    impl Wake for Note {
        fn wake(self: Rc<Self>) {
            self.1.borrow_mut().push(self.0);
        }
    }

    /// Random inserts, removals and expiries, compared with a sorted list as the model.
    #[test]
    fn fires_in_order_and_never_after_removal() {
        let start = Instant::now();
        let fired = Rc::new(RefCell::new(Vec::new()));
        let mut timers = Timers::default();
        let mut model: Vec<(u64, usize, TimerKey)> = Vec::new();
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        let mut random = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for id in 0..if cfg!(miri) { 500 } else { 20_000 } {
            match random(4) {
                0 | 1 => {
                    let due_ms = random(5_000);
                    let note = Rc::new(Note(id, fired.clone()));
                    let key = timers.insert(start + Duration::from_millis(due_ms), note);
                    model.push((due_ms, id, key));
                }
                2 if !model.is_empty() => {
                    let (_, _, key) = model.swap_remove(random(model.len() as u64) as usize);
                    timers.remove(key);
                    timers.remove(key);
                }
                _ => {
                    let now_ms = random(5_000);
                    fired.borrow_mut().clear();
                    while let Some(waiter) = timers.pop_due(start + Duration::from_millis(now_ms)) {
                        waiter.wake();
                    }
                    let mut expected: Vec<(u64, usize)> =
                        model.iter().filter(|t| t.0 <= now_ms).map(|t| (t.0, t.1)).collect();
                    model.retain(|t| t.0 > now_ms);
                    expected.sort();
                    let due_of = |id: &usize| expected.iter().find(|e| e.1 == *id).map(|e| e.0);
                    let due: Vec<u64> = fired.borrow().iter().map(|id| due_of(id).unwrap()).collect();
                    assert!(due.is_sorted(), "fired out of order");
                    assert_eq!(due.len(), expected.len(), "fired the wrong number");
                }
            }
            assert_eq!(timers.len(), model.len());
        }
    }
}
