//! Which request a connection sends next, and the wait until it is due.

use std::io;
use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net as net;

use super::{Clock, IDLE_WATCH_MIN, Request, Turn, Wait, Worker};
use crate::link::Link;
use crate::outcome::ErrorKind;
use crate::reading::describe_surplus;
use crate::request_list::Chosen;
use crate::schedule::Numbers;
use crate::transport::Transport;

impl Worker {
    /// Whether a connection may still get a request.
    pub(super) fn has_requests_left(&self) -> bool {
        let has_new = match &self.numbers {
            None => self.remaining.get() > 0,
            Some(numbers) => self.share.global_number(self.taken.get()) < numbers.end,
        };
        has_new || !self.returned.borrow().is_empty()
    }

    /// Takes the next request; `None` at the end. In an open loop it may be due later: only free connections take
    /// requests, and wait for them.
    #[inline]
    pub(super) fn take_request(&self, clock: &Clock, now: Instant) -> Option<Request> {
        if self.is_over(clock, now) {
            return None;
        }
        if let Some(request) = self.returned.borrow_mut().pop_front() {
            let due = if self.numbers.is_some() { request.due } else { now };
            return Some(Request { due, ..request });
        }
        let Some(numbers) = &self.numbers else {
            let is_measured = now >= clock.measure_from;
            if is_measured {
                self.remaining.set(self.remaining.get().checked_sub(1)?);
            }
            let number = self.share.global_number(self.taken.get());
            self.taken.set(self.taken.get() + 1);
            let chosen = self.work.list().map_or_else(Chosen::default, |list| list.choose(number));
            let (step, turn, was_sent) = (None, Turn::Single, false);
            return Some(Request { due: now, number, is_measured, step, turn, chosen, was_sent });
        };
        if now < clock.start + self.plan.ramp_up {
            self.skip_for_ramp_up(numbers, clock, now);
        }
        let number = self.share.global_number(self.taken.get());
        if number >= numbers.end {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Request {
            due: clock.start + numbers.schedule.due_after(number),
            number,
            is_measured: number >= numbers.first_measured,
            step: numbers.step_of(number),
            turn: Turn::Single,
            chosen: self.work.list().map_or_else(Chosen::default, |list| list.choose(number)),
            was_sent: false,
        })
    }

    /// During the ramp-up, skips requests that are overdue, and those of connections that are not open yet, so that
    /// the rate rises with the connections.
    pub(super) fn skip_for_ramp_up(&self, numbers: &Numbers, clock: &Clock, now: Instant) {
        let overdue = self.share.count_below(numbers.schedule.due_before(now - clock.start));
        // Per request that is sent, skips one for each connection that is not open, divided by those that are.
        let open = self.tally.open_now().max(1);
        let to_skip = self.skip_remainder.get() + self.connections().saturating_sub(open);
        self.skip_remainder.set(to_skip % open);
        let skipped = self.taken.get().max(overdue) + (to_skip / open) as u64;
        let first_measured = self.share.count_below(numbers.first_measured);
        self.taken.set(skipped.min(first_measured).max(self.taken.get()));
    }

    /// Returns a request, so that another connection sends it. A session that has begun stays with its connection.
    pub(super) fn return_request(&self, request: Request) {
        if request.turn == Turn::Later {
            if request.was_sent && !self.is_stopped() {
                self.lose(request);
            }
        } else if self.numbers.is_some() || request.was_sent {
            self.returned.borrow_mut().push_back(request);
        } else if request.is_measured {
            self.remaining.set(self.remaining.get().saturating_add(1));
        }
    }

    /// Waits until a request is due, on an idle connection if it is one that is kept.
    #[inline(always)]
    pub(super) fn wait_until_due(&self, open: Option<&Transport>, request: Request, now: Instant) -> Wait {
        if request.due <= now { Wait::Due(now) } else { self.sleep_until_due(open, request, now) }
    }

    pub(super) fn sleep_until_due(&self, open: Option<&Transport>, request: Request, now: Instant) -> Wait {
        let idle = request.due - now;
        match open {
            Some(Transport::Stream(stream)) if idle >= IDLE_WATCH_MIN => {
                match self.watch_idle(stream, idle) {
                    Wait::Due(_) => {}
                    ended => return ended,
                }
            }
            #[cfg(feature = "websocket")]
            Some(Transport::WebSocket(conversation)) if idle >= IDLE_WATCH_MIN => {
                match self.watch(idle, || conversation.watch()) {
                    Wait::Due(_) => {}
                    ended => return ended,
                }
            }
            _ if fibers::sleep(idle).is_err() => return Wait::Stopped,
            _ => {}
        }
        if self.is_stopped() {
            return Wait::Stopped;
        }
        let now = Instant::now();
        // In a closed loop, a session pauses before a request, which is due when it is sent.
        if request.is_measured && self.numbers.is_some() {
            self.tally.sent_late(now.saturating_duration_since(request.due));
        }
        Wait::Due(now)
    }

    /// Waits on an idle connection, on which nothing should happen but its end, which HTTP servers may announce.
    pub(super) fn watch_idle(&self, stream: &Link, idle: Duration) -> Wait {
        self.watch(idle, || {
            let unasked = stream.receive()?.filter(|bytes| !self.work.is_idle_timeout(bytes));
            Ok(unasked.map(|bytes| describe_surplus(&bytes)))
        })
    }

    /// Waits while `receive` does, which describes what came unasked, or returns `None` at the end.
    fn watch(&self, idle: Duration, receive: impl FnOnce() -> io::Result<Option<String>>) -> Wait {
        match fibers::with_deadline(idle, receive) {
            Ok(Some(surplus)) => {
                self.tally.failed(ErrorKind::Wrong, || surplus);
                Wait::Closed
            }
            Err(error) => match net::interrupt_of(&error) {
                Some(Interrupt::DeadlineExpired) => Wait::Due(Instant::now()),
                Some(_) => Wait::Stopped,
                None => self.closed_idle(),
            },
            Ok(None) => self.closed_idle(),
        }
    }

    #[cold]
    pub(super) fn closed_idle(&self) -> Wait {
        self.tally.closed_idle();
        Wait::Closed
    }
}
