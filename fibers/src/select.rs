//! Waiting for the first of several operations: on channels, and whatever else can be waited for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use crate::channel::{Channel, Closed, Giver, Place};
use crate::interrupt::Interrupt;
use crate::pollable::Pollable;
use crate::wait::{failed_at_once, wait_telling};
use crate::wait_reason::WaitReason;

/// Carries out one of several operations: the first that is possible, like Janet's `ev/select` and `ev/rselect`. They
/// are on channels ([`take`](Self::take), [`give`](Self::give)) or anything that can be waited for ([`on`](Self::on)).
///
/// Each clause has a function that turns its outcome into the result. Only one clause is carried out; the others
/// have no effect on their channels. A clause on a closed channel is possible, with [`Closed`] as its outcome,
/// unless there are values left to take. Without a clause that can ever be carried out, the wait lasts until
/// an interrupt.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Channel, Closed, Select};
///
/// #[derive(Debug, PartialEq)]
/// enum Event {
///     Job(Result<u32, Closed>),
///     Reported,
/// }
///
/// fibers::run(|| {
///     let (jobs, reports) = (Channel::bounded(4), Channel::bounded(1));
///     jobs.give(7).unwrap();
///     let mut report = Some("idle");
///
///     // Both are possible: the first is chosen, and the report stays in its slot.
///     let event = Select::new()
///         .take(&jobs, Event::Job)
///         .give(&reports, &mut report, |_| Event::Reported)
///         .wait();
///     assert_eq!((event, report), (Ok(Event::Job(Ok(7))), Some("idle")));
///
///     // Now only the second is possible.
///     let event = Select::new()
///         .take(&jobs, Event::Job)
///         .give(&reports, &mut report, |_| Event::Reported)
///         .wait();
///     assert_eq!((event, report), (Ok(Event::Reported), None));
///
///     // And now neither is, so the deadline ends the wait.
///     let event = fibers::with_deadline(Duration::from_millis(1), || {
///         Select::new().take(&jobs, Event::Job).wait()
///     });
///     assert_eq!(event, Err(fibers::Interrupt::DeadlineExpired));
/// })
/// .unwrap();
/// ```
pub struct Select<'a, R> {
    clauses: Vec<Box<dyn Clause<R> + 'a>>,
}

impl<'a, R> Select<'a, R> {
    /// A selection without clauses.
    pub fn new() -> Self {
        Self { clauses: Vec::new() }
    }

    /// Adds a clause that takes from `channel`. `outcome` gets the value, or [`Closed`] once the channel is
    /// closed and empty.
    ///
    /// # Panics
    ///
    /// If another clause gives to this channel: the selection would exchange a value with itself.
    pub fn take<T>(self, channel: &'a Channel<T>, outcome: impl FnOnce(Result<T, Closed>) -> R + 'a) -> Self {
        self.with(TakeClause { place: Place { channel, ticket: None }, taken: None, outcome })
    }

