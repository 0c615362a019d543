//! Servers that are drained under load, again and again: no answer is lost.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringspun_net::ServerBuilder;

const AGES: Duration = Duration::from_secs(3600);
const ROUNDS: usize = 100;
const CLIENTS: usize = 4;

/// Sends a request and reads the whole answer.
fn ask(stream: &mut TcpStream, request: u64) -> io::Result<()> {
    stream.write_all(&request.to_le_bytes())?;
    let mut answer = [0; 4000];
    stream.read_exact(&mut answer)?;
    assert!(answer.chunks(8).all(|part| part == request.to_le_bytes()), "an answer is wrong");
    Ok(())
}

/// Opens connections with some requests each until the server is about to stop. What has been answered once must be
/// answered to the end; a connection that was made while the server stopped may be reset before its first answer.
fn talk(address: &str, is_stopping: &AtomicBool, answers: &AtomicU64) {
    while !is_stopping.load(Ordering::Relaxed) {
        let opened = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            ask(&mut stream, 0)?;
            Ok(stream)
        });
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                assert!(is_stopping.load(Ordering::Relaxed), "a connection failed before the drain: {error}");
                return;
            }
        };
        for request in 1..5 {
            ask(&mut stream, request).unwrap_or_else(|error| panic!("an answer was lost: {error}"));
        }
        answers.fetch_add(5, Ordering::Relaxed);
    }
}

#[test]
fn a_hundred_drains_under_load_lose_no_answer() {
    let answers = Arc::new(AtomicU64::new(0));
    for round in 0..ROUNDS as u64 {
        let server = ServerBuilder::new()
            .workers(3)
            .serve("127.0.0.1:0", |stream| {
                let mut request = [0; 8];
                while stream.chunk(&mut request).is_ok_and(|count| count == 8) {
                    if stream.write(&request.repeat(500)).is_err() {
                        break;
                    }
                }
            })
            .start()
            .unwrap();
        let (address, is_stopping) = (server.addresses()[0].to_string(), Arc::new(AtomicBool::new(false)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (address, is_stopping) = (address.clone(), is_stopping.clone());
                let answers = answers.clone();
                thread::spawn(move || talk(&address, &is_stopping, &answers))
            })
            .collect();
        // Each round in another moment of their work.
        let before = answers.load(Ordering::Relaxed);
        while answers.load(Ordering::Relaxed) < before + 5 * (round % 7) {
            thread::yield_now();
        }
        is_stopping.store(true, Ordering::Relaxed);
        let drained = server.drain(AGES).unwrap();
        assert_eq!((drained.cancelled, drained.left), (0, 0), "round {round}");
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.wait().unwrap();
    }
}
