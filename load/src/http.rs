//! HTTP/1.1, client side: the request that is sent repeatedly, and a parser for its responses.
//!
//! The parser buffers only an incomplete head. A head that arrives in one piece, as nearly all do, is parsed in
//! place, without an allocation. Bodies are counted and discarded.

use std::mem::MaybeUninit;

use crate::framing::Delimiter;
use crate::header::{Header, is_token};
use crate::status::StatusSet;
use crate::target::HttpTarget;

/// The maximum length of a request's body, in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// The most redirects that are followed for a request.
pub const FOLLOW_MAX: u32 = 100;
/// Limits for the head of a response.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// The usual number of headers, for which there is room on the stack.
const HEADERS_FEW: usize = 64;
const HEADERS_MAX: usize = 1024;
/// The methods that are idempotent.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"];
/// How many bytes of a malformed response are shown.
const SHOWN_BYTES: usize = 32;

/// The request that is sent repeatedly to an HTTP server. `Host` is derived from the target unless it is among
/// the headers, and `Content-Length` from the body.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method; `GET` by default. `CONNECT` is not supported.
    pub method: String,
    /// Additional headers; none by default.
    pub headers: Vec<Header>,
    /// The statuses that count as success; 2xx and 3xx by default. Others are errors.
    pub expected: StatusSet,
    /// What the body of a response must contain, at least one byte; nothing by default. Otherwise the response is an
    /// error, even if its status is expected.
    pub expected_body: Option<Vec<u8>>,
    /// How many redirects on the same server, or to those of [`Plan::follow_to`](crate::Plan::follow_to), are followed
    /// for a request, up to [`FOLLOW_MAX`]; 0 by default: a redirect is the response. The connection is kept, the times
    /// and the timeout are those of all requests together, and only the last response counts. A redirect that is not
    /// followed is a wrong response: one too many, to another server, or after which the target closes the connection.
    /// As browsers do it, statuses 301 and 302 turn `POST` into `GET`, and 303 all but `HEAD`.
    pub follow: u32,
    /// The body, up to [`BODY_MAX_BYTES`]; empty by default. It is sent completely before the response is read.
    pub body: Vec<u8>,
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self {
            method: "GET".to_string(),
            headers: Vec::new(),
            expected: StatusSet::default(),
            expected_body: None,
            follow: 0,
            body: Vec::new(),
        }
    }
}

