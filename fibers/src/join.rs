//! A fiber's result, and waiting for it.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{WaitList, Wake};

use crate::event::FiberEventKind;
use crate::fiber::{Fiber, Unwound};
use crate::group::Group;
use crate::interrupt::Interrupt;
use crate::pollable::{Pollable, wait_for};
use crate::wait::failed_at_once;
use crate::wait_reason::WaitReason;

/// Holds a fiber's result until it is joined.
pub(crate) struct Packet<T> {
    result: Cell<Option<Result<T, Box<dyn Any + Send>>>>,
    finished: Cell<bool>,
    joiners: WaitList,
    /// Gets a panic that nobody joins.
    group: Option<Rc<Group>>,
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        if let Some(group) = &self.group
            && let Some(Err(payload)) = self.result.take()
            && !payload.is::<Unwound>()
        {
            group.keep_panic(payload);
        }
    }
}

impl<T> Packet<T> {
    pub(crate) fn new(group: Option<Rc<Group>>) -> Rc<Self> {
        let (result, finished, joiners) = (Cell::new(None), Cell::new(false), WaitList::default());
        Rc::new(Self { result, finished, joiners, group })
    }

    /// Runs a fiber's function, and keeps its result or its panic for the joiner. Returns how it ended, for
    /// the supervisor.
    pub(crate) fn run(&self, function: impl FnOnce() -> T) -> FiberEventKind {
        // Unwind safe: a panic ends the fiber, and the joiner gets the panic.
        let result = catch_unwind(AssertUnwindSafe(function));
        let ending = match &result {
            Ok(_) => FiberEventKind::Returned,
            Err(payload) if payload.is::<Unwound>() => FiberEventKind::Unwound,
            Err(payload) => FiberEventKind::Panicked(panic_text(payload.as_ref()).to_string()),
        };
        self.result.set(Some(result));
        self.finished.set(true);
        self.joiners.wake_all();
        ending
    }

    pub(crate) fn take(&self) -> Option<Result<T, Box<dyn Any + Send>>> {
        self.result.take()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }
}

/// A handle to a fiber, from [`spawn`](crate::spawn) or [`FiberBuilder`](crate::FiberBuilder). Dropping it
/// detaches the fiber: its result, or its panic, is then discarded.
pub struct JoinHandle<T> {
    packet: Rc<Packet<T>>,
    fiber: Rc<Fiber>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(packet: Rc<Packet<T>>, fiber: Rc<Fiber>) -> Self {
        Self { packet, fiber }
    }

    pub(crate) fn into_packet(self) -> Rc<Packet<T>> {
        self.packet
    }

    /// Has `waiter` be woken at the end of the fiber, or now if it has ended.
    pub(crate) fn wake_at_end(&self, waiter: Rc<dyn Wake>) {
        match self.is_finished() {
            true => waiter.wake(),
            false => drop(self.packet.joiners.add(&waiter)),
        }
    }

    /// The fiber's number, which no other fiber of its runtime has: [`current_id`](crate::current_id).
    pub fn id(&self) -> u64 {
        self.fiber.identity().0
    }

