//! The calls by which the VM talks to the kernel about its event loop and its streams, as `c/vm.c` hands them over.
//!
//! | the VM calls | which means | we |
//! | --- | --- | --- |
//! | `epoll_wait` | nothing is left to run | turn our loop, in which the VM's descriptor is one polled operation |
//! | `close(stream)` | a stream is garbage, or closed by other code | take over the descriptor, and close it when the ring is done with it |
//! | `dup(stream)` | a stream goes to another thread, or becomes a file | stop receiving ahead of its readers |
//! | `nanosleep`, `exit`, `_Exit`, `execv` | the loop will not turn for a while, or ever | hand over what is to be sent |
//! | `fread`, `fwrite`, a lock that is taken, ... | the same, perhaps | hand over what writes that have returned left behind |
//! | `dlopen(module)` | C code that may use sockets is there | leave everything in the kernel that nobody has asked for |
//! | nothing, but C code waits on a stream | it expects the VM to do so | have the VM register it with its epoll |
//! | nothing, but C code reads from a stream | it expects what nobody has read | give it what was received and not used |
//! | nothing, but C code closes a stream | it expects the end immediately | close it as Janet code does |
//! | any for its loop, in a forked child | the loop is the parent's | leave all that the thread had to the parent |

use std::ffi::c_int;
use std::io;
use std::sync::Once;

use crate::api::{Hooks, JanetBuffer, JanetStream, ringspun_vm_install_hooks};
use crate::bridge::{Bridge, share_streams_of_process};
use crate::socket::{forget_handed_over, pass_on};
use crate::stock::methods;
use crate::streams;

/// What [`Hooks::wait`] returns, besides -1 with `errno` set; the same as in `c/vm.c`.
const NO_EVENTS: c_int = 0;
const EVENTS: c_int = 1;
const NOT_WAITED: c_int = 2;

/// Has the VMs of this process call us. Threads whose VM has no bridge see no difference.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hooks = Hooks {
            wait,
            duplicated,
            closes,
            flush,
            end,
            flush_writes,
            forked,
            lend,
            read_received,
            close,
            collected,
            share_streams,
            methods: methods(),
        };
        // Lives as long as the process.
        // SAFETY: the functions do what c/vm.c says of them.
        unsafe { ringspun_vm_install_hooks(Box::into_raw(Box::new(hooks))) };
    });
}

extern "C" fn wait() -> c_int {
    match Bridge::current().map(|bridge| bridge.wait()) {
        None => NOT_WAITED,
        Some(Ok(false)) => NO_EVENTS,
        Some(Ok(true)) => EVENTS,
        Some(Err(error)) => {
            set_errno(&error);
            -1
        }
    }
}

fn set_errno(error: &io::Error) {
    // SAFETY: errno's location is valid for this thread.
    unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EIO) };
}

extern "C" fn flush() {
    if let Some(bridge) = Bridge::current() {
        bridge.flush();
    }
}

extern "C" fn end() {
    flush();
    ringspun_runtime::cancel_before_exit();
}

extern "C" fn flush_writes() {
    if let Some(bridge) = Bridge::current() {
        bridge.flush_writes();
    }
}

extern "C" fn lend(stream: *mut JanetStream) -> c_int {
    match Bridge::get_or_make() {
        Ok(bridge) => {
            bridge.lend(stream);
            0
        }
        Err(error) => {
            set_errno(&error);
            -1
        }
    }
}

extern "C" fn read_received(
    stream: *mut JanetStream,
    buffer: *mut JanetBuffer,
    count: i32,
    how: c_int,
) -> c_int {
    // SAFETY: called for a function of a native module, with live values.
    c_int::from(unsafe { streams::read_received(stream, buffer, count, how) })
}

extern "C" fn close(stream: *mut JanetStream) -> c_int {
    c_int::from(Bridge::get_or_make().is_ok_and(|bridge| {
        bridge.close(stream);
        true
    }))
}

extern "C" fn collected(stream: *mut JanetStream) {
    if let Some(bridge) = Bridge::current() {
        bridge.collected(stream);
    }
}

extern "C" fn share_streams() {
    share_streams_of_process();
}

extern "C" fn forked() {
    Bridge::leave_to_parent();
}

extern "C" fn duplicated(descriptor: c_int, duplicate: c_int) {
    if !Bridge::current().is_some_and(|bridge| bridge.duplicated(descriptor, duplicate)) {
        pass_on(descriptor, duplicate);
    }
}

extern "C" fn closes(descriptor: c_int) -> c_int {
    if Bridge::current().is_some_and(|bridge| bridge.release_descriptor(descriptor)) {
        return 1;
    }
    forget_handed_over(descriptor);
    0
}
