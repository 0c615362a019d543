//! Who waits for a socket.

use std::cell::{Cell, RefCell};
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
    /// None, if there is no first. Boxed, as a socket has several lists and seldom needs this.
    rest: Cell<Option<Box<Rest>>>,
}

type Rest = Vec<Rc<dyn Wake>>;

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
        let mut rest = self.rest.take().unwrap_or_default();
        if !rest.iter().any(|present| Rc::ptr_eq(present, waiter)) {
            rest.push(waiter.clone());
        }
        self.rest.set(Some(rest));
    }

    pub(crate) fn remove(&self, waiter: &Rc<dyn Wake>) {
        let mut first = self.first.borrow_mut();
        let mut rest = self.rest.take();
        if let Some(rest) = &mut rest {
            rest.retain(|present| !Rc::ptr_eq(present, waiter));
        }
        if first.take_if(|present| Rc::ptr_eq(present, waiter)).is_some()
            && let Some(rest) = &mut rest
            && !rest.is_empty()
        {
            *first = Some(rest.remove(0));
        }
        self.rest.set(rest.filter(|rest| !rest.is_empty()));
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
        let rest = self.rest.take();
        first.wake();
        if let Some(rest) = rest {
            rest.into_iter().for_each(Wake::wake);
        }
    }
}
