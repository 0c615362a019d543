//! The scenes of the storm: fibers that work on sockets, and others that interrupt them.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ringspun_fibers::{self as fibers, JoinError};
use ringspun_net::{self as net, Address, OperationError, Stream, WriteInterrupted};

use crate::count::{Failure, Limit, Means, Operation, Random, Storm};
use crate::datagrams::{datagrams, lookups, unix_name};
use crate::local;

/// How many are played at a time.
pub const SCENES_AT_ONCE: usize = 80;
/// A port of this machine that the kernel chooses.
pub const TCP: &str = "127.0.0.1:0";

/// The byte at each position of a stream.
pub fn byte_at(salt: u8, position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8 ^ salt
}

pub fn pattern(salt: u8, start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|position| byte_at(salt, position)).collect()
}

/// Both ends of a connection over TCP, or a Unix socket, whose kernel buffers are so small that a large write has to
/// wait.
pub fn pair(place: &str) -> io::Result<(Rc<Stream>, Rc<Stream>)> {
    let listener = net::listen(place)?;
    let address = listener.localname()?;
    let connecting = fibers::spawn(move || net::connect(address))?;
    let first = listener.accept()?;
    let client = connecting.join()??;
    let mut served = first;
    // Ports are reused: a client of an earlier listener may have found this one.
    while served.peername().ok() != client.localname().ok() {
        served = listener.accept()?;
    }
    for stream in [&client, &served] {
        let descriptor = borrowed(stream);
        setsockopt(&descriptor, sockopt::SndBuf, &8192)?;
        setsockopt(&descriptor, sockopt::RcvBuf, &8192)?;
        notice_a_lost_reset(&descriptor);
    }
    Ok((Rc::new(client), Rc::new(served)))
}

/// A storm overflows the queue of the loopback device (`net.core.netdev_max_backlog`), and a reset that is lost
/// is not sent again: probes find out that the peer is gone. Unix sockets lose none, and refuse.
fn notice_a_lost_reset(descriptor: &BorrowedFd<'_>) {
    let _ = setsockopt(descriptor, sockopt::KeepAlive, &true);
    let _ = setsockopt(descriptor, sockopt::TcpKeepIdle, &1);
    let _ = setsockopt(descriptor, sockopt::TcpKeepInterval, &1);
}

pub fn borrowed(stream: &Stream) -> BorrowedFd<'_> {
    // SAFETY: the stream is open, and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// What a sender knows of its bytes.
#[derive(Default)]
pub struct Sent {
    /// Bytes that the kernel took.
    pub written: usize,
    /// Bytes of a write that failed, of which the kernel may have taken some.
    pub uncertain: usize,
}

/// Writes a number of pieces, whatever interrupts it, and returns its progress.
pub fn send(storm: &Storm, mut random: Random, stream: &Stream, salt: u8, pieces: u64) -> Sent {
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

pub fn written_bytes(error: &io::Error) -> usize {
    use std::error::Error as _;
    let operation = error.get_ref().and_then(|inner| inner.downcast_ref::<OperationError>());
    let source = operation.and_then(|error| error.source()?.downcast_ref::<io::Error>());
    let interrupted = source.and_then(|source| source.get_ref()?.downcast_ref::<WriteInterrupted>());
    interrupted.unwrap_or_else(|| panic!("no count in: {error}")).written_bytes
}

/// Reads to the end in various ways, whatever interrupts it, and returns the number of bytes. Each must be the next of
/// the pattern: bytes of an interrupted read are kept for the next one.
pub fn receive(storm: &Storm, mut random: Random, stream: &Stream, salt: u8) -> usize {
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
            1 => (Operation::Chunk, limit.hold(|| stream.chunk(buffer))),
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

/// One stream, a sender and a receiver, both cancelled at random; ended properly, or by another fiber.
pub fn transfer(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let place = if random.below(4) == 0 { unix_name() } else { TCP.to_string() };
    let (client, served) = pair(&place)?;
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

/// A sender whose data the kernel may use until the write returns, and that reuses it then. The receiver knows every
/// byte. An interrupt resets the connection.
pub fn without_copies(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let place = if random.below(4) == 0 { unix_name() } else { TCP.to_string() };
    let (client, served) = pair(&place)?;
    let salt = random.next() as u8;
    let (choices, shared) = (random.fork(), storm.clone());
    let receiver = fibers::spawn(move || receive(&shared, choices, &served, salt))?;
    let (mut choices, shared) = (random.fork(), storm.clone());
    let sender = fibers::spawn(move || {
        let (mut data, mut written) = (Vec::new(), 0);
        for _ in 0..1 + choices.below(10) {
            let length = 1 + choices.below(96 * 1024) as usize;
            data.clear();
            data.extend_from_slice(&pattern(salt, written, length));
            let limit = Limit::random(&mut choices);
            client.set_write_timeout(limit.timeout());
            let result = limit.hold(|| client.write_zero_copy(&data));
            data.fill(0x99);
            match result {
                Ok(count) => written += count,
                Err(error) => {
                    shared.failed(Operation::ZeroCopyWrite, limit, &error);
                    return (written, length);
                }
            }
        }
        // A cancel that came with the last write has reset the connection.
        let is_open = client.shutdown(Shutdown::Write).is_ok();
        (written, if is_open { 0 } else { written })
    })?;
    // Waits for the receiver, or ends before it.
    let cuts = random.below(2) == 0;
    for _ in 0..random.below(20) {
        match random.below(3) {
            0 if cuts => sender.cancel(),
            1 => receiver.cancel(),
            _ => fibers::sleep(random.moment())?,
        }
    }
    let ((written, uncertain), received) = (sender.join()?, receiver.join()?);
    assert!(received <= written + uncertain, "{received} received, {written} written");
    assert!(uncertain > 0 || received == written, "{received} received, {written} written");
    Ok(())
}

/// A fiber whose data the kernel uses until the peer reads, which it never does.
pub fn occupy_without_copies(storm: &Rc<Storm>) -> io::Result<()> {
    let (full, unread) = pair(TCP)?;
    let storm = storm.clone();
    fibers::spawn(move || {
        let error = full.write_zero_copy(&vec![0; 1 << 20]).unwrap_err();
        drop(unread);
        storm.failed(Operation::ZeroCopyWrite, Limit::None, &error);
    })?;
    Ok(())
}

/// Connects and reads the end; every wait is limited, because the listener may not be there any more.
pub fn connect_and_read(storm: &Storm, random: &mut Random, address: Address) -> Failure {
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
pub fn accepting(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
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
pub fn serving(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
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

/// Connects to a listener that accepts no more connections.
pub fn connecting(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
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
pub fn joining(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
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

/// Several scenes at once, each with choices of its own.
pub fn rage(storm: &Rc<Storm>, random: &mut Random) -> io::Result<()> {
    type Scene = fn(&Rc<Storm>, Random) -> io::Result<()>;
    const SCENES: [Scene; 16] = [
        transfer,
        transfer,
        transfer,
        transfer,
        without_copies,
        accepting,
        serving,
        connecting,
        joining,
        datagrams,
        datagrams,
        lookups,
        local::files,
        local::pipes,
        local::children,
        local::signals,
    ];
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
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
