//! The public interface of a simulation, and the system calls on sockets that are not operations.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::SockaddrLike;

use super::faults::Fault;
use super::socket::{Kind, Socket, SocketId};
use super::world::World;
use crate::operation::Address;

thread_local! {
    static CURRENT: RefCell<Option<Simulation>> = const { RefCell::new(None) };
}

/// A simulated kernel for one event loop. A seed decides everything that a program cannot know: the time and order of
/// events, partial results, and faults.
///
/// While it is [entered](Self::enter), each [`EventLoop`](crate::EventLoop) made on the thread runs in it, and so do
/// the net layer's own system calls. It uses only memory, and a descriptor as the placeholder of each socket. The
/// loop's clock is the simulation's.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// use ringspun_runtime::simulation::Simulation;
/// use ringspun_runtime::{Configuration, EventLoop, Wait, Wake};
///
/// struct Alarm(Cell<bool>);
/// impl Wake for Alarm {
///     fn wake(self: Rc<Self>) {
///         self.0.set(true);
///     }
/// }
///
/// let simulation = Simulation::new(7).unwrap();
/// simulation.enter(|| {
///     let event_loop = EventLoop::new(&Configuration::default()).unwrap();
///     let alarm = Rc::new(Alarm(Cell::new(false)));
///     // A minute of simulated time passes immediately.
///     event_loop.insert_timer(event_loop.now() + Duration::from_secs(60), alarm.clone());
///     while !alarm.0.get() {
///         event_loop.turn(Wait::Block).unwrap();
///     }
/// });
/// assert_eq!(simulation.finish(), Ok(()));
/// ```
#[derive(Clone)]
pub struct Simulation {
    world: Rc<RefCell<World>>,
    seed: u64,
}

/// The simulation that has been entered on this thread.
pub fn current() -> Option<Simulation> {
    CURRENT.with_borrow(Clone::clone)
}

impl Simulation {
    /// Makes the simulation of this seed.
    ///
    /// # Errors
    ///
    /// The kernel's, if descriptors run out.
    pub fn new(seed: u64) -> io::Result<Self> {
        let world = Rc::new(RefCell::new(World::new(seed)?));
        Ok(Self { world, seed })
    }

    pub(super) fn world(&self) -> Rc<RefCell<World>> {
        self.world.clone()
    }

    /// Runs `function` in the simulation.
    ///
    /// # Panics
    ///
    /// If a simulation has already been entered on this thread. Propagates panics of `function`.
    pub fn enter<T>(&self, function: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.take();
            }
        }
        assert!(current().is_none(), "a simulation has been entered on this thread already");
        CURRENT.set(Some(self.clone()));
        let _leave = Leave;
        function()
    }

    /// The seed of the simulation.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Passes each line of the trace to `tracer`.
    pub fn trace_to(&self, tracer: impl Fn(fmt::Arguments<'_>) + 'static) {
        self.world.borrow_mut().tracer = Some(Box::new(tracer));
    }

    /// Adds a line to the trace.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.world.borrow().tell(text);
    }

    /// Disables a fault, whatever the seed.
    pub fn forbid(&self, fault: Fault) {
        self.world.borrow_mut().plan.forbid(fault);
    }

    /// Whether this fault may happen with this seed.
    pub fn allows(&self, fault: Fault) -> bool {
        self.world.borrow().plan.allows(fault)
    }

    /// How many times a fault has happened.
    pub fn count_of(&self, fault: Fault) -> u64 {
        self.world.borrow().plan.count_of(fault)
    }

    /// Whether the backend behaves like poll, or like io_uring.
    pub fn is_readiness_based(&self) -> bool {
        self.world.borrow().is_readiness_based
    }

    /// How many pieces must be received one by one before a socket counts as busy, and receives ahead of its readers.
    pub fn busy_after(&self) -> u8 {
        self.world.borrow().busy_after
    }

    /// The maximum number of bytes in one direction of a connection, in transit or not yet received.
    pub fn capacity_bytes(&self) -> usize {
        self.world.borrow().capacity_bytes
    }

    /// The time elapsed on the simulated clock.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now_ns)
    }

    /// A hash of all completions so far: the same for the same seed and program.
    pub fn digest(&self) -> u64 {
        self.world.borrow().digest
    }

    /// A random number below `bound`, for the program's own choices.
    pub fn choose(&self, bound: usize) -> usize {
        self.world.borrow_mut().random.below(bound as u64) as usize
    }

    /// Fails the run: the loop's next turn returns an error with this text.
    pub fn fail(&self, text: impl Into<String>) {
        self.world.borrow_mut().violate(text.into());
    }

    /// Checks the run after the loop has been dropped.
    ///
    /// # Errors
    ///
    /// The first violation: a forgotten waiter, a buffer returned twice, bytes that changed during a send, a descriptor
    /// that was closed under an operation or left open, an operation without a terminal completion, or the text passed
    /// to [`fail`](Self::fail).
    pub fn finish(&self) -> Result<(), String> {
        let mut world = self.world.borrow_mut();
        world.sweep();
        let open = world.open_descriptors();
        if open > 0 {
            world.violate(format!("{open} descriptors were left open"));
        }
        if world.pool.is_some() {
            world.violate("the event loop was left behind".to_string());
        }
        world.violation().map_or(Ok(()), |text| Err(text.to_string()))
    }
}

