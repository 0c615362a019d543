//! The scenes with datagrams and with names that are looked up.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, DatagramSocket};

use crate::count::{Failure, Limit, Operation, Random, Storm};
use crate::scenes::pattern;

const SENDERS: usize = 4;
/// A sender's number and the datagram's, in front of its bytes.
const HEAD_BYTES: usize = 3;

/// A unique name in the abstract namespace, which leaves no file.
pub fn unix_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("unix:@ringspun-storm-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What has been received, by sender: the number of the next datagram that may come.
struct Received {
    next: RefCell<[u16; SENDERS]>,
    count: Cell<usize>,
    lossless: bool,
}

impl Received {
    /// Datagrams of one sender come in order, each once, with the bytes that were sent.
    fn take(&self, datagram: &[u8]) {
        let (head, bytes) = datagram.split_at(HEAD_BYTES);
        let (sender, number) = (head[0] as usize, u16::from_le_bytes([head[1], head[2]]));
        let next = &mut self.next.borrow_mut()[sender];
        if self.lossless {
            assert_eq!(number, *next, "the next datagram of sender {sender}");
        }
        assert!(number >= *next, "sender {sender}: datagram {number} came where {next} was the next");
        assert!(bytes == pattern(head[0], number as usize, bytes.len()), "bytes of datagram {number}");
        *next = number + 1;
        self.count.set(self.count.get() + 1);
    }
}

/// Sends a number of datagrams, whatever interrupts it, and returns how many were sent: an interrupted send has sent
/// nothing.
fn send(
    storm: &Storm,
    random: &mut Random,
    socket: &DatagramSocket,
    to: Option<Address>,
    number: u8,
) -> usize {
    let count = 10 + random.below(40) as u16;
    let mut sent = 0;
    while sent < count && !storm.ending.get() {
        let large = random.below(16) == 0;
        let length = random.below(if large { 60_000 } else { 2000 }) as usize;
        let mut datagram = vec![number];
        datagram.extend(sent.to_le_bytes());
        datagram.extend(pattern(number, sent as usize, length));
        let limit = Limit::random(random);
        socket.set_write_timeout(limit.timeout());
        let result = limit.hold(|| match &to {
            Some(address) => socket.send_to(address, &datagram),
            None => socket.write(&datagram).map(drop),
        });
        match result {
            Ok(()) => sent += 1,
            Err(error) => {
                if matches!(storm.failed(Operation::SendTo, limit, &error), Failure::Over) {
                    break;
                }
            }
        }
        if random.below(8) == 0 {
            storm.sleep(random);
        }
    }
    sent as usize
}

/// Receives until the socket is closed, whatever interrupts it.
fn receive(storm: &Storm, random: &mut Random, socket: &DatagramSocket, received: &Received) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let limit = Limit::random(random);
        socket.set_read_timeout(limit.timeout());
        let result = limit.hold(|| {
            if random.below(2) == 0 {
                let (count, _) = socket.recv_from(&mut buffer)?;
                received.take(&buffer[..count]);
                return Ok(());
            }
            let (datagram, _) = socket.receive()?;
            received.take(&datagram);
            if random.below(8) == 0 {
                // Keeps the loop's buffer.
                storm.sleep(random);
            }
            io::Result::Ok(())
        });
        if let Err(error) = result {
            let failure = storm.failed(Operation::ReceiveFrom, limit, &error);
            if storm.ending.get() || matches!(failure, Failure::Over) {
                return;
            }
        }
        // Longer than it takes to fill the queue, which has room for few.
        for _ in 0..random.below(4) * random.below(4) {
            storm.sleep(random);
        }
    }
}

