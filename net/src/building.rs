//! Listening and connecting with settings.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::address::Address;
use crate::connecting::{connect, connect_from};
use crate::descriptor::new_socket;
use crate::endpoint::{Endpoint, Peer};
use crate::error::OperationError;
use crate::listener::Listener;
use crate::machine::{BACKLOG, Reuse, SocketKind};
use crate::options::SocketOption;
use crate::stream::Stream;
use crate::system::{bind, listen};
use crate::waiting::{current_loop, resolve, within};

/// Settings of a listener; without any, those of [`listen`](crate::listen).
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net::{self as net, ListenBuilder};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let builder = ListenBuilder::new().backlog(16).reuse_port(true).no_delay(true);
///     let listener = builder.listen("127.0.0.1:0")?;
///     // Another one on the same port, as both allow it: the kernel distributes the connections.
///     let another = builder.listen(listener.localname()?)?;
///     assert_eq!(listener.localname()?, another.localname()?);
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ListenBuilder {
    backlog: i32,
    reuse: Reuse,
    v6_only: Option<bool>,
    no_delay: bool,
}

impl Default for ListenBuilder {
    fn default() -> Self {
        Self { backlog: BACKLOG, reuse: Reuse::Address, v6_only: None, no_delay: false }
    }
}

impl ListenBuilder {
    /// The settings of [`listen`](crate::listen).
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections wait in the kernel (`listen(2)`): 1,024 unless set, and at most `net.core.somaxconn`.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// Allows other sockets that allow it, too, on the same port (`SO_REUSEPORT` in `socket(7)`). Not for Unix sockets.
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse = if on { Reuse::Port } else { Reuse::Address };
        self
    }

    /// Whether an IPv6 listener refuses IPv4 (`IPV6_V6ONLY` in `ipv6(7)`); unless set, the system decides.
    pub fn v6_only(mut self, on: bool) -> Self {
        self.v6_only = Some(on);
        self
    }

    /// Has its connections send small segments at once (`TCP_NODELAY` in `tcp(7)`), which they inherit on Linux.
    pub fn no_delay(mut self, on: bool) -> Self {
        self.no_delay = on;
        self
    }

    /// Listens, as [`listen`](crate::listen) does.
    ///
    /// # Errors
    ///
    /// As [`listen`](crate::listen), and the kernel's for an option that the socket does not have.
    ///
    /// # Panics
    ///
    /// As [`listen`](crate::listen).
    pub fn listen(&self, address: impl Peer) -> io::Result<Listener> {
        let endpoint = address.endpoint()?;
        let event_loop = current_loop()?;
        let listened = resolve(&event_loop, &endpoint, SocketKind::Stream, true).and_then(|addresses| {
            let mut last_error = io::ErrorKind::AddrNotAvailable.into();
            for address in &addresses {
                match self.listen_on(address) {
                    Ok(descriptor) => return Ok(descriptor),
                    Err(error) => last_error = error,
                }
            }
            Err(last_error)
        });
        let descriptor = listened.map_err(|error| OperationError::wrap("listen", &endpoint, error))?;
        Ok(Listener::from_descriptor(event_loop, descriptor))
    }

    fn listen_on(&self, address: &Address) -> io::Result<OwnedFd> {
        let descriptor = new_socket(address, SocketKind::Stream)?;
        if let Some(on) = self.v6_only
            && address.as_socket_addr().is_some_and(|address| address.is_ipv6())
        {
            SocketOption::V6Only(on).set(&descriptor)?;
        }
        if self.no_delay && !address.is_unix() {
            SocketOption::NoDelay(true).set(&descriptor)?;
        }
        self.reuse.allow(&descriptor, address)?;
        bind(&descriptor, &address.raw())?;
        listen(&descriptor, self.backlog)?;
        Ok(descriptor)
    }
}

/// Settings of a connection; without any, those of [`connect`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net::{self as net, ConnectBuilder};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let listener = net::listen("127.0.0.1:0")?;
///     let builder = ConnectBuilder::new().timeout(Duration::from_secs(60)).no_delay(true).bind("127.0.0.1:0")?;
///     let client = builder.connect(listener.localname()?)?;
///     assert!(client.localname()?.to_string().starts_with("127.0.0.1:"));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConnectBuilder {
    source: Option<Endpoint>,
    timeout: Option<Duration>,
    options: Vec<SocketOption>,
}

impl ConnectBuilder {
    /// The settings of [`connect`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects from a local address, as [`connect_from`] does.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the address cannot be parsed.
    pub fn bind(mut self, source: impl Peer) -> io::Result<Self> {
        self.source = Some(source.endpoint()?);
        Ok(self)
    }

    /// How long all of it may take, the lookup of a name included, before it fails with `TimedOut`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends small segments at once (`TCP_NODELAY` in `tcp(7)`).
    pub fn no_delay(self, on: bool) -> Self {
        self.option(SocketOption::NoDelay(on))
    }

    /// Sets an option once the connection is established.
    pub fn option(mut self, option: SocketOption) -> Self {
        self.options.push(option);
        self
    }

    /// Connects, as [`connect`] does.
    ///
    /// # Errors
    ///
    /// As [`connect`] and [`connect_from`]; `TimedOut` after the timeout; the kernel's for an option that the socket
    /// does not have.
    ///
    /// # Panics
    ///
    /// As [`connect`].
    pub fn connect(&self, address: impl Peer) -> io::Result<Stream> {
        let stream = within(self.timeout, || match &self.source {
            Some(source) => connect_from(source, address),
            None => connect(address),
        })?;
        for option in &self.options {
            stream.set_option(*option)?;
        }
        Ok(stream)
    }
}
