//! WebSocket, client side, by the crate `tungstenite` on streams that park.

use std::cell::{Cell, RefCell};
use std::io;
use std::thread;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net as net;
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Error, HandshakeError, Message};

use crate::link::{Handshake, Link, NotAgreed};
use crate::messages::Messages;
use crate::outcome::Traffic;
use crate::plan::MESSAGE_MAX_BYTES;
use crate::reading::{Answer, describe_difference, describe_surplus, early_answer};
use crate::target::HttpTarget;
use crate::websocket::{WebSocketAnswer, WebSocketRequest};

/// What is read at once; each connection has such a buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How long a close frame may take to get into the socket's buffer.
const GOODBYE_MAX: Duration = Duration::from_millis(100);

/// What is said over the connections of a run.
pub(crate) struct Talk {
    url: String,
    request: WebSocketRequest,
    messages: Messages,
}

impl Talk {
    /// Prepares a checked request.
    pub(crate) fn new(request: &WebSocketRequest, target: &HttpTarget) -> Self {
        let url = format!("{}://{}{}", target.scheme(), target.authority(), target.path());
        let messages = match request.is_text {
            true => Messages::text(&request.payload),
            false => Messages::new(&request.payload),
        };
        Self { url, request: request.clone(), messages }
    }

    /// The request of the handshake.
    fn upgrade(&self) -> Result<tungstenite::handshake::client::Request, Error> {
        let mut upgrade = self.url.as_str().into_client_request()?;
        for header in &self.request.headers {
            let name: HeaderName = header
                .name()
                .parse()
                .map_err(|error| Error::HttpFormat(tungstenite::http::Error::from(error)))?;
            upgrade.headers_mut().insert(name, HeaderValue::from_str(header.value())?);
        }
        Ok(upgrade)
    }

    fn message(&self, number: usize) -> Message {
        let bytes = self.messages.message(number);
        match self.request.is_text {
            // Checked with the plan.
            true => Message::text(String::from_utf8_lossy(bytes).into_owned()),
            false => Message::binary(bytes.to_vec()),
        }
    }

    /// What is wrong with an answer, if anything is.
    fn fault(&self, number: usize, answer: &Message) -> Option<String> {
        let received: &[u8] = match answer {
            Message::Text(text) => text.as_bytes(),
            other => {
                if let Message::Binary(bytes) = other {
                    bytes
                } else {
                    &[]
                }
            }
        };
        let kind = |is_text| if is_text { "text" } else { "binary" };
        match &self.request.expected {
            WebSocketAnswer::Any => None,
            WebSocketAnswer::Text(text) if received == text.as_bytes() => None,
            WebSocketAnswer::Text(text) => Some(format!(
                "the answer has {} bytes and is not the expected text of {} bytes",
                received.len(),
                text.len()
            )),
            WebSocketAnswer::Echo => {
                let sent = self.messages.message(number);
                let (is_text, was_text) = (answer.is_text(), self.request.is_text);
                if is_text != was_text {
                    let (came, expected) = (kind(is_text), kind(was_text));
                    return Some(format!("a {came} message came back: expected {expected}, as it was sent"));
                }
                match received.len() == sent.len() {
                    true if received == sent => None,
                    true => Some(describe_difference(received, sent, 0)),
                    false => Some(format!(
                        "a message of {} bytes came back: expected {}",
                        received.len(),
                        sent.len()
                    )),
                }
            }
        }
    }
}

/// The stream below a connection.
struct Wire {
    link: Link,
    /// Reads do not wait.
    is_trying: bool,
}

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_trying { self.link.try_read(buffer) } else { self.link.read(buffer) }
    }
}

impl io::Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.link, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut self.link)
    }
}

/// A connection.
pub(crate) struct Conversation {
    socket: RefCell<tungstenite::WebSocket<Wire>>,
    handshake: Option<Handshake>,
    /// Nothing is under way, so that it can be closed in order.
    is_idle: Cell<bool>,
}

