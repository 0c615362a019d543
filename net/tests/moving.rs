//! Streams that move between workers, with all that they have received.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Runtime, SharedChannel, Workers, WorkersBuilder};
use ringspun_net::{self as net, Movable, SocketOption, Stream, WriteInterrupted};
use ringspun_runtime::Configuration;

fn workers(count: usize) -> Workers {
    WorkersBuilder::new().count(count).start().unwrap()
}

/// One end of a connection as a stream of this thread's runtime, the other as a blocking socket.
fn pair() -> io::Result<(Stream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let event_loop = fibers::event_loop().ok_or(io::ErrorKind::Unsupported)?;
    Ok((Stream::from_descriptor(event_loop, ours.into()), theirs))
}

/// Makes a stream busy, so that it is received ahead on io_uring, and leaves it with unread bytes.
fn with_unread(stream: &Stream, peer: &mut UnixStream) -> io::Result<()> {
    for _ in 0..10 {
        peer.write_all(b"ab")?;
        stream.chunk(&mut [0; 2])?;
    }
    peer.write_all(b"unread")?;
    let mut first = [0];
    stream.chunk(&mut first)?;
    assert_eq!(&first, b"u");
    Ok(())
}

#[test]
fn unread_bytes_and_settings_move_along() {
    let workers = workers(2);
    let moved = workers.get(0).unwrap().spawn(|| -> io::Result<_> {
        let (stream, mut peer) = pair()?;
        stream.set_write_behind(true);
        with_unread(&stream, &mut peer)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)));
        // Its send is in flight.
        stream.write(b"written")?;
        Ok((stream.into_movable()?, peer))
    });
    let (movable, mut peer) = moved.unwrap().join().unwrap().unwrap();
    let mut written = [0; 7];
    peer.read_exact(&mut written).unwrap();
    assert_eq!(&written, b"written");
    peer.write_all(b" and later").unwrap();
    let read = workers.get(1).unwrap().spawn(move || -> io::Result<_> {
        let stream = movable.into_stream()?;
        let mut bytes = [0; 15];
        stream.chunk(&mut bytes)?;
        assert_eq!(&bytes, b"nread and later");
        // The read timeout has come along.
        let error = stream.receive().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        stream.write(b"from afar")?;
        stream.flush()?;
        Ok(stream.into_movable()?)
    });
    let movable = read.unwrap().join().unwrap().unwrap();
    let mut answer = [0; 9];
    peer.read_exact(&mut answer).unwrap();
    // Dropped on a thread without a runtime, it is closed.
    drop(movable);
    assert_eq!(peer.read(&mut answer).unwrap(), 0);
}

#[test]
fn the_end_of_a_stream_moves_along() {
    let workers = workers(2);
    let moved = workers.get(0).unwrap().spawn(|| -> io::Result<_> {
        let (stream, mut peer) = pair()?;
        with_unread(&stream, &mut peer)?;
        peer.shutdown(Shutdown::Write)?;
        // Has the end be received, too, where the stream is received ahead.
        fibers::sleep(Duration::from_millis(5))?;
        Ok((stream.into_movable()?, peer))
    });
    let (movable, _peer) = moved.unwrap().join().unwrap().unwrap();
    let read = workers.get(1).unwrap().spawn(move || -> io::Result<_> {
        let stream = movable.into_stream()?;
        let mut bytes = [0; 100];
        assert_eq!(stream.chunk(&mut bytes)?, 5);
        assert_eq!(&bytes[..5], b"nread");
        assert_eq!(stream.read(&mut bytes)?, 0);
        Ok(())
    });
    read.unwrap().join().unwrap().unwrap();
}

#[test]
fn a_stream_that_cannot_move_comes_back_with_the_reason() {
    fibers::run(|| -> io::Result<()> {
        let (stream, _peer) = pair()?;
        stream.close();
        let error = stream.into_movable().unwrap_err();
        assert!(net::is_closed(&error.error), "{error}");

        // An error of a write that has returned is reported, and the stream moves afterwards.
        let (stream, mut peer) = pair()?;
        with_unread(&stream, &mut peer)?;
        stream.set_write_behind(true);
        drop(peer);
        let mut results = vec![stream.write(b"lost").map(drop)];
        let moved = stream.into_movable();
        results.push(moved.as_ref().map(drop).map_err(|error| io::Error::other(error.to_string())));
        assert!(results.iter().any(Result::is_err), "{results:?}");
        let stream = match moved {
            Err(error) => error.stream.into_movable()?.into_stream()?,
            Ok(movable) => movable.into_stream()?,
        };
        let mut rest = [0; 5];
        stream.chunk(&mut rest)?;
        assert_eq!(&rest, b"nread");
        Ok(())
    })
    .unwrap()
    .unwrap();
}

/// A reader that has used up what it may read in a turn waits for the next one; that is over with its read.
#[test]
fn a_stream_that_has_more_to_read_than_fits_a_turn_moves() {
    const WRITTEN_BYTES: usize = 10_000;
    let configuration = Configuration { receive_buffer_size_bytes: 100, ..Configuration::default() };
    let ran = Runtime::new().configuration(configuration).run(|| -> io::Result<()> {
        let (mut stream, mut peer) = pair()?;
        for round in 0..10 {
            peer.write_all(&[7; WRITTEN_BYTES])?;
            assert_eq!(stream.chunk(&mut vec![0; WRITTEN_BYTES])?, WRITTEN_BYTES);
            stream = match stream.into_movable() {
                Ok(movable) => movable.into_stream()?,
                Err(refused) => panic!("round {round}: {}", refused.error),
            };
        }
        Ok(())
    });
    ran.unwrap().unwrap();
}

