//! Opens connections: resolves the target, and connects sockets.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use ringspun_fibers::{self as fibers, FiberBuilder};
use ringspun_net::{self as net, Address, DatagramSocket, Endpoint, SocketOption};
use ringspun_tls::{self as tls, ClientConfig};

#[cfg(feature = "http2")]
use crate::http2::Session;
use crate::link::{Handshake, Link, NotAgreed};
use crate::outcome::ErrorKind;
use crate::plan::Plan;
use crate::target::{Detour, Target};
#[cfg(feature = "websocket")]
use crate::websocket_client::Conversation;

/// The stack of the fiber that drains a sink.
const SINK_STACK_SIZE_BYTES: usize = 32 * 1024;
/// The stack of fibers that speak TLS, HTTP/2 or WebSocket; untouched pages take no memory.
pub(crate) const LARGE_STACK_SIZE_BYTES: usize = 1024 * 1024;

/// Of how many addresses of a name that cannot be reached the errors are shown.
const SHOWN_ERRORS_MAX: usize = 4;

/// The resolved target: all addresses of its name.
#[derive(Clone)]
pub(crate) struct Destination {
    kind: Kind,
    addresses: Vec<Address>,
    /// The address that is tried next; connections are distributed over all of them.
    next_address: Cell<usize>,
    /// The addresses whose last connection could not be opened; they are tried last.
    is_failing: Vec<Cell<bool>>,
    /// Source addresses, used in turn; if empty, the kernel chooses.
    sources: Vec<IpAddr>,
    next_source: Cell<usize>,
    /// With TLS: the configuration, and the name that certificates must be for.
    tls: Option<(ClientConfig, String)>,
    /// The other servers that redirects may lead to.
    pub(crate) others: Vec<Destination>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Destination {
    /// Resolves the target, within the timeout.
    pub(crate) fn resolve(plan: &Plan) -> io::Result<Self> {
        let mut destination = Self::of(plan, plan.detour.as_ref(), &plan.target)?;
        let others = plan.follow_to.iter().map(|other| Self::of(plan, None, &Target::Http(other.clone())));
        destination.others = others.collect::<io::Result<_>>()?;
        Ok(destination)
    }

    fn of(plan: &Plan, detour: Option<&Detour>, target: &Target) -> io::Result<Self> {
        let (timeout, sources) = (plan.timeout, &plan.sources);
        let look_up = |endpoint: &Endpoint| fibers::with_time_limit(timeout, || net::addresses(endpoint));
        let (kind, addresses) = match (detour, target) {
            (Some(Detour::Unix(address)), _) | (None, Target::Unix(address)) => (Kind::Unix, vec![*address]),
            (Some(Detour::Host(endpoint)), _) => (Kind::Tcp, look_up(endpoint)?),
            (None, Target::Udp(endpoint)) => (Kind::Udp, look_up(endpoint)?),
            (None, Target::Tcp(endpoint) | Target::Tls(endpoint)) => (Kind::Tcp, look_up(endpoint)?),
            (None, Target::Http(http) | Target::WebSocket(http)) => (Kind::Tcp, look_up(http.endpoint())?),
        };
        let others = Vec::new();
        let tls = match target.tls_host() {
            Some(host) => Some((plan.tls.config(if plan.http2 { &["h2"] } else { &[] })?, host)),
            None => None,
        };
        let (next_address, next_source) = (Cell::new(0), Cell::new(0));
        let is_failing = addresses.iter().map(|_| Cell::new(false)).collect();
        let sources = sources.clone();
        Ok(Self { kind, addresses, next_address, is_failing, sources, next_source, tls, others })
    }

    /// No address, for a run that is stopped before its target was found.
    pub(crate) fn nowhere() -> Self {
        Self {
            kind: Kind::Tcp,
            addresses: Vec::new(),
            next_address: Cell::new(0),
            is_failing: Vec::new(),
            sources: Vec::new(),
            next_source: Cell::new(0),
            tls: None,
            others: Vec::new(),
        }
    }

    /// Starts with another source address; each thread starts with a different one.
    pub(crate) fn starting_with_source(self, number: usize) -> Self {
        for destination in self.others.iter().chain([&self]) {
            destination.next_source.set(number.checked_rem(self.sources.len()).unwrap_or(0));
        }
        self
    }

    /// The number of addresses that connections may go to.
    pub(crate) fn address_count(&self) -> usize {
        self.addresses.len()
    }

    /// The next source address of the target's family, with a port chosen by the kernel.
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
            format!("no source address has the family (IPv4 or IPv6) of the target's address {address}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// Opens a connection to the next address, or to the first one that accepts it. The timeout applies to each
    /// address.
    pub(crate) fn open(&self, timeout: Duration) -> io::Result<Transport> {
        let count = self.addresses.len();
        let first = self.next_address.get();
        self.next_address.set((first + 1) % count.max(1));
        let in_turn = || (first..first + count).map(|index| index % count);
        let working: Vec<usize> = match count {
            1 => vec![0],
            _ => in_turn().filter(|index| !self.is_failing[*index].get()).collect(),
        };
        let failing = in_turn().filter(|index| !working.contains(index));
        let mut errors = Vec::new();
        for index in working.iter().copied().chain(failing) {
            let opened = self.open_at(self.addresses[index], timeout);
            self.is_failing[index].set(opened.is_err());
            match opened {
                Ok(transport) => return Ok(transport),
                Err(error) => errors.push(error),
            }
        }
        Err(together(errors))
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
        let connect = || {
            let stream = match source {
                None => net::connect(address),
                Some(source) => net::connect_from(source, address),
            }?;
            if self.kind == Kind::Tcp {
                // Without it, the end of a long message would wait for the acknowledgement of its beginning.
                stream.set_option(SocketOption::NoDelay(true))?;
            }
            match &self.tls {
                None => Ok(Link::Plain(stream)),
                Some((config, host)) => Link::secure(stream, host, config),
            }
        };
        fibers::with_time_limit(timeout, connect).map(Transport::Stream)
    }
}

/// The socket of one connection.
pub(crate) enum Transport {
    Stream(Link),
    Sink(Sink),
    Datagrams(DatagramSocket),
    #[cfg(feature = "http2")]
    Http2(Rc<Session>),
    #[cfg(feature = "websocket")]
    WebSocket(Box<Conversation>),
}

impl Transport {
    /// The handshake of a stream with TLS.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        match self {
            Self::Stream(link) => link.handshake(),
            Self::Sink(sink) => sink.stream.handshake(),
            Self::Datagrams(_) => None,
            #[cfg(feature = "http2")]
            Self::Http2(session) => session.handshake(),
            #[cfg(feature = "websocket")]
            Self::WebSocket(conversation) => conversation.handshake(),
        }
    }
}

