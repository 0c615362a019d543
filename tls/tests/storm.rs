//! A storm of cancellations over TLS: handshakes, reads and writes, ended by cancels, deadlines and timeouts at random
//! moments. Every byte that was reported as written arrives, in order, and nothing is left.
//!
//! `RINGSPUN_SEED` repeats a storm's choices, though not its timing. `RINGSPUN_STORM` is how many interrupts are to hit
//! in all storms of the project: 100,000 by default, of which this one takes a hundredth.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, JoinHandle};
use ringspun_net as net;
use ringspun_tls::{self as tls, TlsStream};

mod common;

use common::{Authority, pair, plain_pair, run};

const PAIRS: usize = 12;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// Random numbers, the same for a seed.
struct Random(Cell<u64>);

impl Random {
    fn new() -> Rc<Self> {
        let seed = from_environment("RINGSPUN_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64)
        });
        println!("RINGSPUN_SEED={seed}");
        Rc::new(Self(Cell::new(seed.max(1))))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 11) % limit
    }
}

/// What the fibers of a storm share.
struct Storm {
    random: Rc<Random>,
    hits: Cell<u64>,
    target: u64,
}

impl Storm {
    fn is_over(&self) -> bool {
        self.hits.get() >= self.target
    }

    /// Counts an interrupt, and returns how many bytes a write had sent before it; panics for any other error.
    fn hit(&self, error: &io::Error) -> usize {
        assert!(net::interrupt_of(error).is_some(), "{error}");
        self.hits.set(self.hits.get() + 1);
        let mut cause: Option<&(dyn std::error::Error + 'static)> =
            error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
        while let Some(inner) = cause {
            if let Some(write) = inner.downcast_ref::<net::WriteInterrupted>() {
                return write.written_bytes;
            }
            cause = match inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inside) => Some(inside),
                None => inner.source(),
            };
        }
        0
    }

    /// Calls `act`, often with a deadline that may come at any moment.
    fn perhaps_with_deadline<T>(&self, act: impl FnOnce() -> T) -> T {
        match self.random.below(3) {
            0 => act(),
            _ => fibers::with_deadline(Duration::from_micros(self.random.below(400)), act),
        }
    }
}

/// The byte at a place of a stream.
fn byte_at(place: usize) -> u8 {
    (place * 31 % 251) as u8
}

/// Writes until the storm is over; returns how much.
fn write_on(storm: &Storm, stream: &TlsStream) -> usize {
    let mut sent = 0;
    let mut data = Vec::new();
    while !storm.is_over() {
        let length = [1, 50, 4_096, 20_000, 300_000][storm.random.below(5) as usize];
        data.clear();
        data.extend((sent..sent + length).map(byte_at));
        stream.set_write_behind(storm.random.below(2) == 0);
        stream.set_write_timeout((storm.random.below(4) == 0).then_some(Duration::from_micros(150)));
        sent += match storm.perhaps_with_deadline(|| stream.write(&data)) {
            Ok(count) => count,
            Err(error) => storm.hit(&error),
        };
    }
    stream.set_write_timeout(None);
    // A cancel may still come.
    while let Err(error) = stream.shutdown(Shutdown::Write) {
        storm.hit(&error);
    }
    sent
}

/// Reads to the end, and checks each byte; returns how many there were.
fn read_on(storm: &Storm, stream: &TlsStream) -> usize {
    let mut received = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        let part = &mut buffer[..1 + storm.random.below(99_999) as usize];
        stream.set_read_timeout((storm.random.below(4) == 0).then_some(Duration::from_micros(150)));
        let is_chunk = storm.random.below(3) == 0;
        let read =
            storm.perhaps_with_deadline(|| if is_chunk { stream.chunk(part) } else { stream.read(part) });
        match read {
            Ok(0) => return received,
            Ok(count) => {
                let is_right =
                    part[..count].iter().enumerate().all(|(at, byte)| *byte == byte_at(received + at));
                assert!(is_right, "bytes from {received} on are lost, doubled or out of order");
                received += count;
            }
            Err(error) => {
                storm.hit(&error);
            }
        }
    }
}

#[test]
fn interrupts_at_any_moment_lose_no_byte() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let target = from_environment("RINGSPUN_STORM").unwrap_or(100_000) / 100;
        let storm = Rc::new(Storm { random: Random::new(), hits: Cell::new(0), target });
        let handles: Rc<RefCell<Vec<Rc<JoinHandle<usize>>>>> = Rc::default();
        let mut expected = Vec::new();
        for _ in 0..PAIRS {
            let (left, right) = pair(&client, &server)?;
            let (left, right) = (Rc::new(left), Rc::new(right));
            // Both directions of each.
            for (from, to) in [(left.clone(), right.clone()), (right, left)] {
                let (writing, reading) = (storm.clone(), storm.clone());
                let writer = Rc::new(fibers::spawn(move || write_on(&writing, &from))?);
                let reader = Rc::new(fibers::spawn(move || read_on(&reading, &to))?);
                handles.borrow_mut().extend([writer.clone(), reader.clone()]);
                expected.push((writer, reader));
            }
        }
        let (cancelling, targets) = (storm.clone(), handles.clone());
        let canceller = fibers::spawn(move || {
            while !cancelling.is_over() {
                let targets = targets.borrow();
                targets[cancelling.random.below(targets.len() as u64) as usize].cancel();
                let pause = Duration::from_micros(cancelling.random.below(300));
                drop(targets);
                fibers::sleep(pause).unwrap();
            }
        })?;
        canceller.join().unwrap();
        for (writer, reader) in expected {
            while !writer.is_finished() || !reader.is_finished() {
                fibers::sleep(Duration::from_millis(1))?;
            }
            drop(handles.take());
            let result = |handle: Rc<JoinHandle<usize>>| match Rc::try_unwrap(handle) {
                Ok(handle) => handle.join().unwrap(),
                Err(_) => panic!("a handle is held by nobody else"),
            };
            assert_eq!(result(writer), result(reader), "what was reported as written arrives");
        }
        assert!(storm.is_over());
        println!("{} interrupts hit", storm.hits.get());
        Ok(())
    });
}

/// A handshake that is ended at any moment leaves nothing, and whoever is left over is told.
#[test]
fn handshakes_are_ended_at_any_moment() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let random = Random::new();
        let mut completed = 0;
        for round in 0..400 {
            let (left, right) = plain_pair()?;
            let (server, patience) = (server.clone(), Duration::from_micros(random.below(8_000)));
            let ends_server = random.below(2) == 0;
            let accepting = fibers::spawn(move || match ends_server {
                true => fibers::with_deadline(patience, || tls::accept(right, &server)),
                false => tls::accept(right, &server),
            })?;
            let connected = match ends_server {
                true => tls::wrap(left, "localhost", &client),
                false => fibers::with_deadline(patience, || tls::wrap(left, "localhost", &client)),
            };
            let accepted = accepting.join().unwrap();
            // In TLS 1.3, a client is through before its server.
            if let Ok(stream) = accepted {
                stream.write(b"through")?;
                completed += 1;
                if let Ok(client) = connected {
                    let mut through = [0; 7];
                    assert_eq!(client.chunk(&mut through)?, 7, "round {round}");
                }
            } else if let Ok(client) = connected {
                assert!(client.read(&mut [0]).is_err(), "round {round}: a server that has given up");
            }
        }
        println!("{completed} of 400 handshakes were completed");
        Ok(())
    });
}
