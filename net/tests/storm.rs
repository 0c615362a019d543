//! A storm of cancellations: every operation, ended by every means, at random moments. Afterwards nothing
//! is left, and every byte is accounted for.
//!
//! `RINGSPUN_SEED` repeats a storm's choices, though not its timing. `RINGSPUN_STORM` is how many
//! cancellations are to hit, here and in the storm of the Janet crate together: 100,000 by default.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{Backlog, setsockopt, sockopt};
use ringspun_fibers::{self as fibers, FiberBuilder, Interrupt, JoinError, Runtime};
use ringspun_net::{self as net, Listener, OperationError, Stream, WriteInterrupted};
use ringspun_runtime::{Configuration, LoopStatistics};

const AGES: Duration = Duration::from_secs(3600);
const DEFAULT_CANCELLATIONS: usize = 100_000;
/// What this storm hits of all cancellations; the rest is for Janet's.
const SHARE_PERCENT: usize = 60;

const SCENES_AT_ONCE: usize = 80;

/// Descriptors are counted, so the storms run one after another.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Connect,
    Accept,
    AcceptLoop,
    Read,
    Chunk,
    Receive,
    Write,
    LargeWrite,
    Join,
    Sleep,
}

const OPERATIONS: [Operation; 10] = {
    use Operation::*;
    [Connect, Accept, AcceptLoop, Read, Chunk, Receive, Write, LargeWrite, Join, Sleep]
};

/// By what an operation was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Cancel,
    Deadline,
    Timeout,
    Close,
    Reset,
    End,
}

const MEANS: [Means; 6] =
    [Means::Cancel, Means::Deadline, Means::Timeout, Means::Close, Means::Reset, Means::End];

/// xorshift: enough to choose, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    fn fork(&mut self) -> Self {
        Self(self.next() | 1)
    }

    fn moment(&mut self) -> Duration {
        Duration::from_micros(match self.below(4) {
            0 => 0,
            1 | 2 => self.below(200),
            _ => self.below(1000),
        })
    }
}

/// What ends an operation from within its own fiber.
#[derive(Clone, Copy)]
enum Limit {
    None,
    Deadline(Duration),
    Timeout(Duration),
}

impl Limit {
    fn random(random: &mut Random) -> Self {
        match random.below(3) {
            0 => Self::None,
            1 => Self::Deadline(random.moment()),
            _ => Self::Timeout(random.moment()),
        }
    }

    /// For operations without a timeout of their own, and that nobody else might end.
    fn deadline(random: &mut Random) -> Self {
        Self::Deadline(random.moment())
    }

    fn timeout(self) -> Option<Duration> {
        if let Self::Timeout(timeout) = self { Some(timeout) } else { None }
    }

    fn hold<T>(self, operation: impl FnOnce() -> T) -> T {
        match self {
            Self::Deadline(duration) => fibers::with_deadline(duration, operation),
            _ => operation(),
        }
    }
}

/// How an operation failed.
enum Failure {
    Interrupted,
    /// Closed by this side or by the peer: nothing more can be done.
    Over,
}

/// What the fibers of a storm share.
struct Storm {
    hits: [[Cell<usize>; MEANS.len()]; OPERATIONS.len()],
    ending: Cell<bool>,
    /// Where connecting takes for ever.
    full: SocketAddr,
}

impl Storm {
    fn new(full: SocketAddr) -> Rc<Self> {
        Rc::new(Self { hits: Default::default(), ending: Cell::new(false), full })
    }

    fn hit(&self, operation: Operation, means: Means) {
        let cell = &self.hits[operation as usize][means as usize];
        cell.set(cell.get() + 1);
    }

    fn interrupted(&self, operation: Operation, limit: Limit, interrupt: Interrupt) {
        let means = match (interrupt, limit) {
            (Interrupt::Cancelled, _) if self.ending.get() => Means::End,
            (Interrupt::Cancelled, _) => Means::Cancel,
            (_, Limit::Timeout(_)) => Means::Timeout,
            _ => Means::Deadline,
        };
        self.hit(operation, means);
    }

    fn failed(&self, operation: Operation, limit: Limit, error: &io::Error) -> Failure {
        if let Some(interrupt) = net::interrupt_of(error) {
            self.interrupted(operation, limit, interrupt);
            return Failure::Interrupted;
        }
        match error.kind() {
            _ if net::is_closed(error) => self.hit(operation, Means::Close),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.hit(operation, Means::Reset),
            ErrorKind::ConnectionRefused if operation == Operation::Connect => {}
            _ => panic!("{operation:?} failed: {error}"),
        }
        Failure::Over
    }

