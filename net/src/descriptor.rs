//! A socket's descriptor, which outlives every operation on it.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::socket::{SockFlag, bind, socket};

use crate::address::Address;
use crate::machine::SocketKind;

/// The descriptor of a socket. Closing happens in two steps: `begin_close` when the user is done,
/// `close` when the last operation is; between them the number cannot be reused.
#[derive(Debug)]
pub(crate) struct Descriptor {
    raw: RawFd,
    closing: Cell<bool>,
    closed: Cell<bool>,
}

impl Descriptor {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self { raw: descriptor.into_raw_fd(), closing: Cell::new(false), closed: Cell::new(false) }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.raw
    }

    /// True for the first caller only.
    pub(crate) fn begin_close(&self) -> bool {
        !self.closing.replace(true)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Closes the descriptor, once. No operation may be in flight on it.
    pub(crate) fn close(&self) {
        if !self.closed.replace(true) {
            // SAFETY: the descriptor came from an `OwnedFd`, and the flag lets this run once. Linux
            // frees the number whatever close returns, so there is nothing to retry.
            unsafe { libc::close(self.raw) };
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes a socket of an address's family, close-on-exec.
pub(crate) fn new_socket(address: &Address, kind: SocketKind) -> io::Result<OwnedFd> {
    let family = address.family().ok_or(io::ErrorKind::Unsupported)?;
    #[cfg(not(target_vendor = "apple"))]
    let made = socket(family, kind.socket_type(), SockFlag::SOCK_CLOEXEC, None)?;
    #[cfg(target_vendor = "apple")]
    let made = {
        let made = socket(family, kind.socket_type(), SockFlag::empty(), None)?;
        // There is no flag for it, so a process started in between gets the socket all the same.
        // SAFETY: sets a flag of our own new descriptor.
        if unsafe { libc::fcntl(made.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        made
    };
    Ok(made)
}

/// Binds a socket to the first address that works.
pub(crate) fn bind_first(descriptor: &OwnedFd, addresses: &[Address]) -> io::Result<()> {
    let mut error = None;
    for address in addresses {
        match bind(descriptor.as_raw_fd(), &address.raw()) {
            Ok(()) => return Ok(()),
            Err(errno) => error = Some(errno),
        }
    }
    error.map_or(Ok(()), |errno| Err(errno.into()))
}

/// Shuts down one or both directions of a socket; the descriptor must be open.
pub(crate) fn shutdown(descriptor: RawFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: the call touches no memory of ours.
    match unsafe { libc::shutdown(descriptor, how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says whether calls on a socket return at once where they would block; the descriptor must be open.
pub(crate) fn set_nonblocking(descriptor: RawFd, nonblocking: bool) -> io::Result<()> {
    let mut nonblocking = i32::from(nonblocking);
    // SAFETY: the number is valid for the length that this request reads.
    match unsafe { libc::ioctl(descriptor, libc::FIONBIO, &raw mut nonblocking) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Accepts a connection that is there already, from a listener that does not block.
#[cfg(target_os = "linux")]
pub(crate) fn accept_now(listener: RawFd) -> io::Result<OwnedFd> {
    let descriptor = nix::sys::socket::accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: the kernel made this descriptor for this call; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Only descriptors of Linux are handed over, by the Janet VM.
#[cfg(not(target_os = "linux"))]
pub(crate) fn accept_now(_: RawFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
