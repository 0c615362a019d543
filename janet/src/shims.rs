//! What the functions that the VM calls have in common. Each is a shim whose frame holds only plain data while it
//! calls functions of the VM that may raise: it reads its arguments, calls into Rust for a verdict, and carries it
//! out. A panic in the Rust part becomes an error in Janet, because it must not unwind C frames.

use std::rc::Rc;

use crate::api as janet;
use crate::api::{Janet, JanetStream};
use crate::bridge::Bridge;
use crate::stock;
use crate::values::{Verdict, catch_panic, explained};

/// The first argument as a stream, or the VM's error about it.
pub(crate) unsafe fn stream_argument(arguments: *mut Janet) -> *mut JanetStream {
    // SAFETY: the caller has checked that there is a first argument.
    unsafe { janet::janet_getabstract(arguments, 0, &raw const janet::janet_stream_type).cast() }
}

/// Whether a stream is one of ours. From an open one, C code may take the descriptor: then, only errors are left, which
/// are the VM's.
#[inline]
pub(crate) unsafe fn is_ours(stream: *mut JanetStream) -> bool {
    // SAFETY: the caller has a live stream.
    let JanetStream { methods, handle, flags, .. } = unsafe { &*stream };
    *methods == stock::methods().cast() && (*handle != -1 || flags & janet::JANET_STREAM_CLOSED != 0)
}

/// Carries out the verdict. Nothing with a destructor may be alive in the caller, and the decision must not raise.
pub(crate) unsafe fn carry_out(decide: impl FnOnce() -> Verdict) -> Janet {
    match catch_panic(decide).unwrap_or_else(Verdict::Raise) {
        Verdict::Return(value) => value,
        // SAFETY: unwinds the VM's stack over frames that hold plain data.
        Verdict::Raise(error) => unsafe { janet::janet_panicv(error) },
        // SAFETY: as above.
        Verdict::Await => unsafe { janet::janet_await() },
    }
}

/// This thread's bridge, or a verdict with the reason why there is none.
#[inline]
pub(crate) fn this_bridge() -> Result<Rc<Bridge>, Verdict> {
    Bridge::get_or_make().map_err(|error| Verdict::Raise(explained("an event loop cannot be made", &error)))
}
