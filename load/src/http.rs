//! HTTP/1.1 from the client's side: the request that is sent over and over, and a reader for its answers.
//!
//! The reader keeps nothing but the part of a head that has come so far. A head that comes in one piece, as
//! nearly all do, is read where it is, so that an answer takes no memory to allocate. Bodies are counted and
//! dropped.

use std::fmt;
use std::mem::MaybeUninit;
use std::str::FromStr;

use crate::target::HttpTarget;

/// How long the body of a request may be, in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// What the head of an answer may have, as servers limit it for requests.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
/// How much of an answer that is no HTTP is shown.
const SHOWN_BYTES: usize = 32;

/// A header of a request, such as `Accept: text/html`.
///
/// # Examples
///
/// ```
/// use ringspun_load::Header;
///
/// let header: Header = "Accept: text/html".parse().unwrap();
/// assert_eq!(header.to_string(), "Accept: text/html");
/// assert!("Content-Length: 5".parse::<Header>().unwrap_err().contains("set from the body"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

impl FromStr for Header {
    type Err = String;

    /// The error says what is wrong and what was expected; whoever asked names the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
        if !is_token(name) {
            return Err(format!(
                "{name:?} is no header's name: expected letters, digits and signs such as -, without spaces"
            ));
        }
        let value = value.trim_matches([' ', '\t']);
        if let Some(bad) = value.chars().find(|character| character.is_control() && *character != '\t') {
            return Err(format!("a header's value with {bad:?}: expected no control characters"));
        }
        if ["content-length", "transfer-encoding"].iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Err(format!("{name} is set from the body: expected another header"));
        }
        Ok(Self { name: name.to_string(), value: value.to_string() })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// What RFC 9110 calls a token: methods and names of headers are.
fn is_token(text: &str) -> bool {
    let is_sign = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte))
}

/// The request that is sent over and over to an HTTP server. `Host` is set from the target unless a header is
/// given for it, and `Content-Length` from the body.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Such as `GET`, and that at first; any but `CONNECT`, after which no HTTP follows.
    pub method: String,
    /// Headers besides `Host` and `Content-Length`; none at first.
    pub headers: Vec<Header>,
    /// What follows the headers, up to [`BODY_MAX_BYTES`]; empty at first. It is sent whole before the answer
    /// is read.
    pub body: Vec<u8>,
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self { method: "GET".to_string(), headers: Vec::new(), body: Vec::new() }
    }
}

impl HttpRequest {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_token(&self.method) || self.method == "CONNECT" {
            return Err(format!("method {:?}: expected one such as GET or POST", self.method));
        }
        if self.body.len() > BODY_MAX_BYTES {
            return Err(format!("a body of {} bytes: expected {BODY_MAX_BYTES} at most", self.body.len()));
        }
        Ok(())
    }

    /// Whether the target is to end the connection after its answer.
    pub(crate) fn asks_to_close(&self) -> bool {
        self.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection")
                && header.value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"))
        })
    }

    /// All bytes of the request.
    pub(crate) fn bytes(&self, target: &HttpTarget) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, target.path());
        if !self.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", target.authority());
        }
        for header in &self.headers {
            head += &format!("{header}\r\n");
        }
        let expects_body = ["POST", "PUT", "PATCH"].contains(&self.method.as_str());
        if expects_body || !self.body.is_empty() {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// A request as it is sent.
pub(crate) struct Prepared {
    pub(crate) bytes: Vec<u8>,
    /// The answer has no body, whatever its headers say.
    pub(crate) is_head: bool,
    /// It asks the target to end the connection after the answer, which then need not say that it does.
    pub(crate) closes: bool,
}

impl Prepared {
    pub(crate) fn new(request: &HttpRequest, target: &HttpTarget) -> Self {
        Self {
            bytes: request.bytes(target),
            is_head: request.method == "HEAD",
            closes: request.asks_to_close(),
        }
    }
}

/// An answer that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// From 200 to 599.
    pub(crate) status: u16,
    /// Nothing comes after it on its connection.
    pub(crate) closes: bool,
}

impl Response {
    pub(crate) fn is_success(self) -> bool {
        self.status < 400
    }
}

/// Reads one answer from its pieces.
pub(crate) struct ResponseReader {
    is_head: bool,
    /// The head so far, if it did not come in one piece.
    head: Vec<u8>,
    response: Response,
    expected: Expected,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Head,
    /// That many bytes of the body.
    Body(u64),
    Chunks(Chunks),
    /// All bytes until the connection ends.
    End,
    Nothing,
}

impl ResponseReader {
    /// `is_head` tells that the answer is one to HEAD.
    pub(crate) fn new(is_head: bool) -> Self {
        let response = Response { status: 0, closes: false };
        Self { is_head, head: Vec::new(), response, expected: Expected::Head }
    }

