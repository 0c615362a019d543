//! A socket's descriptor, which outlives every operation on it.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, bind, socket};
use ringspun_runtime::Address;

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

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: the descriptor is open: only `close` ends it.
        match unsafe { libc::shutdown(self.raw, how) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn option(&self, level: i32, name: i32) -> io::Result<i32> {
        let mut value = 0;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the value has room for the `int` whose length is passed.
        let got =
            unsafe { libc::getsockopt(self.raw, level, name, (&raw mut value).cast(), &raw mut length) };
        if got == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) fn set_option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        set_option(self.raw, level, name, value)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sets a socket option whose value is an `int`.
pub(crate) fn set_option(descriptor: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is a valid `int` for the length that is passed.
    let set = unsafe {
        libc::setsockopt(
            descriptor,
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a stream socket of an address's family, close-on-exec.
pub(crate) fn stream_socket(address: &Address) -> io::Result<OwnedFd> {
    let family = address.family().unwrap_or(AddressFamily::Unspec);
    #[cfg(target_os = "linux")]
    let flags = SockFlag::SOCK_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = SockFlag::empty();
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// Binds a socket to the first address that works.
pub(crate) fn bind_first(descriptor: &OwnedFd, addresses: &[Address]) -> io::Result<()> {
    let mut error = None;
    for address in addresses {
        match bind(descriptor.as_raw_fd(), address) {
            Ok(()) => return Ok(()),
            Err(errno) => error = Some(errno),
        }
    }
    error.map_or(Ok(()), |errno| Err(errno.into()))
}
