//! The backend for real: how many system calls an echo takes, counted by strace.

mod backend;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
    let reason = if !has_strace {
        "counting system calls takes strace, which is not installed"
    } else if backend::refusal().is_some() {
        "examples/echo_load.rs, which drives the server, takes io_uring, and that is refused"
    } else {
        return false;
    };
    println!("SKIPPED: {reason}");
    true
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

/// Traces a server while 64 connections are opened, driven for a second and closed.
fn trace(arguments: &[&str]) -> (Calls, u64) {
    let mut server = Command::new(RINGSPUN).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let address = address_of(&mut server);
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("strace-{}", server.id()));
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

    let load = Path::new(RINGSPUN).with_file_name("examples").join("echo_load");
    let output = Command::new(load).args([&address, "64", "1"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let echoes = text.split("\"echoes\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap();

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
    let calls = Calls(table.lines().filter_map(row).collect());
    // epoll's call has several names.
    let waits = ["io_uring_enter", "epoll_wait", "epoll_pwait", "epoll_pwait2"];
    assert!(waits.iter().any(|name| calls.of(name) > 0), "strace saw nothing:\n{table}");
    (calls, echoes.parse().unwrap())
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
    let (calls, echoes) = trace(&["serve", "echo", "--tcp", "127.0.0.1:0"]);
    if !is_ring() {
        // One receive, one send, and a share of a wait.
        assert_at_most(&calls, echoes, 2.5);
        return;
    }
    assert_at_most(&calls, echoes, 0.1);
    for name in
        ["recvfrom", "recvmsg", "read", "sendto", "sendmsg", "write", "accept", "accept4", "epoll_ctl"]
    {
        assert!(calls.of(name) < 10, "{name} is called per request or per connection: {:?}", calls.0);
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
