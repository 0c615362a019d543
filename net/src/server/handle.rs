//! A running server: its addresses and counts, draining it, waiting for its end.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, JoinError, Workers};

use super::shared::{Message, Shared};
use crate::address::Address;

/// How long a drain waits for fibers that it has cancelled, and how often it cancels them, as each cancel interrupts
/// one wait.
const CANCELLED_MAX: Duration = Duration::from_secs(1);
const CANCELLED_EVERY: Duration = Duration::from_millis(10);

/// A running server, from [`serve`](crate::serve) or [`ServerBuilder`](crate::ServerBuilder). Dropping it ends the
/// server at once, and the workers that it has started: connections are cancelled, without waiting for them.
pub struct Server {
    handle: ServerHandle,
    workers: Option<Workers>,
}

impl Server {
    pub(super) fn new(handle: ServerHandle, workers: Option<Workers>) -> Self {
        Self { handle, workers }
    }

    /// A handle for other threads and fibers, which does not end the server when it is dropped.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Waits until the server has ended: after [`drain`](ServerHandle::drain), or because its workers have. In a fiber
    /// it parks; on a thread that runs no runtime it blocks.
    ///
    /// # Errors
    ///
    /// The error of a worker's event loop, if the server has started the workers; an interrupt of the fiber.
    ///
    /// # Panics
    ///
    /// On the thread of a runtime outside of a fiber.
    pub fn wait(mut self) -> io::Result<()> {
        // Nothing is ever given to it.
        if let Err(fibers::ChannelError::Interrupted(interrupt)) = self.handle.shared.ended.take() {
            return Err(interrupt.into());
        }
        match self.workers.take() {
            Some(workers) if fibers::is_fiber() => fibers::blocking(move || workers.join())?,
            Some(workers) => workers.join(),
            None => Ok(()),
        }
    }
}

impl Deref for Server {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.end();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.handle.addresses).finish()
    }
}

/// A handle to a running server, for any thread.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    addresses: Arc<[Address]>,
}

/// The connections of a server that was drained.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that ended by themselves.
    pub ended: usize,
    /// Those that were cancelled when the time was up, and have ended since.
    pub cancelled: usize,
    /// Those whose fibers ignore cancels, and were still running a second later.
    pub left: usize,
}

