//! Socket addresses: IPv4, IPv6, and the names of Unix domain sockets.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, UnixAddr};

use crate::system;

/// An IPv4 or IPv6 address and port (`ip(7)`, `ipv6(7)`), or the address of a Unix domain socket (`unix(7)`).
///
/// Shown as `127.0.0.1:80`, `[fe80::1%2]:80`, `unix:/run/socket`, `unix:@abstract`, and `unix:` for a Unix socket
/// without a name. As a [`Peer`](crate::Peer), all but the last stand for the same address.
///
/// # Examples
///
/// ```
/// use ringspun_net::Address;
///
/// let address = Address::unix("/run/my.socket").unwrap();
/// assert_eq!(address.to_string(), "unix:/run/my.socket");
/// let address = Address::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
/// assert_eq!(address.port(), Some(80));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(SockaddrStorage);

impl Address {
    /// The address of a Unix domain socket: a path, or `@` and a name in Linux's abstract namespace (`unix(7)`), as in
    /// Janet's `net/` module.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with the name, if it is empty, contains a zero byte, or is too long: on Linux, more than 107
    /// bytes.
    pub fn unix(name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let bytes = name.as_bytes();
        let made = match bytes {
            [] => Err(nix::Error::EINVAL),
            #[cfg(target_os = "linux")]
            [b'@', rest @ ..] => UnixAddr::new_abstract(rest),
            // Paths end with a zero byte.
            path if path.contains(&0) => Err(nix::Error::EINVAL),
            path => UnixAddr::new(path),
        };
        // The storage can only be made from the raw form.
        let address = made.ok().and_then(|address| {
            // SAFETY: the pointer and the length are those of a valid address.
            unsafe { SockaddrStorage::from_raw(address.as_ptr().cast(), Some(address.len())) }
        });
        address.map(Self).ok_or_else(|| {
            let text = format!(
                "unix socket name {name:?}: expected 1 to {UNIX_NAME_MAX_BYTES} bytes, none of them zero"
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// The IPv4 or IPv6 address and port; `None` for other families.
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        if let Some(address) = self.0.as_sockaddr_in() {
            return Some(SocketAddr::new(IpAddr::V4(address.ip()), address.port()));
        }
        self.0.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()))
    }

    /// The port of an IPv4 or IPv6 address; `None` for other families.
    pub fn port(&self) -> Option<u16> {
        self.as_socket_addr().map(|address| address.port())
    }

    /// The path of a Unix socket; `None` for an abstract or missing name and for other families.
    pub fn as_path(&self) -> Option<&Path> {
        self.0.as_unix_addr().and_then(UnixAddr::path)
    }

    /// Whether this is the address of a Unix domain socket.
    pub fn is_unix(&self) -> bool {
        self.0.family() == Some(AddressFamily::Unix)
    }

    pub(crate) fn family(&self) -> Option<AddressFamily> {
        self.0.family()
    }

    /// The address in the kernel's format: the bytes of a `sockaddr`.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the storage has at least as many bytes as its length states, and is borrowed for as long.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() as usize) }
    }

    /// An address from the bytes of a `sockaddr`; `None` if they are not a complete address of a known family.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut storage = [0_u64; size_of::<libc::sockaddr_storage>() / size_of::<u64>()];
        let family_end = std::mem::offset_of!(libc::sockaddr, sa_family) + size_of::<libc::sa_family_t>();
        if bytes.len() < family_end || bytes.len() > size_of_val(&storage) {
            return None;
        }
        let start = storage.as_mut_ptr().cast::<u8>();
        // SAFETY: as just checked, the bytes fit and include the family; the storage is aligned for an address.
        let family = unsafe {
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            (*start.cast::<libc::sockaddr>()).sa_family
        };
        let fits = match libc::c_int::from(family) {
            libc::AF_INET => bytes.len() >= size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => bytes.len() >= size_of::<libc::sockaddr_in6>(),
            // The length determines the end of the name, so it must not exceed the room for names.
            libc::AF_UNIX => bytes.len() <= size_of::<libc::sockaddr_un>(),
            _ => false,
        };
        // SAFETY: as just checked, the bytes are a complete address of their family.
        let address = fits.then(|| unsafe {
            SockaddrStorage::from_raw(start.cast(), Some(bytes.len() as libc::socklen_t))
        });
        address.flatten().map(Self)
    }

    /// The address in the event loop's form.
    pub(crate) fn raw(self) -> ringspun_runtime::Address {
        self.0
    }

    pub(crate) fn from_raw(raw: ringspun_runtime::Address) -> Self {
        Self(raw)
    }

    /// The address of an unbound Unix socket.
    pub(crate) fn unnamed() -> Self {
        let mut bytes = [0; size_of::<libc::sockaddr_un>()];
        let family = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
        let start = std::mem::offset_of!(libc::sockaddr_un, sun_family);
        bytes[start..start + family.len()].copy_from_slice(&family);
        let length = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        Self::from_bytes(&bytes[..length]).unwrap_or(Self(SocketAddr::from(([0; 4], 0)).into()))
    }
}

