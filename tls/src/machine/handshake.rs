//! The handshake.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use super::core::{Advance, TlsCore};
use crate::error::TlsError;

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
    /// The stream's; [`TlsError`], which the peer has been told.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        let polled = self.advance(waiter);
        if polled.is_ready() {
            self.tls.stream().leave_readers(waiter);
        }
        polled
    }

    fn advance(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.tls.stream().check_open()?;
        self.tls.send_pending().map_err(|error| self.tls.reason_of(error))?;
        while self.tls.is_handshaking() {
            match self.tls.advance().map_err(|error| self.tls.reason_of(error))? {
                Advance::More => {}
                Advance::Nothing => {
                    self.tls.stream().wait_for_input(waiter);
                    return Poll::Pending;
                }
                Advance::End => return Poll::Ready(Err(TlsError::HandshakeCut.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives up. The handshake may be continued by another machine.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        self.tls.stream().leave_readers(waiter);
    }
}
