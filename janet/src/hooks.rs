//! The two calls by which the VM's event loop talks to the kernel, answered by us.
//!
//! The VM is a C library that is linked into the program; its calls of `epoll_wait` and `epoll_ctl`
//! resolve to the definitions here instead of the C library's. They concern exactly one epoll
//! descriptor per thread: that of the VM on a thread that has used the ring. Every other call goes to
//! the kernel unchanged.
//!
//! | the VM calls | which means | we |
//! | --- | --- | --- |
//! | `epoll_wait(vm, .., -1)` | nothing is left to run | turn our loop, in which the VM's descriptor is one polled operation |
//! | `epoll_ctl(vm, DEL, fd)` | a stream is garbage, or closed by other code | take over the descriptor, and close it when the ring is done with it |

use std::ffi::c_int;

use libc::epoll_event;

use crate::bridge::Bridge;

/// Stands in for `epoll_wait(2)`.
///
/// # Safety
///
/// As the original: `events` has room for `maximum` entries.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_wait(
    descriptor: c_int,
    events: *mut epoll_event,
    maximum: c_int,
    timeout_ms: c_int,
) -> c_int {
    if let Some(bridge) = Bridge::current()
        && bridge.is_vm_wait(descriptor, timeout_ms)
    {
        return match bridge.wait() {
            // SAFETY: the caller's own arguments, without waiting.
            Ok(true) => unsafe { kernel_epoll_wait(descriptor, events, maximum, 0) },
            Ok(false) => 0,
            Err(error) => fail(error.raw_os_error().unwrap_or(libc::EIO)),
        };
    }
    // SAFETY: the caller's own arguments.
    unsafe { kernel_epoll_wait(descriptor, events, maximum, timeout_ms) }
}

/// Stands in for `epoll_ctl(2)`.
///
/// # Safety
///
/// As the original: `event` is valid, or null for a removal.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_ctl(
    descriptor: c_int,
    operation: c_int,
    target: c_int,
    event: *mut epoll_event,
) -> c_int {
    if operation == libc::EPOLL_CTL_DEL
        && let Some(bridge) = Bridge::current()
        && bridge.is_vm_epoll(descriptor)
    {
        if bridge.release_descriptor(target) {
            return 0;
        }
        // SAFETY: the caller's own arguments.
        let removed = unsafe { kernel_epoll_ctl(descriptor, operation, target, event) };
        // A stream that came from another thread and was never used here is not registered; the VM
        // would raise an error in the middle of a collection.
        let missing = std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
        return if removed == -1 && missing { 0 } else { removed };
    }
    // SAFETY: the caller's own arguments.
    unsafe { kernel_epoll_ctl(descriptor, operation, target, event) }
}

unsafe fn kernel_epoll_wait(
    descriptor: c_int,
    events: *mut epoll_event,
    maximum: c_int,
    timeout_ms: c_int,
) -> c_int {
    // `epoll_pwait` without a mask is `epoll_wait`, and exists on every architecture.
    let no_mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: the caller vouches for `events`. The mask's size is not looked at without a mask.
    unsafe {
        libc::syscall(libc::SYS_epoll_pwait, descriptor, events, maximum, timeout_ms, no_mask, 8) as c_int
    }
}

unsafe fn kernel_epoll_ctl(
    descriptor: c_int,
    operation: c_int,
    target: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the caller vouches for `event`.
    unsafe { libc::syscall(libc::SYS_epoll_ctl, descriptor, operation, target, event) as c_int }
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: errno's location is valid for this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}
