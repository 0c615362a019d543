//! Telling others that something has happened: events, barriers, and values that are made once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use super::locks::Mutex;
use crate::interrupt::Interrupt;
use crate::pollable::{Pollable, wait_for};
use crate::wait_reason::WaitReason;

/// Waiting fibers in the order of their calls.
#[derive(Default)]
struct Queue {
    /// Sorted by ticket.
    waiting: RefCell<VecDeque<(u64, Rc<dyn Wake>)>>,
    next_ticket: Cell<u64>,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn push(&self, waiter: &Rc<dyn Wake>) -> u64 {
        let ticket = self.next_ticket.replace(self.next_ticket.get() + 1);
        self.waiting.borrow_mut().push_back((ticket, waiter.clone()));
        ticket
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        self.waiting.borrow().binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    fn remove(&self, place: usize) {
        let left = self.waiting.borrow_mut().remove(place);
        drop(left);
    }

    fn wake(&self, place: usize) {
        if let Some((_, waiter)) = self.waiting.borrow().get(place) {
            waiter.clone().wake();
        }
    }

    /// Lets all of them go.
    fn release_all(&self) {
        for (_, waiter) in self.waiting.take() {
            waiter.wake();
        }
    }
}

/// Tells fibers that something has happened.
///
/// [`notify_one`](Self::notify_one) lets one waiting fiber go on, the first; if none waits, the next one that does goes
/// on at once. [`notify_all`](Self::notify_all) lets all go on that wait now.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// use ringspun_fibers::{self as fibers, sync::Notify};
///
/// fibers::run(|| {
///     let work = Rc::new(Notify::new());
///     let notify = work.clone();
///     let worker = fibers::spawn(move || notify.wait()).unwrap();
///     work.notify_one();
///     worker.join().unwrap().unwrap();
///     // Nobody waits: it is kept, once.
///     work.notify_one();
///     work.notify_one();
///     work.wait().unwrap();
///     assert!(fibers::timeout(std::time::Duration::ZERO, || work.wait()).is_err());
/// })
/// .unwrap();
/// ```
#[derive(Default)]
pub struct Notify {
    queue: Queue,
    /// The n-th fiber of the queue is promised the n-th; a fiber that gives up leaves its own to the next.
    notifications: Cell<usize>,
}

impl Notify {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the first waiting fiber go on that no earlier call has, or the next one that will wait.
    pub fn notify_one(&self) {
        let (promised, waiting) = (self.notifications.get(), self.queue.len());
        if promised <= waiting {
            self.notifications.set(promised + 1);
            self.queue.wake(promised);
        }
    }

    /// Lets all fibers go on that wait now.
    pub fn notify_all(&self) {
        self.notifications.set(self.notifications.get().saturating_sub(self.queue.len()));
        self.queue.release_all();
    }

    /// Parks until it is notified.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait; a notification for this fiber is then for the next.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn wait(&self) -> Result<(), Interrupt> {
        wait_for(self.notified())
    }

    /// The notification, to be waited for in a [`Select`](crate::Select).
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, ticket: None }
    }

    fn take_notification(&self) {
        self.notifications.set(self.notifications.get() - 1);
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("waiting", &self.queue.len()).finish()
    }
}

/// A wait for a [`Notify`], from [`Notify::notified`].
pub struct Notified<'a> {
    notify: &'a Notify,
    ticket: Option<u64>,
}

impl Pollable for Notified<'_> {
    type Output = ();

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<()> {
        let Notify { queue, notifications } = self.notify;
        let Some(ticket) = self.ticket else {
            if notifications.get() > queue.len() {
                self.notify.take_notification();
                return Poll::Ready(());
            }
            self.ticket = Some(queue.push(waiter));
            return Poll::Pending;
        };
        match queue.place(ticket) {
            Some(place) if place >= notifications.get() => return Poll::Pending,
            Some(place) => {
                self.notify.take_notification();
                queue.remove(place);
            }
            // All were let go.
            None => {}
        }
        self.ticket = None;
        Poll::Ready(())
    }

    fn reason(&self) -> WaitReason {
        WaitReason::new("a notification by", format_args!("Notify at {:p}", self.notify))
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Notify { queue, notifications } = self.notify;
        if let Some(place) = self.ticket.take().and_then(|ticket| queue.place(ticket)) {
            queue.remove(place);
            let promised = notifications.get().min(queue.len() + 1);
            notifications.set(promised);
            // Its notification is for the one that has moved up.
            if place < promised {
                queue.wake(promised - 1);
            }
        }
    }
}

