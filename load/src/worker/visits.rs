//! Sessions that connections are running: which request comes next, and what became of them.

use std::cell::Cell;
use std::time::Instant;

use super::{Clock, Request, Turn, Worker};
use crate::cookies::Jar;
use crate::outcome::SessionCounts;
use crate::request_list::Chosen;
use crate::sessions::Sessions;

/// A session that has sent its first request.
pub(super) struct Visit {
    number: u64,
    length: u32,
    /// How many requests have been answered, or have failed.
    made: u32,
    is_measured: bool,
    /// What it has got, with HTTP.
    pub(super) cookies: Jar,
}

/// Counts of measured sessions.
#[derive(Default)]
pub(super) struct VisitTally {
    begun: Cell<u64>,
    completed: Cell<u64>,
    /// How many requests of sessions this thread has taken, measured or not.
    requests_taken: Cell<u64>,
}

impl VisitTally {
    /// The results of this thread.
    pub(super) fn outcome(&self, planned: Option<u64>) -> SessionCounts {
        SessionCounts { planned, begun: self.begun.get(), completed: self.completed.get() }
    }
}

impl Worker {
    /// The next request for a connection: that of the session which it runs, or the first one of the next. Without
    /// sessions, the next request of the run.
    #[inline]
    pub(super) fn next_request(&self, visit: Option<&Visit>, clock: &Clock, now: Instant) -> Option<Request> {
        match (&self.plan.sessions, visit) {
            (None, _) => self.take_request(clock, now),
            (Some(sessions), Some(visit)) => self.go_on(sessions, visit, clock, now),
            (Some(_), None) => {
                let request = self.take_request(clock, now)?;
                let chosen = self.choose(request.number);
                Some(Request { turn: Turn::First, chosen, ..request })
            }
        }
    }

    /// The next request of a session; `None` if it is due after the end.
    fn go_on(&self, sessions: &Sessions, visit: &Visit, clock: &Clock, now: Instant) -> Option<Request> {
        let due = now + sessions.think(self.plan.seed, visit.number, visit.made);
        if self.is_over(clock, due) {
            return None;
        }
        Some(Request {
            due,
            number: visit.number,
            is_measured: due >= clock.measure_from,
            step: None,
            turn: Turn::Later,
            chosen: self.choose(visit.number),
            was_sent: false,
        })
    }

    /// Chooses a request of a list, if there is one, for a session. All of its requests have the same row of data.
    fn choose(&self, session: u64) -> Chosen {
        let Some(list) = self.work.list() else { return Chosen::default() };
        let taken = &self.visits.requests_taken;
        let number = self.share.global_number(taken.get());
        taken.set(taken.get() + 1);
        Chosen { row: session, ..list.choose(number) }
    }

    /// Begins the session of a first request that is being sent.
    pub(super) fn begin_visit(&self, sessions: &Sessions, request: Request) -> Visit {
        let visit = Visit {
            number: request.number,
            length: sessions.length(self.plan.seed, request.number),
            made: 0,
            is_measured: request.is_measured,
            cookies: Jar::default(),
        };
        self.count_begun(&visit, 1);
        visit
    }

    fn count_begun(&self, visit: &Visit, change: i64) {
        if visit.is_measured {
            let begun = &self.visits.begun;
            begun.set(begun.get().saturating_add_signed(change));
        }
    }

    /// Takes a request back that was not answered, to be sent again: by the next free connection, unless it is a later
    /// one of a session, which is returned for its connection.
    pub(super) fn resend_of_visit(&self, request: Request, visit: &mut Option<Visit>) -> Option<Request> {
        self.give_back(self.uncount_sent(request), visit)
    }

    /// Takes a request back of which nothing was sent, as [`Worker::resend_of_visit`] does.
    pub(super) fn take_back_of_visit(&self, request: Request, visit: &mut Option<Visit>) -> Option<Request> {
        self.uncount(request);
        self.give_back(request, visit)
    }

    fn give_back(&self, request: Request, visit: &mut Option<Visit>) -> Option<Request> {
        if request.turn == Turn::Later {
            return Some(request);
        }
        self.return_request(request);
        if let Some(visit) = visit.take() {
            self.count_begun(&visit, -1);
        }
        None
    }

    /// Counts a request of a session as made, and ends the session with its last one. One that is held is not made yet.
    #[inline]
    pub(super) fn end_turn(&self, visit: &mut Option<Visit>, held: Option<&Request>) {
        let Some(current) = visit.as_mut().filter(|_| held.is_none()) else { return };
        current.made += 1;
        if current.made >= current.length {
            if current.is_measured {
                self.visits.completed.set(self.visits.completed.get() + 1);
            }
            *visit = None;
        }
    }
}
