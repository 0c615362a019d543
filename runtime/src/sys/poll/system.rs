//! What the systems that have readiness do each in their own way.

use std::io;
use std::os::fd::RawFd;

/// A send to a peer that is gone is an error and no signal. Apple's systems have an option of the socket
/// instead ([`prepare_socket`]).
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: libc::c_int = 0;

/// Makes a system call until no signal interrupts it. What it returns is its count, or an errno.
pub(super) fn uninterrupted<T: TryInto<u32>>(mut call: impl FnMut() -> T) -> Result<u32, i32> {
    loop {
        // A negative number does not fit, and nothing else fails to: counts are kept below 2^31.
        if let Ok(count) = call().try_into() {
            return Ok(count);
        }
        match last_errno() {
            libc::EINTR => {}
            errno => return Err(errno),
        }
    }
}

pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The operation has to wait for readiness.
pub(super) fn would_block(errno: i32) -> bool {
    errno == libc::EAGAIN || errno == libc::EWOULDBLOCK
}

/// Whether this is a socket of IPv4 or IPv6. A receive on a Unix socket may end where a descriptor was passed
/// along, with more behind it.
pub(super) fn is_inet(socket: RawFd) -> bool {
    let mut name = [0_u64; size_of::<libc::sockaddr_storage>() / size_of::<u64>()];
    let mut length = size_of_val(&name) as libc::socklen_t;
    let start = name.as_mut_ptr().cast::<libc::sockaddr>();
    // SAFETY: the name has room for the length that is passed, and is aligned for any address; its family is
    // zero if the call fails.
    let family = unsafe {
        libc::getsockname(socket, start, &raw mut length);
        (*start).sa_family
    };
    matches!(libc::c_int::from(family), libc::AF_INET | libc::AF_INET6)
}

/// Whether calls on this descriptor block; they do not if it is none.
pub(super) fn blocks(descriptor: RawFd) -> bool {
    // SAFETY: reads the flags of whatever the number refers to.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK == 0
}

/// Makes a call that has no flag of its own against blocking, on a descriptor that blocks.
pub(super) fn without_blocking<T>(descriptor: RawFd, call: impl FnOnce() -> T) -> T {
    // SAFETY: `fcntl` with these commands takes and gives flags only.
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
        // SAFETY: null says that the peer's address is not asked for.
        unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) }
    })
}

/// Accepts one connection, close-on-exec and non-blocking.
#[cfg(target_vendor = "apple")]
pub(super) fn accept(listener: RawFd) -> Result<u32, i32> {
    let socket = uninterrupted(|| {
        // SAFETY: null says that the peer's address is not asked for.
        unsafe { libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()) }
    })?;
    // SAFETY: `fcntl` with these commands takes flags only; the descriptor is our own new one.
    unsafe {
        libc::fcntl(socket as RawFd, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(socket as RawFd, libc::F_SETFL, libc::O_NONBLOCK);
    }
    prepare_socket(socket as RawFd);
    Ok(socket)
}

/// Does once for a socket what takes a flag of each send elsewhere.
#[cfg(target_vendor = "apple")]
pub(super) fn prepare_socket(socket: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: the option is read from `on`, with its size. Where it fails, the socket is gone already.
    unsafe {
        let size = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, (&raw const on).cast(), size);
    }
}

/// Does once for a socket what takes a flag of each send elsewhere.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn prepare_socket(_: RawFd) {}
