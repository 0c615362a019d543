//! Sockets for all workers at one address.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::address::{Address, local_address};
use crate::endpoint::Endpoint;
use crate::error::OperationError;
use crate::inherited::is_listener;
use crate::machine::{Reuse, SocketKind, bind_for_all, listen_on};
use crate::system::set_nonblocking;
use crate::waiting::{current_loop, resolve};

/// Whether the kernel distributes what arrives at a port among the sockets that share it. Elsewhere, sharing means
/// something else, and one worker listens for all.
const DISTRIBUTES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The sockets at one address: of each worker one, or a single one.
pub(super) struct Bound {
    pub(super) address: Address,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Where a server serves.
pub(super) enum Place {
    Endpoint(Endpoint),
    /// A socket that is bound already.
    Socket(OwnedFd),
}

impl Place {
    /// The sockets there: see [`bind`] and [`take`].
    pub(super) fn sockets(self, kind: SocketKind, workers: usize, shares_port: bool) -> io::Result<Bound> {
        match self {
            Self::Endpoint(endpoint) => bind(&endpoint, kind, workers, shares_port),
            Self::Socket(socket) => take(socket, kind),
        }
    }
}

/// Takes a socket over. One worker has it, as it is not known whether others share its port.
fn take(socket: OwnedFd, kind: SocketKind) -> io::Result<Bound> {
    let checked = is_listener(&socket).and_then(|is_listener| match (kind, is_listener) {
        (SocketKind::Stream, true) | (SocketKind::Datagram, false) => {
            set_nonblocking(socket.as_raw_fd(), true)
        }
        (SocketKind::Stream, false) => Err(invalid("datagrams come to this socket: expected a listener")),
        (SocketKind::Datagram, true) => Err(invalid("this socket listens: expected one for datagrams")),
    });
    let address = local_address(&socket);
    checked.map_err(|error| match (&address, error.kind()) {
        (Err(_), _) => OperationError::wrap("listen", "a socket", error),
        (Ok(address), io::ErrorKind::InvalidData) => {
            OperationError::wrap("listen", address, invalid(&error.to_string()))
        }
        (Ok(address), _) => OperationError::wrap("listen", address, error),
    })?;
    let address = address?;
    Ok(Bound { address, sockets: vec![socket] })
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Binds sockets for a number of workers to the first address of the endpoint that can be bound. Parks during the
/// lookup of a name.
///
/// A port that is in use is refused, unless `shares_port`: then other processes of the same user may listen on it too,
/// if they ask for it as well.
fn bind(endpoint: &Endpoint, kind: SocketKind, workers: usize, shares_port: bool) -> io::Result<Bound> {
    let event_loop = current_loop()?;
    let bound = resolve(&event_loop, endpoint, kind, true).and_then(|addresses| {
        let alone = match kind {
            SocketKind::Stream => Reuse::Address,
            SocketKind::Datagram => Reuse::Nothing,
        };
        let is_shareable = DISTRIBUTES && addresses.iter().all(|address| !address.is_unix());
        let sockets = if is_shareable && (workers > 1 || shares_port) {
            bind_for_all(&addresses, kind, workers, if shares_port { Reuse::Port } else { alone })?
        } else {
            vec![listen_on(&addresses, kind, alone)?]
        };
        let address = sockets.first().map(local_address).transpose()?;
        let address = address.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Bound { address, sockets })
    });
    bound.map_err(|error| OperationError::wrap("listen", endpoint, error))
}
