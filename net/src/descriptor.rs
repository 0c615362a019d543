//! The descriptor of a socket, which outlives every operation on it.

use std::cell::Cell;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use ringspun_runtime::trace_point;

use crate::address::Address;
use crate::machine::SocketKind;
use crate::system;

/// The descriptor of a socket. It is closed in two steps: `begin_close` when the user closes the socket, and `close`
/// after the last operation; in between, the number cannot be reused.
#[derive(Debug)]
pub(crate) struct Descriptor {
    raw: RawFd,
    closing: Cell<bool>,
    closed: Cell<bool>,
    /// The number is another owner's to close.
    stays_open: Cell<bool>,
}

impl Descriptor {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self {
            raw: descriptor.into_raw_fd(),
            closing: Cell::new(false),
            closed: Cell::new(false),
            stays_open: Cell::new(false),
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.raw
    }

    /// The descriptor; `None` once it is closed. The caller must not call `close` while it is borrowed.
    pub(crate) fn borrow(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor is open, as only `close` closes it.
        (!self.closed.get()).then(|| unsafe { BorrowedFd::borrow_raw(self.raw) })
    }

    /// True for the first caller only.
    pub(crate) fn begin_close(&self) -> bool {
        !self.closing.replace(true)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Closing leaves the descriptor open, for another owner.
    pub(crate) fn leave_open(&self) {
        self.stays_open.set(true);
    }

    /// Gives the descriptor away, so that it is closed for this owner. `None` if it is closed, or another owner's.
    pub(crate) fn release(&self) -> Option<OwnedFd> {
        if self.stays_open.get() || self.closed.replace(true) {
            return None;
        }
        self.closing.set(true);
        // SAFETY: the descriptor came from an `OwnedFd`, and the flag makes this or `close` take it, once.
        Some(unsafe { OwnedFd::from_raw_fd(self.raw) })
    }

    /// Closes the descriptor, once. No operation may be in flight on it.
    pub(crate) fn close(&self) {
        if !self.closed.replace(true) && !self.stays_open.get() {
            trace_point!(socket_close, self.raw);
            // SAFETY: the descriptor came from an `OwnedFd`, and the flag makes this run once. Linux frees the number
            // whatever close returns, so it must not be retried.
            unsafe { libc::close(self.raw) };
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes a socket of the address's family, close-on-exec and non-blocking.
pub(crate) fn new_socket(address: &Address, kind: SocketKind) -> io::Result<OwnedFd> {
    let family = address.family().ok_or(io::ErrorKind::Unsupported)?;
    system::socket(family, kind.socket_type())
}

/// Binds a socket to the first address that can be bound.
pub(crate) fn bind_first(descriptor: &OwnedFd, addresses: &[Address]) -> io::Result<()> {
    let mut last_error = None;
    for address in addresses {
        match system::bind(descriptor, &address.raw()) {
            Ok(()) => return Ok(()),
            Err(error) => last_error = Some(error),
        }
    }
    last_error.map_or(Ok(()), Err)
}
