//! Performs requests: sends a message, and reads the response.

use std::io;
#[cfg(any(test, feature = "http2"))]
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, DatagramSocket};

use crate::cookies::Jar;
use crate::elsewhere::Elsewhere;
use crate::framing::{Delimiter, Framing};
use crate::http::{Prepared, Response};
#[cfg(feature = "http2")]
use crate::http2::{self, Session};
use crate::link::{Early, Link, Received};
use crate::messages::Messages;
use crate::outcome::Traffic;
use crate::plan::{Plan, Workload};
use crate::reading::{
    Answer, Reading, describe_difference, describe_surplus, early_answer, idle_end, is_idle_timeout,
};
use crate::redirect::{Follow, Hop, is_redirect};
use crate::request_list::{Chosen, List};
use crate::target::Target;
use crate::transport::{Destination, Sink, Transport};
#[cfg(feature = "websocket")]
use crate::websocket_client::{Conversation, Talk};

/// What a connection does, prepared from the plan's workload.
pub(crate) enum Work {
    /// Requests with responses.
    Exchange(Exchange),
    /// Messages without responses.
    Send(Messages),
    /// Only receiving, after an optional first message.
    Receive(Option<Messages>),
    /// A connection per request, with or without an exchange.
    Churn(Option<Exchange>),
    /// Requests over the streams of HTTP/2.
    #[cfg(feature = "http2")]
    Http2(http2::Prepared),
    /// Messages over WebSocket.
    #[cfg(feature = "websocket")]
    WebSocket(Talk),
}

/// Requests with responses, by protocol.
pub(crate) enum Exchange {
    Echo(Messages),
    /// Responses of this many bytes.
    Length(Messages, u64),
    /// Responses that end with these bytes.
    Delimiter(Messages, Delimiter),
    Http(Prepared),
    /// The same, with redirects that are followed.
    Following(Prepared, Box<Follow>, Elsewhere),
    /// HTTP requests that differ.
    List(List),
}

impl Work {
    /// Prepares the work of a checked plan. `others` are the other servers that redirects may lead to.
    pub(crate) fn of(plan: &Plan, others: Vec<Destination>) -> io::Result<Self> {
        let exchange = match (&plan.workload, &plan.target) {
            (Workload::Echo { payload }, _) => Exchange::Echo(Messages::new(payload)),
            (Workload::Request { payload, framing: Framing::Length(bytes) }, _) => {
                Exchange::Length(Messages::new(payload), *bytes)
            }
            (Workload::Request { payload, framing: Framing::Delimiter(delimiter) }, _) => {
                Exchange::Delimiter(Messages::new(payload), Delimiter::new(delimiter.clone()))
            }
            #[cfg(feature = "http2")]
            (Workload::Http(request), Target::Http(target)) if plan.http2 => {
                return http2::Prepared::new(request, target).map(Self::Http2);
            }
            (Workload::Http(request), Target::Http(target)) => match &plan.requests {
                None => match Follow::of(request, target, &plan.follow_to) {
                    None => Exchange::Http(Prepared::new(request, target)),
                    Some(follow) => {
                        let elsewhere = Elsewhere::new(others, plan.timeout)?;
                        Exchange::Following(Prepared::new(request, target), follow, elsewhere)
                    }
                },
                Some(list) => Exchange::List(List::new(list, target, plan.seed).map_err(io::Error::other)?),
            },
            #[cfg(feature = "websocket")]
            (Workload::WebSocket(request), Target::WebSocket(target)) => {
                return Ok(Self::WebSocket(Talk::new(request, target)));
            }
            (Workload::Http(_) | Workload::WebSocket(_) | Workload::Driven { .. }, _) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            (Workload::Send { payload }, _) => return Ok(Self::Send(Messages::new(payload))),
            (Workload::Receive { payload }, _) => {
                return Ok(Self::Receive(payload.as_ref().map(Messages::new)));
            }
            (Workload::Churn { payload }, _) => {
                let echo = payload.as_ref().map(|payload| Exchange::Echo(Messages::new(payload)));
                return Ok(Self::Churn(echo));
            }
        };
        Ok(Self::Exchange(exchange))
    }

