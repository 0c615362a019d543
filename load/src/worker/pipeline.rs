//! Several requests in flight on one connection.
//!
//! Answers come in the order of the requests. What has come together is read together, and the requests that
//! may follow are sent together: both ends take fewer system calls, as with other clients that do this.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, Stream};

use super::{Clock, Lost, REOPEN_PAUSE, Request, Worker};
use crate::outcome::ErrorKind;
use crate::reading::{Answer, Reading, describe_surplus};
use crate::transport::Transport;
use crate::work::Exchange;

/// A request that is not answered yet.
struct Flight<'w> {
    request: Request,
    sent: Instant,
    reading: Reading<'w>,
}

/// What a connection does besides waiting for answers.
struct Pipeline<'w> {
    exchange: &'w Exchange,
    index: usize,
    /// How many requests this connection has had its turn for.
    turn: u64,
    /// Those in flight, the oldest first. All memory is taken at the beginning.
    flights: VecDeque<Flight<'w>>,
    /// The requests that are sent together.
    batch: Vec<u8>,
    /// There was room for the next request before it was due.
    is_awaited: bool,
}

/// What comes after the requests that were due.
enum Next {
    /// An answer: the pipeline is full.
    Answer,
    /// An answer, or this request.
    Due(Instant),
    /// The last answers, and the end of the run.
    End,
}

impl Worker {
    /// Sends requests over one connection, as many at once as the plan says, until the run is over. `transport`
    /// is absent if it could not be opened at first.
    pub(super) fn pipeline(&self, exchange: &Exchange, index: usize, mut transport: Option<Transport>) {
        let clock = self.clock.get();
        let mut pipeline = Pipeline {
            exchange,
            index,
            turn: 0,
            flights: VecDeque::with_capacity(self.plan.pipeline),
            batch: Vec::new(),
            is_awaited: false,
        };
        let mut pause = self.first_pause(index);
        loop {
            let open = match transport.take() {
                Some(open) => open,
                // No connection is made that has nothing to do.
                None if self.has_sent_all(index, pipeline.turn) => return,
                None => {
                    let Some(open) = self.reopen(pause) else { return };
                    let turn = self.turn_from(&clock, index, Instant::now());
                    pipeline.turn = pipeline.turn.max(turn);
                    open
                }
            };
            let Transport::Stream(stream) = open else { return };
            let lost = self.drive_pipeline(&clock, &mut pipeline, &stream);
            self.waiting_since[index].set(None);
            let Some(lost) = lost else {
                // At the end nothing is in flight, unless the run was interrupted.
                pipeline.flights.drain(..).for_each(|flight| self.withdraw(flight.request));
                return;
            };
            for flight in pipeline.flights.drain(..) {
                self.count(flight.request, |requests| requests.lost += 1);
            }
            self.tally.closed();
            pause = if matches!(lost, Lost::Connection) { REOPEN_PAUSE } else { Duration::ZERO };
        }
    }

