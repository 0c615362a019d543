//! Listeners for fibers.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use ringspun_fibers::{self as fibers, Pollable, WaitReason};
use ringspun_runtime::{EventLoop, Wake};

use crate::address::{Address, local_address};
use crate::endpoint::Peer;
use crate::error::{OperationError, errno_of, interrupt_of, is_closed};
use crate::machine::{Accept, EXHAUSTED_PAUSE, ListenerCore, Reuse, SocketKind, is_exhausted, listen_on};
use crate::options::SocketOption;
use crate::stream::Stream;
use crate::waiting::{check_loop, current_loop, reason_of, resolve, wait_on};

/// How often [`Listener::accept_loop`] logs that it has run out of descriptors or memory.
const WARNING_PERIOD: Duration = Duration::from_secs(10);

/// A listening socket, from [`listen`] or [`server`]. Dropping it closes it, as [`close`](Self::close) does.
///
/// On a busy listener, connections are accepted ahead: about 64 wait in the process, further ones in the kernel.
#[derive(Debug)]
pub struct Listener {
    pub(crate) core: Rc<ListenerCore>,
}

/// Logs that connections wait because a limit is reached, unless that was logged recently.
#[cold]
fn warn_of_exhaustion(error: &io::Error) {
    /// Of all listeners, as the limits are the process's.
    static WARNED_AT: Mutex<Option<Instant>> = Mutex::new(None);
    let now = Instant::now();
    // Another thread that has the lock warns.
    let Ok(mut warned_at) = WARNED_AT.try_lock() else { return };
    if warned_at.is_some_and(|warned_at| now - warned_at < WARNING_PERIOD) {
        return;
    }
    *warned_at = Some(now);
    drop(warned_at);
    let limit = match (errno_of(error), getrlimit(Resource::RLIMIT_NOFILE)) {
        (Some(libc::EMFILE), Ok((soft, _))) => format!("the limit on open files (RLIMIT_NOFILE) is {soft}"),
        (Some(libc::ENFILE), _) => "the system's limit on open files (fs.file-max) is reached".to_string(),
        _ => "the kernel is out of memory for sockets".to_string(),
    };
    tracing::warn!(%error, "new connections wait: {limit}");
}

/// Listens for TCP connections, or on a Unix stream socket. With port 0, the kernel chooses one;
/// [`Listener::localname`] returns it.
///
/// As with [`std::net::TcpListener`], `SO_REUSEADDR` is set (`socket(7)`), and a second listener on the same port is
/// `AddrInUse`. As in Janet's `net/listen`, up to 1,024 connections wait in the kernel, or as many as
/// `net.core.somaxconn` allows. Binds the first address of a name that can be bound. Parks during the lookup of a
/// name.
///
/// The path of a Unix socket must not exist: an existing file, even the socket of a server that has ended, is not
/// replaced, and a symbolic link is not followed. The path is not removed when the listener is closed. The `umask(2)`
/// of the process determines who may connect, as in Janet (`unix(7)`): connecting requires write permission, so with
/// the usual 022, only the same user and root may. Set the umask before this call, or use a directory that others
/// cannot enter: changing the permissions afterwards leaves a window. Abstract names (`@`) have no permissions: any
/// process in the same network namespace can connect.
///
/// # Errors
///
/// The resolver's or the kernel's, with the address in the text; an interrupt of the fiber; `InvalidInput` if the
/// address cannot be parsed; `Unsupported` outside of a runtime.
///
/// # Panics
///
/// Outside of a fiber on a thread that has a runtime.
pub fn listen(address: impl Peer) -> io::Result<Listener> {
    let endpoint = address.endpoint()?;
    let event_loop = current_loop()?;
    let listened = resolve(&event_loop, &endpoint, SocketKind::Stream, true)
        .and_then(|addresses| listen_on(&addresses, SocketKind::Stream, Reuse::Address));
    let descriptor = listened.map_err(|error| OperationError::wrap("listen", &endpoint, error))?;
    Ok(Listener { core: ListenerCore::new(event_loop, descriptor) })
}

