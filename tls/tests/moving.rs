//! TLS streams that move between workers, with all that they have received, and servers on several workers.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringspun_fibers::{self as fibers, SharedChannel, Workers, WorkersBuilder};
use ringspun_net::{self as net, ServerBuilder, Stream};
use ringspun_tls::rustls::Connection;
use ringspun_tls::{self as tls, ClientConfig, Movable, ServerConfig, TlsStream};

mod common;

use common::{Authority, pair, run};

fn workers(count: usize) -> Workers {
    WorkersBuilder::new().count(count).start().unwrap()
}

/// One end of a socket pair as a stream of this thread's runtime.
fn adopt(socket: UnixStream) -> io::Result<Stream> {
    socket.set_nonblocking(true)?;
    let event_loop = fibers::event_loop().ok_or(io::ErrorKind::Unsupported)?;
    Ok(Stream::from_descriptor(event_loop, socket.into()))
}

/// A client on a thread of its own, that decides which bytes of its records are sent.
struct RawClient {
    socket: UnixStream,
    session: Connection,
}

impl RawClient {
    fn shake(config: ClientConfig, socket: UnixStream) -> JoinHandle<Self> {
        thread::spawn(move || {
            let mut client = Self { socket, session: config.connection("localhost").unwrap() };
            while client.session.is_handshaking() {
                client.session.complete_io(&mut client.socket).unwrap();
            }
            client.session.complete_io(&mut client.socket).unwrap();
            client
        })
    }

    /// The records of some data, encrypted.
    fn records(&mut self, data: &[u8]) -> Vec<u8> {
        self.session.writer().write_all(data).unwrap();
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).unwrap();
        }
        records
    }

    fn send(&mut self, data: &[u8]) {
        let records = self.records(data);
        self.socket.write_all(&records).unwrap();
    }

    fn expect(&mut self, expected: &[u8]) {
        let mut received = vec![0; expected.len()];
        let mut filled = 0;
        while filled < received.len() {
            match self.session.reader().read(&mut received[filled..]) {
                Ok(0) => panic!("the session has ended"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(self.session.read_tls(&mut self.socket).unwrap() > 0, "the stream has ended");
                    self.session.process_new_packets().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(received, expected);
    }
}

/// The server's end of a session, on the running worker, and a client that acts as it is told.
fn served(authority: &Authority) -> impl FnOnce() -> io::Result<(TlsStream, RawClient)> + Send + use<> {
    let (client, server) = authority.configs();
    move || {
        let (ours, theirs) = UnixStream::pair()?;
        let client = RawClient::shake(client, theirs);
        let stream = tls::accept(adopt(ours)?, &server)?;
        // Its last word has been sent by then.
        Ok((stream, client.join().unwrap()))
    }
}

/// Bytes that are decrypted and unread, records that are not decrypted, and the beginning of one.
#[test]
fn unread_bytes_and_settings_move_along() {
    let (workers, served) = (workers(2), served(&Authority::new("authority")));
    let moved = workers.get(0).unwrap().spawn(move || -> io::Result<_> {
        let (stream, mut client) = served()?;
        // Busy, so that it is received ahead on io_uring.
        for _ in 0..10 {
            client.send(b"ab");
            stream.chunk(&mut [0; 2])?;
        }
        client.send(b"open");
        stream.chunk(&mut [0])?;
        client.send(b" sealed");
        let torn = client.records(b" torn");
        let (begin, end) = torn.split_at(9);
        client.socket.write_all(begin)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)));
        stream.set_write_behind(true);
        // Its send is in flight.
        stream.write(b"written")?;
        // Had each of them received, where that is done ahead.
        fibers::sleep(Duration::from_millis(5))?;
        Ok((stream.into_movable()?, client, end.to_vec()))
    });
    let (movable, mut client, end) = moved.unwrap().join().unwrap().unwrap();
    client.expect(b"written");
    client.socket.write_all(&end).unwrap();
    let read = workers.get(1).unwrap().spawn(move || -> io::Result<_> {
        let stream = movable.into_stream()?;
        let mut bytes = [0; 15];
        stream.chunk(&mut bytes)?;
        assert_eq!(&bytes, b"pen sealed torn");
        // The read timeout has come along.
        let error = stream.receive().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        stream.write(b"from afar")?;
        Ok(stream.into_movable()?)
    });
    let movable = read.unwrap().join().unwrap().unwrap();
    client.expect(b"from afar");
    // Dropped on a thread without a runtime, it is closed.
    assert_eq!(movable.into_stream().unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(client.socket.read(&mut [0]).unwrap(), 0);
}

