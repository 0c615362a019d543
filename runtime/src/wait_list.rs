//! Those that wait for the same thing.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::wake::Wake;

/// Waiters in the order of their arrival.
///
/// If any of them may continue, all are woken and check their condition, so that a waiter that has given up cannot
/// consume the wake-up of another. If only the first may continue, it stays first until it removes itself, which wakes
/// the next. One waiter costs no allocation, and of many, each comes and goes without a look at the others.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// use ringspun_runtime::{WaitList, Wake};
///
/// #[derive(Default)]
/// struct Waiter(Cell<bool>);
///
/// impl Wake for Waiter {
///     fn wake(self: Rc<Self>) {
///         self.0.set(true);
///     }
/// }
///
/// let (list, first, second) = (WaitList::default(), Rc::new(Waiter::default()), Rc::new(Waiter::default()));
/// let [one, other]: [Rc<dyn Wake>; 2] = [first.clone(), second.clone()];
/// assert!(list.add(&one) && !list.add(&other));
/// assert!(list.remove(&one));
/// list.wake_all();
/// assert!(list.is_empty() && !first.0.get() && second.0.get());
/// ```
#[derive(Default)]
pub struct WaitList {
    /// Separate, so that the common case of a single waiter allocates nothing.
    first: Cell<Option<Rc<dyn Wake>>>,
    /// `None` if there is no first. Boxed, as it is rarely needed, and a socket has several lists.
    rest: Cell<Option<Box<Rest>>>,
}

/// Waiters behind the first, of which tens of thousands may time out together.
#[derive(Default)]
struct Rest {
    by_arrival: BTreeMap<u64, Rc<dyn Wake>>,
    arrivals: HashMap<*const (), u64>,
    arrived: u64,
}

impl Rest {
    fn add(&mut self, waiter: &Rc<dyn Wake>) {
        let arrival = self.arrived;
        if *self.arrivals.entry(Rc::as_ptr(waiter).cast()).or_insert(arrival) == arrival {
            self.by_arrival.insert(arrival, waiter.clone());
            self.arrived += 1;
        }
    }

    fn remove(&mut self, waiter: &Rc<dyn Wake>) {
        if let Some(arrival) = self.arrivals.remove(&Rc::as_ptr(waiter).cast()) {
            self.by_arrival.remove(&arrival);
        }
    }

    fn pop_first(&mut self) -> Option<Rc<dyn Wake>> {
        let (_, first) = self.by_arrival.pop_first()?;
        self.arrivals.remove(&Rc::as_ptr(&first).cast());
        Some(first)
    }
}

// What concerns more than one waiter is out of line: a request has one.

impl WaitList {
    /// Adds a waiter unless it is present; true if it is the first.
    #[inline(always)]
    pub fn add(&self, waiter: &Rc<dyn Wake>) -> bool {
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
        rest.add(waiter);
        self.rest.set(Some(rest));
    }

    /// Removes a waiter; true if it was the first.
    #[inline]
    pub fn remove(&self, waiter: &Rc<dyn Wake>) -> bool {
        let first = self.first.take();
        let was_first = first.as_ref().is_some_and(|first| Rc::ptr_eq(first, waiter));
        match self.rest.take() {
            None if was_first => {}
            None => self.first.set(first),
            Some(rest) => self.remove_from_many(first.filter(|_| !was_first), rest, waiter),
        }
        was_first
    }

    /// Removes a waiter. `first` is absent if it was the first.
    #[cold]
    fn remove_from_many(&self, first: Option<Rc<dyn Wake>>, mut rest: Box<Rest>, waiter: &Rc<dyn Wake>) {
        if first.is_some() {
            rest.remove(waiter);
        }
        self.first.set(first.or_else(|| rest.pop_first()));
        self.rest.set((!rest.by_arrival.is_empty()).then_some(rest));
    }

    /// Wakes the first waiter, which stays in the list.
    #[inline]
    pub fn wake_first(&self) {
        let Some(first) = self.first.take() else { return };
        self.first.set(Some(first.clone()));
        first.wake();
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        let first = self.first.take();
        let is_empty = first.is_none();
        self.first.set(first);
        is_empty
    }

    /// Wakes all waiters, which leave the list.
    #[inline(always)]
    pub fn wake_all(&self) {
        let Some(first) = self.first.take() else { return };
        let rest = self.rest.take();
        first.wake();
        if rest.is_some() {
            wake_all_of(rest);
        }
    }
}

#[cold]
fn wake_all_of(rest: Option<Box<Rest>>) {
    rest.into_iter().for_each(|rest| rest.by_arrival.into_values().for_each(Wake::wake));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Woken = Rc<RefCell<Vec<usize>>>;

    struct Waiter {
        number: usize,
        woken: Woken,
    }

    impl Wake for Waiter {
        fn wake(self: Rc<Self>) {
            self.woken.borrow_mut().push(self.number);
        }
    }

    /// A list of so many waiters.
    fn list_of(count: usize) -> (WaitList, Vec<Rc<dyn Wake>>, Woken) {
        let (list, woken) = (WaitList::default(), Rc::default());
        let waiter = |number| -> Rc<dyn Wake> { Rc::new(Waiter { number, woken: Rc::clone(&woken) }) };
        let waiters: Vec<_> = (0..count).map(waiter).collect();
        for (number, waiter) in waiters.iter().enumerate() {
            assert_eq!(list.add(waiter), number == 0);
        }
        (list, waiters, woken)
    }

    #[test]
    fn waiters_are_woken_in_the_order_of_their_arrival_whoever_leaves() {
        let (list, waiters, woken) = list_of(6);
        assert!(list.add(&waiters[0]), "it is present, and first");
        assert!(!list.add(&waiters[4]) && !list.remove(&waiters[3]));
        assert!(list.remove(&waiters[0]) && !list.remove(&waiters[0]));
        // Behind those that have waited for longer.
        list.add(&waiters[3]);
        list.wake_first();
        list.wake_all();
        assert_eq!(*woken.borrow(), [1, 1, 2, 4, 5, 3]);
        assert!(list.is_empty());
        assert!(list.add(&waiters[2]) && !list.is_empty());
    }

    /// Would take minutes if each took a look at all the others.
    #[test]
    #[cfg_attr(miri, ignore = "slow")]
    fn many_waiters_leave_in_any_order() {
        let (list, waiters, woken) = list_of(100_000);
        for number in 0..waiters.len() {
            let in_any_order = number * 7_919 % waiters.len();
            list.remove(&waiters[in_any_order]);
        }
        list.wake_all();
        assert!(list.is_empty() && woken.borrow().is_empty());
    }
}
