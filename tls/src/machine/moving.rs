//! Moving a session from one event loop to another, with what it has decrypted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringspun_net::machine::StreamCore;
use rustls::Connection;

use super::core::TlsCore;
use crate::error::TlsError;

/// A session without the stream below it. Its keys and what it has decrypted are in it.
pub struct DetachedSession {
    connection: Connection,
    failure: Option<TlsError>,
    put_back: Vec<u8>,
    readable_bytes: usize,
    is_ended: bool,
    is_sealed: bool,
}

impl TlsCore {
    /// Takes the session off its stream, which keeps what it has received and not decrypted, and goes on as it is.
    ///
    /// # Errors
    ///
    /// The session as it was, if anybody else has it.
    pub fn detach(self: Rc<Self>) -> Result<DetachedSession, Rc<Self>> {
        Rc::try_unwrap(self).map(|core| DetachedSession {
            connection: core.connection.into_inner(),
            failure: core.failure.into_inner(),
            put_back: core.put_back.into_inner(),
            readable_bytes: core.readable_bytes.get(),
            is_ended: core.is_ended.get(),
            is_sealed: core.is_sealed.get(),
        })
    }

    /// Has a session go on above a stream: the one that it was detached from, after its own move.
    pub fn attach(stream: Rc<StreamCore>, session: DetachedSession) -> Rc<Self> {
        let DetachedSession { connection, failure, put_back, readable_bytes, is_ended, is_sealed } = session;
        Rc::new(Self {
            stream,
            connection: RefCell::new(connection),
            failure: RefCell::new(failure),
            put_back: RefCell::new(put_back),
            readable_bytes: Cell::new(readable_bytes),
            is_ended: Cell::new(is_ended),
            is_sealed: Cell::new(is_sealed),
        })
    }
}

impl std::fmt::Debug for DetachedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No more: a session has keys.
        write!(f, "DetachedSession {{ ended: {} }}", self.is_ended)
    }
}
