//! The TCP programs of the manual of Janet's networking, exactly as printed there, on Ringspun and on the
//! VM's own net code.
//!
//! The programs are in `tests/manual/`. They use port 8000 of 127.0.0.1, so each test runs in a network
//! namespace of its own, where nothing else does; where that is not allowed, they run one at a time, if
//! the port is free.

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the programs listen, and connect to.
const ADDRESS: &str = "127.0.0.1:8000";
/// How long the echo server makes each client wait.
const ECHO_PAUSE: Duration = Duration::from_secs(10);
/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

/// Set in a test that has a network namespace of its own.
const NAMESPACE_VARIABLE: &str = "RINGSPUN_TEST_NAMESPACE";

/// Runs a test where it has port 8000 for itself: the whole test again, as a process in a namespace of its
/// own, or right here under a lock.
fn with_port_8000(test: &str, body: impl FnOnce()) {
    static PORT: Mutex<()> = Mutex::new(());

    if env::var_os(NAMESPACE_VARIABLE).is_some() {
        return body();
    }
    let namespace = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "sh", "-c", &format!("ip link set lo up && {command}")]);
        unshare
    };
    if namespace("true").output().is_ok_and(|output| output.status.success()) {
        let mut again = namespace("exec \"$0\" \"$@\"");
        again.arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
        let output = again.env(NAMESPACE_VARIABLE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "in a namespace:\n{text}\n{errors}");
        return;
    }
    let _lock = PORT.lock();
    if let Err(error) = TcpListener::bind(ADDRESS) {
        println!("SKIPPED {test}: no network namespace can be made here, and {ADDRESS} is taken: {error}");
        return;
    }
    body();
}

/// A program of the manual, which does not outlive its test.
struct Program(Child);

impl Program {
    fn start(net: &str, file: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["janet", &format!("{}/tests/manual/{file}", env!("CARGO_MANIFEST_DIR"))]);
        command.env("RINGSPUN_NET", net).stdin(Stdio::null());
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end; gives what it wrote, which is little enough to fit into the pipes.
    fn end(mut self) -> Output {
        let start = Instant::now();
        while self.is_running() {
            assert!(start.elapsed() < HANG, "the program does not end");
            thread::sleep(Duration::from_millis(2));
        }
        let mut output = Output { status: self.0.wait().unwrap(), stdout: Vec::new(), stderr: Vec::new() };
        self.0.stdout.take().unwrap().read_to_end(&mut output.stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
        output
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it has ended and has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program that succeeded has printed. The numbers of descriptors are cut out: they depend on what
/// else the process has open.
fn printed(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{:?}: {errors}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    match text.split_once("[fd=") {
        Some((before, after)) => {
            format!("{before}[fd=N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text,
    }
}

/// Connects to a server that has just been started.
fn connect() -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(ADDRESS) {
            Ok(stream) => {
                stream.set_read_timeout(Some(HANG)).unwrap();
                return stream;
            }
            Err(error) => assert!(start.elapsed() < HANG, "nobody listens: {error}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads to the end of the stream: an end, and no error, is part of what is expected.
fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn client_connects_writes_reads_and_closes(net: &str) {
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let program = Program::start(net, "client.janet");
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let mut words = [0; 7];
    stream.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"Echo...");
    stream.write_all(b"a reply").unwrap();
    assert_eq!(rest(&stream), "", "the client closes the connection, and has said nothing more");
    let expected = "Connected to <core/stream [fd=N]>!\nWrote to connection...\n@\"a reply\"\n";
    assert_eq!(printed(program.end()), expected);
}

fn client_reads_the_end_of_the_stream_as_nil(net: &str) {
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let program = Program::start(net, "client.janet");
    let (stream, _) = listener.accept().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&stream), "Echo...");
    assert_eq!(printed(program.end()), "Connected to <core/stream [fd=N]>!\nWrote to connection...\nnil\n");
}

fn client_is_refused(net: &str) {
    let output = Program::start(net, "client.janet").end();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("error: Connection refused\n  in net/connect"), "{errors}");
}

fn server_handles_ten_connections(net: &str) {
    let mut program = Program::start(net, "ten_connections.janet");
    for number in 1..=10 {
        assert!(program.is_running(), "the server has ended before connection {number}");
        assert_eq!(rest(&connect()), "Hello from server!", "connection {number}");
    }
    assert_eq!(printed(program.end()), "");
    assert!(TcpStream::connect(ADDRESS).is_err(), "the port is free again");
}

fn echo_server_makes_all_clients_wait_at_once(net: &str) {
    const CLIENTS: usize = 8;
    let program = Program::start(net, "echo_server.janet");
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    // The last to connect is the first to speak.
    for (number, mut stream) in streams.iter().enumerate().rev() {
        stream.write_all(format!("message {number}").as_bytes()).unwrap();
    }
    let begin = Instant::now();
    let answered: Vec<Duration> = streams
        .iter()
        .enumerate()
        .map(|(number, stream)| {
            assert_eq!(rest(stream), format!("Echo: message {number}"));
            begin.elapsed()
        })
        .collect();
    // One after the other, there would be a pause between any two of them.
    let spread = answered[CLIENTS - 1] - answered[0];
    assert!(spread < ECHO_PAUSE, "the answers came one after the other: {answered:?}");
    kill(Pid::from_raw(program.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let output = program.end();
    assert_eq!(output.status.code(), None, "it runs until it is killed");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b""[..]));
}

/// One test of each on the ring, and one on the VM's own net code: what is expected is the same.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod on_the_ring {
            $(#[test]
            fn $scenario() {
                super::with_port_8000(concat!("on_the_ring::", stringify!($scenario)), || super::$scenario("ring"));
            })*
        }

        mod on_stock {
            $(#[test]
            fn $scenario() {
                super::with_port_8000(concat!("on_stock::", stringify!($scenario)), || super::$scenario("stock"));
            })*
        }
    };
}

on_both! {
    client_connects_writes_reads_and_closes
    client_reads_the_end_of_the_stream_as_nil
    client_is_refused
    server_handles_ten_connections
    echo_server_makes_all_clients_wait_at_once
}
