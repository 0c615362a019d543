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
    waiters: RefCell<Waiters>,
}

/// Mostly one, so that the common case allocates nothing.
#[derive(Default)]
enum Waiters {
    #[default]
    None,
    One(Rc<dyn Wake>),
    /// At least one.
    Several(Vec<Rc<dyn Wake>>),
}

impl Waiters {
    fn as_slice(&self) -> &[Rc<dyn Wake>] {
        match self {
            Self::None => &[],
            Self::One(waiter) => std::slice::from_ref(waiter),
            Self::Several(waiters) => waiters,
        }
    }
}

impl WaitList {
    /// Adds a waiter, once.
    pub(crate) fn add(&self, waiter: &Rc<dyn Wake>) {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.as_slice().iter().any(|present| Rc::ptr_eq(present, waiter)) {
            return;
        }
        match &mut *waiters {
            Waiters::Several(several) => several.push(waiter.clone()),
            few => {
                *few = match std::mem::take(few) {
                    Waiters::One(first) => Waiters::Several(vec![first, waiter.clone()]),
                    _ => Waiters::One(waiter.clone()),
                }
            }
        }
    }

    pub(crate) fn remove(&self, waiter: &Rc<dyn Wake>) {
        let mut waiters = self.waiters.borrow_mut();
        match &mut *waiters {
            Waiters::One(present) if Rc::ptr_eq(present, waiter) => *waiters = Waiters::None,
            Waiters::Several(several) => {
                several.retain(|present| !Rc::ptr_eq(present, waiter));
                if several.is_empty() {
                    *waiters = Waiters::None;
                }
            }
            Waiters::One(_) | Waiters::None => {}
        }
    }

    pub(crate) fn is_first(&self, waiter: &Rc<dyn Wake>) -> bool {
        self.waiters.borrow().as_slice().first().is_some_and(|first| Rc::ptr_eq(first, waiter))
    }

    /// Wakes the first waiter, which stays in the list.
    pub(crate) fn wake_first(&self) {
        let first = self.waiters.borrow().as_slice().first().cloned();
        if let Some(waiter) = first {
            waiter.wake();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(*self.waiters.borrow(), Waiters::None)
    }

    pub(crate) fn wake_all(&self) {
        match self.waiters.take() {
            Waiters::None => {}
            Waiters::One(waiter) => waiter.wake(),
            Waiters::Several(waiters) => waiters.into_iter().for_each(Wake::wake),
        }
    }
}
