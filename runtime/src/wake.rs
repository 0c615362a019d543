//! Waking: a waiter on the loop's own thread, and the loop itself from any thread.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Something that waits on the loop's thread: a parked fiber, or an operation of another runtime.
pub trait Wake {
    /// Tells the waiter to look again at what it waits for. Wakes may be spurious and may repeat.
    ///
    /// Called while others are in the middle of their work: from a turn of the loop, or from whatever
    /// made the awaited thing true. It may submit, cancel and arm timers; it must not block or panic.
    fn wake(self: Rc<Self>);
}

/// Ends a turn of an event loop from any thread or from a signal handler, through an `eventfd(2)`.
///
/// Wakes between two turns are merged into one. The waker may outlive its loop; waking does nothing then.
/// It carries no data, and orders no memory accesses: what the woken thread is to see goes through a
/// lock or another means of its own.
#[derive(Clone, Debug)]
pub struct RemoteWaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: EventFd,
    pending: AtomicBool,
}

impl RemoteWaker {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { shared: Arc::new(Shared { eventfd, pending: AtomicBool::new(false) }) })
    }

    /// Makes the loop's current or next [`turn`](crate::EventLoop::turn) return.
    ///
    /// Does not block, and calls nothing that is not async-signal-safe (`signal-safety(7)`). As `write(2)`
    /// can, it may change `errno`, which a signal handler has to put back.
    pub fn wake(&self) {
        if !self.shared.pending.swap(true, Ordering::AcqRel) {
            // The only error a one-bit counter can meet is EAGAIN, which means that it is set already.
            let _ = self.shared.eventfd.write(1);
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }

    /// Takes the wake-up, so that the next one writes again. The counter is read before the flag falls:
    /// the other way round, a wake in between would leave the flag up and the counter empty, and no
    /// later one would write. A wake between the two writes nothing and needs not: the loop is awake.
    pub(crate) fn acknowledge(&self) {
        while let Err(Errno::EINTR) = self.shared.eventfd.read() {}
        // Acquires too: what was written before a wake that merged into this one is seen after it.
        self.shared.pending.swap(false, Ordering::AcqRel);
    }
}
