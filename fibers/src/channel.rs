//! Channels between the fibers of one thread.
//!
//! ```text
//!   values: accepted, at most `capacity`     offers: each with a giver that is parked
//!   ┌───┬───┬───┐                            ┌───┬───┐
//!   │ 1 │ 2 │ 3 │ ◄───────────────────────── │ 4 │ 5 │ ◄── give
//!   └───┴───┴───┘                            └───┴───┘
//!     └──► taken by the running fiber; parked takers wait in a queue
//! ```
//!
//! No value is ever handed to a parked fiber: the fiber is woken, and takes a value when it runs. So an
//! interrupt in between loses nothing. The n-th taker in the queue is promised the n-th value; a taker that
//! leaves the queue without a value passes its promise on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use crate::interrupt::Interrupt;
use crate::wait::{failed_at_once, wait_telling};
use crate::wait_reason::{WaitReason, short_name};

/// A queue of values between the fibers of one thread, like that of Janet's `ev/chan`. Clones are handles to
/// the same channel; any number of fibers may give and take, and both are served in the order of their calls.
///
/// It is not `Send`: other threads reach fibers through a [`Remote`](crate::Remote). A channel is closed only by
/// [`close`](Self::close): fibers that hold the last handles wait until they are interrupted.
///
/// # Differences from Janet
///
/// An interrupted giver gets its value back; Janet leaves it in the channel. Values accepted before
/// [`close`](Self::close) can still be taken; Janet drops them. With a capacity of zero, giving always parks
/// until the value has been taken; Janet does not park if a taker is waiting.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, Channel};
///
/// let sum = fibers::run(|| {
///     let numbers = Channel::bounded(8);
///     let giver = numbers.clone();
///     fibers::spawn(move || {
///         for number in 0..100 {
///             giver.give(number).unwrap(); // parks while there are 8
///         }
///         giver.close();
///     })
///     .unwrap();
///     let mut sum = 0;
///     while let Ok(number) = numbers.take() {
///         sum += number;
///     }
///     sum
/// });
/// assert_eq!(sum.unwrap(), 4950);
/// ```
pub struct Channel<T> {
    state: Rc<RefCell<State<T>>>,
}

struct State<T> {
    capacity: usize,
    closed: bool,
    values: VecDeque<T>,
    /// Empty while `values` has room. Sorted by ticket, like the takers.
    offers: VecDeque<Offer<T>>,
    takers: VecDeque<Taker>,
    next_ticket: u64,
}

struct Offer<T> {
    ticket: u64,
    value: T,
    giver: Giver,
}

struct Taker {
    ticket: u64,
    waiter: Rc<dyn Wake>,
}

/// The parked fiber behind an offer.
pub(crate) struct Giver {
    pub(crate) waiter: Rc<dyn Wake>,
    /// Called when the offer has been accepted, before anybody else runs.
    pub(crate) on_accept: Option<Box<dyn FnOnce()>>,
}

impl Giver {
    /// The offer has been accepted. The caller must not hold a channel's state, as a selection withdraws its
    /// other offers here.
    fn accepted(self) {
        if let Some(on_accept) = self.on_accept {
            on_accept();
        }
        self.waiter.wake();
    }
}

impl<T> State<T> {
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// How many values can be taken. Offers to a closed channel do not count: their givers take them back.
    fn available(&self) -> usize {
        self.values.len() + if self.closed { 0 } else { self.offers.len() }
    }

    fn place_of_taker(&self, ticket: u64) -> Option<usize> {
        self.takers.binary_search_by_key(&ticket, |taker| taker.ticket).ok()
    }

    fn place_of_offer(&self, ticket: u64) -> Option<usize> {
        self.offers.binary_search_by_key(&ticket, |offer| offer.ticket).ok()
    }

    /// Wakes the last taker that is promised a value. After the number of values or of takers has changed by
    /// one, it is the only one that may not have been woken.
    fn wake_promised(&self) {
        if let Some(last) = self.available().checked_sub(1)
            && let Some(taker) = self.takers.get(last)
        {
            taker.waiter.clone().wake();
        }
    }