/// By a close_notify, by a cut, and by garbage.
#[test]
fn the_end_of_a_session_moves_along() {
    let (workers, authority) = (workers(2), Authority::new("authority"));
    type Act = fn(&mut RawClient);
    let ends: [(Act, Option<&str>); 3] = [
        (
            |client| {
                client.session.send_close_notify();
                client.send(b"");
            },
            None,
        ),
        (|client| client.socket.shutdown(Shutdown::Write).unwrap(), Some("without a close_notify")),
        (
            |client| {
                client
                    .socket
                    .write_all(&[23, 3, 3, 0, 20])
                    .and_then(|()| client.socket.write_all(&[0; 20]))
                    .unwrap()
            },
            Some("decrypt"),
        ),
    ];
    for (end, error) in ends {
        // Before the move, and after it.
        for is_met_before in [true, false] {
            let served = served(&authority);
            let moved = workers.get(0).unwrap().spawn(move || -> io::Result<_> {
                let (stream, mut client) = served()?;
                client.send(b"last");
                end(&mut client);
                if is_met_before {
                    // The words before the end are put back.
                    let mut bytes = [0; 100];
                    match stream.chunk(&mut bytes) {
                        Ok(count) => assert_eq!(&bytes[..count], b"last"),
                        Err(failed) => assert!(failed.to_string().contains(error.unwrap()), "{failed}"),
                    }
                }
                Ok((stream.into_movable()?, client))
            });
            let (movable, _client) = moved.unwrap().join().unwrap().unwrap();
            let read = workers.get(1).unwrap().spawn(move || -> io::Result<()> {
                let stream = movable.into_stream()?;
                let mut bytes = [0; 4];
                if error.is_some() || !is_met_before {
                    assert_eq!(stream.read(&mut bytes)?, 4);
                    assert_eq!(&bytes, b"last");
                }
                match (stream.read(&mut bytes), error) {
                    (Ok(count), None) => assert_eq!(count, 0),
                    (Err(failed), Some(error)) => assert!(failed.to_string().contains(error), "{failed}"),
                    (read, error) => panic!("{read:?} in place of {error:?}"),
                }
                Ok(())
            });
            read.unwrap().join().unwrap().unwrap();
        }
    }
}

#[test]
fn a_stream_that_cannot_move_comes_back_with_the_reason() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (stream, peer) = pair(&client, &server)?;
        let others = stream.core().clone();
        let refused = stream.into_movable().unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::ResourceBusy);
        drop(others);
        peer.write(b"still")?;
        let mut still = [0; 5];
        refused.stream.chunk(&mut still)?;
        assert_eq!(&still, b"still");

        // A deadline that has passed, and a cancel.
        let stream = refused.stream;
        let expired = fibers::with_deadline(Duration::ZERO, || stream.into_movable()).unwrap_err();
        assert!(net::interrupt_of(&expired.error).is_some(), "{}", expired.error);
        let moving = fibers::spawn(move || expired.stream.into_movable())?;
        moving.cancel();
        let cancelled = moving.join().unwrap().unwrap_err();
        assert!(net::interrupt_of(&cancelled.error).is_some(), "{}", cancelled.error);
        let stream = cancelled.stream.into_movable()?.into_stream()?;
        stream.write(b"moved")?;
        let mut moved = [0; 5];
        peer.chunk(&mut moved)?;
        assert_eq!(&moved, b"moved");
        stream.close();
        let closed = stream.into_movable().unwrap_err();
        assert!(net::is_closed(&closed.error), "{}", closed.error);
        assert_eq!(peer.read(&mut moved)?, 0);

        // Dropped in the middle of a move, it is cut.
        let (stream, peer) = pair(&client, &server)?;
        drop(peer.into_movable()?);
        assert!(tls::is_cut(&stream.read(&mut moved).unwrap_err()));
        Ok(())
    });
}