impl Conversation {
    /// Performs the handshake of WebSocket.
    pub(crate) fn open(link: Link, talk: &Talk) -> io::Result<Self> {
        let handshake = link.handshake();
        // No need to wait for writes: answers confirm them.
        link.set_write_behind(true);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_MAX_BYTES))
            .max_frame_size(Some(MESSAGE_MAX_BYTES));
        let upgrade = talk.upgrade().map_err(not_spoken)?;
        let wire = Wire { link, is_trying: false };
        match tungstenite::client::client_with_config(upgrade, wire, Some(config)) {
            Ok((socket, _)) => Ok(Self { socket: RefCell::new(socket), handshake, is_idle: Cell::new(true) }),
            Err(HandshakeError::Failure(error)) => Err(not_spoken(error)),
            // Streams that park never ask to be called again.
            Err(HandshakeError::Interrupted(_)) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The handshake of TLS.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        self.handshake
    }

    /// Sends the message with this number, and waits for the next data message.
    pub(crate) fn perform(&self, talk: &Talk, number: usize) -> io::Result<Answer> {
        if let Some(answer) = self.early()? {
            return Ok(answer);
        }
        let mut socket = self.socket.borrow_mut();
        self.is_idle.set(false);
        let message = talk.message(number);
        let sent_bytes = message.len() as u64;
        if let Err(error) = socket.send(message) {
            return failure(error);
        }
        let answer = loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => break message,
                Ok(Message::Close(frame)) => return Ok(ended(describe_close(frame.as_ref()))),
                // Pings have been answered.
                Ok(_) => {}
                Err(error) => return failure(error),
            }
        };
        self.is_idle.set(true);
        Ok(match talk.fault(number, &answer) {
            None => Answer::Correct(Traffic { sent_bytes, received_bytes: answer.len() as u64 }),
            // It may be the answer to an earlier message.
            Some(text) => Answer::Wrong { text, in_sync: talk.request.expected != WebSocketAnswer::Echo },
        })
    }

    /// What has come before a message was sent, and is no answer to it: a data message, or the end of the connection,
    /// on which the message is then not sent. Pings are answered.
    fn early(&self) -> io::Result<Option<Answer>> {
        let mut socket = self.socket.borrow_mut();
        socket.get_mut().is_trying = true;
        let early = loop {
            match socket.read() {
                Ok(Message::Text(_) | Message::Binary(_)) => break Ok(Some(early_answer())),
                Ok(Message::Close(frame)) => break Ok(Some(ended(describe_close(frame.as_ref())))),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break Ok(None),
                Err(error) => break failure(error).map(Some),
            }
        };
        socket.get_mut().is_trying = false;
        match early {
            Ok(Some(Answer::Ended { text, .. })) => Ok(Some(Answer::Unsent(Ok(text)))),
            Err(error) if net::interrupt_of(&error).is_none() => Ok(Some(Answer::Unsent(Err(error)))),
            other => other,
        }
    }

    /// Answers pings while no answer is awaited. Returns a description of a data message, or `None` at the end of the
    /// connection.
    ///
    /// # Errors
    ///
    /// Those of the stream, and interrupts.
    pub(crate) fn watch(&self) -> io::Result<Option<String>> {
        let mut socket = self.socket.borrow_mut();
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(describe_surplus(text.as_bytes()))),
                Ok(Message::Binary(bytes)) => return Ok(Some(describe_surplus(&bytes))),
                Ok(Message::Close(_)) => return Ok(None),
                Ok(_) => {}
                Err(Error::Io(error)) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
    }
}

impl Drop for Conversation {
    /// Says goodbye, without waiting for an answer.
    fn drop(&mut self) {
        if !self.is_idle.get() || thread::panicking() {
            return;
        }
        let socket = self.socket.get_mut();
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // Whoever has gone does not need it.
        let _ =
            fibers::with_time_limit(GOODBYE_MAX, || socket.close(Some(goodbye)).map_err(io::Error::other));
    }
}

/// The answer where the target has ended the connection.
fn ended(text: String) -> Answer {
    Answer::Ended { text, has_begun: false }
}

/// A close frame in words.
fn describe_close(frame: Option<&CloseFrame>) -> String {
    match frame {
        None => "the target closed the WebSocket without a code".to_string(),
        Some(CloseFrame { code, reason }) if reason.is_empty() => {
            format!("the target closed the WebSocket with code {}", u16::from(*code))
        }
        Some(CloseFrame { code, reason }) => {
            format!("the target closed the WebSocket with code {}: {:?}", u16::from(*code), reason.as_str())
        }
    }
}

/// What an error of an exchange means for its request.
#[cold]
fn failure(error: Error) -> io::Result<Answer> {
    match error {
        Error::Io(error) => Err(error),
        Error::ConnectionClosed | Error::AlreadyClosed => {
            Ok(ended("the target closed the WebSocket".to_string()))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Ok(ended("the target closed the connection without a close frame".to_string()))
        }
        other => {
            Ok(Answer::Wrong { text: format!("expected valid WebSocket frames: {other}"), in_sync: false })
        }
    }
}

/// The error of a connection on which WebSocket could not begin.
fn not_spoken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Http(response) => NotAgreed::error(format!(
            "HTTP {} in answer to the WebSocket handshake: expected 101",
            response.status().as_u16()
        )),
        other => NotAgreed::error(format!("the target does not speak WebSocket: {other}")),
    }
}
