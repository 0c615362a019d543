//! Pipelining: several requests in flight on one connection.
//!
//! Responses arrive in the order of the requests. Bytes that arrive together are read together, and requests that
//! can be sent together are written together, which saves both ends system calls.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net as net;

use super::{Clock, Connection, IDLE_WATCH_MIN, REOPEN_PAUSE, Request, Wait, Worker};
use crate::link::{Early, Link};
use crate::outcome::ErrorKind;
use crate::reading::{Answer, Reading, describe_surplus, early_answer};
use crate::transport::{self, Transport};
use crate::work::Exchange;

/// A request in flight.
struct Flight<'w> {
    request: Request,
    sent: Instant,
    reading: Reading<'w>,
}

/// The state of a pipelined connection.
struct Pipeline<'w> {
    exchange: &'w Exchange,
    index: usize,
    /// How many requests this connection has sent.
    sent_count: usize,
    /// The requests in flight, oldest first; preallocated.
    flights: VecDeque<Flight<'w>>,
    /// The requests that are written together.
    batch: Vec<u8>,
    /// The next request, which is not due yet.
    next: Option<Request>,
    /// Whether a response has arrived on the current connection.
    is_reused: bool,
    /// Whether the target closed the current connection.
    is_closed: bool,
    /// Whether there was room in the pipeline before the next request was due.
    is_awaited: bool,
}

/// What a connection waits for after it has sent the requests that were due.
enum Next {
    /// A response: the pipeline is full.
    Answer,
    /// A response, or the due time of the next request.
    Due(Instant),
    /// The last responses, before the end of the run.
    End,
}

impl Worker {
    /// Sends requests over one connection, up to the plan's depth at a time, until the run is over. `transport` is
    /// absent if the connection could not be opened yet.
    pub(super) fn pipeline(&self, exchange: &Exchange, index: usize, mut transport: Option<Transport>) {
        let clock = self.clock.get();
        let mut pipeline = Pipeline {
            exchange,
            index,
            sent_count: 0,
            flights: VecDeque::with_capacity(self.plan.pipeline),
            batch: Vec::new(),
            next: None,
            is_reused: false,
            is_closed: false,
            is_awaited: false,
        };
        let mut pause = self.first_pause(index);
        loop {
            let open = match transport.take() {
                Some(open) => open,
                None => {
                    let Some(open) = self.reopen(pause, &mut pipeline.next) else { return };
                    open
                }
            };
            let Transport::Stream(stream) = open else { return };
            (pipeline.is_reused, pipeline.is_closed) = (false, false);
            let end = self.drive_pipeline(&clock, &mut pipeline, &stream);
            self.waiting_since[index].set(None);
            let Some(end) = end else {
                // At the end nothing is in flight, unless the run was stopped.
                pipeline.flights.drain(..).for_each(|flight| self.withdraw(flight.request));
                return;
            };
            let resends = self.resends(&clock, &pipeline);
            for flight in pipeline.flights.drain(..) {
                match resends && !flight.reading.has_begun() {
                    true => self.resend(flight.request),
                    false => self.count_failure(flight.request, ErrorKind::Closed),
                }
            }
            self.tally.closed();
            pause = if end == Connection::ReopenLater { REOPEN_PAUSE } else { Duration::ZERO };
        }
    }

    /// Sends requests and reads responses until the connection ends, and returns how to replace it. If a request
    /// failed, it has been counted; later ones are still in flight. `None` when the run is over.
    fn drive_pipeline(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        stream: &Link,
    ) -> Option<Connection> {
        let waiting_since = &self.waiting_since[pipeline.index];
        let mut now = Instant::now();
        loop {
            let was_idle = pipeline.flights.is_empty();
            let next = self.fill(clock, pipeline, now);
            if was_idle && !pipeline.flights.is_empty() {
                match stream.early() {
                    Ok(Early::Bytes(bytes)) => return self.note_early_bytes(clock, pipeline, &bytes),
                    Ok(Early::End(_)) if pipeline.is_reused => return self.note_early_end(pipeline),
                    Ok(Early::End(Some(error))) => {
                        return self.end_connection(clock, pipeline, Err(error), Instant::now());
                    }
                    Ok(Early::Nothing | Early::End(None)) => {}
                    Err(error) => return self.end_connection(clock, pipeline, Err(error), Instant::now()),
                }
            }
            waiting_since.set(pipeline.flights.front().map(|flight| flight.sent));
            if !pipeline.batch.is_empty() {
                let written = stream.write(&pipeline.batch);
                pipeline.batch.clear();
                if let Err(error) = written {
                    return self.end_connection(clock, pipeline, Err(error), Instant::now());
                }
            }
            let received = match next {
                Next::End if pipeline.flights.is_empty() => return None,
                Next::Due(due) if pipeline.flights.is_empty() => {
                    let idle = due.saturating_duration_since(now);
                    let wait = match idle >= IDLE_WATCH_MIN {
                        true => self.watch_idle(stream, idle),
                        false if fibers::sleep(idle).is_err() => Wait::Stopped,
                        false => Wait::Due(Instant::now()),
                    };
                    match wait {
                        Wait::Due(at) if !self.is_stopped() => now = at,
                        Wait::Due(_) | Wait::Stopped => return None,
                        Wait::Closed => return Some(Connection::Reopen),
                    }
                    continue;
                }
                Next::Due(due) => {
                    let idle = due.saturating_duration_since(Instant::now());
                    fibers::with_deadline(idle, || stream.receive())
                }
                Next::Answer | Next::End => stream.receive(),
            };
            now = Instant::now();
            match received {
                Ok(Some(bytes)) => match self.take_answers(clock, pipeline, &bytes, now)? {
                    Connection::Keep => {}
                    end => return Some(end),
                },
                Ok(None) => {
                    let end = pipeline.flights.front().map(|oldest| oldest.reading.end())?;
                    return self.end_connection(clock, pipeline, Ok(end), now);
                }
                Err(error) if net::interrupt_of(&error) == Some(Interrupt::DeadlineExpired) => {}
                Err(error) => return self.end_connection(clock, pipeline, Err(error), now),
            }
        }
    }

