//! Requests one at a time over one connection, which is replaced when it ends.

use std::io;
use std::time::{Duration, Instant};

use ringspun_fibers as fibers;

use super::visits::Visit;
use super::{Clock, Connection, REOPEN_PAUSE, Request, Wait, Worker};
use crate::reading::Answer;
use crate::transport::Transport;

/// What is known of a connection besides its socket.
struct Course {
    index: usize,
    /// The pause before it is opened again.
    pause: Duration,
    sent_count: u64,
    /// How many requests were sent before it was opened for the last time.
    sent_before: u64,
    /// A request that waits for the connection to be opened again.
    held: Option<Request>,
    visit: Option<Visit>,
}

impl Course {
    /// Whether the current socket has carried a request.
    fn is_reused(&self) -> bool {
        self.sent_count > self.sent_before
    }
}

impl Worker {
    /// Sends requests over one connection, one at a time, until the run is over. `transport` is absent if the
    /// connection could not be opened yet.
    // Only what nearly every request needs is here: with many connections, each request has to fetch its frame into the
    // cache again.
    #[inline(never)]
    pub(super) fn drive(&self, index: usize, mut transport: Option<Transport>) {
        let clock = self.clock.get();
        let mut now = Instant::now();
        let pause = self.first_pause(index);
        let mut course = Course { index, pause, sent_count: 0, sent_before: 0, held: None, visit: None };
        loop {
            if transport.is_none() {
                transport = self.open_again(&clock, &mut course, now);
                now = Instant::now();
            }
            let Some(open) = &transport else { return };
            let held = course.held.take();
            let next = held.or_else(|| self.next_request(course.visit.as_ref(), &clock, now));
            let Some(mut request) = next else { return };
            let sent = match self.wait_until_due(Some(open), request, now) {
                Wait::Due(now) => now,
                Wait::Closed => {
                    self.tally.closed();
                    (transport, course.held, course.pause) = (None, Some(request), Duration::ZERO);
                    continue;
                }
                Wait::Stopped => return,
            };
            let answer = self.ask(open, &mut course, &mut request, sent);
            now = Instant::now();
            let service_time = now - sent;
            let settled = self.settle(&clock, request, now, (service_time, service_time), &answer);
            let next = match settled {
                Some(next) => next,
                None => match self.fail(&clock, &mut course, request, (now, service_time), answer) {
                    Some(next) => next,
                    None => return,
                },
            };
            course.sent_count += 1;
            let sent_since = course.sent_count - course.sent_before;
            let is_used_up = self.plan.requests_per_connection.is_some_and(|max| sent_since >= max);
            if next != Connection::Keep || is_used_up {
                let is_broken = next == Connection::ReopenLater;
                course.pause = if is_broken { REOPEN_PAUSE } else { Duration::ZERO };
                transport = None;
                self.tally.closed();
            }
            if service_time >= self.plan.timeout {
                // The monitor may have interrupted this fiber when the response had just arrived; the
                // interrupt must not reach the next request.
                let _ = fibers::check();
            }
            self.end_turn(&mut course.visit, course.held.as_ref());
        }
    }

    /// Opens a connection that was replaced, or could not be opened yet; `None` when the run is over.
    #[cold]
    fn open_again(&self, clock: &Clock, course: &mut Course, now: Instant) -> Option<Transport> {
        if (course.pause.is_zero() || course.visit.is_some()) && course.held.is_none() {
            // No connection is opened without a request for it.
            course.held = self.next_request(course.visit.as_ref(), clock, now);
        }
        let open = self.reopen(course.pause, &mut course.held)?;
        course.sent_before = course.sent_count;
        Some(open)
    }

    /// Sends a request that is due, and waits for the answer.
    // Inlined, as a part of the path of each request.
    #[inline(always)]
    fn ask(
        &self,
        open: &Transport,
        course: &mut Course,
        request: &mut Request,
        sent: Instant,
    ) -> io::Result<Answer> {
        self.note_sent(*request);
        if let Some(sessions) = &self.plan.sessions {
            // In a closed loop, a pause ends when it does.
            if self.numbers.is_none() {
                request.due = sent;
            }
            course.visit.get_or_insert_with(|| self.begin_visit(sessions, *request));
        }
        // Neighbouring connections have different messages, too.
        let number = course.index + course.sent_count as usize;
        self.waiting_since[course.index].set(Some(sent));
        let answer = match &mut course.visit {
            None => self.work.perform(open, number, request.chosen),
            Some(visit) => self.work.perform_in_session(open, number, request.chosen, &mut visit.cookies),
        };
        self.waiting_since[course.index].set(None);
        answer
    }

    /// Counts a request that was not answered as expected, or takes it back if it can be sent again. `None` if the run
    /// is being stopped.
    #[cold]
    fn fail(
        &self,
        clock: &Clock,
        course: &mut Course,
        request: Request,
        (now, waited): (Instant, Duration),
        answer: io::Result<Answer>,
    ) -> Option<Connection> {
        if course.is_reused() && self.ends_well(&answer) {
            self.withdraw(request);
            return Some(Connection::Reopen);
        }
        if course.is_reused() && matches!(answer, Ok(Answer::Unsent(_))) {
            self.tally.closed_idle();
            course.held = self.take_back_of_visit(request, &mut course.visit);
            return Some(Connection::Reopen);
        }
        if course.is_reused() && self.may_resend(clock, request, now, &answer) {
            course.held = self.resend_of_visit(request, &mut course.visit);
            return Some(Connection::Reopen);
        }
        self.note_failure(answer, request, waited)
    }
}
