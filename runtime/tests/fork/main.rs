//! A forked child owns nothing: whatever it does with its copy of a loop, and however it ends, the parent is not
//! affected.
//!
//! `RINGSPUN_SEED` repeats the storm's choices; `RINGSPUN_CHILDREN` is how many are forked per backend, 150 by default.

mod deeds;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::{
    BackendKind, BlockingCall, Completion, Configuration, EventLoop, Operation, OperationKey, OperationKind,
    Owner, SendData, Wait, Wake,
};

use self::deeds::{Child, Deed};

/// Runs a test on a new loop of each backend.
fn on_each_backend(test: impl Fn(&Rc<EventLoop>)) {
    for kind in [BackendKind::Uring, BackendKind::Poll] {
        let configuration = Configuration { backend: Some(kind), ..Configuration::default() };
        match EventLoop::new(&configuration) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported && kind == BackendKind::Uring => {
                println!("only on poll: {error}");
            }
            made => test(&made.unwrap()),
        }
    }
}

/// The completions of an operation so far.
#[derive(Default)]
struct Log {
    bytes: RefCell<Vec<u8>>,
    counts: RefCell<Vec<u32>>,
    end: Cell<Option<Result<u32, i32>>>,
}

impl Owner for Log {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.bytes.borrow_mut().extend_from_slice(completion.buffer.as_deref().unwrap_or_default());
        let result = completion.result.map_err(|error| error.raw_os_error().unwrap());
        if completion.more {
            self.counts.borrow_mut().extend(result);
        } else {
            self.end.set(Some(result));
        }
    }
}

#[derive(Default)]
struct Woken(Cell<bool>);

impl Wake for Woken {
    fn wake(self: Rc<Self>) {
        self.0.set(true);
    }
}

/// Turns until the condition holds, without blocking, as it may depend on more than the loop.
fn turn_until(event_loop: &EventLoop, mut done: impl FnMut() -> bool) {
    while !done() {
        event_loop.turn(Wait::No).unwrap();
        std::thread::yield_now();
    }
}

/// The number of bytes to send to the full socket.
const MUCH_BYTES: usize = 1 << 20;

fn much() -> Vec<u8> {
    let mut bytes = vec![0; MUCH_BYTES];
    bytes.chunks_mut(251).enumerate().for_each(|(index, chunk)| chunk.fill(index as u8));
    bytes
}

/// A loop with an operation of each kind in flight.
struct Scene {
    event_loop: Rc<EventLoop>,
    waiting: (UnixStream, UnixStream, Rc<Log>),
    full: (UnixStream, UnixStream, Rc<Log>),
    accepting: (TcpListener, Rc<Log>),
    /// Not yet submitted to the kernel at the fork.
    queued: (UnixStream, UnixStream, Rc<Log>),
    timer: Rc<Woken>,
    blocking: (UnixStream, BlockingCall<u8>),
    in_flight: Vec<OperationKey>,
}

impl Scene {
    fn new(event_loop: &Rc<EventLoop>) -> Self {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (ours, theirs, Rc::new(Log::default()))
        };
        let (waiting, full, queued) = (pair(), pair(), pair());
        let accepting = (TcpListener::bind("127.0.0.1:0").unwrap(), Rc::new(Log::default()));
        let mut in_flight = vec![
            receive(event_loop, &waiting.0, &waiting.2),
            send(event_loop, full.0.as_raw_fd(), much(), &full.2),
            event_loop.submit(Operation::Accept { listener: accepting.0.as_raw_fd() }, accepting.1.clone()),
        ];
        let timer = Rc::new(Woken::default());
        event_loop.insert_timer(event_loop.now() + Duration::from_millis(10), timer.clone());
        // Nothing with a lock, which the parent's thread may hold during a fork.
        let (release, mut released) = UnixStream::pair().unwrap();
        let read = move || {
            let mut byte = [0];
            released.read_exact(&mut byte).unwrap();
            byte[0]
        };
        let call = event_loop.call_blocking(read).unwrap();
        for _ in 0..4 {
            event_loop.turn(Wait::No).unwrap();
        }
        assert_eq!(full.2.end.get(), None, "the socket took {MUCH_BYTES} bytes");
        in_flight.push(receive(event_loop, &queued.0, &queued.2));
        let event_loop = event_loop.clone();
        let blocking = (release, call);
        Self { event_loop, waiting, full, accepting, queued, timer, blocking, in_flight }
    }

    /// Ends all operations in flight, and checks their results.
    fn finish(mut self) {
        for (_, theirs, log) in [&mut self.waiting, &mut self.queued] {
            theirs.write_all(b"late").unwrap();
            turn_until(&self.event_loop, || *log.bytes.borrow() == b"late");
        }
        let (_, theirs, log) = &mut self.full;
        theirs.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        turn_until(&self.event_loop, || {
            match theirs.read_to_end(&mut received) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => panic!("the end of a stream that goes on: {read:?}"),
            }
            received.len() >= MUCH_BYTES && log.end.get().is_some()
        });
        assert!(received == much());
        assert_eq!(log.end.get(), Some(Ok(MUCH_BYTES as u32)));
        let (listener, log) = &self.accepting;
        for count in 1..=2 {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            turn_until(&self.event_loop, || log.counts.borrow().len() == count);
        }
        turn_until(&self.event_loop, || self.timer.0.get());
        let (release, call) = &mut self.blocking;
        release.write_all(&[42]).unwrap();
        let waiter = Rc::new(Woken::default());
        let dynamic: Rc<dyn Wake> = waiter.clone();
        let answer = loop {
            match call.poll(&dynamic) {
                Poll::Ready(answer) => break answer.unwrap(),
                // The thread that finishes the call ends the wait.
                Poll::Pending => self.event_loop.turn(Wait::Block).unwrap(),
            }
        };
        assert_eq!(answer, 42);
        self.event_loop.shutdown().unwrap();
        for log in [&self.waiting.2, &self.queued.2, &self.accepting.1] {
            assert_eq!(log.end.get(), Some(Err(libc::ECANCELED)));
        }
        for accepted in log.counts.take() {
            // SAFETY: the descriptor of a new connection, which the completion passes to us.
            drop(unsafe { OwnedFd::from_raw_fd(accepted as RawFd) });
        }
    }
}