    /// Prepares a new connection for the work, within the timeout.
    pub(crate) fn prepare(&self, transport: Transport, timeout: Duration) -> io::Result<Transport> {
        match (self, transport) {
            (Self::Send(_), Transport::Stream(stream)) => Sink::new(stream).map(Transport::Sink),
            (Self::Receive(Some(messages)), transport) => {
                fibers::with_time_limit(timeout, || send(&transport, messages.message(0)))?;
                Ok(transport)
            }
            // No need to wait for writes: the response confirms them.
            (Self::Exchange(_) | Self::Churn(Some(_)), Transport::Stream(stream)) => {
                stream.set_write_behind(true);
                Ok(Transport::Stream(stream))
            }
            #[cfg(feature = "http2")]
            (Self::Http2(_), Transport::Stream(link)) => {
                let session = fibers::with_time_limit(timeout, || Session::open(link))?;
                Ok(Transport::Http2(Rc::new(session)))
            }
            #[cfg(feature = "websocket")]
            (Self::WebSocket(talk), Transport::Stream(link)) => {
                let conversation = fibers::with_time_limit(timeout, || Conversation::open(link, talk))?;
                Ok(Transport::WebSocket(Box::new(conversation)))
            }
            (_, transport) => Ok(transport),
        }
    }

    /// Whether a request may be sent again if its connection was closed before a response.
    pub(crate) fn is_idempotent(&self, chosen: Chosen) -> bool {
        match self {
            Self::Exchange(Exchange::Http(prepared) | Exchange::Following(prepared, ..)) => {
                prepared.is_idempotent
            }
            Self::Exchange(Exchange::List(list)) => list.prepared(chosen).is_idempotent,
            #[cfg(feature = "http2")]
            Self::Http2(prepared) => prepared.is_idempotent,
            _ => false,
        }
    }

    /// Whether these bytes on an idle connection only say that the target is about to close it.
    pub(crate) fn is_idle_timeout(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.is_http()) && is_idle_timeout(bytes)
    }

    /// The connections to other servers, if redirects are followed.
    pub(crate) fn elsewhere(&self) -> Option<&Elsewhere> {
        match self {
            Self::Exchange(Exchange::Following(.., elsewhere)) => Some(elsewhere),
            _ => None,
        }
    }

    /// The list of requests, if they differ.
    #[inline]
    pub(crate) fn list(&self) -> Option<&List> {
        match self {
            Self::Exchange(Exchange::List(list)) => Some(list),
            _ => None,
        }
    }

    /// Performs the request with this number; of a list, the chosen one.
    // Inlined into the path of each request, as calls cost 2 % of its instructions.
    #[inline(always)]
    pub(crate) fn perform(
        &self,
        transport: &Transport,
        request: usize,
        chosen: Chosen,
    ) -> io::Result<Answer> {
        match self {
            Self::Exchange(Exchange::List(list)) => perform_listed(list, transport, chosen),
            Self::Exchange(Exchange::Following(prepared, follow, elsewhere)) => {
                perform_following((prepared, follow, elsewhere), transport, None)
            }
            Self::Exchange(exchange) | Self::Churn(Some(exchange)) => exchange.perform(transport, request),
            Self::Send(messages) => send(transport, messages.message(request)),
            Self::Receive(_) => receive(transport),
            // Connecting is all there is to do.
            Self::Churn(None) => Ok(Answer::Correct(Traffic::default())),
            // Those have fibers of their own.
            #[cfg(feature = "http2")]
            Self::Http2(_) => Err(io::ErrorKind::InvalidInput.into()),
            #[cfg(feature = "websocket")]
            Self::WebSocket(talk) => match transport {
                Transport::WebSocket(conversation) => conversation.perform(talk, request),
                _ => Err(io::ErrorKind::InvalidInput.into()),
            },
        }
    }
}

