//! Requests of HTTP/1.1, taken apart by httparse, and their answers.

use std::hint::spin_loop;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Request, Status};
use ringspun::net::Stream;
use ringspun::net::fs::File;

const HEADERS_MAX: usize = 64;
/// A client cannot make the server keep more of a request than this, and a little.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Answers that are longer leave before the next.
const COLLECTED_MAX_BYTES: usize = 64 * 1024;
/// Files that are longer are sent from the kernel's memory.
const COPIED_MAX_BYTES: u64 = 16 * 1024;
const BUSY_MAX: Duration = Duration::from_millis(1);

/// The answers of a connection that have not been sent.
pub struct Answers<'a> {
    stream: &'a Stream,
    folder: Option<&'a Path>,
    bytes: Vec<u8>,
    /// The connection ends after them.
    pub is_last: bool,
}

impl<'a> Answers<'a> {
    pub fn new(stream: &'a Stream, folder: Option<&'a Path>) -> Self {
        Self { stream, folder, bytes: Vec::new(), is_last: false }
    }

    pub fn send(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            self.stream.write(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Answers the first request in `bytes`, and returns how long it was; `None` if it is not all there yet.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = Request::new(&mut headers);
        let head_length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() <= HEAD_MAX_BYTES => return Ok(None),
            Ok(Status::Partial) => return self.refuse("431 Request Header Fields Too Large"),
            Err(_) => return self.refuse("400 Bad Request"),
        };
        let (mut connection, mut body_length) = (&b""[..], None);
        for header in request.headers.iter() {
            match header.name.len() {
                10 if header.name.eq_ignore_ascii_case("Connection") => connection = header.value,
                14 if header.name.eq_ignore_ascii_case("Content-Length") => {
                    let digits = str::from_utf8(header.value).ok().filter(|text| !text.starts_with('+'));
                    match digits.and_then(|text| text.parse::<usize>().ok()) {
                        Some(length) if body_length.is_none() => body_length = Some(length),
                        _ => return self.refuse("400 Bad Request"),
                    }
                }
                17 if header.name.eq_ignore_ascii_case("Transfer-Encoding") => {
                    return self.refuse("501 Not Implemented");
                }
                _ => {}
            }
        }
        let body_length = body_length.unwrap_or(0);
        if body_length > BODY_MAX_BYTES {
            return self.refuse("413 Content Too Large");
        }
        if bytes.len() < head_length + body_length {
            return Ok(None);
        }
        self.is_last = connection.eq_ignore_ascii_case(b"close")
            || (request.version == Some(0) && !connection.eq_ignore_ascii_case(b"keep-alive"));
        let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        match self.folder {
            Some(folder) => self.add_file(folder, method, path)?,
            None => self.add_echo(method, path)?,
        }
        if self.bytes.len() > COLLECTED_MAX_BYTES {
            self.send()?;
        }
        Ok(Some(head_length + body_length))
    }

    /// Where a request ends is not known: the connection ends with the answer.
    fn refuse(&mut self, status: &str) -> Result<Option<usize>> {
        self.is_last = true;
        self.add_head(status, "", 0)?;
        Ok(Some(0))
    }

    fn add_head(&mut self, status: &str, content_type: &str, length: u64) -> Result<()> {
        let bytes = &mut self.bytes;
        write!(bytes, "HTTP/1.1 {status}\r\n{content_type}Content-Length: {length}\r\n")?;
        bytes.extend_from_slice(if self.is_last { b"Connection: close\r\n\r\n" } else { b"\r\n" });
        Ok(())
    }

    /// Says what was asked for.
    fn add_echo(&mut self, method: &str, path: &str) -> Result<()> {
        if let Some(time) = path.strip_prefix("/busy/").and_then(|microseconds| microseconds.parse().ok()) {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(time).min(BUSY_MAX) {
                spin_loop();
            }
        }
        let length = method.len() + 1 + path.len() + 1;
        self.add_head("200 OK", "Content-Type: text/plain\r\n", length as u64)?;
        if method != "HEAD" {
            writeln!(self.bytes, "{method} {path}")?;
        }
        Ok(())
    }

    /// Answers with a file as it is now. Links in the folder may lead out of it.
    fn add_file(&mut self, folder: &Path, method: &str, path: &str) -> Result<()> {
        if !matches!(method, "GET" | "HEAD") {
            return self.add_head("405 Method Not Allowed", "Allow: GET, HEAD\r\n", 0);
        }
        let path = path.split('?').next().unwrap_or_default();
        let index = if path.ends_with('/') { "index.html" } else { "" };
        let wanted = PathBuf::from(format!("{}{index}", path.trim_start_matches('/')));
        if !wanted.components().all(|part| matches!(part, Component::Normal(_))) {
            return self.add_head("404 Not Found", "", 0);
        }
        let content_type = match wanted.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "Content-Type: text/html\r\n",
            Some("css") => "Content-Type: text/css\r\n",
            Some("js") => "Content-Type: text/javascript\r\n",
            Some("txt" | "md") => "Content-Type: text/plain\r\n",
            _ => "Content-Type: application/octet-stream\r\n",
        };
        let Ok((file, length)) = open(&folder.join(wanted)) else {
            return self.add_head("404 Not Found", "", 0);
        };
        self.add_head("200 OK", content_type, length)?;
        if method == "HEAD" {
            return Ok(());
        }
        let sent = if length > COPIED_MAX_BYTES {
            let head = std::mem::take(&mut self.bytes);
            self.stream.send_file_after(&head, &file, 0..length)? - head.len() as u64
        } else {
            let start = self.bytes.len();
            self.bytes.resize(start + length as usize, 0);
            file.chunk_at(&mut self.bytes[start..], 0)? as u64
        };
        // The client has been told another length.
        if sent < length { Err(Error::other("a file has become shorter")) } else { Ok(()) }
    }
}

/// A file with its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(ErrorKind::NotFound.into()) }
}
