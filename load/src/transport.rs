//! The socket of one connection, and how it is made.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use ringspun_fibers::{self as fibers, FiberBuilder};
use ringspun_net::{self as net, Address, DatagramSocket, Endpoint, SocketOption, Stream};

use crate::outcome::ErrorKind;
use crate::plan::Plan;
use crate::target::Target;

/// The stack of a fiber that only reads.
const SINK_STACK_SIZE_BYTES: usize = 32 * 1024;

/// Where the target is: all the addresses that its name stands for.
#[derive(Clone)]
pub(crate) struct Place {
    kind: Kind,
    addresses: Vec<Address>,
    /// The address that answered last, which is tried first.
    preferred: Cell<usize>,
    /// Where connections come from, in turn; empty where the kernel chooses.
    sources: Vec<IpAddr>,
    next_source: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Place {
    /// Looks the target up, for as long as the timeout allows.
    pub(crate) fn look_up(plan: &Plan) -> io::Result<Self> {
        let Plan { target, timeout, sources, .. } = plan;
        let timeout = *timeout;
        let look_up = |endpoint: &Endpoint| fibers::with_deadline(timeout, || net::addresses(endpoint));
        let (kind, addresses) = match target {
            Target::Tcp(endpoint) => (Kind::Tcp, look_up(endpoint)?),
            Target::Udp(endpoint) => (Kind::Udp, look_up(endpoint)?),
            Target::Unix(address) => (Kind::Unix, vec![*address]),
            Target::Http(http) => (Kind::Tcp, look_up(http.endpoint())?),
        };
        let (preferred, next_source) = (Cell::new(0), Cell::new(0));
        Ok(Self { kind, addresses, preferred, sources: sources.clone(), next_source })
    }

    /// Begins with another of the source addresses, as several threads have to.
    pub(crate) fn starting_with_source(self, number: usize) -> Self {
        self.next_source.set(number.checked_rem(self.sources.len()).unwrap_or(0));
        self
    }

    /// To how many addresses connections may go.
    pub(crate) fn address_count(&self) -> usize {
        self.addresses.len()
    }

    /// The source address whose turn it is, with a port that the kernel chooses. Those of another family than
    /// the target's address are left out.
    fn take_source(&self, address: &Address) -> io::Result<Option<SocketAddr>> {
        if self.sources.is_empty() {
            return Ok(None);
        }
        for _ in &self.sources {
            let source = self.sources[self.next_source.get()];
            self.next_source.set((self.next_source.get() + 1) % self.sources.len());
            if address.as_socket_addr().is_some_and(|address| address.is_ipv4() == source.is_ipv4()) {
                return Ok(Some(SocketAddr::new(source, 0)));
            }
        }
        let text =
            format!("no source address is of the same family, IPv4 or IPv6, as the target's {address}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// Opens a connection to the first address that takes it; the timeout is for each.
    pub(crate) fn open(&self, timeout: Duration) -> io::Result<Transport> {
        let mut last_error = None;
        for offset in 0..self.addresses.len() {
            let index = (self.preferred.get() + offset) % self.addresses.len();
            match self.open_at(self.addresses[index], timeout) {
                Ok(transport) => {
                    self.preferred.set(index);
                    return Ok(transport);
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    fn open_at(&self, address: Address, timeout: Duration) -> io::Result<Transport> {
        let source = self.take_source(&address)?;
        if self.kind == Kind::Udp {
            return match source {
                None => net::connect_datagram(address),
                Some(source) => net::connect_datagram_from(source, address),
            }
            .map(Transport::Datagrams);
        }
        let stream = fibers::with_deadline(timeout, || match source {
            None => net::connect(address),
            Some(source) => net::connect_from(source, address),
        })?;
        if self.kind == Kind::Tcp {
            // The last part of a long message must not wait for an acknowledgement of the parts before it.
            stream.set_option(SocketOption::NoDelay(true))?;
        }
        Ok(Transport::Stream(stream))
    }
}

/// The socket of one connection.
pub(crate) enum Transport {
    Stream(Stream),
    Sink(Sink),
    Datagrams(DatagramSocket),
}

/// A stream that is only written to. What the target sends is read and dropped, as its buffers would fill up
/// otherwise, and it might stop reading.
pub(crate) struct Sink {
    stream: Rc<Stream>,
}

impl Sink {
    pub(crate) fn new(stream: Stream) -> io::Result<Self> {
        let stream = Rc::new(stream);
        let read = stream.clone();
        // An error here is met by the writer as well.
        let drain = move || while let Ok(Some(_)) = read.receive() {};
        FiberBuilder::new().stack_size_bytes(SINK_STACK_SIZE_BYTES).spawn(drain)?;
        Ok(Self { stream })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Drop for Sink {
    /// The reader holds the stream, too, and ends by this.
    fn drop(&mut self) {
        self.stream.close();
    }
}

/// What kept a connection from being made.
pub(crate) fn connect_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimedOut,
        _ => ErrorKind::ConnectFailed,
    }
}

/// The text of such an error, with its reason where that is not plain.
pub(crate) fn describe_connect_error(error: &io::Error) -> String {
    match net::errno_of(error) {
        Some(number) if number == Errno::EADDRNOTAVAIL as i32 => format!(
            "{error}: no local port is free for the target; each is taken as long as its connection is open, and \
             for about a minute after it was closed on this side; more source addresses (--bind) have more ports"
        ),
        _ => error.to_string(),
    }
}

/// What ended a request, other than the timeout.
pub(crate) fn request_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            ErrorKind::Reset
        }
        _ => ErrorKind::Failed,
    }
}
