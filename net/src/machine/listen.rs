//! Listening: a socket bound to the first address that can be had.

use std::io;
use std::os::fd::OwnedFd;

use super::resolve::SocketKind;
use crate::address::Address;
use crate::descriptor::new_socket;
use crate::options::SocketOption;
use crate::system::{bind, listen};

/// Connections that wait in the kernel for us to accept them, as in Janet's `net/listen`.
const BACKLOG: i32 = 1024;

/// What may be at an address already (`socket(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing.
    Nothing,
    /// Connections of a former listener (`SO_REUSEADDR`), as the standard library has it for listeners.
    Address,
    /// Other sockets that allow it, too (`SO_REUSEPORT`), between which the kernel then divides connections and
    /// datagrams: as Janet's `net/listen` has it. Unix sockets have no such thing.
    Port,
}

impl Reuse {
    fn allow(self, descriptor: &OwnedFd, address: &Address) -> io::Result<()> {
        if self != Self::Nothing {
            SocketOption::ReuseAddress(true).set(descriptor)?;
        }
        if self == Self::Port && !address.is_unix() {
            SocketOption::ReusePort(true).set(descriptor)?;
        }
        Ok(())
    }
}

/// Makes a socket on the first address that can be bound; one for streams listens. On a port that the kernel chooses
/// for datagrams, `reuse` takes effect after it has chosen one that nobody has.
///
/// # Errors
///
/// That of the last address tried.
pub fn listen_on(addresses: &[Address], kind: SocketKind, reuse: Reuse) -> io::Result<OwnedFd> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match bind_and_listen(address, kind, reuse) {
            Ok(descriptor) => return Ok(descriptor),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn bind_and_listen(address: &Address, kind: SocketKind, reuse: Reuse) -> io::Result<OwnedFd> {
    let descriptor = new_socket(address, kind)?;
    // For one that may share its port, the kernel may choose one that another datagram socket has, which then gets
    // some of its datagrams (measured on Linux 6.18: once in some 130 times 20 sockets). Whoever lets it choose wants
    // one of their own, which others may share later.
    let chosen_by_kernel = kind == SocketKind::Datagram && address.port() == Some(0);
    if !chosen_by_kernel {
        reuse.allow(&descriptor, address)?;
    }
    bind(&descriptor, &address.raw())?;
    if chosen_by_kernel {
        reuse.allow(&descriptor, address)?;
    }
    if kind == SocketKind::Stream {
        listen(&descriptor, BACKLOG)?;
    }
    Ok(descriptor)
}
