//! Stopping by signal what runs until then: SIGINT and SIGTERM become bytes in a pipe, which a fiber waits for.
//!
//! A thread for them would cost each system call of the others: with several threads, the kernel counts
//! references to a descriptor for as long as a call uses it, and the C library prepares each to be cancelled.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use ringspun::fibers;
use ringspun::net::Stream;

/// Where the handler writes to; -1 before there is anything.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// A signal has come.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// SIGINT and SIGTERM, taken over from the kernel's default action.
pub struct StopSignals {
    pipe: UnixStream,
}

impl StopSignals {
    /// Takes the signals over. The second one ends the process at once.
    ///
    /// # Errors
    ///
    /// The kernel's, if no descriptors are left.
    pub fn take() -> io::Result<Self> {
        let (pipe, end) = UnixStream::pair()?;
        end.set_nonblocking(true)?;
        // Open for as long as the process lives: a signal may come at any time.
        PIPE.store(end.into_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the handler calls nothing that is not async-signal-safe.
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self { pipe })
    }

    /// Parks until one of them has come.
    ///
    /// # Errors
    ///
    /// An interrupt of the fiber.
    pub fn wait(self) -> io::Result<()> {
        let event_loop = fibers::event_loop().ok_or(io::ErrorKind::Unsupported)?;
        Stream::from_descriptor(event_loop, self.pipe.into()).read(&mut [0]).map(drop)
    }
}

/// Runs in the middle of anything.
extern "C" fn handle(signal: libc::c_int) {
    if STOPPING.swap(true, Ordering::Relaxed) {
        // The status by which shells tell of a signal.
        // SAFETY: ends the process and runs nothing of it.
        unsafe { libc::_exit(128 + signal) };
    }
    let errno = Errno::last_raw();
    // SAFETY: one byte, which is there. The pipe is empty, so that it fits.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), [0_u8].as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}
