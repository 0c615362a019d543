//! A stream to the target, plain or with TLS.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::time::{Duration, Instant};

#[cfg(feature = "http2")]
use ringspun_net::PollStream;
use ringspun_net::{self as net, Stream};
use ringspun_tls::{self as tls, ClientConfig, TlsStream};

/// How much is kept of bytes that come too early: the beginning of a status line.
const EARLY_BYTES_MAX: usize = 12;

/// A stream to the target.
pub(crate) enum Link {
    Plain(Stream),
    Tls(Box<Secured>),
}

/// A stream with TLS.
pub(crate) struct Secured {
    stream: TlsStream,
    handshake: Handshake,
}

/// What a handshake was like.
#[derive(Clone, Copy)]
pub(crate) struct Handshake {
    /// From the connection to the end of the handshake.
    pub(crate) time: Duration,
    /// Whether an earlier session was resumed.
    pub(crate) is_resumed: bool,
}

impl Link {
    /// Performs the handshake.
    pub(crate) fn secure(stream: Stream, host: &str, config: &ClientConfig) -> io::Result<Self> {
        let begun = Instant::now();
        let stream = tls::wrap(stream, host, config)?;
        let handshake = Handshake { time: begun.elapsed(), is_resumed: stream.is_resumed() };
        Ok(Self::Tls(Box::new(Secured { stream, handshake })))
    }

    /// The handshake, with TLS.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => Some(secured.handshake),
        }
    }

    /// What the target chose in TLS (ALPN), if anything; `None` without TLS.
    #[cfg(feature = "http2")]
    pub(crate) fn alpn(&self) -> Option<Option<Vec<u8>>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => Some(secured.stream.alpn_protocol()),
        }
    }

    /// The stream for futures.
    #[cfg(feature = "http2")]
    pub(crate) fn as_poll_stream(&self) -> &dyn PollStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(secured) => &secured.stream,
        }
    }

    #[inline(always)]
    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(data),
            Self::Tls(secured) => secured.stream.write(data),
        }
    }

    #[inline(always)]
    pub(crate) fn receive(&self) -> io::Result<Option<Received>> {
        match self {
            Self::Plain(stream) => Ok(stream.receive()?.map(Received::Lent)),
            Self::Tls(secured) => Ok(secured.stream.receive()?.map(Received::Owned)),
        }
    }

    /// Reads what has arrived, without waiting; `WouldBlock` if nothing has.
    #[inline]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Tls(secured) => secured.stream.try_read(buffer),
        }
    }

    /// What has arrived although nobody waits for it; an end is there for the next receive as well.
    ///
    /// # Errors
    ///
    /// Interrupts.
    #[inline]
    pub(crate) fn early(&self) -> io::Result<Early> {
        let mut start = [0; EARLY_BYTES_MAX];
        match self.try_read(&mut start) {
            Ok(0) => Ok(Early::End(None)),
            Ok(count) => Ok(Early::Bytes(start[..count].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Early::Nothing),
            Err(error) if net::interrupt_of(&error).is_some() => Err(error),
            Err(error) => Ok(Early::End(Some(error))),
        }
    }

    pub(crate) fn set_write_behind(&self, on: bool) {
        match self {
            Self::Plain(stream) => stream.set_write_behind(on),
            Self::Tls(secured) => secured.stream.set_write_behind(on),
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::Plain(stream) => stream.close(),
            Self::Tls(secured) => secured.stream.close(),
        }
    }
}

#[cfg(feature = "websocket")]
impl io::Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => io::Read::read(&mut &*stream, buffer),
            Self::Tls(secured) => io::Read::read(&mut &secured.stream, buffer),
        }
    }
}

#[cfg(feature = "websocket")]
impl io::Write for Link {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => io::Write::write(&mut &*stream, data),
            Self::Tls(secured) => io::Write::write(&mut &secured.stream, data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => io::Write::flush(&mut &*stream),
            Self::Tls(secured) => io::Write::flush(&mut &secured.stream),
        }
    }
}

/// The error of a connection on which the target does not speak the protocol that was asked for.
#[derive(Debug)]
pub(crate) struct NotAgreed(String);

impl NotAgreed {
    /// The error; the text says what the target did, and what was expected.
    #[cfg(any(feature = "http2", feature = "websocket"))]
    pub(crate) fn error(text: String) -> io::Error {
        io::Error::other(Self(text))
    }

    /// Whether an error is one.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|error| error.is::<Self>())
    }
}

impl fmt::Display for NotAgreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAgreed {}

/// What has come before a request is sent.
pub(crate) enum Early {
    Nothing,
    /// The first of the bytes, which are then lost.
    Bytes(Vec<u8>),
    /// The end of the connection; with the error if it broke.
    End(Option<io::Error>),
}

/// Received bytes.
pub(crate) enum Received {
    Lent(net::Received),
    Owned(Vec<u8>),
}

impl Deref for Received {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}
