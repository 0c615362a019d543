//! Looks up names on another thread, as `getaddrinfo(3)` blocks.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;

use nix::sys::socket::{SockType, SockaddrLike, SockaddrStorage};
use ringspun_runtime::{BlockingCall, BlockingKind, EventLoop, Wake};

use crate::address::Address;
use crate::endpoint::{Endpoint, Place};

// As in illumos's `netdb.h`; the libc crate does not have it.
#[cfg(target_os = "illumos")]
const PASSIVE: libc::c_int = 0x0008;
#[cfg(not(target_os = "illumos"))]
const PASSIVE: libc::c_int = libc::AI_PASSIVE;

/// The kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// An ordered stream of bytes: TCP, or a Unix stream socket.
    Stream,
    /// Separate messages: UDP, or a Unix datagram socket.
    Datagram,
}

impl SocketKind {
    pub(crate) fn socket_type(self) -> SockType {
        match self {
            Self::Stream => SockType::Stream,
            Self::Datagram => SockType::Datagram,
        }
    }
}

/// A query to the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// A name or a numeric address; `None` for this machine.
    pub host: Option<String>,
    /// A port number, or a name from `services(5)`; `None` for port 0.
    pub service: Option<String>,
    /// The kind of socket that the addresses are for.
    pub kind: SocketKind,
    /// Whether the socket is to listen (`AI_PASSIVE`).
    pub passive: bool,
}

impl Query {
    /// The address of a numeric host and port, which needs no resolver; `None` for others.
    pub fn numeric(&self) -> Option<Address> {
        let port = self.service.as_deref().unwrap_or("0");
        // The parser would also accept a sign.
        let port: u16 = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
        let ip: IpAddr = self.host.as_deref()?.parse().ok()?;
        Some(SocketAddr::new(ip, port).into())
    }

    /// Calls `getaddrinfo(3)`, which blocks the thread. Returns the addresses in the order in which to try them
    /// (RFC 6724).
    ///
    /// # Errors
    ///
    /// The resolver's, with its text; one of our own if the host or the service contains a zero byte.
    pub fn ask(&self) -> Result<Vec<Address>, ResolveError> {
        let c_string = |text: &String| {
            CString::new(text.as_str())
                .map_err(|_| ResolveError::new(format!("{text:?}: expected a name without a zero byte")))
        };
        let host = self.host.as_ref().map(c_string).transpose()?;
        // Without a host, a service is required.
        let own = self.host.is_none().then(|| "0".to_string());
        let service = self.service.as_ref().or(own.as_ref()).map(c_string).transpose()?;
        // SAFETY: a zeroed addrinfo is a valid set of hints.
        let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
        hints.ai_family = libc::AF_UNSPEC;
        hints.ai_socktype = self.kind.socket_type() as libc::c_int;
        hints.ai_flags = if self.passive { PASSIVE } else { 0 };
        let mut list = std::ptr::null_mut();
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the strings are terminated; they, the hints and `list`, which receives the result, outlive the call.
        let code = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &mut list) };
        if code != 0 {
            // SAFETY: gai_strerror returns a static, terminated string for every code.
            let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
            return Err(ResolveError::new(text.to_string_lossy().into_owned()));
        }
        let mut addresses = Vec::new();
        let mut next = list;
        // SAFETY: the resolver's list is valid until it is freed below; each entry states the length of its address.
        while let Some(entry) = unsafe { next.as_ref() } {
            // SAFETY: as above.
            let address = unsafe { SockaddrStorage::from_raw(entry.ai_addr, Some(entry.ai_addrlen)) };
            addresses.extend(address.map(Address::from_raw));
            next = entry.ai_next;
        }
        // SAFETY: the list came from getaddrinfo, and nothing refers to it.
        unsafe { libc::freeaddrinfo(list) };
        Ok(addresses)
    }
}

/// The failure of a lookup, with the resolver's text (`gai_strerror(3)`). As an [`io::Error`], its kind is `NotFound`,
/// even if the failure is temporary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    text: String,
}

