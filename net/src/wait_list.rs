//! Who waits for a socket.

use std::cell::RefCell;
use std::rc::Rc;

use ringspun_runtime::Wake;

/// Waiters in the order in which they came.
///
/// Where any of them may go on, all are woken at once and look again: a waiter that has lost interest
/// can then never swallow the wake-up of another. Where only the first may go on, it stays first until
/// it removes itself, which wakes the next.
#[derive(Default)]
pub(crate) struct WaitList {
    /// Mostly one, so that the common case allocates nothing.
    first: RefCell<Option<Rc<dyn Wake>>>,
    /// Nobody, if there is no first.
    rest: RefCell<Vec<Rc<dyn Wake>>>,
}

impl WaitList {
    /// Adds a waiter, once.
    #[inline(always)]
    pub(crate) fn add(&self, waiter: &Rc<dyn Wake>) {
        let mut first = self.first.borrow_mut();
        match &*first {
            None => *first = Some(waiter.clone()),
            Some(present) if Rc::ptr_eq(present, waiter) => {}
            Some(_) => self.add_to_rest(waiter),
        }
    }

    #[cold]
    fn add_to_rest(&self, waiter: &Rc<dyn Wake>) {
        let mut rest = self.rest.borrow_mut();
        if !rest.iter().any(|present| Rc::ptr_eq(present, waiter)) {
            rest.push(waiter.clone());
        }
    }

    pub(crate) fn remove(&self, waiter: &Rc<dyn Wake>) {
        let mut first = self.first.borrow_mut();
        let mut rest = self.rest.borrow_mut();
        rest.retain(|present| !Rc::ptr_eq(present, waiter));
        if first.take_if(|present| Rc::ptr_eq(present, waiter)).is_some() && !rest.is_empty() {
            *first = Some(rest.remove(0));
        }
    }

    pub(crate) fn is_first(&self, waiter: &Rc<dyn Wake>) -> bool {
        self.first.borrow().as_ref().is_some_and(|first| Rc::ptr_eq(first, waiter))
    }

    /// Wakes the first waiter, which stays in the list.
    pub(crate) fn wake_first(&self) {
        let first = self.first.borrow().clone();
        if let Some(waiter) = first {
            waiter.wake();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.borrow().is_none()
    }

    #[inline(always)]
    pub(crate) fn wake_all(&self) {
        let Some(first) = self.first.take() else { return };
        first.wake();
        if !self.rest.borrow().is_empty() {
            self.wake_rest();
        }
    }

    #[cold]
    fn wake_rest(&self) {
        let rest = self.rest.take();
        for waiter in rest {
            waiter.wake();
        }
    }
}