    /// Bytes have come before the requests that were to be sent: the first one fails, the others take another
    /// connection. All do if the target only says that the connection was idle for too long.
    #[cold]
    fn note_early_bytes(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        bytes: &[u8],
    ) -> Option<Connection> {
        if self.work.is_idle_timeout(bytes) {
            return self.note_early_end(pipeline);
        }
        pipeline.batch.clear();
        pipeline.flights.drain(1..).for_each(|flight| self.take_back(flight.request));
        self.note_answer(clock, pipeline, Ok(early_answer()), Instant::now())
    }

    /// The connection has ended before the requests that were to be sent, which take another one.
    #[cold]
    fn note_early_end(&self, pipeline: &mut Pipeline<'_>) -> Option<Connection> {
        pipeline.batch.clear();
        pipeline.flights.drain(..).for_each(|flight| self.take_back(flight.request));
        self.tally.closed_idle();
        Some(Connection::Reopen)
    }

    /// Whether requests in flight are sent again on the next connection, as [`Worker::may_resend`] has it.
    fn resends(&self, clock: &Clock, pipeline: &Pipeline<'_>) -> bool {
        let mut requests = pipeline.flights.iter().map(|flight| flight.request);
        let can_resend = pipeline.is_reused
            && pipeline.is_closed
            && requests.all(|request| self.work.is_idempotent(request.chosen));
        can_resend && !self.is_over(clock, Instant::now())
    }

    /// Ends a connection that was closed, or broke. Its oldest request fails, unless it is sent again.
    #[cold]
    fn end_connection(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        answer: io::Result<Answer>,
        now: Instant,
    ) -> Option<Connection> {
        pipeline.is_closed = match &answer {
            Ok(_) => true,
            Err(error) => transport::request_error_kind(error) == ErrorKind::Reset,
        };
        let has_begun = pipeline.flights.front().is_none_or(|oldest| oldest.reading.has_begun());
        if !has_begun && self.resends(clock, pipeline) {
            return Some(Connection::Reopen);
        }
        self.note_answer(clock, pipeline, answer, now)
    }

    /// Adds the requests that are due to the pipeline, as far as there is room.
    #[inline]
    fn fill(&self, clock: &Clock, pipeline: &mut Pipeline<'_>, now: Instant) -> Next {
        while pipeline.flights.len() < self.plan.pipeline {
            let next = pipeline.next.take().filter(|_| !self.is_over(clock, now));
            let Some(request) = next.or_else(|| self.take_request(clock, now)) else {
                return Next::End;
            };
            if request.due > now {
                (pipeline.next, pipeline.is_awaited) = (Some(request), true);
                return Next::Due(request.due);
            }
            if mem::take(&mut pipeline.is_awaited) && request.is_measured {
                self.tally.sent_late(now - request.due);
            }
            self.note_sent(request);
            let number = pipeline.index + pipeline.sent_count;
            let reading = pipeline.exchange.add_to(&mut pipeline.batch, number, request.chosen);
            pipeline.flights.push_back(Flight { request, sent: now, reading });
            pipeline.sent_count += 1;
        }
        Next::Answer
    }

    /// Reads received bytes, which may contain several responses and parts of them. Returns what to do with the
    /// connection; `None` if the run is being stopped.
    #[inline]
    fn take_answers(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        mut bytes: &[u8],
        now: Instant,
    ) -> Option<Connection> {
        while !bytes.is_empty() {
            let Some(oldest) = pipeline.flights.front_mut() else {
                if self.work.is_idle_timeout(bytes) {
                    self.tally.closed_idle();
                    return Some(Connection::Reopen);
                }
                // It belongs to no request, so that none is counted.
                self.tally.failed(ErrorKind::Wrong, || describe_surplus(bytes));
                return Some(Connection::Reopen);
            };
            let (rest, answer) = oldest.reading.take(bytes);
            bytes = rest;
            if let Some(answer) = answer {
                match self.note_answer(clock, pipeline, Ok(answer), now)? {
                    Connection::Keep => {}
                    end => return Some(end),
                }
            }
        }
        Some(Connection::Keep)
    }

    /// Counts the outcome of the oldest request, and removes it from the pipeline. `None` if the run is being
    /// stopped.
    #[inline]
    fn note_answer(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        answer: io::Result<Answer>,
        now: Instant,
    ) -> Option<Connection> {
        let Some(Flight { request, sent, .. }) = pipeline.flights.pop_front() else {
            return Some(Connection::Reopen);
        };
        let service_time = now - sent;
        let next = match self.settle(clock, request, now, (service_time, service_time), &answer) {
            Some(next) => {
                pipeline.is_reused = true;
                pipeline.is_closed = next == Connection::Reopen;
                let unanswered = pipeline.flights.len();
                if pipeline.is_closed && unanswered > 0 && !self.resends(clock, pipeline) {
                    self.tally.failed(ErrorKind::Closed, || {
                        format!("the target closed the connection with {unanswered} requests unanswered")
                    });
                }
                Some(next)
            }
            None => self.note_failure(answer, request, service_time),
        };
        if service_time >= self.plan.timeout {
            // A late interrupt by the monitor must not reach the next request.
            let _ = fibers::check();
        }
        next
    }
}