    fn sleep(&self, random: &mut Random) {
        if let Err(interrupt) = fibers::sleep(random.moment()) {
            self.interrupted(Operation::Sleep, Limit::None, interrupt);
        }
    }

    fn total(&self) -> usize {
        self.hits.iter().flatten().map(Cell::get).sum()
    }

    fn print(&self) {
        println!("{:12}{}", "", MEANS.map(|means| format!("{:>10}", format!("{means:?}"))).concat());
        for (operation, hits) in OPERATIONS.iter().zip(&self.hits) {
            let row: String = hits.iter().map(|hits| format!("{:>10}", hits.get())).collect();
            println!("{:12}{row}", format!("{operation:?}"));
        }
        println!("{} cancellations hit", self.total());
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

fn target() -> usize {
    from_environment("RINGSPUN_STORM").unwrap_or(DEFAULT_CANCELLATIONS) * SHARE_PERCENT / 100
}

fn seed() -> Random {
    let seed = from_environment("RINGSPUN_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 | 1)
    });
    println!("RINGSPUN_SEED={seed}");
    Random(seed.max(1))
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The byte at each position of a stream.
fn byte_at(salt: u8, position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8 ^ salt
}

fn pattern(salt: u8, start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|position| byte_at(salt, position)).collect()
}

/// Both ends of a connection, whose kernel buffers are so small that a large write has to wait.
fn pair() -> io::Result<(Rc<Stream>, Rc<Stream>)> {
    let listener = net::listen("127.0.0.1:0")?;
    let address = listener.localname()?;
    let connecting = fibers::spawn(move || net::connect(address))?;
    let first = listener.accept()?;
    let client = connecting.join()??;
    let mut served = first;
    // Ports are reused: somebody who looked for another listener may have found this one.
    while served.peername().ok() != client.localname().ok() {
        served = listener.accept()?;
    }
    for stream in [&client, &served] {
        let descriptor = borrowed(stream);
        setsockopt(&descriptor, sockopt::SndBuf, &8192)?;
        setsockopt(&descriptor, sockopt::RcvBuf, &8192)?;
    }
    Ok((Rc::new(client), Rc::new(served)))
}

fn borrowed(stream: &Stream) -> BorrowedFd<'_> {
    // SAFETY: the stream is open, and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// What a sender knows of its bytes.
#[derive(Default)]
struct Sent {
    /// Bytes that the kernel took.
    written: usize,
    /// Bytes of a write that failed, of which the kernel may have taken some.
    uncertain: usize,
}

/// Writes until so many pieces have gone, whatever interrupts it, and says how far it came.
fn send(storm: &Storm, mut random: Random, stream: &Stream, salt: u8, pieces: u64) -> Sent {
    let mut sent = Sent::default();
    for _ in 0..pieces {
        if storm.ending.get() {
            break;
        }
        let large = random.below(4) == 0;
        let operation = if large { Operation::LargeWrite } else { Operation::Write };
        let length = 1 + random.below(if large { 96 * 1024 } else { 300 }) as usize;
        let data = pattern(salt, sent.written, length);
        let limit = Limit::random(&mut random);
        stream.set_write_timeout(limit.timeout());
        // Through the trait, an error means that nothing was written.
        let by_trait = random.below(4) == 0;
        let result = limit.hold(|| {
            let mut stream = stream;
            if by_trait { io::Write::write(&mut stream, &data) } else { Stream::write(stream, &data) }
        });
        match result {
            Ok(count) => {
                assert!(count == length || by_trait && count > 0);
                sent.written += count;
            }
            Err(error) => match storm.failed(operation, limit, &error) {
                Failure::Interrupted if by_trait => {}
                Failure::Interrupted => sent.written += written_bytes(&error),
                Failure::Over => {
                    sent.uncertain = length;
                    return sent;
                }
            },
        }
        if random.below(3) == 0 {
            storm.sleep(&mut random);
        }
    }
    sent
}

fn written_bytes(error: &io::Error) -> usize {
    use std::error::Error as _;
    let operation = error.get_ref().and_then(|inner| inner.downcast_ref::<OperationError>());
    let source = operation.and_then(|error| error.source()?.downcast_ref::<io::Error>());
    let interrupted = source.and_then(|source| source.get_ref()?.downcast_ref::<WriteInterrupted>());
    interrupted.unwrap_or_else(|| panic!("no count in: {error}")).written_bytes
}

/// Reads to the end, in every way and whatever interrupts it, and returns how many bytes came. Each must
/// be the next of the pattern.
fn receive(storm: &Storm, mut random: Random, stream: &Stream, salt: u8) -> usize {
    let mut received = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let limit = Limit::random(&mut random);
        stream.set_read_timeout(limit.timeout());
        let length = 1 + random.below(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..length];
        let expected = pattern(salt, received, length);
        let (operation, result) = match random.below(3) {
            0 => (Operation::Read, limit.hold(|| stream.read(buffer))),
            1 => {
                // No byte is the expected one, so that an interrupted chunk shows how much it has.
                buffer.iter_mut().zip(&expected).for_each(|(byte, expected)| *byte = !*expected);
                (Operation::Chunk, limit.hold(|| stream.chunk(buffer)))
            }
            _ => {
                let result = limit.hold(|| stream.receive());
                let result = result.map(|bytes| {
                    if bytes.is_some() && random.below(4) == 0 {
                        // Keeps the loop's buffer.
                        storm.sleep(&mut random);
                    }
                    bytes.map_or(0, |bytes| {
                        assert!(*bytes == pattern(salt, received, bytes.len()), "at {received}");
                        received += bytes.len();
                        bytes.len()
                    })
                });
                (Operation::Receive, result)
            }
        };
        let counted = operation != Operation::Receive;
        match result {
            Ok(0) => return received,
            Ok(count) if counted => {
                assert!(buffer[..count] == expected[..count], "at {received}");
                received += count;
            }
            Ok(_) => {}
            Err(error) => {
                if operation == Operation::Chunk {
                    received += buffer.iter().zip(&expected).take_while(|(got, want)| got == want).count();
                }
                let failure = storm.failed(operation, limit, &error);
                if storm.ending.get() || matches!(failure, Failure::Over) {
                    return received;
                }
            }
        }
        if random.below(8) == 0 {
            storm.sleep(&mut random);
        }
    }
}

