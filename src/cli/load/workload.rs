//! The workload of `ringspun load`: its flags, and its description in the results.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringspun_load::{
    BODY_MAX_BYTES, Framing, Header, HttpRequest, HttpTarget, MESSAGE_MAX_BYTES, Payload, Plan, RequestList,
    Sizes, Target, WebSocketAnswer, WebSocketRequest, Workload, format_count, parse_count,
};
use serde_json::{Value, json};

use super::input::read_bounded;
use super::requests;
use super::secrets::{Guarded, guarded, refused_header};
use super::websocket::{self, Messages, WebSocketFlags};

/// The flags for what is sent and what is expected.
#[derive(Args)]
pub struct WorkloadOptions {
    /// What each connection does, for targets other than http [default: echo]
    #[arg(long, value_enum, value_name = "WORKLOAD")]
    workload: Option<Kind>,
    /// Message size in bytes, for targets other than http: a size such as 64 (the default), a range such as
    /// 64-1024, or shares such as 64:90%,4k:10%
    ///
    /// The maximum is 65536 for echoes over a stream, 65507 over UDP, and 64 MiB otherwise. The sequence of
    /// sizes is the same in every run.
    #[arg(long, value_name = "SIZES")]
    payload: Option<Sizes>,
    /// Send the content of this file as each message, such as --payload-file ping.bin
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Size of each response in bytes, with --workload request: --response 512
    #[arg(long, value_name = "BYTES", conflicts_with = "response_end", value_parser = parse_count)]
    response: Option<u64>,
    /// Delimiter at the end of each response, with --workload request: --response-end '\r\n'
    ///
    /// Escapes: \n, \r, \t, \0, \\ and \xHH.
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    response_end: Option<Delimiter>,
    /// Maximum number of unanswered requests per connection, over streams: --pipeline 16
    #[arg(long, value_name = "DEPTH", default_value = "1", value_parser = parse_count)]
    pipeline: u64,
    /// Close each connection after this many requests, and open another: --requests-per-connection 1 for no keep-alive
    ///
    /// One that the target has closed before is replaced as well. Needs ports: see --bind.
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    requests_per_connection: Option<u64>,
    /// HTTP method [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// HTTP header, such as 'Accept: text/html'; with ws and wss one of the handshake; repeatable
    ///
    /// Host is derived from the target unless given here, Content-Length always from the body.
    #[arg(
        short = 'H', long, value_name = "HEADER",
        value_parser = guarded::<Header>("--header <HEADER>", refused_header)
    )]
    header: Vec<Guarded<Header>>,
    /// HTTP statuses that count as success, such as --expect 200,404 or --expect 2xx [default: 200-399]; with ws and
    /// wss, the text of each answer [default: the message itself]
    #[arg(long, value_name = "STATUSES")]
    expect: Option<String>,
    /// Follow up to this many redirects per request, on the same server, or those of --follow-to: --follow 3
    ///
    /// The times, and --timeout, are those of all of its requests together, and only the last response counts. Any
    /// other redirect is a wrong response: one too many, to another server, or after which the target closes the
    /// connection.
    #[arg(long, value_name = "COUNT", conflicts_with = "requests")]
    follow: Option<u32>,
    /// Follow redirects to these servers, too, over connections of their own:
    /// --follow-to https://localhost:8443,http://www.localhost
    ///
    /// The headers Authorization, Cookie and Host are not sent there, other headers are.
    #[arg(long, value_name = "SERVERS", value_delimiter = ',', requires = "follow")]
    follow_to: Vec<String>,
    /// Text that the body of each HTTP response must contain: --expect-body 'in stock'
    ///
    /// Checked for responses with an expected status; those without it are counted as bad-body. The body is searched
    /// as it is sent, compressed if the target compresses it.
    #[arg(long, value_name = "TEXT")]
    expect_body: Option<String>,
    /// Name and password for HTTP (basic authentication): --user 'me:secret', or in the URL:
    /// http://me:secret@localhost/; shown nowhere
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Option<String>,
    /// File of HTTP requests, of which each request is one, chosen at random by weight: --requests shop.jsonl
    ///
    /// The paths of the file replace that of the target. --header, --expect and --expect-body hold for all requests
    /// that do not say otherwise.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "body", "body_file"])]
    requests: Option<PathBuf>,
    /// Table (CSV) with values for the requests of --requests, whose first line has the names of its columns:
    /// --data users.csv
    #[arg(long, value_name = "FILE", requires = "requests")]
    data: Option<PathBuf>,
    /// HTTP request body; with ws and wss, the message
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,
    /// File with the HTTP request body, or with the message, up to 64 MiB
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    #[command(flatten)]
    websocket: WebSocketFlags,
}

