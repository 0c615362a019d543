//! What is sent over WebSocket, and what is expected back.

use crate::header::Header;
use crate::payload::Payload;

/// Headers that the handshake has of itself.
const OF_HANDSHAKE: [&str; 5] =
    ["connection", "upgrade", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"];

/// A message that is sent repeatedly over WebSocket (RFC 6455). The next data message is its answer; pings are answered
/// in between.
///
/// # Examples
///
/// ```
/// use ringspun_load::{Plan, WebSocketAnswer, WebSocketRequest, Workload};
///
/// let mut plan = Plan::new("ws://127.0.0.1:8080/chat".parse().unwrap());
/// let mut request = WebSocketRequest::default();
/// request.payload = ringspun_load::Payload::Given(b"hello".to_vec());
/// request.is_text = true;
/// request.expected = WebSocketAnswer::Text("welcome".to_string());
/// plan.workload = Workload::WebSocket(request);
/// assert_eq!(plan.workload.name(), "websocket");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketRequest {
    /// The content of the messages, up to [`MESSAGE_MAX_BYTES`](crate::MESSAGE_MAX_BYTES) each; 64 bytes by default.
    pub payload: Payload,
    /// Whether messages are text, in UTF-8, rather than binary; binary by default.
    pub is_text: bool,
    /// What counts as the answer; by default the echo.
    pub expected: WebSocketAnswer,
    /// Additional headers of the handshake; none by default.
    pub headers: Vec<Header>,
}

/// What counts as the answer to a message over WebSocket. Other data messages are wrong answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebSocketAnswer {
    /// The same bytes, as text if they were sent as text.
    Echo,
    /// Any data message.
    Any,
    /// This text, as text or binary.
    Text(String),
}

impl Default for WebSocketRequest {
    fn default() -> Self {
        Self { payload: 64.into(), is_text: false, expected: WebSocketAnswer::Echo, headers: Vec::new() }
    }
}

impl WebSocketRequest {
    /// Checks the values, with messages of up to `max_bytes`.
    pub(crate) fn check(&self, max_bytes: usize) -> Result<(), String> {
        for bytes in [self.payload.min_bytes(), self.payload.max_bytes()] {
            if !(1..=max_bytes).contains(&bytes) {
                return Err(format!("the message has {bytes} bytes: expected 1 to {max_bytes}"));
            }
        }
        if let (true, Payload::Given(bytes)) = (self.is_text, &self.payload)
            && let Err(error) = std::str::from_utf8(bytes)
        {
            return Err(format!("the message is not text: {error}: expected UTF-8, or a binary message"));
        }
        let is_ours =
            |header: &&Header| OF_HANDSHAKE.iter().any(|name| header.name().eq_ignore_ascii_case(name));
        match self.headers.iter().find(is_ours) {
            Some(header) => {
                Err(format!("the header {} is the WebSocket handshake's: expected others", header.name()))
            }
            None => Ok(()),
        }
    }
}
