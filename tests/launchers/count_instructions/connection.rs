//! A connection to the server that is counted: plain, or with TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringspun::tls::ClientConfig;
use ringspun::tls::rustls::{self, ClientConnection};

/// Stepped through, a server is slow; one that does not answer at all is an error.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Connection {
    stream: TcpStream,
    session: Option<Mutex<ClientConnection>>,
}

impl Connection {
    /// Connects; with a configuration for TLS, performs the handshake.
    pub(crate) fn connect(address: &str, config: Option<&ClientConfig>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let Some(config) = config else { return Ok(Self { stream, session: None }) };
        let rustls::Connection::Client(mut session) = config.connection("localhost")? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self { stream, session: Some(Mutex::new(session)) })
    }

    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        match &self.session {
            None => (&self.stream).write_all(message),
            Some(session) => {
                let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
                rustls::Stream::new(&mut *session, &mut &self.stream).write_all(message)
            }
        }
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<()> {
        match &self.session {
            None => (&self.stream).read_exact(buffer),
            Some(session) => {
                let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
                rustls::Stream::new(&mut *session, &mut &self.stream).read_exact(buffer)
            }
        }
    }
}
