//! SIGQUIT has a process print what its fibers wait for: those that hang are explained by it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::backend;

pub(super) fn start(backend: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringspun"))
        .args(arguments)
        .env("RINGSPUN_BACKEND", backend)
        .env_remove("RINGSPUN_COMMAND")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ends the process, also where a test fails.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn first_line(process: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

/// Asks for dumps until one has all of the texts in it: what they are about may not have begun.
fn dump_with(process: &mut Child, texts: &[&str]) -> String {
    let id = Pid::from_raw(process.id().try_into().unwrap());
    let mut errors = process.stderr.take().unwrap();
    let mut all = String::new();
    let mut read = [0; 64 * 1024];
    loop {
        kill(id, Signal::SIGQUIT).unwrap();
        let begin = all.len();
        // A dump begins with this, and ends with an empty line or the next one.
        while !all[begin..].contains("fibers of process") || !all.ends_with('\n') {
            let count = errors.read(&mut read).unwrap();
            assert!(count > 0, "the process has ended: {all}");
            all.push_str(&String::from_utf8_lossy(&read[..count]));
        }
        if texts.iter().all(|text| all[begin..].contains(text)) {
            return all[begin..].to_string();
        }
    }
}

#[test]
fn a_server_tells_which_peer_each_fiber_waits_for() {
    for &backend in backend::usable() {
        let mut server = Ended(start(backend, &["serve", "echo", "--tcp", "127.0.0.1:0", "--workers", "2"]));
        let address = first_line(&mut server.0).split_whitespace().nth(2).unwrap().to_string();
        // A peer that says nothing more.
        let mut peer = TcpStream::connect(&address).unwrap();
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        let reason = format!("waits for: read from {} (at {address})", peer.local_addr().unwrap());
        let dump = dump_with(&mut server.0, &[&reason, &format!("accept on {address}")]);
        assert!(dump.contains("thread 'worker 1'"), "{dump}");
        // The process goes on, and so does the fiber.
        peer.write_all(b"y").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_load_generator_tells_that_the_server_does_not_answer() {
    for &backend in backend::usable() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let target = format!("tcp://{address}");
        let mut load = Ended(start(backend, &["load", &target, "--connections", "3", "--duration", "1h"]));
        // By the time of the first request it handles signals.
        silent.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        dump_with(&mut load.0, &[&format!("waits for: read from {address}")]);
    }
}

#[test]
fn fibers_of_janet_tell_what_they_wait_for_with_their_frames() {
    let program = "(def hung (ev/chan 3)) (defn consume [from] (def value (ev/take from)) value) \
                   (ev/spawn (consume hung)) (ev/spawn (ev/give (ev/chan) \"a secret\")) \
                   (def s (net/listen \"127.0.0.1\" \"0\")) (ev/spawn (net/accept s)) \
                   (print (string/join (map string (net/localname s)) \":\")) (flush) (ev/sleep 3600)";
    for &backend in backend::usable() {
        let mut janet = Ended(start(backend, &["janet", "-e", program]));
        let address = first_line(&mut janet.0).trim().to_string();
        let accepting = format!("waits for: net/accept socket at {address}");
        let taking = "waits for: ev/take <core/channel 0x";
        let texts = [&*accepting, taking, "(0 of 3 values)", "\n        consume", "ev/give", "string of 8"];
        let dump = dump_with(&mut janet.0, &texts);
        assert!(!dump.contains("a secret"), "{dump}");
    }
}
