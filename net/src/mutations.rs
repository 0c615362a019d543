//! The deliberate bugs of this crate, which the simulation must find; see
//! [`Mutation`](ringspun_runtime::simulation::Mutation).

use std::os::fd::OwnedFd;

use ringspun_runtime::Buffer;
use ringspun_runtime::simulation::{Mutation, mutated};

use crate::wait_list::WaitList;

/// Drops the first byte of the last piece before a receive ends, if no reader waits for it.
pub(crate) fn without_late_byte(mut buffer: Buffer, more: bool, readers: &WaitList) -> Buffer {
    if !more && readers.is_empty() && mutated(Mutation::LateByteDropped) {
        buffer.consume(1);
    }
    buffer
}

/// Whether the wake-up of the next writer is lost.
pub(crate) fn loses_wake() -> bool {
    mutated(Mutation::WakeLost)
}

/// Leaks a connection that arrives after the close of its listener.
pub(crate) fn leak_late_accept(connection: OwnedFd) {
    if mutated(Mutation::LateAcceptLeaked) {
        std::mem::forget(connection);
    }
}
