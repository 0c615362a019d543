//! Messages of several parts, and descriptors that travel with bytes over Unix sockets (`SCM_RIGHTS` in `unix(7)`).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use ringspun_runtime::EventLoop;

/// The most descriptors in one message, in Linux.
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// The most parts in one message (`IOV_MAX`), in Linux and the BSDs.
const PARTS_MAX: usize = 1024;

#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
#[cfg(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris"))]
const CLOSE_ON_EXEC: i32 = 0;
#[cfg(not(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris")))]
const CLOSE_ON_EXEC: i32 = libc::MSG_CMSG_CLOEXEC;

/// Memory for control messages, aligned as their headers are.
struct Control {
    words: Vec<u64>,
}

impl Control {
    /// Room for a message with `count` descriptors.
    fn new(count: usize) -> Self {
        // SAFETY: only computes a size.
        let size_bytes = unsafe { libc::CMSG_SPACE((count * size_of::<RawFd>()) as u32) } as usize;
        Self { words: vec![0; size_bytes.div_ceil(size_of::<u64>())] }
    }

    fn attach_to(&mut self, header: &mut libc::msghdr) {
        header.msg_control = self.words.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(self.words.as_slice()) as _;
    }
}

/// Sends as much of several parts as there is room for, without blocking, with descriptors. Returns the number of
/// bytes. If that is not zero, the descriptors have been sent.
pub(crate) fn send_parts(
    event_loop: &EventLoop,
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    #[cfg(feature = "simulation")]
    if ringspun_runtime::simulation::current().is_some() {
        // It knows neither parts nor descriptors.
        let first = parts.iter().find(|part| !part.is_empty());
        return first.map_or(Ok(0), |first| event_loop.try_send(socket, first));
    }
    if event_loop.is_shut_down() {
        return Err(io::Error::from_raw_os_error(libc::ECANCELED));
    }
    // SAFETY: a zeroed header is valid: it has no pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    let parts = &parts[..parts.len().min(PARTS_MAX)];
    // `IoSlice` has the layout of `iovec`, and the call only reads.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    let mut control = Control::new(descriptors.len());
    if !descriptors.is_empty() {
        control.attach_to(&mut header);
        // SAFETY: the control memory is large enough for a header and the descriptors, and aligned.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size_of_val(descriptors) as u32) as _;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                data.add(index).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    loop {
        let flags = libc::MSG_DONTWAIT | NO_SIGNAL;
        // SAFETY: header, parts and control memory are valid during the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
        match usize::try_from(sent) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// What one call has received.
pub(crate) struct Message {
    pub(crate) count: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The kernel has closed some descriptors, because the process must not have more.
    pub(crate) is_truncated: bool,
}

/// Receives bytes with the descriptors that travel with them, without blocking.
pub(crate) fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Message> {
    // SAFETY: a zeroed header is valid: it has no pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let mut control = Control::new(DESCRIPTORS_MAX);
    let count = loop {
        control.attach_to(&mut header);
        let flags = libc::MSG_DONTWAIT | CLOSE_ON_EXEC;
        // SAFETY: header, buffer and control memory are valid during the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(received) {
            Ok(count) => break count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the header and the control memory, which these macros walk.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(message) = next.as_ref() {
            if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::unnecessary_cast, reason = "of another type on some systems")]
                let length = message.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(next).cast::<RawFd>();
                for index in 0..length / size_of::<RawFd>() {
                    // Our own new descriptors.
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
    }
    if CLOSE_ON_EXEC == 0 {
        for descriptor in &descriptors {
            // SAFETY: sets a flag of our own new descriptor.
            unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(Message { count, descriptors, is_truncated: header.msg_flags & libc::MSG_CTRUNC != 0 })
}
