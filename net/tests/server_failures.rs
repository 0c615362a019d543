//! Servers one of whose workers fails: the others go on, what waits in the kernel is served, and a replacement serves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use ringspun_fibers::{self as fibers, SharedChannel, WorkersBuilder};
use ringspun_net::{Server, ServerBuilder, ServerHandle, Stream};
use ringspun_runtime::Wake;

const AGES: Duration = Duration::from_secs(3600);

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Rc<Self>) {
        panic!("a wake panics");
    }
}

/// Echoes bytes, and has the loop panic when it gets `!`.
fn serve(stream: Stream) {
    while let Ok(Some(bytes)) = stream.receive() {
        if &*bytes == b"!" {
            fibers::event_loop().unwrap().insert_timer(Instant::now(), Rc::new(Bomb));
        } else if stream.write(&bytes).is_err() {
            break;
        }
    }
}

fn server(workers: WorkersBuilder) -> Server {
    ServerBuilder::new().with_workers(workers).serve("127.0.0.1:0", serve).start().unwrap()
}

fn connect(server: &ServerHandle) -> TcpStream {
    TcpStream::connect(server.addresses()[0].to_string()).unwrap()
}

fn echoes(mut client: &TcpStream) -> bool {
    let mut answer = [0; 5];
    client.write_all(b"hello").is_ok() && client.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

fn live(server: &ServerHandle) -> Vec<usize> {
    server.statistics().iter().map(|worker| worker.connections).collect()
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Has the worker of one of the clients fail, and gives those of the others.
fn break_one(server: &ServerHandle, clients: Vec<TcpStream>) -> Vec<TcpStream> {
    let before = live(server);
    let mut victim = &clients[0];
    victim.write_all(b"!").unwrap();
    assert_eq!(victim.read(&mut [0]).unwrap_or(0), 0);
    wait_until(|| live(server).iter().zip(&before).any(|(now, before)| *now == 0 && *before > 0));
    let left: Vec<_> = clients.into_iter().filter(echoes).collect();
    assert_eq!(left.len(), live(server).iter().sum());
    left
}

#[test]
fn the_others_serve_what_comes_to_a_worker_that_has_failed() {
    let server = server(WorkersBuilder::new().count(3));
    let clients: Vec<_> = (0..30).map(|_| connect(&server)).filter(echoes).collect();
    let clients = break_one(&server, clients);
    assert!((18..=22).contains(&clients.len()), "{}", clients.len());
    // Some of them come to the socket of the failed worker.
    let more: Vec<_> = (0..64).map(|_| connect(&server)).collect();
    assert!(more.iter().all(echoes) && clients.iter().all(echoes));
    assert_eq!(live(&server).iter().filter(|live| **live == 0).count(), 1, "{:?}", live(&server));
    drop((clients, more));
    let drained = server.drain(AGES).unwrap();
    assert_eq!((drained.cancelled, drained.left), (0, 0));
    let address = server.addresses()[0].to_string();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(server.wait().unwrap_err().to_string().contains("a wake panics"));
}

#[test]
fn a_replacement_serves_in_the_failed_workers_place() {
    let server = server(WorkersBuilder::new().count(3).replace_failed(true));
    let clients: Vec<_> = (0..30).map(|_| connect(&server)).filter(echoes).collect();
    let clients = break_one(&server, clients);
    let more: Vec<_> = (0..64).map(|_| connect(&server)).collect();
    assert!(more.iter().all(echoes) && clients.iter().all(echoes));
    // They may have come before the replacement, which is the least busy one then.
    let mut rest = Vec::new();
    while live(&server).contains(&0) {
        rest.push(connect(&server));
        assert!(rest.iter().all(echoes));
    }
    let drained = server.drain(Duration::ZERO).unwrap();
    assert_eq!((drained.cancelled, drained.left), (clients.len() + more.len() + rest.len(), 0));
    server.wait().unwrap();
}

#[test]
fn what_waits_in_the_kernel_is_for_the_replacement() {
    let (stall, go_on) = (SharedChannel::<()>::bounded(1), SharedChannel::<()>::bounded(1));
    let (stalled, goes_on) = (stall.clone(), go_on.clone());
    // The only worker computes while connections come, and fails then.
    let server = ServerBuilder::new()
        .with_workers(WorkersBuilder::new().count(1).replace_failed(true))
        .serve("127.0.0.1:0", move |stream| {
            let mut kind = [0];
            if stream.read(&mut kind).is_ok_and(|count| count == 1) && kind[0] == b'!' {
                stalled.try_give(()).unwrap();
                while goes_on.try_take() == Ok(None) {}
                fibers::event_loop().unwrap().insert_timer(Instant::now(), Rc::new(Bomb));
                let _ = fibers::sleep(AGES);
            }
            let _ = stream.write(&kind);
        })
        .start()
        .unwrap();
    let mut first = connect(&server);
    first.write_all(b"!").unwrap();
    stall.take().unwrap();
    let mut waiting: Vec<_> = (0..100).map(|_| connect(&server)).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"w").unwrap());
    go_on.try_give(()).unwrap();
    for client in &mut waiting {
        client.read_exact(&mut [0]).unwrap();
    }
    wait_until(|| live(&server) == [0]);
    server.drain(AGES).unwrap();
    server.wait().unwrap();
}