/// The maximum length of the name of a Unix socket, without the zero byte that ends a path.
const UNIX_NAME_MAX_BYTES: usize =
    size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.as_socket_addr() {
            return address.fmt(f);
        }
        if let Some(path) = self.as_path() {
            return write!(f, "unix:{}", path.display());
        }
        #[cfg(target_os = "linux")]
        if let Some(name) = self.0.as_unix_addr().and_then(UnixAddr::as_abstract) {
            return write!(f, "unix:@{}", String::from_utf8_lossy(name));
        }
        match self.0.family() {
            Some(AddressFamily::Unix) => f.write_str("unix:"),
            family => write!(f, "an address of family {family:?}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The local address of a socket.
///
/// # Errors
///
/// The kernel's, from `getsockname(2)`.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let address = ringspun_net::local_address(&listener)?;
/// assert_eq!(address.to_string(), listener.local_addr()?.to_string());
/// # Ok(())
/// # }
/// ```
pub fn local_address(socket: impl AsFd) -> io::Result<Address> {
    system::local_address(socket.as_fd().as_raw_fd()).map(Address)
}

/// The address of a socket's peer.
///
/// # Errors
///
/// The kernel's, from `getpeername(2)`.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let client = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let peer = ringspun_net::peer_address(&client)?;
/// assert_eq!(peer.to_string(), listener.local_addr()?.to_string());
/// # Ok(())
/// # }
/// ```
pub fn peer_address(socket: impl AsFd) -> io::Result<Address> {
    system::peer_address(socket.as_fd().as_raw_fd()).map(Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        let texts = ["127.0.0.1:80", "[::1]:8080", "[fe80::1%2]:80"];
        for text in texts {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!(Address::from_bytes(address.as_bytes()), Some(address));
            assert_eq!(address.to_string(), text);
        }
        for name in ["/tmp/a.socket", "relative", "@abstract"] {
            let address = Address::unix(name).unwrap();
            assert_eq!(Address::from_bytes(address.as_bytes()), Some(address));
            assert_eq!(address.to_string(), format!("unix:{name}"));
            assert_eq!(address.as_socket_addr(), None);
        }
        assert_eq!(Address::unnamed().to_string(), "unix:");
        assert_eq!(Address::from_bytes(&[]), None);
        assert_eq!(Address::from_bytes(&[0; 300]), None);
    }

    #[test]
    fn bytes_that_are_no_whole_address_are_none() {
        let of_ip = Address::from("127.0.0.1:80".parse::<SocketAddr>().unwrap());
        let cut_off = &of_ip.as_bytes()[..size_of::<libc::sockaddr_in>() - 1];
        assert_eq!(Address::from_bytes(cut_off), None);
        // No family has this number.
        assert_eq!(Address::from_bytes(&[0xEE; 16]), None);
        let name = "x".repeat(UNIX_NAME_MAX_BYTES);
        let of_unix = Address::unix(name).unwrap();
        assert_eq!(Address::from_bytes(&[of_unix.as_bytes(), &[b'x'; 10]].concat()), None);
    }

    #[test]
    fn names_that_do_not_fit_are_named_with_what_was_expected() {
        assert!(Address::unix("x".repeat(UNIX_NAME_MAX_BYTES)).is_ok());
        for name in [String::new(), "a\0b".to_string(), "x".repeat(UNIX_NAME_MAX_BYTES + 1)] {
            let error = Address::unix(&name).unwrap_err();
            assert!(error.to_string().contains(&format!("{name:?}: expected 1 to 107 bytes")), "{error}");
        }
    }
}
