//! Channels between threads: those of workers, and any others.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::{self, Thread};

use ringspun_runtime::Wake;

use crate::channel::{ChannelError, Closed, GiveError};
use crate::interrupt::Interrupt;
use crate::remote_waiter::{Registered, RemoteWaiter};
use crate::scheduler::Scheduler;
use crate::shared_queue::{Notify, SharedQueue, Ticket};
use crate::wait::{failed_at_once, is_fiber, wait_telling};
use crate::wait_reason::{WaitReason, short_name};

/// A bounded queue of values between threads. Clones are handles to the same channel; any number of fibers and of
/// threads may give and take.
///
/// It is [`Channel`](crate::Channel) for what is `Send`, with these differences:
///
/// - A fiber that has to wait parks; a thread that runs no runtime blocks.
/// - It always has a bound, of one value at least.
/// - Values are taken in the order in which they were accepted; waiting givers and takers are woken in the order of
///   their calls, but one that comes in between may be served before one that was woken and has not run yet.
///
/// Each operation takes a lock for a moment. A wake-up of another runtime is one `write(2)`, and only if that
/// runtime has not been woken since its last turn: a batch of values takes one.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, SharedChannel};
///
/// let numbers = SharedChannel::bounded(8);
/// let giver = numbers.clone();
/// let thread = std::thread::spawn(move || {
///     fibers::run(move || {
///         for number in 0..100 {
///             giver.give(number).unwrap(); // parks while there are 8
///         }
///         giver.close();
///     })
/// });
/// let sum = fibers::run(move || {
///     let mut sum = 0;
///     while let Ok(number) = numbers.take() {
///         sum += number;
///     }
///     sum
/// });
/// assert_eq!(sum.unwrap(), 4950);
/// thread.join().unwrap().unwrap();
/// ```
pub struct SharedChannel<T> {
    queue: Arc<SharedQueue<T, Waiter>>,
}

/// What waits for a channel.
#[derive(Clone)]
pub(crate) enum Waiter {
    Fiber(RemoteWaiter),
    Thread(Thread),
    Task(Waker),
}

impl Notify for Waiter {
    fn notify(self) {
        match self {
            Self::Fiber(waiter) => waiter.wake(),
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) => waker.wake(),
        }
    }
}

impl<T: Send> SharedChannel<T> {
    /// A channel that holds up to `capacity` values; one, if that is zero. Their memory is taken as they come.
    pub fn bounded(capacity: usize) -> Self {
        Self { queue: Arc::new(SharedQueue::new(capacity)) }
    }

    /// Gives a value to the channel; waits while it is full.
    ///
    /// # Errors
    ///
    /// [`GiveError`] with the value if the channel is closed, or is closed during the wait, or if the fiber is
    /// interrupted. Without an error, the channel has accepted the value.
    ///
    /// # Panics
    ///
    /// If it has to wait on the thread of a runtime outside of a fiber, as in a task of a [`Remote`](crate::Remote).
    pub fn give(&self, value: T) -> Result<(), GiveError<T>> {
        let (mut slot, mut place) = (Some(value), Giving { channel: self, ticket: None });
        let waited = wait_here(
            || self.reason("give to"),
            |waiter| self.queue.give(&mut slot, &mut place.ticket, waiter),
        );
        drop(place);
        let cause = match waited {
            Ok(Ok(())) => ChannelError::Closed,
            Ok(Err(Closed)) => {
                failed_at_once();
                ChannelError::Closed
            }
            Err(interrupt) => interrupt.into(),
        };
        // Without a value, the channel has it.
        slot.map_or(Ok(()), |value| Err(GiveError { value, cause }))
    }

    /// Takes the oldest value; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Closed`] once the channel is closed and empty; [`ChannelError::Interrupted`] if the fiber is
    /// interrupted, which never loses a value.
    ///
    /// # Panics
    ///
    /// As [`give`](Self::give).
    pub fn take(&self) -> Result<T, ChannelError> {
        let mut place = Taking { channel: self, ticket: None };
        let taken =
            wait_here(|| self.reason("take from"), |waiter| self.queue.take(&mut place.ticket, waiter))?;
        taken.inspect_err(|_| failed_at_once()).map_err(ChannelError::from)
    }

    /// Gives a value if the channel has room for it now. Also for tasks of a [`Remote`](crate::Remote).
    ///
    /// # Errors
    ///
    /// The value, and whether the channel is full or closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{SharedChannel, TryGiveError};
    ///
    /// let channel = SharedChannel::bounded(1);
    /// assert_eq!(channel.try_give(1), Ok(()));
    /// assert_eq!(channel.try_give(2), Err(TryGiveError::Full(2)));
    /// channel.close();
    /// assert_eq!(channel.try_give(3), Err(TryGiveError::Closed(3)));
    /// ```
    pub fn try_give(&self, value: T) -> Result<(), TryGiveError<T>> {
        let mut slot = Some(value);
        let given = self.queue.give(&mut slot, &mut None, || None);
        match (slot, given) {
            (None, _) => Ok(()),
            (Some(value), None) => Err(TryGiveError::Full(value)),
            (Some(value), Some(_)) => Err(TryGiveError::Closed(value)),
        }
    }

