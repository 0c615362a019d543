//! The socket of one connection, and what is exchanged over it: echoes, or requests and answers of HTTP.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, DatagramSocket, Endpoint, SocketOption, Stream};

use crate::http::{Prepared, Response, ResponseReader};
use crate::outcome::ErrorKind;
use crate::plan::{Plan, Workload};
use crate::target::Target;

/// A message starts at one of this many places in the pattern: a prime, so that no power of two in a server's
/// buffers agrees with it.
const STARTS: usize = 251;

/// The bytes of all messages. They are slices of one memory, from starts that differ from each message to the
/// next: an answer to another request than the last is wrong, and nothing is copied or kept per connection.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    message_bytes: usize,
}

impl Pattern {
    pub(crate) fn new(message_bytes: usize) -> Self {
        // Shifted from one period to the next, so that a message has no period that hides lost bytes.
        let byte_at = |position: usize| ((position % STARTS) + 7 * (position / STARTS)) as u8;
        Self { bytes: (0..message_bytes + STARTS).map(byte_at).collect(), message_bytes }
    }

    /// The message of a request, by its number.
    pub(crate) fn message(&self, request: usize) -> &[u8] {
        let start = request % STARTS;
        &self.bytes[start..start + self.message_bytes]
    }
}

/// What is sent, and what is expected back.
pub(crate) enum Work {
    Echo(Pattern),
    Http(Prepared),
}

