//! Peers that do not read: the writing fibers wait, and hold at most one write and what a stream may receive ahead. The
//! allocator counts the heap, so that nothing else is measured.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::Stream;

use crate::common::run;

/// The number of allocated bytes.
static HEAP_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Serializes the tests, which count a shared heap.
static TURN: Mutex<()> = Mutex::new(());

struct Counting;

// SAFETY: forwards every call to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: our caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PEERS: usize = 16;
const MESSAGE_BYTES: usize = 64 * 1024;
/// Turns of the loop in which nothing moves, after which nothing will.
const QUIET_TURNS: usize = 20;
/// What a stream receives ahead of its reader before it stops.
const AHEAD_BYTES: usize = 256 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// What a connection, its fiber and the operation that it waits for take.
const CONNECTION_BYTES: usize = 16 * 1024;

/// What a stream may hold: what it receives ahead, and what arrives until the kernel has processed the cancel. The
/// kernel fills this many buffers per batch, and may be in the middle of the next; before Linux 6.8, it fills all.
fn held_max_bytes() -> usize {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    let is_old = matches!((numbers.next(), numbers.next()), (Some(6), Some(..8)));
    AHEAD_BYTES + if is_old { 129 } else { 33 } * BUFFER_BYTES
}

/// Clients, and what was accepted from them.
fn pairs() -> io::Result<(Vec<TcpStream>, Vec<Stream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let event_loop = fibers::event_loop().unwrap();
    let (mut clients, mut served) = (Vec::new(), Vec::new());
    for _ in 0..PEERS {
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nonblocking(true)?;
        clients.push(client);
        served.push(Stream::from_descriptor(event_loop.clone(), listener.accept()?.0.into()));
    }
    Ok((clients, served))
}

/// Lets the loop turn until no more bytes move, and returns the maximum heap size meanwhile.
fn heap_max_bytes_until_quiet(mut moved: impl FnMut() -> usize) -> io::Result<usize> {
    let (mut most, mut quiet, mut before) = (0, 0, moved());
    while quiet < QUIET_TURNS {
        fibers::sleep(Duration::from_millis(2))?;
        most = most.max(HEAP_BYTES.load(Ordering::Relaxed));
        let now = moved();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(most)
}

fn assert_at_most(most: usize, before: usize, per_peer: usize) {
    let grown = most.saturating_sub(before);
    println!("{grown} bytes more on the heap for {PEERS} peers, {} may be", PEERS * per_peer);
    assert!(grown <= PEERS * per_peer, "{grown} bytes more on the heap for {PEERS} peers");
}

#[test]
fn writers_to_peers_that_never_read_wait_and_hold_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(|| {
        let (clients, served) = pairs()?;
        let message = Rc::new(vec![7; MESSAGE_BYTES]);
        let (written, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let before = HEAP_BYTES.load(Ordering::Relaxed);
        for stream in served {
            let (message, written, ended) = (message.clone(), written.clone(), ended.clone());
            fibers::spawn(move || {
                while let Ok(count) = stream.write(&message) {
                    written.set(written.get() + count);
                }
                ended.set(ended.get() + 1);
            })?;
        }
        let counted = written.clone();
        let most = heap_max_bytes_until_quiet(move || counted.get())?;
        assert!(written.get() > PEERS * MESSAGE_BYTES / 2, "{} bytes were written", written.get());
        // A write lends its data, so that waiting needs no copy.
        assert_at_most(most, before, CONNECTION_BYTES);

        // When the peer finally reads, its writer continues.
        let (stuck, mut buffer) = (written.get(), vec![0; 1 << 20]);
        while written.get() == stuck {
            match (&clients[0]).read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            fibers::sleep(Duration::from_millis(1))?;
        }
        assert_eq!(ended.get(), 0);
        drop(clients);
        while ended.get() < PEERS {
            fibers::sleep(Duration::from_millis(1))?;
        }
        Ok(())
    });
}

#[test]
fn echoes_to_peers_that_send_and_never_read_hold_what_a_stream_receives_ahead() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(|| {
        let (clients, served) = pairs()?;
        let ended = Rc::new(Cell::new(0));
        let message = vec![7; MESSAGE_BYTES];
        let before = HEAP_BYTES.load(Ordering::Relaxed);
        for stream in served {
            let ended = ended.clone();
            fibers::spawn(move || {
                while let Ok(Some(bytes)) = stream.receive() {
                    if stream.write(&bytes).is_err() {
                        break;
                    }
                }
                ended.set(ended.get() + 1);
            })?;
        }
        let mut sent = 0;
        let most = heap_max_bytes_until_quiet(|| {
            for mut client in &clients {
                while let Ok(count) = client.write(&message) {
                    sent += count;
                }
            }
            sent
        })?;
        // More has been sent than the streams receive ahead, and no more can be: the kernel's buffers are full, too.
        assert!(sent > PEERS * AHEAD_BYTES, "{sent} bytes were taken");
        assert_eq!(ended.get(), 0);
        assert_at_most(most, before, held_max_bytes() + CONNECTION_BYTES);
        drop(clients);
        while ended.get() < PEERS {
            fibers::sleep(Duration::from_millis(1))?;
        }
        Ok(())
    });
}