#[test]
fn a_movable_stream_needs_a_runtime_to_become_one() {
    let movable = fibers::run(|| -> io::Result<(Movable, UnixStream)> {
        let (stream, peer) = pair()?;
        Ok((stream.into_movable()?, peer))
    });
    let (movable, mut peer) = movable.unwrap().unwrap();
    assert_eq!(movable.into_stream().unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

/// The next of some numbers that look random.
fn next_of(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

const BYTES_PER_STREAM: u64 = 200_000;

/// Writes all, however often it is interrupted: each time it goes on behind what has been written.
fn send(stream: &Stream, mut bytes: &[u8], patience: Duration, interrupted: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        match fibers::with_deadline(patience, || stream.write(bytes)) {
            Ok(_) => break,
            Err(error) if net::interrupt_of(&error).is_some() => {
                interrupted.fetch_add(1, Ordering::Relaxed);
                bytes = &bytes[written(&error)..];
                fibers::yield_now()?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How much a write that was interrupted has written.
fn written(error: &io::Error) -> usize {
    let mut source: &(dyn std::error::Error + 'static) = error;
    while !source.is::<WriteInterrupted>() {
        let of_io = source.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        let Some(next) = of_io.map(|error| error as _).or_else(|| source.source()) else { return 0 };
        source = next;
    }
    source.downcast_ref::<WriteInterrupted>().map_or(0, |interrupted| interrupted.written_bytes)
}

/// Echoes what comes, and moves on to the next worker now and then, until the peer has ended. Deadlines and cancels
/// interrupt its reads.
fn travel(travelling: Travelling) -> io::Result<()> {
    let Travelling { movable, route, mut seed, moves, interrupted } = travelling;
    let stream = movable.into_stream()?;
    stream.set_write_behind(seed % 2 == 0);
    for _ in 0..next_of(&mut seed) % 4 {
        let patience = Duration::from_micros(next_of(&mut seed) % 200);
        let mut bytes = [0; 1000];
        match fibers::with_deadline(patience, || stream.read(&mut bytes)) {
            // The end.
            Ok(0) => return Ok(()),
            Ok(count) => send(&stream, &bytes[..count], patience, &interrupted)?,
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
    route[next].clone().give(Travelling { movable, route, seed, moves, interrupted }).map_err(io::Error::from)
}

/// A stream between two workers.
struct Travelling {
    movable: Movable,
    route: Vec<SharedChannel<Travelling>>,
    seed: u64,
    moves: Arc<AtomicU64>,
    /// Writes that were.
    interrupted: Arc<AtomicU64>,
}

/// Sends bytes that depend on their positions, and checks that they all come back, in order.
fn talk(mut peer: UnixStream, seed: u64) {
    let byte_at = move |position: u64| (position.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 8) as u8;
    let mut sending = peer.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let (mut position, mut state) = (0, seed | 1);
        while position < BYTES_PER_STREAM {
            let end = (position + 1 + next_of(&mut state) % 2000).min(BYTES_PER_STREAM);
            let bytes: Vec<u8> = (position..end).map(byte_at).collect();
            sending.write_all(&bytes).unwrap();
            position = end;
        }
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert_eq!(received.len() as u64, BYTES_PER_STREAM);
    assert!(
        received.iter().copied().eq((0..BYTES_PER_STREAM).map(byte_at)),
        "bytes are lost or out of order"
    );
}

#[test]
fn streams_that_move_all_the_time_lose_no_byte() {
    let workers = workers(3);
    let (moves, interrupted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
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
    let talking: Vec<_> = (1..=8_u64)
        .map(|seed| {
            let (route, moves, interrupted) = (route.clone(), moves.clone(), interrupted.clone());
            let started = workers.get(0).unwrap().spawn(move || -> io::Result<_> {
                let (stream, peer) = pair()?;
                // So small that writes have to wait for the peer.
                stream.set_option(SocketOption::SendBufferBytes(2048))?;
                let first = route[0].clone();
                let (movable, seed) = (stream.into_movable()?, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let _ = first.give(Travelling { movable, route, seed, moves, interrupted });
                Ok(peer)
            });
            let peer = started.unwrap().join().unwrap().unwrap();
            thread::spawn(move || talk(peer, seed))
        })
        .collect();
    talking.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(interrupted.load(Ordering::Relaxed) > 0, "no write had to wait");
    // Each stay on a worker is for 3,000 bytes at most.
    assert!(moves.load(Ordering::Relaxed) >= 8 * (BYTES_PER_STREAM / 3000), "{moves:?}");
    route.iter().for_each(SharedChannel::close);
    workers.join().unwrap();
}

#[test]
fn one_acceptor_hands_connections_to_workers_in_turn() {
    let ran = WorkersBuilder::new().count(4).run(|workers| -> io::Result<Vec<usize>> {
        let listener = net::listen("127.0.0.1:0")?;
        let address = listener.localname()?;
        let others: Vec<_> = workers.iter().skip(1).cloned().collect();
        let accepting = fibers::spawn(move || -> io::Result<()> {
            for worker in others.iter().cycle().take(30) {
                let (movable, index) = (listener.accept()?.into_movable()?, worker.index() as u8);
                let serving = worker
                    .spawn(move || -> io::Result<()> { movable.into_stream()?.write(&[index]).map(drop) });
                drop(serving.map_err(io::Error::other)?);
            }
            Ok(())
        })?;
        let mut served = vec![0; 4];
        for _ in 0..30 {
            let mut worker = [0];
            net::connect(address)?.chunk(&mut worker)?;
            served[usize::from(worker[0])] += 1;
        }
        accepting.join().map_err(|error| io::Error::other(error.to_string()))??;
        Ok(served)
    });
    assert_eq!(ran.unwrap().unwrap(), [0, 10, 10, 10]);
}
