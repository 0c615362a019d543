//! Fibers that end together: those of a scope, or of a join set.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;
use slab::Slab;

use crate::fiber::Fiber;

/// The fibers of a group that have not ended.
#[derive(Default)]
pub(crate) struct Group {
    /// `None` while the fiber is made.
    fibers: RefCell<Slab<Option<Rc<Fiber>>>>,
    is_cancelled: Cell<bool>,
    /// Waits until there is none left.
    waiter: RefCell<Option<Rc<dyn Wake>>>,
    /// The payload of the first panic that nobody has joined.
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

/// A fiber's membership, which it leaves at its end, or when it has been stopped.
#[derive(Clone)]
pub(crate) struct Member {
    group: Rc<Group>,
    index: usize,
}

impl Group {
    /// A place for a fiber that is about to be made.
    pub(crate) fn reserve(self: &Rc<Self>) -> Member {
        Member { group: self.clone(), index: self.fibers.borrow_mut().insert(None) }
    }

    pub(crate) fn len(&self) -> usize {
        self.fibers.borrow().len()
    }

    /// From now on, every wait of every member is interrupted, also of later ones.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.set(true);
        // A wake only enqueues, so the list stays as it is meanwhile.
        for (_, fiber) in &*self.fibers.borrow() {
            if let Some(fiber) = fiber {
                fiber.clone().cancel_for_good();
            }
        }
    }

    /// Ready when no member is left.
    pub(crate) fn poll_empty(&self, waiter: &Rc<dyn Wake>) -> Poll<()> {
        if self.len() == 0 {
            return Poll::Ready(());
        }
        let replaced = self.waiter.replace(Some(waiter.clone()));
        drop(replaced);
        Poll::Pending
    }

    pub(crate) fn keep_panic(&self, payload: Box<dyn Any + Send>) {
        let first = self.panic.take().unwrap_or(payload);
        self.panic.set(Some(first));
    }

    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }
}

impl Member {
    /// The fiber has been made.
    pub(crate) fn join(&self, fiber: &Rc<Fiber>) {
        self.group.fibers.borrow_mut()[self.index] = Some(fiber.clone());
        if self.group.is_cancelled.get() {
            fiber.clone().cancel_for_good();
        }
    }

    pub(crate) fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// The fiber has ended, or will never run again. Once only.
    pub(crate) fn leave(self) {
        let left = self.group.fibers.borrow_mut().try_remove(self.index);
        drop(left);
        if self.group.len() == 0
            && let Some(waiter) = self.group.waiter.take()
        {
            waiter.wake();
        }
    }
}
