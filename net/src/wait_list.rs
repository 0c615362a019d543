//! The waiters of a socket.

use std::cell::Cell;
use std::rc::Rc;

use ringspun_runtime::Wake;

/// Waiters in the order of their arrival.
///
/// If any of them may continue, all are woken and check their condition, so that a waiter that has given up cannot
/// consume the wake-up of another. If only the first may continue, it stays first until it removes itself, which wakes
/// the next.
#[derive(Default)]
pub(crate) struct WaitList {
    /// Separate, so that the common case of a single waiter allocates nothing.
    first: Cell<Option<Rc<dyn Wake>>>,
    /// `None` if there is no first. Boxed, as it is rarely needed, and a socket has several lists.
    rest: Cell<Option<Box<Rest>>>,
}

type Rest = Vec<Rc<dyn Wake>>;

impl WaitList {
    /// Adds a waiter unless it is present; true if it is the first.
    #[inline(always)]
    pub(crate) fn add(&self, waiter: &Rc<dyn Wake>) -> bool {
        let Some(first) = self.first.take() else {
            self.first.set(Some(waiter.clone()));
            return true;
        };
        let is_first = Rc::ptr_eq(&first, waiter);
        self.first.set(Some(first));
        if !is_first {
            self.add_to_rest(waiter);
        }
        is_first
    }

    #[cold]
    fn add_to_rest(&self, waiter: &Rc<dyn Wake>) {
        let mut rest = self.rest.take().unwrap_or_default();
        if !rest.iter().any(|present| Rc::ptr_eq(present, waiter)) {
            rest.push(waiter.clone());
        }
        self.rest.set(Some(rest));
    }

    /// Removes a waiter; true if it was the first.
    #[inline]
    pub(crate) fn remove(&self, waiter: &Rc<dyn Wake>) -> bool {
        let first = self.first.take();
        let was_first = first.as_ref().is_some_and(|first| Rc::ptr_eq(first, waiter));
        match self.rest.take() {
            None if was_first => {}
            None => self.first.set(first),
            Some(rest) => self.set(first.into_iter().chain(*rest).filter(|it| !Rc::ptr_eq(it, waiter))),
        }
        was_first
    }

    #[cold]
    fn set(&self, mut waiters: impl Iterator<Item = Rc<dyn Wake>>) {
        self.first.set(waiters.next());
        let rest: Rest = waiters.collect();
        self.rest.set((!rest.is_empty()).then(|| Box::new(rest)));
    }

    /// Wakes the first waiter, which stays in the list.
    #[inline]
    pub(crate) fn wake_first(&self) {
        let Some(first) = self.first.take() else { return };
        self.first.set(Some(first.clone()));
        first.wake();
    }

    pub(crate) fn is_empty(&self) -> bool {
        let first = self.first.take();
        let is_empty = first.is_none();
        self.first.set(first);
        is_empty
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
