//! A server of HTTP/1.1: connections are kept, requests may be pipelined, and every answer says what was asked for.
//! `/busy/20` computes for 20 microseconds first, which all others wait for: what handlers cost.
//!
//! ```sh
//! cargo run --release --example http -- [LISTEN]    # 127.0.0.1:8080
//! curl http://127.0.0.1:8080/hello
//! ```
//!
//! The requests are parsed by the crate httparse, which knows nothing of sockets: a fiber reads until it has a whole
//! one. All answers to what came in one read leave in one write.

use std::hint::spin_loop;
use std::io::{Error, ErrorKind, Result, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Request, Status};
use ringspun::net::{self, Endpoint, Peer, Stream};

const HEADERS_MAX: usize = 64;
/// A client cannot make the server keep more of a request than this, and a little.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const BODY_MAX_BYTES: usize = 1024 * 1024;
const BUSY_MAX: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let place: Endpoint = match arguments.as_slice() {
        [] => "127.0.0.1:8080".endpoint()?,
        [place] => place.as_str().endpoint()?,
        _ => return Err(Error::new(ErrorKind::InvalidInput, "expected at most one argument: [LISTEN]")),
    };
    ringspun::run(move || {
        let listener = net::listen(place)?;
        println!("listening at {}", listener.localname()?);
        listener.accept_loop(|client| {
            if let Err(error) = serve(&client)
                && !net::is_closed(&error)
            {
                eprintln!("http: {error}");
            }
        })
    })?
}

/// Answers requests until the client ends the connection, or a request ends it.
fn serve(client: &Stream) -> Result<()> {
    let (mut pending, mut answers) = (Vec::new(), Vec::new());
    while let Some(bytes) = client.receive()? {
        pending.extend_from_slice(&bytes);
        let (mut used, mut is_last) = (0, false);
        while !is_last && let Some(length) = answer(&pending[used..], &mut answers, &mut is_last)? {
            used += length;
        }
        pending.drain(..used);
        if !answers.is_empty() {
            client.write(&answers)?;
            answers.clear();
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Answers the first request, and returns how long it was; `None` if it is not all there yet.
fn answer(bytes: &[u8], answers: &mut Vec<u8>, is_last: &mut bool) -> Result<Option<usize>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let head_length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() <= HEAD_MAX_BYTES => return Ok(None),
        Ok(Status::Partial) => return refuse(answers, is_last, "431 Request Header Fields Too Large"),
        Err(_) => return refuse(answers, is_last, "400 Bad Request"),
    };
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if header("Transfer-Encoding").is_some() {
        return refuse(answers, is_last, "501 Not Implemented");
    }
    let body_length = match header("Content-Length").map(|value| str::from_utf8(value).map(str::parse)) {
        None => 0,
        Some(Ok(Ok(length))) => length,
        Some(_) => return refuse(answers, is_last, "400 Bad Request"),
    };
    if body_length > BODY_MAX_BYTES {
        return refuse(answers, is_last, "413 Content Too Large");
    }
    if bytes.len() < head_length + body_length {
        return Ok(None);
    }
    let connection = header("Connection").unwrap_or_default();
    *is_last = connection.eq_ignore_ascii_case(b"close")
        || (request.version == Some(0) && !connection.eq_ignore_ascii_case(b"keep-alive"));
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if let Some(time) = path.strip_prefix("/busy/").and_then(|microseconds| microseconds.parse().ok()) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(time).min(BUSY_MAX) {
            spin_loop();
        }
    }
    let length = method.len() + 1 + path.len() + 1;
    let end = if *is_last { "Connection: close\r\n" } else { "" };
    write!(answers, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{end}\r\n")?;
    if method != "HEAD" {
        writeln!(answers, "{method} {path}")?;
    }
    Ok(Some(head_length + body_length))
}

/// Where a request ends is not known: the connection ends with the answer.
fn refuse(answers: &mut Vec<u8>, is_last: &mut bool, status: &str) -> Result<Option<usize>> {
    *is_last = true;
    write!(answers, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(Some(0))
}
