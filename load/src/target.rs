//! Targets, as written on the command line.

use std::fmt;
use std::str::FromStr;

use ringspun_net::{Address, Endpoint};

use crate::header::Header;

/// The expected format, for error messages.
const FORM: &str = "expected tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:PATH, unix:@NAME, \
    http://HOST:PORT/PATH, https://HOST:PORT/PATH, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH";

/// The server to measure: `tcp://host:port`, `tls://host:port`, `udp://host:port`, `unix:/path`, `unix:@name` for a
/// name in Linux's abstract namespace, or `http://host:port/path?query` with the default port 80, and the same with
/// `https` and port 443, and with `ws` and `wss` for WebSocket; these optionally with `name:password@` before the host.
/// IPv6 addresses are in brackets. Host names are resolved once, when a run begins.
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
    /// Connections over TCP with TLS.
    Tls(Endpoint),
    /// Datagrams over UDP.
    Udp(Endpoint),
    /// Connections to a Unix stream socket.
    Unix(Address),
    /// HTTP requests over TCP, with or without TLS.
    Http(HttpTarget),
    /// WebSocket messages over TCP, with or without TLS.
    WebSocket(HttpTarget),
}

/// The parts of an `http:`, `https:`, `ws:` or `wss:` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    endpoint: Endpoint,
    authority: String,
    path: String,
    scheme: &'static str,
    user: Option<Header>,
}

/// Where to connect in place of the target's own host and port: `HOST:PORT`, `unix:PATH` or `unix:@NAME`.
///
/// # Examples
///
/// ```
/// use ringspun_load::Detour;
///
/// let detour: Detour = "unix:/run/app.sock".parse().unwrap();
/// assert_eq!(detour.to_string(), "unix:/run/app.sock");
/// assert!("7000".parse::<Detour>().unwrap_err().contains("expected HOST:PORT"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detour {
    /// A host and its port.
    Host(Endpoint),
    /// A Unix stream socket.
    Unix(Address),
}

impl FromStr for Detour {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with("unix:") {
            true => parse_unix(text).map(Self::Unix),
            false if text.contains("://") => Err(FORM.to_string()),
            false => parse_host(text).map(Self::Host),
        }
        .map_err(|error| error.replace(FORM, "expected HOST:PORT, unix:PATH or unix:@NAME"))
    }
}

impl fmt::Display for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(endpoint) => endpoint.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

impl HttpTarget {
    /// The endpoint to connect to.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `http`, `https`, `ws` or `wss`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    pub(crate) fn is_secure(&self) -> bool {
        is_secure(self.scheme)
    }

    /// Scheme, host and port, such as `https://shop.example` or `http://127.0.0.1:8080`.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// Whether the scheme, the host and the port are the same; a default port may be given or not.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let [host, others] = [self, other].map(|target| target.endpoint.to_string());
        self.scheme == other.scheme && host.eq_ignore_ascii_case(&others)
    }

    /// The host with the port if given, as in the header `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path without the query, which may be confidential; `?...` stands for a query.
    pub fn path_without_query(&self) -> String {
        match self.path.split_once('?') {
            Some((path, _)) => format!("{path}?..."),
            None => self.path.clone(),
        }
    }

    /// The header with the name and the password of the URL, if it has them (`http://NAME:PASSWORD@HOST/`).
    pub fn user(&self) -> Option<&Header> {
        self.user.as_ref()
    }

    /// The same server with another path.
    pub(crate) fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// The path with its query; at least `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Target {
    /// The target as it may be shown to others: without the query of a URL, which may be confidential.
    pub fn without_query(&self) -> String {
        match self {
            Self::Http(target) | Self::WebSocket(target) => {
                format!("{}://{}{}", target.scheme(), target.authority, target.path_without_query())
            }
            other => other.to_string(),
        }
    }

    /// The host that certificates must be for, with TLS.
    pub fn tls_host(&self) -> Option<String> {
        match self {
            Self::Tls(endpoint) => endpoint.host(),
            Self::Http(target) | Self::WebSocket(target) if target.is_secure() => target.endpoint.host(),
            _ => None,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(location) = text.strip_prefix("tcp://") {
            return parse_host(location).map(Self::Tcp);
        }
        if let Some(location) = text.strip_prefix("udp://") {
            return parse_host(location).map(Self::Udp);
        }
        if let Some(location) = text.strip_prefix("tls://") {
            return parse_host(location).map(Self::Tls);
        }
        if let Some(location) = text.strip_prefix("http://") {
            return parse_http(location, "http").map(Self::Http);
        }
        if let Some(location) = text.strip_prefix("https://") {
            return parse_http(location, "https").map(Self::Http);
        }
        if let Some(location) = text.strip_prefix("ws://") {
            return parse_http(location, "ws").map(Self::WebSocket);
        }
        if let Some(location) = text.strip_prefix("wss://") {
            return parse_http(location, "wss").map(Self::WebSocket);
        }
        if text.starts_with("unix:") {
            return parse_unix(text).map(Self::Unix);
        }
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                format!("{}://{rest}", scheme.to_ascii_lowercase()).parse()
            }
            Some((scheme, _)) => Err(format!("the scheme {scheme:?} is unknown, {FORM}")),
            None => Err(without_scheme(text)),
        }
    }
}