/// One stream, a sender and a receiver, both cancelled at random; ended properly, or by somebody else.
fn transfer(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let (client, served) = pair()?;
    let salt = random.next() as u8;
    let pieces = 10 + random.below(40);
    let (of_sender, choices, shared) = (client.clone(), random.fork(), storm.clone());
    let sender = fibers::spawn(move || {
        let sent = send(&shared, choices, &of_sender, salt, pieces);
        if pieces.is_multiple_of(2) {
            of_sender.close();
        } else {
            // Fails if the stream has been closed or reset.
            let _ = of_sender.shutdown(Shutdown::Write);
        }
        sent
    })?;
    let (of_receiver, choices, shared) = (served.clone(), random.fork(), storm.clone());
    let receiver = fibers::spawn(move || receive(&shared, choices, &of_receiver, salt))?;
    let cut_short = random.below(3) == 0;
    let mut rounds = random.below(60);
    while if cut_short { rounds > 0 } else { !sender.is_finished() } {
        rounds = rounds.saturating_sub(1);
        match random.below(5) {
            0 => sender.cancel(),
            1 => receiver.cancel(),
            2 => fibers::yield_now()?,
            _ => fibers::sleep(random.moment())?,
        }
    }
    if cut_short {
        match random.below(4) {
            0 => client.close(),
            1 => served.close(),
            // Both in one turn.
            2 => {
                served.close();
                client.close();
            }
            _ => {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                let _ = setsockopt(&borrowed(&client), sockopt::Linger, &linger);
                client.close();
            }
        }
    }
    let (sent, received) = (sender.join()?, receiver.join()?);
    if !cut_short {
        assert_eq!((received, sent.uncertain), (sent.written, 0), "bytes received and written");
    }
    assert!(received <= sent.written + sent.uncertain, "{received} received, {} written", sent.written);
    Ok(())
}

/// Connects and reads the end; every wait is limited, because the listener may not be there any more.
fn connect_and_read(storm: &Storm, random: &mut Random, address: SocketAddr) -> Failure {
    let limit = Limit::deadline(random);
    let stream = match limit.hold(|| net::connect(address)) {
        Ok(stream) => stream,
        Err(error) => return storm.failed(Operation::Connect, limit, &error),
    };
    let limit = Limit::deadline(random);
    if let Err(error) = limit.hold(|| stream.read(&mut [0; 8])) {
        storm.failed(Operation::Read, limit, &error);
    }
    // Dropped with its receive armed.
    Failure::Interrupted
}

