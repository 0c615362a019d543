//! Values for others: one for one receiver, the newest for many, and each for many.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{WaitList, Wake};

use crate::channel::ChannelError;
use crate::interrupt::Interrupt;
use crate::pollable::{Pollable, wait_for};
use crate::wait_reason::WaitReason;

/// Waits for a change, and leaves the waiters when dropped.
struct Change<'a, P> {
    waiters: &'a WaitList,
    waiter: Option<Rc<dyn Wake>>,
    poll: P,
    /// What changes, for dumps.
    what: &'static str,
}

impl<'a, T, P: FnMut() -> Option<T>> Change<'a, P> {
    fn new(waiters: &'a WaitList, what: &'static str, poll: P) -> Self {
        Self { waiters, waiter: None, poll, what }
    }
}

impl<T, P: FnMut() -> Option<T>> Pollable for Change<'_, P> {
    type Output = T;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<T> {
        if let Some(value) = (self.poll)() {
            return Poll::Ready(value);
        }
        self.waiters.add(waiter);
        self.waiter = Some(waiter.clone());
        Poll::Pending
    }

    fn reason(&self) -> WaitReason {
        WaitReason::new(self.what, format_args!("at {:p}", self.waiters))
    }
}

impl<P> Drop for Change<'_, P> {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            self.waiters.remove(waiter);
        }
    }
}

struct OneShot<T> {
    value: Cell<Option<T>>,
    /// One of the two is gone, or the value has been sent.
    is_over: Cell<bool>,
    waiters: WaitList,
}

/// Two ends for one value.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, ChannelError, sync};
///
/// fibers::run(|| {
///     let (reply, answer) = sync::one_shot();
///     fibers::spawn(move || reply.send(42).unwrap()).unwrap();
///     assert_eq!(answer.receive(), Ok(42));
///
///     let (reply, answer) = sync::one_shot::<u32>();
///     drop(reply);
///     assert_eq!(answer.receive(), Err(ChannelError::Closed));
/// })
/// .unwrap();
/// ```
pub fn one_shot<T>() -> (OneShotSender<T>, OneShotReceiver<T>) {
    let (value, is_over) = (Cell::new(None), Cell::new(false));
    let shared = Rc::new(OneShot { value, is_over, waiters: WaitList::default() });
    (OneShotSender { shared: shared.clone() }, OneShotReceiver { shared })
}

/// The end of [`one_shot`] that sends. Dropping it closes the channel.
pub struct OneShotSender<T> {
    shared: Rc<OneShot<T>>,
}

impl<T> OneShotSender<T> {
    /// Sends the value. Does not wait.
    ///
    /// # Errors
    ///
    /// The value, if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.shared.is_over.get() {
            return Err(value);
        }
        self.shared.value.set(Some(value));
        Ok(())
    }

    /// Whether the receiver is gone, so that the work for the value can be given up.
    pub fn is_closed(&self) -> bool {
        self.shared.is_over.get()
    }

    /// Parks until the receiver is gone.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn closed(&self) -> Result<(), Interrupt> {
        wait_for(Change::new(&self.shared.waiters, "the end of the receiver", || {
            self.is_closed().then_some(())
        }))
    }
}

impl<T> Drop for OneShotSender<T> {
    fn drop(&mut self) {
        self.shared.is_over.set(true);
        self.shared.waiters.wake_all();
    }
}

/// The end of [`one_shot`] that receives.
pub struct OneShotReceiver<T> {
    shared: Rc<OneShot<T>>,
}

impl<T> OneShotReceiver<T> {
    /// Parks until the value has been sent, and returns it, once.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Closed`] if the sender has been dropped without sending, or the value has been returned before;
    /// [`ChannelError::Interrupted`] if the wait is interrupted, which never loses the value.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn receive(&self) -> Result<T, ChannelError> {
        wait_for(self.received())?.ok_or(ChannelError::Closed)
    }

    /// The value, to be waited for in a [`Select`](crate::Select): `None` if the sender has been dropped without
    /// sending.
    pub fn received(&self) -> impl Pollable<Output = Option<T>> + '_ {
        Change::new(&self.shared.waiters, "a value of the sender", || match self.shared.value.take() {
            None if !self.shared.is_over.get() => None,
            value => Some(value),
        })
    }
}

impl<T> Drop for OneShotReceiver<T> {
    fn drop(&mut self) {
        self.shared.is_over.set(true);
        self.shared.waiters.wake_all();
        drop(self.shared.value.take());
    }
}

struct Watched<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    senders: Cell<usize>,
    waiters: WaitList,
}

