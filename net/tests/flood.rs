//! The memory that a peer can make us use: however much it sends, a stream without an active reader queues a bounded
//! number of bytes in a bounded amount of memory; the rest stays with the kernel and the peer.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, ErrorKind, Write as _};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, setsockopt, socket, sockopt,
};
use ringspun_fibers as fibers;
use ringspun_net::machine::{Accept, ListenerCore};
use ringspun_net::{self as net, Stream};
use ringspun_runtime::{Configuration, Wake};

use crate::common::run;

/// Counts allocated bytes per thread, so that concurrent tests do not affect each other.
struct Counting;

thread_local! {
    static HEAP_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending does not count.
    let _ = HEAP_BYTES.try_with(|total| total.set(total.get() + bytes));
}

// SAFETY: forwards every request to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(heap_cost_bytes(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        count(-heap_cost_bytes(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// An allocator needs room of its own and gives no less than this much.
fn heap_cost_bytes(size_bytes: usize) -> isize {
    (size_bytes + 16).max(32) as isize
}

fn heap_bytes() -> isize {
    HEAP_BYTES.with(Cell::get)
}

/// The documented bound of the unread bytes of a stream.
const UNREAD_MAX_BYTES: usize = 256 * 1024;
/// The maximum number of bytes in the kernel between the ends of a [`held_stream`].
const KERNEL_BYTES: usize = 64 * 1024;

fn pool_bytes() -> usize {
    let configuration = Configuration::default();
    usize::from(configuration.receive_buffers) * configuration.receive_buffer_size_bytes
}

/// A stream whose reader has come once, so that it receives, and its peer. The kernel holds little.
fn held_stream() -> io::Result<(UnixStream, Stream)> {
    let (peer, socket) = UnixStream::pair()?;
    peer.set_nonblocking(true)?;
    setsockopt(&peer, sockopt::SndBuf, &8192)?;
    let stream = Stream::from_descriptor(fibers::event_loop().unwrap(), socket.into());
    (&peer).write_all(b"!")?;
    let mut first = [0; 1];
    assert_eq!(stream.chunk(&mut first)?, 1);
    // Being interrupted, a read leaves the stream receiving.
    stream.set_read_timeout(Some(Duration::from_millis(1)));
    assert_eq!(stream.read(&mut first).unwrap_err().kind(), ErrorKind::TimedOut);
    stream.set_read_timeout(None);
    Ok((peer, stream))
}

