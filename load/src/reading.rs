//! Reads one response, which may arrive in pieces.

use std::io;

use crate::framing::Delimiter;
use crate::http::{Prepared, Response, ResponseReader};
use crate::outcome::Traffic;

/// The target's answer to a request.
pub(crate) enum Answer {
    Correct(Traffic),
    /// An HTTP response, whatever its status.
    Response(Response, Traffic),
    /// Other bytes than expected.
    Wrong {
        text: String,
        /// The next bytes on the connection belong to the next request.
        in_sync: bool,
    },
    /// The target closed the connection before the response was complete.
    Ended {
        /// What was missing.
        text: String,
        /// Whether a part of the response had arrived.
        has_begun: bool,
    },
    /// The connection broke after a part of the response.
    Broken(io::Error),
    /// The connection had ended before the request, of which nothing was sent: what the target did, or how it broke.
    Unsent(io::Result<String>),
}

/// The state of an incomplete response.
pub(crate) struct Reading<'w> {
    expected: Expected<'w>,
    sent_bytes: usize,
    received_bytes: usize,
}

enum Expected<'w> {
    Echo { message: &'w [u8], wrong: Option<String> },
    Length(u64),
    Delimiter { delimiter: &'w Delimiter, matched: usize },
    Http { reader: ResponseReader<'w>, closes: bool },
}

impl<'w> Reading<'w> {
    /// Expects the bytes of the request.
    #[inline]
    pub(crate) fn echo(message: &'w [u8]) -> Self {
        Self::new(Expected::Echo { message, wrong: None }, message.len())
    }

    /// Expects this many bytes, at least one.
    pub(crate) fn length(bytes: u64, sent_bytes: usize) -> Self {
        Self::new(Expected::Length(bytes), sent_bytes)
    }

    /// Expects bytes up to a delimiter.
    pub(crate) fn delimiter(delimiter: &'w Delimiter, sent_bytes: usize) -> Self {
        Self::new(Expected::Delimiter { delimiter, matched: 0 }, sent_bytes)
    }

    /// Expects an HTTP response.
    #[inline]
    pub(crate) fn http(request: &'w Prepared) -> Self {
        let reader = ResponseReader::new(request.is_head, request.expected_body.as_ref());
        Self::new(Expected::Http { reader, closes: request.closes }, request.bytes.len())
    }

    /// Expects an HTTP response whose head is kept, to a request of this many bytes.
    pub(crate) fn keeping_head(request: &'w Prepared, sent_bytes: usize) -> Self {
        let mut reading = Self::listed(request, sent_bytes);
        if let Expected::Http { reader, .. } = &mut reading.expected {
            reader.keep_head();
        }
        reading
    }

    /// The values of the headers with this name in an HTTP response whose head is kept.
    pub(crate) fn headers(&self, name: &str) -> Vec<Vec<u8>> {
        match &self.expected {
            Expected::Http { reader, .. } => reader.headers(name),
            _ => Vec::new(),
        }
    }

    /// Expects an HTTP response to a request of this many bytes.
    pub(crate) fn listed(request: &'w Prepared, sent_bytes: usize) -> Self {
        Self { sent_bytes, ..Self::http(request) }
    }

    #[inline]
    fn new(expected: Expected<'w>, sent_bytes: usize) -> Self {
        Self { expected, sent_bytes, received_bytes: 0 }
    }

    /// Reads received bytes, at least one. Returns the bytes after the response, and the answer once it is
    /// complete. After an answer that is out of sync, the rest has no meaning.
    #[inline]
    pub(crate) fn take<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], Option<Answer>) {
        match &mut self.expected {
            Expected::Echo { message, wrong } => {
                let expected = &message[self.received_bytes..];
                let (head, rest) = bytes.split_at(bytes.len().min(expected.len()));
                if *head != expected[..head.len()] && wrong.is_none() {
                    *wrong = Some(describe_difference(head, expected, self.received_bytes));
                }
                self.received_bytes += head.len();
                if self.received_bytes < message.len() {
                    return (rest, None);
                }
                let answer = match wrong.take() {
                    None => Answer::Correct(self.traffic()),
                    Some(text) => Answer::Wrong { text, in_sync: true },
                };
                (rest, Some(answer))
            }
            Expected::Length(length) => {
                let missing = *length - self.received_bytes as u64;
                let taken = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
                self.received_bytes += taken;
                let is_whole = taken as u64 == missing;
                (&bytes[taken..], is_whole.then(|| Answer::Correct(self.traffic())))
            }
            Expected::Delimiter { delimiter, matched } => match delimiter.find_end(matched, bytes) {
                Some(end) => {
                    self.received_bytes += end;
                    (&bytes[end..], Some(Answer::Correct(self.traffic())))
                }
                None => {
                    self.received_bytes += bytes.len();
                    (&[], None)
                }
            },
            Expected::Http { reader, closes } => match reader.take(bytes) {
                Ok((rest, None)) => {
                    self.received_bytes += bytes.len();
                    (rest, None)
                }
                Ok((rest, Some(mut response))) => {
                    self.received_bytes += bytes.len() - rest.len();
                    response.closes |= *closes;
                    (rest, Some(Answer::Response(response, self.traffic())))
                }
                Err(text) => (&[], Some(Answer::Wrong { text, in_sync: false })),
            },
        }
    }

    #[inline]
    fn traffic(&self) -> Traffic {
        Traffic { sent_bytes: self.sent_bytes as u64, received_bytes: self.received_bytes as u64 }
    }

    /// The answer if the connection ends now.
    pub(crate) fn end(&self) -> Answer {
        let came = self.received_bytes;
        let missing = match &self.expected {
            Expected::Echo { message, .. } => {
                format!("with {} of {} bytes unanswered", message.len() - came, message.len())
            }
            Expected::Length(length) => format!("after {came} of {length} bytes of the response"),
            Expected::Delimiter { .. } => {
                format!("after {came} bytes of the response, without the delimiter")
            }
            Expected::Http { reader, .. } => match reader.end() {
                Ok(response) => return Answer::Response(response, self.traffic()),
                Err(text) => return Answer::Ended { text, has_begun: self.has_begun() },
            },
        };
        let text = format!("the target closed the connection {missing}");
        Answer::Ended { text, has_begun: self.has_begun() }
    }

    /// Whether a part of the response has arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.received_bytes > 0
    }
}