    /// Takes the oldest value if there is one now: `Ok(None)` without one.
    ///
    /// # Errors
    ///
    /// [`Closed`] once the channel is closed and empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{Closed, SharedChannel};
    ///
    /// let channel = SharedChannel::bounded(1);
    /// assert_eq!(channel.try_take(), Ok(None));
    /// channel.try_give(1).unwrap();
    /// channel.close();
    /// assert_eq!(channel.try_take(), Ok(Some(1)));
    /// assert_eq!(channel.try_take(), Err(Closed));
    /// ```
    pub fn try_take(&self) -> Result<Option<T>, Closed> {
        self.queue.take(&mut None, || None).transpose()
    }

    /// Closes the channel for all its handles. Waiting givers get their values back. Accepted values can still be
    /// taken; after that, taking is an error. Closing again does nothing. Never waits.
    pub fn close(&self) {
        self.queue.close();
    }

    /// How many values can be taken without waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is no value to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel holds before giving waits.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Whether [`close`](Self::close) has been called. There may be values left to take.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(crate) fn queue(&self) -> &SharedQueue<T, Waiter> {
        &self.queue
    }

    /// Why a fiber waits for it, which does `operation`.
    pub(crate) fn reason(&self, operation: &'static str) -> WaitReason {
        let (values, capacity, address) = (self.len(), self.capacity(), self.address());
        let name = short_name::<T>();
        let object = format!("SharedChannel<{name}> at {address:p} ({values} of {capacity} values)");
        WaitReason::new(operation, object)
    }

    /// Identifies the channel: the same for all its handles, and different from every other living channel.
    pub(crate) fn address(&self) -> *const () {
        Arc::as_ptr(&self.queue).cast()
    }
}

impl<T> Clone for SharedChannel<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T: Send> fmt::Debug for SharedChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedChannel")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// Waits until `poll` returns something: a fiber parks, a thread without a runtime blocks. `poll` gets what makes its
/// waiter, where it has to wait. `reason` says what for.
fn wait_here<R>(
    reason: impl Fn() -> WaitReason,
    mut poll: impl FnMut(&mut dyn FnMut() -> Option<Waiter>) -> Option<R>,
) -> Result<R, Interrupt> {
    if is_fiber() || Scheduler::current().is_some() {
        let mut registered = None;
        let poll_fiber = |_: &mut (), waiter: &Rc<dyn Wake>| {
            let mut register = || {
                if registered.is_none() {
                    registered = Registered::new(waiter.clone());
                }
                registered.as_ref().map(|registered| Waiter::Fiber(registered.waiter()))
            };
            poll(&mut register).map_or(Poll::Pending, Poll::Ready)
        };
        return wait_telling(&mut (), poll_fiber, |()| reason());
    }
    loop {
        if let Some(result) = poll(&mut || Some(Waiter::Thread(thread::current()))) {
            return Ok(result);
        }
        // Also returns for no reason, or for a wake-up of an earlier wait.
        thread::park();
    }
}

/// One that gives, which leaves the list of those that wait when it is dropped.
pub(crate) struct Giving<'a, T: Send> {
    pub(crate) channel: &'a SharedChannel<T>,
    pub(crate) ticket: Ticket,
}

impl<T: Send> Drop for Giving<'_, T> {
    fn drop(&mut self) {
        self.channel.queue.leave_givers(&mut self.ticket);
    }
}

/// One that takes, likewise.
pub(crate) struct Taking<'a, T: Send> {
    pub(crate) channel: &'a SharedChannel<T>,
    pub(crate) ticket: Ticket,
}

impl<T: Send> Drop for Taking<'_, T> {
    fn drop(&mut self) {
        self.channel.queue.leave_takers(&mut self.ticket);
    }
}

/// The value that [`SharedChannel::try_give`] did not give, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryGiveError<T> {
    /// The channel has no room now.
    Full(T),
    /// The channel is closed.
    Closed(T),
}

impl<T> TryGiveError<T> {
    /// The value.
    pub fn into_value(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Display for TryGiveError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "channel full",
            Self::Closed(_) => "channel closed",
        })
    }
}

impl<T: fmt::Debug> std::error::Error for TryGiveError<T> {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_without_a_runtime_pass_values_through_a_full_channel() {
        const VALUES: u32 = if cfg!(miri) { 12 } else { 5000 };
        let channel = SharedChannel::bounded(1);
        let giving = |first: u32| {
            let channel = channel.clone();
            thread::spawn(move || (0..VALUES).for_each(|number| channel.give(first + number).unwrap()))
        };
        let taking = || {
            let channel = channel.clone();
            thread::spawn(move || std::iter::from_fn(|| channel.take().ok()).map(u64::from).sum::<u64>())
        };
        let (givers, takers) = ([giving(0), giving(VALUES)], [taking(), taking()]);
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        channel.close();
        let sum: u64 = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
        assert_eq!(sum, (0..u64::from(2 * VALUES)).sum::<u64>());
    }
}
