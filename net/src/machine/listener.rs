//! Listening sockets: they receive connections.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use ringspun_runtime::{Completion, Operation};

use super::budget::Budget;
use super::input::Announced;
use super::socket::{Kind, Socket, Taken};
use crate::system::accept_now;

/// The kind of listening sockets, whose descriptor must be non-blocking.
#[derive(Debug)]
pub struct Connections;

/// The shared part of a listener.
pub type ListenerCore = Socket<Connections>;

impl Kind for Connections {
    type Piece = OwnedFd;
    type Detached = OwnedFd;
    type Output = ();

    /// Beyond this, connections stay in the backlog, where another process with the same socket can accept them.
    const QUEUE_MAX: usize = 64;
    const ERROR_IS_END: bool = false;
    const CLOSE_FREES_PORT: bool = true;
    const TAKE_COST: u8 = Budget::MESSAGE;
    const BUDGET: u8 = Budget::OF_SHARED_SOCKET;

    fn weight(_: &OwnedFd) -> usize {
        1
    }

    fn output_of(_: &OwnedFd) {}

    fn continuous_operation(socket: &ListenerCore) -> Option<Operation> {
        Some(Operation::Accept { listener: socket.descriptor() })
    }

    fn take_now(socket: &ListenerCore, _: usize) -> io::Result<Taken<OwnedFd>> {
        accept_now(socket.socket()?).map(|piece| Taken::Piece { piece, is_last: false })
    }

    fn piece_of(_: &ListenerCore, completion: Completion) -> Option<OwnedFd> {
        let descriptor = completion.result.ok()?;
        // SAFETY: the descriptor of a new connection, which the completion passes to us.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
    }

    fn discard(connection: OwnedFd) {
        #[cfg(feature = "mutations")]
        crate::mutations::leak_late_accept(connection);
        #[cfg(not(feature = "mutations"))]
        drop(connection);
    }

    /// A cancel, or a connection that ended before it was accepted: accept(2) says to retry.
    fn is_transient(errno: i32) -> bool {
        matches!(
            errno,
            libc::ECANCELED
                | libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPERM
        )
    }

    fn detach(connection: OwnedFd) -> OwnedFd {
        connection
    }

    fn attach(connection: OwnedFd) -> OwnedFd {
        connection
    }
}

impl ListenerCore {
    /// Stops accepting ahead, and takes connections that have come, without waiting: as many as a turn of the loop
    /// allows. `None` when no more are there, or the process has no room for them.
    pub fn take_waiting(&self) -> Option<Vec<OwnedFd>> {
        self.leave_in_kernel();
        let taken: Vec<OwnedFd> = std::iter::from_fn(|| self.take(usize::MAX)).collect();
        // Unless the kernel had none, the budget of this turn is used up, or there is an error to report.
        let may_have_more = self.input.announced.get() != Announced::Nothing && self.input_ended().is_ok();
        (may_have_more || !taken.is_empty()).then_some(taken)
    }
}
