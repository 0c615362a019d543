//! SIGINT and SIGTERM as bytes in a socket pair, which a fiber waits for.
//!
//! A signal thread would slow down every system call of the process: with several threads, the kernel counts
//! references to descriptors during each call, and the C library makes each call cancellable.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use ringspun::fibers;
use ringspun::net::Stream;

/// The descriptor that the handler writes to; -1 before it exists.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Whether a signal has arrived.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Handles SIGINT and SIGTERM instead of their default action.
pub struct StopSignals {
    pipe: UnixStream,
}

impl StopSignals {
    /// Installs the handlers. A second signal ends the process immediately.
    ///
    /// # Errors
    ///
    /// The kernel's error, such as too many open files.
    pub fn take() -> io::Result<Self> {
        let (pipe, end) = UnixStream::pair()?;
        end.set_nonblocking(true)?;
        // Never closed: a signal may arrive at any time.
        PIPE.store(end.into_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the handler calls nothing that is not async-signal-safe.
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self { pipe })
    }

    /// Parks until a signal arrives, and returns it.
    ///
    /// # Errors
    ///
    /// An interrupt of the fiber.
    pub fn wait(self) -> io::Result<Signal> {
        let event_loop = fibers::event_loop().ok_or(io::ErrorKind::Unsupported)?;
        let mut number = [0];
        Stream::from_descriptor(event_loop, self.pipe.into()).read(&mut number)?;
        Ok(Signal::try_from(i32::from(number[0]))?)
    }
}

/// The signal handler.
extern "C" fn handle(signal: libc::c_int) {
    if STOPPING.swap(true, Ordering::Relaxed) {
        // The exit status by which shells report a signal.
        // SAFETY: `_exit` is async-signal-safe.
        unsafe { libc::_exit(128 + signal) };
    }
    let errno = Errno::last_raw();
    let number = [signal as u8];
    // SAFETY: writes one byte from a valid buffer; `write` is async-signal-safe, and the pipe is empty.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), number.as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}
