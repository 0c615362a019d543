//! The deliberate bugs of this crate, each of which the simulation has to find:
//! [`Mutation`](ringspun_runtime::simulation::Mutation) says what they are.

use std::os::fd::OwnedFd;

use ringspun_runtime::Buffer;
use ringspun_runtime::simulation::{Mutation, mutated};

use crate::wait_list::WaitList;

/// Drops the first byte of what came last before a receive ended, if nobody waits for it.
pub(crate) fn without_late_byte(mut buffer: Buffer, more: bool, readers: &WaitList) -> Buffer {
    if !more && readers.is_empty() && mutated(Mutation::LateByteDropped) {
        buffer.consume(1);
    }
    buffer
}

/// Whether the next writer is not woken.
pub(crate) fn loses_wake() -> bool {
    mutated(Mutation::WakeLost)
}

/// Leaves a connection open that nobody will take.
pub(crate) fn leak_late_accept(connection: OwnedFd) {
    if mutated(Mutation::LateAcceptLeaked) {
        std::mem::forget(connection);
    }
}
