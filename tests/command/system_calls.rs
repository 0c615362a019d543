//! The backend for real: how many system calls an echo takes, counted by strace.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support::backend;
use crate::support::scratch::scratch_path;

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");

/// What strace counted, by name.
struct Calls(Vec<(String, u64)>);

impl Calls {
    fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    fn of(&self, name: &str) -> u64 {
        self.0.iter().filter(|(called, _)| called == name).map(|(_, count)| count).sum()
    }
}

/// Says so if the test cannot run here.
fn is_skipped() -> bool {
    let has_strace =
        Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_strace {
        println!("SKIPPED: counting system calls takes strace, which is not installed");
    }
    !has_strace
}

/// Has 64 connections echo for a while, each as soon as its last answer is there, and counts the echoes.
fn drive(address: &str) -> u64 {
    const MESSAGE: [u8; 64] = [7; 64];
    const ECHOES: u64 = 100_000;
    let mut streams: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(&MESSAGE).unwrap();
    }
    let mut echoes = 0;
    while echoes < ECHOES {
        let borrowed: Vec<BorrowedFd> = streams.iter().map(AsFd::as_fd).collect();
        let mut waiting: Vec<PollFd> =
            borrowed.iter().map(|stream| PollFd::new(*stream, PollFlags::POLLIN)).collect();
        poll(&mut waiting, PollTimeout::NONE).unwrap();
        let is_ready: Vec<bool> = waiting.iter().map(|entry| entry.any().unwrap()).collect();
        for (stream, _) in streams.iter_mut().zip(is_ready).filter(|(_, is_ready)| *is_ready) {
            let mut answer = [0; 64];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, MESSAGE);
            stream.write_all(&MESSAGE).unwrap();
            echoes += 1;
        }
    }
    for stream in &mut streams {
        stream.read_exact(&mut [0; 64]).unwrap();
    }
    echoes + 64
}

fn is_ring() -> bool {
    backend::expected() == "io_uring"
}

fn address_of(server: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let is_address = |word: &&str| word.parse::<std::net::SocketAddr>().is_ok();
    line.split_whitespace().find(is_address).expect("the server prints its address").to_string()
}

/// Traces a server while 64 connections are opened, driven and closed.
fn trace(arguments: &[&str]) -> (Calls, u64) {
    // epoll's call has several names.
    let waits = ["io_uring_enter", "epoll_wait", "epoll_pwait", "epoll_pwait2"];
    let has_waited = |calls: &Calls| waits.iter().any(|name| calls.of(name) > 0);
    // On a busy machine, strace was seen to count nothing of the main thread.
    let mut traces = (0..3).map(|_| trace_once(arguments));
    traces.find(|(calls, _)| has_waited(calls)).expect("strace saw nothing three times")
}

fn trace_once(arguments: &[&str]) -> (Calls, u64) {
    let mut server = Command::new(RINGSPUN).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let address = address_of(&mut server);
    let report = scratch_path("strace");
    let mut tracer = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&report)
        .args(["-p", &server.id().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut attached = String::new();
    BufReader::new(tracer.stderr.take().unwrap()).read_line(&mut attached).unwrap();
    assert!(attached.contains("attached"), "{attached}");

    let echoes = drive(&address);
    server.kill().unwrap();
    server.wait().unwrap();
    tracer.wait().unwrap();
    let table = std::fs::read_to_string(report).unwrap();
    let row = |line: &str| -> Option<(String, u64)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first()?.parse::<f64>().ok()?;
        let name = words.last().filter(|name| **name != "total")?;
        Some((name.to_string(), words.get(3)?.parse().ok()?))
    };
    (Calls(table.lines().filter_map(row).collect()), echoes)
}

fn assert_at_most(calls: &Calls, echoes: u64, per_echo: f64) {
    let measured = calls.total() as f64 / echoes as f64;
    println!("{measured:.4} system calls per echo ({} in {echoes})", calls.total());
    assert!(measured <= per_echo, "{measured:.4} system calls per echo: {:?}", calls.0);
}

#[test]
fn an_echo_on_fibers_takes_few_system_calls() {
    if is_skipped() {
        return;
    }
    let (calls, echoes) = trace(&["serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"]);
    if !is_ring() {
        // One receive, one send, and a share of a wait.
        assert_at_most(&calls, echoes, 2.5);
        return;
    }
    assert_at_most(&calls, echoes, 0.1);
    for name in
        ["recvfrom", "recvmsg", "read", "sendto", "sendmsg", "write", "accept", "accept4", "epoll_ctl"]
    {
        // A stream is received from, and written to, one call at a time until it has proven busy.
        assert!(calls.of(name) < 64 * 20, "{name} is called per request: {:?}", calls.0);
    }
}

#[test]
fn an_echo_in_janet_takes_few_system_calls() {
    if is_skipped() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/echo.janet");
    let (calls, echoes) = trace(&["janet", &script.to_string_lossy()]);
    assert_at_most(&calls, echoes, if is_ring() { 0.2 } else { 2.5 });
}
