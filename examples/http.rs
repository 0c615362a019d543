//! A server of HTTP/1.1, on every core: every answer says what was asked for, or is a file of a folder.
//!
//! ```sh
//! cargo run --release --example http -- [LISTEN [FOLDER]]    # 127.0.0.1:8080, and no files
//! curl http://127.0.0.1:8080/hello
//! ```
//!
//! Requests may be pipelined: all answers to what came in one read leave in one write. The parser, httparse, knows
//! nothing of sockets. SIGTERM and SIGINT end the server, once it has answered what it has received.

use std::io::{Error, Result, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Header, Status};
use ringspun::fibers::{self, Signal, Signals};
use ringspun::net::{ServerBuilder, Stream, fs::File};

const CONNECTIONS_MAX: usize = 20_000;
const HEAD_MAX_BYTES: usize = 16 * 1024;
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Answers that are longer leave before the next.
const COLLECTED_MAX_BYTES: usize = 64 * 1024;
/// Files that are longer are sent from the kernel's memory.
const COPIED_MAX_BYTES: u64 = 16 * 1024;
/// How long a client may take for a request, idle before it or not, and to take some of an answer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the end of a connection or of the server may take.
const END_MAX: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("http: {error}");
    ExitCode::FAILURE
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or("127.0.0.1:8080".to_string());
    let folder = arguments.next().map(PathBuf::from);
    let signals = Signals::new(&[Signal::TERM, Signal::INT])?;
    let serve = move |stream: Stream| {
        let mut client = Client { stream, folder: folder.as_deref(), unsent: Vec::new(), is_last: false };
        client.converse().unwrap_or_else(|error| eprintln!("http: {error}"));
    };
    let server = ServerBuilder::new().connections_max(CONNECTIONS_MAX).serve(place, serve).start()?;
    println!("listening at {}", server.addresses()[0]);
    ringspun::run(move || signals.wait())??;
    server.drain_requests(END_MAX).map(drop)
}

#[derive(Default)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    length: usize,
    is_last: bool,
    /// The status of the answer to one that is not understood.
    refusal: Option<&'static str>,
}

/// The first request in `bytes`; `None` if it is not all there yet.
fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    let refuse = |status| Some(Request { is_last: true, refusal: Some(status), ..Request::default() });
    let mut headers = [EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let head_length = match head.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() <= HEAD_MAX_BYTES => return None,
        Ok(Status::Partial) => return refuse("431 Request Header Fields Too Large"),
        Err(_) => return refuse("400 Bad Request"),
    };
    let (mut is_last, mut body_length) = (head.version == Some(0), None);
    for Header { name, value } in head.headers {
        if name.eq_ignore_ascii_case("Connection") {
            is_last = value.eq_ignore_ascii_case(b"close")
                || (is_last && !value.eq_ignore_ascii_case(b"keep-alive"));
        } else if name.eq_ignore_ascii_case("Content-Length") {
            let digits = str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
            match digits.and_then(|digits| digits.parse::<usize>().ok()) {
                Some(length) if length > BODY_MAX_BYTES => return refuse("413 Content Too Large"),
                Some(length) if body_length.is_none() => body_length = Some(length),
                _ => return refuse("400 Bad Request"),
            }
        } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
            return refuse("501 Not Implemented");
        }
    }
    let (method, path, length) = (head.method?, head.path?, head_length + body_length.unwrap_or(0));
    (length <= bytes.len()).then_some(Request { method, path, length, is_last, refusal: None })
}

struct Client<'a> {
    stream: Stream,
    folder: Option<&'a Path>,
    unsent: Vec<u8>,
    is_last: bool,
}

impl Client<'_> {
    /// Answers requests until the client ends the connection, or a request ends it.
    fn converse(&mut self) -> Result<()> {
        self.stream.set_write_timeout(Some(WAIT_MAX));
        let (mut received, mut due) = (Vec::new(), fibers::now() + WAIT_MAX);
        // A client that is gone, or late, is no error.
        while let Ok(Ok(Some(bytes))) = fibers::timeout_at(due, || self.stream.receive()) {
            received.extend_from_slice(&bytes);
            let mut used = 0;
            while !self.is_last
                && let Some(request) = parse(&received[used..])
            {
                used += request.length;
                self.answer(&request)?;
            }
            self.send()?;
            received.drain(..used);
            due = if used > 0 { fibers::now() + WAIT_MAX } else { due };
            if self.is_last {
                return if received.is_empty() { Ok(()) } else { self.stream.finish(END_MAX) };
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<()> {
        self.is_last = request.is_last;
        match (request.refusal, self.folder, request.method) {
            (Some(status), ..) => self.add_head(status, "", 0)?,
            (None, None, _) => self.add_echo(request)?,
            (None, Some(folder), "GET" | "HEAD") => self.add_file(folder, request)?,
            _ => self.add_head("405 Method Not Allowed", "Allow: GET, HEAD\r\n", 0)?,
        }
        if self.unsent.len() > COLLECTED_MAX_BYTES { self.send() } else { Ok(()) }
    }

    fn add_head(&mut self, status: &str, field: &str, length: u64) -> Result<()> {
        write!(self.unsent, "HTTP/1.1 {status}\r\n{field}Content-Length: {length}\r\n")?;
        self.unsent.extend_from_slice(if self.is_last { b"Connection: close\r\n\r\n" } else { b"\r\n" });
        Ok(())
    }

    /// Says what was asked for.
    fn add_echo(&mut self, Request { method, path, .. }: &Request<'_>) -> Result<()> {
        let length = method.len() + 1 + path.len() + 1;
        self.add_head("200 OK", "Content-Type: text/plain\r\n", length as u64)?;
        if *method != "HEAD" {
            writeln!(self.unsent, "{method} {path}")?;
        }
        Ok(())
    }

    /// Answers with a file as it is now. Links in the folder may lead out of it.
    fn add_file(&mut self, folder: &Path, request: &Request<'_>) -> Result<()> {
        let Some((file, length, content_type)) = open(folder, request.path) else {
            return self.add_head("404 Not Found", "", 0);
        };
        self.add_head("200 OK", content_type, length)?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let sent = if length > COPIED_MAX_BYTES {
            let head = std::mem::take(&mut self.unsent);
            self.stream.send_file_after(&head, &file, 0..length)? - head.len() as u64
        } else {
            let start = self.unsent.len();
            self.unsent.resize(start + length as usize, 0);
            file.chunk_at(&mut self.unsent[start..], 0)? as u64
        };
        // The client has been told another length.
        if sent < length { Err(Error::other("a file has become shorter")) } else { Ok(()) }
    }
}

/// The file of a path, its length, and the header field of its type.
fn open(folder: &Path, path: &str) -> Option<(File, u64, &'static str)> {
    let path = path.split('?').next()?;
    let index = if path.ends_with('/') { "index.html" } else { "" };
    let path = PathBuf::from(format!("{}{index}", path.trim_start_matches('/')));
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let file = File::open(folder.join(&path)).ok()?;
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "Content-Type: text/html\r\n",
        Some("css") => "Content-Type: text/css\r\n",
        Some("js") => "Content-Type: text/javascript\r\n",
        Some("txt" | "md") => "Content-Type: text/plain\r\n",
        _ => "Content-Type: application/octet-stream\r\n",
    };
    Some((file, metadata.len(), content_type))
}
