//! The loop itself in a simulation, seed by seed. `scripts/simulate` has the workloads on fibers.

use std::cell::Cell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use ringspun_runtime::simulation::{Fault, Simulation};
use ringspun_runtime::{
    Address, Completion, Configuration, EventLoop, Operation, OperationKind, Owner, Wait,
};

/// Closes what it is given, and knows whether its operation is over.
#[derive(Default)]
struct Waiter {
    ended: Cell<bool>,
    accepted: Cell<usize>,
}

impl Owner for Waiter {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        if let (OperationKind::Accept, Ok(descriptor)) = (kind, &completion.result) {
            // SAFETY: made for this completion, and nobody else's.
            drop(unsafe { OwnedFd::from_raw_fd(*descriptor as RawFd) });
            self.accepted.set(self.accepted.get() + 1);
        }
        assert!(!self.ended.replace(!completion.more), "a completion after the terminal one");
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

/// A cancel that misses is repeated, and that may meet a full queue of submissions, whose reaping then has what
/// is waited for. The wait once did not look there, and never ended.
#[test]
fn waiting_for_a_cancelled_operation_ends_whatever_the_queue_reaps() {
    let (mut missed, mut full) = (0, 0);
    for seed in 0..500 {
        let simulation = Simulation::new(seed).unwrap();
        simulation.enter(|| {
            let event_loop = EventLoop::new(&Configuration::default()).unwrap();
            let (socket, address) = listener(&simulation);
            let (accepting, connecting) = (Rc::new(Waiter::default()), Rc::new(Waiter::default()));
            let accept = Operation::Accept { listener: socket.as_raw_fd() };
            let key = event_loop.submit(accept, accepting.clone());
            let client = simulation.socket().unwrap();
            let connect = Operation::Connect { socket: client.as_raw_fd(), address: Box::new(address) };
            event_loop.submit(connect, connecting.clone());
            while !connecting.ended.get() {
                event_loop.turn(Wait::Block).unwrap();
            }
            event_loop.cancel_and_wait(key).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(accepting.ended.get(), "seed {seed}");
            event_loop.shutdown().unwrap();
        });
        simulation.finish().unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        missed += simulation.count_of(Fault::CancelMissed);
        full += simulation.count_of(Fault::QueueFull);
    }
    assert!(missed > 0 && full > 0, "{missed} cancels missed, {full} queues full");
}

/// A run depends on nothing but its seed.
#[test]
fn a_seed_repeats_and_another_differs() {
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
