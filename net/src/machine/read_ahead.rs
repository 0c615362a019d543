//! Receiving ahead of the readers, and handing a socket over to other owners.
//!
//! A socket can have several descriptors: in another thread (`dup(2)`), or in a process that inherits one. Data that
//! one owner has received ahead is not visible to the others. So a socket that is handed over stops receiving ahead
//! while it has several owners; data received by then is for the first reader of any owner.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The data that a socket had received ahead when it was handed over, shared by its owners.
#[derive(Debug)]
pub struct LeftBehind<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> LeftBehind<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the last owner, and no data is left.
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.lock().is_empty()
    }
}

impl<T> Clone for LeftBehind<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for LeftBehind<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Whether a socket may receive ahead of its readers.
pub(crate) struct ReadAhead<T> {
    /// Another process has the socket too, for an unknown time.
    forbidden: Cell<bool>,
    is_shared: Cell<bool>,
    left_behind: RefCell<Option<LeftBehind<T>>>,
}

impl<T> ReadAhead<T> {
    /// `left_behind` comes with a socket that was handed over.
    pub(crate) fn new(left_behind: Option<LeftBehind<T>>) -> Self {
        let is_shared = Cell::new(left_behind.is_some());
        Self { forbidden: Cell::new(false), is_shared, left_behind: RefCell::new(left_behind) }
    }

    pub(crate) fn is_allowed(&self) -> bool {
        let mut left_behind = self.left_behind.borrow_mut();
        if left_behind.take_if(|left_behind| left_behind.is_over()).is_some() {
            self.is_shared.set(false);
        }
        left_behind.is_none() && !self.forbidden.get()
    }

    /// Whether there are other owners, so that input may be available without having been announced.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.get()
    }

    pub(crate) fn forbid(&self) {
        self.forbidden.set(true);
    }

    /// The data left behind, to share with another owner.
    pub(crate) fn share(&self) -> LeftBehind<T> {
        self.is_shared.set(true);
        self.left_behind.borrow_mut().get_or_insert_default().clone()
    }

    /// Leaves data that was received ahead to the first reader of any owner.
    pub(crate) fn leave(&self, received: impl IntoIterator<Item = T>) {
        if let Some(left_behind) = &*self.left_behind.borrow() {
            left_behind.lock().extend(received);
        }
    }

    /// Whether data was left behind.
    pub(crate) fn has_left_behind(&self) -> bool {
        self.is_shared() && self.left_behind.borrow().as_ref().is_some_and(|left| !left.lock().is_empty())
    }

    /// Takes the first piece that was left behind.
    pub(crate) fn take(&self) -> Option<T> {
        self.left_behind.borrow().as_ref()?.lock().pop_front()
    }

    /// The data left behind, for the descriptor's next user in place of this one. `None` without other owners.
    pub(crate) fn take_over(&self) -> Option<LeftBehind<T>> {
        self.is_shared.set(false);
        self.left_behind.take()
    }

    /// Ends the ownership of a descriptor that is being closed; only one other may remain.
    pub(crate) fn end(&self) {
        self.is_shared.set(false);
        let left_behind = self.left_behind.take();
        drop(left_behind);
    }
}