    /// Keeps one connection busy. Returns why it is of no use any more, with the oldest request counted if it
    /// is that which failed, and the others still in flight; `None` when the run is over.
    fn drive_pipeline(&self, clock: &Clock, pipeline: &mut Pipeline<'_>, stream: &Stream) -> Option<Lost> {
        let waiting_since = &self.waiting_since[pipeline.index];
        let mut now = Instant::now();
        loop {
            let next = self.fill(clock, pipeline, now);
            waiting_since.set(pipeline.flights.front().map(|flight| flight.sent));
            if !pipeline.batch.is_empty() {
                let written = stream.write(&pipeline.batch);
                pipeline.batch.clear();
                if let Err(error) = written {
                    return self.note_answer(clock, pipeline, Err(error), Instant::now());
                }
            }
            let received = match next {
                Next::End if pipeline.flights.is_empty() => return None,
                Next::Due(due) if pipeline.flights.is_empty() => {
                    if fibers::sleep(due.saturating_duration_since(now)).is_err()
                        || self.stopped_at.get().is_some()
                    {
                        return None;
                    }
                    now = Instant::now();
                    continue;
                }
                Next::Due(due) => {
                    let patience = due.saturating_duration_since(Instant::now());
                    fibers::with_deadline(patience, || stream.receive())
                }
                Next::Answer | Next::End => stream.receive(),
            };
            now = Instant::now();
            match received {
                Ok(Some(bytes)) => match self.take_answers(clock, pipeline, &bytes, now)? {
                    Lost::Nothing => {}
                    lost => return Some(lost),
                },
                Ok(None) => {
                    let end = pipeline.flights.front().map(|oldest| oldest.reading.end())?;
                    return self.note_answer(clock, pipeline, Ok(end), now);
                }
                Err(error) if net::interrupt_of(&error) == Some(Interrupt::DeadlineExpired) => {}
                Err(error) => return self.note_answer(clock, pipeline, Err(error), now),
            }
        }
    }

    /// Takes the requests that are due into the pipeline, as far as there is room.
    #[inline]
    fn fill(&self, clock: &Clock, pipeline: &mut Pipeline<'_>, now: Instant) -> Next {
        while pipeline.flights.len() < self.plan.pipeline {
            let Some(request) = self.next_request(clock, pipeline.index, pipeline.turn, now) else {
                return Next::End;
            };
            if request.due > now {
                pipeline.is_awaited = true;
                return Next::Due(request.due);
            }
            if mem::take(&mut pipeline.is_awaited) && request.is_measured {
                self.tally.sent_late(now - request.due);
            }
            self.note_sent(request);
            let message = pipeline.exchange.message(pipeline.index + pipeline.turn as usize);
            pipeline.batch.extend_from_slice(message);
            let reading = pipeline.exchange.reading(message);
            pipeline.flights.push_back(Flight { request, sent: now, reading });
            pipeline.turn += 1;
        }
        Next::Answer
    }

    /// Takes what has come: the end of an answer, whole ones, the beginning of another. Tells what is lost with
    /// them; `None` if the run is being ended.
    #[inline]
    fn take_answers(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        mut bytes: &[u8],
        now: Instant,
    ) -> Option<Lost> {
        while !bytes.is_empty() {
            let Some(oldest) = pipeline.flights.front_mut() else {
                // It answers no request, so that none is counted.
                self.tally.failed(ErrorKind::Wrong, || describe_surplus(bytes));
                return Some(Lost::Step);
            };
            let (rest, answer) = oldest.reading.take(bytes);
            bytes = rest;
            if let Some(answer) = answer {
                match self.note_answer(clock, pipeline, Ok(answer), now)? {
                    Lost::Nothing => {}
                    lost => return Some(lost),
                }
            }
        }
        Some(Lost::Nothing)
    }

    /// Counts what became of the oldest request, which is not in flight any more; `None` if the run is being
    /// ended.
    #[inline]
    fn note_answer(
        &self,
        clock: &Clock,
        pipeline: &mut Pipeline<'_>,
        answer: io::Result<Answer>,
        now: Instant,
    ) -> Option<Lost> {
        let Some(Flight { request, sent, .. }) = pipeline.flights.pop_front() else {
            return Some(Lost::Step);
        };
        let service_time = now - sent;
        let lost = match self.settle(clock, request, now, service_time, &answer) {
            Some(lost) => {
                let unanswered = pipeline.flights.len();
                if matches!(lost, Lost::Step) && unanswered > 0 {
                    self.tally.failed(ErrorKind::Closed, || {
                        format!("the target closes the connection with {unanswered} requests unanswered")
                    });
                }
                Some(lost)
            }
            None => self.note_failure(answer, request, service_time),
        };
        if service_time >= self.plan.timeout {
            // As without a pipeline: an interrupt that came too late must not meet the next request.
            let _ = fibers::check();
        }
        lost
    }
}
