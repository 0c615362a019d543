//! What an idle session holds on the heap, counted by an allocator that knows of each thread what it has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net as net;
use ringspun_tls::{self as tls, TlsStream};

mod common;

use common::{Authority, DEADLINE, read_all};

thread_local! {
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// Counts what this thread allocates and frees.
struct Counting;

// SAFETY: the system's allocator does it all; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.set(HELD_BYTES.get() + layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD_BYTES.set(HELD_BYTES.get() - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: usize = 50;
/// More is a session that keeps what only its handshake needed, or a buffer of a whole record.
const HELD_MAX_BYTES: isize = 12 * 1024;

fn echo(stream: &TlsStream) {
    let mut buffer = [0; 100];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// Opens sessions one after the other, each of which echoes three times and then is idle.
fn open_sessions(
    address: net::Address,
    client: &tls::ClientConfig,
    count: usize,
) -> io::Result<Vec<TlsStream>> {
    (0..count)
        .map(|_| {
            let stream = tls::wrap(net::connect(address)?, "localhost", client)?;
            for _ in 0..3 {
                stream.write(&[7; 64])?;
                stream.chunk(&mut [0; 64])?;
            }
            Ok(stream)
        })
        .collect()
}

#[test]
fn an_idle_session_holds_no_more_than_it_needs() {
    let (client, server) = Authority::new("authority").configs();
    let (to_clients, from_server) = channel();
    let (to_server, from_clients) = channel();
    let clients = thread::spawn(move || {
        fibers::run(move || -> io::Result<()> {
            let address = from_server.recv().unwrap();
            // What the server makes once is there after these.
            let first = open_sessions(address, &client, 10)?;
            to_server.send(()).unwrap();
            let _ = from_server.recv().unwrap();
            let sessions = open_sessions(address, &client, SESSIONS)?;
            to_server.send(()).unwrap();
            let _ = from_server.recv().unwrap();
            for stream in first.iter().chain(&sessions) {
                stream.shutdown(Shutdown::Write)?;
                assert_eq!(read_all(stream)?, b"");
            }
            Ok(())
        })
    });
    let held = fibers::run(move || -> io::Result<isize> {
        fibers::with_deadline(DEADLINE, || {
            let listener = tls::server("127.0.0.1:0", &server, |stream| echo(&stream))?;
            let wait = || -> io::Result<isize> {
                while from_clients.try_recv().is_err() {
                    fibers::sleep(Duration::from_millis(1))?;
                }
                Ok(HELD_BYTES.get())
            };
            to_clients.send(listener.localname()?).unwrap();
            let before = wait()?;
            to_clients.send(listener.localname()?).unwrap();
            let after = wait()?;
            to_clients.send(listener.localname()?).unwrap();
            while fibers::statistics().map_or(0, |statistics| statistics.alive) > 2 {
                fibers::sleep(Duration::from_millis(1))?;
            }
            Ok((after - before) / SESSIONS as isize)
        })
    });
    clients.join().unwrap().unwrap().unwrap();
    let held = held.unwrap().unwrap();
    println!("{held} bytes of the heap for each idle session");
    assert!(held <= HELD_MAX_BYTES, "{held} bytes of the heap for each idle session");
}