    /// Takes what has come. Returns what comes behind the answer, and the answer when it is whole; the error
    /// says what is not as HTTP has it.
    #[inline]
    pub(crate) fn take<'b>(&mut self, mut bytes: &'b [u8]) -> Result<(&'b [u8], Option<Response>), String> {
        while !bytes.is_empty() && self.expected != Expected::Nothing {
            bytes = match &mut self.expected {
                Expected::Head => self.take_head(bytes)?,
                Expected::Body(missing) => {
                    let (rest, is_whole) = skip(bytes, missing);
                    if is_whole {
                        self.expected = Expected::Nothing;
                    }
                    rest
                }
                Expected::Chunks(chunks) => {
                    let rest = chunks.take(bytes)?;
                    if *chunks == Chunks::Over {
                        self.expected = Expected::Nothing;
                    }
                    rest
                }
                Expected::End | Expected::Nothing => &[],
            };
        }
        Ok((bytes, (self.expected == Expected::Nothing).then_some(self.response)))
    }

    /// The answer, if the end of the connection is its end; the error says what is missing.
    pub(crate) fn end(&self) -> Result<Response, String> {
        let missing = match self.expected {
            Expected::End | Expected::Nothing => return Ok(self.response),
            Expected::Head if self.head.is_empty() => "before it answered".to_string(),
            Expected::Head => "within the head of its answer".to_string(),
            Expected::Body(missing) => format!("with {missing} bytes of its answer's body missing"),
            Expected::Chunks(_) => "before the last chunk of its answer".to_string(),
        };
        Err(format!("the target closed the connection {missing}"))
    }

    /// Takes a head, or a part of one, and returns what comes behind it.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let kept_bytes = self.head.len();
        if kept_bytes == 0 {
            let Some((head_bytes, head)) = parse_head(bytes)? else {
                self.head.extend_from_slice(bytes);
                return Ok(&[]);
            };
            self.begin_body(&head)?;
            return Ok(&bytes[head_bytes..]);
        }
        self.head.extend_from_slice(bytes);
        // Only the end of a line can be the end of the head.
        if !bytes.contains(&b'\n') && self.head.len() <= HEAD_MAX_BYTES {
            return Ok(&[]);
        }
        let Some((head_bytes, head)) = parse_head(&self.head)? else { return Ok(&[]) };
        self.head.clear();
        self.begin_body(&head)?;
        Ok(&bytes[head_bytes - kept_bytes..])
    }

    #[inline]
    fn begin_body(&mut self, head: &Head) -> Result<(), String> {
        self.response = Response { status: head.status, closes: head.closes };
        self.expected = match (head.status, head.length) {
            (101, _) => return Err("HTTP 101: expected to stay with HTTP/1.1".to_string()),
            (100..200, _) => Expected::Head,
            (204 | 304, _) => Expected::Nothing,
            (200..600, _) if self.is_head => Expected::Nothing,
            (200..600, BodyLength::Bytes(0)) => Expected::Nothing,
            (200..600, BodyLength::Bytes(length)) => Expected::Body(length),
            (200..600, BodyLength::Chunked) => Expected::Chunks(Chunks::Size { bytes: 0, digits: 0 }),
            (200..600, BodyLength::UntilEnd) => {
                self.response.closes = true;
                Expected::End
            }
            (status, _) => return Err(format!("HTTP {status}: expected a status from 100 to 599")),
        };
        Ok(())
    }
}

/// What a head says about what follows.
struct Head {
    status: u16,
    closes: bool,
    length: BodyLength,
}

#[derive(Clone, Copy)]
enum BodyLength {
    Bytes(u64),
    Chunked,
    UntilEnd,
}

/// Reads a head and its length in bytes; `None` if it is not whole.
#[inline]
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, String> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut headers,
    );
    let head_bytes = match parsing {
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes <= HEAD_MAX_BYTES => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX_BYTES => return Ok(None),
        Ok(_) => {
            return Err(format!("the answer's head is too long: expected {HEAD_MAX_BYTES} bytes at most"));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(format!("the answer has too many headers: expected {HEADERS_MAX} at most"));
        }
        Err(error) => return Err(describe_garbage(bytes, error)),
    };
    let is_old = parsed.version == Some(0);
    let mut head = Head { status: parsed.code.unwrap_or(0), closes: is_old, length: BodyLength::UntilEnd };
    let mut content_length = None;
    let mut is_coded = false;
    for header in &*parsed.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            for text in header.value.split(|byte| *byte == b',') {
                let length = parse_length(text)?;
                if content_length.is_some_and(|other| other != length) {
                    return Err("the answer has two values of Content-Length: expected one".to_string());
                }
                content_length = Some(length);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            is_coded = true;
            let last = header.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            head.length = match last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                true => BodyLength::Chunked,
                false => BodyLength::UntilEnd,
            };
        } else if header.name.eq_ignore_ascii_case("connection") {
            for token in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    head.closes = true;
                } else if is_old && token.eq_ignore_ascii_case(b"keep-alive") {
                    head.closes = false;
                }
            }
        }
    }
    // The coding says more than a length beside it.
    if let Some(length) = content_length
        && !is_coded
    {
        head.length = BodyLength::Bytes(length);
    }
    Ok(Some((head_bytes, head)))
}

