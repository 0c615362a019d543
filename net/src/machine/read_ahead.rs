//! Receiving ahead of the readers, and what becomes of it when a socket is handed over.
//!
//! A socket can have several descriptors: in another thread (`dup(2)`), or in a process that inherits one.
//! What one of them has received ahead of its readers, the others do not see. So a socket that is handed
//! over stops receiving ahead, for as long as there are others, and what it had received by then is for
//! whoever reads first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a socket had received when it was handed over, shared by those who have it now.
#[derive(Debug)]
pub struct LeftBehind<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> LeftBehind<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else has it, and nothing is left.
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
    /// A process has it too, and there is no telling for how long.
    forbidden: Cell<bool>,
    is_shared: Cell<bool>,
    left_behind: RefCell<Option<LeftBehind<T>>>,
}

impl<T> ReadAhead<T> {
    /// `left_behind` is what came with a socket that was handed over.
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

    /// Whether there are other descriptors, so that each look at the kernel may find what nothing told of.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.get()
    }

    pub(crate) fn forbid(&self) {
        self.forbidden.set(true);
    }

    /// What the other descriptors' readers need to have, from now on.
    pub(crate) fn share(&self) -> LeftBehind<T> {
        self.is_shared.set(true);
        self.left_behind.borrow_mut().get_or_insert_default().clone()
    }

    /// Leaves what has been received ahead for whoever reads first.
    pub(crate) fn leave(&self, received: impl IntoIterator<Item = T>) {
        if let Some(left_behind) = &*self.left_behind.borrow() {
            left_behind.lock().extend(received);
        }
    }

    /// Takes the first of what was left behind.
    pub(crate) fn take(&self) -> Option<T> {
        self.left_behind.borrow().as_ref()?.lock().pop_front()
    }

    /// This descriptor is closed: those that are left may be one only.
    pub(crate) fn end(&self) {
        self.is_shared.set(false);
        let left_behind = self.left_behind.take();
        drop(left_behind);
    }
}
