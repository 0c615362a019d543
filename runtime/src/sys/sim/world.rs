//! The state of a simulation: its clock, scheduled events, descriptors, and operations in flight.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::disk::StoredFile;
use super::faults::{Fault, Plan};
use super::in_flight::{Call, InFlight, Job, Posted, Request};
use super::random::Random;
use super::socket::{Kind, Socket, SocketId};
use crate::buffers::BufferPool;
use crate::completion::RawCompletion;
use crate::signals::Signal;

/// The limits of a run: beyond them, a waiter has been forgotten, unnoticed as timers keep firing.
const RUN_MAX_NS: u64 = 4 * 3_600 * 1_000_000_000;
const WAITS_MAX: u64 = 2_000_000;

/// Writes a line of the trace if there is a tracer.
macro_rules! trace {
    ($world:expr, $($text:tt)+) => {
        if $world.tracer.is_some() {
            $world.tell(format_args!($($text)+));
        }
    };
}
pub(super) use trace;

pub(super) type Tracer = Box<dyn Fn(fmt::Arguments<'_>)>;

pub(super) struct World {
    pub(super) random: Random,
    pub(super) plan: Plan,
    /// Whether the backend behaves like poll, or like io_uring.
    pub(super) is_readiness_based: bool,
    started: Instant,
    pub(super) now_ns: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    pub(super) sockets: Vec<Socket>,
    pub(super) files: Vec<StoredFile>,
    /// Blocking calls by ticket, and the jobs of those that have ended.
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) calls_ended: Vec<Job>,
    /// How often each signal has arrived, and the descriptors that tell of signals, which stay open for good.
    pub(super) arrivals: BTreeMap<Signal, u64>,
    pub(super) bells: BTreeMap<RawFd, SocketId>,
    descriptors: BTreeMap<RawFd, SocketId>,
    /// The same descriptors, in the order in which they were opened, to ask the kernel which are closed.
    watched: Vec<libc::pollfd>,
    numbers_used: BTreeSet<RawFd>,
    /// Every descriptor of the simulation is a duplicate of this.
    placeholder: File,
    /// By `user_data`, which is also the order of submission.
    pub(super) operations: BTreeMap<u64, InFlight>,
    pub(super) requests: VecDeque<Request>,
    pub(super) completions: Vec<Posted>,
    /// The completions of messages of which bytes are left.
    pub(super) unsent: Vec<RawCompletion>,
    /// The receive buffers of the current loop, and those that the kernel holds.
    pub(super) pool: Option<Rc<BufferPool>>,
    pub(super) provided: Vec<u16>,
    /// The maximum latency between two sockets.
    latency_max_ns: u64,
    /// The maximum duration of a turn.
    turn_max_ns: u64,
    /// The maximum number of bytes in one direction of a connection.
    pub(super) capacity_bytes: usize,
    /// After how many pieces a socket counts as busy.
    pub(super) busy_after: u8,
    pub(super) next_port: u16,
    waits: u64,
    violation: Option<String>,
    pub(super) tracer: Option<Tracer>,
    /// A hash of all completions.
    pub(super) digest: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Arrival(SocketId, Segment),
    /// An operation may make progress.
    Attempt(u64),
    /// A connect completes.
    Connected(u64),
    /// A cancel that could not stop its operation immediately takes effect.
    GiveUp(u64),
    /// The kernel no longer uses the bytes of a zero-copy send.
    Notified(u64),
    /// A thread begins a blocking call, and ends it.
    CallBegins(u64),
    CallEnds(u64),
    SignalArrives(Signal),
}

/// A unit of arrival at a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Segment {
    Bytes(usize),
    End,
    Reset(i32),
}

struct Scheduled {
    at_ns: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.sequence).cmp(&(other.at_ns, other.sequence))
    }
}

