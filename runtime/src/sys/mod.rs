//! The backends behind one interface: submit, cancel, wait. The rest of the crate does not know which one runs.

mod poll;
pub mod probe;
#[cfg(feature = "simulation")]
pub(crate) mod sim;
#[cfg(target_os = "linux")]
mod termination;
#[cfg(target_os = "linux")]
mod uring;

use std::io;
#[cfg(feature = "simulation")]
use std::os::fd::AsRawFd;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::Configuration;
use crate::buffers::BufferPool;
use crate::completion::RawCompletion;
use crate::operation::{Address, Operation, OperationKey};
use crate::ready::ReadyQueue;
use crate::send_soon::Request;
use crate::wake::RemoteWaker;

#[cfg(target_os = "linux")]
pub(crate) use termination::cancel_at_termination_by;

/// Ends a connection at once, and drops what has not been sent (`AF_UNSPEC` in `connect(2)`).
pub(crate) fn disconnect(socket: RawFd) {
    #[cfg(feature = "simulation")]
    if let Some(simulation) = sim::current() {
        return simulation.disconnect(socket);
    }
    // SAFETY: zeroed is valid, and the address is valid for the length that is passed. Fails if there is no connection.
    unsafe {
        let mut address: libc::sockaddr = std::mem::zeroed();
        address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        let length = size_of_val(&address) as libc::socklen_t;
        libc::connect(socket, &raw const address, length);
    }
}

/// Cancels what is in flight on the rings of this process, as `exit(3)` does: see
/// [`Configuration::cancel_at_termination`]. For code that is about to call `_exit(2)`: nothing may use a loop
/// afterwards. Does nothing on poll.
///
/// [`Configuration::cancel_at_termination`]: crate::Configuration::cancel_at_termination
pub fn cancel_before_exit() {
    #[cfg(target_os = "linux")]
    termination::at_exit();
}

/// The pools from which a backend takes receive buffers.
#[derive(Clone)]
pub(crate) struct Buffers {
    /// For [`Operation::Receive`].
    pub(crate) streams: Rc<BufferPool>,
    /// For [`Operation::ReceiveFrom`], laid out as in [`crate::buffers::datagram`].
    pub(crate) datagrams: Rc<BufferPool>,
}

/// The most bytes in one send, so that its count fits into the 31 bits of a completion.
const SEND_MAX_BYTES: usize = 1 << 30;
/// The environment variable that forces a backend.
const BACKEND_VARIABLE: &str = "RINGSPUN_BACKEND";

/// A backend of an event loop.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// io_uring, which requires Linux 6.0 or later: `uring`.
    Uring,
    /// Readiness (epoll, kqueue, event ports, poll), on every system: `poll`.
    Poll,
}

impl BackendKind {
    /// The one that the environment selects, if any.
    fn requested() -> io::Result<Option<Self>> {
        match std::env::var(BACKEND_VARIABLE).as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("") => Ok(None),
            Ok("uring") => Ok(Some(Self::Uring)),
            Ok("poll") => Ok(Some(Self::Poll)),
            other => {
                let value = other.map_or_else(|error| error.to_string(), str::to_string);
                let text = format!(
                    "{BACKEND_VARIABLE}={value}: expected \"uring\", \"poll\", or nothing for the best available"
                );
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }
}

/// The backend of a loop.
pub(crate) enum Backend {
    #[cfg(target_os = "linux")]
    Uring(uring::Uring),
    Poll(poll::Poll),
    #[cfg(feature = "simulation")]
    Sim(sim::Sim),
}

impl Backend {
    /// Chooses and makes a backend; if it is not io_uring though none was requested, also returns the reason.
    pub(crate) fn new(
        configuration: &Configuration,
        buffers: Buffers,
        waker: RemoteWaker,
    ) -> io::Result<(Self, Option<String>)> {
        #[cfg(feature = "simulation")]
        if let Some(sim) = sim::Sim::new(&buffers, &waker)? {
            return Ok((Self::Sim(sim), None));
        }
        let requested = match configuration.backend {
            None => BackendKind::requested()?,
            some => some,
        };
        if requested == Some(BackendKind::Poll) {
            return Ok((Self::Poll(poll::Poll::new(buffers, waker)?), None));
        }
        let refusal = match Self::new_uring(configuration, buffers.clone(), waker.clone()) {
            Ok(backend) => return Ok((backend, None)),
            // Other errors, such as a lack of descriptors, would also occur on the other backend.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => error,
            Err(error) => return Err(error),
        };
        if requested.is_some() {
            let text = format!("{refusal}; the other backend does not need it: {BACKEND_VARIABLE}=poll");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        tracing::debug!(reason = %refusal, "falling back to the poll backend");
        Ok((Self::Poll(poll::Poll::new(buffers, waker)?), Some(refusal.to_string())))
    }

    #[cfg(target_os = "linux")]
    fn new_uring(configuration: &Configuration, buffers: Buffers, waker: RemoteWaker) -> io::Result<Self> {
        uring::Uring::new(configuration, buffers, waker).map(Self::Uring)
    }

    #[cfg(not(target_os = "linux"))]
    fn new_uring(_: &Configuration, _: Buffers, _: RemoteWaker) -> io::Result<Self> {
        let text = "io_uring cannot be used: it exists on Linux only";
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    /// The simulated time; `None` if the clock is the machine's.
    #[cfg(feature = "simulation")]
    pub(crate) fn simulated_now(&self) -> Option<std::time::Instant> {
        match self {
            Self::Sim(sim) => Some(sim.now()),
            _ => None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(_) => "io_uring",
            Self::Poll(_) => "poll",
            #[cfg(feature = "simulation")]
            Self::Sim(_) => "simulation",
        }
    }

    /// Whether this backend performs [`Operation::File`].
    pub(crate) fn performs_files(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.performs_files(),
            Self::Poll(_) => false,
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => !sim.is_readiness_based(),
        }
    }

    /// Queues an operation, which its slot keeps until the terminal completion. If completions must be reaped to make
    /// room in the queue, they go to `ready`.
    pub(crate) fn submit(&mut self, user_data: u64, operation: &mut Operation, ready: &mut ReadyQueue) {
        if matches!(operation, Operation::File(_)) && !self.performs_files() {
            let key = OperationKey::from_user_data(user_data);
            return ready.push_back(RawCompletion::failed(key, libc::EOPNOTSUPP));
        }
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.submit(user_data, operation, ready),
            Self::Poll(poll) => poll.submit(user_data, operation),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.submit(user_data, operation, ready),
        }
    }