    /// The fiber's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.fiber.identity().1
    }

    /// Parks until the fiber has ended and returns its result, which can be taken once.
    ///
    /// # Errors
    ///
    /// [`JoinError::Panicked`] with the payload if the fiber panicked; [`JoinError::Interrupted`] if
    /// the *waiting* fiber was cancelled or its deadline passed, after which it can join again;
    /// [`JoinError::Taken`] if an earlier join has returned the result or the payload.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, JoinError};
    ///
    /// fibers::run(|| {
    ///     let sum = fibers::spawn(|| 40 + 2).unwrap();
    ///     assert_eq!(sum.join().unwrap(), 42);
    ///     assert!(matches!(sum.join(), Err(JoinError::Taken)));
    ///
    ///     let panics = fibers::spawn(|| panic!("at the disco")).unwrap();
    ///     assert!(matches!(panics.join(), Err(JoinError::Panicked(_))));
    /// })
    /// .unwrap();
    /// ```
    pub fn join(&self) -> Result<T, JoinError> {
        wait_for(self.joining()).unwrap_or_else(|interrupt| Err(JoinError::Interrupted(interrupt)))
    }

    /// The fiber's end, to be waited for in a [`Select`](crate::Select): gives what [`join`](Self::join) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Select};
    ///
    /// fibers::run(|| {
    ///     let slow = fibers::spawn(|| fibers::sleep(Duration::MAX)).unwrap();
    ///     let quick = fibers::spawn(|| 7).unwrap();
    ///     let first = Select::new()
    ///         .on(slow.joining(), |_| "slow")
    ///         .on(quick.joining(), |result| if result.is_ok() { "quick" } else { "panicked" })
    ///         .wait();
    ///     assert_eq!(first, Ok("quick"));
    /// })
    /// .unwrap();
    /// ```
    pub fn joining(&self) -> Joining<'_, T> {
        Joining { handle: self, waiter: None }
    }

    /// The fiber's result, if it has ended.
    pub(crate) fn try_join(&self) -> Option<Result<T, JoinError>> {
        if !self.is_finished() {
            return None;
        }
        Some(match self.packet.take() {
            Some(result) => result.map_err(JoinError::Panicked),
            None => {
                failed_at_once();
                Err(JoinError::Taken)
            }
        })
    }

    /// Interrupts every wait of the fiber from now on.
    pub(crate) fn cancel_for_good(&self) {
        self.fiber.clone().cancel_for_good();
    }

    /// Interrupts the fiber's current wait, or else its next one, with [`Interrupt::Cancelled`].
    ///
    /// An operation in flight is cancelled and waited for; if it succeeds nevertheless, the fiber gets
    /// its result now and the interrupt at its next wait. Cancelling a fiber that has ended does nothing;
    /// cancelling twice before the fiber has run raises one interrupt.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Interrupt};
    ///
    /// fibers::run(|| {
    ///     let sleeper = fibers::spawn(|| fibers::sleep(Duration::MAX)).unwrap();
    ///     fibers::yield_now().unwrap(); // it falls asleep
    ///     sleeper.cancel();
    ///     assert_eq!(sleeper.join().unwrap(), Err(Interrupt::Cancelled));
    /// })
    /// .unwrap();
    /// ```
    pub fn cancel(&self) {
        self.fiber.clone().cancel();
    }

    /// Whether the fiber has ended: [`join`](Self::join) does not park then.
    pub fn is_finished(&self) -> bool {
        self.packet.is_finished()
    }
}

/// The end of a fiber, from [`JoinHandle::joining`].
pub struct Joining<'a, T> {
    handle: &'a JoinHandle<T>,
    waiter: Option<Rc<dyn Wake>>,
}

impl<T> Pollable for Joining<'_, T> {
    type Output = Result<T, JoinError>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        if let Some(result) = self.handle.try_join() {
            return Poll::Ready(result);
        }
        if self.waiter.is_none() {
            self.handle.packet.joiners.add(waiter);
            self.waiter = Some(waiter.clone());
        }
        Poll::Pending
    }

    fn reason(&self) -> WaitReason {
        let (id, name) = self.handle.fiber.identity();
        let name = name.map(|name| format!(" '{name}'")).unwrap_or_default();
        WaitReason::new("the end of", format_args!("fiber {id}{name}"))
    }
}

impl<T> Drop for Joining<'_, T> {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            self.handle.packet.joiners.remove(waiter);
        }
    }
}

impl<T> fmt::Debug for Joining<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Joining")
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}

/// Why a join gave no result.
#[non_exhaustive]
pub enum JoinError {
    /// The fiber panicked; this is its payload, as [`std::panic::catch_unwind`] gives it.
    Panicked(Box<dyn Any + Send>),
    /// The wait for the fiber was interrupted; the fiber itself was not.
    Interrupted(Interrupt),
    /// The result was taken by an earlier join.
    Taken,
    /// The runtime of another thread ended before the fiber ran ([`WorkerTask`](crate::WorkerTask)).
    Lost,
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("non-string panic payload")
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(interrupt) => interrupt.fmt(f),
            Self::Panicked(payload) => write!(f, "the fiber panicked: {}", panic_text(payload.as_ref())),
            Self::Taken => f.write_str("the fiber's result has been taken by an earlier join"),
            Self::Lost => f.write_str("the fiber's runtime ended before the fiber ran"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for std::io::Error {
    /// An interrupt is converted as [`Interrupt`] is; the others are `Other`, a panic with its message and
    /// without its payload.
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Interrupted(interrupt) => interrupt.into(),
            other => Self::other(other.to_string()),
        }
    }
}
