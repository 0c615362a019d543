//! Servers on every core: workers that listen together and share connections evenly.

mod binding;
mod handle;
mod shared;
mod site;
mod succession;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringspun_fibers::{JoinError, Runtime, Workers, WorkersBuilder};

use self::binding::{Bound, Place};
pub use self::handle::{Drained, Server, ServerHandle, WorkerStatistics};
use self::shared::{Numbered, Shared};
use self::site::{Delivery, Handler};
use self::succession::Maker;
use crate::datagram::DatagramSocket;
use crate::endpoint::Peer;
use crate::machine::SocketKind;
use crate::stream::Stream;

/// One address to serve at.
struct Plan<S> {
    place: io::Result<Place>,
    kind: SocketKind,
    deliver: Box<dyn FnMut() -> Delivery<S> + Send>,
}

/// Settings of a server on every core. `S` is what each worker has for itself.
///
/// Each connection is served by a fiber of one worker, from its first byte to its last. Where connections go is decided
/// as they are accepted: by how many each worker has, and by how much processor time they take. Nothing crosses
/// threads per request.
///
/// # Examples
///
/// A server with several addresses, and a counter for each worker:
///
/// ```
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net::{self as net, ServerBuilder};
///
/// let server = ServerBuilder::with_state(|_worker| Cell::new(0))
///     .workers(2)
///     .serve_with("127.0.0.1:0", |stream, served: &Cell<u64>| {
///         served.set(served.get() + 1);
///         let _ = stream.write(format!("number {} here\n", served.get()).as_bytes());
///     })
///     .serve_datagrams("127.0.0.1:0", |socket| {
///         while let Ok((bytes, source)) = socket.receive() {
///             let _ = socket.send_to(&source, &bytes);
///         }
///     })
///     .start()?;
/// let address = server.addresses()[0];
/// let answer = fibers::run(move || -> std::io::Result<String> {
///     let mut answer = String::new();
///     std::io::Read::read_to_string(&mut net::connect(address)?, &mut answer)?;
///     Ok(answer)
/// })??;
/// assert_eq!(answer, "number 1 here\n");
/// assert_eq!(server.drain(Duration::from_secs(60))?.cancelled, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ServerBuilder<S = ()> {
    workers: WorkersBuilder,
    shares_port: bool,
    connections_max: usize,
    make_state: Arc<dyn Fn(usize) -> S + Send + Sync>,
    plans: Vec<Plan<S>>,
}

impl ServerBuilder<()> {
    /// A server without addresses, on a worker for each core that this process may use.
    pub fn new() -> Self {
        Self::with_state(|_| ())
    }
}