fn receive(event_loop: &EventLoop, socket: &UnixStream, log: &Rc<Log>) -> OperationKey {
    event_loop.submit(Operation::Receive { socket: socket.as_raw_fd() }, log.clone())
}

fn send(event_loop: &EventLoop, socket: RawFd, bytes: Vec<u8>, log: &Rc<Log>) -> OperationKey {
    event_loop.submit(Operation::Send { socket, data: SendData::Owned(bytes) }, log.clone())
}

#[test]
fn whatever_a_child_does_its_parent_goes_on() {
    for deed in Deed::ALL {
        on_each_backend(|event_loop| {
            println!("{deed:?} on {}", event_loop.backend_name());
            let scene = Scene::new(event_loop);
            let in_flight = scene.in_flight.clone();
            Child::that_does(deed, event_loop, &in_flight, || {
                // SAFETY: the child's own copy, as the parent's is another; the child ends without a use of the first.
                unsafe { std::ptr::read(&raw const scene) }
            })
            .ended();
            scene.finish();
        });
    }
}

/// Random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// A stream of bytes between the ends of a socket pair, both on the loop.
struct Traffic {
    sender: UnixStream,
    receiver: UnixStream,
    sending: Option<Rc<Log>>,
    received: Rc<Log>,
    expected: Vec<u8>,
    next: u8,
}

impl Traffic {
    fn new() -> Self {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let received = Rc::new(Log { end: Cell::new(Some(Ok(0))), ..Log::default() });
        Self { sender, receiver, sending: None, received, expected: Vec::new(), next: 0 }
    }

    /// Resubmits operations that have ended, and adds them to `in_flight`.
    fn go_on(&mut self, event_loop: &EventLoop, random: &mut Random, in_flight: &mut Vec<OperationKey>) {
        in_flight.extend(self.take_received(event_loop));
        if self.sending.as_ref().is_none_or(|sending| sending.end.get().is_some_and(|end| end.is_ok())) {
            let count = 1 + random.below(300_000);
            // Copies of a block: without optimization, a step for each byte takes longer than all else in the storm.
            let block: Vec<u8> = (0..251).map(|index: u8| self.next.wrapping_add(index)).collect();
            let mut bytes = block.repeat(count.div_ceil(block.len()));
            bytes.truncate(count);
            self.next = self.next.wrapping_add(1);
            self.expected.extend(&bytes);
            let log = Rc::new(Log::default());
            in_flight.push(send(event_loop, self.sender.as_raw_fd(), bytes, &log));
            self.sending = Some(log);
        }
        if let Some(Err(errno)) = self.sending.as_ref().and_then(|sending| sending.end.get()) {
            panic!("the send ended with {}", io::Error::from_raw_os_error(errno));
        }
    }

    /// Checks the received bytes, and receives again if the last receive has ended.
    fn take_received(&mut self, event_loop: &EventLoop) -> Option<OperationKey> {
        let received = self.received.bytes.take();
        assert!(self.expected.starts_with(&received), "other bytes than were sent");
        self.expected.drain(..received.len());
        let end = self.received.end.take()?;
        assert!(matches!(end, Ok(_) | Err(libc::ENOBUFS)), "the receive ended with {end:?}");
        Some(receive(event_loop, &self.receiver, &self.received))
    }
}

#[test]
fn traffic_goes_on_among_children_that_do_anything() {
    let seed = from_environment("RINGSPUN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let forks = from_environment("RINGSPUN_CHILDREN").unwrap_or(150);
    println!("RINGSPUN_SEED={seed} RINGSPUN_CHILDREN={forks}");
    on_each_backend(|event_loop| storm(event_loop, &mut Random(seed.max(1)), forks));
}

fn storm(event_loop: &Rc<EventLoop>, random: &mut Random, forks: u64) {
    let mut traffics: Vec<_> = (0..4).map(|_| Traffic::new()).collect();
    let mut children = VecDeque::new();
    let mut in_flight = Vec::new();
    for _ in 0..forks {
        for _ in 0..random.below(6) {
            traffics.iter_mut().for_each(|traffic| traffic.go_on(event_loop, random, &mut in_flight));
            // At some forks, operations are queued that have not reached the kernel.
            for _ in 0..random.below(3) {
                event_loop.turn(Wait::No).unwrap();
            }
        }
        let deed = Deed::ALL[random.below(Deed::ALL.len())];
        let child = Child::that_does(deed, event_loop, &in_flight, || {
            // SAFETY: the child's own copy, as the parent's is another; the child ends without a use of the first.
            unsafe { std::ptr::read(&raw const traffics) }
        });
        children.push_back(child);
        if children.len() > 8 {
            children.pop_front().unwrap().ended();
        }
    }
    children.into_iter().for_each(Child::ended);
    for traffic in &mut traffics {
        turn_until(event_loop, || {
            traffic.take_received(event_loop);
            traffic.expected.is_empty()
        });
    }
    event_loop.shutdown().unwrap();
    assert_eq!(event_loop.statistics(), Default::default());
}