impl HttpRequest {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_token(&self.method) || self.method == "CONNECT" {
            return Err(format!("the method is {:?}: expected a method such as GET or POST", self.method));
        }
        if self.body.len() > BODY_MAX_BYTES {
            return Err(format!("the body has {} bytes: expected at most {BODY_MAX_BYTES}", self.body.len()));
        }
        if self.follow > FOLLOW_MAX {
            return Err(format!("{} redirects to follow: expected at most {FOLLOW_MAX}", self.follow));
        }
        if self.expected_body.as_ref().is_some_and(Vec::is_empty) {
            return Err("the text that responses must contain has 0 bytes: expected 1 or more".to_string());
        }
        Ok(())
    }

    /// Whether the request asks the target to close the connection after its response.
    pub(crate) fn asks_to_close(&self) -> bool {
        self.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection")
                && header.value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"))
        })
    }

    /// Whether `Host` is derived from the target.
    pub(crate) fn needs_host(&self) -> bool {
        !self.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"))
    }

    /// Whether the length of the body is stated: where there is one, and with methods that servers expect one with.
    pub(crate) fn states_length(&self) -> bool {
        let expects_body = ["POST", "PUT", "PATCH"].contains(&self.method.as_str());
        expects_body || !self.body.is_empty()
    }

    /// The first header that HTTP/2 does not have, as it belongs to a connection of HTTP/1.1.
    pub(crate) fn connection_header(&self) -> Option<&Header> {
        const NAMES: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];
        let is_one = |header: &&Header| NAMES.iter().any(|name| header.name.eq_ignore_ascii_case(name));
        self.headers.iter().filter(|header| header.value() != "trailers").find(is_one)
    }

    /// The bytes of the request.
    pub(crate) fn bytes(&self, target: &HttpTarget) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, target.path());
        if self.needs_host() {
            head += &format!("Host: {}\r\n", target.authority());
        }
        for header in &self.headers {
            head += &format!("{header}\r\n");
        }
        if self.states_length() {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Whether a request with this method may be sent again if its connection was closed before a response (RFC 9110,
/// section 9.2.2).
pub(crate) fn is_idempotent(method: &str) -> bool {
    IDEMPOTENT.contains(&method)
}

/// A serialized request.
pub(crate) struct Prepared {
    pub(crate) bytes: Vec<u8>,
    /// The response has no body, whatever its headers say.
    pub(crate) is_head: bool,
    /// The request may be sent again if its connection was closed before a response.
    pub(crate) is_idempotent: bool,
    /// The request asks the target to close the connection; the response need not repeat it.
    pub(crate) closes: bool,
    /// What the body of the response must contain.
    pub(crate) expected_body: Option<Delimiter>,
}

impl Prepared {
    pub(crate) fn new(request: &HttpRequest, target: &HttpTarget) -> Self {
        Self { bytes: request.bytes(target), ..Self::without_bytes(request) }
    }

    /// All but the bytes, which vary.
    pub(crate) fn without_bytes(request: &HttpRequest) -> Self {
        Self {
            bytes: Vec::new(),
            is_head: request.method == "HEAD",
            is_idempotent: is_idempotent(&request.method),
            closes: request.asks_to_close(),
            expected_body: request.expected_body.clone().map(Delimiter::new),
        }
    }
}

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// From 200 to 599.
    pub(crate) status: u16,
    /// The connection ends after it.
    pub(crate) closes: bool,
    /// The body does not contain what it must.
    pub(crate) has_wrong_body: bool,
    /// How many redirects were followed to get it.
    pub(crate) redirects: u32,
}

/// Parses one response, which may arrive in pieces.
pub(crate) struct ResponseReader<'w> {
    is_head: bool,
    /// The incomplete head, if it did not arrive in one piece.
    head: Vec<u8>,
    response: Response,
    expected: Expected,
    search: BodySearch<'w>,
    /// The complete head, if it is kept.
    kept: Kept,
}

/// What becomes of a complete head.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    No,
    Head(Vec<u8>),
}

/// Looks for what a body must contain.
struct BodySearch<'w> {
    /// What is missing yet.
    missing: Option<&'w Delimiter>,
    /// How much of it the last bytes have.
    matched: usize,
}

impl BodySearch<'_> {
    /// Looks at a piece of the body.
    #[inline]
    fn look(&mut self, piece: &[u8]) {
        if let Some(text) = self.missing
            && text.find_end(&mut self.matched, piece).is_some()
        {
            self.missing = None;
        }
    }
}

/// What the parser expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Head,
    /// This many bytes of the body.
    Body(u64),
    Chunks(Chunks),
    /// All bytes until the end of the connection.
    End,
    Nothing,
}

impl<'w> ResponseReader<'w> {
    /// `is_head`: the request was HEAD.
    pub(crate) fn new(is_head: bool, expected_body: Option<&'w Delimiter>) -> Self {
        let response = Response { status: 0, closes: false, has_wrong_body: false, redirects: 0 };
        let search = BodySearch { missing: expected_body, matched: 0 };
        Self { is_head, head: Vec::new(), response, expected: Expected::Head, search, kept: Kept::No }
    }

    /// Keeps the head.
    pub(crate) fn keep_head(&mut self) {
        self.kept = Kept::Head(Vec::new());
    }

    /// The values of the headers with this name, if the head is kept.
    pub(crate) fn headers(&self, name: &str) -> Vec<Vec<u8>> {
        match &self.kept {
            Kept::No => Vec::new(),
            Kept::Head(head) => headers_of(head, name),
        }
    }

