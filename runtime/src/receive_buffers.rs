//! The receive buffers of one kind, and the receives that met a lack of them.

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

    /// Has a receive wait for buffers.
    pub(crate) fn starve(&self, receive: OperationKey) {
        self.starved.borrow_mut().push_back(receive);
    }

    /// Takes a receive out of those that wait; true if it was one of them.
    pub(crate) fn withdraw(&self, receive: OperationKey) -> bool {
        let mut starved = self.starved.borrow_mut();
        let place = starved.iter().position(|waiting| *waiting == receive);
        place.and_then(|place| starved.remove(place)).is_some()
    }

    pub(crate) fn has_starved(&self) -> bool {
        !self.starved.borrow().is_empty()
    }

    /// How many of the receives that wait should be submitted now: as many as half of the free buffers can feed, as
    /// the other half is for those that are armed, but at least one, if there is a buffer at all.
    ///
    /// If thousands were submitted at once, each turn would feed as many as there are buffers and turn the others
    /// away, at the full price of a receive each: at 10,000 connections this took four fifths of the time.
    pub(crate) fn feedable(&self) -> usize {
        let starved = self.starved.borrow().len();
        match usize::from(self.pool.count() - self.pool.lent()) {
            0 => 0,
            free => starved.min((free / 2).max(1)),
        }
    }

    /// Takes the receive that has waited longest.
    pub(crate) fn pop_starved(&self) -> Option<OperationKey> {
        self.starved.borrow_mut().pop_front()
    }
}
