//! Listeners for fibers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_runtime::EventLoop;

use crate::address::{Peer, local_address};
use crate::error::{OperationError, interrupt_of, is_closed};
use crate::machine::{Accept, EXHAUSTED_PAUSE, ListenerCore, is_exhausted, listen_on};
use crate::stream::Stream;

/// A socket that takes connections, from [`listen`] or [`server`]. Dropping it closes it, as
/// [`close`](Self::close) does.
///
/// Connections are accepted ahead of their takers: some 64 wait on our side, the others in the kernel.
#[derive(Debug)]
pub struct Listener {
    core: Rc<ListenerCore>,
}

/// Listens for TCP connections at an address; port 0 lets the kernel choose one, which
/// [`Listener::localname`] tells.
///
/// As in Janet's `net/listen`, `SO_REUSEADDR` and `SO_REUSEPORT` are set (`socket(7)`), and up to 1,024
/// connections wait in the kernel, or as many as `net.core.somaxconn` allows. The first address of a name
/// that can be bound is taken. A name that is not numeric blocks the thread while it is looked up.
///
/// # Errors
///
/// The resolver's or the kernel's, with the address in the text; `InvalidInput` for a text that is no
/// address; `Unsupported` outside of a runtime.
pub fn listen(address: impl Peer) -> io::Result<Listener> {
    let endpoint = address.endpoint()?;
    let event_loop = current_loop()?;
    let listened = endpoint.resolve(true).and_then(|addresses| listen_on(&addresses, true));
    let descriptor = listened.map_err(|error| OperationError::wrap("listen", &endpoint, error))?;
    Ok(Listener { core: ListenerCore::new(event_loop, descriptor) })
}

/// Listens at an address and serves each connection with `handler` in a fiber of its own, in the
/// background, as Janet's `net/server` does: [`listen`], and [`Listener::accept_loop`] in a fiber.
///
/// That fiber holds the listener too: it serves until [`Listener::close`] or the end of the runtime, and
/// dropping what this returns does not stop it.
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
            // Closed, or cancelled with its runtime: as it should be.
            _ => {}
        }
    })?;
    Ok(listener)
}

pub(crate) fn current_loop() -> io::Result<Rc<EventLoop>> {
    fibers::event_loop().ok_or_else(|| {
        let text = "no runtime of fibers runs on this thread: start one with ringspun_fibers::run";
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

impl Listener {
    /// Parks until there is a connection, and returns it.
    ///
    /// # Errors
    ///
    /// The kernel's, such as running out of descriptors (`EMFILE`, `ENFILE`), after which accepting can go
    /// on; [`Closed`](crate::Closed) once the listener is closed; an interrupt of the fiber. A connection
    /// that comes after an interrupt waits for the next call. Connections that were over before they were
    /// accepted are passed over, as `accept(2)` advises.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn accept(&self) -> io::Result<Stream> {
        fibers::check().map_err(|interrupt| self.failed(interrupt.into()))?;
        let mut machine = Accept::new(self.core.clone());
        let mut left_waiter = None;
        let accepted = fibers::wait(|waiter| {
            let polled = machine.poll(waiter);
            left_waiter = polled.is_pending().then(|| waiter.clone());
            polled
        });
        if let Some(waiter) = left_waiter {
            machine.abandon(&waiter);
        }
        match accepted {
            Ok(Ok(connection)) => Ok(Stream::from_descriptor(self.core.event_loop().clone(), connection)),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(interrupt) => Err(self.failed(interrupt.into())),
        }
    }

    /// Accepts connections until the listener is closed, each served by `handler` in a fiber of its
    /// own, as Janet's `net/accept-loop` does. When descriptors or memory run out, it waits for some to
    /// come back, 50 ms at a time. A handler that panics ends its own connection only.
    ///
    /// # Errors
    ///
    /// Any error of [`accept`](Self::accept) other than being closed or out of resources. An interrupt
    /// ends the loop, and not the fibers that it has started.
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
        loop {
            let stream = match self.accept() {
                Ok(stream) => stream,
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) if is_exhausted(&error) => {
                    fibers::sleep(EXHAUSTED_PAUSE)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let handler = handler.clone();
            if fibers::spawn(move || handler(stream)).is_err() {
                // No memory for a stack: the connection is dropped, so that there is some for others.
                fibers::sleep(EXHAUSTED_PAUSE)?;
            }
        }
    }

    /// The address that the listener is bound to (`getsockname(2)`), with the port that the kernel chose.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's.
    pub fn localname(&self) -> io::Result<SocketAddr> {
        if self.core.is_closed() {
            return Err(crate::Closed.into());
        }
        local_address(self.core.descriptor())
    }

    /// Closes the listener. Fibers that wait in [`accept`](Self::accept) get [`Closed`](crate::Closed);
    /// connections that nobody has taken are closed. The port is free when this returns, for which it
    /// blocks the thread until the kernel has let go of the socket
    /// ([`EventLoop::cancel_and_wait`]). Closing again does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    fn failed(&self, error: io::Error) -> io::Error {
        match local_address(self.core.descriptor()) {
            Ok(address) if !self.core.is_closed() => OperationError::wrap("accept on", address, error),
            _ => OperationError::wrap("accept on", "a closed listener", error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.close();
    }
}
