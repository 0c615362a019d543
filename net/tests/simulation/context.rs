//! Shared by the workloads: the simulation, random choices, and tracked fibers.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, FiberBuilder, Interrupt, JoinError, JoinHandle, Runtime};
use ringspun_net::{self as net, Address, Listener, Stream};
use ringspun_runtime::simulation::{Fault, Random, Simulation};
use ringspun_runtime::{Configuration, EventLoop, LoopStatistics};

/// An amount that is sent in a hurry.
const LARGE_BYTES: u64 = 20_000;
/// How long a cancel may take if nothing delays it much.
const CANCEL_MAX: Duration = Duration::from_secs(5);

/// One run of one workload.
pub struct Context {
    pub simulation: Simulation,
    random: RefCell<Random>,
    /// Connections and receive buffers are large enough for much to be sent.
    is_roomy: bool,
    /// The run ends before the workload does: interrupted fibers stop.
    ending: Cell<bool>,
    /// Fibers that may be cancelled at any time.
    victims: RefCell<Vec<Rc<JoinHandle<()>>>>,
    tallies: RefCell<Vec<(&'static str, u64)>>,
}

/// The speed of a reader, with occasional long pauses or long phases without any.
#[derive(Default)]
pub struct Pace {
    haste: usize,
}

impl Pace {
    /// After a piece.
    pub fn step(&mut self, context: &Context) {
        if self.haste > 0 {
            self.haste -= 1;
        } else if context.chance(32) {
            let _ = fibers::sleep(context.duration() * 4);
            self.haste = context.between(0, 2000);
        } else {
            context.nap();
        }
    }
}

/// The result of a run.
pub struct Summary {
    pub digest: u64,
    pub elapsed: Duration,
    pub faults: Vec<(Fault, u64)>,
    /// What the workload counts, such as the bytes that have arrived.
    pub tallies: Vec<(&'static str, u64)>,
}

pub type Workload = fn(&Rc<Context>);

/// Runs a workload with a seed.
pub fn run(workload: Workload, seed: u64, trace: bool) -> Result<Summary, String> {
    let simulation = Simulation::new(seed).map_err(|error| error.to_string())?;
    if trace {
        simulation.trace_to(|line| println!("{line}"));
    }
    let mut random = Random::new(seed ^ 0x5EED_0F0F_7E57_ED00);
    let configuration = configuration(&mut random);
    let context = Rc::new(Context {
        simulation: simulation.clone(),
        random: RefCell::new(random),
        is_roomy: configuration.receive_buffer_size_bytes >= 1000 && simulation.capacity_bytes() > 10_000,
        ending: Cell::new(false),
        victims: RefCell::default(),
        tallies: RefCell::default(),
    });
    let main = context.clone();
    let runtime = Runtime::new().stack_size_bytes(128 * 1024).configuration(configuration);
    let ran = simulation.enter(|| runtime.run(move || main.main(workload)));
    let event_loop = ran.map_err(|error| error.to_string())?;
    // Handles keep the runtime alive.
    drop(context.victims.take());
    let mut left = event_loop.statistics();
    // Calls that were abandoned may outlive the loop.
    left.blocking_calls = 0;
    if left != LoopStatistics::default() {
        return Err(format!("the loop is left with {left:?}"));
    }
    let holders = Rc::strong_count(&event_loop) - 1;
    if holders > 0 {
        return Err(format!("{holders} sockets or fibers still hold the loop that has ended"));
    }
    drop(event_loop);
    simulation.finish()?;
    let faults = Fault::ALL.into_iter().map(|fault| (fault, simulation.count_of(fault))).collect();
    let (digest, elapsed) = (simulation.digest(), simulation.elapsed());
    Ok(Summary { digest, elapsed, faults, tallies: context.tallies.take() })
}

/// Few and small buffers, so that they run out.
fn configuration(random: &mut Random) -> Configuration {
    Configuration {
        receive_buffers: 1 << random.between(0, 5),
        receive_buffer_size_bytes: *random.pick(&[1, 16, 100, 1000, 4096]),
        datagram_buffers: 1,
        ..Configuration::default()
    }
}

impl Context {
    /// The main fiber: runs the workload to its end, or leaves it in the middle.
    fn main(self: &Rc<Self>, workload: Workload) -> Rc<EventLoop> {
        let event_loop = fibers::event_loop().expect("a fiber has a loop");
        let context = self.clone();
        let working = fibers::spawn(move || workload(&context)).expect("a stack");
        if self.chance(128) {
            let _ = fibers::sleep(self.duration());
            self.simulation.note(format_args!("main ends, whatever the others do"));
        } else {
            self.expect_end(working.join());
            self.wait_for_all_but(1);
            self.expect_nothing_left(&event_loop);
        }
        self.ending.set(true);
        event_loop
    }

