//! The shared part of a TLS stream: the session above a stream of `ringspun-net`.

use std::cell::{Cell, Ref, RefCell};
use std::io::{self, BufRead, IoSlice, Write as _};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;

use ringspun_net::machine::StreamCore;
use ringspun_runtime::Wake;
#[cfg(feature = "mutations")]
use ringspun_runtime::simulation::{Mutation, mutated};
use rustls::Connection;

use crate::error::TlsError;

/// The most that is taken from the kernel at once.
const PIECE_MAX_BYTES: usize = 64 * 1024;

/// A TLS session above a stream. One reader and one writer may use it at a time each without waiting for each other;
/// more of either take turns.
pub struct TlsCore {
    pub(super) stream: Rc<StreamCore>,
    pub(super) connection: RefCell<Connection>,
    /// Why the session is over, other than by a close.
    pub(super) failure: RefCell<Option<TlsError>>,
    /// Decrypted bytes that were put back, for the next reader.
    pub(super) put_back: RefCell<Vec<u8>>,
    /// The most that can be decrypted and unread in the session.
    pub(super) readable_bytes: Cell<usize>,
    /// The peer's close_notify has come.
    pub(super) is_ended: Cell<bool>,
    /// Our close_notify has been sent.
    pub(super) is_sealed: Cell<bool>,
}

/// What [`TlsCore::advance`] has found.
pub(super) enum Advance {
    /// Something has been decrypted, or may be by the next call.
    More,
    /// Nothing is there now.
    Nothing,
    /// The peer's close_notify has come.
    End,
}

