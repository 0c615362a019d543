//! TLS streams for fibers: calls that park instead of blocking the thread.

mod movable;

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_fibers::Interrupt::TimedOut;
use ringspun_net::machine::Amount;
use ringspun_net::{Address, OperationError, SocketOption, Stream, WriteInterrupted};
use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind, ProtocolVersion};

pub use self::movable::{Movable, MoveError};
use crate::machine::{Handshake, Read, TlsCore, Write};
use crate::waiting::{check_loop, wait_on, within};

/// The most that [`TlsStream::receive`] returns.
const RECEIVED_MAX_BYTES: usize = 64 * 1024;
/// What is in a record of a long message.
const LARGE_RECORD_BYTES: usize = 16 * 1024;

/// A TLS session over a [`Stream`], whose peer has been authenticated as the configuration says. Dropping it closes it.
///
/// All methods take `&self`: one fiber may read while another writes. A timeout, a deadline or a cancel loses no byte,
/// and the stream remains usable: what was encrypted is sent, whatever becomes of the write, and what arrives is kept
/// for the next read. `TlsStream` and `&TlsStream` implement [`io::Read`] and [`io::Write`].
///
/// A connection that waits takes some 21 KiB of memory: the session, and the pages of its fiber's stack that reads
/// and writes touch; what the handshake has touched besides is given back. What is received and not yet read comes on
/// top: at most 256 KiB of ciphertext, as of a [`Stream`], and 20 KiB in the session.
#[derive(Debug)]
pub struct TlsStream {
    /// Before the others, which are dropped in this order.
    closing: Closing,
    tls: Rc<TlsCore>,
    /// Closes the stream below when dropped.
    stream: Stream,
    /// For errors: of a connection that is lost, the kernel no longer knows it.
    peer: Option<Address>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
    writes_behind: Cell<bool>,
}

/// What a stream keeps when it moves.
#[derive(Clone, Copy, Debug)]
struct Settings {
    peer: Option<Address>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    writes_behind: bool,
}

/// Closes a session when dropped.
#[derive(Debug)]
struct Closing(Weak<TlsCore>);

impl Closing {
    fn forgo(mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(tls) = self.0.upgrade() {
            tls.close();
        }
    }
}

impl TlsStream {
    fn assemble(tls: Rc<TlsCore>, stream: Stream, settings: Settings) -> Self {
        Self {
            closing: Closing(Rc::downgrade(&tls)),
            tls,
            stream,
            peer: settings.peer,
            read_timeout: Cell::new(settings.read_timeout),
            write_timeout: Cell::new(settings.write_timeout),
            writes_behind: Cell::new(settings.writes_behind),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            peer: self.peer,
            read_timeout: self.read_timeout.get(),
            write_timeout: self.write_timeout.get(),
            writes_behind: self.writes_behind.get(),
        }
    }

    /// Performs the handshake.
    pub(crate) fn handshake(stream: Stream, connection: Connection) -> io::Result<Self> {
        let tls = TlsCore::new(stream.core().clone(), connection);
        let peer = stream.peername().ok();
        let settings = Settings { peer, read_timeout: None, write_timeout: None, writes_behind: false };
        let stream = Self::assemble(tls, stream, settings);
        let machine = Handshake::new(stream.tls.clone());
        wait_on(stream.tls.stream(), machine, None, Handshake::poll, Handshake::abandon, |_| {
            stream.reason("TLS handshake with")
        })
        .map_err(|error| stream.failed("TLS handshake with", error))?;
        // A handshake needs twice as much of it as what follows.
        fibers::release_stack();
        Ok(stream)
    }

