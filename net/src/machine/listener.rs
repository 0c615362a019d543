//! Listening sockets: what is received are connections.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use ringspun_runtime::{Completion, Operation};

use super::budget::Budget;
use super::socket::{Kind, Socket, Taken};
use crate::system::accept_now;

/// Connections, as a listening socket brings them. The descriptor must not block.
#[derive(Debug)]
pub struct Connections;

/// The shared part of a listener.
pub type ListenerCore = Socket<Connections>;

impl Kind for Connections {
    type Piece = OwnedFd;
    type Detached = OwnedFd;
    type Output = ();

    /// The rest wait in the backlog, where another process on the same socket can get them.
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
        // SAFETY: the kernel made this descriptor for this completion; nobody else has it.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
    }

    fn discard(connection: OwnedFd) {
        #[cfg(feature = "mutations")]
        crate::mutations::leak_late_accept(connection);
        #[cfg(not(feature = "mutations"))]
        drop(connection);
    }

    /// That we paused, or that one connection was over before it was accepted: accept(2) says to try again.
    fn passes(errno: i32) -> bool {
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
