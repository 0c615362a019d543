//! System calls and flags that differ between operating systems.

use std::io;
use std::os::fd::RawFd;

/// Makes a send to a closed connection an error instead of a signal. Apple's systems have a socket option instead
/// ([`prepare_socket`]).
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: libc::c_int = 0;

/// Repeats a system call while signals interrupt it. Returns its count, or an errno.
pub(super) fn uninterrupted<T: TryInto<u32>>(mut call: impl FnMut() -> T) -> Result<u32, i32> {
    loop {
        // Only negative numbers fail to convert: counts are below 2^31.
        if let Ok(count) = call().try_into() {
            return Ok(count);
        }
        match last_errno() {
            libc::EINTR => {}
            errno => return Err(errno),
        }
    }
}

/// `send(2)` that does not wait. On Linux without the C library: in programs with several threads, that checks before
/// and after each call whether the thread is to be cancelled, which takes some 50 instructions.
///
/// # Safety
///
/// `start` must be valid for reads of `length` bytes.
pub(super) unsafe fn send(socket: RawFd, start: *const u8, length: usize) -> libc::c_long {
    let flags = libc::MSG_DONTWAIT | NO_SIGNAL;
    #[cfg(target_os = "linux")]
    // SAFETY: the caller guarantees it; `send` is `sendto` without an address.
    return unsafe {
        let no_address = std::ptr::null::<libc::sockaddr>();
        libc::syscall(libc::SYS_sendto, socket, start, length, flags, no_address, 0)
    };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller guarantees it.
    unsafe {
        libc::send(socket, start.cast(), length, flags) as libc::c_long
    }
}

/// `recv(2)` that does not wait, likewise.
///
/// # Safety
///
/// `start` must be valid for writes of `length` bytes, which no other code uses during the call.
pub(super) unsafe fn receive(socket: RawFd, start: *mut u8, length: usize) -> libc::c_long {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller guarantees it; `recv` is `recvfrom` without an address.
    return unsafe {
        let (no_address, no_length) =
            (std::ptr::null_mut::<libc::sockaddr>(), std::ptr::null_mut::<libc::socklen_t>());
        libc::syscall(libc::SYS_recvfrom, socket, start, length, libc::MSG_DONTWAIT, no_address, no_length)
    };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller guarantees it.
    unsafe {
        libc::recv(socket, start.cast(), length, libc::MSG_DONTWAIT) as libc::c_long
    }
}

pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Whether an operation must wait for readiness.
pub(super) fn would_block(errno: i32) -> bool {
    errno == libc::EAGAIN || errno == libc::EWOULDBLOCK
}

/// Whether this is an IPv4 or IPv6 socket. On a Unix socket, a receive may end early, at a passed descriptor, with more
/// data behind it.
pub(super) fn is_inet(socket: RawFd) -> bool {
    let mut name = [0_u64; size_of::<libc::sockaddr_storage>() / size_of::<u64>()];
    let mut length = size_of_val(&name) as libc::socklen_t;
    let start = name.as_mut_ptr().cast::<libc::sockaddr>();
    // SAFETY: the name has the size that is passed, and is aligned for any address; if the call fails, its family is
    // zero.
    let family = unsafe {
        libc::getsockname(socket, start, &raw mut length);
        (*start).sa_family
    };
    matches!(libc::c_int::from(family), libc::AF_INET | libc::AF_INET6)
}

/// Whether calls on this descriptor block; false if it is invalid.
pub(super) fn blocks(descriptor: RawFd) -> bool {
    // SAFETY: this command only reads flags, whatever the number refers to.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK == 0
}

/// Makes a call that has no non-blocking flag on a descriptor that may be blocking.
pub(super) fn without_blocking<T>(descriptor: RawFd, call: impl FnOnce() -> T) -> T {
    // SAFETY: these commands only read and set flags.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_NONBLOCK != 0 {
        return call();
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    let result = call();
    // SAFETY: as above.
    unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags) };
    result
}

/// Accepts one connection, close-on-exec and non-blocking.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn accept(listener: RawFd) -> Result<u32, i32> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    uninterrupted(|| {
        // SAFETY: null pointers: the peer's address is not requested.
        unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) }
    })
}

/// Accepts one connection, close-on-exec and non-blocking.
#[cfg(target_vendor = "apple")]
pub(super) fn accept(listener: RawFd) -> Result<u32, i32> {
    let socket = uninterrupted(|| {
        // SAFETY: null pointers: the peer's address is not requested.
        unsafe { libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()) }
    })?;
    // SAFETY: these commands only set flags, of our own new descriptor.
    unsafe {
        libc::fcntl(socket as RawFd, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(socket as RawFd, libc::F_SETFL, libc::O_NONBLOCK);
    }
    prepare_socket(socket as RawFd);
    Ok(socket)
}

/// Disables SIGPIPE, which takes a flag of each send elsewhere.
#[cfg(target_vendor = "apple")]
pub(super) fn prepare_socket(socket: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: the option is read from `on`, with its size. It only fails if the connection has already ended.
    unsafe {
        let size = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, (&raw const on).cast(), size);
    }
}

/// Does nothing: each send has a flag that disables SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn prepare_socket(_: RawFd) {}