    fn wake_takers(&self) {
        for taker in &self.takers {
            taker.waiter.clone().wake();
        }
    }

    /// Takes the oldest value, together with the giver whose offer thereby is accepted.
    fn pop(&mut self) -> Option<(T, Option<Giver>)> {
        let value = self.values.pop_front();
        if self.closed {
            if self.values.is_empty() {
                // The remaining takers get `Closed`.
                self.wake_takers();
            }
            return value.map(|value| (value, None));
        }
        let Some(value) = value else {
            return self.offers.pop_front().map(|offer| (offer.value, Some(offer.giver)));
        };
        let mut accepted = None;
        if self.values.len() < self.capacity
            && let Some(offer) = self.offers.pop_front()
        {
            self.values.push_back(offer.value);
            accepted = Some(offer.giver);
        }
        Some((value, accepted))
    }
}

impl<T> Channel<T> {
    /// A channel that accepts `capacity` values before giving parks. With a capacity of zero, giving always
    /// parks until the value is taken.
    pub fn bounded(capacity: usize) -> Self {
        let state = State {
            capacity,
            closed: false,
            values: VecDeque::new(),
            offers: VecDeque::new(),
            takers: VecDeque::new(),
            next_ticket: 0,
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// A channel to which giving never parks. Nothing bounds its memory.
    pub fn unbounded() -> Self {
        Self::bounded(usize::MAX)
    }

    /// Gives a value to the channel; parks while the channel is full.
    ///
    /// # Errors
    ///
    /// [`GiveError`] with the value if the channel is closed, or is closed while the fiber waits, or if the
    /// wait is interrupted. Without an error the channel has accepted the value, or with a capacity of zero
    /// another fiber has taken it.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Channel, ChannelError, Interrupt};
    ///
    /// fibers::run(|| {
    ///     let channel = Channel::bounded(1);
    ///     channel.give("first").unwrap();
    ///     // It is full, and no fiber takes.
    ///     let late = fibers::with_deadline(Duration::from_millis(1), || channel.give("second"));
    ///     let error = late.unwrap_err();
    ///     assert_eq!(error.cause, ChannelError::Interrupted(Interrupt::DeadlineExpired));
    ///     assert_eq!(error.value, "second");
    /// })
    /// .unwrap();
    /// ```
    pub fn give(&self, value: T) -> Result<(), GiveError<T>> {
        /// Withdraws the offer, also if the wait unwinds.
        struct Offered<'a, T>(&'a Channel<T>, Option<u64>);
        impl<T> Offered<'_, T> {
            fn withdraw(&mut self) -> Option<T> {
                self.0.withdraw(self.1.take()?)
            }
        }
        impl<T> Drop for Offered<'_, T> {
            fn drop(&mut self) {
                let value = self.withdraw();
                drop(value);
            }
        }
        let mut slot = Some(value);
        let attempted = self.attempt_give(&mut slot);
        let Some(value) = slot else { return Ok(()) };
        if attempted.is_some() {
            failed_at_once();
            return Err(GiveError { value, cause: ChannelError::Closed });
        }
        let mut value = Some(value);
        let mut offered = Offered(self, None);
        let poll = |offered: &mut Offered<'_, T>, waiter: &Rc<dyn Wake>| {
            if let Some(value) = value.take() {
                offered.1 = Some(self.offer(value, Giver { waiter: waiter.clone(), on_accept: None }));
            }
            match offered.1 {
                Some(ticket) if self.is_offered(ticket) && !self.is_closed() => Poll::Pending,
                _ => Poll::Ready(()),
            }
        };
        let waited = wait_telling(&mut offered, poll, |_| self.reason_to_give());
        match offered.withdraw() {
            None => Ok(()),
            Some(value) => {
                let cause = waited.err().map_or(ChannelError::Closed, ChannelError::Interrupted);
                Err(GiveError { value, cause })
            }
        }
    }

    /// Takes the oldest value; parks while there is none.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Closed`] once the channel is closed and empty; [`ChannelError::Interrupted`] if the
    /// wait is interrupted, which never loses a value.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn take(&self) -> Result<T, ChannelError> {
        let mut place = Place { channel: self, ticket: None };
        if let Some(taken) = place.attempt_take() {
            return taken.inspect_err(|_| failed_at_once()).map_err(ChannelError::from);
        }
        let poll = |place: &mut Place<'_, T>, waiter: &Rc<dyn Wake>| match place.attempt_take() {
            Some(taken) => Poll::Ready(taken),
            None => {
                place.enqueue(waiter);
                Poll::Pending
            }
        };
        let taken = wait_telling(&mut place, poll, |_| self.reason_to_take());
        taken?.map_err(ChannelError::from)
    }

    /// Closes the channel for all its handles. Waiting givers get their values back. Accepted values can
    /// still be taken; after that, taking is an error. Closing again does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, Channel, ChannelError};
    ///
    /// fibers::run(|| {
    ///     let channel = Channel::unbounded();
    ///     channel.give(1).unwrap();
    ///     channel.close();
    ///     assert_eq!(channel.give(2).unwrap_err().value, 2);
    ///     assert_eq!(channel.take(), Ok(1));
    ///     assert_eq!(channel.take(), Err(ChannelError::Closed));
    /// })
    /// .unwrap();
    /// ```
    pub fn close(&self) {
        let mut state = self.state.borrow_mut();
        if state.closed {
            return;
        }
        state.closed = true;
        for offer in &state.offers {
            offer.giver.waiter.clone().wake();
        }
        if state.values.is_empty() {
            state.wake_takers();
        }
    }

    /// How many values can be taken without parking, including those of waiting givers.
    pub fn len(&self) -> usize {
        self.state.borrow().available()
    }

    /// Whether there is no value to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel accepts before giving parks; `None` if it never does.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.state.borrow().capacity).filter(|&capacity| capacity < usize::MAX)
    }

    /// Whether the channel holds as many values as it accepts, so that giving would park.
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.values.len() >= state.capacity
    }

    /// Whether [`close`](Self::close) has been called. There may be values left to take.
    pub fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Gives the value in the slot if the channel accepts it at once; `None` if the channel is full.
    pub(crate) fn attempt_give(&self, slot: &mut Option<T>) -> Option<Result<(), Closed>> {
        let mut state = self.state.borrow_mut();
        if state.closed {
            return Some(Err(Closed));
        }
        if state.values.len() >= state.capacity {
            return None;
        }
        state.values.push_back(slot.take()?);
        state.wake_promised();
        Some(Ok(()))
    }

    /// Gives a value, if necessary beyond the capacity. A closed channel drops it.
    pub(crate) fn give_at_once(&self, value: T) {
        let mut state = self.state.borrow_mut();
        if state.closed {
            drop(state);
            drop(value);
            return;
        }
        state.values.push_back(value);
        state.wake_promised();
    }

    /// Offers a value to takers until it is accepted or withdrawn. The channel must be full.
    pub(crate) fn offer(&self, value: T, giver: Giver) -> u64 {
        let mut state = self.state.borrow_mut();
        let ticket = state.ticket();
        state.offers.push_back(Offer { ticket, value, giver });
        state.wake_promised();
        ticket
    }

    fn is_offered(&self, ticket: u64) -> bool {
        self.state.borrow().place_of_offer(ticket).is_some()
    }

    /// Takes an offer back; `None` if it has been accepted.
    pub(crate) fn withdraw(&self, ticket: u64) -> Option<T> {
        let mut state = self.state.borrow_mut();
        let place = state.place_of_offer(ticket)?;
        let offer = state.offers.remove(place)?;
        // The giver is dropped after the state is released: it may hold the last handle of another channel.
        drop(state);
        Some(offer.value)
    }

    /// Why a fiber waits that takes.
    pub(crate) fn reason_to_take(&self) -> WaitReason {
        WaitReason::new("take from", self.described())
    }

    /// Why a fiber waits that gives.
    pub(crate) fn reason_to_give(&self) -> WaitReason {
        WaitReason::new("give to", self.described())
    }

    fn described(&self) -> String {
        let state = self.state.borrow();
        let values = match state.capacity {
            usize::MAX => format!("{} values", state.values.len()),
            capacity => format!("{} of {capacity} values", state.values.len()),
        };
        let waiting = format!("{} fibers take, {} give", state.takers.len(), state.offers.len());
        format!("Channel<{}> at {:p} ({values}; {waiting})", short_name::<T>(), self.address())
    }

    /// Identifies the channel: the same for all its handles, and different from every other living channel.
    pub(crate) fn address(&self) -> *const () {
        Rc::as_ptr(&self.state).cast()
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// A taker's place in the queue, once it has one. Leaves the queue when dropped.
pub(crate) struct Place<'a, T> {
    pub(crate) channel: &'a Channel<T>,
    pub(crate) ticket: Option<u64>,
}

