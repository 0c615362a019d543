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

use ringspun_fibers::{self as fibers, Channel};
use ringspun_net::{self as net, DatagramSocket, is_closed};

const PEERS: usize = 100;
/// As many are sent with a few in flight at a time, which the buffers have room for; `RINGSPUN_DATAGRAMS` is for
/// machines on which these take minutes.
const DEFAULT_PACED: usize = 90_000;
/// Sent as fast as it goes, which is more than the buffers take.
const BLASTED: usize = 10_000;
const LONGEST_BYTES: usize = 65_507;
/// Datagrams in flight at a time while they are paced.
const IN_FLIGHT: usize = 4;
/// How long a paced peer waits for its answer before it goes on: only a drop comes to it.
const PATIENCE: Duration = Duration::from_millis(500);

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
        let (received, answered) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_usize)));
        let echo = {
            let (server, received, answered) = (server.clone(), received.clone(), answered.clone());
            fibers::spawn(move || -> io::Result<()> {
                loop {
                    let (bytes, source) = match server.receive() {
                        Ok(received) => received,
                        Err(error) if is_closed(&error) => return Ok(()),
                        Err(error) => return Err(error),
                    };
                    received.set(received.get() + 1);
                    server.send_to(&source, &bytes)?;
                    answered.set(answered.get() + 1);
                }
            })?
        };
        let peers: Vec<Rc<Peer>> = (0..PEERS)
            .map(|number| {
                let socket = net::connect_datagram(server.localname()?)?;
                let peer = Peer {
                    number,
                    socket,
                    unanswered: RefCell::default(),
                    answers: Cell::new(0),
                    answered: Channel::unbounded(),
                };
                Ok(Rc::new(peer))
            })
            .collect::<io::Result<_>>()?;
        let receiving: Vec<_> = peers
            .iter()
            .map(|peer| {
                let (peer, pattern) = (peer.clone(), pattern.clone());
                fibers::spawn(move || peer.receive(&pattern))
            })
            .collect::<io::Result<_>>()?;

        // Whoever holds one of these has a datagram in flight.
        let permits = Channel::bounded(IN_FLIGHT);
        let paced: Vec<_> = peers
            .iter()
            .map(|peer| {
                let (peer, pattern, permits) = (peer.clone(), pattern.clone(), permits.clone());
                fibers::spawn(move || -> io::Result<()> {
                    let mut random = Random(peer.number as u64 + 1);
                    for _ in 0..paced_datagrams / PEERS {
                        permits.give(()).unwrap();
                        peer.send(&mut random, &pattern)?;
                        let _ = fibers::with_deadline(PATIENCE, || peer.answered.take());
                        permits.take().unwrap();
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        for fiber in paced {
            fiber.join().unwrap()?;
        }
        let lost_while_paced = paced_datagrams - peers.iter().map(|peer| peer.answers.get()).sum::<usize>();
        let blasting: Vec<_> = peers
            .iter()
            .map(|peer| {
                let (peer, pattern) = (peer.clone(), pattern.clone());
                fibers::spawn(move || -> io::Result<()> {
                    let mut random = Random(peer.number as u64 + 1000);
                    for _ in 0..BLASTED / PEERS {
                        peer.send(&mut random, &pattern)?;
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        for fiber in blasting {
            fiber.join().unwrap()?;
        }

        // All that was sent has arrived or is counted as dropped, in both directions.
        let sent = paced_datagrams + BLASTED;
        let mut looks = 0;
        let (dropped_there, dropped_back) = loop {
            let drops = drops_by_inode();
            let there = drops[&inode(&server)];
            let back: usize = peers.iter().map(|peer| drops[&inode(&peer.socket)]).sum();
            let answers: usize = peers.iter().map(|peer| peer.answers.get()).sum();
            if received.get() + there == sent && answers + back == answered.get() && received == answered {
                break (there, back);
            }
            looks += 1;
            assert!(
                looks < 2000,
                "sent {sent}, received {} and dropped {there}; answered {}, received {answers} and \
                 dropped {back}",
                received.get(),
                answered.get(),
            );
            fibers::sleep(Duration::from_millis(5))?;
        };
        println!(
            "{sent} datagrams: {dropped_there} dropped by the kernel on their way, {dropped_back} of \
             {} answers on theirs ({lost_while_paced} while paced)",
            answered.get()
        );
        server.close();
        echo.join().unwrap()?;
        for (peer, fiber) in peers.iter().zip(receiving) {
            peer.socket.close();
            fiber.join().unwrap()?;
        }
        Ok(())
    })
    .unwrap()
    .unwrap();
}
