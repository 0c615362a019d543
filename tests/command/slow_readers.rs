//! Servers with clients that never read: what they hold stays bounded, as the kernel counts their pages.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::serving::Server;

const CLIENTS: usize = 16;
/// What a stream receives ahead of its reader before it stops, and what comes until the kernel has seen that: 33
/// receive buffers of 64 KiB; on top of it, what a Janet server has read and what it writes: 64 KiB each, and as much
/// again where a buffer has grown.
const HELD_PER_CLIENT_BYTES: usize = (256 + 33 * 64 + 4 * 64) * 1024;
/// The loop's receive buffers, all of which may be touched, and what the VM's heap grows by before it is swept.
const SHARED_BYTES: usize = (8 + 16) << 20;
/// How often a server is looked at after nothing more went into its clients' sockets.
const LOOKS: usize = 50;

/// Has clients ask for something and never read, sends as much as is taken if they are to, and holds the server to its
/// bound all along.
fn holds_little(arguments: &[&str], word: &[u8], sends: bool) {
    let server = Server::start(arguments);
    let before = server.resident_bytes();
    let mut clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(word).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let bound = CLIENTS * HELD_PER_CLIENT_BYTES + SHARED_BYTES;
    let was_answered = |client: &TcpStream| client.peek(&mut [0]).is_ok_and(|count| count == 1);
    let (message, mut sent, mut looks, mut most) = (vec![1; 1 << 20], 0, 0, 0);
    while looks < LOOKS {
        // Nothing is left to go in only once the server has come to each.
        looks = if clients.iter().all(was_answered) { looks + 1 } else { 0 };
        for client in clients.iter_mut().filter(|_| sends) {
            while let Ok(count) = client.write(&message) {
                sent += count;
                looks = 0;
            }
        }
        thread::sleep(Duration::from_millis(2));
        most = most.max(server.resident_bytes().saturating_sub(before));
        assert!(most <= bound, "{most} bytes more for {CLIENTS} clients, expected at most {bound}");
    }
    println!("{most} bytes more for {CLIENTS} clients that had sent {sent}, {bound} may be");
    if sends {
        // So much that what the servers hold would be seen if they held all of it.
        assert!(sent > CLIENTS << 20, "{sent} bytes were taken");
    }
}

const JANET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/slow_readers/server.janet");

#[test]
fn an_echo_server_on_fibers_holds_little_for_clients_that_send_and_never_read() {
    holds_little(&["serve", "echo", "--tcp", "127.0.0.1:0"], b"echo", true);
}

#[test]
fn an_echo_server_in_janet_holds_little_for_clients_that_send_and_never_read() {
    holds_little(&["janet", JANET], b"echo", true);
}

#[test]
fn a_server_in_janet_that_writes_without_end_holds_little_for_clients_that_never_read() {
    holds_little(&["janet", JANET], b"send", false);
}
