//! HTTP/2, client side: a connection whose streams carry one request each, by the crate `h2` on fibers.
//!
//! A fiber per connection moves frames; a fiber per stream sends a request and waits for its response.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Reason, RecvStream};
use ringspun_fibers::sync::Notify;
use ringspun_fibers::{self as fibers, FiberBuilder, block_on};
use ringspun_net::{AsyncStream, PollStream};
use ringspun_runtime::Wake;

use crate::http::{self, HttpRequest, Response};
use crate::link::{Handshake, Link, NotAgreed};
use crate::outcome::{ErrorKind, Traffic};
use crate::reading::Answer;
use crate::target::HttpTarget;

/// How much a target may send ahead on a stream and on a connection: more than it has under way, as what arrives is
/// taken at once.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// The stack of the fiber that moves the frames of a connection; untouched pages take no memory.
const STACK_SIZE_BYTES: usize = 1024 * 1024;

/// A request in the form that is sent.
pub(crate) struct Prepared {
    head: ::http::Request<()>,
    body: Bytes,
    /// The request may be sent again if its connection was closed before a response.
    pub(crate) is_idempotent: bool,
}

impl Prepared {
    /// Prepares a checked request.
    pub(crate) fn new(request: &HttpRequest, target: &HttpTarget) -> io::Result<Self> {
        let mut host = target.authority();
        let mut head = ::http::Request::builder().method(request.method.as_str());
        for header in &request.headers {
            match header.name().eq_ignore_ascii_case("host") {
                true => host = header.value(),
                false => head = head.header(header.name(), header.value()),
            }
        }
        if request.states_length() {
            head = head.header("content-length", request.body.len());
        }
        let url = format!("{}://{host}{}", target.scheme(), target.path());
        let head = head.uri(url).version(::http::Version::HTTP_2).body(());
        Ok(Self {
            head: head.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
            body: Bytes::copy_from_slice(&request.body),
            is_idempotent: http::is_idempotent(&request.method),
        })
    }
}

/// What became of a request, other than by an interrupt.
pub(crate) enum Reply {
    Answer(Answer),
    /// The connection broke or ended, with all requests in flight.
    Lost {
        answer: io::Result<Answer>,
        /// Whether this is the first of those requests.
        is_first: bool,
    },
    /// The connection takes no more requests; this one was not sent.
    NotSent,
    /// The target says that it did not process the request, which may be sent again whatever its method is.
    Unprocessed(ErrorKind, String),
    /// The target ended the stream. The others of the connection go on.
    StreamReset(String),
}

/// A connection, for as long as it takes requests or has any in flight.
pub(crate) struct Session {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    handshake: Option<Handshake>,
}

/// What the fibers of a connection tell each other.
#[derive(Default)]
struct State {
    /// How many streams the target allows at once.
    streams_allowed: Cell<usize>,
    /// Requests that were sent, or are about to be.
    sent: Cell<u64>,
    in_flight: Cell<usize>,
    has_answered: Cell<bool>,
    /// It takes no more requests: the target has announced the end, or another connection has its place.
    is_leaving: Cell<bool>,
    /// There are no more requests.
    is_dismissed: Cell<bool>,
    /// A request that was lost with it has been counted.
    is_told: Cell<bool>,
    has_ended: Cell<bool>,
    /// It ended while nothing was in flight.
    ended_idle: Cell<bool>,
    /// How the target violated HTTP/2, if that ended the connection.
    fault: Cell<Option<String>>,
    /// The target has closed its side, rather than reset it.
    was_closed: Rc<Cell<bool>>,
    /// The end of the connection, or another number of streams.
    changed: Notify,
}

