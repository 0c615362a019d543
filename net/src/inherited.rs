//! Sockets that the process has been started with: socket activation.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::address::{Address, local_address};

/// The first of them, as in `sd_listen_fds(3)`.
const FIRST: RawFd = 3;
/// What a process may be given, by far.
const COUNT_MAX: usize = 10_000;

/// A socket that this process has been started with, from [`inherited_sockets`].
///
/// `ServerBuilder::serve_on` serves on it on every core; as a [`Listener`](crate::Listener) or
/// [`DatagramSocket`](crate::DatagramSocket), it belongs to one thread: they are made of it by `try_from(OwnedFd)`.
#[derive(Debug)]
pub struct InheritedSocket {
    name: String,
    descriptor: OwnedFd,
    is_listener: bool,
}

impl InheritedSocket {
    /// Its name: `FileDescriptorName=` of a systemd socket, by default the name of the unit. Empty if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it listens for connections. Otherwise, it is a datagram socket.
    pub fn is_listener(&self) -> bool {
        self.is_listener
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// The kernel's, and `Unsupported` for a family that is neither IP nor Unix.
    pub fn localname(&self) -> io::Result<Address> {
        local_address(&self.descriptor)
    }
}

impl From<InheritedSocket> for OwnedFd {
    fn from(socket: InheritedSocket) -> Self {
        socket.descriptor
    }
}

impl AsFd for InheritedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The sockets that whoever started this process has left open for it, in order: systemd does so for a service with a
/// `.socket` unit, and keeps them open from one start of the service to the next, so that no connection is refused in
/// between. None, if nobody has left any.
///
/// The protocol is that of `sd_listen_fds(3)`: the environment has `LISTEN_PID`, which is this process, `LISTEN_FDS`,
/// their number, and perhaps `LISTEN_FDNAMES`. From then on, they are closed when another program is executed. Only
/// the first call of the process returns them.
///
/// # Errors
///
/// `InvalidData`, with the name and the value, for a variable that is no number, for a descriptor that is not open, and
/// for one that is neither a listener nor a datagram socket.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_net::{self as net, ServerBuilder};
///
/// let mut builder = ServerBuilder::new().workers(2);
/// let mut sockets = net::inherited_sockets()?;
/// sockets.retain(|socket| socket.is_listener());
/// if sockets.is_empty() {
///     // Started by hand.
///     builder = builder.serve("127.0.0.1:0", |stream| drop(stream.write(b"hello")));
/// }
/// for socket in sockets {
///     builder = builder.serve_on(socket, |stream, ()| drop(stream.write(b"hello")));
/// }
/// let server = builder.start()?;
/// # server.drain(Duration::ZERO)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn inherited_sockets() -> io::Result<Vec<InheritedSocket>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| env::var(name).ok();
    let count = count_for(std::process::id(), variable("LISTEN_PID"), variable("LISTEN_FDS"))?;
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(String::from).chain(std::iter::repeat(String::new()));
    (FIRST..).zip(names).take(count).map(|(number, name)| adopt(number, name)).collect()
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// How many sockets the environment tells this process of.
fn count_for(process: u32, listen_pid: Option<String>, listen_fds: Option<String>) -> io::Result<usize> {
    let (Some(pid), Some(count)) = (listen_pid, listen_fds) else { return Ok(0) };
    let pid: u32 = pid.parse().map_err(|_| invalid(format!("LISTEN_PID is {pid:?}: expected a process")))?;
    if pid != process {
        // They were for a parent of this one.
        return Ok(0);
    }
    let parsed = count.parse().ok().filter(|count| *count <= COUNT_MAX);
    parsed.ok_or_else(|| invalid(format!("LISTEN_FDS is {count:?}: expected a number of sockets")))
}

fn adopt(number: RawFd, name: String) -> io::Result<InheritedSocket> {
    // SAFETY: a borrow for this call alone, which finds out whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|error| invalid(format!("LISTEN_FDS includes descriptor {number}: {}", error.desc())))?;
    // SAFETY: it is open, and has been left to this process; the caller adopts each once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    let is_listener = is_listener(&descriptor)
        .map_err(|error| invalid(format!("LISTEN_FDS includes descriptor {number}: {error}")))?;
    Ok(InheritedSocket { name, descriptor, is_listener })
}

/// Whether a socket listens for connections; false for a datagram socket.
///
/// Fails for anything else.
pub(crate) fn is_listener(descriptor: &OwnedFd) -> io::Result<bool> {
    match getsockopt(descriptor, sockopt::SockType)? {
        SockType::Stream if getsockopt(descriptor, sockopt::AcceptConn)? => Ok(true),
        SockType::Datagram => Ok(false),
        SockType::Stream => Err(invalid("a stream socket that does not listen".to_string())),
        kind => Err(invalid(format!("a socket of the type {kind:?}: expected a listener or datagrams"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_process_and_a_number() {
        let count = |pid: &str, fds: &str| count_for(7, Some(pid.to_string()), Some(fds.to_string()));
        assert_eq!(count("7", "3").unwrap(), 3);
        // For another process, and without one of the variables.
        assert_eq!(count("8", "3").unwrap(), 0);
        assert_eq!(count_for(7, None, Some("1".to_string())).unwrap(), 0);
        for (pid, fds) in [("me", "1"), ("7", "-1"), ("7", "many"), ("7", "999999")] {
            let error = count(pid, fds).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn only_listeners_and_datagram_sockets_are_served() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_listener(&listener.into()).unwrap());
        assert!(!is_listener(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap());
        assert!(is_listener(&client.into()).unwrap_err().to_string().contains("does not listen"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(is_listener(&file.into()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
