//! Moving a stream to another thread.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringspun_runtime::EventLoop;

use super::Stream;
use crate::machine::{Detached, StreamCore};
use crate::waiting::current_loop;

/// A stream on its way to another thread, from [`Stream::into_movable`]. Dropping it closes the stream.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, WorkersBuilder};
/// use ringspun_net as net;
///
/// let workers = WorkersBuilder::new().count(2).start()?;
/// let echoed = workers.get(0).unwrap().spawn({
///     let other = workers.get(1).unwrap().clone();
///     move || -> std::io::Result<Vec<u8>> {
///         let listener = net::listen("127.0.0.1:0")?;
///         let client = net::connect(listener.localname()?)?;
///         client.write(b"hello world")?;
///         let stream = listener.accept()?;
///         let mut hello = [0; 5];
///         stream.chunk(&mut hello)?;
///
///         // The other worker reads on where this one has stopped.
///         let movable = stream.into_movable()?;
///         let serving = other.spawn(move || -> std::io::Result<()> {
///             let stream = movable.into_stream()?;
///             let rest = stream.receive()?;
///             stream.write(&rest.unwrap())?;
///             Ok(())
///         });
///         let mut world = vec![0; 6];
///         client.chunk(&mut world)?;
///         serving.unwrap().join()??;
///         Ok(world)
///     }
/// });
/// assert_eq!(echoed.unwrap().join()??, b" world");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Movable {
    pub(crate) detached: Detached<Box<[u8]>>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) writes_behind: bool,
}

impl Stream {
    /// Takes the stream from this thread, with the bytes that it has received and nobody has read, its end or error if
    /// that has come, and its settings. Parks until what has been written is in the kernel
    /// ([`set_write_behind`](Self::set_write_behind)).
    ///
    /// No other fiber can be reading or writing meanwhile: that would have to borrow the stream. Bytes that the kernel
    /// delivers during the move are kept: none is lost or received out of order.
    ///
    /// # Errors
    ///
    /// [`MoveError`] with the stream: [`Closed`](crate::Closed); the error of an earlier write that has not been
    /// reported; an interrupt of the fiber; an error of the event loop.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn into_movable(self) -> Result<Movable, MoveError> {
        if self.core.has_clones() {
            let text = "the stream cannot be moved while it has clones";
            return Err(MoveError { stream: self, error: io::Error::new(io::ErrorKind::ResourceBusy, text) });
        }
        let detached = match self.wait_sent().and_then(|()| self.core.detach()) {
            Ok(detached) => detached,
            Err(error) => return Err(MoveError { stream: self, error }),
        };
        Ok(Movable {
            detached,
            read_timeout: self.read_timeout.get(),
            write_timeout: self.write_timeout.get(),
            writes_behind: self.writes_behind.get(),
        })
    }
}

impl Movable {
    /// Has the runtime of this thread use the stream from now on.
    ///
    /// # Errors
    ///
    /// `Unsupported` on a thread without a runtime; the stream is then closed.
    pub fn into_stream(self) -> io::Result<Stream> {
        Ok(self.attach(current_loop()?))
    }

    pub(crate) fn attach(self, event_loop: Rc<EventLoop>) -> Stream {
        Stream {
            core: StreamCore::attach(event_loop, self.detached),
            read_timeout: Cell::new(self.read_timeout),
            write_timeout: Cell::new(self.write_timeout),
            writes_behind: Cell::new(self.writes_behind),
        }
    }
}

/// A stream that could not be moved, and why. The stream is as it was.
pub struct MoveError {
    /// The stream.
    pub stream: Stream,
    /// Why it was not moved.
    pub error: io::Error,
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "move of a stream: {}", self.error)
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
