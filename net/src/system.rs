//! The system calls that the net layer makes directly, in one place so that a simulation can replace them.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, getpeername, getsockname,
};

/// Returns the result of the simulation that has been entered on this thread, if any.
#[cfg(feature = "simulation")]
macro_rules! simulated {
    (|$simulation:ident| $answer:expr) => {
        if let Some($simulation) = ringspun_runtime::simulation::current() {
            return $answer;
        }
    };
}
#[cfg(not(feature = "simulation"))]
macro_rules! simulated {
    (|$simulation:ident| $answer:expr) => {};
}

/// Makes a socket, close-on-exec and non-blocking: other code that uses its descriptor must not block the loop.
pub(crate) fn socket(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    simulated!(|simulation| simulation.socket());
    #[cfg(not(target_vendor = "apple"))]
    {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(nix::sys::socket::socket(family, kind, flags, None)?)
    }
    #[cfg(target_vendor = "apple")]
    {
        let made = nix::sys::socket::socket(family, kind, SockFlag::empty(), None)?;
        close_on_exec_and_nonblocking(&made)?;
        Ok(made)
    }
}

/// Binds a socket to an address.
pub(crate) fn bind(socket: &OwnedFd, address: &SockaddrStorage) -> io::Result<()> {
    simulated!(|simulation| simulation.bind(socket.as_raw_fd(), address));
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), address)?)
}

/// Makes a socket listen.
pub(crate) fn listen(socket: &OwnedFd, backlog: i32) -> io::Result<()> {
    simulated!(|simulation| simulation.listen(socket.as_raw_fd()));
    // SAFETY: a plain system call. The type of nix for a backlog refuses what the system would take, above `SOMAXCONN`.
    Ok(Errno::result(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)?)
}

/// Accepts a waiting connection from a non-blocking listener.
pub(crate) fn accept_now(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    simulated!(|simulation| simulation.accept(listener.as_raw_fd()));
    #[cfg(not(target_vendor = "apple"))]
    let descriptor = {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        nix::sys::socket::accept4(listener.as_raw_fd(), flags)?
    };
    #[cfg(target_vendor = "apple")]
    let descriptor = nix::sys::socket::accept(listener.as_raw_fd())?;
    // SAFETY: our own new descriptor.
    let accepted = unsafe { OwnedFd::from_raw_fd(descriptor) };
    #[cfg(target_vendor = "apple")]
    close_on_exec_and_nonblocking(&accepted)?;
    Ok(accepted)
}

/// Sets the flags of a new socket on a system whose calls cannot set them. A process that is started in between
/// inherits the socket.
#[cfg(target_vendor = "apple")]
fn close_on_exec_and_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: sets a flag of our own new descriptor.
    if unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    set_nonblocking(socket.as_raw_fd(), true)
}

/// Receives available bytes without blocking.
pub(crate) fn receive_now(socket: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    simulated!(|simulation| simulation.receive(socket, bytes));
    loop {
        match nix::sys::socket::recv(socket, bytes, MsgFlags::MSG_DONTWAIT) {
            Err(nix::errno::Errno::EINTR) => {}
            received => return Ok(received?),
        }
    }
}

/// Whether a receive would not block. Not used in simulations.
pub(crate) fn is_readable(socket: RawFd) -> bool {
    simulated!(|_simulation| false);
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(nix::sys::socket::recv(socket, &mut [0], flags), Err(nix::errno::Errno::EAGAIN))
}

