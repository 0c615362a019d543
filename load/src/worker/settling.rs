//! Counts what became of requests, and decides what to do with their connections.

use std::io;
use std::time::{Duration, Instant};

use ringspun_net as net;

use super::{Clock, Connection, Request, Worker};
use crate::outcome::ErrorKind;
use crate::plan::Workload;
use crate::quantity::format_duration;
use crate::reading::Answer;
use crate::status::StatusSet;
use crate::target::Target;
use crate::transport;
use crate::work::Work;

const NOT_RESENT: &str =
    "closed before a response, and no other connection in time to send the request again";

impl Worker {
    /// Counts a request that was answered as expected; `None` if it was not. The times are the service time and, of
    /// it, the wait for the response, which the timeout applies to: a response that arrives later is none.
    #[inline(always)]
    pub(super) fn settle(
        &self,
        clock: &Clock,
        request: Request,
        now: Instant,
        (service_time, waited): (Duration, Duration),
        answer: &io::Result<Answer>,
    ) -> Option<Connection> {
        if waited >= self.plan.timeout {
            return None;
        }
        let (traffic, closes) = match answer {
            Ok(Answer::Correct(traffic)) => (*traffic, false),
            Ok(Answer::Response(response, traffic)) => {
                if request.is_measured {
                    self.tally.got_status(response.status);
                    if response.redirects > 0 {
                        self.count(request, |requests| requests.redirects += u64::from(response.redirects));
                    }
                    self.names.got_status(request.chosen, response.status);
                    if let Some(step) = request.step {
                        self.steps.got_status(step, response.status);
                    }
                }
                if !self.expected(request).contains(response.status) || response.has_wrong_body {
                    return None;
                }
                (*traffic, response.closes)
            }
            _ => return None,
        };
        if request.is_measured {
            let is_after_end = self.is_over(clock, now);
            self.tally.answered(service_time, || now - request.due, is_after_end, traffic);
            self.names.answered(request.chosen, || now - request.due, is_after_end);
            if let Some(step) = request.step {
                let times = (now - request.due, service_time);
                self.steps.answered(step, times, now - clock.start, is_after_end);
            }
        } else {
            self.tally.answered_unmeasured();
        }
        Some(if closes { Connection::Reopen } else { Connection::Keep })
    }

    /// Whether this is the end of a connection that only receives: how many bytes it gets is unknown in advance.
    pub(super) fn ends_well(&self, answer: &io::Result<Answer>) -> bool {
        matches!((&self.work, answer), (Work::Receive(_), Ok(Answer::Ended { .. })))
    }

    /// Whether a request on a reused connection may be sent again on another one: the target had closed the
    /// connection, probably while the request was on its way.
    #[cold]
    pub(super) fn may_resend(
        &self,
        clock: &Clock,
        request: Request,
        now: Instant,
        answer: &io::Result<Answer>,
    ) -> bool {
        let is_untouched = match answer {
            Ok(Answer::Ended { has_begun, .. }) => !has_begun,
            Err(error) => transport::request_error_kind(error) == ErrorKind::Reset,
            Ok(_) => false,
        };
        is_untouched && self.work.is_idempotent(request.chosen) && !self.is_over(clock, now)
    }

    /// Takes a request back that its connection may have sent, for the next free connection.
    #[cold]
    pub(super) fn resend(&self, request: Request) {
        self.return_request(self.uncount_sent(request));
    }

    /// Takes a request back that was not sent, for the next free connection.
    #[cold]
    pub(super) fn take_back(&self, request: Request) {
        self.uncount(request);
        self.return_request(request);
    }

    /// Counts a request that was counted as sent, or sent again, as not sent.
    pub(super) fn uncount(&self, request: Request) {
        self.count(request, |requests| {
            requests.sent -= 1;
            requests.resent -= u64::from(request.was_sent);
        });
    }

    /// A request that was sent, as one that is to be sent again.
    pub(super) fn uncount_sent(&self, request: Request) -> Request {
        self.count(request, |requests| requests.sent -= 1);
        Request { was_sent: true, ..request }
    }

