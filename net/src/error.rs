//! Errors that name the failed operation and the address.

use std::fmt;
use std::io;

use ringspun_fibers::Interrupt;
use ringspun_runtime::EventLoop;

/// The socket was closed locally. As an [`io::Error`], its kind is `NotConnected`; [`is_closed`] distinguishes it from
/// a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream is closed")
    }
}

impl std::error::Error for Closed {}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        Self::new(io::ErrorKind::NotConnected, closed)
    }
}

/// The error of calls on a socket that was closed locally, or whose loop has ended or belongs to another process.
#[cold]
pub(crate) fn closed(event_loop: &EventLoop) -> io::Error {
    event_loop.check_process().err().unwrap_or_else(|| Closed.into())
}

/// Whether an error means that the socket was closed locally, not by its peer.
pub fn is_closed(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(|inner| {
        inner.is::<Closed>() || inner.downcast_ref::<OperationError>().is_some_and(|e| is_closed(&e.source))
    })
}

/// The interrupt that caused an error of a socket: a cancel, a deadline, or a timeout of the socket. `None` if the
/// error has another cause.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Interrupt};
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let listener = net::listen("127.0.0.1:0")?;
///     let client = net::connect(listener.localname()?)?;
///     client.set_read_timeout(Some(Duration::from_millis(1)));
///     let error = client.receive().unwrap_err(); // nobody sends anything
///     assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
///     assert_eq!(net::interrupt_of(&error), Some(Interrupt::TimedOut));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn interrupt_of(error: &io::Error) -> Option<Interrupt> {
    let inner = error.get_ref()?;
    let direct = inner.downcast_ref::<Interrupt>().copied();
    let write = || inner.downcast_ref::<WriteInterrupted>().map(|write| write.interrupt);
    let wrapped = || inner.downcast_ref::<OperationError>().and_then(|error| interrupt_of(&error.source));
    direct.or_else(write).or_else(wrapped)
}

/// The kernel's number for an error (`errno(3)`), also of an [`OperationError`], for which
/// [`io::Error::raw_os_error`] is `None`.
pub fn errno_of(error: &io::Error) -> Option<i32> {
    let wrapped =
        || error.get_ref()?.downcast_ref::<OperationError>().and_then(|error| errno_of(&error.source));
    error.raw_os_error().or_else(wrapped)
}

/// An error with the operation and the address in its text, as returned by [`io::Error::get_ref`]. Its source is the
/// cause: the kernel's error, with its number, or [`Closed`], an [`Interrupt`] or a [`WriteInterrupted`], each in an
/// [`io::Error`]. The outer error has the kind of its cause, and no [`raw_os_error`](io::Error::raw_os_error), as an
/// [`io::Error`] has either a number or a text; [`errno_of`] finds it all the same.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net::{self as net, OperationError};
///
/// fibers::run(|| {
///     let error = net::listen("192.0.2.1:0").unwrap_err(); // not an address of this machine
///     assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
///     assert!(error.to_string().starts_with("listen 192.0.2.1:0: "));
///     let inner: &OperationError = error.get_ref().unwrap().downcast_ref().unwrap();
///     assert!(inner.raw_os_error().is_some());
///     assert_eq!(net::errno_of(&error), inner.cause().raw_os_error());
/// })
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct OperationError {
    operation: &'static str,
    address: String,
    source: io::Error,
}

impl OperationError {
    /// The cause, without the operation and the address.
    pub fn cause(&self) -> &io::Error {
        &self.source
    }

    /// The kernel's number for the error (`errno(3)`), if the kernel is the cause.
    pub fn raw_os_error(&self) -> Option<i32> {
        errno_of(&self.source)
    }

    /// An error of `operation` at `address`, with this cause.
    pub fn wrap(operation: &'static str, address: impl fmt::Display, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), Self { operation, address: address.to_string(), source })
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.address, self.source)
    }
}

impl std::error::Error for OperationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A write that was cancelled or timed out before the kernel had taken all of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteInterrupted {
    /// The cause.
    pub interrupt: Interrupt,
    /// The number of bytes that the kernel took, which may be zero; it may still deliver them.
    pub written_bytes: usize,
    /// The number of bytes to write.
    pub total_bytes: usize,
}

impl fmt::Display for WriteInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} of {} bytes", self.interrupt, self.written_bytes, self.total_bytes)
    }
}

impl std::error::Error for WriteInterrupted {}

impl From<WriteInterrupted> for io::Error {
    fn from(error: WriteInterrupted) -> Self {
        Self::new(Self::from(error.interrupt).kind(), error)
    }
}