/// Lets fibers go on together, once a number of them have come.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, sync::Barrier};
///
/// fibers::run(|| {
///     let barrier = Barrier::new(3);
///     let leaders = fibers::scope(|scope| {
///         let fibers = [1, 2, 3].map(|_| scope.spawn(|| barrier.wait().unwrap()).unwrap());
///         fibers.map(|fiber| fiber.join().unwrap()).into_iter().filter(|&is_leader| is_leader).count()
///     });
///     assert_eq!(leaders, 1);
/// })
/// .unwrap();
/// ```
pub struct Barrier {
    count: usize,
    queue: Queue,
}

impl Barrier {
    /// A barrier for `count` fibers at a time; for 0, as for 1, nobody waits.
    pub fn new(count: usize) -> Self {
        Self { count, queue: Queue::default() }
    }

    /// Parks until as many fibers wait as the barrier is for. True for one of them, the last that has come. It can then
    /// be used again.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait: the fiber no longer counts.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn wait(&self) -> Result<bool, Interrupt> {
        if self.queue.len() + 1 >= self.count {
            self.queue.release_all();
            return Ok(true);
        }
        wait_for(Arrived { queue: &self.queue, ticket: None }).map(|()| false)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("count", &self.count).field("waiting", &self.queue.len()).finish()
    }
}

/// A place in a queue, until all are let go.
struct Arrived<'a> {
    queue: &'a Queue,
    ticket: Option<u64>,
}

impl Pollable for Arrived<'_> {
    type Output = ();

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<()> {
        match self.ticket {
            None => self.ticket = Some(self.queue.push(waiter)),
            Some(ticket) if self.queue.place(ticket).is_none() => return Poll::Ready(()),
            Some(_) => {}
        }
        Poll::Pending
    }

    fn reason(&self) -> WaitReason {
        let (queue, waiting) = (self.queue, self.queue.len());
        WaitReason::new("others at", format_args!("a Barrier at {queue:p} ({waiting} fibers wait)"))
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.ticket.and_then(|ticket| self.queue.place(ticket)) {
            self.queue.remove(place);
        }
    }
}

/// A value that is made once, by the first fiber that needs it; others wait meanwhile. Unlike those of the standard
/// library, its function may wait.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, sync::OnceCell};
///
/// fibers::run(|| {
///     let settings = OnceCell::new();
///     let load = || {
///         fibers::sleep(Duration::from_millis(1))?;
///         Ok::<_, fibers::Interrupt>(7)
///     };
///     fibers::scope(|scope| {
///         for _ in 0..3 {
///             scope.spawn(|| assert_eq!(settings.get_or_try_init(load), Ok(&7))).unwrap();
///         }
///     });
///     assert_eq!(settings.get(), Some(&7));
/// })
/// .unwrap();
/// ```
pub struct OnceCell<T> {
    making: Mutex<()>,
    value: std::cell::OnceCell<T>,
}

impl<T> OnceCell<T> {
    /// A cell without a value.
    pub fn new() -> Self {
        Self { making: Mutex::new(()), value: std::cell::OnceCell::new() }
    }

    /// The value, if there is one.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Sets the value, unless there is one.
    ///
    /// # Errors
    ///
    /// The value, if there is one already, or a fiber makes one.
    pub fn set(&self, value: T) -> Result<(), T> {
        match self.making.try_lock() {
            Some(_making) => self.value.set(value),
            None => Err(value),
        }
    }

    /// The value, which `function` makes if there is none. Parks while another fiber makes it.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait for another fiber.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber; with the panic of `function`, after which the next fiber makes the value.
    pub fn get_or_init(&self, function: impl FnOnce() -> T) -> Result<&T, Interrupt> {
        self.get_or_try_init(|| Ok(function()))
    }

    /// As [`get_or_init`](Self::get_or_init), for a function that may fail: the next fiber then tries again.
    ///
    /// # Errors
    ///
    /// The function's, and the interrupt that ended the wait for another fiber.
    ///
    /// # Panics
    ///
    /// As [`get_or_init`](Self::get_or_init).
    pub fn get_or_try_init<E: From<Interrupt>>(
        &self,
        function: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let _making = self.making.lock()?;
        if self.get().is_none() {
            let value = function()?;
            // Nobody else can set it meanwhile.
            let _ = self.value.set(value);
        }
        match self.get() {
            Some(value) => Ok(value),
            None => unreachable!("it has just been set"),
        }
    }

    /// The value, if there is one.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.get()).finish()
    }
}