impl Session {
    /// Begins HTTP/2 on a fresh connection, and waits for the target's settings.
    pub(crate) fn open(link: Link) -> io::Result<Self> {
        let handshake = link.handshake();
        if let Some(protocol) = link.alpn().filter(|protocol| protocol.as_deref() != Some(b"h2".as_slice())) {
            return Err(NotAgreed::error(match protocol {
                None => "the target agreed to no protocol in TLS (ALPN): expected h2, for HTTP/2".to_string(),
                Some(other) => {
                    format!(
                        "the target chose {:?} in TLS (ALPN): expected h2",
                        other.escape_ascii().to_string()
                    )
                }
            }));
        }
        let state = Rc::new(State::default());
        let wire = AsyncStream::new(Wire { link, was_closed: state.was_closed.clone() });
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            // Until the target has told how many it allows, which is awaited below.
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (sender, mut connection) =
            block_on(builder.handshake(wire))?.map_err(|error| not_spoken(&error))?;
        let settings = |context: &mut Context<'_>| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(not_spoken(&error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(NotAgreed::error(
                "the target closed the connection: expected HTTP/2".to_string(),
            ))),
            Poll::Pending if connection.max_concurrent_send_streams() == 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        };
        block_on(poll_fn(settings))??;
        state.streams_allowed.set(connection.max_concurrent_send_streams());
        let session = Self { sender, state: state.clone(), handshake };
        FiberBuilder::new().stack_size_bytes(STACK_SIZE_BYTES).spawn(move || state.carry(connection))?;
        Ok(session)
    }

    /// The handshake of TLS.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        self.handshake
    }

    /// Whether it takes another request: neither side has ended it, and it has sent fewer than `max`.
    pub(crate) fn is_usable(&self, max: Option<u64>) -> bool {
        let State { has_ended, is_leaving, sent, .. } = &*self.state;
        !has_ended.get() && !is_leaving.get() && max.is_none_or(|max| sent.get() < max)
    }

    /// Whether it ended in order, after it had answered: no reason to wait before the next.
    pub(crate) fn ended_well(&self) -> bool {
        let State { has_ended, is_leaving, ended_idle, has_answered, .. } = &*self.state;
        has_answered.get() && (!has_ended.get() || is_leaving.get() || ended_idle.get())
    }

    /// Whether the target closed it while nothing was in flight.
    pub(crate) fn ended_idle(&self) -> bool {
        self.state.ended_idle.get()
    }

    /// How the target violated HTTP/2, if that ended the connection and no request told of it.
    pub(crate) fn take_fault(&self) -> Option<String> {
        self.state.fault.take().filter(|_| !self.state.is_told.replace(true))
    }

    /// Whether a request has been answered on it.
    pub(crate) fn has_answered(&self) -> bool {
        self.state.has_answered.get()
    }

    /// How many streams the target allows at once.
    pub(crate) fn streams_allowed(&self) -> usize {
        self.state.streams_allowed.get()
    }

    /// Has those go on that wait for more streams, because another connection has its place.
    pub(crate) fn retire(&self) {
        self.state.is_leaving.set(true);
        self.state.changed.notify_all();
    }

    /// Has those go on that wait for more streams, because there are no more requests.
    pub(crate) fn dismiss(&self) {
        self.state.is_dismissed.set(true);
        self.state.changed.notify_all();
    }

    /// Parks until the target allows so many streams, or the connection takes no more requests. False if there are no
    /// more.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait.
    pub(crate) fn wait_for_streams(&self, count: usize) -> Result<bool, fibers::Interrupt> {
        while self.streams_allowed() < count && self.is_usable(None) {
            if self.state.is_dismissed.get() {
                return Ok(false);
            }
            self.state.changed.wait()?;
        }
        Ok(true)
    }

    /// Sends a request on a stream of its own, and waits for the whole response. An interrupt resets the stream.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait.
    pub(crate) fn perform(&self, prepared: &Prepared) -> Result<Reply, fibers::Interrupt> {
        let state = &self.state;
        state.in_flight.set(state.in_flight.get() + 1);
        state.sent.set(state.sent.get() + 1);
        let mut progress = Progress::default();
        let result = block_on(exchange(self.sender.clone(), prepared, &mut progress));
        state.in_flight.set(state.in_flight.get() - 1);
        if !progress.was_sent {
            state.sent.set(state.sent.get() - 1);
        }
        Ok(match result? {
            Ok(answer) => {
                state.has_answered.set(true);
                Reply::Answer(answer)
            }
            Err(error) => self.failed(&error, &progress),
        })
    }

    #[cold]
    fn failed(&self, error: &h2::Error, progress: &Progress) -> Reply {
        let reason = error.reason().unwrap_or(Reason::NO_ERROR);
        let is_goodbye = error.is_go_away() && error.is_remote();
        if is_goodbye {
            self.retire();
        }
        if !progress.was_sent {
            return Reply::NotSent;
        }
        let status = progress.status;
        if is_goodbye {
            let text = format!("the target said GOAWAY ({reason:?}) before it processed the request");
            return Reply::Unprocessed(ErrorKind::Closed, text);
        }
        if error.is_reset() && error.is_remote() {
            return match (reason, status) {
                // The response was whole: the target wants no more of the request.
                (Reason::NO_ERROR, Some(status)) => Reply::Answer(progress.answer(status)),
                (Reason::REFUSED_STREAM, None) => {
                    let text = "the target refused the stream (REFUSED_STREAM)".to_string();
                    Reply::Unprocessed(ErrorKind::StreamReset, text)
                }
                _ => Reply::StreamReset(format!("the target reset the stream ({reason:?})")),
            };
        }
        let Some(broken) = error.get_io() else {
            let text = format!("expected valid HTTP/2: {error}");
            let answer = Answer::Wrong { text, in_sync: true };
            return if error.is_go_away() { self.lost(Ok(answer)) } else { Reply::Answer(answer) };
        };
        let has_begun = status.is_some();
        self.lost(match (self.state.was_closed.get(), has_begun) {
            (true, _) => {
                let when = if has_begun { "within its response" } else { "before responding" };
                Ok(Answer::Ended { text: format!("the target closed the connection {when}"), has_begun })
            }
            (false, true) => Ok(Answer::Broken(copy_of(broken))),
            (false, false) => Err(copy_of(broken)),
        })
    }

    fn lost(&self, answer: io::Result<Answer>) -> Reply {
        Reply::Lost { answer, is_first: !self.state.is_told.replace(true) }
    }
}

