//! The versions of TLS, and the names of protocols over it (ALPN).

use std::io;

use rustls::SupportedProtocolVersion;

/// The versions of TLS that may be negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Versions {
    /// TLS 1.2 (RFC 5246) and 1.3 (RFC 8446).
    #[default]
    Both,
    /// TLS 1.2 only, for a peer whose 1.3 is at fault.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub(crate) fn supported(versions: Versions) -> &'static [&'static SupportedProtocolVersion] {
    match versions {
        Versions::Both => rustls::ALL_VERSIONS,
        Versions::Tls12 => TLS12,
        Versions::Tls13 => TLS13,
    }
}

/// Fails for a name that no handshake can carry (RFC 7301, section 3.1).
pub(crate) fn check_protocols(names: &[Vec<u8>]) -> io::Result<()> {
    match names.iter().find(|name| !(1..=255).contains(&name.len())) {
        None => Ok(()),
        Some(name) => {
            let text = format!("a protocol (ALPN) whose name has {} bytes: expected 1 to 255", name.len());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}