impl World {
    pub(super) fn new(seed: u64) -> io::Result<Self> {
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        let is_readiness_based = random.chance(512);
        let latency_max_ns = *random.pick(&[1, 2_000, 100_000, 5_000_000, 80_000_000]);
        let turn_max_ns = *random.pick(&[1, 1_000, 20_000, 1_000_000]);
        let busy_after = *random.pick(&[0, 1, 3, 16]);
        // Of a few bytes, some connections hold one. If all did, those seeds would take most of the time.
        let capacity_bytes = *random.pick(&[4, 64, 700, 5_000, 70_000]);
        Ok(Self {
            random,
            plan,
            is_readiness_based,
            started: Instant::now(),
            now_ns: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            sockets: Vec::new(),
            files: Vec::new(),
            calls: BTreeMap::new(),
            calls_ended: Vec::new(),
            arrivals: BTreeMap::new(),
            bells: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            watched: Vec::new(),
            numbers_used: BTreeSet::new(),
            placeholder: File::open("/dev/null")?,
            operations: BTreeMap::new(),
            requests: VecDeque::new(),
            completions: Vec::new(),
            unsent: Vec::new(),
            pool: None,
            provided: Vec::new(),
            latency_max_ns,
            turn_max_ns,
            capacity_bytes,
            busy_after,
            next_port: 40_000,
            waits: 0,
            violation: None,
            tracer: None,
            digest: 0,
        })
    }

    pub(super) fn tell(&self, text: fmt::Arguments<'_>) {
        if let Some(tracer) = &self.tracer {
            tracer(format_args!("{:>14.6} ms  {text}", self.now_ns as f64 / 1e6));
        }
    }

    /// Records a violation; the first one is reported.
    pub(super) fn violate(&mut self, text: String) {
        trace!(self, "VIOLATION: {text}");
        self.violation.get_or_insert(text);
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The time of the loop's clock.
    pub(super) fn now(&self) -> Instant {
        self.started + Duration::from_nanos(self.now_ns)
    }

    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        self.plan.strikes(&mut self.random, fault)
    }

