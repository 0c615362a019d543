//! Datagram sockets for fibers.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_runtime::{EventLoop, LentBytes, SendData};

use crate::address::{Address, local_address, peer_address};
use crate::endpoint::Peer;
use crate::error::{Closed, OperationError};
use crate::machine::{
    Amount, Arrived, DatagramCore, ReceiveFrom, Reuse, SendTo, SocketKind, connect_datagram as connect_to,
    listen_on,
};
use crate::options::SocketOption;
use crate::received::Received;
use crate::waiting::{check_loop, current_loop, reason_of, resolve, wait_on, within};

/// A datagram socket: UDP (`udp(7)`) or Unix (`unix(7)`). Dropping it closes it.
///
/// All methods take `&self`: any number of fibers may receive and send, concurrently. A datagram that does not fit into
/// the buffer is truncated, as by the kernel; an empty one is valid.
///
/// On a busy socket, datagrams are received ahead of their reader, up to about 256 KiB. Further ones stay in the
/// kernel's buffer ([`SocketOption::ReceiveBufferBytes`]), which drops those that do not fit.
#[derive(Debug)]
pub struct DatagramSocket {
    pub(crate) core: Rc<DatagramCore>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

/// Makes a datagram socket that is bound to an address: Janet's `net/listen` with `:datagram`. With port 0, the kernel
/// chooses one; [`DatagramSocket::localname`] returns it.
///
/// As with [`std::net::UdpSocket`], a port that another socket uses is `AddrInUse`. Binds the first address of a name
/// that can be bound. Parks during the lookup of a name. The path of a Unix socket must not exist, and is not removed
/// when the socket is closed; for its permissions, see [`listen`](crate::listen).
///
/// # Errors
///
/// The resolver's or the kernel's, with the address in the text; an interrupt of the fiber; `InvalidInput` if the
/// address cannot be parsed; `Unsupported` outside of a runtime.
///
/// # Panics
///
/// Outside of a fiber on a thread that has a runtime.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let server = net::listen_datagram("127.0.0.1:0")?;
///     let client = net::connect_datagram(server.localname()?)?;
///     client.write(b"hello")?;
///     let mut buffer = [0; 1024];
///     let (count, who) = server.recv_from(&mut buffer)?;
///     server.send_to(&who, &buffer[..count])?;
///     assert_eq!(client.read(&mut buffer)?, 5);
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn listen_datagram(address: impl Peer) -> io::Result<DatagramSocket> {
    let endpoint = address.endpoint()?;
    let event_loop = current_loop()?;
    let listened = resolve(&event_loop, &endpoint, SocketKind::Datagram, true)
        .and_then(|addresses| listen_on(&addresses, SocketKind::Datagram, Reuse::Nothing));
    match listened {
        Ok(descriptor) => Ok(DatagramSocket::from_descriptor(event_loop, descriptor)),
        Err(error) => Err(OperationError::wrap("listen", &endpoint, error)),
    }
}

/// Makes a datagram socket with a peer: Janet's `net/connect` with `:datagram`. [`DatagramSocket::write`] sends to the
/// peer, and only datagrams from it are received. Does not check whether the peer exists.
///
/// Parks during the lookup of a name.
///
/// # Errors
///
/// As [`listen_datagram`].
///
/// # Panics
///
/// As [`listen_datagram`].
pub fn connect_datagram(address: impl Peer) -> io::Result<DatagramSocket> {
    let endpoint = address.endpoint()?;
    let event_loop = current_loop()?;
    let connected = resolve(&event_loop, &endpoint, SocketKind::Datagram, false)
        .and_then(|addresses| connect_to(&event_loop, &addresses, &[]).map_err(io::Error::from));
    connected
        .map(DatagramSocket::from_core)
        .map_err(|error| OperationError::wrap("connect to", &endpoint, error))
}

/// As [`connect_datagram`], from a local address; with port 0, the kernel chooses one.
///
/// # Errors
///
/// As [`connect_datagram`], and the kernel's if the source is not a local address or has no port left (`AddrInUse`),
/// with both addresses in the text.
///
/// # Panics
///
/// As [`connect_datagram`].
pub fn connect_datagram_from(source: impl Peer, address: impl Peer) -> io::Result<DatagramSocket> {
    let (source, endpoint) = (source.endpoint()?, address.endpoint()?);
    let event_loop = current_loop()?;
    let look_up = |endpoint| resolve(&event_loop, endpoint, SocketKind::Datagram, false);
    let connected = look_up(&source)
        .and_then(|sources| connect_to(&event_loop, &look_up(&endpoint)?, &sources).map_err(io::Error::from));
    connected
        .map(DatagramSocket::from_core)
        .map_err(|error| OperationError::wrap("connect to", format_args!("{endpoint} from {source}"), error))
}

impl DatagramSocket {
    fn from_core(core: Rc<DatagramCore>) -> Self {
        Self { core, read_timeout: Cell::new(None), write_timeout: Cell::new(None) }
    }