/// Several senders, some of them on a socket that they share, and several receivers on another, all cancelled
/// at random. Ended properly, or in the middle.
pub fn datagrams(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    // Unix sockets lose nothing.
    let lossless = random.below(3) > 0;
    let place = || if lossless { unix_name() } else { "127.0.0.1:0".to_string() };
    let server = Rc::new(net::listen_datagram(place())?);
    let address = server.localname()?;
    let received = Rc::new(Received { next: RefCell::default(), count: Cell::new(0), lossless });
    let shared = Rc::new(net::listen_datagram(place())?);
    let mut senders = Vec::new();
    for number in 0..SENDERS as u8 {
        let (socket, to) = if number % 2 == 0 {
            (shared.clone(), Some(address))
        } else {
            (Rc::new(net::connect_datagram(address)?), None)
        };
        let (storm, mut random) = (storm.clone(), random.fork());
        senders.push(fibers::spawn(move || send(&storm, &mut random, &socket, to, number))?);
    }
    let mut receivers = Vec::new();
    for _ in 0..2 {
        let (storm, mut random) = (storm.clone(), random.fork());
        let (server, received) = (server.clone(), received.clone());
        receivers.push(fibers::spawn(move || receive(&storm, &mut random, &server, &received))?);
    }
    let cut_short = random.below(3) == 0;
    let mut rounds = random.below(60);
    while if cut_short { rounds > 0 } else { !senders.iter().all(fibers::JoinHandle::is_finished) } {
        rounds = rounds.saturating_sub(1);
        match random.below(4) {
            0 => senders[random.below(SENDERS as u64) as usize].cancel(),
            1 => receivers[random.below(2) as usize].cancel(),
            2 => fibers::yield_now()?,
            _ => fibers::sleep(random.moment())?,
        }
    }
    if cut_short {
        if random.below(2) == 0 { shared.close() } else { server.close() }
    }
    let mut sent = 0;
    for sender in senders {
        sent += sender.join()?;
        if cut_short {
            // Those that still wait for room get none.
            server.close();
        }
    }
    for _ in 0..if lossless && !cut_short { 60_000 } else { 0 } {
        if received.count.get() == sent {
            break;
        }
        fibers::sleep(Duration::from_millis(1))?;
    }
    server.close();
    for receiver in receivers {
        receiver.join()?;
    }
    let count = received.count.get();
    assert!(count == sent || count < sent && (cut_short || !lossless), "{count} received, {sent} sent");
    Ok(())
}

/// Fibers that wait for names, and that connect by them.
pub fn lookups(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let listener = Rc::new(net::listen("localhost:0")?);
    let port = listener.localname()?.port().unwrap_or(0);
    let accepting = listener.clone();
    let server = fibers::spawn(move || accepting.accept_loop(drop))?;
    let mut handles = Vec::new();
    for _ in 0..6 {
        let (mut random, storm) = (random.fork(), storm.clone());
        handles.push(fibers::spawn(move || {
            for _ in 0..8 {
                let limit = Limit::deadline(&mut random);
                let result = match random.below(3) {
                    0 => limit.hold(|| net::connect(("localhost", port))).map(drop),
                    1 => limit.hold(|| net::connect_datagram(("localhost", port))).map(drop),
                    _ => limit.hold(|| net::address(("localhost", port))).map(drop),
                };
                if let Err(error) = result {
                    storm.failed(Operation::LookUp, limit, &error);
                }
            }
        })?);
    }
    while !handles.iter().all(fibers::JoinHandle::is_finished) {
        handles[random.below(6) as usize].cancel();
        fibers::sleep(random.moment())?;
    }
    listener.close();
    let _ = server.join()?;
    Ok(())
}

/// Puts a fiber into each kind of operation on datagrams, for the end of its runtime.
pub fn occupy(storm: &Rc<Storm>) -> io::Result<()> {
    let spawn = |operation: Operation, body: Box<dyn FnOnce() -> io::Result<()>>| {
        let storm = storm.clone();
        fibers::FiberBuilder::new().stack_size_bytes(64 * 1024).spawn(move || {
            storm.failed(operation, Limit::None, &body().unwrap_err());
        })
    };
    for place in [unix_name(), "127.0.0.1:0".to_string()] {
        let quiet = net::listen_datagram(place)?;
        spawn(Operation::ReceiveFrom, Box::new(move || quiet.recv_from(&mut [0; 8]).map(drop)))?;
    }
    let full = net::listen_datagram(unix_name())?;
    let address = full.localname()?;
    let (connected, other) = (net::connect_datagram(address)?, net::listen_datagram(unix_name())?);
    connected.set_write_timeout(Some(Duration::from_millis(1)));
    while connected.write(b"filling").is_ok() {}
    connected.set_write_timeout(None);
    spawn(Operation::SendTo, Box::new(move || connected.write(b"waits for room").map(drop)))?;
    spawn(
        Operation::SendTo,
        Box::new(move || {
            // Keeps the receiver open.
            let _full = full;
            other.send_to(&address, b"tries again")
        }),
    )?;
    let shared = storm.clone();
    fibers::spawn(move || {
        while !shared.ending.get() {
            if let Err(error) = net::address("localhost:1") {
                shared.failed(Operation::LookUp, Limit::None, &error);
            }
        }
    })?;
    Ok(())
}
