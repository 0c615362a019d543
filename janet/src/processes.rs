//! Sockets that processes inherit: `os/spawn` and `os/execute` with a stream as `:in`, `:out` or `:err`.
//!
//! The VM must not receive ahead from a socket that a process reads. The functions themselves are the VM's own.

use std::ffi::CStr;

use crate::api as janet;
use crate::api::{Janet, JanetStream};

use crate::shims::{carry_out, is_ours, this_bridge};
use crate::stock::{self, Replacement, replacement};
use crate::values::{Verdict, keyword, nil};

pub(crate) const OS_SPAWN: Replacement = replacement!(c"os/spawn", os_spawn);

unsafe extern "C-unwind" fn os_spawn(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments; no destructor is alive where it may raise.
    unsafe {
        carry_out(|| share_streams(count, arguments));
        stock::call(c"os/spawn", count, arguments)
    }
}

pub(crate) const OS_EXECUTE: Replacement = replacement!(c"os/execute", os_execute);

unsafe extern "C-unwind" fn os_execute(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `os_spawn`.
    unsafe {
        carry_out(|| share_streams(count, arguments));
        stock::call(c"os/execute", count, arguments)
    }
}

/// Looks through the third argument for streams of ours. Raises nothing: the VM's own function does.
unsafe fn share_streams(count: i32, arguments: *mut Janet) -> Verdict {
    const REDIRECTIONS: [&CStr; 3] = [c"in", c"out", c"err"];
    if count < 3 {
        return Verdict::Return(nil());
    }
    // SAFETY: the third argument is there; values are unwrapped as what they are checked to be.
    unsafe {
        let redirections = *arguments.add(2);
        let is_dictionary = janet::janet_checktype(redirections, janet::JANET_TABLE) != 0
            || janet::janet_checktype(redirections, janet::JANET_STRUCT) != 0;
        if !is_dictionary {
            return Verdict::Return(nil());
        }
        for name in REDIRECTIONS {
            let value = janet::janet_get(redirections, keyword(&name.to_string_lossy()));
            let stream: *mut JanetStream =
                janet::janet_checkabstract(value, &raw const janet::janet_stream_type).cast();
            if stream.is_null() || !is_ours(stream) || (*stream).flags & janet::JANET_STREAM_CLOSED != 0 {
                continue;
            }
            if let Ok(bridge) = this_bridge() {
                // What was written before comes before what the process writes.
                bridge.flush();
                bridge.share_with_process(stream);
            }
        }
    }
    Verdict::Return(nil())
}
