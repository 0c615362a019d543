//! What only Unix sockets have: who the peer is, and descriptors that travel with bytes.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::Poll;

use super::Stream;
use crate::ancillary::{DESCRIPTORS_MAX, receive_message};

/// Who has connected to a Unix socket, from [`Stream::peer_credentials`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The effective user ID of the peer.
    pub user_id: u32,
    /// The effective group ID of the peer.
    pub group_id: u32,
    /// The process ID of the peer, where the system tells it. The process may have ended, and its ID may be another's.
    pub process_id: Option<i32>,
}

impl Stream {
    /// Who the peer was when it connected, or made the pair (`SO_PEERCRED` in `unix(7)`, `getpeereid(3)`).
    ///
    /// # Errors
    ///
    /// The kernel's for a socket other than a Unix socket; [`Closed`](crate::Closed); `Unsupported` on systems that
    /// have neither.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (one, _other) = net::Stream::pair()?;
    ///     let peer = one.peer_credentials()?;
    /// #   #[cfg(target_os = "linux")]
    ///     assert_eq!(peer.process_id, Some(std::process::id() as i32));
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let core = self.core();
        let got = core.check_open().and_then(|()| credentials_of(core.socket()?));
        got.map_err(|error| self.failed("credentials of", error))
    }

    /// As [`write`](Self::write), with descriptors that travel with the first byte of the data (`SCM_RIGHTS` in
    /// `unix(7)`). The peer, which must receive them by `recvmsg(2)` or
    /// [`receive_descriptors`](Self::receive_descriptors), gets copies.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write): if at least one byte has been written, so have the descriptors. `InvalidInput`
    /// without data, with more than 253 descriptors, and on a socket other than a Unix socket.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsFd;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (parent, worker) = net::Stream::pair()?;
    ///     // Any socket or file: here, one end of another pair.
    ///     let (client, connection) = net::Stream::pair()?;
    ///     parent.send_descriptors(b"serve this", &[connection.as_fd()])?;
    ///     drop(connection);
    ///     let mut buffer = [0; 64];
    ///     let received = worker.receive_descriptors(&mut buffer)?;
    ///     assert_eq!(&buffer[..received.length_bytes], b"serve this");
    ///     let connection = received.descriptors.into_iter().next().unwrap();
    ///     net::Stream::try_from(connection)?.write(b"hello")?;
    ///     assert_eq!(&*client.receive()?.unwrap(), b"hello");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn send_descriptors(&self, data: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let text = if data.is_empty() {
            "descriptors travel with bytes: there must be one at least".to_string()
        } else if !self.localname()?.is_unix() {
            "only Unix sockets carry descriptors".to_string()
        } else if descriptors.len() > DESCRIPTORS_MAX {
            format!("{} descriptors in one message, expected {DESCRIPTORS_MAX} at most", descriptors.len())
        } else {
            return self.write_parts_with(&[IoSlice::new(data)], descriptors);
        };
        Err(self.failed("write to", io::Error::new(io::ErrorKind::InvalidInput, text)))
    }

    /// As [`read`](Self::read), with the descriptors that travel with the bytes; they are close-on-exec. Bytes that
    /// come with descriptors are not mixed with those after the next ones.
    ///
    /// From the first call on, the stream is received from one piece at a time. A [`read`](Self::read) of bytes with
    /// descriptors loses these: on a stream that carries some, use only this.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); `InvalidInput` for an empty buffer.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn receive_descriptors(&self, buffer: &mut [u8]) -> io::Result<ReceivedDescriptors> {
        if buffer.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a buffer without room for a byte");
            return Err(self.failed("read from", error));
        }
        let core = self.core().clone();
        // What a receive ahead takes has no descriptors.
        core.leave_in_kernel();
        self.wait_readable(|waiter| {
            core.check_open()?;
            if core.has_received() {
                let length_bytes = core.take_bytes(buffer.len(), &mut |bytes| {
                    buffer[..bytes.len()].copy_from_slice(bytes);
                });
                if let Some(length_bytes) = length_bytes {
                    let received = ReceivedDescriptors { length_bytes, ..ReceivedDescriptors::default() };
                    return Poll::Ready(Ok(received));
                }
            }
            match receive_message(core.socket()?, buffer) {
                Ok(message) => Poll::Ready(Ok(ReceivedDescriptors {
                    length_bytes: message.count,
                    descriptors: message.descriptors,
                    is_truncated: message.is_truncated,
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    core.note_nothing_to_take();
                    core.wait_for_input(waiter);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        })
    }
}

/// Bytes, and the descriptors that came with them, from [`Stream::receive_descriptors`].
#[non_exhaustive]
#[derive(Debug, Default)]
pub struct ReceivedDescriptors {
    /// The number of bytes in the buffer; 0 at the end of the stream.
    pub length_bytes: usize,
    /// The descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// The kernel has closed some descriptors that came, because the process has as many as it may have.
    pub is_truncated: bool,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials_of(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    let peer = getsockopt(&socket, PeerCredentials)?;
    // Other sockets answer, too, but do not know.
    if peer.uid() == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(Credentials { user_id: peer.uid(), group_id: peer.gid(), process_id: Some(peer.pid()) })
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "illumos", target_os = "solaris")))]
fn credentials_of(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    use std::os::fd::AsRawFd;

    let (mut user_id, mut group_id) = (0, 0);
    // SAFETY: both are valid during the call.
    match unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut user_id, &raw mut group_id) } {
        0 => Ok(Credentials { user_id, group_id, process_id: None }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
fn credentials_of(_: BorrowedFd<'_>) -> io::Result<Credentials> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not tell who the peer is"))
}
