//! Calls of fibers and of the net layer in any order, on the simulated loop.
//!
//! The first eight bytes are the simulation's seed, the ninth chooses the sizes of buffers and whether the run ends
//! early. After that, each two bytes are a call: the first says which one and in which of four fibers, the second
//! has what it takes: which stream, how much, how long. What a fiber opens is there for all of them.
//!
//! Whatever the calls are, nothing panics, no cancelled fiber waits on, bytes arrive in their order, and nothing
//! is left behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::Shutdown;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Channel, JoinHandle, Runtime, Select};
use ringspun_net::{self as net, Address, Listener, OperationError, Stream, WriteInterrupted};
use ringspun_runtime::simulation::Simulation;
use ringspun_runtime::{Configuration, EventLoop, LoopStatistics};

const FIBERS: usize = 4;
const PLACES: usize = 4;
/// More would only take longer.
const CALLS_MAX: usize = 512;

/// Runs the calls that the input names.
pub fn check(data: &[u8]) {
    let Some((seed, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((&shape, calls)) = rest.split_first() else { return };
    if let Err(text) = run(u64::from_le_bytes(*seed), shape, calls) {
        panic!("{text}");
    }
}

fn run(seed: u64, shape: u8, calls: &[u8]) -> Result<(), String> {
    let simulation = Simulation::new(seed).map_err(|error| error.to_string())?;
    if std::env::var_os("RINGSPUN_TRACE").is_some() {
        simulation.trace_to(|line| println!("{line}"));
    }
    let mut programs = vec![Vec::new(); FIBERS];
    for call in calls.as_chunks::<2>().0.iter().take(CALLS_MAX) {
        programs[usize::from(call[0]) % FIBERS].push((usize::from(call[0]) / FIBERS, call[1]));
    }
    let configuration = Configuration {
        receive_buffers: 1 << (shape & 3),
        receive_buffer_size_bytes: [1, 16, 100, 1000][usize::from(shape >> 2 & 3)],
        datagram_buffers: 1,
        ..Configuration::default()
    };
    let scene = Rc::new(Scene::new(simulation.clone()));
    let (main, ends_early) = (scene.clone(), shape & 128 != 0);
    let runtime = Runtime::new().stack_size_bytes(128 * 1024).configuration(configuration);
    let ran = simulation.enter(|| runtime.run(move || main.run(programs, ends_early)));
    let event_loop = ran.map_err(|error| error.to_string())?;
    // Handles hold on to the runtime.
    scene.children.take();
    let left = event_loop.statistics();
    if left != LoopStatistics::default() {
        return Err(format!("the loop is left with {left:?}"));
    }
    let holders = Rc::strong_count(&event_loop) - 1;
    if holders > 0 {
        return Err(format!("{holders} sockets or fibers still hold the loop that has ended"));
    }
    drop(event_loop);
    simulation.finish()
}

/// What the fibers share. A place that is taken is taken over, and what was there is dropped.
struct Scene {
    simulation: Simulation,
    is_ending: Cell<bool>,
    listeners: RefCell<[Option<Rc<Listener>>; PLACES]>,
    streams: RefCell<[Option<Rc<Connection>>; PLACES]>,
    children: RefCell<[Option<Rc<JoinHandle<u8>>>; PLACES]>,
    channels: [Channel<u8>; PLACES],
    /// By the address of the sender and of the receiver.
    flows: RefCell<BTreeMap<(String, String), Rc<Flow>>>,
}

/// A stream, with what goes each way, if it is known.
struct Connection {
    stream: Stream,
    out: Option<Rc<Flow>>,
    input: Option<Rc<Flow>>,
}

/// The bytes that go one way.
#[derive(Default)]
struct Flow {
    sent: Cell<u64>,
    /// Bytes of writes whose end is not known.
    doubtful: Cell<u64>,
    received: Cell<u64>,
    /// Where several write or read at once, or a write has failed, nobody knows which byte is next.
    order_is_known: Cell<bool>,
    writers: Cell<usize>,
    readers: Cell<usize>,
    /// How many bytes the sender had sent when it had flushed all, and said so. Writes behind that are lost.
    finished_at: Cell<Option<u64>>,
    /// The receiver gave up on the rest.
    is_abandoned: Cell<bool>,
}

impl Flow {
    fn byte_at(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }

    fn forget_order(&self) {
        self.order_is_known.set(false);
    }
}

/// Counts a fiber in while it is there.
struct Inside<'a>(&'a Cell<usize>);

impl<'a> Inside<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Scene {
    fn new(simulation: Simulation) -> Self {
        Self {
            simulation,
            is_ending: Cell::new(false),
            listeners: RefCell::default(),
            streams: RefCell::default(),
            children: RefCell::default(),
            channels: [0, 1, 3, usize::MAX].map(Channel::bounded),
            flows: RefCell::default(),
        }
    }

    fn expect(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.simulation.fail(text());
        }
    }

    /// The main fiber: lets the calls run for a while, and then has every fiber come to its end.
    fn run(self: &Rc<Self>, programs: Vec<Vec<(usize, u8)>>, ends_early: bool) -> Rc<EventLoop> {
        let event_loop = fibers::event_loop().expect("a fiber has a loop");
        let mut working = Vec::new();
        for program in programs {
            let scene = self.clone();
            let spawned = fibers::spawn(move || {
                for (call, argument) in program {
                    if scene.is_ending.get() {
                        break;
                    }
                    scene.call(call, argument);
                }
            });
            working.push(spawned.expect("a stack"));
        }
        let patience = Duration::from_millis(if ends_early { 5 } else { 60_000 });
        let _ = fibers::with_deadline(patience, || {
            working.iter().try_for_each(|fiber| match fiber.join() {
                Err(fibers::JoinError::Interrupted(interrupt)) => Err(interrupt),
                _ => Ok(()),
            })
        });
        self.is_ending.set(true);
        if !ends_early {
            self.end(&working, &event_loop);
        }
        self.listeners.take();
        self.streams.take();
        event_loop
    }

    fn end(&self, working: &[JoinHandle<()>], event_loop: &EventLoop) {
        // One cancel ends one wait, and nobody begins another call.
        for _ in 0..100 {
            working.iter().for_each(JoinHandle::cancel);
            self.children.borrow().iter().flatten().for_each(|child| child.cancel());
            let _ = fibers::sleep(Duration::from_secs(1));
            if working.iter().all(JoinHandle::is_finished) {
                break;
            }
        }
        let waiting = working.iter().filter(|fiber| !fiber.is_finished()).count();
        self.expect(waiting == 0, || format!("{waiting} fibers wait on, however often they are cancelled"));
        self.children.take();
        self.channels.iter().for_each(Channel::close);
        self.listeners.take();
        self.streams.take();
        let late = self.simulation.elapsed() + Duration::from_secs(3600);
        let left = || (event_loop.statistics(), fibers::statistics().map_or(0, |now| now.alive));
        while left() != (LoopStatistics::default(), 1) && self.simulation.elapsed() < late {
            let _ = fibers::sleep(Duration::from_millis(100));
        }
        self.expect(left() == (LoopStatistics::default(), 1), || {
            format!("all is over, and the loop and its fibers have {:?}", left())
        });
        for ((from, to), flow) in &*self.flows.borrow() {
            let (received, sent, doubtful) = (flow.received.get(), flow.sent.get(), flow.doubtful.get());
            self.expect(received <= sent + doubtful, || {
                format!("from {from} to {to} came {received} bytes, of {sent} and perhaps {doubtful}")
            });
        }
    }

    /// Makes one call; what it returns is right whatever it is, unless bytes come with it.
    fn call(self: &Rc<Self>, call: usize, argument: u8) {
        let place = usize::from(argument) % PLACES;
        let other = usize::from(argument) / PLACES % PLACES;
        let amount = 1 << (usize::from(argument) / PLACES % 16);
        let duration = Duration::from_nanos(1 << (usize::from(argument) % 36));
        match call {
            0 => self.listen(place),
            1 | 2 => self.connect(place, other, argument),
            3 | 4 => self.accept(place, other),
            5..=7 => self.write(place, amount.min(8192)),
            8 | 9 => self.read(place, amount),
            10 => self.chunk(place, amount),
            11 => self.receive(place),
            12 => self.with(place, |connection| connection.stream.set_write_behind(argument & 128 == 0)),
            13 => self.finish(place),
            14 => self.shut_down(place, other),
            15 => self.close(place, argument),
            16 => self.with(place, |connection| {
                connection.stream.set_read_timeout(Some(duration));
                connection.stream.set_write_timeout(Some(duration * 2));
            }),
            17 => self.with(place, |connection| {
                connection.stream.set_read_timeout(None);
                connection.stream.set_write_timeout(None);
            }),
            18 => drop(fibers::sleep(duration)),
            19 => drop(fibers::yield_now()),
            20 => fibers::with_deadline(duration, || self.call(usize::from(argument) % 20, argument >> 1)),
            21 => self.spawn(place, usize::from(argument) / PLACES),
            22 => {
                let child = self.children.borrow()[place].clone();
                drop(child.map(|child| child.join()));
            }
            23 => self.children.borrow()[place].iter().for_each(|child| child.cancel()),
            24 => drop(self.channels[place].give(argument)),
            25 => drop(self.channels[place].take()),
            // A selection does not take from a channel that it gives to, which it says with a panic.
            26 if place != other => self.select(place, other, argument),
            27 => self.channels[place].close(),
            28 => drop(fibers::check()),
            29 => self.detach(place),
            30 => self.with(place, |connection| drop(connection.stream.flush())),
            _ => self.write(place, amount),
        }
    }

    fn listen(&self, place: usize) {
        if let Ok(listener) = net::listen("127.0.0.1:0")
            && !self.is_ending.get()
        {
            let before = self.listeners.borrow_mut()[place].replace(Rc::new(listener));
            drop(before);
        }
    }

    fn connect(&self, place: usize, other: usize, argument: u8) {
        let address: Option<Address> =
            self.listeners.borrow()[other].as_ref().and_then(|listener| listener.localname().ok());
        let connected = match (address, argument & 128 != 0) {
            (Some(address), false) => net::connect(address),
            (Some(address), true) => net::connect_from("127.0.0.1:0", address),
            (None, _) => net::connect("127.0.0.1:9"),
        };
        if let Ok(stream) = connected {
            self.keep(place, stream);
        }
    }

    fn accept(&self, place: usize, other: usize) {
        let listener = self.listeners.borrow()[other].clone();
        if let Some(Ok(stream)) = listener.map(|listener| listener.accept()) {
            self.keep(place, stream);
        }
    }

    fn keep(&self, place: usize, stream: Stream) {
        // Nobody would close it.
        if self.is_ending.get() {
            return;
        }
        let names = [stream.localname(), stream.peername()].map(|name| name.map(|name| name.to_string()));
        // A connection may be lost by now.
        let connection = match names {
            [Ok(local), Ok(peer)] => {
                let (out, input) = (self.flow(&local, &peer), self.flow(&peer, &local));
                Connection { stream, out: Some(out), input: Some(input) }
            }
            _ => Connection { stream, out: None, input: None },
        };
        let before = self.streams.borrow_mut()[place].replace(Rc::new(connection));
        if let Some(input) = before.and_then(|before| before.input.clone()) {
            input.is_abandoned.set(true);
        }
    }

    fn flow(&self, from: &str, to: &str) -> Rc<Flow> {
        let make = || Rc::new(Flow { order_is_known: Cell::new(true), ..Flow::default() });
        self.flows.borrow_mut().entry((from.to_string(), to.to_string())).or_insert_with(make).clone()
    }

    fn with(&self, place: usize, call: impl FnOnce(&Connection)) {
        let connection = self.streams.borrow()[place].clone();
        if let Some(connection) = connection {
            call(&connection);
        }
    }

    fn write(&self, place: usize, count: usize) {
        self.with(place, |connection| {
            let unknown = Flow::default();
            let flow = connection.out.as_deref().unwrap_or(&unknown);
            if flow.writers.get() > 0 {
                flow.forget_order();
            }
            let _inside = Inside::new(&flow.writers);
            let start = flow.sent.get();
            let bytes: Vec<_> = (start..start + count as u64).map(Flow::byte_at).collect();
            // Counted before it is over, as bytes of it arrive meanwhile.
            flow.doubtful.set(flow.doubtful.get() + count as u64);
            let (taken, is_known) = match connection.stream.write(&bytes) {
                Ok(written) => {
                    self.expect(written == count, || format!("a write of {count} bytes wrote {written}"));
                    (written, true)
                }
                Err(error) => match interrupted(&error) {
                    Some(interrupted) => (interrupted.written_bytes, true),
                    // An error is told once, and the reader finds an end instead.
                    None => {
                        connection.input.iter().for_each(|input| input.is_abandoned.set(true));
                        (0, false)
                    }
                },
            };
            if is_known {
                flow.doubtful.set(flow.doubtful.get() - count as u64);
            } else {
                flow.forget_order();
            }
            flow.sent.set(flow.sent.get() + taken as u64);
        });
    }

    fn read(&self, place: usize, size: usize) {
        self.take(place, |stream| {
            let mut buffer = vec![0; size];
            stream.read(&mut buffer).map(|count| buffer[..count].to_vec())
        });
    }

    fn chunk(&self, place: usize, size: usize) {
        self.with(place, |connection| {
            // Its end is where it has less, and an error of the kernel loses what had come.
            let had_all = Cell::new(true);
            self.take(place, |stream| {
                let mut buffer = vec![0; size];
                let read = stream.chunk(&mut buffer);
                had_all.set(matches!(&read, Ok(count) if *count == size));
                read.map(|count| buffer[..count].to_vec())
            });
            if !had_all.get()
                && let Some(input) = &connection.input
            {
                input.forget_order();
            }
        });
    }

    fn receive(&self, place: usize) {
        self.take(place, |stream| Ok(stream.receive()?.map(|bytes| bytes.to_vec()).unwrap_or_default()));
    }

    /// Looks at what was read: nothing is the end.
    fn take(&self, place: usize, read: impl FnOnce(&Stream) -> io::Result<Vec<u8>>) {
        self.with(place, |connection| {
            let unknown = Flow::default();
            let flow = connection.input.as_deref().unwrap_or(&unknown);
            if flow.readers.get() > 0 {
                flow.forget_order();
            }
            let _inside = Inside::new(&flow.readers);
            let bytes = match read(&connection.stream) {
                Ok(bytes) => bytes,
                // An error is told once, and is the end from then on.
                Err(error) => {
                    let is_lost = net::interrupt_of(&error).is_none();
                    return flow.is_abandoned.set(flow.is_abandoned.get() || is_lost);
                }
            };
            let start = flow.received.get();
            flow.received.set(start + bytes.len() as u64);
            if !flow.order_is_known.get() {
                return;
            }
            let wrong = (start..).zip(&bytes).find(|(offset, byte)| Flow::byte_at(*offset) != **byte);
            if let Some((offset, byte)) = wrong {
                let expected = Flow::byte_at(offset);
                self.simulation.fail(format!("byte {offset} is {byte:#x}, expected {expected:#x}"));
            }
            let is_end = bytes.is_empty() && !flow.is_abandoned.get() && flow.readers.get() == 1;
            if let Some(sent) = flow.finished_at.get().filter(|_| is_end) {
                self.expect(start == sent, || format!("the end came after {start} of {sent} bytes"));
            }
        });
    }

    /// Ends the output as one does who wants all of it to arrive.
    fn finish(&self, place: usize) {
        self.with(place, |connection| {
            if connection.stream.flush().and_then(|()| connection.stream.shutdown(Shutdown::Write)).is_ok()
                && let Some(out) = connection.out.as_ref().filter(|out| out.writers.get() == 0)
                && out.finished_at.get().is_none()
            {
                out.finished_at.set(Some(out.sent.get()));
            }
        });
    }

    fn shut_down(&self, place: usize, how: usize) {
        self.with(place, |connection| {
            let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][how % 3];
            // What is on its way may be lost, and writes fail half way.
            for flow in connection.input.iter().chain(&connection.out) {
                flow.is_abandoned.set(true);
            }
            let _ = connection.stream.shutdown(how);
        });
    }

    fn close(&self, place: usize, argument: u8) {
        if argument & 64 != 0 {
            let listener = self.listeners.borrow()[place].clone();
            return listener.iter().for_each(|listener| listener.close());
        }
        self.with(place, |connection| {
            for flow in connection.input.iter().chain(&connection.out) {
                flow.is_abandoned.set(true);
            }
            connection.stream.close();
        });
    }

    /// Starts a fiber that returns, panics, or waits for a while or for a value.
    fn spawn(self: &Rc<Self>, place: usize, what: usize) {
        let scene = self.clone();
        let child = fibers::spawn(move || {
            match what % 8 {
                0 => {}
                // Unlike a panic of its own, this prints nothing.
                1 => resume_unwind(Box::new("deliberate")),
                2 => drop(fibers::sleep(Duration::MAX)),
                3 => drop(scene.channels[place].take()),
                4 => drop(scene.channels[place].give(1)),
                5 => scene.accept(place, place),
                6 => scene.read(place, 100),
                _ => scene.write(place, 100),
            }
            what as u8
        });
        self.detach(place);
        self.children.borrow_mut()[place] = child.ok().map(Rc::new);
    }

    /// Leaves a child to itself, and to its end: nobody can cancel it later.
    fn detach(&self, place: usize) {
        let child = self.children.borrow_mut()[place].take();
        child.iter().for_each(|child| child.cancel());
    }

    fn select(&self, place: usize, other: usize, argument: u8) {
        let mut slot = Some(argument);
        let select =
            Select::new().take(&self.channels[place], drop).give(&self.channels[other], &mut slot, drop);
        let _ = if argument & 128 == 0 { select.wait() } else { select.wait_shuffled() };
    }
}

/// What an interrupted write says of the bytes.
fn interrupted(error: &io::Error) -> Option<WriteInterrupted> {
    let cause = error.get_ref()?.downcast_ref::<OperationError>()?.source()?;
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref().copied()
}
