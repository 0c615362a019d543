//! The flags of `ringspun load` for WebSocket, and their part of the results.

use clap::{Args, ValueEnum};
use ringspun_load::{Header, Payload, Plan, WebSocketAnswer, WebSocketRequest, Workload};
use serde_json::{Value, json};

/// The flags for WebSocket alone.
#[derive(Args)]
pub struct WebSocketFlags {
    /// Type of messages over WebSocket [default: text with --body, otherwise binary]
    #[arg(long, value_enum, value_name = "TYPE")]
    message_type: Option<MessageType>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MessageType {
    Text,
    Binary,
}

/// What other flags say about the messages.
pub struct Messages {
    /// The message, or sizes, if given.
    pub payload: Option<Payload>,
    /// Whether it was given as text.
    pub is_given_text: bool,
    pub expected: WebSocketAnswer,
    pub headers: Vec<Header>,
}

impl WebSocketFlags {
    /// Fails for other targets.
    pub fn check_unused(&self, target: &str) -> Result<(), String> {
        match self.message_type {
            None => Ok(()),
            Some(_) => Err(format!("--message-type cannot be used with {target}: expected ws:// or wss://")),
        }
    }

    /// The request of a plan.
    pub fn request(&self, messages: Messages) -> WebSocketRequest {
        let mut request = WebSocketRequest::default();
        request.is_text = match self.message_type {
            None => messages.is_given_text,
            Some(kind) => kind == MessageType::Text,
        };
        request.payload = messages.payload.unwrap_or(request.payload);
        request.expected = messages.expected;
        request.headers = messages.headers;
        request
    }
}

/// What is expected back, for the first line of the results.
pub fn describe(request: &WebSocketRequest) -> String {
    let kind = if request.is_text { "text" } else { "binary" };
    let answer = match request.expected {
        WebSocketAnswer::Echo => "",
        WebSocketAnswer::Any => ", any answer",
        WebSocketAnswer::Text(_) => ", a given answer",
    };
    format!("per {kind} WebSocket message{answer}")
}

/// What a plan has of it (docs/load-json.md).
pub fn fields(plan: &Plan) -> Value {
    let Workload::WebSocket(request) = &plan.workload else { return Value::Null };
    let expected = match request.expected {
        WebSocketAnswer::Echo => "echo",
        WebSocketAnswer::Any => "any",
        WebSocketAnswer::Text(_) => "text",
    };
    json!({
        "message_type": if request.is_text { "text" } else { "binary" },
        "expected": expected,
        "headers": request.headers.iter().map(Header::redacted).collect::<Vec<_>>(),
    })
}