impl Work {
    /// Performs a request of a session, with its cookies where it is one of HTTP.
    #[inline(never)]
    pub(crate) fn perform_in_session(
        &self,
        transport: &Transport,
        request: usize,
        chosen: Chosen,
        jar: &mut Jar,
    ) -> io::Result<Answer> {
        match (self, transport) {
            (Self::Exchange(Exchange::Http(prepared)), Transport::Stream(stream)) => {
                converse(stream, prepared, &prepared.bytes, Some(jar)).map(|(answer, _)| answer)
            }
            (Self::Exchange(Exchange::List(list)), Transport::Stream(stream)) => {
                let prepared = list.prepared(chosen);
                let converse = |bytes: &[u8]| converse(stream, prepared, bytes, Some(jar));
                list.with_bytes(chosen, converse).0.map(|(answer, _)| answer)
            }
            (Self::Exchange(Exchange::Following(prepared, follow, elsewhere)), _) => {
                perform_following((prepared, follow, elsewhere), transport, Some(jar))
            }
            _ => self.perform(transport, request, chosen),
        }
    }
}

impl Exchange {
    /// The bytes of the request with this number.
    #[inline]
    pub(crate) fn message(&self, request: usize) -> &[u8] {
        match self {
            Self::Echo(messages) | Self::Length(messages, _) | Self::Delimiter(messages, _) => {
                messages.message(request)
            }
            Self::Http(prepared) | Self::Following(prepared, ..) => &prepared.bytes,
            // It has no bytes without a choice.
            Self::List(_) => &[],
        }
    }