    pub(super) fn schedule(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled { at_ns, sequence: self.sequence, event }));
    }

    pub(super) fn latency_ns(&mut self) -> u64 {
        self.random.below(self.latency_max_ns)
    }

    /// A delay of any magnitude, up to 67 ms.
    pub(super) fn delay_ns(&mut self) -> u64 {
        let magnitude = self.random.between(8, 26);
        self.random.below(1 << magnitude)
    }

    /// Advances the clock by the duration of a turn.
    pub(super) fn pass_turn(&mut self) {
        self.waits += 1;
        if self.waits > WAITS_MAX || self.now_ns > RUN_MAX_NS {
            let seconds = self.now_ns / 1_000_000_000;
            self.violate(format!("no end after {} turns and {seconds} s of the simulated clock", self.waits));
        }
        self.now_ns += self.random.below(self.turn_max_ns);
        if self.strikes(Fault::Stall) {
            let magnitude = self.random.between(10, 31);
            self.now_ns += self.random.below(1 << magnitude);
            trace!(self, "the thread did not run for a while");
        }
    }

    /// The time of the next event or completion, if any.
    pub(super) fn next_event_ns(&self) -> Option<u64> {
        let event = self.events.peek().map(|Reverse(scheduled)| scheduled.at_ns);
        let completion = self.completions.iter().map(|posted| posted.at_ns).min();
        event.into_iter().chain(completion).min()
    }

    /// Executes all due events.
    pub(super) fn catch_up(&mut self) {
        while let Some(Reverse(next)) = self.events.peek()
            && next.at_ns <= self.now_ns
        {
            let event = next.event;
            self.events.pop();
            match event {
                Event::Arrival(socket, segment) => self.arrive(socket, segment),
                Event::Attempt(user_data) => self.attempt(user_data),
                Event::Connected(user_data) => self.finish_connect(user_data),
                Event::GiveUp(user_data) => self.give_up(user_data),
                Event::Notified(user_data) => self.notify(user_data),
                Event::CallBegins(ticket) => self.begin_call(ticket),
                Event::CallEnds(ticket) => self.end_call(ticket),
                Event::SignalArrives(signal) => self.signal_arrives(signal),
            }
        }
    }

    /// Opens a descriptor for a socket: a real one, so that leaks and the reuse of numbers are real.
    pub(super) fn open(&mut self, id: SocketId) -> io::Result<OwnedFd> {
        let descriptor = OwnedFd::from(self.placeholder.try_clone()?).into_raw_fd();
        match self.descriptors.insert(descriptor, id) {
            // The number was free, so its former socket has been closed.
            Some(former) => self.closed(former),
            None => self.watched.push(libc::pollfd { fd: descriptor, events: 0, revents: 0 }),
        }
        if !self.numbers_used.insert(descriptor) {
            self.plan.count(Fault::DescriptorReused);
        }
        self.sockets[id].descriptor = Some(descriptor);
        // SAFETY: made above; the table only has the number.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// The socket behind a descriptor.
    pub(super) fn socket_of(&self, descriptor: RawFd) -> Option<SocketId> {
        self.descriptors.get(&descriptor).or_else(|| self.bells.get(&descriptor)).copied()
    }

    /// Sweeps in some of the turns: asking the kernel in each would take a quarter of a run's time.
    pub(super) fn sweep_now_and_then(&mut self) {
        if self.waits.is_multiple_of(4) {
            self.sweep();
        }
    }

    /// Detects descriptors that have been closed since the last call.
    pub(super) fn sweep(&mut self) {
        if !mark_closed(&mut self.watched) {
            return;
        }
        let mut closed = Vec::new();
        self.watched.retain(|entry| {
            let is_open = entry.revents == 0;
            if !is_open {
                closed.push(entry.fd);
            }
            is_open
        });
        for number in closed {
            if let Some(id) = self.descriptors.remove(&number) {
                self.closed(id);
            }
        }
    }

    /// The number of open descriptors.
    pub(super) fn open_descriptors(&self) -> usize {
        self.descriptors.len()
    }

    fn closed(&mut self, id: SocketId) {
        trace!(self, "socket {id} closed");
        if let Some(operation) = self.operations.values().find(|operation| operation.socket == id) {
            let text = format!("socket {id} was closed with an operation in flight: {operation:?}");
            self.violate(text);
        }
        let is_to = |request: &Request| matches!(request, Request::SendSoon { socket, .. } if *socket == id);
        if self.requests.iter().any(is_to) {
            self.violate(format!("socket {id} was closed before a message to it was submitted"));
        }
        self.sockets[id].descriptor = None;
        match std::mem::replace(&mut self.sockets[id].kind, Kind::Closed) {
            Kind::Listener(backlog) => backlog.into_iter().for_each(|waiting| self.abort(waiting)),
            Kind::Connection(connection) => self.hang_up(connection),
            Kind::Unconnected | Kind::File(_) | Kind::Bell(_) | Kind::Closed => {}
        }
    }
}

/// Sets `revents` of the entries that are not open descriptors; false if all are open.
#[cfg(not(miri))]
fn mark_closed(entries: &mut [libc::pollfd]) -> bool {
    // SAFETY: the entries are valid, and their number is passed.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 0) != 0 }
}

/// Sets `revents` of the entries that are not open descriptors, with a call each: Miri has no `poll(2)`.
#[cfg(miri)]
fn mark_closed(entries: &mut [libc::pollfd]) -> bool {
    for entry in &mut *entries {
        // SAFETY: only reads the flags of a descriptor.
        let is_closed = unsafe { libc::fcntl(entry.fd, libc::F_GETFD) } < 0;
        entry.revents = if is_closed { libc::POLLNVAL } else { 0 };
    }
    entries.iter().any(|entry| entry.revents != 0)
}