    /// Waits until this many fibers are left: all others must end and return their stacks.
    pub fn wait_for_all_but(&self, count: usize) {
        let left = || fibers::statistics().map_or((0, 0), |now| (now.alive, now.stacks));
        // Long after everything should have ended.
        let late = self.simulation.elapsed() + Duration::from_secs(2 * 3600);
        while self.simulation.elapsed() < late {
            if left() == (count, count) || self.ending.get() {
                return;
            }
            let _ = fibers::sleep(Duration::from_millis(50));
        }
        let (alive, stacks) = left();
        self.fail(format!("{alive} fibers are alive, with {stacks} stacks, where {count} are expected"));
    }

    /// Waits for the end of all operations, and checks that nothing is left, including timers.
    fn expect_nothing_left(&self, event_loop: &EventLoop) {
        for _ in 0..1000 {
            let left = event_loop.statistics();
            if left.operations_in_flight + left.blocking_calls == 0 {
                break;
            }
            let _ = fibers::sleep(Duration::from_millis(100));
        }
        let left = event_loop.statistics();
        self.check(left == LoopStatistics::default(), || format!("all is over, and the loop has {left:?}"));
    }

    /// Ends the run, as something is wrong.
    pub fn fail(&self, text: String) {
        self.simulation.fail(text);
    }

    /// Serves connections until the listener is closed, as `net::server` does, or by several fibers that accept,
    /// each with deadlines and cancelled now and then. `None` if the run ends before.
    pub fn server(self: &Rc<Self>, handler: impl Fn(Stream) + 'static) -> Option<(Rc<Listener>, Address)> {
        let served = match self.chance(512) {
            true => net::server("127.0.0.1:0", handler),
            false => net::listen("127.0.0.1:0").map(|listener| {
                let (listener, handler) = (Rc::new(listener), Rc::new(handler));
                for _ in 0..self.between(1, 3) {
                    let (listener, handler) = (listener.clone(), handler.clone());
                    self.spawn_victim("acceptor", move |context| context.accept(&listener, handler));
                }
                listener
            }),
        };
        let found = served.and_then(|server| server.localname().map(|address| (server, address)));
        found.map_err(|error| self.check(self.is_ending(), || format!("no server: {error}"))).ok()
    }

    fn accept(&self, listener: &Listener, handler: Rc<impl Fn(Stream) + 'static>) {
        loop {
            let accepted = match self.chance(512) {
                true => fibers::with_deadline(self.duration(), || listener.accept()),
                false => listener.accept(),
            };
            match accepted {
                Ok(stream) => {
                    let handler = handler.clone();
                    drop(fibers::spawn(move || handler(stream)).expect("a stack"));
                }
                Err(error) if net::is_closed(&error) => return,
                Err(error) if self.goes_on(&error) => self.tally("interrupted accepts", 1),
                Err(error) if net::machine::is_exhausted(&error) => {
                    let _ = fibers::sleep(Duration::from_millis(9));
                }
                Err(error) => {
                    return self.check(self.is_ending(), || format!("accepting failed: {error}"));
                }
            }
        }
    }

    pub fn check(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(text());
        }
    }