/// What one worker of a server does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStatistics {
    /// Its live connections.
    pub connections: usize,
    /// The connections that it has served, with the live ones.
    pub served: u64,
    /// The connections that it has accepted for other workers.
    pub handed_over: u64,
    /// The processor time of its thread since it was started. `None` once the thread has ended, and on systems other
    /// than Linux.
    pub processor_time: Option<Duration>,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>, addresses: Vec<Address>) -> Self {
        Self { shared, addresses: addresses.into() }
    }

    /// The addresses that the server is bound to, in the order in which they were added, with the ports that the kernel
    /// chose.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Counts of each worker, in the order of their indices.
    pub fn statistics(&self) -> Vec<WorkerStatistics> {
        let counts = self.shared.placement.counts();
        counts
            .map(|(connections, served, handed_over, processor_time)| WorkerStatistics {
                connections,
                served,
                handed_over,
                processor_time,
            })
            .collect()
    }

    /// Ends the server gracefully: it accepts the connections that wait in the kernel, and no more; lets connections go
    /// on for up to `within`; then cancels what is left, so that each wait of their fibers fails. Waits for all that:
    /// in a fiber it parks, on a thread that runs no runtime it blocks.
    ///
    /// Handlers of datagrams are cancelled at once, and their sockets closed. A connection that arrives in the moment
    /// between the last accept and the close of its listener is reset by the kernel. Draining again waits for the
    /// connections that are left.
    ///
    /// # Errors
    ///
    /// An interrupt of the fiber that waits; the drain goes on. An error if all workers have ended.
    ///
    /// # Panics
    ///
    /// On the thread of a runtime outside of a fiber.
    pub fn drain(&self, within: Duration) -> io::Result<Drained> {
        self.drain_by(within, false)
    }

    /// As [`drain`](Self::drain), for connections on which clients ask and the server answers: their input ends
    /// (`shutdown(2)`), so that a handler reads what has come, answers it, and then reads the end. Clients that ask for
    /// nothing are told of the end at once, and do not use up the time.
    ///
    /// A request of which only a part has come remains so. Not for handlers that take the end of the input for the end
    /// of the client, as hyper's do: they would not answer. Above [TLS](https://docs.rs/ringspun-tls), which ends its
    /// input by a message, reading fails as `UnexpectedEof`.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    ///
    /// # Panics
    ///
    /// As [`drain`](Self::drain).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    ///
    /// use ringspun_net as net;
    ///
    /// let server = net::serve("127.0.0.1:0", |stream| {
    ///     while let Ok(Some(request)) = stream.receive() {
    ///         let _ = stream.write(&request);
    ///     }
    /// })?;
    /// let mut client = TcpStream::connect(server.addresses()[0].to_string())?;
    /// client.write_all(b"?")?;
    /// client.read_exact(&mut [0])?;
    /// // It stays connected, and asks for nothing.
    /// let drained = server.drain_requests(Duration::from_secs(3600))?;
    /// assert_eq!((drained.ended, drained.cancelled), (1, 0));
    /// assert_eq!(client.read(&mut [0])?, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn drain_requests(&self, within: Duration) -> io::Result<Drained> {
        self.drain_by(within, true)
    }

    fn drain_by(&self, within: Duration, ends_input: bool) -> io::Result<Drained> {
        let shared = self.shared.clone();
        let task = self.shared.workers.iter().filter(|worker| !worker.has_ended()).find_map(|worker| {
            let shared = shared.clone();
            worker.spawn(move || drain(&shared, within, ends_input)).ok()
        });
        let task = task.ok_or_else(|| io::Error::other("all workers have ended"))?;
        task.join().map_err(|error| match error {
            JoinError::Interrupted(interrupt) => interrupt.into(),
            other => io::Error::other(other.to_string()),
        })?
    }

    /// Ends the server at once: closes its listeners, and cancels its connections. Does not wait.
    pub(super) fn end(&self) {
        self.shared.end();
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("addresses", &self.addresses).finish()
    }
}

fn live(shared: &Shared) -> usize {
    shared.placement.live().iter().sum()
}

fn served(shared: &Shared) -> u64 {
    shared.placement.counts().map(|(_, served, ..)| served).sum()
}

/// Drains a server, in a fiber of one of its workers.
fn drain(shared: &Shared, within: Duration, ends_input: bool) -> io::Result<Drained> {
    let (live_before, served_before) = (live(shared), served(shared));
    let deadline = Instant::now().checked_add(within);
    shared.draining.store(true, Ordering::SeqCst);
    shared.tell_all(|| Message::StopListening);
    if ends_input {
        shared.end_input();
    }
    // Those that it accepts last count as well.
    while shared.accepting() > 0 {
        shared.changed.take().map_err(io::Error::from)?;
    }
    while live(shared) > 0 {
        let left =
            deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        match fibers::with_deadline(left, || shared.changed.take()) {
            Ok(()) => {}
            Err(fibers::ChannelError::Interrupted(fibers::Interrupt::DeadlineExpired)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let at_deadline = live(shared);
    let cancelling = Instant::now();
    while live(shared) > 0 && cancelling.elapsed() < CANCELLED_MAX {
        shared.tell_all(|| Message::Cancel);
        match fibers::with_deadline(CANCELLED_EVERY, || shared.changed.take()) {
            Ok(()) | Err(fibers::ChannelError::Interrupted(fibers::Interrupt::DeadlineExpired)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let left = live(shared);
    if left == 0 {
        shared.close_inboxes();
    }
    let begun = live_before as u64 + served(shared).saturating_sub(served_before);
    let ended = usize::try_from(begun).unwrap_or(usize::MAX).saturating_sub(at_deadline);
    Ok(Drained { ended, cancelled: at_deadline - left, left })
}
