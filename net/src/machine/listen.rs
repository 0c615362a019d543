//! Listening on the first of several addresses that can be bound.

use std::io;
use std::os::fd::OwnedFd;

use super::resolve::SocketKind;
use crate::address::{Address, local_address};
use crate::descriptor::new_socket;
use crate::options::SocketOption;
use crate::system::{bind, listen};

/// How many connections wait in the kernel, as in Janet's `net/listen`.
pub const BACKLOG: i32 = 1024;

/// What else may use an address (`socket(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing.
    Nothing,
    /// Connections of an earlier listener (`SO_REUSEADDR`), as with the standard library's listeners.
    Address,
    /// Other sockets that also allow it (`SO_REUSEPORT`), among which the kernel distributes connections and
    /// datagrams, as with Janet's `net/listen`. Not for Unix sockets.
    Port,
}

impl Reuse {
    pub(crate) fn allow(self, descriptor: &OwnedFd, address: &Address) -> io::Result<()> {
        if self != Self::Nothing {
            SocketOption::ReuseAddress(true).set(descriptor)?;
        }
        if self == Self::Port && !address.is_unix() {
            SocketOption::ReusePort(true).set(descriptor)?;
        }
        Ok(())
    }
}

/// Makes a socket on the first address that can be bound, and makes it listen if it is a stream socket. For datagrams
/// on a port that the kernel chooses, `reuse` takes effect after it has chosen an unused one.
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

/// As [`listen_on`], but makes `count` sockets at one address, among which the kernel distributes connections and
/// datagrams (`SO_REUSEPORT` in `socket(7)`). With [`Reuse::Port`], others may join them; otherwise, an address that
/// is in use is refused.
///
/// # Errors
///
/// That of the last address tried.
pub fn bind_for_all(
    addresses: &[Address],
    kind: SocketKind,
    count: usize,
    reuse: Reuse,
) -> io::Result<Vec<OwnedFd>> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match bind_all(address, kind, count, reuse) {
            Ok(descriptors) => return Ok(descriptors),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn bind_all(address: &Address, kind: SocketKind, count: usize, reuse: Reuse) -> io::Result<Vec<OwnedFd>> {
    let first = new_socket(address, kind)?;
    // The first one is bound as one that does not share: the kernel then refuses a port that is in use, even by sockets
    // that would share it, and chooses an unused one for port 0.
    if reuse != Reuse::Port || address.port() == Some(0) {
        let alone = if kind == SocketKind::Stream { Reuse::Address } else { Reuse::Nothing };
        alone.allow(&first, address)?;
        bind(&first, &address.raw())?;
        Reuse::Port.allow(&first, address)?;
    } else {
        Reuse::Port.allow(&first, address)?;
        bind(&first, &address.raw())?;
    }
    let address = local_address(&first)?;
    let mut descriptors = vec![first];
    for _ in 1..count {
        let descriptor = new_socket(&address, kind)?;
        Reuse::Port.allow(&descriptor, &address)?;
        bind(&descriptor, &address.raw())?;
        descriptors.push(descriptor);
    }
    if kind == SocketKind::Stream {
        // Only now: what arrived at a single one would stay with it.
        for descriptor in &descriptors {
            listen(descriptor, BACKLOG)?;
        }
    }
    Ok(descriptors)
}

fn bind_and_listen(address: &Address, kind: SocketKind, reuse: Reuse) -> io::Result<OwnedFd> {
    let descriptor = new_socket(address, kind)?;
    // For a socket that may share its port, the kernel may choose the port of another datagram socket, which then gets
    // some of its datagrams (measured on Linux 6.18: once in some 130 times 20 sockets). So it chooses an unused port
    // first, which others may share later.
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