/// What is wrong with a target that has no scheme, with those that it may have been meant to be.
fn without_scheme(text: &str) -> String {
    let has_scheme = ["tcp:", "tls:", "udp:", "http:", "https:", "ws:", "wss:"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    match text.split_once('/') {
        // There may be a password before it.
        _ if has_scheme || text.contains('@') => FORM.to_string(),
        None if parse_host(text).is_ok() => format!("did you mean tcp://{text} or http://{text}/? {FORM}"),
        Some((host, _)) if parse_host(host).is_ok() => format!("did you mean http://{text}? {FORM}"),
        _ => FORM.to_string(),
    }
}

/// Whether the scheme stands for TLS.
fn is_secure(scheme: &str) -> bool {
    scheme == "https" || scheme == "wss"
}

/// Checks the path, with its query. Queries may be confidential: errors do not show them.
fn check_path(path_and_query: &str) -> Result<(), String> {
    let (sent, fragment) = path_and_query.split_at(path_and_query.find('#').unwrap_or(path_and_query.len()));
    let (path, query) = sent.split_at(sent.find('?').unwrap_or(sent.len()));
    let is_sendable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let subject = match (is_sendable(path), is_sendable(query), fragment) {
        (true, true, "") => return Ok(()),
        (true, true, _) => return Err(format!("a fragment (#) is not sent: expected none, or %23, {FORM}")),
        (true, false, _) => "the query".to_string(),
        (false, ..) => format!("the path {path:?}"),
    };
    Err(format!("{subject} contains characters that must be percent-encoded (a space is %20), {FORM}"))
}

fn parse_http(location: &str, scheme: &'static str) -> Result<HttpTarget, String> {
    let (authority, rest) = location.split_at(location.find(['/', '?', '#']).unwrap_or(location.len()));
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(parse_user(user)?), authority),
        None => (None, authority),
    };
    check_path(rest)?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let endpoint = match has_port {
        true => parse_host(authority)?,
        false => parse_host(&format!("{authority}:{}", if is_secure(scheme) { 443 } else { 80 }))?,
    };
    // A malformed host would make every request malformed.
    if !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{authority:?} is not a host, {FORM}"));
    }
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let (authority, path) = (authority.to_string(), format!("{slash}{rest}"));
    Ok(HttpTarget { endpoint, authority, path, scheme, user })
}

/// The header for a name and a password, which the error does not repeat.
fn parse_user(user: &str) -> Result<Header, String> {
    let mut decoded = Vec::new();
    let mut rest = user.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |index: usize| char::from(*behind.get(index)?).to_digit(16);
        let (byte, next) = match (first, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => ((high << 4 | low) as u8, &behind[2..]),
            _ => (*first, behind),
        };
        decoded.push(byte);
        rest = next;
    }
    let colon = if user.contains(':') { "" } else { ":" };
    String::from_utf8(decoded)
        .map_err(|_| "expected UTF-8".to_string())
        .and_then(|decoded| Header::basic_auth(&format!("{decoded}{colon}")))
        .map_err(|error| format!("the name and the password before @ are invalid: {error}; {FORM}"))
}

fn parse_unix(text: &str) -> Result<Address, String> {
    let name = text.strip_prefix("unix:").unwrap_or(text);
    if name.is_empty() {
        return Err(format!("a Unix socket has a path or an abstract name, {FORM}"));
    }
    Address::unix(name).map_err(|error| error.to_string())
}

/// The host is resolved later. A port number is checked here, because the resolver truncates it to 16 bits, and
/// port 0 cannot be reached.
fn parse_host(location: &str) -> Result<Endpoint, String> {
    // Which may be confidential, and is not repeated.
    if location.contains(['@', '/', '?', '#']) {
        return Err(format!("neither a user nor a path is possible here, {FORM}"));
    }
    let (host, port) = location.rsplit_once(':').ok_or(FORM)?;
    if host.is_empty() || port.is_empty() {
        return Err(FORM.to_string());
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("IPv6 addresses must be in brackets, as in tcp://[::1]:7000, {FORM}"));
    }
    if !port.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(format!("the port is {port:?}: expected 1 to 65535, or the name of a service, {FORM}"));
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("the port is {port:?}: expected 1 to 65535, {FORM}"));
    }
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host) {
        "" => Err(FORM.to_string()),
        host => Ok(Endpoint::new(host, port)),
    }
}

