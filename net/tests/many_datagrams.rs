//! 100,000 datagrams of random sizes, from many peers, to an echo server and back: each answer comes to the
//! right peer with the right bytes, and none is missing that the kernel has not counted as dropped for want
//! of room in a socket's buffer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Channel, JoinHandle};
use ringspun_net::{self as net, DatagramSocket, is_closed};

const PEERS: usize = 100;
/// As many are sent with a few in flight at a time, which the buffers have room for; `RINGSPUN_DATAGRAMS` is for
/// machines on which these take minutes.
const DEFAULT_PACED: usize = 90_000;
/// Sent as fast as possible, more than the buffers hold.
const BLASTED: usize = 10_000;
const LONGEST_BYTES: usize = 65_507;
/// Datagrams in flight at a time while they are paced.
const IN_FLIGHT: usize = 4;
/// How long a paced peer waits for its answer before it continues: reached only after a drop.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the counts are looked at, 5 ms apart, before the test fails: a minute.
const LOOKS_MAX: u32 = 12_000;

/// A small generator of numbers (xorshift; Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// How many are sent with a few in flight, by all peers alike.
fn paced_datagrams() -> usize {
    let Ok(text) = std::env::var("RINGSPUN_DATAGRAMS") else { return DEFAULT_PACED };
    let number: usize =
        text.parse().unwrap_or_else(|_| panic!("RINGSPUN_DATAGRAMS={text}: expected a number"));
    number / PEERS * PEERS
}

/// Bytes that differ from place to place; each datagram is a stretch of them.
fn pattern() -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..4 * LONGEST_BYTES).map(|_| random.below(256) as u8).collect()
}

struct Peer {
    number: usize,
    socket: DatagramSocket,
    /// Sent and not answered, by length: where in the pattern each starts.
    unanswered: RefCell<HashMap<usize, Vec<usize>>>,
    answers: Cell<usize>,
    /// Told of each answer.
    answered: Channel<()>,
}

impl Peer {
    /// Each peer has stretches of its own: where a long one starts says whose it is.
    fn send(&self, random: &mut Random, pattern: &[u8]) -> io::Result<()> {
        let length = random.below(LONGEST_BYTES + 1);
        let start = random.below(2 * LONGEST_BYTES / PEERS) * PEERS + self.number;
        self.unanswered.borrow_mut().entry(length).or_default().push(start);
        self.socket.write(&pattern[start..start + length]).map(drop)
    }

    /// Receives answers until the socket is closed.
    fn receive(&self, pattern: &[u8]) -> io::Result<()> {
        loop {
            let (bytes, _) = match self.socket.receive() {
                Ok(received) => received,
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut unanswered = self.unanswered.borrow_mut();
            let starts = unanswered.get_mut(&bytes.len()).into_iter().flatten().enumerate();
            let found = starts.map(|(index, start)| (index, *start));
            let index =
                found.into_iter().find(|(_, start)| pattern[*start..start + bytes.len()] == bytes[..]);
            let Some((index, _)) = index else {
                panic!("peer {} got {} bytes that it did not send, or got twice", self.number, bytes.len());
            };
            unanswered.get_mut(&bytes.len()).unwrap().swap_remove(index);
            drop(unanswered);
            self.answers.set(self.answers.get() + 1);
            let _ = self.answered.give(());
        }
    }
}

/// What the kernel has dropped for want of room, by the inode of the socket (`/proc/net/udp`).
fn drops_by_inode() -> HashMap<u64, usize> {
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[9].parse().unwrap(), words.last().unwrap().parse().unwrap())
    };
    table.lines().skip(1).map(row).collect()
}

fn inode(socket: &DatagramSocket) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
}

/// What the server has done.
#[derive(Default)]
struct Served {
    received: Cell<usize>,
    answered: Cell<usize>,
}