impl Default for ServerBuilder<()> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: 'static> ServerBuilder<S> {
    /// As [`new`](ServerBuilder::new), with a value for each worker, which `make_state` makes on the worker's thread,
    /// in a fiber, from its index. The value need not be `Send`: a cache, a connection pool.
    pub fn with_state(make_state: impl Fn(usize) -> S + Send + Sync + 'static) -> Self {
        Self {
            workers: WorkersBuilder::new(),
            shares_port: false,
            connections_max: usize::MAX,
            make_state: Arc::new(make_state),
            plans: Vec::new(),
        }
    }

    /// Sets all settings of the workers. Those that have been set before count no more. Not for
    /// [`start_on`](Self::start_on).
    ///
    /// If a worker fails, its connections are lost. The server goes on: with its replacement
    /// ([`WorkersBuilder::replace_failed`]), or else with the workers that are left, one of which accepts what comes to
    /// the failed one's sockets.
    pub fn with_workers(mut self, workers: WorkersBuilder) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the number of workers; for the default, see [`WorkersBuilder::count`]. Not for
    /// [`start_on`](Self::start_on).
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = self.workers.count(count);
        self
    }

    /// Whether each worker stays on one core: [`WorkersBuilder::pinned`]. Not for [`start_on`](Self::start_on).
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.workers = self.workers.pinned(pinned);
        self
    }

    /// Sets the settings of the workers' runtimes. Not for [`start_on`](Self::start_on).
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.workers = self.workers.runtime(runtime);
        self
    }

    /// Whether other processes of the same user may serve at the same ports, if they ask for it as well
    /// (`SO_REUSEPORT` in `socket(7)`): the kernel then distributes connections and datagrams among the sockets of all
    /// of them. Off by default: a port that is in use is refused.
    ///
    /// A server with several workers on Linux uses this option for its own sockets. So it cannot keep those out that do
    /// ask for it, be it with this setting: only that user's processes, as the kernel sees to.
    pub fn shares_port(mut self, shares_port: bool) -> Self {
        self.shares_port = shares_port;
        self
    }

    /// Sets how many connections there may be at a time, at all addresses and on all workers: those that come beyond
    /// are closed at once, and appear in no count. Without it, the limit is what the process has descriptors and memory
    /// for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::TcpStream;
    ///
    /// use ringspun_net::ServerBuilder;
    ///
    /// let server = ServerBuilder::new()
    ///     .connections_max(1)
    ///     .serve("127.0.0.1:0", |stream| {
    ///         let _ = stream.write(b"!");
    ///         let _ = stream.receive();
    ///     })
    ///     .start()?;
    /// let address = server.addresses()[0].to_string();
    /// let mut first = TcpStream::connect(&address)?;
    /// first.read_exact(&mut [0])?;
    /// assert_eq!(TcpStream::connect(&address)?.read(&mut [0])?, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connections_max(mut self, count: usize) -> Self {
        self.connections_max = count;
        self
    }

    /// Serves each connection at an address by a clone of `handler`, in a fiber of its own: TCP, or a Unix stream
    /// socket, as for [`listen`](crate::listen). A panic in it ends only its own connection.
    ///
    /// At a TCP port, each worker listens. On a Unix socket, and on systems other than Linux, one worker accepts for
    /// all.
    pub fn serve(self, address: impl Peer, handler: impl Fn(Stream) + Send + Clone + 'static) -> Self {
        self.serve_with(address, move |stream, _| handler(stream))
    }

    /// As [`serve`](Self::serve), with the value of the worker.
    pub fn serve_with(
        self,
        address: impl Peer,
        handler: impl Fn(Stream, &S) + Send + Clone + 'static,
    ) -> Self {
        self.serve_at(address.endpoint().map(Place::Endpoint), handler)
    }

    /// As [`serve_with`](Self::serve_with), on a listener that exists already, such as one of
    /// [`inherited_sockets`](crate::inherited_sockets). One worker accepts for all. It is non-blocking from then on,
    /// also for others who share it. If it is another kind of socket, starting fails as `InvalidInput`.
    pub fn serve_on(
        self,
        listener: impl Into<OwnedFd>,
        handler: impl Fn(Stream, &S) + Send + Clone + 'static,
    ) -> Self {
        self.serve_at(Ok(Place::Socket(listener.into())), handler)
    }

    fn serve_at(
        mut self,
        place: io::Result<Place>,
        handler: impl Fn(Stream, &S) + Send + Clone + 'static,
    ) -> Self {
        let deliver = move || -> Delivery<S> {
            let handler = handler.clone();
            Box::new(move || Handler::Connections(std::rc::Rc::new(handler)))
        };
        self.plans.push(Plan { place, kind: SocketKind::Stream, deliver: Box::new(deliver) });
        self
    }

    /// Serves datagrams at an address by a clone of `handler`, in a fiber of each worker, with a socket of that worker.
    /// The kernel keeps the datagrams of a sender on one of them. On a Unix socket, and on systems other than Linux,
    /// one worker has the only socket.
    pub fn serve_datagrams(
        self,
        address: impl Peer,
        handler: impl Fn(&DatagramSocket) + Send + Clone + 'static,
    ) -> Self {
        self.serve_datagrams_with(address, move |socket, _| handler(socket))
    }

    /// As [`serve_datagrams`](Self::serve_datagrams), with the value of the worker.
    pub fn serve_datagrams_with(
        self,
        address: impl Peer,
        handler: impl Fn(&DatagramSocket, &S) + Send + Clone + 'static,
    ) -> Self {
        self.serve_datagrams_at(address.endpoint().map(Place::Endpoint), handler)
    }

    /// As [`serve_datagrams_with`](Self::serve_datagrams_with), on a socket that exists already, which one worker has:
    /// see [`serve_on`](Self::serve_on).
    pub fn serve_datagrams_on(
        self,
        socket: impl Into<OwnedFd>,
        handler: impl Fn(&DatagramSocket, &S) + Send + Clone + 'static,
    ) -> Self {
        self.serve_datagrams_at(Ok(Place::Socket(socket.into())), handler)
    }

    fn serve_datagrams_at(
        mut self,
        place: io::Result<Place>,
        handler: impl Fn(&DatagramSocket, &S) + Send + Clone + 'static,
    ) -> Self {
        let deliver = move || -> Delivery<S> {
            let handler = handler.clone();
            Box::new(move || Handler::Datagrams(std::rc::Rc::new(handler)))
        };
        self.plans.push(Plan { place, kind: SocketKind::Datagram, deliver: Box::new(deliver) });
        self
    }

    /// Starts workers, and serves on them. Returns when all of them listen.
    ///
    /// # Errors
    ///
    /// As [`WorkersBuilder::start`] and [`start_on`](Self::start_on).
    ///
    /// # Panics
    ///
    /// As [`start_on`](Self::start_on).
    pub fn start(self) -> io::Result<Server> {
        let workers = self.workers.clone().start()?;
        let handle = self.begin(&workers)?;
        Ok(Server::new(handle, Some(workers)))
    }

    /// Serves on workers that run already. They go on when the server ends.
    ///
    /// # Errors
    ///
    /// As [`listen`](crate::listen), of the first address that fails: `AddrInUse` for a port that is in use; the panic
    /// of a state's making. Nothing is served then.
    ///
    /// # Panics
    ///
    /// On the thread of a runtime outside of a fiber.
    pub fn start_on(self, workers: &Workers) -> io::Result<Server> {
        self.begin(workers).map(|handle| Server::new(handle, None))
    }

    fn begin(mut self, workers: &Workers) -> io::Result<ServerHandle> {
        let ended = || io::Error::other("a worker has ended");
        let bound = self.bind_all(workers)?;
        let shared = Shared::new(workers.iter().cloned().collect(), self.connections_max);
        let addresses = bound.iter().map(|bound| bound.address).collect();
        let mut sockets: Vec<Vec<Numbered>> = workers.iter().map(|_| Vec::new()).collect();
        for (number, bound) in bound.into_iter().enumerate() {
            let is_single = bound.sockets.len() == 1;
            for (index, socket) in bound.sockets.into_iter().enumerate() {
                // Single sockets are spread over the workers.
                let worker = if is_single { number % workers.len() } else { index };
                sockets[worker].push((number, socket));
            }
        }
        let handle = ServerHandle::new(shared.clone(), addresses);
        let deliver = self.plans.into_iter().map(|plan| plan.deliver).collect();
        let mut maker = Maker { make_state: self.make_state, deliver };
        let parts = workers
            .iter()
            .zip(sockets)
            .map(|(worker, sockets)| worker.spawn(maker.part(shared.clone(), worker.index(), sockets)));
        let starting: Vec<_> = parts.collect();
        let mut begun = Ok(());
        for task in starting {
            let joined = task.map_err(|_| ended()).and_then(|task| task.join().map_err(of_join)?);
            begun = begun.and(joined);
        }
        if begun.is_err() {
            handle.end();
            return begun.map(|()| handle);
        }
        let take_over = maker.take_over(&shared);
        workers.on_failure(&take_over);
        let _ = shared.take_over.set(take_over);
        Ok(handle)
    }

    /// Binds the sockets, in a fiber of a worker, as names may have to be looked up.
    fn bind_all(&mut self, workers: &Workers) -> io::Result<Vec<Bound>> {
        let mut plans = Vec::new();
        for plan in &mut self.plans {
            let place = std::mem::replace(&mut plan.place, Err(io::ErrorKind::InvalidInput.into()));
            plans.push((place?, plan.kind));
        }
        let (count, shares_port) = (workers.len(), self.shares_port);
        let bind_plans = move || -> io::Result<Vec<Bound>> {
            plans.into_iter().map(|(place, kind)| place.sockets(kind, count, shares_port)).collect()
        };
        let first = workers.iter().find(|worker| !worker.has_ended());
        let task = first.and_then(|worker| worker.spawn(bind_plans).ok());
        let task = task.ok_or_else(|| io::Error::other("all workers have ended"))?;
        task.join().map_err(of_join)?
    }
}