    /// Counts a request as lost that was to be sent again, and for which there was no connection in time.
    #[cold]
    pub(super) fn lose(&self, request: Request) {
        self.count(request, |requests| requests.sent += 1);
        self.tally.failed(ErrorKind::Closed, || NOT_RESENT.to_string());
        self.count_failure(request, ErrorKind::Closed);
    }

    /// At the end, counts requests as lost that were to be sent again, unless the run was stopped, which withdraws what
    /// is on its way.
    pub(super) fn give_up_resending(&self) {
        let left = self.returned.take().into_iter().filter(|request| request.was_sent && !self.is_stopped());
        left.for_each(|request| self.lose(request));
    }

    /// Counts a request that failed; `None` if the run is being stopped. `waited` is the wait for its response.
    #[cold]
    pub(super) fn note_failure(
        &self,
        answer: io::Result<Answer>,
        request: Request,
        waited: Duration,
    ) -> Option<Connection> {
        let timeout = self.plan.timeout;
        let late = || format!("no response within {}", format_duration(timeout));
        let (kind, text, next) = match answer {
            Ok(Answer::Correct(_)) => (ErrorKind::TimedOut, late(), Connection::Keep),
            Ok(Answer::Response(response, _)) if waited >= timeout => {
                let next = if response.closes { Connection::Reopen } else { Connection::Keep };
                (ErrorKind::TimedOut, late(), next)
            }
            Ok(Answer::Wrong { text, in_sync }) => {
                (ErrorKind::Wrong, text, if in_sync { Connection::Keep } else { Connection::Reopen })
            }
            Ok(Answer::Response(response, _)) => {
                let next = if response.closes { Connection::Reopen } else { Connection::Keep };
                let shown = self.describe_status(request, response.status);
                match self.expected(request).contains(response.status) {
                    true => (ErrorKind::Body, format!("{shown} without the expected text in its body"), next),
                    false => (ErrorKind::Status, shown, next),
                }
            }
            Ok(Answer::Ended { text, .. } | Answer::Unsent(Ok(text))) => {
                (ErrorKind::Closed, text, Connection::ReopenLater)
            }
            Ok(Answer::Broken(error) | Answer::Unsent(Err(error))) => {
                (transport::request_error_kind(&error), self.describe_break(&error), Connection::ReopenLater)
            }
            Err(error) if net::interrupt_of(&error).is_some() => {
                if waited < timeout {
                    self.withdraw(request);
                    return None;
                }
                (
                    ErrorKind::TimedOut,
                    format!("no response within {}", format_duration(timeout)),
                    Connection::Reopen,
                )
            }
            Err(error) => {
                (transport::request_error_kind(&error), self.describe_break(&error), Connection::ReopenLater)
            }
        };
        self.tally.failed(kind, || text);
        self.count_failure(request, kind);
        Some(next)
    }

    /// Counts a request that failed, without the error, which may concern several requests.
    #[cold]
    pub(super) fn count_failure(&self, request: Request, kind: ErrorKind) {
        self.count(request, |requests| match kind {
            ErrorKind::Wrong => requests.wrong += 1,
            ErrorKind::Status => requests.bad_status += 1,
            ErrorKind::Body => requests.bad_body += 1,
            ErrorKind::TimedOut | ErrorKind::ConnectTimedOut => requests.timed_out += 1,
            _ => requests.lost += 1,
        });
        if request.is_measured {
            self.tally.failed_after(request.due.elapsed());
        }
    }

    /// A peer that is gone has no name: the target is named instead.
    pub(super) fn describe_break(&self, error: &io::Error) -> String {
        error.to_string().replace("a lost peer", &self.plan.target.without_query())
    }

    /// The HTTP statuses that count as success.
    #[inline]
    fn expected(&self, request: Request) -> &StatusSet {
        self.work.list().map_or(&self.expected, |list| list.expected(request.chosen))
    }

    pub(super) fn describe_status(&self, request: Request, status: u16) -> String {
        if let Some(name) = self.names.name(request.chosen) {
            return format!("HTTP {status} for {name}");
        }
        match (&self.plan.workload, &self.plan.target) {
            (Workload::Http(request), Target::Http(target)) => {
                format!("HTTP {status} for {} {}", request.method, target.path_without_query())
            }
            _ => format!("HTTP {status}"),
        }
    }
}
