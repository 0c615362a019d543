//! The deliberate bugs of this crate, which the simulation must find; see
//! [`Mutation`](ringspun_runtime::simulation::Mutation).

use std::io;
use std::os::fd::OwnedFd;

use ringspun_fibers as fibers;
use ringspun_runtime::simulation::{Mutation, mutated};
use ringspun_runtime::{Buffer, WaitList};

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

/// Leaks a file that was opened after its fiber was interrupted, and tells of the interrupt alone.
pub(crate) fn leak_late_open(file: OwnedFd) -> io::Result<OwnedFd> {
    if fibers::pending_interrupt().is_some() && mutated(Mutation::LateOpenLeaked) {
        std::mem::forget(file);
        return Err(fibers::check().err().unwrap_or(fibers::Interrupt::Cancelled).into());
    }
    Ok(file)
}

/// The count of a write to a file, or that of all its bytes.
pub(crate) fn trust_write(written: usize, all: usize) -> usize {
    if mutated(Mutation::ShortWriteTrusted) { all } else { written }
}

/// The count of an interrupted write to a pipe, or none.
pub(crate) fn tell_written(written_bytes: usize) -> usize {
    if mutated(Mutation::PipeBytesUntold) { 0 } else { written_bytes }
}