/// A value of which receivers get the newest: what came between is skipped. For settings, or for whether a server is to
/// end.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, sync};
///
/// fibers::run(|| {
///     let (level, mut seen) = sync::watch("info");
///     assert_eq!(*seen.get(), "info");
///     level.set("warn");
///     level.set("debug");
///     seen.changed().unwrap();
///     assert_eq!(*seen.get(), "debug");
///     drop(level);
///     assert!(seen.changed().is_err(), "nothing will change any more");
/// })
/// .unwrap();
/// ```
pub fn watch<T>(value: T) -> (WatchSender<T>, WatchReceiver<T>) {
    let (version, senders) = (Cell::new(0), Cell::new(1));
    let shared =
        Rc::new(Watched { value: RefCell::new(value), version, senders, waiters: WaitList::default() });
    (WatchSender { shared: shared.clone() }, WatchReceiver { shared, seen: 0 })
}

/// Sets what the receivers of [`watch`] get. Clones set the same.
pub struct WatchSender<T> {
    shared: Rc<Watched<T>>,
}

impl<T> WatchSender<T> {
    /// Sets the value, and wakes all receivers that wait.
    ///
    /// # Panics
    ///
    /// If a receiver holds the value ([`WatchReceiver::get`]) across a wait.
    pub fn set(&self, value: T) {
        let old = self.shared.value.replace(value);
        self.notify();
        drop(old);
    }

    /// Changes the value, and wakes all receivers that wait.
    ///
    /// # Panics
    ///
    /// As [`set`](Self::set).
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.shared.value.borrow_mut());
        self.notify();
    }

    /// The value. Do not hold it across a wait.
    pub fn get(&self) -> Ref<'_, T> {
        self.shared.value.borrow()
    }

    /// Another receiver, for which the value is not new.
    pub fn receiver(&self) -> WatchReceiver<T> {
        WatchReceiver { shared: self.shared.clone(), seen: self.shared.version.get() }
    }

    fn notify(&self) {
        self.shared.version.set(self.shared.version.get() + 1);
        self.shared.waiters.wake_all();
    }
}

impl<T> Clone for WatchSender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        self.shared.senders.set(self.shared.senders.get() - 1);
        if self.shared.senders.get() == 0 {
            self.shared.waiters.wake_all();
        }
    }
}

/// Gets the newest value of [`watch`].
pub struct WatchReceiver<T> {
    shared: Rc<Watched<T>>,
    seen: u64,
}

impl<T> WatchReceiver<T> {
    /// The newest value, which counts as seen. Do not hold it across a wait.
    pub fn get(&mut self) -> Ref<'_, T> {
        self.seen = self.shared.version.get();
        self.shared.value.borrow()
    }

    /// Parks until there is a value that this receiver has not seen, which then counts as seen.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Closed`] if no sender is left and the newest value has been seen; [`ChannelError::Interrupted`]
    /// if the wait is interrupted.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn changed(&mut self) -> Result<(), ChannelError> {
        if wait_for(self.change())? { Ok(()) } else { Err(ChannelError::Closed) }
    }

    /// The next change, to be waited for in a [`Select`](crate::Select): false if no sender is left.
    pub fn change(&mut self) -> impl Pollable<Output = bool> + '_ {
        let (shared, seen) = (&self.shared, &mut self.seen);
        Change::new(&shared.waiters, "a change of the watched value", move || {
            if *seen != shared.version.get() {
                *seen = shared.version.get();
                return Some(true);
            }
            (shared.senders.get() == 0).then_some(false)
        })
    }
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

struct Broadcast<T> {
    values: RefCell<VecDeque<T>>,
    /// The number of the oldest value that is kept.
    first: Cell<u64>,
    capacity: usize,
    senders: Cell<usize>,
    waiters: WaitList,
}

impl<T> Broadcast<T> {
    fn end(&self) -> u64 {
        self.first.get() + self.values.borrow().len() as u64
    }
}