impl Work {
    /// The work of a plan that was checked.
    pub(crate) fn of(plan: &Plan) -> io::Result<Self> {
        match (&plan.workload, &plan.target) {
            (Workload::Echo { payload_bytes }, _) => Ok(Self::Echo(Pattern::new(*payload_bytes))),
            (Workload::Http(request), Target::Http(target)) => Ok(Self::Http(Prepared::new(request, target))),
            (Workload::Http(_), _) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends a request, by its number, and waits for its answer.
    #[inline]
    pub(crate) fn perform(&self, transport: &Transport, request: usize) -> io::Result<Answer> {
        match (self, transport) {
            (Self::Echo(pattern), Transport::Stream(stream)) => {
                echo_over_stream(stream, pattern.message(request))
            }
            (Self::Echo(pattern), Transport::Datagrams(socket)) => {
                echo_over_datagrams(socket, pattern.message(request))
            }
            (Self::Http(prepared), Transport::Stream(stream)) => ask_over_stream(stream, prepared),
            (Self::Http(_), Transport::Datagrams(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Where the target is: all the addresses that its name stands for.
pub(crate) struct Place {
    kind: Kind,
    addresses: Vec<Address>,
    /// The address that answered last, which is tried first.
    preferred: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Place {
    /// Looks the target up, for as long as the timeout allows.
    pub(crate) fn look_up(target: &Target, timeout: Duration) -> io::Result<Self> {
        let look_up = |endpoint: &Endpoint| fibers::with_deadline(timeout, || net::addresses(endpoint));
        let (kind, addresses) = match target {
            Target::Tcp(endpoint) => (Kind::Tcp, look_up(endpoint)?),
            Target::Udp(endpoint) => (Kind::Udp, look_up(endpoint)?),
            Target::Unix(address) => (Kind::Unix, vec![*address]),
            Target::Http(http) => (Kind::Tcp, look_up(http.endpoint())?),
        };
        Ok(Self { kind, addresses, preferred: Cell::new(0) })
    }

    /// Opens a connection to the first address that takes it; the timeout is for each.
    pub(crate) fn open(&self, timeout: Duration) -> io::Result<Transport> {
        let mut last_error = None;
        for offset in 0..self.addresses.len() {
            let index = (self.preferred.get() + offset) % self.addresses.len();
            match self.open_at(self.addresses[index], timeout) {
                Ok(transport) => {
                    self.preferred.set(index);
                    return Ok(transport);
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    fn open_at(&self, address: Address, timeout: Duration) -> io::Result<Transport> {
        if self.kind == Kind::Udp {
            return net::connect_datagram(address).map(Transport::Datagrams);
        }
        let stream = fibers::with_deadline(timeout, || net::connect(address))?;
        if self.kind == Kind::Tcp {
            // The last part of a long message must not wait for an acknowledgement of the parts before it.
            stream.set_option(SocketOption::NoDelay(true))?;
        }
        Ok(Transport::Stream(stream))
    }
}

/// The socket of one connection.
pub(crate) enum Transport {
    Stream(Stream),
    Datagrams(DatagramSocket),
}

/// How the target answered.
pub(crate) enum Answer {
    Right,
    /// One of HTTP, whatever its status.
    Response(Response),
    /// Other bytes than were expected.
    Wrong {
        text: String,
        /// What comes next is the answer to the next request.
        in_step: bool,
    },
    /// The target closed the connection too early: what was missing.
    Ended(String),
}

fn ask_over_stream(stream: &Stream, request: &Prepared) -> io::Result<Answer> {
    stream.write(&request.bytes)?;
    let mut reader = ResponseReader::new(request.is_head);
    loop {
        let Some(bytes) = stream.receive()? else {
            return Ok(reader.end().map_or_else(Answer::Ended, Answer::Response));
        };
        match reader.take(&bytes) {
            Ok(Some(mut response)) => {
                response.closes |= request.closes;
                return Ok(Answer::Response(response));
            }
            Ok(None) => {}
            Err(text) => return Ok(Answer::Wrong { text, in_step: false }),
        }
    }
}

fn echo_over_stream(stream: &Stream, message: &[u8]) -> io::Result<Answer> {
    stream.write(message)?;
    let mut expected = message;
    let mut wrong = None;
    while !expected.is_empty() {
        let Some(bytes) = stream.receive()? else {
            return Ok(Answer::Ended(format!(
                "the target closed the connection with {} of {} bytes unanswered",
                expected.len(),
                message.len()
            )));
        };
        if bytes.len() > expected.len() {
            let surplus_bytes = bytes.len() - expected.len();
            let text = format!("{surplus_bytes} bytes came back more than the {} sent", message.len());
            return Ok(Answer::Wrong { text, in_step: false });
        }
        let (head, rest) = expected.split_at(bytes.len());
        if *bytes != *head && wrong.is_none() {
            wrong = Some(describe_difference(&bytes, head, message.len() - expected.len()));
        }
        expected = rest;
    }
    Ok(wrong.map_or(Answer::Right, |text| Answer::Wrong { text, in_step: true }))
}

fn echo_over_datagrams(socket: &DatagramSocket, message: &[u8]) -> io::Result<Answer> {
    socket.write(message)?;
    let (bytes, _) = socket.receive()?;
    if *bytes == *message {
        return Ok(Answer::Right);
    }
    let text = match bytes.len() == message.len() {
        true => describe_difference(&bytes, message, 0),
        false => format!("a datagram of {} bytes came back for one of {}", bytes.len(), message.len()),
    };
    // It may be a second copy of an earlier answer, with the right one behind it.
    Ok(Answer::Wrong { text, in_step: false })
}

/// Names the first byte that differs; `start` is where the bytes stand in the message.
#[cold]
fn describe_difference(received: &[u8], expected: &[u8], start: usize) -> String {
    let difference =
        received.iter().zip(expected).enumerate().find(|(_, (received, expected))| received != expected);
    difference.map_or_else(String::new, |(index, (received, expected))| {
        format!("byte {} came back as {received:#04x}, {expected:#04x} was sent", start + index)
    })
}

/// What kept a connection from being made.
pub(crate) fn connect_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimedOut,
        _ => ErrorKind::ConnectFailed,
    }
}

/// What ended a request, other than the timeout.
pub(crate) fn request_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            ErrorKind::Reset
        }
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_from_their_neighbours_and_within() {
        for message_bytes in [1, 2, 64, 1000, 65_536] {
            let pattern = Pattern::new(message_bytes);
            for request in 0..2 * STARTS {
                assert_eq!(pattern.message(request).len(), message_bytes);
                for later in 1..STARTS {
                    assert_ne!(pattern.message(request), pattern.message(request + later));
                }
            }
        }
        // Bytes lost anywhere in a message change what follows.
        let pattern = Pattern::new(10_000);
        let message = pattern.message(3);
        for lost in 1..5_000 {
            assert_ne!(message[lost..], message[..message.len() - lost]);
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let text = describe_difference(&[1, 2, 9, 9], &[1, 2, 3, 4], 60);
        assert_eq!(text, "byte 62 came back as 0x09, 0x03 was sent");
    }
}