/// Several fibers accept from one listener while others connect; it is closed in the middle.
fn accepting(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let address = listener.localname()?;
    let mut handles = Vec::new();
    for _ in 0..3 {
        let (listener, mut choices, shared) = (listener.clone(), random.fork(), storm.clone());
        handles.push(fibers::spawn(move || {
            loop {
                let limit = if choices.below(2) == 0 { Limit::None } else { Limit::deadline(&mut choices) };
                match limit.hold(|| listener.accept()) {
                    Ok(stream) => drop(stream),
                    Err(error) => {
                        if matches!(shared.failed(Operation::Accept, limit, &error), Failure::Over) {
                            return;
                        }
                    }
                }
            }
        })?);
        let (mut choices, shared) = (random.fork(), storm.clone());
        handles.push(fibers::spawn(move || {
            for _ in 0..15 {
                if matches!(connect_and_read(&shared, &mut choices, address), Failure::Over) {
                    return;
                }
            }
        })?);
    }
    for _ in 0..random.below(60) {
        let victim = random.below(handles.len() as u64) as usize;
        handles[victim].cancel();
        if random.below(2) == 0 { fibers::yield_now()? } else { fibers::sleep(random.moment())? }
    }
    listener.close();
    for handle in handles {
        handle.join()?;
    }
    Ok(())
}

/// A server whose accept loop is cancelled and started again, with clients that give up early.
fn serving(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let address = listener.localname()?;
    let (accepting, handling) = (listener.clone(), storm.clone());
    let server = fibers::spawn(move || {
        loop {
            let storm = handling.clone();
            let ended = accepting.accept_loop(move |stream| {
                loop {
                    match stream.receive() {
                        Ok(Some(bytes)) if stream.write(&bytes).is_ok() => {}
                        Ok(_) => return,
                        Err(error) => {
                            storm.failed(Operation::Receive, Limit::None, &error);
                            return;
                        }
                    }
                }
            });
            match ended {
                Ok(()) => return handling.hit(Operation::AcceptLoop, Means::Close),
                Err(error) => _ = handling.failed(Operation::AcceptLoop, Limit::None, &error),
            }
        }
    })?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (mut random, storm) = (random.fork(), storm.clone());
        clients.push(fibers::spawn(move || {
            for _ in 0..5 {
                let limit = Limit::deadline(&mut random);
                let stream = match limit.hold(|| net::connect(address)) {
                    Ok(stream) => stream,
                    Err(error) => {
                        storm.failed(Operation::Connect, limit, &error);
                        continue;
                    }
                };
                let data = pattern(0, 0, 1 + random.below(2000) as usize);
                let mut answer = vec![0; data.len()];
                let asked = limit.hold(|| (&stream).write_all(&data));
                let answered = asked.and_then(|()| limit.hold(|| stream.chunk(&mut answer)));
                match answered {
                    Ok(count) => assert!(answer[..count] == data[..count]),
                    Err(error) => _ = storm.failed(Operation::Chunk, limit, &error),
                }
            }
        })?);
    }
    while !clients.iter().all(fibers::JoinHandle::is_finished) {
        if random.below(2) == 0 {
            server.cancel();
        }
        clients[random.below(4) as usize].cancel();
        fibers::sleep(random.moment())?;
    }
    listener.close();
    server.join()?;
    Ok(())
}

/// Connects to a listener that answers nobody any more.
fn connecting(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let address = storm.full;
    let mut handles = Vec::new();
    for _ in 0..6 {
        let (mut random, storm) = (random.fork(), storm.clone());
        handles.push(fibers::spawn(move || {
            for _ in 0..8 {
                let limit = if random.below(2) == 0 { Limit::None } else { Limit::deadline(&mut random) };
                if let Err(error) = limit.hold(|| net::connect(address)) {
                    storm.failed(Operation::Connect, limit, &error);
                }
            }
        })?);
    }
    while !handles.iter().all(fibers::JoinHandle::is_finished) {
        handles[random.below(6) as usize].cancel();
        fibers::sleep(random.moment() / 4)?;
    }
    Ok(())
}

