//! Addresses: what users write, what `getaddrinfo(3)` makes of it, and what the kernel tells.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, getpeername, getsockname};
use ringspun_runtime::Address;

/// A host and a port as the user named them; a name is resolved when it is used. Shown as `host:port`, with
/// brackets around an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    service: String,
}

impl Endpoint {
    /// `host` is a name or a numeric address, without brackets; `service` a port number from 0 to 65535 or
    /// a name from `services(5)`. Neither is looked at before the endpoint is resolved.
    pub fn new(host: impl Into<String>, service: impl Into<String>) -> Self {
        Self { host: host.into(), service: service.into() }
    }

    /// The addresses of this endpoint, in the order in which they should be tried (RFC 6724). `passive` is
    /// for listening.
    ///
    /// Blocks the thread for names that are not numeric, for as long as the resolver takes; no interrupt
    /// ends it.
    ///
    /// # Errors
    ///
    /// `NotFound`, with the text of a [`ResolveError`].
    pub fn resolve(&self, passive: bool) -> io::Result<Vec<Address>> {
        self.check_port()?;
        resolve(&self.host, Some(&self.service), passive).map_err(io::Error::from)
    }

    /// The resolver would cut a larger port to 16 bits and say nothing.
    fn check_port(&self) -> io::Result<()> {
        let is_number = self.service.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && self.service.parse::<u16>().is_err() {
            let message = format!("port {}: expected 0 to 65535", self.service);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    fn parse(text: &str) -> io::Result<Self> {
        let split = text.rsplit_once(':').filter(|(_, service)| !service.is_empty());
        let Some((host, service)) = split else {
            let message =
                format!("address {text:?}: expected HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self::new(host, service))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.service);
        }
        write!(f, "{}:{}", self.host, self.service)
    }
}

/// What can name a peer or a place to listen: `"host:port"`, `("host", port)`, a [`SocketAddr`], an
/// [`Endpoint`]. An IPv6 address in a text stands in brackets: `"[::1]:8000"`.
pub trait Peer {
    /// The endpoint it names.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with the text and what was expected, if it names none.
    fn endpoint(&self) -> io::Result<Endpoint>;
}

impl Peer for Endpoint {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(self.clone())
    }
}

impl Peer for &str {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Endpoint::parse(self)
    }
}

impl Peer for String {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Endpoint::parse(self)
    }
}

impl Peer for SocketAddr {
    fn endpoint(&self) -> io::Result<Endpoint> {
        // An IPv6 address keeps its scope only in the combined form.
        Endpoint::parse(&self.to_string())
    }
}

impl Peer for (&str, u16) {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::new(self.0, self.1.to_string()))
    }
}

/// Why a name has no address; the text is the resolver's own (`gai_strerror(3)`). As an [`io::Error`] it
/// is a text of the kind `NotFound`, also where the resolver failed for a while only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    text: String,
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

/// Asks `getaddrinfo(3)` for the stream addresses of a host and a service; without a service, their port is
/// 0. `passive` is for listening. Blocks the thread for as long as the resolver takes, on the caller's
/// stack.
///
/// # Errors
///
/// The resolver's, with its text; one of our own for a text with a zero byte.
pub fn resolve(host: &str, service: Option<&str>, passive: bool) -> Result<Vec<Address>, ResolveError> {
    // The resolver would give the same, after opening files and a netlink socket, and with more stack
    // than a small fiber has.
    let port = Some(service.unwrap_or("0")).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let (Ok(ip), Some(Ok(port))) = (host.parse::<IpAddr>(), port.map(str::parse::<u16>)) {
        return Ok(vec![SocketAddr::new(ip, port).into()]);
    }
    let c_string = |text: &str| {
        CString::new(text)
            .map_err(|_| ResolveError { text: format!("{text:?} has a zero byte, which no name has") })
    };
    let host = c_string(host)?;
    let service = service.map(c_string).transpose()?;
    // SAFETY: a zeroed addrinfo is a valid set of hints.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = if passive { libc::AI_PASSIVE } else { 0 };
    let mut list = std::ptr::null_mut();
    let service = service.as_ref().map_or(std::ptr::null(), |service| service.as_ptr());
    // SAFETY: the strings are terminated and, like the hints, outlive the call; `list` takes the result.
    let code = unsafe { libc::getaddrinfo(host.as_ptr(), service, &hints, &mut list) };
    if code != 0 {
        // SAFETY: gai_strerror returns a static, terminated string for every code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        return Err(ResolveError { text: text.to_string_lossy().into_owned() });
    }
    let mut addresses = Vec::new();
    let mut next = list;
    // SAFETY: the resolver's list is valid until it is freed below; each entry's address has the
    // length that the entry states.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        let address = unsafe { SockaddrStorage::from_raw(entry.ai_addr, Some(entry.ai_addrlen)) };
        addresses.extend(address);
        next = entry.ai_next;
    }
    // SAFETY: the list came from getaddrinfo and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

/// The local address of a socket; the descriptor must be open.
///
/// # Errors
///
/// The kernel's, from `getsockname(2)`; `Unsupported` for a family other than IPv4 and IPv6.
pub fn local_address(descriptor: RawFd) -> io::Result<SocketAddr> {
    getsockname::<SockaddrStorage>(descriptor).map_err(io::Error::from).and_then(to_socket_addr)
}

/// The address of a socket's peer; the descriptor must be open.
///
/// # Errors
///
/// The kernel's, from `getpeername(2)`; `Unsupported` for a family other than IPv4 and IPv6.
pub fn peer_address(descriptor: RawFd) -> io::Result<SocketAddr> {
    getpeername::<SockaddrStorage>(descriptor).map_err(io::Error::from).and_then(to_socket_addr)
}

fn to_socket_addr(address: Address) -> io::Result<SocketAddr> {
    let v4 = |address: &SockaddrIn| SocketAddr::new(IpAddr::V4(address.ip()), address.port());
    let v6 = |address: &SockaddrIn6| SocketAddr::new(IpAddr::V6(address.ip()), address.port());
    let known = address.as_sockaddr_in().map(v4).or_else(|| address.as_sockaddr_in6().map(v6));
    known.ok_or_else(|| {
        let text = format!("address family {:?}: expected IPv4 or IPv6", address.family());
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back_as_they_are_written() {
        for text in ["127.0.0.1:80", "[::1]:80", "example.org:http"] {
            assert_eq!(text.endpoint().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_endpoint_is_named_with_what_was_expected() {
        for text in ["localhost", "localhost:", ""] {
            let error = text.endpoint().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}: expected HOST:PORT")), "{error}");
        }
    }

    #[test]
    fn numeric_addresses_resolve_and_unknown_services_do_not() {
        let addresses = resolve("127.0.0.1", Some("7000"), false).unwrap();
        let address = to_socket_addr(addresses[0]).unwrap();
        assert_eq!(address, "127.0.0.1:7000".parse().unwrap());
        assert!(resolve("127.0.0.1", Some("no such service"), false).is_err());
        assert!(resolve("a\0b", None, false).is_err());
    }
}