#[inline]
fn parse_length(text: &[u8]) -> Result<u64, String> {
    let digits = text.trim_ascii();
    let add = |sum: u64, byte: &u8| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    let length = if digits.is_empty() { None } else { digits.iter().try_fold(0, add) };
    length.ok_or_else(|| format!("Content-Length is {}: expected a number", show_bytes(text)))
}

#[cold]
fn describe_garbage(bytes: &[u8], error: httparse::Error) -> String {
    format!("{} came back ({error}): expected an answer of HTTP/1.1", show_bytes(bytes))
}

/// The beginning of some bytes, for messages.
fn show_bytes(bytes: &[u8]) -> String {
    let more = if bytes.len() > SHOWN_BYTES { "..." } else { "" };
    format!("\"{}{more}\"", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii())
}

/// Skips as much as is missing, and tells whether that was all.
#[inline]
fn skip<'a>(bytes: &'a [u8], missing: &mut u64) -> (&'a [u8], bool) {
    let skipped = bytes.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
    *missing -= skipped as u64;
    (&bytes[skipped..], *missing == 0)
}

/// Where in the chunked transfer coding (RFC 9112, section 7.1) a body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    /// In the hexadecimal size of a chunk, after that many digits.
    Size { bytes: u64, digits: u8 },
    /// After the size, in what may stand behind it on its line.
    Extension { bytes: u64 },
    /// Before the line feed behind a size.
    SizeEnd { bytes: u64 },
    /// In the data of a chunk, with this much missing.
    Data { missing: u64 },
    /// Before the carriage return behind the data.
    DataReturn,
    /// Before the line feed behind the data.
    DataEnd,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    /// Within such a line.
    TrailerLine,
    /// Before the last line feed.
    LastEnd,
    /// Behind it all.
    Over,
}

impl Chunks {
    /// Takes bytes up to the end of the body, and returns what comes behind it.
    fn take<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], String> {
        while let [first, rest @ ..] = bytes {
            bytes = rest;
            *self = match (*self, *first) {
                (Self::Over, _) => return Ok(&[]),
                (Self::Data { mut missing }, _) => {
                    missing -= 1;
                    let (behind, is_whole) = skip(rest, &mut missing);
                    bytes = behind;
                    if is_whole { Self::DataReturn } else { Self::Data { missing } }
                }
                (Self::Size { bytes, digits: digits @ 0..16 }, digit) if digit.is_ascii_hexdigit() => {
                    let value = char::from(digit).to_digit(16).unwrap_or_default();
                    Self::Size { bytes: bytes << 4 | u64::from(value), digits: digits + 1 }
                }
                (Self::Size { bytes, digits: 1.. } | Self::Extension { bytes }, b'\r') => {
                    Self::SizeEnd { bytes }
                }
                (Self::Size { bytes, digits: 1.. }, b';' | b' ' | b'\t') => Self::Extension { bytes },
                (Self::Extension { bytes }, byte) if byte != b'\n' => Self::Extension { bytes },
                (Self::SizeEnd { bytes: 0 }, b'\n') => Self::Trailer,
                (Self::SizeEnd { bytes }, b'\n') => Self::Data { missing: bytes },
                (Self::DataReturn, b'\r') => Self::DataEnd,
                (Self::DataEnd, b'\n') => Self::Size { bytes: 0, digits: 0 },
                (Self::Trailer, b'\r') => Self::LastEnd,
                (Self::TrailerLine, b'\n') => Self::Trailer,
                (Self::Trailer | Self::TrailerLine, _) => Self::TrailerLine,
                (Self::LastEnd, b'\n') => {
                    *self = Self::Over;
                    return Ok(rest);
                }
                (_, byte) => {
                    return Err(format!(
                        "\"{}\" in the chunked body of the answer: expected a chunk's size, data and line ends",
                        byte.escape_ascii()
                    ));
                }
            };
        }
        Ok(&[])
    }
}

#[cfg(test)]
mod tests;