/// The error of a worker that could not begin.
fn of_join(error: JoinError) -> io::Error {
    match error {
        JoinError::Interrupted(interrupt) => interrupt.into(),
        other => io::Error::other(format!("a worker could not begin to serve: {other}")),
    }
}

impl<S> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("addresses", &self.plans.len()).finish()
    }
}

/// Serves each connection at an address by `handler`, on every core that this process may use: a [`ServerBuilder`] with
/// one address. For one core, and from within a fiber, see [`server`](crate::server).
///
/// # Errors
///
/// As [`ServerBuilder::start`].
///
/// # Panics
///
/// As [`ServerBuilder::start`].
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// let server = net::serve("127.0.0.1:0", |stream| {
///     while let Ok(Some(bytes)) = stream.receive() {
///         if stream.write(&bytes).is_err() {
///             break;
///         }
///     }
/// })?;
/// let address = server.addresses()[0];
/// fibers::run(move || -> std::io::Result<()> {
///     let client = net::connect(address)?;
///     client.write(b"hello")?;
///     assert_eq!(&*client.receive()?.unwrap(), b"hello");
///     Ok(())
/// })?
/// # ; Ok::<(), std::io::Error>(())
/// ```
pub fn serve(address: impl Peer, handler: impl Fn(Stream) + Send + Clone + 'static) -> io::Result<Server> {
    ServerBuilder::new().serve(address, handler).start()
}
