//! What an idle connection takes of a server's memory, as the kernel counts its pages.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::serving::Server;

const MESSAGE: [u8; 64] = [7; 64];
/// Open before the first count, so that what a server makes once is not in what a connection takes.
const FIRST_CONNECTIONS: usize = 20;
const CONNECTIONS: usize = 400;

/// Opens more connections, each of which echoes once.
fn open(server: &Server, clients: &mut Vec<TcpStream>, count: usize) {
    for _ in 0..count {
        let mut client = TcpStream::connect(&server.address).unwrap();
        client.write_all(&MESSAGE).unwrap();
        let mut answer = [0; MESSAGE.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, MESSAGE);
        clients.push(client);
    }
}

fn bytes_per_connection(arguments: &[&str]) -> usize {
    let (server, mut clients) = (Server::start(arguments), Vec::new());
    open(&server, &mut clients, FIRST_CONNECTIONS);
    let before = server.resident_bytes();
    open(&server, &mut clients, CONNECTIONS);
    (server.resident_bytes() - before) / CONNECTIONS
}

fn assert_at_most(found: usize, bound: usize) {
    println!("{found} bytes per idle connection, {bound} may be");
    assert!(found <= bound, "{found} bytes per idle connection, expected at most {bound}");
    // Less would mean that nothing was measured.
    assert!(found > 200, "{found} bytes per idle connection");
}

#[test]
fn an_idle_connection_of_a_fiber_takes_few_bytes() {
    let found = bytes_per_connection(&["serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"]);
    // Frames are much larger without optimisation: docs/scale.md has the figures with it, of one page of the stack.
    assert_at_most(found, if cfg!(debug_assertions) { 3 * 4096 + 2048 } else { 4096 + 2048 });
}

#[test]
fn an_idle_connection_in_janet_takes_few_bytes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo.janet");
    let found = bytes_per_connection(&["janet", script]);
    // No stack, but a fiber of the VM and its buffer, and what the VM's heap has grown by at this moment.
    assert_at_most(found, 6 * 1024);
}