/// Listens at an address and serves each connection by `handler` in a fiber of its own, in the background, as Janet's
/// `net/server` does: [`listen`], and [`Listener::accept_loop`] in a fiber.
///
/// That fiber also holds the listener: it serves until [`Listener::close`] or the end of the runtime, and dropping the
/// returned value does not stop it.
///
/// # Errors
///
/// As [`listen`], and as [`FiberBuilder::spawn`](fibers::FiberBuilder::spawn).
pub fn server(address: impl Peer, handler: impl Fn(Stream) + 'static) -> io::Result<Rc<Listener>> {
    let listener = Rc::new(listen(address)?);
    let accepting = listener.clone();
    fibers::spawn(move || {
        match accepting.accept_loop(handler) {
            Err(error) if interrupt_of(&error).is_none() => {
                tracing::error!(%error, "a server stopped accepting");
            }
            // Closed, or cancelled at the end of the runtime.
            _ => {}
        }
    })?;
    Ok(listener)
}

impl Listener {
    /// Parks until a connection arrives, and returns it.
    ///
    /// # Errors
    ///
    /// The kernel's, such as running out of descriptors (`EMFILE`, `ENFILE`), after which the caller may retry;
    /// [`Closed`](crate::Closed) once the listener is closed; an interrupt of the fiber. A connection that arrives
    /// after an interrupt is kept for the next call. Connections that end before they are accepted are skipped, as
    /// `accept(2)` recommends.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn accept(&self) -> io::Result<Stream> {
        self.accept_descriptor()
            .map(|connection| Stream::from_descriptor(self.core.event_loop().clone(), connection))
    }

    /// As [`accept`](Self::accept), with the address of the peer. A connection that has ended by then is skipped.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn accept_with_peer(&self) -> io::Result<(Stream, Address)> {
        loop {
            let stream = self.accept()?;
            match stream.peername() {
                Ok(peer) => return Ok((stream, peer)),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`accept`](Self::accept), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no connection is there yet; otherwise as [`accept`](Self::accept).
    pub fn try_accept(&self) -> io::Result<Stream> {
        let connection = self.core.check_open().and_then(|()| match self.core.try_take(usize::MAX) {
            Some(connection) => Ok(connection),
            None => self.core.input_ended().and_then(|_| Err(io::ErrorKind::WouldBlock.into())),
        });
        match connection {
            Ok(connection) => Ok(Stream::from_descriptor(self.core.event_loop().clone(), connection)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The next connection, to be waited for in a [`Select`](fibers::Select): gives what [`accept`](Self::accept) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, Select, sync::Notify};
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (plain, admin) = (net::listen("127.0.0.1:0")?, net::listen("127.0.0.1:0")?);
    ///     let is_to_end = Notify::new();
    ///     let client = net::connect(admin.localname()?)?;
    ///     let event = Select::new()
    ///         .on(is_to_end.notified(), |()| "end")
    ///         .on(plain.accepting(), |_| "request")
    ///         .on(admin.accepting(), |_| "command")
    ///         .wait()?;
    ///     assert_eq!(event, "command");
    ///     client.close();
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn accepting(&self) -> Accepting<'_> {
        Accepting { listener: self, waiter: None }
    }

    fn accept_descriptor(&self) -> io::Result<OwnedFd> {
        let machine = Accept::new(self.core.clone());
        wait_on(self.core.event_loop(), machine, None, Accept::poll, Accept::abandon, |_| {
            reason_of("accept on", &*self.core)
        })
        .map_err(|error| self.failed(error))
    }

    /// Adopts a socket that listens, and does not block.
    pub(crate) fn from_descriptor(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Self {
        Self { core: ListenerCore::new(event_loop, descriptor) }
    }

    /// Accepts connections until the listener is closed, and serves each by `handler` in a fiber of its own, as
    /// Janet's `net/accept-loop` does. When descriptors or memory run out, it retries every 50 ms, and logs a
    /// warning that names the limit, at most every 10 seconds. A panic in a handler ends only its own connection.
    ///
    /// # Errors
    ///
    /// Any error of [`accept`](Self::accept) other than being closed or out of resources. An interrupt ends the loop,
    /// but not the fibers that it has started.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let listener = Rc::new(net::listen("127.0.0.1:0")?);
    ///     let address = listener.localname()?;
    ///     let closing = listener.clone();
    ///     fibers::spawn(move || {
    ///         let client = net::connect(address).unwrap();
    ///         assert_eq!(&*client.receive().unwrap().unwrap(), b"hello");
    ///         closing.close();
    ///     })?;
    ///     // Returns when the listener is closed.
    ///     listener.accept_loop(|stream| {
    ///         stream.write(b"hello").unwrap();
    ///     })
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn accept_loop(&self, handler: impl Fn(Stream) + 'static) -> io::Result<()> {
        let handler = Rc::new(handler);
        self.accept_each(|connection| {
            let stream = Stream::from_descriptor(self.core.event_loop().clone(), connection);
            let handler = handler.clone();
            fibers::spawn(move || handler(stream)).is_ok()
        })
    }

    /// Accepts connections until the listener is closed, and passes each to `serve`, which returns false if it has
    /// dropped the connection because memory has run out.
    pub(crate) fn accept_each(&self, mut serve: impl FnMut(OwnedFd) -> bool) -> io::Result<()> {
        loop {
            let connection = match self.accept_descriptor() {
                Ok(connection) => connection,
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) if is_exhausted(&error) => {
                    warn_of_exhaustion(&error);
                    fibers::sleep(EXHAUSTED_PAUSE)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !serve(connection) {
                // No memory for a stack.
                fibers::sleep(EXHAUSTED_PAUSE)?;
            }
        }
    }

    /// Closes the listener once `serve` has got all connections that wait in the kernel, which would be reset
    /// otherwise. Those that come during the last step still are.
    pub(crate) fn finish(&self, mut serve: impl FnMut(OwnedFd) -> bool) {
        while let Some(connections) = self.core.take_waiting() {
            for connection in connections {
                serve(connection);
            }
            if fibers::yield_now().is_err() {
                break;
            }
        }
        self.core.close();
    }

    /// The address that the listener is bound to (`getsockname(2)`), with the port that the kernel chose.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's.
    pub fn localname(&self) -> io::Result<Address> {
        self.core.check_open()?;
        local_address(self.core.socket()?)
    }

    /// Sets an option of the socket. Connections inherit most options (`socket(7)`, `tcp(7)`).
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`](crate::Closed).
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.core.check_open()?;
        option.set(self.core.socket()?)
    }

    /// Closes the listener. Fibers that wait in [`accept`](Self::accept) get [`Closed`](crate::Closed); connections
    /// that have not been returned are closed. The port is free when this returns: it blocks the thread until the
    /// kernel has ended the accept
    /// ([`EventLoop::cancel_and_wait`](ringspun_runtime::EventLoop::cancel_and_wait)). Closing again does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    fn failed(&self, error: io::Error) -> io::Error {
        if self.core.is_closed() {
            return OperationError::wrap("accept on", "a closed listener", error);
        }
        match self.core.socket().and_then(local_address) {
            Ok(address) => OperationError::wrap("accept on", address, error),
            Err(_) => OperationError::wrap("accept on", "a listener", error),
        }
    }
}

/// The next connection of a listener, from [`Listener::accepting`].
pub struct Accepting<'a> {
    listener: &'a Listener,
    waiter: Option<Rc<dyn Wake>>,
}

impl Pollable for Accepting<'_> {
    type Output = io::Result<Stream>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        let core = &self.listener.core;
        let polled = match check_loop(core.event_loop()) {
            Ok(()) => Accept::new(core.clone()).poll(waiter),
            Err(error) => Poll::Ready(Err(error)),
        };
        if polled.is_pending() && self.waiter.is_none() {
            self.waiter = Some(waiter.clone());
        }
        polled.map(|accepted| match accepted {
            Ok(connection) => Ok(Stream::from_descriptor(core.event_loop().clone(), connection)),
            Err(error) => Err(self.listener.failed(error)),
        })
    }

    fn reason(&self) -> WaitReason {
        reason_of("accept on", &*self.listener.core)
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            self.listener.core.leave_readers(waiter);
        }
    }
}

impl std::fmt::Debug for Accepting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accepting")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.close();
    }
}