    /// Parses received bytes. Returns the bytes after the response, and the response once it is complete. The
    /// error describes a violation of HTTP.
    #[inline]
    pub(crate) fn take<'b>(&mut self, mut bytes: &'b [u8]) -> Result<(&'b [u8], Option<Response>), String> {
        while !bytes.is_empty() && self.expected != Expected::Nothing {
            bytes = match &mut self.expected {
                Expected::Head => self.take_head(bytes)?,
                Expected::Body(missing) => {
                    let (rest, is_whole) = skip(bytes, missing);
                    self.search.look(&bytes[..bytes.len() - rest.len()]);
                    if is_whole {
                        self.expected = Expected::Nothing;
                    }
                    rest
                }
                Expected::Chunks(chunks) => {
                    let rest = chunks.take(bytes, &mut self.search)?;
                    if *chunks == Chunks::Over {
                        self.expected = Expected::Nothing;
                    }
                    rest
                }
                Expected::End => {
                    self.search.look(bytes);
                    &[]
                }
                Expected::Nothing => &[],
            };
        }
        Ok((bytes, (self.expected == Expected::Nothing).then(|| self.response())))
    }

    /// The response, which is complete.
    #[inline]
    fn response(&self) -> Response {
        Response { has_wrong_body: self.search.missing.is_some(), ..self.response }
    }

    /// Ends the response with the connection. The error says what is missing.
    pub(crate) fn end(&self) -> Result<Response, String> {
        let missing = match self.expected {
            Expected::End | Expected::Nothing => return Ok(self.response()),
            Expected::Head if self.head.is_empty() => "before responding".to_string(),
            Expected::Head => "within the head of its response".to_string(),
            Expected::Body(missing) => format!("with {missing} bytes of the response body missing"),
            Expected::Chunks(_) => "before the last chunk of its response".to_string(),
        };
        Err(format!("the target closed the connection {missing}"))
    }

    /// Parses a head, or a part of one; returns the bytes after it.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let kept_bytes = self.head.len();
        if kept_bytes == 0 {
            let Some((head_bytes, head)) = parse_head(bytes)? else {
                self.head.extend_from_slice(bytes);
                return Ok(&[]);
            };
            self.begin_body(&head)?;
            if let Kept::Head(kept) = &mut self.kept {
                *kept = bytes[..head_bytes].to_vec();
            }
            return Ok(&bytes[head_bytes..]);
        }
        self.head.extend_from_slice(bytes);
        // A head ends with a line, so that nothing needs parsing before a line ends.
        if !bytes.contains(&b'\n') && self.head.len() <= HEAD_MAX_BYTES {
            return Ok(&[]);
        }
        let Some((head_bytes, head)) = parse_head(&self.head)? else { return Ok(&[]) };
        if let Kept::Head(kept) = &mut self.kept {
            *kept = self.head[..head_bytes].to_vec();
        }
        self.head.clear();
        self.begin_body(&head)?;
        Ok(&bytes[head_bytes - kept_bytes..])
    }

    #[inline]
    fn begin_body(&mut self, head: &Head) -> Result<(), String> {
        (self.response.status, self.response.closes) = (head.status, head.closes);
        self.expected = match (head.status, head.length) {
            (101, _) => return Err("HTTP 101: expected no change of protocol".to_string()),
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

/// The values of the headers with a name in a head, which has been parsed before.
#[cold]
fn headers_of(head: &[u8], name: &str) -> Vec<Vec<u8>> {
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    if config.parse_response(&mut parsed, head).is_err() {
        return Vec::new();
    }
    let named = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.to_vec()).collect()
}

/// What a head says about the rest of the response.
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

/// Parses a head; returns its length in bytes, too, or `None` if it is incomplete.
#[inline]
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, String> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_FEW];
    match parse_head_into(bytes, &mut headers) {
        Err(HeadError::TooManyHeaders) => parse_long_head(bytes),
        Err(HeadError::Invalid(text)) => Err(text),
        Ok(head) => Ok(head),
    }
}