/// Echoes every datagram until the socket is closed.
fn echo(server: &DatagramSocket, served: &Served) -> io::Result<()> {
    loop {
        let (bytes, source) = match server.receive() {
            Ok(received) => received,
            Err(error) if is_closed(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        served.received.set(served.received.get() + 1);
        server.send_to(&source, &bytes)?;
        served.answered.set(served.answered.get() + 1);
    }
}

fn connect_peers(server: &DatagramSocket) -> io::Result<Vec<Rc<Peer>>> {
    let peer = |number| {
        let socket = net::connect_datagram(server.localname()?)?;
        let (unanswered, answers, answered) = (RefCell::default(), Cell::new(0), Channel::unbounded());
        Ok(Rc::new(Peer { number, socket, unanswered, answers, answered }))
    };
    (0..PEERS).map(peer).collect()
}

type Running = Vec<JoinHandle<io::Result<()>>>;

/// Starts a fiber for each of the peers.
fn for_each_peer(
    peers: &[Rc<Peer>],
    body: impl Fn(&Peer) -> io::Result<()> + Clone + 'static,
) -> io::Result<Running> {
    let spawn = |peer: &Rc<Peer>| {
        let (peer, body) = (peer.clone(), body.clone());
        fibers::spawn(move || body(&peer))
    };
    peers.iter().map(spawn).collect()
}

fn join(fibers: Running) -> io::Result<()> {
    fibers.into_iter().try_for_each(|fiber| fiber.join().unwrap())
}

/// Waits until all that was sent has arrived or is counted as dropped, in both directions; returns how many were
/// dropped on their way and how many answers were.
fn wait_for_all(
    sent: usize,
    server: &DatagramSocket,
    served: &Served,
    peers: &[Rc<Peer>],
) -> io::Result<(usize, usize)> {
    let mut looks = 0;
    loop {
        let drops = drops_by_inode();
        // The kernel leaves out rows where other sockets are closed while it is read.
        let of = |socket: &DatagramSocket| drops.get(&inode(socket)).copied();
        let there = of(server);
        let back: Option<usize> = peers.iter().map(|peer| of(&peer.socket)).sum();
        let answers: usize = peers.iter().map(|peer| peer.answers.get()).sum();
        let (received, answered) = (served.received.get(), served.answered.get());
        if let (Some(there), Some(back)) = (there, back)
            && (received + there, answers + back, received) == (sent, answered, answered)
        {
            return Ok((there, back));
        }
        looks += 1;
        assert!(
            looks < LOOKS_MAX,
            "sent {sent}, received {received} and dropped {there:?}; answered {answered}, received {answers} and \
             dropped {back:?}",
        );
        fibers::sleep(Duration::from_millis(5))?;
    }
}

#[test]
fn each_answer_comes_to_the_right_peer_and_losses_are_the_kernels() {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: the count of dropped datagrams is Linux's");
        return;
    }
    fibers::run(|| -> io::Result<()> {
        let paced_datagrams = paced_datagrams();
        let pattern = Rc::new(pattern());
        let server = Rc::new(net::listen_datagram("127.0.0.1:0")?);
        let served = Rc::new(Served::default());
        let echo = {
            let (server, served) = (server.clone(), served.clone());
            fibers::spawn(move || echo(&server, &served))?
        };
        let peers = connect_peers(&server)?;
        let bytes = pattern.clone();
        let receiving = for_each_peer(&peers, move |peer| peer.receive(&bytes))?;

        // Each permit is a datagram in flight.
        let (permits, bytes) = (Channel::bounded(IN_FLIGHT), pattern.clone());
        join(for_each_peer(&peers, move |peer| {
            let mut random = Random(peer.number as u64 + 1);
            for _ in 0..paced_datagrams / PEERS {
                permits.give(()).unwrap();
                peer.send(&mut random, &bytes)?;
                let _ = fibers::with_deadline(PATIENCE, || peer.answered.take());
                permits.take().unwrap();
            }
            Ok(())
        })?)?;
        let lost_while_paced = paced_datagrams - peers.iter().map(|peer| peer.answers.get()).sum::<usize>();
        join(for_each_peer(&peers, move |peer| {
            let mut random = Random(peer.number as u64 + 1000);
            (0..BLASTED / PEERS).try_for_each(|_| peer.send(&mut random, &pattern))
        })?)?;

        let sent = paced_datagrams + BLASTED;
        let (dropped_there, dropped_back) = wait_for_all(sent, &server, &served, &peers)?;
        println!(
            "{sent} datagrams: {dropped_there} dropped by the kernel on their way, {dropped_back} of \
             {} answers on theirs ({lost_while_paced} while paced)",
            served.answered.get()
        );
        server.close();
        echo.join().unwrap()?;
        peers.iter().for_each(|peer| peer.socket.close());
        join(receiving)
    })
    .unwrap()
    .unwrap();
}