/// A channel each of whose receivers gets every value that is sent while it exists. The newest `capacity` values are
/// kept: a receiver that is further behind misses the others, and is told how many. Sending never waits. A capacity of
/// 0 counts as 1.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, sync::{self, BroadcastError}};
///
/// fibers::run(|| {
///     let (chat, mut alice) = sync::broadcast(2);
///     let mut bob = chat.receiver();
///     chat.send("hello");
///     assert_eq!((alice.receive(), bob.receive()), (Ok("hello"), Ok("hello")));
///     ["a", "b", "c"].map(|text| chat.send(text));
///     assert_eq!(alice.receive(), Err(BroadcastError::Missed(1)));
///     assert_eq!((alice.receive(), alice.receive()), (Ok("b"), Ok("c")));
///     drop(chat);
///     assert_eq!(alice.receive(), Err(BroadcastError::Closed));
/// })
/// .unwrap();
/// ```
pub fn broadcast<T: Clone>(capacity: usize) -> (BroadcastSender<T>, BroadcastReceiver<T>) {
    let shared = Rc::new(Broadcast {
        values: RefCell::default(),
        first: Cell::new(0),
        capacity: capacity.max(1),
        senders: Cell::new(1),
        waiters: WaitList::default(),
    });
    (BroadcastSender { shared: shared.clone() }, BroadcastReceiver { shared, next: 0 })
}

/// Sends to all receivers of [`broadcast`]. Clones send to the same.
pub struct BroadcastSender<T> {
    shared: Rc<Broadcast<T>>,
}

impl<T: Clone> BroadcastSender<T> {
    /// Sends a value to every receiver that exists now. Does not wait; drops the oldest value if the channel is full.
    pub fn send(&self, value: T) {
        let shared = &self.shared;
        let mut values = shared.values.borrow_mut();
        let dropped = if values.len() == shared.capacity { values.pop_front() } else { None };
        values.push_back(value);
        drop(values);
        if dropped.is_some() {
            shared.first.set(shared.first.get() + 1);
        }
        shared.waiters.wake_all();
        drop(dropped);
    }

    /// Another receiver, for what is sent from now on.
    pub fn receiver(&self) -> BroadcastReceiver<T> {
        BroadcastReceiver { shared: self.shared.clone(), next: self.shared.end() }
    }
}

impl<T> Clone for BroadcastSender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for BroadcastSender<T> {
    fn drop(&mut self) {
        self.shared.senders.set(self.shared.senders.get() - 1);
        if self.shared.senders.get() == 0 {
            self.shared.waiters.wake_all();
        }
    }
}

/// Receives what is sent by [`broadcast`].
pub struct BroadcastReceiver<T> {
    shared: Rc<Broadcast<T>>,
    /// The number of the next value.
    next: u64,
}

impl<T: Clone> BroadcastReceiver<T> {
    /// Parks until there is a value that this receiver has not got, and returns the oldest of them.
    ///
    /// # Errors
    ///
    /// [`BroadcastError::Missed`] if the receiver was too slow: the next call returns the oldest value that is left.
    /// [`BroadcastError::Closed`] if no sender is left, and the receiver has got all. [`BroadcastError::Interrupted`]
    /// if the wait is interrupted, which loses no value.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn receive(&mut self) -> Result<T, BroadcastError> {
        wait_for(self.received()).unwrap_or_else(|interrupt| Err(BroadcastError::Interrupted(interrupt)))
    }

    /// The next value, to be waited for in a [`Select`](crate::Select): gives what [`receive`](Self::receive) does.
    pub fn received(&mut self) -> impl Pollable<Output = Result<T, BroadcastError>> + '_ {
        let (shared, next) = (&self.shared, &mut self.next);
        Change::new(&shared.waiters, "the next value of the broadcast", move || {
            let missed = shared.first.get().saturating_sub(*next);
            if missed > 0 {
                *next += missed;
                return Some(Err(BroadcastError::Missed(missed)));
            }
            let value = shared.values.borrow().get((*next - shared.first.get()) as usize).cloned();
            if value.is_some() {
                *next += 1;
            }
            match value {
                None if shared.senders.get() == 0 => Some(Err(BroadcastError::Closed)),
                value => value.map(Ok),
            }
        })
    }
}

impl<T> Clone for BroadcastReceiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), next: self.next }
    }
}

/// Why a broadcast gave no value.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// So many values are gone that this receiver has not got.
    Missed(u64),
    /// No sender is left, and the receiver has got all values.
    Closed,
    /// The wait was interrupted.
    Interrupted(Interrupt),
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(count) => write!(f, "{count} values were missed"),
            Self::Closed => f.write_str("channel closed"),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

impl std::error::Error for BroadcastError {}

impl From<BroadcastError> for io::Error {
    /// `BrokenPipe` for a closed channel, `Other` for missed values; an interrupt is converted as [`Interrupt`] is.
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::Missed(_) => Self::other(error),
            BroadcastError::Closed => Self::new(io::ErrorKind::BrokenPipe, error),
            BroadcastError::Interrupted(interrupt) => interrupt.into(),
        }
    }
}