impl Transport {
    /// How many requests the target allows at once on the connection, where it says so.
    pub(crate) fn streams_allowed(&self) -> Option<usize> {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(session) => Some(session.streams_allowed()),
            _ => None,
        }
    }
}

/// A stream that is only written to. What the target sends is read and discarded: otherwise buffers would fill
/// up, and the target might stop reading.
pub(crate) struct Sink {
    stream: Rc<Link>,
}

impl Sink {
    pub(crate) fn new(stream: Link) -> io::Result<Self> {
        let stream = Rc::new(stream);
        let read = stream.clone();
        // The writer gets any error as well.
        let drain = move || while let Ok(Some(_)) = read.receive() {};
        let stack = if stream.handshake().is_some() { LARGE_STACK_SIZE_BYTES } else { SINK_STACK_SIZE_BYTES };
        FiberBuilder::new().stack_size_bytes(stack).spawn(drain)?;
        Ok(Self { stream })
    }

    pub(crate) fn stream(&self) -> &Link {
        &self.stream
    }
}

impl Drop for Sink {
    /// Ends the draining fiber, which also holds the stream.
    fn drop(&mut self) {
        self.stream.close();
    }
}

/// The kind of an error of connecting.
pub(crate) fn connect_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        _ if tls::tls_error_of(error).is_some() || NotAgreed::is(error) => ErrorKind::HandshakeFailed,
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimedOut,
        _ => ErrorKind::ConnectFailed,
    }
}