/// Sends pieces until none has gone for many turns of the loop, with a turn after each; gives the bytes sent.
fn flood(peer: &UnixStream, piece: &[u8], limit_bytes: usize) -> io::Result<usize> {
    const PATIENCE_TURNS: usize = 50;
    let (mut sent, mut refused) = (0, 0);
    while refused < PATIENCE_TURNS && sent < limit_bytes {
        match (&*peer).write(piece) {
            Ok(count) => {
                (sent, refused) = (sent + count, 0);
                fibers::yield_now()?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                fibers::sleep(Duration::from_millis(1))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Reads so many bytes, all of which are `x`.
fn drain(stream: &Stream, length: usize) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let wanted = left.min(buffer.len());
        let count = stream.read(&mut buffer[..wanted])?;
        assert!(count > 0 && buffer[..count].iter().all(|byte| *byte == b'x'));
        left -= count;
    }
    Ok(())
}

#[test]
fn a_stream_that_nobody_reads_stops_receiving() {
    run(|| {
        let (peer, stream) = held_stream()?;
        let before = heap_bytes();
        let sent = flood(&peer, &[b'x'; 4096], 64 << 20)?;
        let held = heap_bytes() - before;
        println!("sent {sent} bytes, of which {held} on the heap");
        assert!(sent <= UNREAD_MAX_BYTES + pool_bytes() + KERNEL_BYTES, "the peer could send {sent} bytes");
        assert!(held <= (UNREAD_MAX_BYTES + pool_bytes()) as isize, "{held} bytes are on the heap");
        drain(&stream, sent)?;
        // It goes on where it stopped.
        (&peer).write_all(b"xx")?;
        drain(&stream, 2)
    });
}

#[test]
fn small_pieces_take_no_more_memory_than_large_ones() {
    run(|| {
        let (peer, stream) = held_stream()?;
        let before = heap_bytes();
        let sent = flood(&peer, b"x", 4 << 20)?;
        let held = heap_bytes() - before;
        println!("sent {sent} bytes, of which {held} on the heap");
        assert!(held <= UNREAD_MAX_BYTES as isize, "{sent} bytes take {held} on the heap");
        drain(&stream, sent)
    });
}

#[test]
fn many_flooded_streams_hold_what_each_may_and_starve_nobody() {
    const STREAMS: usize = 300;
    run(|| {
        let (near, far) = held_stream()?;
        let streams = (0..STREAMS).map(|_| held_stream()).collect::<io::Result<Vec<_>>>()?;
        let before = heap_bytes();
        let mut sent = vec![0; STREAMS];
        // All at once, in rounds.
        loop {
            let mut went = 0;
            for ((peer, _), sent) in streams.iter().zip(&mut sent) {
                while let Ok(count) = (&*peer).write(&[b'x'; 4096]) {
                    *sent += count;
                    went += count;
                }
            }
            fibers::sleep(Duration::from_millis(1))?;
            if went == 0 {
                break;
            }
        }
        let held = heap_bytes() - before;
        let total: usize = sent.iter().sum();
        println!(
            "sent {total} bytes, of which {held} on the heap; most by one: {}",
            sent.iter().max().unwrap()
        );
        assert!(total <= STREAMS * (UNREAD_MAX_BYTES + KERNEL_BYTES) + pool_bytes());
        assert!(held <= (STREAMS * UNREAD_MAX_BYTES + pool_bytes()) as isize, "{held} bytes are on the heap");
        for _ in 0..100 {
            (&near).write_all(b"x")?;
            drain(&far, 1)?;
        }
        for ((_, stream), sent) in streams.iter().zip(sent) {
            drain(stream, sent)?;
        }
        Ok(())
    });
}

#[test]
fn datagrams_that_nobody_reads_are_dropped_by_the_kernel() {
    run(|| {
        for length in [0, 1, 1400] {
            let server = net::listen_datagram("127.0.0.1:0")?;
            let peer = UdpSocket::bind("127.0.0.1:0")?;
            let address = server.localname()?.as_socket_addr().unwrap();
            peer.send_to(b"!", address)?;
            assert_eq!(&*server.receive()?.0, b"!");
            // The next one has the socket receive.
            server.set_read_timeout(Some(Duration::from_millis(1)));
            assert_eq!(server.receive().unwrap_err().kind(), ErrorKind::TimedOut);
            let before = heap_bytes();
            for _ in 0..20_000 {
                peer.send_to(&vec![b'x'; length], address)?;
                fibers::yield_now()?;
            }
            let held = heap_bytes() - before;
            println!("20,000 datagrams of {length} bytes take {held} on the heap");
            assert!(held <= 2 * UNREAD_MAX_BYTES as isize, "{held} bytes are on the heap");
        }
        Ok(())
    });
}

/// A waiter of the test, which polls instead.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Rc<Self>) {}
}

/// Connects if there is room in the listener's queue.
fn connect_at_once(path: &Path) -> Option<OwnedFd> {
    let client = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    let nonblocking = 1;
    // SAFETY: the request reads one number, which is there.
    assert_eq!(unsafe { libc::ioctl(client.as_raw_fd(), libc::FIONBIO, &raw const nonblocking) }, 0);
    connect(client.as_raw_fd(), &UnixAddr::new(path).unwrap()).is_ok().then_some(client)
}

#[test]
fn connections_that_nobody_takes_stay_with_the_kernel() {
    const BACKLOG: usize = 32;
    // Those that are accepted ahead, and a whole queue of the kernel's that comes before accepting pauses.
    const AHEAD_MAX: usize = 64 + BACKLOG + 1;
    run(|| {
        let path = std::env::temp_dir().join(format!("ringspun-{}-flood", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path)?;
        socket.set_nonblocking(true)?;
        listen(&socket, Backlog::new(BACKLOG as i32)?)?;
        let listener = ListenerCore::new(fibers::event_loop().unwrap(), socket.into());
        // One accept makes the listener accept ahead.
        let waiter: Rc<dyn Wake> = Rc::new(Nobody);
        let mut accept = Accept::new(listener.clone());
        assert!(accept.poll(&waiter).is_pending());
        let mut clients = vec![];
        let mut refused = 0;
        while refused < 50 && clients.len() < 10 * AHEAD_MAX {
            match connect_at_once(&path) {
                Some(client) => {
                    clients.push(client);
                    refused = 0;
                }
                None => {
                    refused += 1;
                    fibers::sleep(Duration::from_millis(1))?;
                }
            }
        }
        // All but what is in the kernel's queue again is accepted.
        println!("{} could connect", clients.len());
        assert!(clients.len() <= AHEAD_MAX + BACKLOG + 1, "{} could connect", clients.len());
        // Accepting returns all of them.
        for number in 0..clients.len() {
            while accept.poll(&waiter).map(Result::unwrap).is_pending() {
                assert_eq!(fibers::sleep(Duration::from_millis(1)), Ok(()), "connection {number}");
            }
        }
        accept.abandon(&waiter);
        listener.close();
        std::fs::remove_file(&path)
    });
}