    /// Adds a clause that gives the value in `slot` to `channel`. The value stays in the slot if the clause
    /// is not carried out, if the channel is closed, or if the wait is interrupted. A clause with an empty slot
    /// is never possible, which is a way to disable it.
    ///
    /// # Panics
    ///
    /// If another clause takes from this channel: the selection would exchange a value with itself.
    pub fn give<T: 'static>(
        self,
        channel: &'a Channel<T>,
        slot: &'a mut Option<T>,
        outcome: impl FnOnce(Result<(), Closed>) -> R + 'a,
    ) -> Self {
        self.with(GiveClause { channel, slot, offered: None, given: Ok(()), outcome })
    }

    /// Adds a clause that waits for anything: for a time ([`after`](crate::after)), for the end of a fiber
    /// ([`JoinHandle::joining`](crate::JoinHandle::joining)), for a lock, a signal, or a socket with something to read.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Channel, Select};
    ///
    /// fibers::run(|| {
    ///     let jobs = Channel::<u32>::bounded(1);
    ///     let event = Select::new()
    ///         .take(&jobs, |job| job.ok())
    ///         .on(fibers::after(Duration::from_millis(1)), |()| None)
    ///         .wait();
    ///     assert_eq!(event, Ok(None), "no job came in time");
    /// })
    /// .unwrap();
    /// ```
    pub fn on<P: Pollable + 'a>(self, pollable: P, outcome: impl FnOnce(P::Output) -> R + 'a) -> Self {
        self.with(PollClause { pollable: Some(pollable), output: None, outcome })
    }

    pub(crate) fn with(mut self, clause: impl Clause<R> + 'a) -> Self {
        let target = clause.target();
        let mut others = self.clauses.iter().filter_map(|other| other.target());
        let is_circular = target.is_some_and(|(direction, channel)| {
            others.any(|(other, to)| other != direction && to == channel)
        });
        assert!(!is_circular, "a selection both gives to and takes from one channel");
        self.clauses.push(Box::new(clause));
        self
    }

    /// Parks until a clause is possible, carries it out, and returns the result of its function. Of several
    /// that are possible at once, the one that was added first is chosen.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait; no clause has been carried out.
    ///
    /// # Panics
    ///
    /// Outside of a fiber; and with the panic of the clause's function.
    pub fn wait(mut self) -> Result<R, Interrupt> {
        let selection = Rc::new(Selection::default());
        let mut registered = false;
        let poll = |clauses: &mut Vec<Box<dyn Clause<R> + 'a>>, waiter: &Rc<dyn Wake>| {
            if let Some(chosen) = selection.chosen.get() {
                return Poll::Ready(chosen);
            }
            if let Some(possible) = clauses.iter_mut().position(|clause| clause.attempt(waiter)) {
                return Poll::Ready(possible);
            }
            if !registered {
                registered = true;
                for (number, clause) in clauses.iter_mut().enumerate() {
                    clause.register(&selection, number, waiter);
                }
            }
            Poll::Pending
        };
        let chosen = wait_telling(&mut self.clauses, poll, |clauses| {
            let reasons: Vec<_> = clauses.iter().map(|clause| clause.reason().to_string()).collect();
            WaitReason::new("the first of", reasons.join(", "))
        })?;
        self.withdraw();
        Ok(self.clauses.swap_remove(chosen).finish())
    }

    /// Like [`wait`](Self::wait), but chooses at random among the clauses that are possible at once, so that
    /// earlier clauses do not starve later ones.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_shuffled(mut self) -> Result<R, Interrupt> {
        for last in (1..self.clauses.len()).rev() {
            self.clauses.swap(random_below(last + 1), last);
        }
        self.wait()
    }

    fn withdraw(&mut self) {
        for clause in &mut self.clauses {
            clause.withdraw();
        }
    }
}

impl<R> Default for Select<'_, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Drop for Select<'_, R> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl<R> fmt::Debug for Select<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("clauses", &self.clauses.len()).finish()
    }
}

/// Shared by the offers of one waiting selection. Another fiber accepts an offer while the selecting fiber is
/// parked; from then on no other offer may be accepted.
#[derive(Default)]
pub(crate) struct Selection {
    chosen: Cell<Option<usize>>,
    offers: RefCell<Vec<Rc<dyn Withdraw>>>,
}

impl Selection {
    /// Another fiber has carried out a clause: withdraws the other offers before any fiber sees them.
    fn choose(&self, clause: usize) {
        self.chosen.set(Some(clause));
        for offer in self.offers.take() {
            offer.withdraw();
        }
    }
}

trait Withdraw {
    fn withdraw(&self);
}

/// An offer of a selection, and the place its value returns to.
struct Offered<T> {
    channel: Channel<T>,
    ticket: u64,
    returned: Cell<Option<T>>,
}

impl<T> Withdraw for Offered<T> {
    fn withdraw(&self) {
        if let Some(value) = self.channel.withdraw(self.ticket) {
            self.returned.set(Some(value));
        }
    }
}

#[derive(PartialEq, Eq)]
pub(crate) enum Direction {
    Take,
    Give,
}

pub(crate) trait Clause<R> {
    /// The direction, and the channel by its address, if it is an operation on one.
    fn target(&self) -> Option<(Direction, *const ())>;
    /// Carries the clause out if it is possible now.
    fn attempt(&mut self, waiter: &Rc<dyn Wake>) -> bool;
    /// Registers the waiter to be woken when the clause becomes possible.
    fn register(&mut self, selection: &Rc<Selection>, number: usize, waiter: &Rc<dyn Wake>);
    /// Undoes `register`.
    fn withdraw(&mut self);
    /// Why a fiber waits for it.
    fn reason(&self) -> WaitReason;
    /// The result of the clause's function, once the clause has been carried out.
    fn finish(self: Box<Self>) -> R;
}

struct TakeClause<'a, T, F> {
    place: Place<'a, T>,
    /// Present once the clause has been carried out.
    taken: Option<Result<T, Closed>>,
    outcome: F,
}

