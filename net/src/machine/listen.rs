//! Listening: a socket bound to the first address that can be had.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::resolve::SocketKind;
use crate::address::Address;
use crate::descriptor::new_socket;
use crate::options::SocketOption;
use crate::system::{bind, listen, set_nonblocking};

/// Connections that wait in the kernel for us to accept them, as in Janet's `net/listen`.
const BACKLOG: i32 = 1024;

/// Makes a socket on the first address that can be bound; one for streams listens. `reuse` sets
/// `SO_REUSEADDR` and, except on Unix sockets, `SO_REUSEPORT`, as Janet's `net/listen` does; for datagrams on a port
/// that the kernel chooses, after it has chosen one that nobody has.
///
/// # Errors
///
/// That of the last address tried.
pub fn listen_on(addresses: &[Address], kind: SocketKind, reuse: bool) -> io::Result<OwnedFd> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match bind_and_listen(address, kind, reuse) {
            Ok(descriptor) => return Ok(descriptor),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn bind_and_listen(address: &Address, kind: SocketKind, reuse: bool) -> io::Result<OwnedFd> {
    let descriptor = new_socket(address, kind)?;
    // For one that may share its port, the kernel may choose one that another datagram socket has, which then gets
    // some of its datagrams (measured on Linux 6.18: once in some 130 times 20 sockets). Whoever lets it choose wants
    // one of their own, which others may share later.
    let chosen_by_kernel = kind == SocketKind::Datagram && address.port() == Some(0);
    if reuse && !chosen_by_kernel {
        allow_reuse(&descriptor, address)?;
    }
    bind(&descriptor, &address.raw())?;
    if reuse && chosen_by_kernel {
        allow_reuse(&descriptor, address)?;
    }
    if kind == SocketKind::Stream {
        // As its descriptors can be shared, another may take the connection that readiness told of.
        set_nonblocking(descriptor.as_raw_fd(), true)?;
        listen(&descriptor, BACKLOG)?;
    }
    Ok(descriptor)
}

fn allow_reuse(descriptor: &OwnedFd, address: &Address) -> io::Result<()> {
    SocketOption::ReuseAddress(true).set(descriptor)?;
    if !address.is_unix() {
        SocketOption::ReusePort(true).set(descriptor)?;
    }
    Ok(())
}