/// Fibers that sleep, and fibers that wait for them.
fn joining(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    for _ in 0..10 {
        let joined = Rc::new(Cell::new(false));
        let (shared, over) = (storm.clone(), joined.clone());
        let sleeper = fibers::spawn(move || {
            while !over.get() {
                if let Err(interrupt) = fibers::sleep(Duration::from_millis(2)) {
                    shared.interrupted(Operation::Sleep, Limit::None, interrupt);
                }
            }
        })?;
        sleeper.cancel();
        let (limit, shared) = (Limit::deadline(&mut random), storm.clone());
        let joiner = fibers::spawn(move || {
            match limit.hold(|| sleeper.join()) {
                Err(JoinError::Interrupted(interrupt)) => {
                    shared.interrupted(Operation::Join, limit, interrupt);
                }
                other => panic!("a fiber that waits for this one has ended: {other:?}"),
            }
            joined.set(true);
        })?;
        fibers::sleep(random.moment())?;
        joiner.cancel();
        joiner.join()?;
    }
    Ok(())
}

/// Sizes that make rings run full and buffers run out, or the usual ones.
fn configuration(random: &mut Random) -> Configuration {
    if random.below(2) == 0 {
        return Configuration::default();
    }
    Configuration {
        submission_entries: 1 << random.below(4),
        completion_entries: 16,
        receive_buffers: 2 << random.below(4),
        receive_buffer_size_bytes: 512,
    }
}

/// Several scenes at once, each with choices of its own.
fn rage(storm: &Rc<Storm>, random: &mut Random) -> io::Result<()> {
    type Scene = fn(&Rc<Storm>, Random) -> io::Result<()>;
    const SCENES: [Scene; 8] =
        [transfer, transfer, transfer, transfer, accepting, serving, connecting, joining];
    let scenes: Vec<_> = (0..SCENES_AT_ONCE)
        .map(|_| {
            let scene = SCENES[random.below(SCENES.len() as u64) as usize];
            let (storm, random) = (storm.clone(), random.fork());
            fibers::spawn(move || scene(&storm, random))
        })
        .collect::<io::Result<_>>()?;
    for scene in scenes {
        match scene.join() {
            Ok(result) => result?,
            Err(JoinError::Panicked(payload)) => std::panic::resume_unwind(payload),
            Err(JoinError::Interrupted(interrupt)) => return Err(interrupt.into()),
        }
    }
    Ok(())
}

/// Checks that nothing is left, once the loop has seen the last of what was cancelled.
fn check_that_nothing_is_left(descriptors_before: usize) {
    const NOTHING: LoopStatistics = LoopStatistics { operations_in_flight: 0, timers: 0, buffers_lent: 0 };
    let left = || {
        let fibers = fibers::statistics().unwrap();
        (fibers::event_loop().unwrap().statistics(), fibers.alive, descriptors())
    };
    let nothing = (NOTHING, 1, descriptors_before);
    for _ in 0..5_000 {
        if left() == nothing {
            return;
        }
        fibers::sleep(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(left(), nothing, "what is left, and what should be");
}

#[test]
fn every_operation_can_be_cancelled_at_every_stage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = seed();
    let (_full, _filling, address) = full_listener().unwrap();
    let at_first = descriptors();
    let storm = Storm::new(address);
    let target = target();
    while storm.total() < target {
        let goal = target.min(storm.total() + 4_000);
        let (shared, configuration) = (storm.clone(), configuration(&mut random));
        let mut choices = random.fork();
        let run = Runtime::new().configuration(configuration).run(move || {
            let before = descriptors();
            while shared.total() < goal {
                rage(&shared, &mut choices).unwrap();
            }
            check_that_nothing_is_left(before);
        });
        run.unwrap();
        assert_eq!(descriptors(), at_first, "descriptors after a runtime, and before");
    }
    storm.print();
    if target >= 10_000 {
        for (operation, hits) in OPERATIONS.iter().zip(&storm.hits) {
            assert!(hits.iter().any(|hits| hits.get() > 0), "nothing ended {operation:?}");
        }
        for means in MEANS.into_iter().filter(|means| *means != Means::End) {
            assert!(storm.hits.iter().any(|hits| hits[means as usize].get() > 0), "{means:?} ended nothing");
        }
    }
}

/// A listener that answers nobody any more, and those who keep it busy.
fn full_listener() -> io::Result<(TcpListener, Vec<TcpStream>, SocketAddr)> {
    let full = TcpListener::bind("127.0.0.1:0")?;
    nix::sys::socket::listen(&full.as_fd(), Backlog::new(0)?)?;
    let address = full.local_addr()?;
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        filling.push(stream);
    }
    Ok((full, filling, address))
}

