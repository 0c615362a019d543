//! Moving a TLS stream to another thread.

use std::fmt;
use std::io;

use ringspun_net as net;

use super::{Settings, TlsStream};
use crate::machine::{DetachedSession, TlsCore};

/// A TLS stream on its way to another thread, from [`TlsStream::into_movable`]. Dropping it closes the connection
/// without a close_notify, which the peer takes for a cut.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, WorkersBuilder};
/// use ringspun_net as net;
/// use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
///
/// let identity = Identity::self_signed(&["localhost"])?;
/// let trusted = Roots::from_pem(identity.certificate_pem().as_bytes())?;
/// let server = ServerConfig::builder().identity(identity).build()?;
/// let client = ClientConfig::builder().roots(trusted).build()?;
///
/// let workers = WorkersBuilder::new().count(2).start()?;
/// let other = workers.get(1).unwrap().clone();
/// let echoed = workers.get(0).unwrap().spawn(move || -> std::io::Result<Vec<u8>> {
///     let listener = tls::listen("localhost:0", &server)?;
///     let port = listener.localname()?.port().unwrap();
///     let connecting = fibers::spawn(move || tls::connect_with(("localhost", port), &client))?;
///     let stream = listener.accept()?;
///     let client = connecting.join().unwrap()?;
///     client.write(b"hello world")?;
///     let mut hello = [0; 5];
///     stream.chunk(&mut hello)?;
///
///     // The other worker reads on where this one has stopped.
///     let movable = stream.into_movable()?;
///     let serving = other.spawn(move || -> std::io::Result<()> {
///         let stream = movable.into_stream()?;
///         let rest = stream.receive()?;
///         stream.write(&rest.unwrap())?;
///         Ok(())
///     });
///     let mut world = vec![0; 6];
///     client.chunk(&mut world)?;
///     serving.unwrap().join()??;
///     Ok(world)
/// });
/// assert_eq!(echoed.unwrap().join()??, b" world");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Movable {
    session: DetachedSession,
    stream: net::Movable,
    settings: Settings,
}

impl TlsStream {
    /// Takes the stream from this thread, with the bytes that it has received and nobody has read, decrypted or not,
    /// its end or error if that has come, and its settings. Parks until what has been written is in the kernel.
    ///
    /// No other fiber can be reading or writing meanwhile: that would have to borrow the stream. Bytes that the kernel
    /// delivers during the move are kept: none is lost or received out of order.
    ///
    /// # Errors
    ///
    /// [`MoveError`] with the stream: [`Closed`](ringspun_net::Closed); the error of an earlier write that has not been
    /// reported; an interrupt of the fiber; `ResourceBusy` if anybody else has its [`core`](Self::core); an error of
    /// the event loop.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn into_movable(self) -> Result<Movable, MoveError> {
        let settings = self.settings();
        let Self { closing, tls, stream, .. } = self;
        closing.forgo();
        let session = match tls.detach() {
            Ok(session) => session,
            Err(tls) => {
                let text = "the stream cannot be moved while others use its session";
                let error = io::Error::new(io::ErrorKind::ResourceBusy, text);
                return Err(MoveError { stream: Box::new(Self::assemble(tls, stream, settings)), error });
            }
        };
        match stream.into_movable() {
            Ok(stream) => Ok(Movable { session, stream, settings }),
            Err(net::MoveError { stream, error }) => {
                let tls = TlsCore::attach(stream.core().clone(), session);
                Err(MoveError { stream: Box::new(Self::assemble(tls, stream, settings)), error })
            }
        }
    }
}

impl Movable {
    /// Has the runtime of this thread use the stream from now on.
    ///
    /// # Errors
    ///
    /// `Unsupported` on a thread without a runtime; the connection is then closed.
    pub fn into_stream(self) -> io::Result<TlsStream> {
        let stream = self.stream.into_stream()?;
        let tls = TlsCore::attach(stream.core().clone(), self.session);
        Ok(TlsStream::assemble(tls, stream, self.settings))
    }
}

/// A TLS stream that could not be moved, and why. The stream is as it was.
pub struct MoveError {
    /// The stream.
    pub stream: Box<TlsStream>,
    /// Why it was not moved.
    pub error: io::Error,
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "move of a TLS stream: {}", self.error)
    }
}

impl fmt::Debug for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MoveError({})", self.error)
    }
}

impl std::error::Error for MoveError {}

impl From<MoveError> for io::Error {
    /// Converted to its cause; the stream is dropped.
    fn from(error: MoveError) -> Self {
        error.error
    }
}