    /// Parks until there are bytes, and reads up to `buffer.len()` of them. Returns 0 at the end of the stream, which
    /// is the peer's close_notify, or if the buffer is empty.
    ///
    /// # Errors
    ///
    /// [`TlsError`](crate::TlsError): a cut ([`is_cut`](crate::is_cut)), an alert of the peer, garbage. The stream's;
    /// [`Closed`](ringspun_net::Closed) once closed locally; `TimedOut` after the read timeout; a deadline or a cancel
    /// of the fiber.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_amount(Amount::UpTo(buffer.len()), buffer)
    }

    /// As [`read`](Self::read), but waits until the buffer is full or the stream ends. Returns the number of bytes
    /// read.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). Bytes that arrived before the error are kept for the next read, too.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn chunk(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_amount(Amount::Exactly(buffer.len()), buffer)
    }

    /// As [`read`](Self::read), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there yet; otherwise as [`read`](Self::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tls.try_read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => error,
            _ => self.failed("read from", error),
        })
    }

    fn read_amount(&self, amount: Amount, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let machine = Read::new(self.tls.clone(), amount);
        let mut filled = 0;
        let mut sink = |bytes: &[u8]| {
            buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        };
        let read = wait_on(
            self.tls.stream(),
            machine,
            self.read_timeout.get(),
            |machine, waiter| machine.poll(waiter, &mut sink),
            |machine, waiter| machine.abandon(waiter, &[]),
            |_| self.reason("read from"),
        );
        if read.is_err() {
            // An error carries no count.
            self.tls.put_back(&buffer[..filled]);
        }
        read.map_err(|error| self.failed("read from", error))
    }

    /// Parks until there are bytes, and returns all that have been decrypted, up to 64 KiB; `None` at the end of the
    /// stream. While it waits, there is no buffer.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut received = Vec::new();
        let read = wait_on(
            self.tls.stream(),
            Read::new(self.tls.clone(), Amount::UpTo(RECEIVED_MAX_BYTES)),
            self.read_timeout.get(),
            |machine, waiter| {
                machine.poll(waiter, &mut |bytes| {
                    if bytes.len() >= LARGE_RECORD_BYTES {
                        // More of them follow, mostly: so that the vector grows once.
                        received.reserve(RECEIVED_MAX_BYTES - received.len());
                    }
                    received.extend_from_slice(bytes);
                })
            },
            |machine, waiter| machine.abandon(waiter, &[]),
            |_| self.reason("read from"),
        );
        let count = read.map_err(|error| self.failed("read from", error))?;
        Ok((count > 0).then_some(received))
    }

    /// Encrypts and writes all of `data`, parking until the kernel has taken it, and returns its length. Copies the
    /// data once, as it encrypts it.
    ///
    /// # Errors
    ///
    /// The stream's, such as a broken pipe; [`TlsError`](crate::TlsError) once the session has failed;
    /// [`Closed`](ringspun_net::Closed) once closed locally. After a timeout, a deadline or a cancel,
    /// [`WriteInterrupted`], with the number of bytes that were encrypted: those are on their way, and the rest is not.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self.write_within(data) {
            Ok(()) => Ok(data.len()),
            Err((written_bytes, error)) => {
                let error = match error {
                    WriteError::Interrupted(interrupt) => {
                        // Consumes the interrupt, so that the next wait does not raise it again.
                        let _ = fibers::check();
                        WriteInterrupted { interrupt, written_bytes, total_bytes: data.len() }.into()
                    }
                    WriteError::Failed(error) => error,
                };
                Err(self.failed("write to", error))
            }
        }
    }

    /// A write with the contract of [`io::Write::write`]: an error means that no byte was written. After a partial
    /// write, the next call returns the interrupt or the error.
    fn write_part(&self, data: &[u8]) -> io::Result<usize> {
        match self.write_within(data) {
            Ok(()) => Ok(data.len()),
            Err((written_bytes @ 1.., _)) => Ok(written_bytes),
            Err((0, WriteError::Interrupted(interrupt))) => {
                let _ = fibers::check();
                Err(self.failed("write to", interrupt.into()))
            }
            Err((0, WriteError::Failed(error))) => Err(self.failed("write to", error)),
        }
    }

    /// Writes within the write timeout. An error comes with the number of bytes that are on their way; an interrupt
    /// stays pending.
    fn write_within(&self, data: &[u8]) -> Result<(), (usize, WriteError)> {
        if std::thread::panicking() {
            return self.write_without_parking(data);
        }
        let mut machine = Write::new(self.tls.clone(), self.writes_behind.get());
        loop {
            let before = machine.written();
            let written =
                within(self.write_timeout.get(), || self.write_until_interrupted(&mut machine, data));
            match written {
                Err(WriteError::Interrupted(TimedOut))
                    if machine.is_paused() && machine.written() > before => {}
                Err(error) => {
                    let written = machine.written();
                    if machine.is_paused() {
                        machine.abandon(&fibers::waiter());
                    }
                    return Err((written, error));
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    fn write_until_interrupted(&self, machine: &mut Write, data: &[u8]) -> Result<(), WriteError> {
        if let Some(interrupt) = fibers::pending_interrupt() {
            return Err(WriteError::Interrupted(interrupt));
        }
        check_loop(self.tls.stream()).map_err(WriteError::Failed)?;
        let poll = |machine: &mut Write, waiter: &Rc<_>| machine.poll(waiter, data);
        let interrupted = |machine: &mut Write| match fibers::pending_interrupt() {
            Some(TimedOut) => machine.pause(),
            _ => machine.cancel(),
        };
        fibers::wait_for_completion(machine, poll, interrupted, |_| self.reason("write to"))
            .map_err(WriteError::of)
    }

    /// A write of a fiber that panics: what there is room for. Parking now would show the thread's panic to other
    /// fibers.
    #[cold]
    fn write_without_parking(&self, data: &[u8]) -> Result<(), (usize, WriteError)> {
        // Elsewhere, the calls below would panic.
        if !fibers::runs_on(self.tls.stream().event_loop()) {
            return Err((0, WriteError::Interrupted(fibers::Interrupt::Cancelled)));
        }
        if let Some(interrupt) = fibers::pending_interrupt() {
            return Err((0, WriteError::Interrupted(interrupt)));
        }
        let waiter = fibers::waiter();
        let mut machine = Write::new(self.tls.clone(), true);
        match machine.poll(&waiter, data) {
            Poll::Ready(result) => result.map_err(|error| (machine.written(), WriteError::Failed(error))),
            Poll::Pending => {
                let written = machine.written();
                machine.abandon(&waiter);
                Err((written, WriteError::Interrupted(fibers::Interrupt::Cancelled)))
            }
        }
    }

    /// Sends what a write has left behind ([`set_write_behind`](Self::set_write_behind)), and bytes that the kernel
    /// holds back, as [`Stream::flush`] does.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Panics
    ///
    /// Outside of a fiber, with [`set_write_behind`](Self::set_write_behind).
    pub fn flush(&self) -> io::Result<()> {
        self.wait_behind()?;
        self.tls.stream().flush().map_err(|error| self.failed("write to", error))
    }

    fn wait_behind(&self) -> io::Result<()> {
        if !self.writes_behind.get() {
            return Ok(());
        }
        let stream = self.tls.stream();
        wait_on(
            stream,
            (),
            self.write_timeout.get(),
            |(), waiter| stream.poll_behind(waiter),
            |(), waiter| stream.leave_writers(waiter),
            |_| self.reason("write to"),
        )
        .map_err(|error| self.failed("write to", error))
    }

    /// Ends the output by a close_notify and the stream's own end (`Write`), shuts down reading (`Read`), or both. The
    /// peer may go on sending after `Write`, which a peer with TLS 1.2 does not: there, a close_notify ends both
    /// directions (RFC 5246, section 7.2.1). Does not wait.
    ///
    /// # Errors
    ///
    /// The stream's, such as no longer being connected; [`Closed`](ringspun_net::Closed).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.tls.shutdown(how).map_err(|error| self.failed("shutdown of", error))
    }

    /// Sends a close_notify, and closes the stream; fibers that wait in it get [`Closed`](ringspun_net::Closed). What
    /// was written before goes first. Does not wait, and does not wait for the peer's close_notify: read until the end
    /// to know that the peer has sent all it had. Closing again does nothing.
    pub fn close(&self) {
        self.tls.close();
    }

    /// The local address (`getsockname(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`](ringspun_net::Closed), or the kernel's.
    pub fn localname(&self) -> io::Result<Address> {
        self.stream.localname()
    }

    /// The address of the peer (`getpeername(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`](ringspun_net::Closed), or the kernel's, such as no longer being connected.
    pub fn peername(&self) -> io::Result<Address> {
        self.stream.peername()
    }

    /// Sets an option of the socket, such as [`SocketOption::NoDelay`].
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](ringspun_net::Closed).
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.stream.set_option(option)
    }

    /// Sets how long each read may wait before it fails with `TimedOut`: with `None`, indefinitely; with zero, not at
    /// all.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout.set(timeout);
    }

    /// Sets how long each write may wait without progress, that is, without another record on its way, before it fails
    /// with `TimedOut` and [`WriteInterrupted`]: with `None`, indefinitely; with zero, nothing is written. A large
    /// write to a slow peer may take longer than this; a deadline limits the whole.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout.set(timeout);
    }

    /// Lets a write return before the kernel has its last records, as [`Stream::set_write_behind`] does, of any length:
    /// they are encrypted, and sent from memory of the stream, before the next write begins. Off by default.
    pub fn set_write_behind(&self, on: bool) {
        self.writes_behind.set(on);
    }

    /// The protocol that both sides have agreed upon (ALPN, RFC 7301).
    pub fn alpn_protocol(&self) -> Option<Vec<u8>> {
        self.tls.connection().alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The version of TLS.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls.connection().protocol_version()
    }

    /// The cipher suite, by the name of its registry (IANA).
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.tls.connection().negotiated_cipher_suite().and_then(|suite| suite.suite().as_str())
    }

    /// The name of the key exchange, such as `X25519MLKEM768`. `None` where TLS 1.2 resumes a session.
    pub fn key_exchange(&self) -> Option<String> {
        self.tls.connection().negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
    }

    /// Whether the session was resumed, without certificates, from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.tls.connection().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The peer's certificates in DER, its own first: on a client, and on a server that has asked for some.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.tls.connection().peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
    }

    /// The host name that the client has asked for (SNI). `None` on a client.
    pub fn server_name(&self) -> Option<String> {
        match &*self.tls.connection() {
            Connection::Server(connection) => connection.server_name().map(String::from),
            Connection::Client(_) => None,
        }
    }

    /// The shared part, for machines of other protocols above TLS.
    pub fn core(&self) -> &Rc<TlsCore> {
        &self.tls
    }

    #[cold]
    fn reason(&self, operation: &'static str) -> fibers::WaitReason {
        match self.peer {
            Some(address) => fibers::WaitReason::new(operation, format_args!("{address} (TLS)")),
            None => fibers::WaitReason::new(operation, "a lost peer (TLS)"),
        }
    }

    /// Out of line, so that the stacks of waiting fibers have no room for errors.
    #[cold]
    pub(crate) fn failed(&self, operation: &'static str, error: io::Error) -> io::Error {
        match self.peer {
            _ if self.tls.stream().is_closed() => {
                OperationError::wrap(operation, "a closed stream", ringspun_net::Closed.into())
            }
            Some(address) => OperationError::wrap(operation, address, error),
            None => OperationError::wrap(operation, "a lost peer", error),
        }
    }
}

/// Why a write ended early.
enum WriteError {
    Interrupted(fibers::Interrupt),
    Failed(io::Error),
}

impl WriteError {
    #[cold]
    fn of(error: io::Error) -> Self {
        match (error.raw_os_error(), fibers::pending_interrupt()) {
            (Some(libc::ECANCELED), Some(interrupt)) => Self::Interrupted(interrupt),
            _ => Self::Failed(error),
        }
    }
}

impl io::Read for &TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        TlsStream::read(self, buffer)
    }
}

impl io::Write for &TlsStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_behind()
    }
}

impl io::Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        TlsStream::read(self, buffer)
    }
}

impl io::Write for TlsStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_behind()
    }
}