impl<T, R, F: FnOnce(Result<T, Closed>) -> R> Clause<R> for TakeClause<'_, T, F> {
    fn target(&self) -> Option<(Direction, *const ())> {
        Some((Direction::Take, self.place.channel.address()))
    }

    fn attempt(&mut self, _: &Rc<dyn Wake>) -> bool {
        self.taken = self.place.attempt_take();
        self.taken.is_some()
    }

    fn register(&mut self, _: &Rc<Selection>, _: usize, waiter: &Rc<dyn Wake>) {
        self.place.enqueue(waiter);
    }

    fn withdraw(&mut self) {
        self.place.leave();
    }

    fn reason(&self) -> WaitReason {
        self.place.channel.reason_to_take()
    }

    fn finish(self: Box<Self>) -> R {
        let taken = self.taken.unwrap_or(Err(Closed)).inspect_err(|_| failed_at_once());
        (self.outcome)(taken)
    }
}

struct GiveClause<'a, T, F> {
    channel: &'a Channel<T>,
    slot: &'a mut Option<T>,
    /// Present while the value is in the channel, or once another fiber has carried out the clause.
    offered: Option<Rc<Offered<T>>>,
    given: Result<(), Closed>,
    outcome: F,
}

impl<T: 'static, R, F: FnOnce(Result<(), Closed>) -> R> Clause<R> for GiveClause<'_, T, F> {
    fn target(&self) -> Option<(Direction, *const ())> {
        Some((Direction::Give, self.channel.address()))
    }

    fn attempt(&mut self, _: &Rc<dyn Wake>) -> bool {
        if self.offered.is_some() && self.channel.is_closed() {
            self.withdraw();
        }
        if self.slot.is_none() {
            return false;
        }
        match self.channel.attempt_give(self.slot) {
            Some(given) => {
                self.given = given;
                true
            }
            None => false,
        }
    }

    fn register(&mut self, selection: &Rc<Selection>, number: usize, waiter: &Rc<dyn Wake>) {
        let Some(value) = self.slot.take() else { return };
        let chosen = selection.clone();
        let on_accept = Some(Box::new(move || chosen.choose(number)) as Box<dyn FnOnce()>);
        let giver = Giver { waiter: waiter.clone(), on_accept };
        let ticket = self.channel.offer(value, giver);
        let offered = Rc::new(Offered { channel: self.channel.clone(), ticket, returned: Cell::new(None) });
        selection.offers.borrow_mut().push(offered.clone());
        self.offered = Some(offered);
    }

    fn withdraw(&mut self) {
        if let Some(offered) = self.offered.take() {
            offered.withdraw();
            *self.slot = offered.returned.take();
        }
    }

    fn reason(&self) -> WaitReason {
        self.channel.reason_to_give()
    }

    fn finish(self: Box<Self>) -> R {
        (self.outcome)(self.given.inspect_err(|_| failed_at_once()))
    }
}

struct PollClause<P: Pollable, F> {
    /// `None` once it has been given up, or is ready.
    pollable: Option<P>,
    output: Option<P::Output>,
    outcome: F,
}

impl<P: Pollable, R, F: FnOnce(P::Output) -> R> Clause<R> for PollClause<P, F> {
    fn target(&self) -> Option<(Direction, *const ())> {
        None
    }

    /// Also registers the waiter.
    fn attempt(&mut self, waiter: &Rc<dyn Wake>) -> bool {
        if let Some(pollable) = &mut self.pollable
            && let Poll::Ready(output) = pollable.poll(waiter)
        {
            self.output = Some(output);
            self.pollable = None;
        }
        self.output.is_some()
    }

    fn register(&mut self, _: &Rc<Selection>, _: usize, _: &Rc<dyn Wake>) {}

    fn withdraw(&mut self) {
        self.pollable = None;
    }

    fn reason(&self) -> WaitReason {
        self.pollable.as_ref().map_or_else(WaitReason::unknown, P::reason)
    }

    fn finish(self: Box<Self>) -> R {
        match self.output {
            Some(output) => (self.outcome)(output),
            None => unreachable!("only a clause that has been carried out is finished"),
        }
    }
}

/// A number below `bound`, which is at least one, from this thread's generator (xorshift64), whose seed is
/// fixed.
fn random_below(bound: usize) -> usize {
    #[cfg(feature = "simulation")]
    if let Some(simulation) = ringspun_runtime::simulation::current() {
        return simulation.choose(bound);
    }
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0x9E37_79B9_7F4A_7C15) };
    }
    let mut state = STATE.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.set(state);
    // The low bits of a xorshift are its weakest; the bias of the remainder is below 2^-32.
    ((state >> 16) % bound as u64) as usize
}
