//! The calls by which the VM talks to the kernel about its event loop and its streams, answered by us.
//!
//! The VM is a C library that is linked into the program; its calls of `epoll_wait`, `epoll_ctl` and `dup`
//! resolve to the definitions here instead of the C library's. They concern exactly one epoll
//! descriptor per thread, that of the VM there, and the descriptors of our streams. Every other call
//! goes to the kernel unchanged.
//!
//! | the VM calls | which means | we |
//! | --- | --- | --- |
//! | `epoll_wait(vm, .., -1)` | nothing is left to run | turn our loop, in which the VM's descriptor is one polled operation |
//! | `epoll_ctl(vm, DEL, fd)` | a stream is garbage, or closed by other code | take over the descriptor, and close it when the ring is done with it |
//! | `epoll_ctl(vm, ADD, timer)` | the VM starts | remember its descriptor |
//! | `dup(stream)` | a stream goes to another thread, or becomes a file | stop receiving ahead of its readers |

use std::cell::Cell;
use std::ffi::c_int;
use std::io;

use evil_janet as janet;
use libc::epoll_event;

use crate::bridge::Bridge;
use crate::socket::{forget_handed_over, pass_on};
use crate::stock::is_in_use;

/// More than the VM's state takes, whose size is not public.
const VM_STATE_SPAN_BYTES: usize = 1024;

thread_local! {
    /// The epoll descriptor of this thread's VM; -1 for none.
    static VM_EPOLL: Cell<c_int> = const { Cell::new(-1) };
}

/// The epoll descriptor of the VM on this thread.
///
/// # Errors
///
/// If the VM does not use the `epoll_ctl` of this file.
pub(crate) fn epoll_of_vm() -> io::Result<c_int> {
    match VM_EPOLL.get() {
        -1 => Err(io::Error::other("the Janet VM does not wait by epoll")),
        descriptor => Ok(descriptor),
    }
}

/// The VM on this thread has closed its descriptor.
pub(crate) fn forget_epoll_of_vm() {
    VM_EPOLL.set(-1);
}

/// Whether an epoll instance is told of the VM's timer. The VM shows its descriptor to nobody, but it
/// registers the timer under the timer's place in the VM's own state, where no one else's data is.
fn is_vm_introduction(operation: c_int, event: *const epoll_event) -> bool {
    if operation != libc::EPOLL_CTL_ADD || event.is_null() {
        return false;
    }
    // SAFETY: an event that is added is valid; the structure may be packed. The other is the address of
    // a thread-local variable of the VM, whether it runs or not.
    let (data, state) = unsafe { ((*event).u64, janet::janet_local_vm().addr()) };
    usize::try_from(data).is_ok_and(|address| (state..state + VM_STATE_SPAN_BYTES).contains(&address))
}

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
        && descriptor == VM_EPOLL.get()
        && timeout_ms == -1
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
    if is_vm_introduction(operation, event) {
        VM_EPOLL.set(descriptor);
    }
    if operation == libc::EPOLL_CTL_DEL && descriptor == VM_EPOLL.get() && is_in_use() {
        if Bridge::current().is_some_and(|bridge| bridge.release_descriptor(target)) {
            return 0;
        }
        forget_handed_over(target);
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

/// Stands in for `dup(2)`.
///
/// # Safety
///
/// As the original, which asks for nothing.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dup(descriptor: c_int) -> c_int {
    // SAFETY: touches no memory.
    let duplicate = unsafe { libc::syscall(libc::SYS_dup, descriptor) as c_int };
    if duplicate >= 0 && !Bridge::current().is_some_and(|bridge| bridge.duplicated(descriptor, duplicate)) {
        pass_on(descriptor, duplicate);
    }
    duplicate
}

unsafe fn kernel_epoll_wait(
    descriptor: c_int,
    events: *mut epoll_event,
    maximum: c_int,
    timeout_ms: c_int,
) -> c_int {
    // `epoll_pwait` without a mask is `epoll_wait`, and exists on every architecture.
    let no_mask = std::ptr::null::<libc::sigset_t>();
    let mask_size_bytes = 8_usize;
    // SAFETY: the caller vouches for `events`. The mask's size is not looked at without a mask.
    unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait,
            descriptor,
            events,
            maximum,
            timeout_ms,
            no_mask,
            mask_size_bytes,
        ) as c_int
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