/// Describes bytes that follow the last expected response.
#[cold]
pub(crate) fn describe_surplus(bytes: &[u8]) -> String {
    format!("surplus data after the response: {} B, expected none", bytes.len())
}

/// Whether a target says that a connection was idle for too long, before it closes it (HTTP 408): a response to no
/// request.
#[cold]
pub(crate) fn is_idle_timeout(bytes: &[u8]) -> bool {
    [&b"HTTP/1.1 408"[..], b"HTTP/1.0 408"].iter().any(|status_line| bytes.starts_with(status_line))
}

/// The end of a connection that was idle for too long.
#[cold]
pub(crate) fn idle_end() -> Answer {
    Answer::Unsent(Ok("the target closed the connection, which had been idle (HTTP 408)".to_string()))
}

/// The answer to a request that was not sent, as its answer, or something else, had come before it. It counts as sent,
/// so that each request has an end.
#[cold]
pub(crate) fn early_answer() -> Answer {
    let text = "bytes before a request: expected none until it is sent".to_string();
    Answer::Wrong { text, in_sync: false }
}

/// Describes the first byte that differs; `start` is the position of the bytes in the message.
#[cold]
pub(crate) fn describe_difference(received: &[u8], expected: &[u8], start: usize) -> String {
    let difference =
        received.iter().zip(expected).enumerate().find(|(_, (received, expected))| received != expected);
    difference.map_or_else(String::new, |(index, (received, expected))| {
        format!(
            "byte {} came back as {received:#04x}: expected {expected:#04x}, as it was sent",
            start + index
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads pieces; returns the bytes after the response and whether it was correct, once it is complete.
    fn read<'b>(
        mut reading: Reading<'_>,
        pieces: &[&'b [u8]],
    ) -> Option<(&'b [u8], Result<Traffic, String>)> {
        pieces.iter().find_map(|piece| {
            let (rest, answer) = reading.take(piece);
            let result = match answer? {
                Answer::Correct(traffic) | Answer::Response(_, traffic) => Ok(traffic),
                Answer::Wrong { text, .. } | Answer::Ended { text, .. } | Answer::Unsent(Ok(text)) => {
                    Err(text)
                }
                Answer::Broken(error) | Answer::Unsent(Err(error)) => Err(error.to_string()),
            };
            Some((rest, result))
        })
    }

    #[test]
    fn answers_end_where_they_should_and_leave_the_rest() {
        let delimiter = Delimiter::new(b"\r\n".to_vec());
        let request = Prepared {
            bytes: Vec::new(),
            is_head: false,
            is_idempotent: true,
            closes: false,
            expected_body: None,
        };
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for (make, text) in [
            (&(|| Reading::echo(b"12345")) as &dyn Fn() -> Reading<'static>, &b"12345"[..]),
            (&|| Reading::length(7, 3), b"any 7 b"),
        ] {
            check(make, text);
        }
        check(&|| Reading::delimiter(&delimiter, 3), b"a line\r\n");
        check(&|| Reading::http(&request), head);
    }

    /// The response and the bytes after it, in one piece, and split at every position.
    fn check<'w>(make: &dyn Fn() -> Reading<'w>, answer: &[u8]) {
        let bytes = [answer, b"next"].concat();
        for place in 0..bytes.len() {
            let (rest, result) = match place {
                0 => read(make(), &[&bytes]),
                place => read(make(), &[&bytes[..place], &bytes[place..]]),
            }
            .unwrap();
            let behind = place.max(answer.len());
            assert_eq!(
                rest,
                if place >= answer.len() { &bytes[answer.len()..place] } else { &bytes[behind..] }
            );
            assert_eq!(result.unwrap().received_bytes, answer.len() as u64);
        }
    }

    #[test]
    fn an_echo_with_other_bytes_is_wrong_and_in_step() {
        let mut reading = Reading::echo(b"12345");
        assert!(reading.take(b"12x").1.is_none());
        let (rest, answer) = reading.take(b"456");
        let Some(Answer::Wrong { text, in_sync: true }) = answer else { panic!("the answer is wrong") };
        assert_eq!(
            (rest, text.as_str()),
            (&b"6"[..], "byte 2 came back as 0x78: expected 0x33, as it was sent")
        );
    }

    #[test]
    fn an_early_end_says_what_was_missing() {
        let delimiter = Delimiter::new(b"\n".to_vec());
        for (mut reading, expected) in [
            (Reading::echo(b"12345"), "with 3 of 5 bytes unanswered"),
            (Reading::length(9, 3), "after 2 of 9 bytes of the response"),
            (Reading::delimiter(&delimiter, 3), "after 2 bytes of the response, without the delimiter"),
        ] {
            assert!(reading.take(b"12").1.is_none());
            let Answer::Ended { text, has_begun: true } = reading.end() else { panic!("that was no answer") };
            assert_eq!(text, format!("the target closed the connection {expected}"));
        }
    }
}
