//! Endpoints to connect to or to listen at, as users write them.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::address::Address;

/// An endpoint to connect to or to listen at. A host name is looked up when the endpoint is used. Shown as
/// `host:port`, with brackets around IPv6 addresses and a host called `unix`, or as `unix:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host { host: String, service: String },
    Exact(Address),
}

impl Endpoint {
    /// `host` is a name or a numeric address without brackets; `service` is a port number from 0 to 65535 or a name
    /// from `services(5)`. Both are only checked when the endpoint is used.
    pub fn new(host: impl Into<String>, service: impl Into<String>) -> Self {
        Self(Place::Host { host: host.into(), service: service.into() })
    }

    /// The name or the numeric address of the host; `None` for a Unix socket.
    pub fn host(&self) -> Option<String> {
        match &self.0 {
            Place::Host { host, .. } => Some(host.clone()),
            Place::Exact(address) => address.as_socket_addr().map(|address| address.ip().to_string()),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0
    }

    fn parse(text: &str) -> io::Result<Self> {
        if let Some(name) = text.strip_prefix("unix:") {
            return Address::unix(name).map(Self::from);
        }
        let split = text.rsplit_once(':').filter(|(_, service)| !service.is_empty());
        let Some((host, service)) = split else {
            let message = format!(
                "address {text:?}: expected HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000, or unix:PATH"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self::new(host, service))
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self(Place::Exact(address))
    }
}

/// Whether a host would be parsed differently without brackets: split in two, as the name of a Unix socket, or stripped
/// of brackets of its own.
fn needs_brackets(host: &str) -> bool {
    host.contains(':') || host == "unix" || (host.starts_with('[') && host.ends_with(']'))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Host { host, service } if needs_brackets(host) => write!(f, "[{host}]:{service}"),
            Place::Host { host, service } => write!(f, "{host}:{service}"),
            Place::Exact(address) => address.fmt(f),
        }
    }
}

/// Types that name an endpoint: `"host:port"`, `"unix:/path"`, `"unix:@abstract"`, `("host", port)`, a [`SocketAddr`],
/// an [`Address`], an [`Endpoint`]. In a string, an IPv6 address needs brackets: `"[::1]:8000"`.
pub trait Peer {
    /// The endpoint.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with the string and the expected format, if it is invalid.
    fn endpoint(&self) -> io::Result<Endpoint>;
}

impl Peer for Endpoint {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(self.clone())
    }
}

impl Peer for &Endpoint {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok((*self).clone())
    }
}

impl Peer for Address {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::from(*self))
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
        Ok(Endpoint::from(Address::from(*self)))
    }
}

impl Peer for (&str, u16) {
    fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::new(self.0, self.1.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back_as_they_are_written() {
        for text in
            ["127.0.0.1:80", "[::1]:80", "example.org:http", "unix:/run/a.socket", "unix:@name", "[unix]:80"]
        {
            assert_eq!(text.endpoint().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_endpoint_is_named_with_what_was_expected() {
        for text in ["localhost", "localhost:", ""] {
            let error = text.endpoint().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}: expected HOST:PORT")), "{error}");
        }
        assert!("unix:".endpoint().unwrap_err().to_string().contains("\"\": expected 1 to"));
    }
}