impl State {
    /// Moves the frames of a connection until it ends.
    fn carry(&self, mut connection: Connection<AsyncStream<Wire>>) {
        let mut was_busy = false;
        let turn = |context: &mut Context<'_>| {
            was_busy = self.in_flight.get() > 0;
            let polled = Pin::new(&mut connection).poll(context);
            let allowed = connection.max_concurrent_send_streams();
            if self.streams_allowed.replace(allowed) != allowed {
                self.changed.notify_all();
            }
            polled
        };
        let ended = block_on(poll_fn(turn));
        self.has_ended.set(true);
        // Those who wait for responses get the error, too.
        match ended {
            Ok(Err(error)) if error.get_io().is_none() && !error.is_remote() => {
                self.fault.set(Some(format!("expected valid HTTP/2: {error}")));
            }
            _ => self.ended_idle.set(!was_busy && !self.is_leaving.get()),
        }
        self.changed.notify_all();
    }
}

/// How far an exchange has come.
#[derive(Default)]
struct Progress {
    was_sent: bool,
    status: Option<u16>,
    sent_bytes: usize,
    received_bytes: usize,
}

impl Progress {
    fn answer(&self, status: u16) -> Answer {
        let (sent_bytes, received_bytes) = (self.sent_bytes as u64, self.received_bytes as u64);
        Answer::Response(
            Response { status, closes: false, has_wrong_body: false, redirects: 0 },
            Traffic { sent_bytes, received_bytes },
        )
    }
}

async fn exchange(
    mut sender: SendRequest<Bytes>,
    prepared: &Prepared,
    progress: &mut Progress,
) -> Result<Answer, h2::Error> {
    poll_fn(|context| sender.poll_ready(context)).await?;
    let has_body = !prepared.body.is_empty();
    let (response, mut request_body) = sender.send_request(prepared.head.clone(), !has_body)?;
    progress.was_sent = true;
    if has_body {
        // Shared, not copied: the target's windows decide when it is sent.
        request_body.send_data(prepared.body.clone(), true)?;
        progress.sent_bytes = prepared.body.len();
    }
    let response = response.await?;
    let status = response.status().as_u16();
    progress.status = Some(status);
    let mut body: RecvStream = response.into_body();
    while let Some(piece) = body.data().await {
        let length = piece?.len();
        progress.received_bytes += length;
        body.flow_control().release_capacity(length)?;
    }
    body.trailers().await?;
    Ok(progress.answer(status))
}

/// The error of a connection on which HTTP/2 could not begin.
fn not_spoken(error: &h2::Error) -> io::Error {
    match error.get_io() {
        Some(error) => copy_of(error),
        None => NotAgreed::error(format!("the target does not speak HTTP/2: {error}")),
    }
}

/// An error like another one, of which several requests tell.
fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// The stream below a connection. Notes how it ended.
struct Wire {
    link: Link,
    was_closed: Rc<Cell<bool>>,
}

impl PollStream for Wire {
    fn poll_read(
        &self,
        waiter: &Rc<dyn Wake>,
        limit: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let polled = self.link.as_poll_stream().poll_read(waiter, limit, sink);
        if matches!(polled, Poll::Ready(Ok(0))) {
            self.was_closed.set(true);
        }
        polled
    }

    fn poll_write(&self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.link.as_poll_stream().poll_write(waiter, data)
    }

    fn poll_flush(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.link.as_poll_stream().poll_flush(waiter)
    }

    fn end(&self) -> io::Result<()> {
        self.link.as_poll_stream().end()
    }

    fn leave_readers(&self, waiter: &Rc<dyn Wake>) {
        self.link.as_poll_stream().leave_readers(waiter);
    }

    fn leave_writers(&self, waiter: &Rc<dyn Wake>) {
        self.link.as_poll_stream().leave_writers(waiter);
    }
}