impl TlsCore {
    /// Begins a session above a stream. Bytes that the stream has received and not returned are part of it. The
    /// handshake is up to [`Handshake`](super::Handshake).
    pub fn new(stream: Rc<StreamCore>, connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            stream,
            connection: RefCell::new(connection),
            failure: RefCell::default(),
            put_back: RefCell::default(),
            readable_bytes: Cell::new(0),
            is_ended: Cell::new(false),
            is_sealed: Cell::new(false),
        })
    }

    /// The stream below.
    pub fn stream(&self) -> &Rc<StreamCore> {
        &self.stream
    }

    /// The state of the session, for what was negotiated.
    ///
    /// # Panics
    ///
    /// While the sink of a [`Read`](super::Read) runs.
    pub fn connection(&self) -> Ref<'_, Connection> {
        self.connection.borrow()
    }

    /// Whether the handshake has not been completed yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.borrow().is_handshaking()
    }

    /// Passes decrypted bytes to the sink, up to `limit`, and returns their number.
    pub(super) fn drain(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut passed = self.drain_put_back(limit, sink);
        while passed < limit && self.readable_bytes.get() > 0 {
            let mut connection = self.connection.borrow_mut();
            let mut reader = connection.reader();
            // An error says that nothing is there, or how the session has ended, which `advance` finds, too.
            let bytes = reader.fill_buf().unwrap_or_default();
            let count = bytes.len().min(limit - passed);
            if count == 0 {
                self.readable_bytes.set(0);
                break;
            }
            sink(&bytes[..count]);
            reader.consume(count);
            self.readable_bytes.set(self.readable_bytes.get().saturating_sub(count));
            passed += count;
        }
        passed
    }

    fn drain_put_back(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut bytes = self.put_back.borrow_mut();
        let count = bytes.len().min(limit);
        if count > 0 {
            sink(&bytes[..count]);
            bytes.drain(..count);
        }
        count
    }

    /// Puts decrypted bytes back, for the next reader.
    pub fn put_back(&self, bytes: &[u8]) {
        #[cfg(feature = "mutations")]
        let bytes = if mutated(Mutation::DecryptedBytesLost) { &[] } else { bytes };
        if !bytes.is_empty() {
            self.put_back.borrow_mut().splice(..0, bytes.iter().copied());
            self.stream.wake_readers();
        }
    }

    /// Reads what has arrived, without waiting, and returns how much; 0 after the peer's close_notify, or if the buffer
    /// is empty.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there yet; otherwise as [`Read::poll`](super::Read::poll).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.check_open()?;
        let (limit, mut count) = (buffer.len(), 0);
        let mut fill = |bytes: &[u8]| {
            buffer[count..count + bytes.len()].copy_from_slice(bytes);
            count += bytes.len();
        };
        if limit == 0 || self.drain(limit, &mut fill) > 0 {
            return Ok(count);
        }
        loop {
            // Also looks into the kernel, unlike `advance`.
            if let Some(piece) = self.stream.try_take(PIECE_MAX_BYTES) {
                self.stream.put_back(piece.kept());
            }
            let mut passed = 0;
            let advanced = self.advance(limit, &mut |bytes| {
                passed += bytes.len();
                fill(bytes);
            });
            match advanced? {
                _ if passed > 0 => return Ok(count),
                Advance::More => {}
                Advance::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
                Advance::End => return Ok(0),
            }
        }
    }

    /// Takes what the stream has received, decrypts it, and passes up to `limit` bytes to the sink, or with a limit of
    /// zero decrypts until there is something to read; answers what needs an answer.
    ///
    /// # Errors
    ///
    /// The stream's; [`TlsError`], again and again. What came before has been passed to the sink.
    pub(super) fn advance(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> io::Result<Advance> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(failure.clone().into());
        }
        if self.is_ended.get() {
            return Ok(Advance::End);
        }
        let Some(mut piece) = self.stream.take(PIECE_MAX_BYTES) else {
            if !self.stream.input_ended()? {
                return Ok(Advance::Nothing);
            }
            let is_handshaking = self.is_handshaking();
            return Err(self.fail(if is_handshaking { TlsError::HandshakeCut } else { TlsError::Cut }));
        };
        let mut passed = 0;
        let decrypted = loop {
            let (fed, decrypted) = self.decrypt(&piece);
            piece.consume(fed);
            // The session has room for one record only.
            passed += self.drain(limit - passed, sink);
            if decrypted.is_err() || passed == limit || piece.is_empty() || self.is_ended.get() {
                break decrypted;
            }
        };
        if !piece.is_empty() && decrypted.is_ok() && !self.is_ended.get() {
            self.stream.put_back(piece.kept());
        }
        match decrypted {
            Ok(()) => self.send_pending().map(|()| Advance::More),
            Err(error) => {
                // The alert that tells the peer why.
                let _ = self.send_pending();
                Err(self.fail(error))
            }
        }
    }

    /// Decrypts until there is something to read, and returns how many of the bytes were needed for that.
    fn decrypt(&self, bytes: &[u8]) -> (usize, Result<(), TlsError>) {
        let mut connection = self.connection.borrow_mut();
        let mut fed = 0;
        while fed < bytes.len() {
            match connection.read_tls(&mut &bytes[fed..]) {
                Ok(count) => fed += count,
                Err(error) => {
                    return (fed, Err(TlsError::Protocol(rustls::Error::General(error.to_string()))));
                }
            }
            let was_handshaking = connection.is_handshaking();
            let processed = connection.process_new_packets();
            // What an error leaves behind is not told.
            let readable = processed.as_ref().map_or(usize::MAX, rustls::IoState::plaintext_bytes_to_read);
            self.readable_bytes.set(readable);
            match processed {
                Ok(state) if state.peer_has_closed() => {
                    self.is_ended.set(true);
                    return (bytes.len(), Ok(()));
                }
                Ok(_) if readable > 0 => break,
                Ok(_) if was_handshaking && !connection.is_handshaking() => break,
                Ok(_) => {}
                Err(error) => return (fed, Err(TlsError::Protocol(error))),
            }
        }
        (fed, Ok(()))
    }

    /// Remembers why the session is over, and returns it as an error.
    fn fail(&self, failure: TlsError) -> io::Error {
        self.failure.replace(Some(failure.clone()));
        failure.into()
    }

    /// Sends all records that the session has ready: alerts, and those of the handshake.
    ///
    /// # Errors
    ///
    /// The stream's.
    pub(super) fn send_pending(&self) -> io::Result<()> {
        let mut connection = self.connection.borrow_mut();
        while connection.wants_write() {
            connection.write_tls(&mut Records(&self.stream))?;
        }
        Ok(())
    }

    /// Encrypts the beginning of `data` and sends it; returns how much of it.
    ///
    /// # Errors
    ///
    /// The stream's; [`TlsError`]; `BrokenPipe` after a shutdown.
    pub(super) fn encrypt(&self, data: &[u8]) -> io::Result<usize> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(failure.clone().into());
        }
        if self.is_sealed.get() || self.is_handshaking() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = self.connection.borrow_mut().writer().write(data)?;
        self.send_pending()?;
        if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
    }

    /// Ready when the handshake is complete. The waiter stays with the stream's readers meanwhile.
    pub(super) fn poll_handshake(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.stream.check_open()?;
        self.send_pending().map_err(|error| self.reason_of(error))?;
        while self.is_handshaking() {
            match self.advance(0, &mut |_| {}).map_err(|error| self.reason_of(error))? {
                Advance::More => {}
                Advance::Nothing => {
                    self.stream.wait_for_input(waiter);
                    return Poll::Pending;
                }
                Advance::End => return Poll::Ready(Err(TlsError::HandshakeCut.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what goes without waiting, and returns how much that was, which may be zero.
    ///
    /// # Errors
    ///
    /// The stream's; [`TlsError`].
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.stream.check_open()?;
        if data.is_empty() || self.is_handshaking() || !self.stream.is_free_to_send() {
            return Ok(0);
        }
        let count = self.encrypt(data).map_err(|error| self.reason_of(error))?;
        Ok(count)
    }

    /// The better error after one of sending: a peer that refuses says why before it resets the connection.
    pub(super) fn reason_of(&self, error: io::Error) -> io::Error {
        let errno = ringspun_net::errno_of(&error);
        if self.stream.is_closed() || matches!(errno, None | Some(libc::ECANCELED)) {
            return error;
        }
        loop {
            match self.advance(0, &mut |_| {}) {
                Ok(Advance::More) => {
                    if self.connection.borrow_mut().reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                        // For readers.
                        return error;
                    }
                }
                Err(found) if crate::tls_error_of(&found).is_some_and(TlsError::is_alert) => return found,
                _ => return error,
            }
        }
    }

    /// Ends the output with a close_notify, or shuts down reading, or both. What was written before goes first. Does
    /// not wait.
    ///
    /// # Errors
    ///
    /// The stream's, such as no longer being connected.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.seal()?;
        }
        self.stream.shutdown(how)
    }

    fn seal(&self) -> io::Result<()> {
        if !self.is_sealed.replace(true) {
            self.connection.borrow_mut().send_close_notify();
        }
        self.send_pending()
    }

    /// Sends a close_notify if the handshake is complete, and closes the stream. What was written before goes first,
    /// for up to 30 seconds if the peer does not read. Does not wait. Closing again does nothing.
    pub fn close(&self) {
        if self.stream.is_closed() {
            return;
        }
        // A peer whose handshake was given up must not take that for an orderly end.
        if self.connection.try_borrow_mut().is_ok_and(|connection| !connection.is_handshaking()) {
            // A lost connection needs no close_notify.
            let _ = self.seal();
        }
        // Such as session tickets that nobody has read.
        self.stream.discard_input();
        self.stream.close();
    }
}

impl std::fmt::Debug for TlsCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No more: a session has keys.
        write!(f, "TlsCore {{ stream: {:?}, ended: {} }}", self.stream, self.is_ended.get())
    }
}

/// Where a session writes its records to.
struct Records<'a>(&'a Rc<StreamCore>);

impl io::Write for Records<'_> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.send_detached(record)?;
        Ok(record.len())
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_parts_detached(records)?;
        Ok(records.iter().map(|record| record.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
