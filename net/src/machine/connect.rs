//! Connecting: each address in turn, until one answers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use nix::sys::socket::connect;
#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt};
use ringspun_runtime::{EventLoop, Wake};

use super::datagram_core::DatagramCore;
use super::resolve::SocketKind;
use super::stream_core::StreamCore;
use crate::address::Address;
use crate::descriptor::{bind_first, new_socket};
use crate::system::set_nonblocking;

/// Connects to the first of several addresses that answers.
#[derive(Debug)]
pub struct Connect {
    event_loop: Rc<EventLoop>,
    addresses: VecDeque<Address>,
    bind_to: Vec<Address>,
    current: Option<Rc<StreamCore>>,
    /// The current socket still blocks, and must not once it is connected.
    blocks: bool,
    last_error: Option<ConnectError>,
}

/// Where a connect failed.
#[derive(Debug)]
pub enum ConnectError {
    /// No socket could be made for any address.
    Socket(io::Error),
    /// The local address that was asked for could not be taken.
    Bind(io::Error),
    /// The last address tried did not answer, or refused.
    Connect(io::Error),
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Socket(error) | ConnectError::Bind(error) | ConnectError::Connect(error) => error,
        }
    }
}

impl Connect {
    /// Prepares to connect to one of `addresses`, from one of `bind_to` if there are any.
    pub fn new(event_loop: Rc<EventLoop>, addresses: Vec<Address>, bind_to: Vec<Address>) -> Self {
        Self {
            event_loop,
            addresses: addresses.into(),
            bind_to,
            current: None,
            blocks: false,
            last_error: None,
        }
    }

    /// Ready with the connected stream.
    ///
    /// # Errors
    ///
    /// That of the last address tried.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Result<Rc<StreamCore>, ConnectError>> {
        loop {
            if let Some(stream) = &self.current {
                let Some(result) = stream.take_output_result() else {
                    stream.writers().add(waiter);
                    return Poll::Pending;
                };
                stream.leave_writers(waiter);
                let stream = self.current.take();
                match (result, stream) {
                    (Ok(_), Some(stream)) => {
                        return Poll::Ready(self.finish(&stream).map(|()| stream));
                    }
                    (Ok(_), None) => {}
                    // Its drop closes the socket.
                    (Err(error), _) => self.last_error = Some(ConnectError::Connect(error)),
                }
            }
            let Some(address) = self.addresses.pop_front() else {
                let none = || ConnectError::Connect(io::ErrorKind::AddrNotAvailable.into());
                return Poll::Ready(Err(self.last_error.take().unwrap_or_else(none)));
            };
            match self.start(address) {
                Ok(stream) => self.current = Some(stream),
                Err(error) => self.last_error = Some(error),
            }
        }
    }

    fn start(&mut self, address: Address) -> Result<Rc<StreamCore>, ConnectError> {
        let socket = bound_socket(&address, SocketKind::Stream, &self.bind_to)?;
        // Where the queue of a Unix listener is full, io_uring waits for room on a socket that blocks only.
        self.blocks = address.is_unix();
        if self.blocks {
            set_nonblocking(socket.as_raw_fd(), false).map_err(ConnectError::Socket)?;
        }
        let stream = StreamCore::new(self.event_loop.clone(), socket);
        stream.start_connect(address);
        Ok(stream)
    }

    fn finish(&self, stream: &StreamCore) -> Result<(), ConnectError> {
        match self.blocks {
            true => set_nonblocking(stream.descriptor(), true).map_err(ConnectError::Connect),
            false => Ok(()),
        }
    }

    /// Gives up: the attempt in flight is cancelled, and its socket closed after that.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        if let Some(stream) = self.current {
            stream.writers().remove(waiter);
            stream.close();
        }
    }
}

/// Makes a datagram socket whose peer is the first of several addresses that the kernel takes, from one of
/// `bind_to` if there are any. Nothing is sent, so this does not wait.
///
/// # Errors
///
/// That of the last address tried.
pub fn connect_datagram(
    event_loop: &Rc<EventLoop>,
    addresses: &[Address],
    bind_to: &[Address],
) -> Result<Rc<DatagramCore>, ConnectError> {
    let mut last_error = ConnectError::Connect(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        let connected = bound_socket(address, SocketKind::Datagram, bind_to).and_then(|socket| {
            let connected = connect(socket.as_raw_fd(), &address.raw());
            connected.map(|()| socket).map_err(|errno| ConnectError::Connect(errno.into()))
        });
        match connected {
            Ok(socket) => return Ok(DatagramCore::new(event_loop.clone(), socket)),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn bound_socket(address: &Address, kind: SocketKind, bind_to: &[Address]) -> Result<OwnedFd, ConnectError> {
    let socket = new_socket(address, kind).map_err(ConnectError::Socket)?;
    #[cfg(target_os = "linux")]
    if kind == SocketKind::Stream && !bind_to.is_empty() {
        // A port that is chosen only when the peer is known may be that of a connection to another one. Where
        // there are no ports, or Linux is before 4.2, it is chosen at once.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
    }
    bind_first(&socket, bind_to).map_err(ConnectError::Bind)?;
    Ok(socket)
}

/// Makes a socket that is neither bound nor connected, of the family of the first of several addresses for
/// which there is one: Janet's `net/socket`.
///
/// # Errors
///
/// That of the last family tried.
pub fn unbound_socket<'a>(
    addresses: impl IntoIterator<Item = &'a Address>,
    kind: SocketKind,
) -> io::Result<OwnedFd> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match new_socket(address, kind) {
            Ok(socket) => return Ok(socket),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}
