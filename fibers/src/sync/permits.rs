//! Permits, which locks and semaphores are made of: a number of them, and a queue of fibers that want some.
//!
//! No permit is ever handed to a parked fiber: the first of the queue is woken when there are enough for it, and takes
//! them when it runs. So an interrupt in between loses nothing. Nobody overtakes the queue, so that who wants many is
//! not starved by those who want few.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use crate::current::current_id;
use crate::pollable::Pollable;
use crate::wait_reason::WaitReason;

#[derive(Default)]
pub(crate) struct Permits {
    /// The fiber that took some last, for dumps; `None` outside of fibers.
    taken_by: Cell<Option<u64>>,
    available: Cell<usize>,
    /// Sorted by ticket.
    queue: RefCell<VecDeque<Waiting>>,
    next_ticket: Cell<u64>,
}

struct Waiting {
    ticket: u64,
    wanted: usize,
    waiter: Rc<dyn Wake>,
}

impl Permits {
    pub(crate) fn new(available: usize) -> Self {
        Self { available: Cell::new(available), ..Self::default() }
    }

    pub(crate) fn available(&self) -> usize {
        self.available.get()
    }

    /// Takes permits if there are enough, and nobody waits.
    pub(crate) fn try_take(&self, wanted: usize) -> bool {
        let can = self.queue.borrow().is_empty() && self.available.get() >= wanted;
        if can {
            self.subtract(wanted);
        }
        can
    }

    fn subtract(&self, wanted: usize) {
        self.available.set(self.available.get() - wanted);
        self.taken_by.set(current_id());
    }

    /// Why a fiber waits for some of them, which belong to an object of this kind.
    pub(crate) fn reason(&self, operation: &'static str, kind: &str) -> WaitReason {
        let (address, waiting) = (std::ptr::from_ref(self), self.queue.borrow().len());
        let free = self.available.get();
        let taker = self.taken_by.get().map(|id| format!(", taken last by fiber {id}")).unwrap_or_default();
        let object = format!("{kind} at {address:p} ({free} free{taker}; {waiting} fibers wait)");
        WaitReason::new(operation, object)
    }

    /// To be waited for: ready once the permits have been taken.
    pub(crate) fn take(&self, wanted: usize) -> Take<'_> {
        Take { permits: self, wanted, ticket: None }
    }

    /// Gives permits back, or new ones.
    pub(crate) fn give(&self, count: usize) {
        self.available.set(self.available.get().saturating_add(count));
        self.wake_first();
    }

    fn wake_first(&self) {
        #[cfg(feature = "mutations")]
        if ringspun_runtime::simulation::mutated(ringspun_runtime::simulation::Mutation::PermitForgotten) {
            return;
        }
        if let Some(first) = self.queue.borrow().front()
            && first.wanted <= self.available.get()
        {
            first.waiter.clone().wake();
        }
    }
}

/// A wait for permits. Leaves the queue when dropped.
pub(crate) struct Take<'a> {
    permits: &'a Permits,
    wanted: usize,
    ticket: Option<u64>,
}

impl Pollable for Take<'_> {
    type Output = ();

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<()> {
        let permits = self.permits;
        let Some(ticket) = self.ticket else {
            if permits.try_take(self.wanted) {
                return Poll::Ready(());
            }
            let ticket = permits.next_ticket.replace(permits.next_ticket.get() + 1);
            self.ticket = Some(ticket);
            let waiting = Waiting { ticket, wanted: self.wanted, waiter: waiter.clone() };
            permits.queue.borrow_mut().push_back(waiting);
            return Poll::Pending;
        };
        let is_first = permits.queue.borrow().front().is_some_and(|first| first.ticket == ticket);
        if !is_first || permits.available.get() < self.wanted {
            return Poll::Pending;
        }
        permits.subtract(self.wanted);
        // Leaving wakes the next, for which there may be enough, too.
        self.leave();
        Poll::Ready(())
    }

    fn reason(&self) -> WaitReason {
        self.permits.reason("permits of", "Semaphore")
    }
}

impl Take<'_> {
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut queue = self.permits.queue.borrow_mut();
        let Ok(place) = queue.binary_search_by_key(&ticket, |waiting| waiting.ticket) else { return };
        let left = queue.remove(place);
        drop(queue);
        drop(left);
        if place == 0 {
            self.permits.wake_first();
        }
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
