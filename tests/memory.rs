//! What an idle connection takes of a server's memory, as the kernel counts its pages.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const MESSAGE: [u8; 64] = [7; 64];
/// Open before the first count, so that what a server makes once is not in what a connection takes.
const FIRST_CONNECTIONS: usize = 20;
const CONNECTIONS: usize = 400;

/// A server that is killed in the end, and its clients.
struct Server {
    process: Child,
    address: String,
    clients: Vec<TcpStream>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringspun"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let is_address = |word: &&str| word.parse::<std::net::SocketAddr>().is_ok();
        let address =
            line.split_whitespace().find(is_address).expect("the server prints its address").to_string();
        Self { process, address, clients: Vec::new() }
    }

    /// Opens more connections, each of which echoes once.
    fn open(&mut self, count: usize) {
        for _ in 0..count {
            let mut client = TcpStream::connect(&self.address).unwrap();
            client.write_all(&MESSAGE).unwrap();
            let mut answer = [0; MESSAGE.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, MESSAGE);
            self.clients.push(client);
        }
    }

    /// All pages that are there, counted one by one; the sums in `status` and `statm` are not exact.
    fn resident_bytes(&self) -> usize {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn bytes_per_connection(&mut self) -> usize {
        self.open(FIRST_CONNECTIONS);
        let before = self.resident_bytes();
        self.open(CONNECTIONS);
        (self.resident_bytes() - before) / CONNECTIONS
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn assert_at_most(found: usize, bound: usize) {
    println!("{found} bytes per idle connection, {bound} may be");
    assert!(found <= bound, "{found} bytes per idle connection, expected at most {bound}");
    // Less would mean that nothing was measured.
    assert!(found > 200, "{found} bytes per idle connection");
}

#[test]
fn an_idle_connection_of_a_fiber_takes_few_bytes() {
    let found = Server::start(&["serve", "echo", "--tcp", "127.0.0.1:0"]).bytes_per_connection();
    // Frames are much larger without optimisation: docs/scale.md has the figures with it, of one page of the stack.
    assert_at_most(found, if cfg!(debug_assertions) { 3 * 4096 + 2048 } else { 4096 + 2048 });
}

#[test]
fn an_idle_connection_in_janet_takes_few_bytes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo.janet");
    let found = Server::start(&["janet", script]).bytes_per_connection();
    // No stack, but a fiber of the VM and its buffer, and what the VM's heap has grown by at this moment.
    assert_at_most(found, 6 * 1024);
}
