//! Clauses of a selection on channels between threads.

use std::rc::Rc;

use ringspun_runtime::Wake;

use crate::channel::Closed;
use crate::remote_waiter::Registered;
use crate::select::{Clause, Direction, Select, Selection};
use crate::shared_channel::{Giving, SharedChannel, Taking, Waiter};
use crate::wait::failed_at_once;
use crate::wait_reason::WaitReason;

impl<'a, R> Select<'a, R> {
    /// As [`take`](Self::take), from a channel between threads.
    ///
    /// # Panics
    ///
    /// As [`take`](Self::take).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, Channel, Select, SharedChannel};
    ///
    /// fibers::run(|| {
    ///     let (local, shared) = (Channel::bounded(1), SharedChannel::bounded(1));
    ///     let giver = shared.clone();
    ///     let thread = std::thread::spawn(move || giver.give("from afar"));
    ///     let taken = Select::new().take(&local, |value| value).take_shared(&shared, |value| value).wait();
    ///     assert_eq!(taken, Ok(Ok("from afar")));
    ///     thread.join().unwrap().unwrap();
    /// })
    /// .unwrap();
    /// ```
    pub fn take_shared<T: Send>(
        self,
        channel: &'a SharedChannel<T>,
        outcome: impl FnOnce(Result<T, Closed>) -> R + 'a,
    ) -> Self {
        let place = Taking { channel, ticket: None };
        self.with(TakeShared { place, waiter: None, taken: None, outcome })
    }

    /// As [`give`](Self::give), to a channel between threads.
    ///
    /// # Panics
    ///
    /// As [`give`](Self::give).
    pub fn give_shared<T: Send>(
        self,
        channel: &'a SharedChannel<T>,
        slot: &'a mut Option<T>,
        outcome: impl FnOnce(Result<(), Closed>) -> R + 'a,
    ) -> Self {
        let place = Giving { channel, ticket: None };
        self.with(GiveShared { place, slot, waiter: None, given: Ok(()), outcome })
    }
}

/// What wakes a registered clause. `None` before, when a clause is only tried.
fn waiter_of(registered: &Option<Registered>) -> Option<Waiter> {
    registered.as_ref().map(|registered| Waiter::Fiber(registered.waiter()))
}

struct TakeShared<'a, T: Send, F> {
    place: Taking<'a, T>,
    waiter: Option<Registered>,
    /// Present once the clause has been carried out.
    taken: Option<Result<T, Closed>>,
    outcome: F,
}

impl<T: Send, R, F: FnOnce(Result<T, Closed>) -> R> Clause<R> for TakeShared<'_, T, F> {
    fn target(&self) -> Option<(Direction, *const ())> {
        Some((Direction::Take, self.place.channel.address()))
    }

    fn attempt(&mut self, _: &Rc<dyn Wake>) -> bool {
        let queue = self.place.channel.queue();
        // After a wake that found nothing, it joins the list again.
        self.taken = queue.take(&mut self.place.ticket, || waiter_of(&self.waiter));
        self.taken.is_some()
    }

    fn register(&mut self, _: &Rc<Selection>, _: usize, waiter: &Rc<dyn Wake>) {
        self.waiter = Registered::new(waiter.clone());
        if let Some(waiter) = waiter_of(&self.waiter) {
            self.place.channel.queue().wait_to_take(&mut self.place.ticket, waiter);
        }
    }

    fn withdraw(&mut self) {
        self.place.channel.queue().leave_takers(&mut self.place.ticket);
    }

    fn reason(&self) -> WaitReason {
        self.place.channel.reason("take from")
    }

    fn finish(self: Box<Self>) -> R {
        let taken = self.taken.unwrap_or(Err(Closed)).inspect_err(|_| failed_at_once());
        (self.outcome)(taken)
    }
}

struct GiveShared<'a, T: Send, F> {
    place: Giving<'a, T>,
    slot: &'a mut Option<T>,
    waiter: Option<Registered>,
    given: Result<(), Closed>,
    outcome: F,
}

impl<T: Send, R, F: FnOnce(Result<(), Closed>) -> R> Clause<R> for GiveShared<'_, T, F> {
    fn target(&self) -> Option<(Direction, *const ())> {
        Some((Direction::Give, self.place.channel.address()))
    }

    fn attempt(&mut self, _: &Rc<dyn Wake>) -> bool {
        if self.slot.is_none() {
            return false;
        }
        let queue = self.place.channel.queue();
        match queue.give(self.slot, &mut self.place.ticket, || waiter_of(&self.waiter)) {
            Some(given) => {
                self.given = given;
                true
            }
            None => false,
        }
    }

    fn register(&mut self, _: &Rc<Selection>, _: usize, waiter: &Rc<dyn Wake>) {
        if self.slot.is_none() {
            return;
        }
        self.waiter = Registered::new(waiter.clone());
        if let Some(waiter) = waiter_of(&self.waiter) {
            self.place.channel.queue().wait_to_give(&mut self.place.ticket, waiter);
        }
    }

    fn withdraw(&mut self) {
        self.place.channel.queue().leave_givers(&mut self.place.ticket);
    }

    fn reason(&self) -> WaitReason {
        self.place.channel.reason("give to")
    }

    fn finish(self: Box<Self>) -> R {
        (self.outcome)(self.given.inspect_err(|_| failed_at_once()))
    }
}
