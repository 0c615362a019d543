//! From and into descriptors and the sockets of the standard library: for socket activation, inherited sockets, and
//! crates such as socket2.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::datagram::DatagramSocket;
use crate::listener::Listener;
use crate::stream::{Movable, MoveError, Stream};
use crate::system::set_nonblocking;
use crate::waiting::current_loop;

/// Makes a socket of the runtime of this thread from each of these types.
macro_rules! convert {
    ($socket:ty, $new:expr, $($source:ty),+) => {$(
        impl TryFrom<$source> for $socket {
            type Error = io::Error;

            /// Has the runtime of this thread use the socket, which is non-blocking from then on, also for whoever
            /// shares its open file description. Fails with `Unsupported` without a runtime, which closes the socket.
            fn try_from(socket: $source) -> io::Result<Self> {
                let event_loop = current_loop()?;
                let descriptor = OwnedFd::from(socket);
                set_nonblocking(descriptor.as_raw_fd(), true)?;
                Ok($new(event_loop, descriptor))
            }
        }
    )+};
}

convert!(Stream, Stream::from_descriptor, OwnedFd, std::net::TcpStream, std::os::unix::net::UnixStream);
convert!(
    Listener,
    Listener::from_descriptor,
    OwnedFd,
    std::net::TcpListener,
    std::os::unix::net::UnixListener
);
convert!(
    DatagramSocket,
    DatagramSocket::from_descriptor,
    OwnedFd,
    std::net::UdpSocket,
    std::os::unix::net::UnixDatagram
);

fn open(descriptor: io::Result<BorrowedFd<'_>>) -> BorrowedFd<'_> {
    match descriptor {
        Ok(descriptor) => descriptor,
        Err(_) => panic!("the descriptor of a socket that has been closed was asked for"),
    }
}

/// Lends the descriptor, for options and the like. Reading from it or writing to it interferes with the socket. Do not
/// close the socket while it is lent: the number may then be that of another file.
///
/// # Panics
///
/// After the socket has been closed.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        open(self.core().socket())
    }
}

/// As that of [`Stream`].
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        open(self.core.socket())
    }
}

/// As that of [`Stream`].
impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        open(self.core.socket())
    }
}

impl Stream {
    /// Gives the socket away, for instance to `std::net::TcpStream::from`. Parks until what has been written is in the
    /// kernel ([`set_write_behind`](Self::set_write_behind)). It stays non-blocking.
    ///
    /// # Errors
    ///
    /// [`MoveError`] with the stream, as [`into_movable`](Self::into_movable); and `ResourceBusy` if bytes have been
    /// received that nobody has read, which would be lost: read them first.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (ours, theirs) = net::Stream::pair()?;
    ///     let mut plain = std::os::unix::net::UnixStream::from(ours.into_descriptor()?);
    ///     plain.write_all(b"hello")?;
    ///     // And back.
    ///     let ours = net::Stream::try_from(plain)?;
    ///     ours.write(b", world")?;
    ///     let mut text = [0; 12];
    ///     theirs.chunk(&mut text)?;
    ///     assert_eq!(&text, b"hello, world");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn into_descriptor(self) -> Result<OwnedFd, MoveError> {
        if self.core().has_received() {
            return Err(MoveError { stream: self, error: unread() });
        }
        let event_loop = self.core().event_loop().clone();
        let Movable { detached, read_timeout, write_timeout, writes_behind } = self.into_movable()?;
        detached.into_descriptor().map_err(|detached| {
            // Bytes that came while it was taken from its loop.
            let movable = Movable { detached, read_timeout, write_timeout, writes_behind };
            MoveError { stream: movable.attach(event_loop), error: unread() }
        })
    }
}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "bytes have been received that nobody has read")
}
