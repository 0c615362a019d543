//! The handshake.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use super::core::TlsCore;

/// Performs the handshake of a session.
#[derive(Debug)]
pub struct Handshake {
    tls: Rc<TlsCore>,
}

impl Handshake {
    /// Prepares the handshake of a session.
    pub fn new(tls: Rc<TlsCore>) -> Self {
        Self { tls }
    }

    /// Ready when the peer has been authenticated, if that was asked for, and data can be sent. A server's answer to a
    /// client's certificate comes later in TLS 1.3: reads then fail.
    ///
    /// # Errors
    ///
    /// The stream's; [`TlsError`](crate::TlsError), which the peer has been told.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        let polled = self.tls.poll_handshake(waiter);
        if polled.is_ready() {
            self.tls.stream().leave_readers(waiter);
        }
        polled
    }

    /// Gives up. The handshake may be continued by another machine.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        self.tls.stream().leave_readers(waiter);
    }
}