    /// A fiber of the workload itself must not panic, but may be unwound when the run ends early.
    pub fn expect_end<T>(&self, joined: Result<T, JoinError>) -> Option<T> {
        match joined {
            Ok(value) => Some(value),
            Err(JoinError::Interrupted(_)) => None,
            Err(error) => {
                self.check(self.ending.get(), || format!("a fiber of the workload has no result: {error}"));
                None
            }
        }
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub fn between(&self, least: usize, most: usize) -> usize {
        self.random.borrow_mut().between(least, most)
    }

    /// True with a probability of `per_1024` in 1,024.
    pub fn chance(&self, per_1024: u32) -> bool {
        self.random.borrow_mut().chance(per_1024)
    }

    /// The number of bytes to send: rarely more than a stream receives ahead of its readers.
    pub fn amount(&self) -> u64 {
        match self.is_roomy && self.chance(128) {
            true => self.between(300_000, 1_500_000) as u64,
            false => self.below(1 << self.between(1, 13)),
        }
    }

    /// The size of a read: not a few bytes if there may be a million to read, which would take more turns than a run
    /// may have.
    pub fn read_buffer(&self, most: usize) -> Vec<u8> {
        let least = if self.is_roomy { 32 } else { 1 };
        vec![0; self.between(least, most)]
    }

    /// How much of it is written next.
    pub fn piece(&self, total: u64, sent: u64) -> usize {
        let most = if total > LARGE_BYTES { 60_000 } else { 3000 };
        self.between(1, most).min((total - sent) as usize)
    }

    /// Between two writes; there is much to write where the total is large.
    pub fn pause(&self, total: u64) {
        if total <= LARGE_BYTES || self.chance(64) {
            self.nap();
        }
    }

    /// How long a cancelled operation may take to end: one that misses is repeated.
    pub fn cancel_max(&self) -> Duration {
        let faults = [Fault::CancelMissed, Fault::CancelTooLate, Fault::Stall];
        CANCEL_MAX * (1 + faults.map(|fault| self.simulation.count_of(fault)).iter().sum::<u64>() as u32)
    }

    /// A time of any magnitude between some nanoseconds and some seconds.
    pub fn duration(&self) -> Duration {
        let magnitude = self.between(6, 32);
        Duration::from_nanos(self.below(1 << magnitude))
    }

    /// Lets some time pass, or none.
    pub fn nap(&self) {
        match self.below(4) {
            0 => drop(fibers::sleep(self.duration())),
            1 => drop(fibers::yield_now()),
            _ => {}
        }
    }

    /// Adds to a count that the summary has.
    pub fn tally(&self, name: &'static str, count: u64) {
        let mut tallies = self.tallies.borrow_mut();
        match tallies.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => tallies.push((name, count)),
        }
    }

    /// Whether to continue after this error: it was an interrupt, and the run is not over.
    pub fn goes_on(&self, error: &io::Error) -> bool {
        net::interrupt_of(error).is_some() && !self.ending.get()
    }

    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Spawns a fiber of the workload.
    pub fn spawn(
        self: &Rc<Self>,
        name: &str,
        function: impl FnOnce(&Rc<Self>) + 'static,
    ) -> Rc<JoinHandle<()>> {
        let context = self.clone();
        let spawned = FiberBuilder::new().name(name).spawn(move || function(&context));
        Rc::new(spawned.expect("a stack"))
    }

    /// As [`spawn`](Self::spawn), for a fiber that continues when it is cancelled.
    pub fn spawn_victim(
        self: &Rc<Self>,
        name: &str,
        function: impl FnOnce(&Rc<Self>) + 'static,
    ) -> Rc<JoinHandle<()>> {
        let handle = self.spawn(name, function);
        self.may_cancel(handle.clone());
        handle
    }

    /// The fiber may be cancelled at any time from now on.
    pub fn may_cancel(&self, fiber: Rc<JoinHandle<()>>) {
        self.victims.borrow_mut().push(fiber);
    }

    /// Cancels random fibers for a while, or none.
    pub fn spawn_trouble(self: &Rc<Self>) -> Rc<JoinHandle<()>> {
        let rounds = if self.chance(512) { 0 } else { self.between(1, 60) };
        self.spawn("trouble", move |context| {
            for _ in 0..rounds {
                if fibers::sleep(context.duration() / 64) == Err(Interrupt::Cancelled) {
                    return;
                }
                let victims = context.victims.borrow();
                if !victims.is_empty() {
                    victims[context.between(0, victims.len() - 1)].cancel();
                    context.tally("cancels", 1);
                }
            }
        })
    }

    /// Waits for a fiber, however often the wait itself is interrupted.
    pub fn join(&self, handle: &JoinHandle<()>) {
        while !self.ending.get() {
            match handle.join() {
                Err(JoinError::Interrupted(_)) => {}
                ended => {
                    self.expect_end(ended);
                    return;
                }
            }
        }
    }
}
