//! The receive buffers of one kind, and the receives that got `ENOBUFS`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::buffers::BufferPool;
use crate::operation::OperationKey;

/// A pool of receive buffers, with the receives that ended with `ENOBUFS` and wait to be submitted again.
pub(crate) struct ReceiveBuffers {
    pub(crate) pool: Rc<BufferPool>,
    starved: RefCell<VecDeque<OperationKey>>,
}

impl ReceiveBuffers {
    pub(crate) fn new(pool: &Rc<BufferPool>) -> Self {
        Self { pool: pool.clone(), starved: RefCell::default() }
    }

    /// Queues a receive until buffers are free.
    pub(crate) fn starve(&self, receive: OperationKey) {
        self.starved.borrow_mut().push_back(receive);
    }

    /// Removes a receive from the queue; true if it was in it.
    pub(crate) fn withdraw(&self, receive: OperationKey) -> bool {
        let mut starved = self.starved.borrow_mut();
        let place = starved.iter().position(|waiting| *waiting == receive);
        place.and_then(|place| starved.remove(place)).is_some()
    }

    pub(crate) fn has_starved(&self) -> bool {
        !self.starved.borrow().is_empty()
    }

    /// How many of the queued receives to submit now: as many as half of the free buffers (the other half is for armed
    /// receives), but at least one if a buffer is free.
    ///
    /// If all were submitted at once, each turn would serve as many as there are buffers and fail the others, at the
    /// full cost of a receive each: at 10,000 connections, that took four fifths of the time.
    pub(crate) fn resubmittable(&self) -> usize {
        let starved = self.starved.borrow().len();
        match usize::from(self.pool.count() - self.pool.lent()) {
            0 => 0,
            free => starved.min((free / 2).max(1)),
        }
    }

    /// Takes the receive at the front of the queue.
    pub(crate) fn pop_starved(&self) -> Option<OperationKey> {
        self.starved.borrow_mut().pop_front()
    }
}