    /// Adopts a datagram socket. `event_loop` must be that of this thread's runtime ([`fibers::event_loop`]): with
    /// another, calls that need to wait fail.
    pub fn from_descriptor(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Self {
        Self::from_core(DatagramCore::new(event_loop, descriptor))
    }

    /// Parks until a datagram arrives, copies as much of it as fits into `buffer`, and drops the rest. Returns the
    /// number of bytes copied, and the sender's address.
    ///
    /// # Errors
    ///
    /// The kernel's, such as `ECONNREFUSED` if the peer of a connected socket does not exist; [`Closed`] once the
    /// socket has been closed locally; `TimedOut` after the read timeout; a deadline or a cancel of the fiber.
    /// Datagrams that arrive after an interrupt are kept for the next call.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let machine = ReceiveFrom::new(self.core.clone(), Amount::UpTo(buffer.len()));
        let poll = |machine: &mut ReceiveFrom, waiter: &Rc<_>| {
            machine.poll(waiter, &mut |bytes| buffer[..bytes.len()].copy_from_slice(bytes))
        };
        let event_loop = self.core.event_loop();
        wait_on(
            event_loop,
            machine,
            self.read_timeout.get(),
            poll,
            |machine, waiter| machine.abandon(waiter, &[]),
            |_| reason_of("receive on", &*self.core),
        )
        .map_err(|error| self.failed("receive on", error))
    }

    /// As [`recv_from`](Self::recv_from), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no datagram is there; otherwise as [`recv_from`](Self::recv_from).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind::WouldBlock;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let server = net::listen_datagram("127.0.0.1:0")?;
    ///     let client = net::listen_datagram("127.0.0.1:0")?;
    ///     let mut buffer = [0; 16];
    ///     assert_eq!(server.try_recv_from(&mut buffer).unwrap_err().kind(), WouldBlock);
    ///     client.try_send_to(&server.localname()?, b"hello")?;
    ///     assert_eq!(server.try_recv_from(&mut buffer)?, (5, client.localname()?));
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let open = self.core.check_open();
        let taken = open.and_then(|()| match self.core.try_take(usize::MAX) {
            Some(arrived) => Ok(arrived),
            None => self.core.input_ended().and_then(|_| Err(io::ErrorKind::WouldBlock.into())),
        });
        match taken {
            Ok(Arrived { bytes, source }) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                Ok((count, source))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => Err(self.failed("receive on", error)),
        }
    }