impl ResolveError {
    fn new(text: String) -> Self {
        Self { text }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ResolveError {}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> Self {
        Self::new(io::ErrorKind::NotFound, format!("could not get address info: {error}"))
    }
}

/// Looks up addresses. If it is dropped before the lookup ends, the result is discarded.
#[derive(Debug)]
pub struct Resolve {
    state: State,
}

#[derive(Debug)]
enum State {
    Answered(Result<Vec<Address>, ResolveError>),
    Asking(BlockingCall<Result<Vec<Address>, ResolveError>>),
}

impl Resolve {
    /// Starts a lookup. The result for a numeric host and port is available immediately; others are looked up on
    /// another thread.
    pub fn new(event_loop: &Rc<EventLoop>, query: Query) -> Self {
        let state = match query.numeric() {
            Some(address) => State::Answered(Ok(vec![address])),
            None => match event_loop.call_blocking_of(BlockingKind::Lookup, move || query.ask()) {
                Ok(call) => State::Asking(call),
                Err(error) => State::Answered(Err(ResolveError::new(error.to_string()))),
            },
        };
        Self { state }
    }

    /// Makes a lookup on this thread, which it may block.
    pub fn blocking(query: &Query) -> Self {
        Self { state: State::Answered(query.numeric().map_or_else(|| query.ask(), |it| Ok(vec![it]))) }
    }

    /// A lookup whose result is known.
    pub fn known(address: Address) -> Self {
        Self { state: State::Answered(Ok(vec![address])) }
    }

    /// Starts the lookup of an endpoint.
    pub(crate) fn endpoint(
        event_loop: &Rc<EventLoop>,
        endpoint: &Endpoint,
        kind: SocketKind,
        passive: bool,
    ) -> io::Result<Self> {
        match endpoint.place() {
            Place::Exact(address) => Ok(Self::known(*address)),
            Place::Host { host, service } => {
                check_port(service)?;
                check_text(host)?;
                check_text(service)?;
                let (host, service) = (Some(host.clone()), Some(service.clone()));
                Ok(Self::new(event_loop, Query { host, service, kind, passive }))
            }
        }
    }

    /// Ready with the addresses, in the order in which to try them.
    ///
    /// # Errors
    ///
    /// The resolver's.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Result<Vec<Address>, ResolveError>> {
        match &mut self.state {
            State::Answered(answer) => Poll::Ready(answer.clone()),
            State::Asking(call) => call.poll(waiter).map(|answer| {
                // Not expected: the resolver is C code, and the code around it does not panic.
                answer.unwrap_or_else(|_| Err(ResolveError::new("the lookup panicked".to_string())))
            }),
        }
    }
}

/// Rejects ports that the resolver would silently truncate to 16 bits.
fn check_port(service: &str) -> io::Result<()> {
    let is_number = service.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && service.parse::<u16>().is_err() {
        let message = format!("port {service}: expected 0 to 65535");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// Rejects what no name contains, which the resolver would not see.
fn check_text(text: &str) -> io::Result<()> {
    if text.contains('\0') {
        let message = format!("{text:?}: expected a name without a zero byte");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(host: &str, service: &str) -> Query {
        let (host, service) = (Some(host.to_string()), Some(service.to_string()));
        Query { host, service, kind: SocketKind::Stream, passive: false }
    }

    #[test]
    fn numeric_addresses_need_no_resolver_and_agree_with_it() {
        for (host, port) in [("127.0.0.1", "7000"), ("::1", "0"), ("0.0.0.0", "65535")] {
            let query = query(host, port);
            assert_eq!(query.ask().unwrap(), [query.numeric().unwrap()]);
        }
        for (host, port) in [("localhost", "80"), ("127.0.0.1", "http"), ("127.0.0.1", "+80"), ("1.1", "1")] {
            assert_eq!(query(host, port).numeric(), None, "{host} {port}");
        }
    }

    #[test]
    fn what_cannot_be_looked_up_says_why() {
        assert!(query("127.0.0.1", "no such service").ask().is_err());
        assert!(query("a\0b", "1").ask().unwrap_err().to_string().contains("zero byte"));
        assert!(check_port("65536").unwrap_err().to_string().contains("port 65536: expected 0 to 65535"));
    }
}
