//! Connecting to the first of several addresses that accepts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use nix::sys::socket::connect;
#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt};
use ringspun_runtime::{EventLoop, Wake};

use super::datagrams::DatagramCore;
use super::pause::Pause;
use super::resolve::SocketKind;
use super::stream::StreamCore;
use crate::address::Address;
use crate::descriptor::{bind_first, new_socket};

/// Connects to the first of several addresses that accepts.
#[derive(Debug)]
pub struct Connect {
    event_loop: Rc<EventLoop>,
    addresses: VecDeque<Address>,
    bind_to: Vec<Address>,
    current: Option<Attempt>,
    last_error: Option<ConnectError>,
}

/// A connect to one address.
#[derive(Debug)]
struct Attempt {
    stream: Rc<StreamCore>,
    address: Address,
    /// The backlog of a Unix listener is full, and no event signals room (`connect(2)`).
    pause: Option<Pause>,
}

/// The step in which a connect failed.
#[derive(Debug)]
pub enum ConnectError {
    /// Making the socket.
    Socket(io::Error),
    /// Binding it to the requested local address.
    Bind(io::Error),
    /// Connecting to the last address tried.
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
        Self { event_loop, addresses: addresses.into(), bind_to, current: None, last_error: None }
    }

    /// The address that it tries.
    pub fn target(&self) -> Option<Address> {
        self.current.as_ref().map(|attempt| attempt.address)
    }

    /// Ready with the connected stream.
    ///
    /// # Errors
    ///
    /// That of the last address tried.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Result<Rc<StreamCore>, ConnectError>> {
        loop {
            if let Some(attempt) = &mut self.current {
                let result = match attempt.poll(waiter) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => result,
                };
                let attempt = self.current.take();
                match (result, attempt) {
                    (Ok(()), Some(attempt)) => return Poll::Ready(Ok(attempt.stream)),
                    (Ok(()), None) => {}
                    // Dropping the attempt closes its socket.
                    (Err(error), _) => self.last_error = Some(ConnectError::Connect(error)),
                }
            }
            let Some(address) = self.addresses.pop_front() else {
                let none = || ConnectError::Connect(io::ErrorKind::AddrNotAvailable.into());
                return Poll::Ready(Err(self.last_error.take().unwrap_or_else(none)));
            };
            match self.start(address) {
                Ok(attempt) => self.current = Some(attempt),
                Err(error) => self.last_error = Some(error),
            }
        }
    }

    fn start(&self, address: Address) -> Result<Attempt, ConnectError> {
        let socket = bound_socket(&address, SocketKind::Stream, &self.bind_to)?;
        let stream = StreamCore::new(self.event_loop.clone(), socket);
        stream.start_connect(address);
        Ok(Attempt { stream, address, pause: None })
    }

    /// Gives up: cancels the attempt in flight, and then closes its socket.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        if let Some(mut attempt) = self.current {
            attempt.end_pause();
            attempt.stream.writers().remove(waiter);
            attempt.stream.close();
        }
    }
}

impl Attempt {
    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        if let Some(pause) = &self.pause {
            if !pause.is_over(self.stream.event_loop()) {
                return Poll::Pending;
            }
            self.end_pause();
            self.stream.start_connect(self.address);
        }
        let Some(result) = self.stream.take_output_result() else {
            self.stream.writers().add(waiter);
            return Poll::Pending;
        };
        self.stream.leave_writers(waiter);
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.address.is_unix() => {
                self.pause = Some(Pause::begin(self.stream.event_loop(), waiter));
                Poll::Pending
            }
            result => Poll::Ready(result.map(|_| ())),
        }
    }

    fn end_pause(&mut self) {
        if let Some(pause) = self.pause.take() {
            pause.end(self.stream.event_loop());
        }
    }
}

/// Makes a datagram socket whose peer is the first of several addresses that the kernel accepts, bound to one of
/// `bind_to` if there are any. Sends nothing, so it does not wait.
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
        // Lets connections to different peers share a port, as the kernel chooses it once it knows the peer. Fails
        // without ports or before Linux 4.2, where the port is chosen immediately.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
    }
    bind_first(&socket, bind_to).map_err(ConnectError::Bind)?;
    Ok(socket)
}

/// Makes a socket that is neither bound nor connected, of the first family among several addresses that the kernel
/// supports: Janet's `net/socket`.
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