    /// Adds the bytes of a request to others. Returns a reader for its response.
    #[inline]
    pub(crate) fn add_to(&self, batch: &mut Vec<u8>, request: usize, chosen: Chosen) -> Reading<'_> {
        if let Self::List(list) = self {
            let before = batch.len();
            list.write_to(batch, chosen);
            return Reading::listed(list.prepared(chosen), batch.len() - before);
        }
        let message = self.message(request);
        batch.extend_from_slice(message);
        self.reading(message)
    }

    /// A reader for the response to a message.
    #[inline]
    pub(crate) fn reading<'w>(&'w self, message: &'w [u8]) -> Reading<'w> {
        match self {
            Self::Echo(_) => Reading::echo(message),
            Self::Length(_, bytes) => Reading::length(*bytes, message.len()),
            Self::Delimiter(_, delimiter) => Reading::delimiter(delimiter, message.len()),
            Self::Http(prepared) | Self::Following(prepared, ..) => Reading::http(prepared),
            Self::List(list) => Reading::http(list.prepared(Chosen::default())),
        }
    }

    #[inline(always)]
    fn perform(&self, transport: &Transport, request: usize) -> io::Result<Answer> {
        let message = self.message(request);
        match transport {
            Transport::Stream(stream) => self.perform_over_stream(stream, message),
            Transport::Datagrams(socket) => {
                self.perform_over_datagrams(socket, message, self.message(request.wrapping_sub(1)))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    #[inline(always)]
    fn perform_over_stream(&self, stream: &Link, message: &[u8]) -> io::Result<Answer> {
        match stream.early()? {
            Early::Nothing => {}
            early => return Ok(before(&self.reading(message), early, self.is_http())),
        }
        stream.write(message)?;
        let received = stream.receive()?;
        // Fast path: nearly all echoes arrive in one piece.
        if let (Self::Echo(_), Some(bytes)) = (self, &received)
            && **bytes == *message
        {
            return Ok(Answer::Correct(traffic(message.len(), message.len())));
        }
        read_answer(stream, &mut self.reading(message), received)
    }

    /// Whether the bytes are HTTP/1.
    fn is_http(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Following(..) | Self::List(_))
    }

    /// `previous` is the message of the request before.
    fn perform_over_datagrams(
        &self,
        socket: &DatagramSocket,
        message: &[u8],
        previous: &[u8],
    ) -> io::Result<Answer> {
        socket.write(message)?;
        let mut bytes = socket.receive()?.0;
        // A duplicate of the previous response, on a network that duplicates datagrams.
        while matches!(self, Self::Echo(_)) && *bytes != *message && *bytes == *previous {
            bytes = socket.receive()?.0;
        }
        let text = match self {
            Self::Echo(_) if *bytes == *message => None,
            Self::Echo(_) if bytes.len() == message.len() => Some(describe_difference(&bytes, message, 0)),
            Self::Echo(_) => {
                Some(format!("a datagram of {} bytes came back: expected {}", bytes.len(), message.len()))
            }
            Self::Length(_, expected) => (bytes.len() as u64 != *expected)
                .then(|| format!("a response of {} bytes: expected {expected}", bytes.len())),
            Self::Delimiter(_, delimiter) => (!delimiter.ends(&bytes))
                .then(|| format!("a response of {} bytes does not end with the delimiter", bytes.len())),
            Self::Http(_) | Self::Following(..) | Self::List(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        Ok(match text {
            None => Answer::Correct(traffic(message.len(), bytes.len())),
            // It may belong to an earlier request.
            Some(text) => Answer::Wrong { text, in_sync: false },
        })
    }
}

/// Reads the response, of which a piece has been received, or the end of the connection.
// Not inlined: its frame lies where those of the receive have just been, and not in lines of its own.
#[inline(never)]
fn read_answer(
    stream: &Link,
    reading: &mut Reading<'_>,
    mut received: Option<Received>,
) -> io::Result<Answer> {
    loop {
        let Some(bytes) = received else { return Ok(reading.end()) };
        match reading.take(&bytes) {
            // Returns the buffer before waiting for more.
            ([], None) => drop(bytes),
            ([], Some(answer)) => return Ok(answer),
            // The connection was idle for too long, before this was looked at.
            (rest, Some(Answer::Response(mut response, traffic))) if is_idle_timeout(rest) => {
                response.closes = true;
                return Ok(Answer::Response(response, traffic));
            }
            (rest, _) => return Ok(Answer::Wrong { text: describe_surplus(rest), in_sync: false }),
        }
        received = match stream.receive() {
            Err(error) if reading.has_begun() && net::interrupt_of(&error).is_none() => {
                return Ok(Answer::Broken(error));
            }
            received => received?,
        };
    }
}

/// What becomes of a request before which something else than nothing came.
#[cold]
fn before(reading: &Reading<'_>, early: Early, is_http: bool) -> Answer {
    match early {
        Early::Bytes(bytes) if is_http && is_idle_timeout(&bytes) => idle_end(),
        Early::Nothing | Early::Bytes(_) => early_answer(),
        Early::End(Some(error)) => Answer::Unsent(Err(error)),
        Early::End(None) => match reading.end() {
            Answer::Ended { text, .. } => Answer::Unsent(Ok(text)),
            other => other,
        },
    }
}

/// Performs a request of a list.
fn perform_listed(list: &List, transport: &Transport, chosen: Chosen) -> io::Result<Answer> {
    let Transport::Stream(stream) = transport else { return Err(io::ErrorKind::InvalidInput.into()) };
    match stream.early()? {
        Early::Nothing => {}
        early => return Ok(before(&Reading::listed(list.prepared(chosen), 0), early, true)),
    }
    let (written, sent_bytes) = list.with_bytes(chosen, |bytes| stream.write(bytes));
    written?;
    let received = stream.receive()?;
    read_answer(stream, &mut Reading::listed(list.prepared(chosen), sent_bytes), received)
}

/// Performs an HTTP request, with the cookies of its session, and stores those of the answer. The headers can be read.
fn converse<'w>(
    stream: &Link,
    request: &'w Prepared,
    bytes: &[u8],
    jar: Option<&mut Jar>,
) -> io::Result<(Answer, Reading<'w>)> {
    let with_cookies = jar.as_ref().and_then(|jar| jar.add_to(bytes));
    let bytes = with_cookies.as_deref().unwrap_or(bytes);
    let mut reading = Reading::keeping_head(request, bytes.len());
    match stream.early()? {
        Early::Nothing => {}
        early => return Ok((before(&reading, early, true), reading)),
    }
    stream.write(bytes)?;
    let received = stream.receive()?;
    let answer = read_answer(stream, &mut reading, received)?;
    if let (Some(jar), Answer::Response(..)) = (jar, &answer) {
        reading.headers("set-cookie").iter().for_each(|header| jar.store(header, bytes));
    }
    Ok((answer, reading))
}

/// Performs a request, and those that redirects ask for.
fn perform_following(
    (prepared, follow, elsewhere): (&Prepared, &Follow, &Elsewhere),
    transport: &Transport,
    mut jar: Option<&mut Jar>,
) -> io::Result<Answer> {
    let Transport::Stream(stream) = transport else { return Err(io::ErrorKind::InvalidInput.into()) };
    let (mut hop, mut redirects, mut total): (Option<Hop>, _, _) = (None, 0, Traffic::default());
    // Whether the target closes its connection, wherever the request has been led since.
    let mut closes = false;
    loop {
        let request = hop.as_ref().map_or(prepared, |hop| &hop.prepared);
        let server = hop.as_ref().and_then(|hop| hop.server);
        let (answer, reading) = match server {
            None => converse(stream, request, &request.bytes, jar.as_deref_mut())?,
            Some(index) => match converse_elsewhere(elsewhere, index, request)? {
                Ok(answered) => answered,
                Err(text) => {
                    let text = format!("after a redirect to {}: {text}", follow.server(server).origin());
                    return Ok(Answer::Wrong { text, in_sync: !closes });
                }
            },
        };
        let (response, traffic) = match answer {
            Answer::Response(response, traffic) => (response, traffic),
            // The request before the redirect was sent.
            Answer::Unsent(end) if redirects > 0 => {
                return end.map(|text| Answer::Ended { text, has_begun: false });
            }
            other => return Ok(other),
        };
        if server.is_none() {
            closes = response.closes;
        }
        total.add(&traffic);
        let location = reading.headers("location").into_iter().next();
        let Some(location) = location.filter(|_| is_redirect(response.status)) else {
            return Ok(Answer::Response(Response { redirects, closes, ..response }, total));
        };
        let location = String::from_utf8_lossy(&location);
        let next = match redirects == follow.max {
            true => Err(format!("more than {redirects} redirects: expected at most that many")),
            false => follow.next(hop.as_ref(), response.status, &location),
        };
        let next = next.and_then(|next| match next.server {
            None if closes => {
                Err("the target closed the connection after a redirect: expected to follow it".to_string())
            }
            _ => Ok(next),
        });
        match next {
            Ok(next) => hop = Some(next),
            Err(text) => return Ok(Answer::Wrong { text, in_sync: !closes }),
        }
        redirects += 1;
    }
}

/// Performs a request to another server, over a connection that is kept for the next one. The inner error says why
/// there is no response; the outer one is an interrupt.
fn converse_elsewhere<'w>(
    elsewhere: &Elsewhere,
    index: usize,
    request: &'w Prepared,
) -> io::Result<Result<(Answer, Reading<'w>), String>> {
    loop {
        let (link, is_reused) = match elsewhere.take(index) {
            Ok(taken) => taken,
            Err(error) if net::interrupt_of(&error).is_some() => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let text = match converse(&link, request, &request.bytes, None) {
            Ok((Answer::Response(response, traffic), reading)) => {
                if !response.closes {
                    elsewhere.give_back(index, link);
                }
                return Ok(Ok((Answer::Response(response, traffic), reading)));
            }
            Err(error) if net::interrupt_of(&error).is_some() => return Err(error),
            Ok((Answer::Unsent(_), _)) if is_reused => continue,
            // It was closed while it was idle, or may have been.
            Ok((Answer::Ended { has_begun: false, .. }, _)) | Err(_)
                if is_reused && request.is_idempotent =>
            {
                continue;
            }
            Ok((Answer::Wrong { text, .. } | Answer::Ended { text, .. } | Answer::Unsent(Ok(text)), _)) => {
                text
            }
            Ok((Answer::Broken(error) | Answer::Unsent(Err(error)), _)) | Err(error) => error.to_string(),
            Ok((Answer::Correct(_), _)) => "expected a response over HTTP".to_string(),
        };
        return Ok(Err(text));
    }
}

fn traffic(sent_bytes: usize, received_bytes: usize) -> Traffic {
    Traffic { sent_bytes: sent_bytes as u64, received_bytes: received_bytes as u64 }
}

/// Sends a message completely.
fn send(transport: &Transport, message: &[u8]) -> io::Result<Answer> {
    match transport {
        Transport::Sink(sink) => sink.stream().write(message)?,
        Transport::Datagrams(socket) => socket.write(message)?,
        Transport::Stream(stream) => stream.write(message)?,
        #[cfg(any(feature = "http2", feature = "websocket"))]
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok(Answer::Correct(traffic(message.len(), 0)))
}

/// Receives bytes, or a datagram.
fn receive(transport: &Transport) -> io::Result<Answer> {
    let received_bytes = match transport {
        Transport::Datagrams(socket) => socket.receive()?.0.len(),
        Transport::Stream(stream) => match stream.receive()? {
            Some(bytes) => bytes.len(),
            None => {
                let text = "the target closed the connection".to_string();
                return Ok(Answer::Ended { text, has_begun: false });
            }
        },
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok(Answer::Correct(traffic(0, received_bytes)))
}

#[cfg(test)]
mod tests {
    use ringspun_net::Stream;

    use super::*;

    /// In one order: the bytes are there when the request is to be sent.
    #[test]
    fn a_request_is_not_answered_by_what_came_before_it() {
        for (target, answer) in [
            ("http://127.0.0.1:1/", &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..]),
            ("tcp://127.0.0.1:1", b"+PONG\r\n"),
        ] {
            let mut plan = Plan::new(target.parse().unwrap());
            if let Target::Tcp(_) = plan.target {
                let framing = Framing::Delimiter(b"\r\n".to_vec());
                plan.workload = Workload::Request { payload: 6.into(), framing };
            }
            fibers::run(move || -> io::Result<()> {
                let work = Work::of(&plan, Vec::new())?;
                let (ours, theirs) = Stream::pair()?;
                let transport =
                    work.prepare(Transport::Stream(Link::Plain(ours)), Duration::from_secs(60))?;
                let theirs = Rc::new(theirs);
                let answering = theirs.clone();
                // Enough of them that the loop receives ahead.
                let answers = fibers::spawn(move || {
                    for _ in 0..10 {
                        answering.receive().unwrap();
                        answering.write(answer).unwrap();
                    }
                })?;
                let is_right = |answer: Answer| matches!(answer, Answer::Correct(_) | Answer::Response(..));
                for request in 0..10 {
                    assert!(is_right(work.perform(&transport, request, Chosen::default())?));
                }
                answers.join().map_err(io::Error::from)?;
                theirs.write(answer)?;
                fibers::sleep(Duration::from_millis(1))?;
                let Answer::Wrong { text, in_sync: false } =
                    work.perform(&transport, 10, Chosen::default())?
                else {
                    panic!("{target}: it was taken for the answer");
                };
                assert!(text.starts_with("bytes before a request"), "{text}");
                Ok(())
            })
            .unwrap()
            .unwrap();
        }
    }
}
