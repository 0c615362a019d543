//! What to aim at.

use std::fmt;
use std::str::FromStr;

use ringspun_net::{Address, Endpoint};

/// What a target looks like, for messages.
const FORM: &str = "expected tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH or unix:@NAME";

/// The server to measure: `tcp://host:port`, `udp://host:port`, `unix:/path`, or `unix:@name` for a name in
/// Linux's abstract namespace. An IPv6 address stands in brackets. A host's name is looked up once, when a
/// run begins.
///
/// # Examples
///
/// ```
/// use ringspun_load::Target;
///
/// let target: Target = "tcp://[::1]:7000".parse().unwrap();
/// assert_eq!(target.to_string(), "tcp://[::1]:7000");
/// assert!("ftp://localhost".parse::<Target>().unwrap_err().contains("expected tcp://HOST:PORT"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Connections over TCP.
    Tcp(Endpoint),
    /// Datagrams over UDP.
    Udp(Endpoint),
    /// Connections to a Unix stream socket.
    Unix(Address),
}

impl FromStr for Target {
    type Err = String;

    /// The error says what is wrong and what was expected; whoever asked names the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(place) = text.strip_prefix("tcp://") {
            return parse_host(place).map(Self::Tcp);
        }
        if let Some(place) = text.strip_prefix("udp://") {
            return parse_host(place).map(Self::Udp);
        }
        if let Some(name) = text.strip_prefix("unix:") {
            if !name.starts_with(['/', '@']) {
                return Err(format!("a Unix socket has a whole path or an abstract name, {FORM}"));
            }
            return Address::unix(name).map(Self::Unix).map_err(|error| error.to_string());
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!("{scheme:?} is no kind of target, {FORM}")),
            None => Err(FORM.to_string()),
        }
    }
}

/// The host is looked up when it is used. The port's number is checked here: the resolver cuts one that is
/// too large down to 16 bits, and nobody can be reached at port 0.
fn parse_host(place: &str) -> Result<Endpoint, String> {
    let (host, port) = place.rsplit_once(':').ok_or(FORM)?;
    if host.is_empty() || port.is_empty() {
        return Err(FORM.to_string());
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("an IPv6 address stands in brackets, as in tcp://[::1]:7000, {FORM}"));
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("port {port:?} is not from 1 to 65535, {FORM}"));
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(Endpoint::new(host, port))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "tcp://{endpoint}"),
            Self::Udp(endpoint) => write!(f, "udp://{endpoint}"),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_they_are_written() {
        for text in [
            "tcp://127.0.0.1:7000",
            "tcp://[::1]:65535",
            "tcp://example.org:http",
            "udp://localhost:9",
            "unix:/run/a.socket",
            "unix:@name",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_gets_the_forms_that_are() {
        for text in [
            "",
            "localhost:80",
            "http://localhost:80/",
            "tcp://localhost",
            "tcp://:80",
            "tcp://localhost:",
            "tcp://localhost:0",
            "tcp://localhost:65536",
            "tcp://::1:80",
            "unix:relative",
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(FORM), "{text}: {error}");
        }
        assert!("http://x/".parse::<Target>().unwrap_err().contains("\"http\""));
        let long = format!("unix:/{}", "x".repeat(200));
        assert!(long.parse::<Target>().unwrap_err().contains("expected 1 to"));
    }
}
