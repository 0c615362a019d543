//! The backends, behind one shape: submit, cancel, wait. The rest of the crate does not know which runs.

pub mod probe;
#[cfg(target_os = "linux")]
mod uring;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::Configuration;
use crate::buffers::BufferPool;
use crate::operation::{Operation, OperationKey};
use crate::wake::RemoteWaker;

/// A completion as the backend saw it, in the terms of `io_uring_enter(2)`.
#[derive(Debug)]
pub(crate) struct RawCompletion {
    pub(crate) key: OperationKey,
    /// A count, or a negated errno. For a datagram, the count of what is in the buffer, head and all.
    pub(crate) result: i32,
    pub(crate) more: bool,
    /// The receive buffer that the backend filled and gave up.
    pub(crate) buffer: Option<u16>,
}

impl RawCompletion {
    pub(crate) fn failed(key: OperationKey, errno: i32) -> Self {
        Self { key, result: -errno, more: false, buffer: None }
    }
}

/// The buffers that a backend fills, as it takes them from the pools.
#[derive(Clone)]
pub(crate) struct Buffers {
    /// For [`Operation::Receive`].
    pub(crate) streams: Rc<BufferPool>,
    /// For [`Operation::ReceiveFrom`], laid out as in [`crate::buffers::datagram`].
    pub(crate) datagrams: Rc<BufferPool>,
}

/// The environment variable that forces a backend.
const BACKEND_VARIABLE: &str = "RINGSPUN_BACKEND";

/// The one place that knows which backend runs.
pub(crate) enum Backend {
    #[cfg(target_os = "linux")]
    Uring(uring::Uring),
}

impl Backend {
    pub(crate) fn new(
        configuration: &Configuration,
        buffers: Buffers,
        waker: RemoteWaker,
    ) -> io::Result<Self> {
        match std::env::var(BACKEND_VARIABLE).as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("" | "uring") => {
                Self::new_uring(configuration, buffers, waker)
            }
            other => {
                let value = other.map_or_else(|error| error.to_string(), str::to_string);
                let text = format!(
                    "{BACKEND_VARIABLE}={value}: expected \"uring\", the only backend of this version"
                );
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn new_uring(configuration: &Configuration, buffers: Buffers, waker: RemoteWaker) -> io::Result<Self> {
        uring::Uring::new(configuration, buffers, waker).map(Self::Uring)
    }

    #[cfg(not(target_os = "linux"))]
    fn new_uring(_: &Configuration, _: Buffers, _: RemoteWaker) -> io::Result<Self> {
        let text = "io_uring exists on Linux only, and this version has no other backend";
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(_) => "io_uring",
        }
    }

    /// Queues an operation whose slot keeps it until the terminal completion. Completions that have to be
    /// reaped to make room go to `ready`.
    pub(crate) fn submit(
        &mut self,
        user_data: u64,
        operation: &mut Operation,
        ready: &mut VecDeque<RawCompletion>,
    ) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.submit(user_data, operation, ready),
        }
    }

    /// Queues a request to end the operation with this `user_data`; it answers with a terminal completion
    /// of its own, and the request with none.
    pub(crate) fn cancel(&mut self, user_data: u64, ready: &mut VecDeque<RawCompletion>) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.cancel(user_data, ready),
        }
    }

    /// Ends a turn. Until then a wake-up keeps every wait from blocking, so that none is slept on which
    /// is reaped between turns.
    pub(crate) fn end_turn(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.end_turn(),
        }
    }

    /// Submits what is queued, waits for a completion or until `timeout` has passed (without one: for
    /// as long as it takes), and moves completions to `ready`. May return early with none.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut VecDeque<RawCompletion>,
    ) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(uring) => uring.wait(timeout, ready),
        }
    }
}