/// The workloads for targets other than http.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Send a message and expect its echo
    Echo,
    /// Send a message and expect a response as described by --response or --response-end
    Request,
    /// Only send, as fast as the target accepts it or at --rate
    Send,
    /// Only receive; with --payload or --payload-file, after sending one such message
    Receive,
    /// Connect and close; with --payload, with an echo in between
    Churn,
}

/// The bytes at the end of a response.
#[derive(Clone)]
struct Delimiter(Vec<u8>);

/// Parses text with escapes.
fn unescape(text: &str) -> Result<Delimiter, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let hexadecimal = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => u8::from_str_radix(digits, 16).ok(),
            false => None,
        };
        let (byte, length) = match escaped.as_bytes().first() {
            Some(b'n') => (Some(b'\n'), 1),
            Some(b'r') => (Some(b'\r'), 1),
            Some(b't') => (Some(b'\t'), 1),
            Some(b'0') => (Some(0), 1),
            Some(b'\\') => (Some(b'\\'), 1),
            Some(b'x') => (escaped.get(1..3).and_then(hexadecimal), 3),
            _ => (None, 0),
        };
        bytes.push(byte.ok_or(r"expected \n, \r, \t, \0, \\ or \xHH after a backslash")?);
        rest = &escaped[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(Delimiter(bytes))
}

