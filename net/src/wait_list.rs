//! Who waits for a socket.

use std::cell::RefCell;
use std::rc::Rc;

use ringspun_runtime::Wake;

/// Waiters in the order in which they came. All of them are woken at once and look again: a waiter that
/// has lost interest can then never swallow the wake-up of another.
#[derive(Default)]
pub(crate) struct WaitList {
    /// Mostly one, so that the common case allocates nothing.
    first: RefCell<Option<Rc<dyn Wake>>>,
    rest: RefCell<Vec<Rc<dyn Wake>>>,
}

impl WaitList {
    /// Adds a waiter, once.
    pub(crate) fn add(&self, waiter: &Rc<dyn Wake>) {
        let mut first = self.first.borrow_mut();
        match &*first {
            Some(present) if Rc::ptr_eq(present, waiter) => {}
            Some(_) => {
                let mut rest = self.rest.borrow_mut();
                if !rest.iter().any(|present| Rc::ptr_eq(present, waiter)) {
                    rest.push(waiter.clone());
                }
            }
            None => *first = Some(waiter.clone()),
        }
    }

    pub(crate) fn remove(&self, waiter: &Rc<dyn Wake>) {
        self.first.borrow_mut().take_if(|present| Rc::ptr_eq(present, waiter));
        self.rest.borrow_mut().retain(|present| !Rc::ptr_eq(present, waiter));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.borrow().is_none() && self.rest.borrow().is_empty()
    }

    pub(crate) fn wake_all(&self) {
        let first = self.first.take();
        if let Some(waiter) = first {
            waiter.wake();
        }
        if self.rest.borrow().is_empty() {
            return;
        }
        let rest = self.rest.take();
        for waiter in rest {
            waiter.wake();
        }
    }
}