/// The next of some numbers that look random.
fn next_of(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

const BYTES_PER_STREAM: u64 = 200_000;
const STREAMS: u64 = 6;

/// A stream between two workers.
struct Travelling {
    movable: Movable,
    route: Vec<SharedChannel<Travelling>>,
    seed: u64,
    moves: Arc<AtomicU64>,
}

/// Echoes what comes, and moves on to the next worker now and then, until the peer has ended. Deadlines and cancels
/// interrupt its reads.
fn travel(travelling: Travelling) -> io::Result<()> {
    let Travelling { movable, route, mut seed, moves } = travelling;
    let stream = movable.into_stream()?;
    stream.set_write_behind(seed % 2 == 0);
    for _ in 0..next_of(&mut seed) % 4 {
        let patience = Duration::from_micros(next_of(&mut seed) % 300);
        let mut bytes = [0; 1000];
        match fibers::with_deadline(patience, || stream.read(&mut bytes)) {
            // The end.
            Ok(0) => return Ok(()),
            Ok(count) => drop(stream.write(&bytes[..count])?),
            Err(error) if net::interrupt_of(&error).is_some() => {}
            Err(error) => return Err(error),
        }
    }
    moves.fetch_add(1, Ordering::Relaxed);
    let next = next_of(&mut seed) as usize % route.len();
    let movable = match stream.into_movable() {
        // It was cancelled before its first wait.
        Err(error) if net::interrupt_of(&error.error).is_some() => error.stream.into_movable()?,
        moved => moved?,
    };
    route[next].clone().give(Travelling { movable, route, seed, moves }).map_err(io::Error::from)
}

/// Sends bytes that depend on their positions, and checks that they all come back, in order.
fn talk(stream: TlsStream, seed: u64) -> io::Result<()> {
    let byte_at = move |position: u64| (position.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 8) as u8;
    let (stream, mut state) = (Rc::new(stream), seed | 1);
    let sending = stream.clone();
    let sender = fibers::spawn(move || {
        let mut position = 0;
        while position < BYTES_PER_STREAM {
            let end = (position + 1 + next_of(&mut state) % 2000).min(BYTES_PER_STREAM);
            let bytes: Vec<u8> = (position..end).map(byte_at).collect();
            sending.write(&bytes).unwrap();
            position = end;
        }
        sending.shutdown(Shutdown::Write).unwrap();
    })?;
    let received = common::read_all(&stream)?;
    sender.join().unwrap();
    assert_eq!(received.len() as u64, BYTES_PER_STREAM);
    let expected = (0..BYTES_PER_STREAM).map(byte_at);
    assert!(received.iter().copied().eq(expected), "bytes are lost or out of order");
    Ok(())
}

#[test]
fn streams_that_move_all_the_time_lose_no_byte() {
    let (client, server) = Authority::new("authority").configs();
    let (workers, moves) = (workers(3), Arc::new(AtomicU64::new(0)));
    let route: Vec<SharedChannel<Travelling>> = (0..3).map(|_| SharedChannel::bounded(1000)).collect();
    for (worker, arriving) in workers.iter().zip(&route) {
        let arriving = arriving.clone();
        let arrivals = worker.spawn(move || {
            while let Ok(travelling) = arriving.take() {
                let is_cancelled = travelling.seed % 3 == 0;
                let travelling = fibers::spawn(move || travel(travelling).unwrap()).unwrap();
                // Interrupts its first wait.
                if is_cancelled {
                    travelling.cancel();
                }
            }
        });
        arrivals.unwrap();
    }
    let talking: Vec<_> = (1..=STREAMS)
        .map(|seed| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (route, moves, server, client) =
                (route.clone(), moves.clone(), server.clone(), client.clone());
            let started = workers.get(0).unwrap().spawn(move || -> io::Result<()> {
                let (stream, first) = (tls::accept(adopt(ours)?, &server)?, route[0].clone());
                let (movable, seed) = (stream.into_movable()?, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                first.give(Travelling { movable, route, seed, moves }).map_err(io::Error::from)
            });
            let talking = thread::spawn(move || {
                fibers::run(move || talk(tls::wrap(adopt(theirs)?, "localhost", &client)?, seed))
            });
            started.unwrap().join().unwrap().unwrap();
            talking
        })
        .collect();
    talking.into_iter().for_each(|thread| thread.join().unwrap().unwrap().unwrap());
    // Each stay on a worker is for 3,000 bytes at most.
    assert!(moves.load(Ordering::Relaxed) >= STREAMS * (BYTES_PER_STREAM / 3000), "{moves:?}");
    route.iter().for_each(SharedChannel::close);
    workers.join().unwrap();
}

fn echo(stream: &TlsStream) {
    while let Ok(Some(bytes)) = stream.receive() {
        if stream.write(&bytes).is_err() {
            break;
        }
    }
}

/// Connections are spread over the workers, each is on one, and a drain tells them the end by a close_notify.
#[test]
fn a_server_has_connections_on_every_worker() {
    const CONNECTIONS: usize = 12;
    let (client, config) = Authority::new("authority").configs();
    let handler = tls::handler(&config, |stream: TlsStream| echo(&stream));
    let server = ServerBuilder::new().workers(3).serve("127.0.0.1:0", handler).start().unwrap();
    let address = server.addresses()[0];
    let handle = server.handle();
    fibers::run(move || -> io::Result<()> {
        let connect = || tls::wrap(net::connect(address)?, "localhost", &client);
        let clients = (0..CONNECTIONS).map(|_| connect()).collect::<io::Result<Vec<_>>>()?;
        for (index, client) in clients.iter().enumerate() {
            let word = format!("number {index}");
            client.write(word.as_bytes())?;
            let mut echoed = vec![0; word.len()];
            client.chunk(&mut echoed)?;
            assert_eq!(echoed, word.as_bytes());
        }
        for worker in handle.statistics() {
            assert!((3..=5).contains(&worker.connections), "{:?}", handle.statistics());
        }
        let draining = fibers::spawn(move || handle.drain(Duration::ZERO))?;
        for client in clients {
            assert_eq!(client.read(&mut [0])?, 0, "a close_notify");
        }
        let drained = draining.join().unwrap()?;
        assert_eq!(drained.cancelled, CONNECTIONS);
        Ok(())
    })
    .unwrap()
    .unwrap();
    server.wait().unwrap();
}

/// A server's configuration goes to all workers: certificates that are renewed by one thread are those of all.
#[test]
fn certificates_are_renewed_on_every_worker() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (_, config) = first.configs();
    let renewed: (ServerConfig, ClientConfig) = (config.clone(), second.configs().0);
    let handler = tls::handler(&config, |stream: TlsStream| echo(&stream));
    let server = ServerBuilder::new().workers(3).serve("127.0.0.1:0", handler).start().unwrap();
    let address = server.addresses()[0];
    renewed.0.set_identities([second.identity(&["localhost"])]).unwrap();
    fibers::run(move || -> io::Result<()> {
        for _ in 0..6 {
            let client = tls::wrap(net::connect(address)?, "localhost", &renewed.1)?;
            client.write(b"renewed")?;
            client.chunk(&mut [0; 7])?;
        }
        Ok(())
    })
    .unwrap()
    .unwrap();
    assert_eq!(server.drain(Duration::from_secs(60)).unwrap().cancelled, 0);
}
