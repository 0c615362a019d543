//! The loop itself in a simulation, seed by seed. `scripts/check simulation` has the workloads on fibers.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::{Mutex, PoisonError};

use ringspun_runtime::simulation::{Fault, Simulation};
use ringspun_runtime::{
    Address, Completion, Configuration, EventLoop, Operation, OperationKey, OperationKind, Owner, Wait,
};

/// Descriptors are counted, so the tests run one after another.
static ALONE: Mutex<()> = Mutex::new(());

/// Closes accepted connections, and records whether its operation is over.
#[derive(Default)]
struct Waiter {
    ended: Cell<usize>,
    accepted: Cell<usize>,
    /// What it cancels at each connection, as a listener with a full queue does.
    cancels: RefCell<Option<(Weak<EventLoop>, OperationKey)>>,
}

impl Owner for Waiter {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        if let (OperationKind::Accept, Ok(descriptor)) = (kind, &completion.result) {
            // SAFETY: the descriptor of a new connection, which the completion passes to us.
            drop(unsafe { OwnedFd::from_raw_fd(*descriptor as RawFd) });
            self.accepted.set(self.accepted.get() + 1);
            if let Some((event_loop, key)) = &*self.cancels.borrow()
                && let Some(event_loop) = event_loop.upgrade()
            {
                event_loop.cancel(*key);
            }
        }
        self.ended.set(self.ended.get() + usize::from(!completion.more));
    }
}

fn listener(simulation: &Simulation) -> (OwnedFd, Address) {
    let socket = simulation.socket().unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
    simulation.bind(socket.as_raw_fd(), &any).unwrap();
    simulation.listen(socket.as_raw_fd()).unwrap();
    let address = simulation.local_address(socket.as_raw_fd()).unwrap();
    (socket, address)
}

/// If an owner submits during `cancel_and_wait` and the submission queue is full, making room may reap the awaited
/// completion. The wait must check for it, or it never ends.
#[test]
fn waiting_for_a_cancelled_operation_ends_whatever_the_queue_reaps() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut accepted, mut full) = (0, 0);
    for seed in 0..if cfg!(miri) { 20 } else { 1000 } {
        let simulation = Simulation::new(seed).unwrap();
        simulation.enter(|| {
            let event_loop = EventLoop::new(&Configuration::default()).unwrap();
            let (socket, address) = listener(&simulation);
            let (accepting, connecting) = (Rc::<Waiter>::default(), Rc::<Waiter>::default());
            let accept = Operation::Accept { listener: socket.as_raw_fd() };
            let key = event_loop.submit(accept, accepting.clone());
            accepting.cancels.replace(Some((Rc::downgrade(&event_loop), key)));
            let clients: Vec<_> = (0..10).map(|_| simulation.socket().unwrap()).collect();
            for client in &clients {
                let connect = Operation::Connect { socket: client.as_raw_fd(), address: Box::new(address) };
                event_loop.submit(connect, connecting.clone());
            }
            for _ in 0..seed % 4 {
                let wait = if connecting.ended.get() < clients.len() { Wait::Block } else { Wait::No };
                event_loop.turn(wait).unwrap();
            }
            event_loop.cancel_and_wait(key).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(accepting.ended.get(), 1, "seed {seed}");
            accepted += accepting.accepted.get();
            event_loop.shutdown().unwrap();
        });
        simulation.finish().unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        full += simulation.count_of(Fault::QueueFull);
    }
    assert!(accepted > 0 && full > 0, "{accepted} connections, {full} queues full");
}

/// A run only depends on its seed.
#[test]
fn a_seed_repeats_and_another_differs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let digest = |seed| {
        let simulation = Simulation::new(seed).unwrap();
        simulation.enter(|| {
            let event_loop = EventLoop::new(&Configuration::default()).unwrap();
            let (socket, address) = listener(&simulation);
            let accepting = Rc::new(Waiter::default());
            event_loop.submit(Operation::Accept { listener: socket.as_raw_fd() }, accepting);
            let clients: Vec<_> = (0..20).map(|_| simulation.socket().unwrap()).collect();
            for client in &clients {
                let connecting = Rc::new(Waiter::default());
                let connect = Operation::Connect { socket: client.as_raw_fd(), address: Box::new(address) };
                event_loop.submit(connect, connecting);
            }
            for _ in 0..50 {
                event_loop.turn(Wait::No).unwrap();
            }
            event_loop.shutdown().unwrap();
        });
        simulation.finish().unwrap();
        simulation.digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
