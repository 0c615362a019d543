//! Sockets for all workers at one address.

use std::io;
use std::os::fd::OwnedFd;

use crate::address::{Address, local_address};
use crate::endpoint::Endpoint;
use crate::error::OperationError;
use crate::machine::{Reuse, SocketKind, bind_for_all, listen_on};
use crate::waiting::{current_loop, resolve};

/// Whether the kernel distributes what arrives at a port among the sockets that share it. Elsewhere, sharing means
/// something else, and one worker listens for all.
const DISTRIBUTES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The sockets at one address: of each worker one, or a single one.
pub(super) struct Bound {
    pub(super) address: Address,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Binds sockets for a number of workers to the first address of the endpoint that can be bound. Parks during the
/// lookup of a name.
///
/// A port that is in use is refused, unless `shares_port`: then other processes of the same user may listen on it too,
/// if they ask for it as well.
pub(super) fn bind(
    endpoint: &Endpoint,
    kind: SocketKind,
    workers: usize,
    shares_port: bool,
) -> io::Result<Bound> {
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
