//! The socket behind a Janet stream, and its transfer to other threads.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api as janet;
use ringspun_net::machine::{Arrival, DatagramCore, LeftBehind, ListenerCore, StreamCore};
use ringspun_runtime::EventLoop;

use crate::secured::ServerConfig;
use crate::secured::machine::TlsCore;

/// The socket behind a Janet stream.
#[derive(Clone)]
pub(crate) enum Socket {
    Stream(Rc<StreamCore>),
    /// A stream with TLS.
    Tls(Rc<TlsCore>),
    /// With the configuration of those whose connections speak TLS.
    Listener(Rc<ListenerCore>, Option<Rc<ServerConfig>>),
    Datagram(Rc<DatagramCore>),
    /// A stream or a listener with TLS of another thread. Closed: what came out of it would be ciphertext.
    Elsewhere(Rc<StreamCore>),
}

/// What programs are told that use one.
pub(crate) const ELSEWHERE: &str =
    "a stream with TLS belongs to the thread that made it: expected one that this thread has made";

/// The data that a socket had received when one of its streams was sent to another thread.
#[derive(Clone)]
enum HandedOver {
    Stream(LeftBehind<Box<[u8]>>),
    Listener(LeftBehind<OwnedFd>),
    Datagram(LeftBehind<Arrival>),
    /// A stream with TLS, or a listener of such: its session belongs to the thread that began it.
    Secured,
}

/// The sockets in transit between threads, by the duplicated descriptor.
static IN_TRANSIT: Mutex<Option<HashMap<RawFd, HandedOver>>> = Mutex::new(None);

fn in_transit() -> MutexGuard<'static, Option<HashMap<RawFd, HandedOver>>> {
    IN_TRANSIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forwards a stream from another thread that was not used here. If the duplicate is of something else, drops the entry
/// of its number, which is stale.
pub(crate) fn pass_on(descriptor: RawFd, duplicate: RawFd) {
    let replaced = in_transit().as_mut().and_then(|sockets| match sockets.get(&descriptor).cloned() {
        Some(handed_over) => sockets.insert(duplicate, handed_over),
        None => sockets.remove(&duplicate),
    });
    drop(replaced);
}

/// Drops the entry of a stream that was closed unused.
pub(crate) fn forget_handed_over(descriptor: RawFd) {
    let forgotten = in_transit().as_mut().and_then(|sockets| sockets.remove(&descriptor));
    drop(forgotten);
}

impl Socket {
    /// The socket of a stream that came from another thread. Its flags say of which kind it is.
    pub(crate) fn adopt(event_loop: &Rc<EventLoop>, descriptor: OwnedFd, flags: u32) -> Self {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
        let handed_over = in_transit().as_mut().and_then(|sockets| sockets.remove(&raw));
        let event_loop = event_loop.clone();
        if matches!(handed_over, Some(HandedOver::Secured)) {
            let core = StreamCore::new(event_loop, descriptor);
            core.close();
            return Self::Elsewhere(core);
        }
        if flags & janet::JANET_STREAM_ACCEPTABLE != 0 {
            let left_behind = match handed_over {
                Some(HandedOver::Listener(left_behind)) => Some(left_behind),
                _ => None,
            };
            return Self::Listener(ListenerCore::with_left_behind(event_loop, descriptor, left_behind), None);
        }
        if flags & janet::JANET_STREAM_UDPSERVER != 0 {
            let left_behind = match handed_over {
                Some(HandedOver::Datagram(left_behind)) => Some(left_behind),
                _ => None,
            };
            return Self::Datagram(DatagramCore::with_left_behind(event_loop, descriptor, left_behind));
        }
        let left_behind = match handed_over {
            Some(HandedOver::Stream(left_behind)) => Some(left_behind),
            _ => None,
        };
        Self::Stream(StreamCore::with_left_behind(event_loop, descriptor, left_behind))
    }

    /// The VM has made another descriptor of the socket, for a thread or for a file.
    pub(crate) fn hand_over(&self, duplicate: RawFd) {
        let handed_over = match self {
            Self::Stream(core) => HandedOver::Stream(core.share()),
            Self::Tls(_) | Self::Listener(_, Some(_)) | Self::Elsewhere(_) => HandedOver::Secured,
            Self::Listener(core, None) => HandedOver::Listener(core.share()),
            Self::Datagram(core) => HandedOver::Datagram(core.share()),
        };
        let replaced = in_transit().get_or_insert_default().insert(duplicate, handed_over);
        drop(replaced);
    }

    /// A process is about to inherit the socket.
    pub(crate) fn share_with_process(&self) {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.share_with_process(),
            Self::Tls(core) => core.stream().share_with_process(),
            Self::Listener(core, _) => core.share_with_process(),
            Self::Datagram(core) => core.share_with_process(),
        }
    }

    /// From now on, C code may use the descriptor, which must not block it, even if a process has it too.
    pub(crate) fn share_with_c(&self) {
        self.leave_in_kernel();
        let descriptor = self.descriptor();
        // SAFETY: reads and sets flags of a descriptor; an error means that there is none.
        unsafe {
            let flags = libc::fcntl(descriptor, libc::F_GETFL);
            if flags >= 0 && flags & libc::O_NONBLOCK == 0 {
                libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK);
            }
        }
    }

    /// Closing does not close the descriptor, which has another owner.
    pub(crate) fn leave_descriptor_open(&self) {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.leave_descriptor_open(),
            Self::Tls(core) => core.stream().leave_descriptor_open(),
            Self::Listener(core, _) => core.leave_descriptor_open(),
            Self::Datagram(core) => core.leave_descriptor_open(),
        }
    }

    /// Whether something has been received that nobody has read.
    pub(crate) fn has_received(&self) -> bool {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.has_received(),
            Self::Tls(core) => core.stream().has_received(),
            Self::Listener(core, _) => core.has_received(),
            Self::Datagram(core) => core.has_received(),
        }
    }

    /// From now on, everything that nobody has asked for stays in the kernel.
    pub(crate) fn leave_in_kernel(&self) {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.leave_in_kernel(),
            Self::Tls(core) => core.stream().leave_in_kernel(),
            Self::Listener(core, _) => core.leave_in_kernel(),
            Self::Datagram(core) => core.leave_in_kernel(),
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.descriptor(),
            Self::Tls(core) => core.stream().descriptor(),
            Self::Listener(core, _) => core.descriptor(),
            Self::Datagram(core) => core.descriptor(),
        }
    }

    /// Shuts down one or both directions (`shutdown(2)`).
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.shutdown(how),
            Self::Tls(core) => core.shutdown(how),
            Self::Listener(core, _) => shut_down(core.descriptor(), how),
            Self::Datagram(core) => shut_down(core.descriptor(), how),
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.close(),
            Self::Tls(core) => core.close(),
            Self::Listener(core, _) => core.close(),
            Self::Datagram(core) => core.close(),
        }
    }

    /// Closes the socket if that turns no loop and wakes nobody; true if it did.
    pub(crate) fn close_if_idle(&self) -> bool {
        match self {
            Self::Stream(core) | Self::Elsewhere(core) => core.close_if_idle(),
            // Its close_notify may wake others.
            Self::Tls(_) => false,
            Self::Listener(core, _) => core.close_if_idle(),
            Self::Datagram(core) => core.close_if_idle(),
        }
    }
}

fn shut_down(descriptor: RawFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: touches no memory.
    if unsafe { libc::shutdown(descriptor, how) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
