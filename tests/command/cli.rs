//! The `ringspun` command: what it prints, what it exits with, and that it serves.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::backend;
use crate::support::scratch::scratch_path;

/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

pub(super) fn ringspun(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(super) fn output_of(arguments: &[&str]) -> Output {
    ringspun(arguments).output().unwrap()
}

pub(super) fn error_text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(super) fn text_of(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < HANG, "the server did not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended and has been waited for, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running echo server.
struct EchoServer {
    process: Process,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl EchoServer {
    fn start(address: &str) -> Self {
        Self::start_with(address, &[])
    }

    fn start_with(address: &str, flags: &[&str]) -> Self {
        let mut command = ringspun(&[&["serve", "echo", "--tcp", address], flags].concat());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let rest = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
        let (address, rest) = rest.split_once(' ').unwrap();
        let backend = backend::expected();
        assert_eq!(rest, format!("(tcp, {backend})\n"));
        Self { address: address.parse().unwrap(), process: Process(process), output }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// Waits for the end of the process; returns its status and what it wrote to standard error.
    fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.process.wait();
        let (mut output, mut errors) = (String::new(), String::new());
        self.output.read_to_string(&mut output).unwrap();
        assert_eq!(output, "", "one line is all that it prints");
        self.process.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (status, errors)
    }
}

/// Bytes that tell where they stand in the stream.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

fn echo_many(mut stream: TcpStream) {
    for round in 0..100 {
        let message = format!("message {round}");
        stream.write_all(message.as_bytes()).unwrap();
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message.as_bytes());
    }
    let data = pattern(1 << 20);
    let mut writing = stream.try_clone().unwrap();
    let sent = data.clone();
    let writer = thread::spawn(move || writing.write_all(&sent).unwrap());
    let mut answer = vec![0; data.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == data, "a mebibyte comes back whole and in order");
    writer.join().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn serves_until(signal: Signal) {
    let mut server = EchoServer::start("127.0.0.1:0");
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let stream = server.connect();
            thread::spawn(move || echo_many(stream))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // One connection stays open; its peer sees it end.
    let mut open = server.connect();
    open.write_all(b"still here").unwrap();
    open.read_exact(&mut [0; 10]).unwrap();
    server.process.signal(signal);
    let (status, errors) = server.wait();
    assert_eq!(status.code(), Some(0), "{errors}");
    let (waiting, ended) = errors.trim_end().split_once('\n').unwrap();
    let count = waiting.strip_prefix(&format!("ringspun: {signal}: waiting up to 1s for ")).unwrap();
    let count = count.strip_suffix(" to end; another signal exits immediately").unwrap();
    // The ends of the other three may still be on their way.
    let (count, connections) = count.split_once(' ').unwrap();
    assert!((1..=4).contains(&count.parse().unwrap()) && connections.starts_with("connection"), "{errors}");
    assert_eq!(ended, "ringspun: served 4 connections; closed 1 connection that had not ended");
    assert_eq!(open.read(&mut [0; 1]).unwrap(), 0);
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn the_echo_server_serves_until_sigterm() {
    serves_until(Signal::SIGTERM);
}

#[test]
fn the_echo_server_serves_until_sigint() {
    serves_until(Signal::SIGINT);
}

#[test]
fn a_drain_lets_connections_end_and_the_server_says_so() {
    let mut server = EchoServer::start_with("127.0.0.1:0", &["--drain", "1h", "--workers", "2"]);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let echo = |client: &mut TcpStream| {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    };
    clients.iter_mut().for_each(echo);
    server.process.signal(Signal::SIGTERM);
    // It accepts no more, but goes on with those that it has.
    while TcpStream::connect(server.address).is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
    clients.iter_mut().for_each(echo);
    drop(clients);
    let (status, errors) = server.wait();
    assert_eq!(status.code(), Some(0), "{errors}");
    let (waiting, ended) = errors.trim_end().split_once('\n').unwrap();
    let count = waiting.strip_prefix("ringspun: SIGTERM: waiting up to 3600s for ").unwrap();
    let count = count.strip_suffix(" connections to end; another signal exits immediately").unwrap();
    // The attempts above may have been accepted.
    assert!(count.parse::<usize>().unwrap() >= 4, "{errors}");
    assert!(ended.starts_with("ringspun: served ") && ended.ends_with(" connections"), "{errors}");
}

#[test]
fn a_second_signal_ends_a_drain_immediately() {
    let mut server = EchoServer::start_with("127.0.0.1:0", &["--drain", "1h"]);
    let mut client = server.connect();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    server.process.signal(Signal::SIGINT);
    while TcpStream::connect(server.address).is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
    // Not SIGINT, which the shell has background jobs ignore.
    server.process.signal(Signal::SIGTERM);
    let (status, errors) = server.wait();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{errors}");
}

#[test]
fn a_server_that_nobody_used_stops_too() {
    let mut server = EchoServer::start("localhost:0");
    server.process.signal(Signal::SIGTERM);
    let (status, errors) = server.wait();
    assert_eq!((status.code(), errors.as_str()), (Some(0), "ringspun: served 0 connections\n"));
}

#[test]
fn a_server_tells_what_its_loop_holds() {
    let mut server = EchoServer::start_with("127.0.0.1:0", &["--statistics", "--workers", "1"]);
    let mut lines = BufReader::new(server.process.0.stderr.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let idle = next();
    assert_eq!(idle["connections"], 0);
    let mut client = server.connect();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    // What was counted may have been written before the connection came.
    let served = std::iter::repeat_with(&mut next).find(|held| held["connections"] == 1).unwrap();
    let more = |name: &str| served[name].as_i64().unwrap() - idle[name].as_i64().unwrap();
    assert_eq!(more("fibers"), 1, "{served}");
    drop(client);
    let ended = std::iter::repeat_with(&mut next).find(|held| held["fibers"] == idle["fibers"]).unwrap();
    for name in ["operations_in_flight", "timers", "buffers_lent", "blocking_calls"] {
        assert_eq!(ended[name], idle[name], "{name}");
    }
    let count = |name: &str| ended[name].as_u64().unwrap();
    assert!(count("waits") > 0 && count("busy_polled") <= count("waits"), "{ended}");
    assert!(ended["blocking_cost_ns"].is_null() || ended["blocking_cost_ns"].as_u64() > Some(0), "{ended}");
}

#[test]
fn a_server_shares_connections_among_its_workers_and_tells_of_each() {
    let mut server = EchoServer::start_with("127.0.0.1:0", &["--statistics", "--workers", "4"]);
    let mut lines = BufReader::new(server.process.0.stderr.take().unwrap()).lines();
    let clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for mut client in &clients {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    let mut live = [None; 4];
    // Until each worker has told of connections, after all have come.
    while live.iter().flatten().sum::<u64>() < 64 {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        live[line["worker"].as_u64().unwrap() as usize] = line["live"].as_u64();
        assert!(line["processor_time_ns"].as_u64() > Some(0), "{line}");
        assert_eq!(line["connections"], line["live"]);
    }
    assert!(live.iter().all(|live| (15..=17).contains(&live.unwrap_or(0))), "{live:?}");
}

#[test]
fn a_server_stops_while_a_client_takes_no_answers() {
    let mut server = EchoServer::start("127.0.0.1:0");
    let mut client = server.connect();
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    // More than the sockets' buffers hold, so that the server's write waits when the signal comes.
    client.set_nonblocking(true).unwrap();
    let data = pattern(1 << 16);
    while client.write(&data).is_ok() {}
    server.process.signal(Signal::SIGTERM);
    let (status, errors) = server.wait();
    assert_eq!(status.code(), Some(0), "{errors}");
    let ended = "served 1 connection; closed 1 connection that had not ended\n";
    assert!(errors.ends_with(ended), "{errors}");
}

#[test]
fn one_server_serves_connections_datagrams_and_unix_sockets() {
    let path = scratch_path("echo.socket");
    let path = path.to_str().unwrap();
    let places = ["--tcp", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--unix", path];
    let mut command = ringspun(&[&["serve", "echo"][..], &places].concat());
    let mut server = Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(server.0.stdout.take().unwrap());
    let addresses = ["(tcp, ", "(udp, ", "(unix, "].map(|kind| {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let (address, rest) = line.strip_prefix("listening on ").unwrap().split_once(' ').unwrap();
        assert!(rest.starts_with(kind), "{line}");
        address.to_string()
    });
    assert_eq!(addresses[2], format!("unix:{path}"));
    let mut answer = [0; 5];
    let mut stream = TcpStream::connect(&addresses[0]).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut answer).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.send_to(b"", &addresses[1]).unwrap();
    assert_eq!(socket.recv_from(&mut answer).unwrap().0, 0);
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut answer).unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let mut errors = String::new();
    server.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let ended = "ringspun: served 2 connections and 1 datagram; closed 2 connections that had not ended\n";
    assert!(errors.ends_with(ended), "{errors}");
    assert!(!Path::new(path).exists(), "the socket's path is removed");
}

#[test]
fn a_port_in_use_is_named() {
    // Without SO_REUSEPORT, so that nobody else can bind it.
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let output = output_of(&["serve", "echo", "--tcp", &address]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.starts_with(&format!("ringspun: listen {address}: ")), "{errors}");
    assert!(errors.contains("in use"), "{errors}");
    assert_eq!(text_of(&output), "");
}

#[test]
fn a_bad_address_is_named_with_what_was_expected() {
    for address in ["nonsense", "127.0.0.1:65536"] {
        let output = output_of(&["serve", "echo", "--tcp", address]);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(&format!("'{address}'")), "{errors}");
        assert!(errors.contains("HOST:PORT"), "{errors}");
    }
}

#[test]
fn an_address_that_cannot_be_looked_up_fails_and_is_named() {
    let output = output_of(&["serve", "echo", "--tcp", "127.0.0.1:no-such-service"]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.starts_with("ringspun: listen 127.0.0.1:no-such-service: "), "{errors}");
}

#[test]
fn what_is_no_command_exits_with_two() {
    for arguments in [&["no-such-command"][..], &["serve", "echo"], &["doctor", "--no-such-flag"], &[]] {
        let output = output_of(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", error_text(&output));
        assert_eq!(text_of(&output), "", "{arguments:?}");
    }
}

/// With the release and build of the VM, as that prints them itself.
fn version_line() -> String {
    let vm = text_of(&output_of(&["janet", "-v"]));
    format!("ringspun {} (Janet {})\n", env!("CARGO_PKG_VERSION"), vm.trim_end())
}

#[test]
fn version_and_help_are_answered() {
    let version = output_of(&["--version"]);
    assert!(version.status.success());
    assert_eq!(text_of(&version), version_line());
    let help = output_of(&["--help"]);
    assert!(help.status.success());
    assert!(text_of(&help).contains("ringspun serve echo --tcp"), "{}", text_of(&help));
}

#[test]
fn what_follows_janet_is_janets_own() {
    for flag in ["--help", "-h", "--version", "--"] {
        let output = output_of(&["janet", flag]);
        let told = text_of(&output) + &error_text(&output);
        assert!(!told.contains("Usage: ringspun"), "{flag}: {told}");
        assert_ne!(text_of(&output), version_line(), "{flag}");
        assert_ne!(output.status.code(), Some(2), "{flag}: {told}");
    }
}

#[test]
fn a_backend_that_does_not_exist_is_named_with_what_was_expected() {
    for arguments in [&["doctor"][..], &["doctor", "--json"], &["serve", "echo", "--tcp", "127.0.0.1:0"]] {
        let output = ringspun(arguments).env("RINGSPUN_BACKEND", "nonsense").output().unwrap();
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("RINGSPUN_BACKEND=nonsense: expected"), "{arguments:?}: {errors}");
    }
    let output = ringspun(&["doctor", "--json"]).env("RINGSPUN_BACKEND", "nonsense").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["can_run"], &report["backend"]["name"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(report["backend"]["requested"], "nonsense");
}

#[test]
fn an_invalid_environment_variable_is_named_with_what_was_expected() {
    let serve = &["serve", "echo", "--tcp", "127.0.0.1:0"][..];
    let janet = &["janet", "-e", "(net/listen `127.0.0.1` `0`)"][..];
    for (arguments, name, value, expected) in [
        (serve, "RINGSPUN_SPIN_MAX_US", "50us", "microseconds"),
        (janet, "RINGSPUN_SPIN_MAX_US", "50us", "microseconds"),
        (serve, "RINGSPUN_SPIN", "on", "cpu, latency or off"),
        (janet, "RINGSPUN_SPIN", "on", "cpu, latency or off"),
        (serve, "RINGSPUN_RECORD_WAITS", "yes", "1 or 0"),
    ] {
        let output = ringspun(arguments).env(name, value).output().unwrap();
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(&format!("{name}={value}: expected {expected}")), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_server_without_descriptors_names_the_limit() {
    let started = Instant::now();
    let script = "ulimit -n 64 && exec \"$0\" serve echo --tcp 127.0.0.1:0";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_ringspun")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = Process(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(' ').nth(2).unwrap().to_string();
    let clients: Vec<_> = (0..80).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    let mut warning = String::new();
    log.read_line(&mut warning).unwrap();
    assert!(warning.contains("WARN") && warning.contains("(RLIMIT_NOFILE) is 64"), "{warning}");
    assert!(warning.contains(&address), "{warning}");
    server.signal(Signal::SIGTERM);
    server.wait();
    drop(clients);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    let more = rest.matches("RLIMIT_NOFILE").count() as u64;
    assert!(more <= started.elapsed().as_secs() / 10, "at most one warning every 10 s: {rest}");
}

#[test]
fn a_closed_standard_output_is_no_reason_to_panic() {
    for arguments in [&["doctor"][..], &["doctor", "--json"], &["--help"], &["--version"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = ringspun(arguments).stdout(writer).output().unwrap();
        assert_eq!(error_text(&output), "", "{arguments:?}");
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure() {
    for arguments in
        [&["doctor"][..], &["doctor", "--json"], &["--help"], &["--version"], &["load", "--help"]]
    {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = ringspun(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(error_text(&output).contains("cannot write to standard output"), "{arguments:?}");
    }
}

/// The port of TCP on which a process listens, once it does.
fn listening_port(process: u32) -> Option<u16> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    let targets: Vec<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok()?.into_os_string().into_string().ok())
        .collect();
    // Its columns: number, own address, peer's, state (0A: listening), and the inode as the tenth.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| row[3] == "0A" && targets.contains(&format!("socket:[{}]", row[9])));
    own.filter_map(|row| u16::from_str_radix(row[1].rsplit(':').next()?, 16).ok()).next()
}

#[test]
fn a_server_whose_output_nobody_reads_serves_all_the_same() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = ringspun(&["serve", "echo", "--tcp", "127.0.0.1:0"]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut process = Process(command.spawn().unwrap());
    let start = Instant::now();
    let mut client = loop {
        // It cannot tell its port.
        if let Some(port) = listening_port(process.0.id()) {
            break TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
        assert_eq!(process.0.try_wait().unwrap(), None, "the server ended");
        assert!(start.elapsed() < HANG, "the server does not listen");
        thread::sleep(Duration::from_millis(2));
    };
    client.set_read_timeout(Some(HANG)).unwrap();
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
}