/// Describes an error of connecting, with the cause where the kernel's text does not say it.
pub(crate) fn describe_connect_error(error: &io::Error) -> String {
    match net::errno_of(error) {
        Some(number) if number == Errno::EADDRNOTAVAIL as i32 => format!(
            "{error}: no local port is free; a port stays in use until about a minute after its connection was \
             closed on this side; more source addresses (--bind) have more ports"
        ),
        _ => error.to_string(),
    }
}

/// The errors of all addresses of a name, as one of the kind of the first. One of a connection that was established, or
/// that the run was stopped, goes before.
fn together(mut errors: Vec<io::Error>) -> io::Error {
    // No source address has the family, for instance.
    let is_ours = |kind| matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::InvalidInput);
    let is_unreachable = |error: &io::Error| net::errno_of(error).is_some() || is_ours(error.kind());
    match errors.iter().rposition(|error| !is_unreachable(error)) {
        Some(at) => return errors.swap_remove(at),
        None if errors.len() == 1 => return errors.swap_remove(0),
        None => {}
    }
    let kind = errors.first().map_or(io::ErrorKind::NotFound, io::Error::kind);
    let mut texts: Vec<String> = errors.iter().take(SHOWN_ERRORS_MAX).map(describe_connect_error).collect();
    match errors.len().saturating_sub(SHOWN_ERRORS_MAX) {
        _ if errors.is_empty() => texts.push("the name has no address".to_string()),
        0 => {}
        more => texts.push(format!("and {more} more addresses that cannot be reached")),
    }
    io::Error::new(kind, texts.join("; "))
}

/// The kind of an error of a request, other than a timeout.
pub(crate) fn request_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            ErrorKind::Reset
        }
        // A close without a close_notify: as if the connection had been reset, what was on its way is lost.
        _ if tls::is_cut(error) => ErrorKind::Reset,
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn to(addresses: Vec<Address>) -> Destination {
        Destination {
            kind: Kind::Tcp,
            is_failing: addresses.iter().map(|_| Cell::new(false)).collect(),
            addresses,
            ..Destination::nowhere()
        }
    }

    #[test]
    fn all_addresses_that_cannot_be_reached_are_told() {
        let listeners: Vec<_> =
            (1..=6).map(|last| TcpListener::bind(format!("127.0.0.{last}:0")).unwrap()).collect();
        let addresses: Vec<Address> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().into()).collect();
        drop(listeners);
        let error_of = |addresses: &[Address]| {
            let addresses = addresses.to_vec();
            fibers::run(move || to(addresses).open(Duration::from_secs(60)).err().unwrap()).unwrap()
        };
        let error = error_of(&addresses[..2]);
        let refused = |address: &Address| format!("connect to {address}: Connection refused (os error 111)");
        assert_eq!(error.to_string(), format!("{}; {}", refused(&addresses[0]), refused(&addresses[1])));
        assert_eq!(connect_error_kind(&error), ErrorKind::Refused);
        let error = error_of(&addresses).to_string();
        assert!(error.ends_with("; and 2 more addresses that cannot be reached"), "{error}");
        assert_eq!(error_of(&[]).to_string(), "the name has no address");
        // One that says more goes before.
        let handshake = io::Error::other("no agreement");
        let errors = vec![
            io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32),
            handshake,
            io::ErrorKind::TimedOut.into(),
        ];
        assert_eq!(together(errors).to_string(), "no agreement");
    }

    #[test]
    fn connections_are_distributed_over_the_addresses_that_accept_them() {
        let listeners =
            ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"].map(|text| TcpListener::bind(text).unwrap());
        let addresses: Vec<Address> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().into()).collect();
        let [first, refusing, last] = listeners;
        drop(refusing);
        let peers = fibers::run(move || {
            let destination = to(addresses);
            let open = |_| match destination.open(Duration::from_secs(60)).unwrap() {
                Transport::Stream(Link::Plain(stream)) => stream.peername().unwrap(),
                _ => panic!("it is a stream"),
            };
            (0..6).map(open).collect::<Vec<_>>()
        });
        let peers = peers.unwrap();
        for listener in [first, last] {
            let address: Address = listener.local_addr().unwrap().into();
            assert!(peers.iter().filter(|peer| **peer == address).count() >= 2, "{address} of {peers:?}");
        }
    }
}