    /// As [`send_to`](Self::send_to), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room, or if the socket has sent much since the last turn of the loop; otherwise as
    /// [`send_to`](Self::send_to).
    pub fn try_send_to(&self, to: &Address, data: &[u8]) -> io::Result<()> {
        match self.core.try_send_to(data, Some(*to)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) if self.core.is_closed() => Err(self.failed("send on", error)),
            Err(error) => Err(OperationError::wrap("send to", to, error)),
        }
    }

    /// As [`recv_from`](Self::recv_from), but returns only the number of bytes: for connected sockets.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buffer).map(|(count, _)| count)
    }

    /// Parks until a datagram arrives, and returns it without copying it, with the sender's address.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn receive(&self) -> io::Result<(Received, Address)> {
        let poll = |core: &mut Rc<DatagramCore>, waiter: &Rc<_>| {
            let Some(Arrived { bytes, source }) = core.next_datagram()? else {
                core.wait_for_input(waiter);
                return Poll::Pending;
            };
            Poll::Ready(Ok((Received::new(bytes), source)))
        };
        wait_on(
            self.core.event_loop(),
            self.core.clone(),
            self.read_timeout.get(),
            poll,
            |core, waiter| {
                core.leave_readers(waiter);
            },
            |_| reason_of("receive on", &*self.core),
        )
        .map_err(|error| self.failed("receive on", error))
    }

    /// Sends one datagram to an address, parking until the kernel has taken it.
    ///
    /// # Errors
    ///
    /// The kernel's, such as `EMSGSIZE` for a datagram that is too long, and `EINVAL` or `EAFNOSUPPORT` for an address
    /// of a family other than the socket's; [`Closed`] once the socket has been closed locally; `TimedOut` after the
    /// write timeout; a deadline or a cancel of the fiber. After an interrupt, nothing has been sent.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn send_to(&self, to: &Address, data: &[u8]) -> io::Result<()> {
        self.send(Some(*to), data)
    }

    /// Sends one datagram to the peer of a connected socket, and returns its size in bytes.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to); `EDESTADDRREQ` or `ENOTCONN` for a socket without a peer.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.send(None, data).map(|()| data.len())
    }

    fn send(&self, to: Option<Address>, data: &[u8]) -> io::Result<()> {
        let is_panicking = std::thread::panicking();
        // Elsewhere, the calls below would panic.
        if is_panicking && !fibers::runs_on(self.core.event_loop()) {
            return Err(self.failed("send on", fibers::Interrupt::Cancelled.into()));
        }
        fibers::check().map_err(|interrupt| self.failed("send on", interrupt.into()))?;
        let sent = within(self.write_timeout.get(), || {
            if self.write_timeout.get().is_some_and(|timeout| timeout.is_zero()) {
                fibers::check()?;
            }
            if self.core.try_send_to(data, to)? {
                return Ok(());
            }
            if is_panicking {
                // Parking now would show the thread's panic to other fibers.
                return Err(fibers::Interrupt::Cancelled.into());
            }
            check_loop(self.core.event_loop())?;
            let result = fibers::wait_for_completion(
                &mut SendTo::new(self.core.clone(), to),
                |machine, waiter| {
                    machine.poll(waiter, &mut || {
                        // SAFETY: `wait_for_completion` returns only once the machine is ready, when no send is in
                        // flight; `data` is borrowed until then.
                        SendData::Lent(unsafe { LentBytes::new(data) })
                    })
                },
                SendTo::cancel,
                |_| reason_of("send on", &*self.core),
            );
            let is_canceled = |error: &io::Error| error.raw_os_error() == Some(libc::ECANCELED);
            result.map_err(|error| match fibers::pending_interrupt() {
                Some(interrupt) if is_canceled(&error) => {
                    // Consumes the interrupt, so that the next wait does not raise it again.
                    let _ = fibers::check();
                    interrupt.into()
                }
                _ => error,
            })
        });
        sent.map_err(|error| match to {
            Some(address) if !self.core.is_closed() => OperationError::wrap("send to", address, error),
            _ => self.failed("send on", error),
        })
    }

    /// Shuts down one or both directions of a connected socket (`shutdown(2)`). Does not wait. After that of reading, a
    /// receive returns what has arrived, and then no bytes, from an unnamed address.
    ///
    /// # Errors
    ///
    /// The kernel's, such as not being connected; [`Closed`].
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let done = self.core.shutdown(how);
        done.map_err(|error| self.failed("shutdown of", error))
    }

    /// The address that the socket is bound to (`getsockname(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's.
    pub fn localname(&self) -> io::Result<Address> {
        self.core.check_open()?;
        local_address(self.core.socket()?)
    }

    /// The address of the peer (`getpeername(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as not being connected.
    pub fn peername(&self) -> io::Result<Address> {
        self.core.check_open()?;
        peer_address(self.core.socket()?)
    }

    /// Sets an option of the socket.
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`].
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.core.set_option(option)
    }

    /// Sets how long each receive may wait before it fails with `TimedOut`: with `None`, indefinitely; with zero, not
    /// at all.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout.set(timeout);
    }

    /// Sets how long each send may wait before it fails with `TimedOut`: with `None`, indefinitely; with zero, nothing
    /// is sent, as by [`Stream::set_write_timeout`](crate::Stream::set_write_timeout).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout.set(timeout);
    }

    /// Closes the socket. Operations in flight are cancelled; fibers that wait in them get [`Closed`]. Unread datagrams
    /// are dropped. The port is free when this returns: it blocks the thread until the kernel has ended the operations
    /// ([`EventLoop::cancel_and_wait`]). Closing again does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> io::Error {
        if self.core.is_closed() {
            return OperationError::wrap(operation, "a closed socket", Closed.into());
        }
        match self.core.socket().and_then(local_address) {
            Ok(address) => OperationError::wrap(operation, address, error),
            Err(_) => OperationError::wrap(operation, "a socket", error),
        }
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl AsRawFd for DatagramSocket {
    /// For queries of the socket's state. Receiving on the descriptor takes datagrams away from this socket; after
    /// [`close`](Self::close), the number may refer to another file.
    fn as_raw_fd(&self) -> RawFd {
        self.core.descriptor()
    }
}