/// Shuts down one or both directions of a socket; the descriptor must be open.
pub(crate) fn shutdown(descriptor: RawFd, how: Shutdown) -> io::Result<()> {
    simulated!(|simulation| simulation.shutdown(descriptor, how));
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: touches no memory.
    match unsafe { libc::shutdown(descriptor, how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the close of the descriptor, which must be open, reset the connection instead of ending it.
pub(crate) fn reset_at_close(descriptor: RawFd) -> io::Result<()> {
    simulated!(|simulation| simulation.reset_at_close(descriptor));
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the structure is valid for the length that is passed.
    let set = unsafe {
        libc::setsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a socket blocking or non-blocking; the descriptor must be open.
pub(crate) fn set_nonblocking(descriptor: RawFd, nonblocking: bool) -> io::Result<()> {
    simulated!(|_simulation| Ok(()));
    let mut nonblocking = i32::from(nonblocking);
    // SAFETY: this request reads an `int`.
    match unsafe { libc::ioctl(descriptor, libc::FIONBIO, &raw mut nonblocking) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address of a socket (`getsockname(2)`).
pub(crate) fn local_address(descriptor: RawFd) -> io::Result<SockaddrStorage> {
    simulated!(|simulation| simulation.local_address(descriptor));
    Ok(getsockname(descriptor)?)
}

/// The address of a socket's peer (`getpeername(2)`).
pub(crate) fn peer_address(descriptor: RawFd) -> io::Result<SockaddrStorage> {
    simulated!(|simulation| simulation.peer_address(descriptor));
    Ok(getpeername(descriptor)?)
}

/// Sets an option to a value in the kernel's format. Does nothing in a simulation.
pub(crate) fn set_option<T: Copy>(descriptor: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    simulated!(|_simulation| Ok(()));
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is valid for the length that is passed.
    match unsafe { libc::setsockopt(descriptor, level, name, std::ptr::from_ref(value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The value of an `int` option; the descriptor must be open. 0 in a simulation.
pub(crate) fn option_number(descriptor: RawFd, level: i32, name: i32) -> io::Result<i32> {
    simulated!(|_simulation| Ok(0));
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value has room for the `int` whose length is passed.
    let got = unsafe { libc::getsockopt(descriptor, level, name, (&raw mut value).cast(), &raw mut length) };
    if got == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Reads from a file at an offset, and may block.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    simulated!(|simulation| simulation.read_at(file.as_raw_fd(), buffer, offset));
    file.read_at(buffer, offset)
}

/// Writes to a file at an offset, and may block.
pub(crate) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    simulated!(|simulation| simulation.write_at(file.as_raw_fd(), data, offset));
    file.write_at(data, offset)
}

/// Blocks until what has been written to a file is on the disk.
pub(crate) fn synchronize(file: &File, data_only: bool) -> io::Result<()> {
    simulated!(|simulation| simulation.synchronize(file.as_raw_fd()));
    if data_only { file.sync_data() } else { file.sync_all() }
}

/// Makes a pipe: first the end to read from.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    simulated!(|simulation| simulation.pipe());
    io::pipe().map(|(reader, writer)| (reader.into(), writer.into()))
}

/// `read(2)`; the descriptor must be open.
pub(crate) fn read(descriptor: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    simulated!(|simulation| simulation.read(descriptor, buffer));
    // SAFETY: the buffer is valid for writes of its length.
    let count = unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// `write(2)`; the descriptor must be open.
pub(crate) fn write(descriptor: RawFd, data: &[u8]) -> io::Result<usize> {
    simulated!(|simulation| simulation.write(descriptor, data));
    // SAFETY: the data is valid for reads of its length.
    let count = unsafe { libc::write(descriptor, data.as_ptr().cast(), data.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Reads bytes of a file that are in memory (`RWF_NOWAIT` in `preadv2(2)`); `None` if that may wait, or fails.
#[cfg(target_os = "linux")]
pub(crate) fn read_now(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Option<usize> {
    simulated!(|simulation| simulation.read_now(file.as_raw_fd(), buffer, offset));
    let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let offset = libc::off_t::try_from(offset).ok()?;
    // SAFETY: the part is valid for writes of its length.
    let count = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(count).ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_now(_: BorrowedFd<'_>, _: &mut [u8], _: u64) -> Option<usize> {
    None
}