    /// Queues a message that is sent on submission without waiting, and has a completion only if bytes are left. Not
    /// for readiness-based backends.
    pub(crate) fn send_soon(&mut self, request: &Request, ready: &mut ReadyQueue) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.send_soon(request, ready),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.send_soon(request, ready),
            Self::Poll(_) => {
                let _ = (request, ready);
                debug_assert!(false, "this backend sends by a system call each");
            }
        }
    }

    /// Whether everything that was queued has been submitted, and all completions of that submission have been reaped.
    pub(crate) fn has_submitted_all(&mut self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.has_submitted_all(),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.has_submitted_all(),
            Self::Poll(_) => true,
        }
    }

    /// A send that does not block.
    pub(crate) fn try_send(&self, socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.try_send(socket.as_raw_fd(), data),
            _ => poll::try_send(socket, data),
        }
    }

    /// A send of a datagram that does not block.
    pub(crate) fn try_send_to(
        &self,
        socket: BorrowedFd<'_>,
        data: &[u8],
        destination: Option<&Address>,
    ) -> io::Result<usize> {
        match self {
            // The simulation only has streams.
            #[cfg(feature = "simulation")]
            Self::Sim(_) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            _ => poll::try_send_to(socket, data, destination),
        }
    }

    /// A receive that does not block.
    ///
    /// # Safety
    ///
    /// `start` must be valid for writes of `size_bytes` bytes, which no other code uses during the call.
    pub(crate) unsafe fn try_receive(
        &self,
        socket: BorrowedFd<'_>,
        start: *mut u8,
        size_bytes: usize,
    ) -> io::Result<u32> {
        match self {
            #[cfg(feature = "simulation")]
            // SAFETY: the caller guarantees it.
            Self::Sim(sim) => unsafe { sim.try_receive(socket.as_raw_fd(), start, size_bytes) },
            // SAFETY: likewise.
            _ => unsafe { poll::try_receive(socket, start, size_bytes) },
        }
    }

    /// Whether this backend makes a system call for each send and receive, so that direct calls are best.
    pub(crate) fn is_readiness_based(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(_) => false,
            Self::Poll(_) => true,
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.is_readiness_based(),
        }
    }

    /// Queues a request to cancel the operation with this `user_data`, which then has its terminal completion. The
    /// request itself has a completion only if it missed the operation.
    #[cfg_attr(
        not(any(target_os = "linux", feature = "simulation")),
        expect(unused_variables, reason = "only a ring can be full")
    )]
    pub(crate) fn cancel(&mut self, user_data: u64, ready: &mut ReadyQueue) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.cancel(user_data, ready),
            Self::Poll(poll) => poll.cancel(user_data),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.cancel(user_data, ready),
        }
    }

    /// Ends a turn. Until then, a reaped wake-up keeps every wait from blocking, so that none is missed.
    pub(crate) fn end_turn(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.end_turn(),
            Self::Poll(poll) => poll.end_turn(),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.end_turn(),
        }
    }

    /// Whether a wake-up was reaped in this turn.
    pub(crate) fn is_woken(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.is_woken(),
            Self::Poll(poll) => poll.is_woken(),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.is_woken(),
        }
    }

    /// Whether this is the simulation, whose clock only the seed advances.
    pub(crate) fn is_simulated(&self) -> bool {
        #[cfg(feature = "simulation")]
        if let Self::Sim(_) = self {
            return true;
        }
        false
    }

    /// Submits what is queued, waits for a completion or the timeout (`None`: indefinitely), and moves completions to
    /// `ready`. May return early without any.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyQueue) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.wait(timeout, ready),
            Self::Poll(poll) => poll.wait(timeout, ready),
            #[cfg(feature = "simulation")]
            Self::Sim(sim) => sim.wait(timeout, ready),
        }
    }
}