/// Puts a fiber into each kind of operation.
fn occupy(storm: &Rc<Storm>, random: &mut Random) -> io::Result<()> {
    let small = || FiberBuilder::new().stack_size_bytes(64 * 1024);
    let (client, served) = pair()?;
    let (echoing, other) = pair()?;
    let salt = random.next() as u8;
    let (shared, choices, stream) = (storm.clone(), random.fork(), client.clone());
    small().spawn(move || send(&shared, choices, &stream, salt, u64::MAX))?;
    if random.below(2) == 0 {
        let (shared, choices) = (storm.clone(), random.fork());
        small().spawn(move || receive(&shared, choices, &served, salt))?;
    }
    for operation in [Operation::Read, Operation::Chunk, Operation::Receive] {
        let (stream, storm) = (echoing.clone(), storm.clone());
        small().spawn(move || {
            // Keeps the peer, so that nobody closes it.
            let result = match operation {
                Operation::Read => stream.read(&mut [0; 8]).map(drop),
                Operation::Chunk => stream.chunk(&mut [0; 8]).map(drop),
                _ => stream.receive().map(drop),
            };
            storm.failed(operation, Limit::None, &result.unwrap_err());
        })?;
    }
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let (accepting, address): (Rc<Listener>, _) = (listener.clone(), listener.localname()?);
    let shared = storm.clone();
    small().spawn(move || {
        let error = accepting.accept_loop(drop).unwrap_err();
        shared.failed(Operation::AcceptLoop, Limit::None, &error);
    })?;
    let quiet = net::listen("127.0.0.1:0")?;
    let shared = storm.clone();
    small().spawn(move || {
        let error = quiet.accept().map(drop).unwrap_err();
        shared.failed(Operation::Accept, Limit::None, &error);
    })?;
    let (shared, mut choices) = (storm.clone(), random.fork());
    small().spawn(move || {
        while !shared.ending.get() {
            connect_and_read(&shared, &mut choices, address);
        }
    })?;
    let (shared, stream) = (storm.clone(), echoing.clone());
    small().spawn(move || {
        let error = stream.write(&vec![0; 1 << 20]).unwrap_err();
        shared.failed(Operation::LargeWrite, Limit::None, &error);
    })?;
    let shared = storm.clone();
    small().spawn(move || {
        let error = net::connect(shared.full).map(drop).unwrap_err();
        shared.failed(Operation::Connect, Limit::None, &error);
    })?;
    // The joiner comes first, so that it hears of the end before the one it waits for.
    let slept = Rc::new(Cell::new(None));
    let (shared, sleeper) = (storm.clone(), slept.clone());
    small().spawn(move || {
        let sleeper: fibers::JoinHandle<()> = sleeper.take().unwrap();
        match sleeper.join() {
            Err(JoinError::Interrupted(interrupt)) => {
                shared.interrupted(Operation::Join, Limit::None, interrupt);
            }
            other => panic!("a fiber that sleeps for ages has ended: {other:?}"),
        }
    })?;
    let shared = storm.clone();
    let sleeper = small().spawn(move || {
        if let Err(interrupt) = fibers::sleep(AGES) {
            shared.interrupted(Operation::Sleep, Limit::None, interrupt);
        }
    })?;
    slept.set(Some(sleeper));
    // Until the end: its peers wait for bytes that never come.
    small().spawn(move || {
        let _ = fibers::sleep(AGES);
        drop((other, listener));
    })?;
    Ok(())
}

#[test]
fn runtimes_end_in_the_middle_of_everything() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = seed();
    let (_full, _filling, address) = full_listener().unwrap();
    let at_first = descriptors();
    let storm = Storm::new(address);
    let runtimes = (target() / 200).max(1);
    for _ in 0..runtimes {
        storm.ending.set(false);
        let (shared, configuration) = (storm.clone(), configuration(&mut random));
        let mut choices = random.fork();
        let run = Runtime::new().configuration(configuration).run(move || {
            occupy(&shared, &mut choices).unwrap();
            // At least one: each fiber has started.
            for _ in 0..1 + choices.below(5) {
                fibers::yield_now().unwrap();
            }
            if choices.below(2) == 0 {
                fibers::sleep(choices.moment()).unwrap();
            }
            shared.ending.set(true);
        });
        run.unwrap();
        assert_eq!(descriptors(), at_first, "descriptors after a runtime, and before");
    }
    storm.print();
    let ended: usize = storm.hits.iter().map(|hits| hits[Means::End as usize].get()).sum();
    // All but the small write and what the two at the ends of a stream meet, whatever the timing.
    assert!(ended >= 9 * runtimes, "{ended} operations of {runtimes} runtimes");
}