/// Parses a head with an unusual number of headers.
#[cold]
fn parse_long_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, String> {
    parse_head_into(bytes, &mut vec![MaybeUninit::uninit(); HEADERS_MAX]).map_err(|error| match error {
        HeadError::TooManyHeaders => {
            format!("the response has too many headers: expected at most {HEADERS_MAX}")
        }
        HeadError::Invalid(text) => text,
    })
}

/// Why a head could not be parsed.
enum HeadError {
    TooManyHeaders,
    Invalid(String),
}

impl From<String> for HeadError {
    fn from(text: String) -> Self {
        Self::Invalid(text)
    }
}

#[inline]
fn parse_head_into<'b>(
    bytes: &'b [u8],
    headers: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Option<(usize, Head)>, HeadError> {
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // Obsolete, but a client has to accept it (RFC 9112, section 5.2).
    config.allow_obsolete_multiline_headers_in_responses(true);
    let parsing = config.parse_response_with_uninit_headers(&mut parsed, bytes, headers);
    let head_bytes = match parsing {
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes <= HEAD_MAX_BYTES => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX_BYTES => return Ok(None),
        Ok(_) => {
            let text =
                format!("the head of the response is too long: expected at most {HEAD_MAX_BYTES} bytes");
            return Err(text.into());
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(error) => return Err(describe_garbage(bytes, error).into()),
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
                    let text = "the response has two different values of Content-Length: expected one";
                    return Err(text.to_string().into());
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
    // RFC 9112: Transfer-Encoding overrides Content-Length.
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
    length.ok_or_else(|| format!("Content-Length is {}: expected a number", quote_bytes(text)))
}

#[cold]
fn describe_garbage(bytes: &[u8], error: httparse::Error) -> String {
    format!("{} was received ({error}): expected an HTTP/1.1 response", quote_bytes(bytes))
}

/// Quotes the first bytes, for messages; without a query, which may be a secret, and which an echo server sends back.
fn quote_bytes(bytes: &[u8]) -> String {
    let before_query = bytes.iter().position(|byte| *byte == b'?').map_or(bytes.len(), |at| at + 1);
    let length = before_query.min(SHOWN_BYTES);
    let more = if bytes.len() > length { "..." } else { "" };
    format!("\"{}{more}\"", bytes[..length].escape_ascii())
}

/// Skips up to `missing` bytes; returns whether none are missing any more.
#[inline]
fn skip<'a>(bytes: &'a [u8], missing: &mut u64) -> (&'a [u8], bool) {
    let skipped = bytes.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
    *missing -= skipped as u64;
    (&bytes[skipped..], *missing == 0)
}

/// The state of a body in the chunked transfer coding (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    /// In the hexadecimal size of a chunk, after this many digits.
    Size { bytes: u64, digits: u8 },
    /// In the chunk extension, after the size.
    Extension { bytes: u64 },
    /// Before the line feed after a size.
    SizeEnd { bytes: u64 },
    /// In the data of a chunk, with this many bytes missing.
    Data { missing: u64 },
    /// Before the carriage return after the data.
    DataReturn,
    /// Before the line feed after the data.
    DataEnd,
    /// At the beginning of a trailer line.
    Trailer,
    /// Within a trailer line.
    TrailerLine,
    /// Before the last line feed.
    LastEnd,
    /// After the body.
    Over,
}

impl Chunks {
    /// Parses bytes up to the end of the body; returns the bytes after it.
    fn take<'a>(&mut self, mut bytes: &'a [u8], search: &mut BodySearch<'_>) -> Result<&'a [u8], String> {
        while let [first, rest @ ..] = bytes {
            bytes = rest;
            *self = match (*self, *first) {
                (Self::Over, _) => return Ok(&[]),
                (Self::Data { mut missing }, first) => {
                    missing -= 1;
                    let (behind, is_whole) = skip(rest, &mut missing);
                    search.look(&[first]);
                    search.look(&rest[..rest.len() - behind.len()]);
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
                        "\"{}\" in the chunked body of the response: expected chunk sizes, data and line ends",
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