/// Without the name and the password of a URL; otherwise it reads back as the same.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "tcp://{endpoint}"),
            Self::Tls(endpoint) => write!(f, "tls://{endpoint}"),
            Self::Udp(endpoint) => write!(f, "udp://{endpoint}"),
            Self::Unix(address) => address.fmt(f),
            Self::Http(target) | Self::WebSocket(target) => {
                write!(f, "{}://{}{}", target.scheme(), target.authority, target.path)
            }
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
            "unix:./a.socket",
            "unix:@name",
            "http://localhost/",
            "http://[::1]/a",
            "http://[::1]:8080/a/b?c=d&e",
            "https://localhost/",
            "https://[::1]:8443/a/b?c=d&e",
            "tls://localhost:7443",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn schemes_have_no_case() {
        for text in ["HTTP://localhost/A", "Tcp://localhost:80", "hTTPS://localhost/"] {
            let (scheme, rest) = text.split_once("://").unwrap();
            let lower = format!("{}://{rest}", scheme.to_lowercase());
            assert_eq!(text.parse::<Target>().unwrap().to_string(), lower);
        }
        assert!("FTP://localhost/".parse::<Target>().unwrap_err().contains("the scheme \"ftp\" is unknown"));
    }

    #[test]
    fn urls_have_a_port_and_a_path() {
        for (text, endpoint, path) in [
            ("http://a.example", Endpoint::new("a.example", "80"), "/"),
            ("http://a.example?b", Endpoint::new("a.example", "80"), "/?b"),
            ("http://[::1]", Endpoint::new("::1", "80"), "/"),
            ("https://a.example/b", Endpoint::new("a.example", "443"), "/b"),
            ("http://[::1]:81/b?c", Endpoint::new("::1", "81"), "/b?c"),
        ] {
            let Target::Http(target) = text.parse().unwrap() else { panic!("{text} is for HTTP") };
            assert_eq!((target.endpoint(), target.path()), (&endpoint, path), "{text}");
        }
    }

    #[test]
    fn names_and_passwords_become_a_header_that_is_not_shown() {
        for (text, expected) in [
            ("http://Aladdin:open%20sesame@a.example/b", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("https://a%3Ab@a.example/b", "Basic YTpiOg=="),
            ("http://a@b:100%@a.example/b", "Basic YUBiOjEwMCU="),
        ] {
            let target: Target = text.parse().unwrap();
            let shown = target.to_string();
            assert!(shown.ends_with("://a.example/b"), "{shown}");
            assert!(!format!("{target:?}").contains("Basic"), "{target:?}");
            let Target::Http(target) = target else { panic!("{text} is for HTTP") };
            assert_eq!(target.user().unwrap().to_string(), format!("Authorization: {expected}"));
        }
    }

    #[test]
    fn what_is_no_target_gets_the_forms_that_are() {
        for text in [
            "",
            "localhost:80",
            "ftp://localhost:80/",
            "http://",
            "http:///path",
            "http://localhost:/",
            "http://localhost:0/",
            "http://::1/",
            "http://us%0aer@localhost/",
            "http://%ff@localhost/",
            "http://localhost/a b",
            "http://local host/",
            "http://localhost/a#b",
            "https://localhost:0/",
            "tls://localhost",
            "tcp://localhost",
            "tcp://:80",
            "tcp://[]:80",
            "tcp://localhost:",
            "tcp://localhost:0",
            "tcp://localhost:65536",
            "tcp://localhost:80/",
            "udp://localhost:80/path",
            "tls://localhost:8 0",
            "tcp://::1:80",
            "unix:",
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(FORM), "{text}: {error}");
        }
        let error = "127.0.0.1:7000".parse::<Target>().unwrap_err();
        assert!(error.starts_with("did you mean tcp://127.0.0.1:7000 or http://127.0.0.1:7000/?"), "{error}");
        let error = "localhost:7000/path?query".parse::<Target>().unwrap_err();
        assert!(error.starts_with("did you mean http://localhost:7000/path?query? expected"), "{error}");
        for text in ["http:/x", "http:80", "/x", "x"] {
            assert_eq!(text.parse::<Target>().unwrap_err(), FORM);
        }
        assert!("ftp://x/".parse::<Target>().unwrap_err().contains("\"ftp\""));
        let long = format!("unix:/{}", "x".repeat(200));
        assert!(long.parse::<Target>().unwrap_err().contains("expected 1 to"));
    }
}