/// System calls on sockets. Each fails with the errors of that call.
impl Simulation {
    /// `socket(2)`
    ///
    /// # Errors
    ///
    /// The kernel's, if descriptors run out.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        let mut world = self.world.borrow_mut();
        let id = world.sockets.len();
        world.sockets.push(Socket::new(Kind::Unconnected));
        world.open(id)
    }

    pub(super) fn with_socket<T>(
        &self,
        descriptor: RawFd,
        call: impl FnOnce(&mut World, SocketId) -> Result<T, i32>,
    ) -> io::Result<T> {
        let mut world = self.world.borrow_mut();
        let result = match world.socket_of(descriptor) {
            Some(id) => call(&mut world, id),
            None => Err(libc::ENOTSOCK),
        };
        result.map_err(io::Error::from_raw_os_error)
    }

    /// `bind(2)`, to an IPv4 address; with port 0, to a free port.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`; `EINVAL` for other families.
    pub fn bind(&self, socket: RawFd, address: &Address) -> io::Result<()> {
        self.with_socket(socket, |world, id| {
            let Some(of_ip) = address.as_sockaddr_in().filter(|_| address.len() > 0) else {
                return Err(libc::EINVAL);
            };
            let address = if of_ip.port() == 0 { world.free_address() } else { *address };
            if world.listener_at(&address).is_some() {
                return Err(libc::EADDRINUSE);
            }
            world.sockets[id].local = Some(address);
            Ok(())
        })
    }

    /// `listen(2)`
    ///
    /// # Errors
    ///
    /// `EINVAL` for a socket that is connected or already listens.
    pub fn listen(&self, socket: RawFd) -> io::Result<()> {
        self.with_socket(socket, |world, id| {
            if !matches!(world.sockets[id].kind, Kind::Unconnected) {
                return Err(libc::EINVAL);
            }
            world.sockets[id].kind = Kind::Listener(Default::default());
            Ok(())
        })
    }

    /// `accept(2)`, on a non-blocking socket.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if no connection waits; injected faults.
    pub fn accept(&self, listener: RawFd) -> io::Result<OwnedFd> {
        self.with_socket(listener, World::accept)
    }

    /// `recv(2)`, on a non-blocking socket.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if nothing has arrived; the error of the connection.
    pub fn receive(&self, socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.with_socket(socket, |world, id| {
            let mut filled = 0;
            world.receive(id, buffer.len(), false, |piece| {
                buffer[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            })
        })
    }

    /// `shutdown(2)`
    ///
    /// # Errors
    ///
    /// `ENOTCONN`
    pub fn shutdown(&self, socket: RawFd, how: Shutdown) -> io::Result<()> {
        self.with_socket(socket, |world, id| world.shut_down(id, how))
    }

    /// `connect(2)` with `AF_UNSPEC`, which ends a connection. Does nothing without one.
    pub fn disconnect(&self, socket: RawFd) {
        let mut world = self.world.borrow_mut();
        if let Some(id) = world.socket_of(socket) {
            world.disconnect(id);
        }
    }

    /// `SO_LINGER` with a time of zero (`socket(7)`)
    ///
    /// # Errors
    ///
    /// `ENOTCONN`
    pub fn reset_at_close(&self, socket: RawFd) -> io::Result<()> {
        self.with_socket(socket, |world, id| {
            world.connection(id).map(|connection| connection.resets_at_close = true).ok_or(libc::ENOTCONN)
        })
    }

    /// `getsockname(2)`
    ///
    /// # Errors
    ///
    /// `EINVAL` for a socket without an address.
    pub fn local_address(&self, socket: RawFd) -> io::Result<Address> {
        self.with_socket(socket, |world, id| world.sockets[id].local.ok_or(libc::EINVAL))
    }

    /// `getpeername(2)`
    ///
    /// # Errors
    ///
    /// `ENOTCONN`
    pub fn peer_address(&self, socket: RawFd) -> io::Result<Address> {
        self.with_socket(socket, |world, id| {
            let dead = world.connection(id).is_none_or(|connection| connection.is_dead());
            world.sockets[id].remote.filter(|_| !dead).ok_or(libc::ENOTCONN)
        })
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation {{ seed: {} }}", self.seed)
    }
}