impl WorkloadOptions {
    /// Sets the workload of a plan.
    ///
    /// # Errors
    ///
    /// Conflicting flags, or a file that cannot be read.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), String> {
        // Saturated values exceed the plan's limits, too.
        plan.pipeline = usize::try_from(self.pipeline).unwrap_or(usize::MAX);
        plan.requests_per_connection = self.requests_per_connection;
        if !matches!(plan.target, Target::WebSocket(_)) {
            self.websocket.check_unused(&plan.target.without_query())?;
        }
        plan.workload = match &plan.target {
            Target::WebSocket(_) => Workload::WebSocket(self.websocket_request(&plan.target)?),
            Target::Http(target) => {
                let request = self.http_request(&plan.target)?;
                plan.requests = self.request_list(&request, target)?;
                plan.follow_to = self.follow_to.iter().map(|text| server(text)).collect::<Result<_, _>>()?;
                Workload::Http(request)
            }
            Target::Tcp(_) | Target::Tls(_) | Target::Udp(_) | Target::Unix(_) => {
                self.byte_workload(&plan.target)?
            }
        };
        Ok(())
    }

    fn http_request(&self, target: &Target) -> Result<HttpRequest, String> {
        if self.payload.is_some() || self.payload_file.is_some() {
            let flag = if self.payload.is_some() { "--payload" } else { "--payload-file" };
            return Err(format!("{flag} cannot be used with {target}: expected --body or --body-file"));
        }
        let flags = [
            ("--workload", self.workload.is_some()),
            ("--response", self.response.is_some()),
            ("--response-end", self.response_end.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given) {
            return Err(format!(
                "{flag} cannot be used with {target}: expected tcp://, tls://, udp:// or unix:"
            ));
        }
        let mut request = HttpRequest::default();
        if let Some(method) = &self.method {
            request.method.clone_from(method);
        }
        request.headers = self.headers(target)?;
        request.follow = self.follow.unwrap_or_default();
        request.expected_body = self.expect_body.clone().map(String::into_bytes);
        if let Some(expected) = &self.expect {
            let invalid = |error| format!("invalid value '{expected}' for '--expect <STATUSES>': {error}");
            request.expected = expected.parse().map_err(invalid)?;
        }
        if let Some(path) = &self.body_file {
            request.body = read_file("--body-file", path, BODY_MAX_BYTES)?;
        } else if let Some(body) = &self.body {
            request.body = body.clone().into_bytes();
        }
        Ok(request)
    }

    /// The files that are read, with their flags.
    pub fn input_files(&self) -> [(&'static str, Option<&Path>); 4] {
        let files = [&self.payload_file, &self.body_file, &self.requests, &self.data];
        let [payload, body, requests, data] = files.map(Option::as_deref);
        [("--payload-file", payload), ("--body-file", body), ("--requests", requests), ("--data", data)]
    }

    fn request_list(&self, base: &HttpRequest, target: &HttpTarget) -> Result<Option<RequestList>, String> {
        let Some(path) = &self.requests else { return Ok(None) };
        let data = self.data.as_deref().map(requests::read_data).transpose()?;
        requests::read(path, base, target, data).map(Some)
    }

    /// The headers, with the name and the password if there are any.
    fn headers(&self, target: &Target) -> Result<Vec<Header>, String> {
        let user = self.user.as_deref().map(Header::basic_auth).transpose();
        let user = user.map_err(|error| format!("--user: {error}"))?;
        let of_target = match target {
            Target::Http(target) | Target::WebSocket(target) => target.user().cloned(),
            _ => None,
        };
        let given: Result<Vec<_>, _> = self.header.iter().map(|Guarded(header)| header.clone()).collect();
        let headers: Vec<Header> = given?.into_iter().chain(user).chain(of_target).collect();
        match headers.iter().filter(|header| header.is_authorization()).count() {
            0 | 1 => Ok(headers),
            _ => Err("the header Authorization is given twice: expected --user, a name and a password in the URL, or \
                      --header"
                .to_string()),
        }
    }

    fn websocket_request(&self, target: &Target) -> Result<WebSocketRequest, String> {
        let kind = self.workload.unwrap_or(Kind::Echo);
        if !matches!(kind, Kind::Echo | Kind::Request) {
            let (kind, target) = (kind.name(), target.without_query());
            return Err(format!("--workload {kind} cannot be used with {target}: expected echo or request"));
        }
        let flags = [
            ("--response", self.response.is_some()),
            ("--response-end", self.response_end.is_some()),
            ("--method", self.method.is_some()),
            ("--requests", self.requests.is_some()),
            ("--follow", self.follow.is_some()),
            ("--expect-body", self.expect_body.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given) {
            let target = target.without_query();
            return Err(format!("{flag} cannot be used with {target}: expected other targets"));
        }
        let body = match (&self.body, &self.body_file) {
            (Some(body), _) => Some(body.clone().into_bytes()),
            (None, Some(path)) => Some(read_file("--body-file", path, MESSAGE_MAX_BYTES)?),
            (None, None) => None,
        };
        let payload = match (body, self.given_payload()?) {
            (Some(_), Some(_)) => {
                return Err("a message was given twice: expected --payload, --payload-file, --body or \
                            --body-file"
                    .to_string());
            }
            (Some(body), None) => Some(Payload::Given(body)),
            (None, payload) => payload,
        };
        let expected = match (&self.expect, kind) {
            (Some(text), _) => WebSocketAnswer::Text(text.clone()),
            (None, Kind::Request) => WebSocketAnswer::Any,
            (None, _) => WebSocketAnswer::Echo,
        };
        let headers = self.headers(target)?;
        Ok(self.websocket.request(Messages {
            payload,
            is_given_text: self.body.is_some(),
            expected,
            headers,
        }))
    }

    fn byte_workload(&self, target: &Target) -> Result<Workload, String> {
        let flags = [
            ("--method", self.method.is_some()),
            ("--header", !self.header.is_empty()),
            ("--expect", self.expect.is_some()),
            ("--expect-body", self.expect_body.is_some()),
            ("--user", self.user.is_some()),
            ("--follow", self.follow.is_some()),
            ("--requests", self.requests.is_some()),
            ("--body", self.body.is_some()),
            ("--body-file", self.body_file.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given) {
            return Err(format!("{flag} cannot be used with {target}: expected http:// or https://"));
        }
        let kind = self.workload.unwrap_or(Kind::Echo);
        let framing = match (self.response, &self.response_end) {
            (Some(bytes), _) => Some(("--response", Framing::Length(bytes))),
            (None, Some(Delimiter(bytes))) => Some(("--response-end", Framing::Delimiter(bytes.clone()))),
            (None, None) => None,
        };
        if let Some((flag, _)) = &framing
            && kind != Kind::Request
        {
            return Err(format!(
                "{flag} cannot be used with --workload {}: expected --workload request",
                kind.name()
            ));
        }
        let given = self.given_payload()?;
        let payload = || given.clone().unwrap_or(64.into());
        Ok(match kind {
            Kind::Echo => Workload::Echo { payload: payload() },
            Kind::Request => {
                let (_, framing) = framing.ok_or(
                    "--workload request needs the end of responses: expected --response BYTES or --response-end TEXT",
                )?;
                Workload::Request { payload: payload(), framing }
            }
            Kind::Send => Workload::Send { payload: payload() },
            Kind::Receive => Workload::Receive { payload: given },
            Kind::Churn => Workload::Churn { payload: given },
        })
    }

    fn given_payload(&self) -> Result<Option<Payload>, String> {
        match (&self.payload, &self.payload_file) {
            (Some(sizes), _) => Ok(Some(Payload::Generated(sizes.clone()))),
            (None, Some(path)) => {
                read_file("--payload-file", path, MESSAGE_MAX_BYTES).map(|bytes| Some(Payload::Given(bytes)))
            }
            (None, None) => Ok(None),
        }
    }
}

impl Kind {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

fn read_file(flag: &str, path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
    read_bounded(path, max_bytes).map_err(|error| format!("{flag}: {error}"))
}

/// The workload, for the first line of the results.
pub fn describe(plan: &Plan) -> String {
    let work = match &plan.workload {
        Workload::Echo { payload } => format!("{} per message", show_payload(payload)),
        Workload::Request { payload, framing } => {
            format!("{} per request, {framing} per response", show_payload(payload))
        }
        Workload::Send { payload } => format!("send only, {} per message", show_payload(payload)),
        Workload::Receive { payload: None } => "receive only".to_string(),
        Workload::Receive { payload: Some(payload) } => {
            format!("receive only after {}", show_payload(payload))
        }
        Workload::Churn { payload: None } => "connect and close".to_string(),
        Workload::Churn { payload: Some(payload) } => {
            format!("connect, an echo of {}, and close", show_payload(payload))
        }
        Workload::Http(_) if plan.requests.is_some() => {
            let count = plan.requests.as_ref().map_or(0, |list| list.requests.len());
            format!("{} listed request{}", format_count(count as u64), if count == 1 { "" } else { "s" })
        }
        Workload::WebSocket(request) => {
            format!("{} {}", show_payload(&request.payload), websocket::describe(request))
        }
        Workload::Driven { name } => format!("sessions of {name}"),
        Workload::Http(request) if request.body.is_empty() => request.method.clone(),
        Workload::Http(request) => format!("{} of {}", request.method, counted_bytes(request.body.len())),
    };
    match (plan.pipeline, plan.requests_per_connection) {
        (1, None) => work,
        (1, Some(count)) => format!("{work}, {} per connection", format_count(count)),
        (depth, _) => format!("{work}, pipeline depth {}", format_count(depth as u64)),
    }
}

fn show_payload(payload: &Payload) -> String {
    match payload {
        Payload::Generated(sizes) if payload.min_bytes() < payload.max_bytes() => format!("{sizes} bytes"),
        Payload::Generated(_) | Payload::Given(_) => counted_bytes(payload.max_bytes()),
    }
}

fn counted_bytes(bytes: usize) -> String {
    format!("{} byte{}", format_count(bytes as u64), if bytes == 1 { "" } else { "s" })
}

/// The unit of the rate.
pub fn rate_unit(workload: &Workload) -> &'static str {
    match workload {
        Workload::Echo { .. } | Workload::Request { .. } | Workload::Http(_) | Workload::WebSocket(_) => {
            "answered requests/s"
        }
        Workload::Driven { .. } => "successful steps/s",
        Workload::Send { .. } => "messages/s accepted by the kernel",
        Workload::Receive { .. } => "arrivals/s",
        Workload::Churn { .. } => "connections/s",
    }
}

/// What a service time measures.
pub fn service_span(workload: &Workload) -> &'static str {
    match workload {
        Workload::Echo { .. } | Workload::Request { .. } | Workload::Http(_) | Workload::WebSocket(_) => {
            "from sending a request to its response"
        }
        Workload::Driven { .. } => "from the beginning of a step to its end",
        Workload::Send { .. } => "from sending a message until the kernel accepted it",
        Workload::Receive { .. } => "from one arrival to the next",
        Workload::Churn { payload: None } => "from connecting until connected",
        Workload::Churn { payload: Some(_) } => "from connecting to the echo",
    }
}

/// The JSON fields of a plan's workload (docs/load-json.md).
pub fn fields(plan: &Plan) -> serde_json::Map<String, Value> {
    let payload = plan.workload.payload();
    let payload_bytes = payload
        .filter(|payload| payload.min_bytes() == payload.max_bytes())
        .map(|payload| payload.max_bytes());
    let sizes = match payload {
        Some(Payload::Generated(sizes)) => Some(sizes.to_string()),
        _ => None,
    };
    let (response_bytes, response_end) = match &plan.workload {
        Workload::Request { framing: Framing::Length(bytes), .. } => (Some(*bytes), None),
        Workload::Request { framing: Framing::Delimiter(delimiter), .. } => {
            (None, Some(delimiter.escape_ascii().to_string()))
        }
        _ => (None, None),
    };
    let http = match &plan.workload {
        Workload::Http(request) => {
            let listed = plan.requests.as_ref().map(|list| list.requests.len());
            let headers: Vec<String> = request.headers.iter().map(Header::redacted).collect();
            Some(json!({
                "method": request.method,
                "headers": headers,
                "expected": request.expected.to_string(),
                "expected_body_bytes": request.expected_body.as_ref().map(Vec::len),
                "body_bytes": request.body.len(),
                "follow": request.follow,
                "follow_to": plan.follow_to.iter().map(HttpTarget::origin).collect::<Vec<_>>(),
                "listed": listed,
            }))
        }
        _ => None,
    };
    let script = match &plan.workload {
        Workload::Driven { name } => Some(name),
        _ => None,
    };
    let fields = [
        ("workload", json!(plan.workload.name())),
        ("payload_bytes", json!(payload_bytes)),
        ("payload_sizes", json!(sizes)),
        ("response_bytes", json!(response_bytes)),
        ("response_end", json!(response_end)),
        ("pipeline", json!(plan.pipeline)),
        ("requests_per_connection", json!(plan.requests_per_connection)),
        ("http", json!(http)),
        ("script", json!(script)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// A server that redirects may lead to.
fn server(text: &str) -> Result<HttpTarget, String> {
    let shown = if text.contains('@') { "..." } else { text };
    match text.parse() {
        Ok(Target::Http(server)) if server.path() == "/" && server.user().is_none() => Ok(server),
        _ => Err(format!(
            "--follow-to {shown}: expected a server without a path, such as https://localhost:8443"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        for (text, bytes) in [
            ("end", &b"end"[..]),
            (r"\r\n", b"\r\n"),
            (r"a\\b\t\0\x00\xfF", b"a\\b\t\0\0\xff"),
            ("\u{e9}", b"\xc3\xa9"),
            ("", b""),
        ] {
            assert_eq!(unescape(text).ok().unwrap().0, bytes, "{text}");
        }
        for text in [r"\", r"\q", r"\x1", r"\xg0", r"\x+1", "\\\u{e9}", "\\x\u{e9}"] {
            let error = unescape(text).err().unwrap();
            assert!(error.contains("after a backslash"), "{text}: {error}");
        }
    }
}