impl<T> Place<'_, T> {
    /// Takes a value if there are more than are promised to earlier takers, and leaves the queue. `None` if
    /// there is nothing to take yet.
    pub(crate) fn attempt_take(&mut self) -> Option<Result<T, Closed>> {
        let mut state = self.channel.state.borrow_mut();
        if state.available() == 0 {
            return state.closed.then_some(Err(Closed));
        }
        let in_queue = self.ticket.and_then(|ticket| state.place_of_taker(ticket));
        if in_queue.unwrap_or(state.takers.len()) >= state.available() {
            return None;
        }
        let (value, accepted) = state.pop()?;
        // Later takers move up by one place, and there is one value less: their promises stay the same.
        let left = in_queue.and_then(|place| state.takers.remove(place));
        self.ticket = None;
        drop(state);
        drop(left);
        if let Some(giver) = accepted {
            giver.accepted();
        }
        Some(Ok(value))
    }

    pub(crate) fn enqueue(&mut self, waiter: &Rc<dyn Wake>) {
        if self.ticket.is_none() {
            let mut state = self.channel.state.borrow_mut();
            let ticket = state.ticket();
            state.takers.push_back(Taker { ticket, waiter: waiter.clone() });
            self.ticket = Some(ticket);
        }
    }

    pub(crate) fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut state = self.channel.state.borrow_mut();
        let Some(place) = state.place_of_taker(ticket) else { return };
        let left = state.takers.remove(place);
        if place < state.available() {
            state.wake_promised();
        }
        drop(state);
        drop(left);
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The channel is closed, and all accepted values have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("channel closed")
    }
}

impl std::error::Error for Closed {}

/// Why a channel gave no value, or accepted none.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The channel is closed and, for a taker, empty.
    Closed,
    /// The wait was interrupted.
    Interrupted(Interrupt),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => Closed.fmt(f),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

impl std::error::Error for ChannelError {}

impl From<Closed> for ChannelError {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Interrupt> for ChannelError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<ChannelError> for io::Error {
    /// `BrokenPipe` for a closed channel; an interrupt is converted as [`Interrupt`] is.
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => Self::new(io::ErrorKind::BrokenPipe, Closed),
            ChannelError::Interrupted(interrupt) => interrupt.into(),
        }
    }
}

/// The value that a channel did not accept, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GiveError<T> {
    /// The value.
    pub value: T,
    /// Why it was not accepted.
    pub cause: ChannelError,
}

impl<T> fmt::Display for GiveError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<T> fmt::Debug for GiveError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GiveError({})", self.cause)
    }
}

impl<T> std::error::Error for GiveError<T> {}

impl<T> From<GiveError<T>> for io::Error {
    /// Converted like its cause; the value is dropped.
    fn from(error: GiveError<T>) -> Self {
        error.cause.into()
    }
}
