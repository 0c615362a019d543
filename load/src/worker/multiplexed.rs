//! HTTP/2: the requests of one connection share it, each on a stream with a fiber of its own.
//!
//! A free stream takes the next request, as a free connection does without HTTP/2. The stream that finds the
//! connection ended replaces it for all.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_fibers::sync::Mutex;
use ringspun_fibers::{self as fibers, JoinHandle};

use super::{Clock, REOPEN_PAUSE, Request, Wait, Worker};
use crate::http2::{Reply, Session};
use crate::outcome::ErrorKind;
use crate::transport::Transport;
use crate::work::Work;

/// Where the streams of a connection find it.
type Place = Mutex<Connection>;

enum Connection {
    Open(Rc<Session>),
    /// None yet, or it has ended.
    None,
    /// The target could not be reached for too long.
    GivenUp,
}

/// What a stream does next.
enum Next {
    Go,
    /// The run is over, or being stopped.
    End,
}

impl Worker {
    /// Starts a fiber for each stream of each connection. The first streams of all connections come first, so that few
    /// requests are spread over the connections.
    pub(super) fn spawn_streams(
        self: &Rc<Self>,
        opened: Vec<Option<Transport>>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let places: Vec<Rc<Place>> = opened
            .into_iter()
            .map(|transport| match transport {
                Some(Transport::Http2(session)) => Connection::Open(session),
                _ => Connection::None,
            })
            .map(|connection| Rc::new(Mutex::new(connection)))
            .collect();
        let spawn = |index: usize| {
            let (run, place) = (self.clone(), places[index % places.len()].clone());
            self.spawn_connection(move || {
                if run.wait_for_start(&mut None) {
                    run.drive_stream(&place, index);
                }
            })
        };
        (0..self.waiting_since.len()).map(spawn).collect()
    }

    /// Sends requests over a stream at a time, until the run is over.
    fn drive_stream(&self, place: &Place, index: usize) {
        let clock = self.clock.get();
        // A request that was taken and not sent, and whether the last one was refused.
        let (mut held, mut was_refused) = (None, false);
        loop {
            let Some(session) = self.session(&clock, place, index, &mut held) else { return };
            let stream = index / self.connections();
            if session.wait_for_streams(stream + 1) != Ok(true) {
                return;
            }
            while session.is_usable(self.plan.requests_per_connection) && session.streams_allowed() > stream {
                let now = Instant::now();
                let Some(request) = held.take().or_else(|| self.take_request(&clock, now)) else {
                    return session.dismiss();
                };
                match self.wait_until_due(None, request, now) {
                    // The connection may have ended meanwhile.
                    Wait::Due(_) if !session.is_usable(self.plan.requests_per_connection) => {
                        held = Some(request);
                    }
                    Wait::Due(sent) => {
                        match self.send(&clock, &session, index, (request, sent), &mut was_refused) {
                            Next::Go => {}
                            Next::End => return,
                        }
                    }
                    Wait::Closed | Wait::Stopped => return,
                }
            }
        }
    }

    /// The connection of a stream, opened again if it has ended; `None` if there is no use for one any more, or if the
    /// target is given up.
    fn session(
        &self,
        clock: &Clock,
        place: &Place,
        index: usize,
        held: &mut Option<Request>,
    ) -> Option<Rc<Session>> {
        if place.try_lock().is_none()
            && let Some(request) = held.take()
        {
            // Another stream is opening the connection, which may take long.
            self.return_request(request);
        }
        let mut connection = place.lock().ok()?;
        let pause = match &*connection {
            Connection::Open(session) if session.is_usable(self.plan.requests_per_connection) => {
                return Some(session.clone());
            }
            Connection::Open(session) => {
                session.retire();
                self.tally.closed();
                if session.ended_idle() {
                    self.tally.closed_idle();
                }
                if let Some(fault) = session.take_fault() {
                    self.tally.failed(ErrorKind::Wrong, || fault);
                }
                if session.ended_well() { Duration::ZERO } else { REOPEN_PAUSE }
            }
            Connection::None => self.first_pause(index % self.connections()),
            Connection::GivenUp => {
                held.take().into_iter().for_each(|request| self.return_request(request));
                return None;
            }
        };
        *connection = Connection::None;
        if pause.is_zero() && held.is_none() {
            // No connection is opened without a request for it.
            *held = Some(self.take_request(clock, Instant::now())?);
        }
        let Some(Transport::Http2(session)) = self.reopen(pause, held) else {
            if self.has_requests_left() {
                *connection = Connection::GivenUp;
            }
            return None;
        };
        *connection = Connection::Open(session.clone());
        Some(session)
    }

    /// Sends a request and counts what becomes of it.
    fn send(
        &self,
        clock: &Clock,
        session: &Session,
        index: usize,
        (request, sent): (Request, Instant),
        was_refused: &mut bool,
    ) -> Next {
        let Work::Http2(prepared) = &self.work else { return Next::End };
        self.note_sent(request);
        self.waiting_since[index].set(Some(sent));
        let reply = session.perform(prepared);
        self.waiting_since[index].set(None);
        let now = Instant::now();
        let service_time = now - sent;
        let next = self.count_reply(clock, session, request, (now, service_time), reply, was_refused);
        if service_time >= self.plan.timeout {
            // A late interrupt by the monitor must not reach the next request.
            let _ = fibers::check();
        }
        next
    }

    fn count_reply(
        &self,
        clock: &Clock,
        session: &Session,
        request: Request,
        (now, service_time): (Instant, Duration),
        reply: Result<Reply, fibers::Interrupt>,
        was_refused: &mut bool,
    ) -> Next {
        let answer = match reply {
            Ok(Reply::Answer(answer)) => Ok(answer),
            Ok(Reply::Lost { answer, .. })
                if session.has_answered() && self.may_resend(clock, request, now, &answer) =>
            {
                self.resend(request);
                return Next::Go;
            }
            Ok(Reply::Lost { answer, is_first: true }) => answer,
            // The loss of the connection is one error.
            Ok(Reply::Lost { .. }) => {
                self.count_failure(request, ErrorKind::Closed);
                return Next::Go;
            }
            Err(interrupt) => Err(interrupt.into()),
            Ok(Reply::NotSent) => {
                self.take_back(request);
                return Next::Go;
            }
            // A target may refuse for ever: once in a row, or where it ends a connection on which it has answered.
            Ok(Reply::Unprocessed(kind, _))
                if !self.is_over(clock, now)
                    && (!*was_refused || kind == ErrorKind::Closed && session.has_answered()) =>
            {
                *was_refused = true;
                self.resend(request);
                return Next::Go;
            }
            Ok(Reply::Unprocessed(kind, text)) => return self.note_lost(request, kind, text),
            Ok(Reply::StreamReset(text)) => return self.note_lost(request, ErrorKind::StreamReset, text),
        };
        if self.settle(clock, request, now, (service_time, service_time), &answer).is_some() {
            *was_refused = false;
        } else if self.note_failure(answer, request, service_time).is_none() {
            return Next::End;
        }
        Next::Go
    }

    fn note_lost(&self, request: Request, kind: ErrorKind, text: String) -> Next {
        self.tally.failed(kind, || text);
        self.count_failure(request, kind);
        Next::Go
    }
}
