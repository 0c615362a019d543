//! The programs of the manual of Janet's networking, exactly as printed there, on Ringspun and on the VM's
//! own net code.
//!
//! The programs are in `tests/janet/manual/`. They use ports 8000 and 8009 of 127.0.0.1, so each test runs in a
//! network namespace of its own, where nothing else does; where that is not allowed, they run one at a time,
//! if the ports are free. Those with Unix sockets use `/tmp/my.socket` too, and get a `/tmp` of their own.

use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::namespace;

/// Where the programs listen, and connect to.
const ADDRESS: &str = "127.0.0.1:8000";
/// Where those with datagrams do.
const DATAGRAM_ADDRESS: &str = "127.0.0.1:8009";
/// How long the echo server makes each client wait.
const ECHO_PAUSE: Duration = Duration::from_secs(10);
/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

/// How long to wait for the ports where there is no namespace.
const PORTS_WAIT: Duration = Duration::from_secs(5);

/// Runs a test where it has the ports for itself: in a network of its own, or right here under a lock.
fn with_ports(test: &str, body: impl Fn()) {
    static PORTS: Mutex<()> = Mutex::new(());

    if namespace::in_namespace(&format!("{}::{test}", module_path!()), "true", &body) {
        return;
    }
    let _lock = PORTS.lock();
    let start = Instant::now();
    // The kernel takes a ring apart, and closes what it holds, some time after its process has ended.
    while let Err(error) = TcpListener::bind(ADDRESS).and_then(|_| UdpSocket::bind(DATAGRAM_ADDRESS)) {
        if start.elapsed() > PORTS_WAIT {
            println!("SKIPPED {test}: no network namespace can be made here, and a port is taken: {error}");
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    body();
}

/// Runs a test where it has the name `@my.socket` for itself, and where `/tmp` can be replaced.
fn with_unix_names(test: &str, body: impl Fn()) {
    if !namespace::in_namespace(&format!("{}::{test}", module_path!()), "mount --bind /tmp /tmp", body) {
        println!("SKIPPED {test}: /tmp cannot be replaced in a namespace here");
    }
}

/// A program of the manual, which does not outlive its test.
struct Program(Child);

impl Program {
    fn start(net: &str, file: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["janet", file]);
        Self::spawn(command, net)
    }

    /// Starts it where `/tmp` is the given folder.
    fn start_with_tmp(net: &str, file: &str, folder: &Path) -> Self {
        // Opened before, as the mount may hide the executable.
        const SCRIPT: &str = r#"exec 9<"$0" && mount --bind "$1" /tmp && exec /proc/self/fd/9 janet "$2""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_ringspun")]).arg(folder).arg(file);
        Self::spawn(command, net)
    }

    fn spawn(mut command: Command, net: &str) -> Self {
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/janet/manual"));
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

fn datagram_client_sends_receives_and_prints(net: &str) {
    let server = UdpSocket::bind(DATAGRAM_ADDRESS).unwrap();
    server.set_read_timeout(Some(HANG)).unwrap();
    let questions = [(); 2].map(|()| {
        let program = Program::start(net, "udp_client.janet");
        let mut question = [0; 1024];
        let (length, client) = server.recv_from(&mut question).unwrap();
        server.send_to(b"a reply", client).unwrap();
        assert_eq!(printed(program.end()), "@\"a reply\"\n");
        String::from_utf8(question[..length].to_vec()).unwrap()
    });
    for question in &questions {
        let shown = question.strip_prefix("@\"").and_then(|text| text.strip_suffix('"'));
        assert_eq!(shown.map(bytes_shown), Some(16), "{question}");
    }
    assert_ne!(questions[0], questions[1], "the bytes are random");
}

/// How many bytes a text stands for in which Janet has shown a buffer: `\x` and two digits, a backslash and
/// a character, or the byte itself.
fn bytes_shown(text: &str) -> usize {
    let mut characters = text.chars();
    let mut count = 0;
    while let Some(character) = characters.next() {
        if character == '\\' && characters.next() == Some('x') {
            characters.by_ref().take(2).for_each(drop);
        }
        count += 1;
    }
    count
}

fn datagram_server_echoes_to_each_sender(net: &str) {
    // More than what the C library holds back of an output that is no terminal.
    const QUESTIONS: usize = 40;
    let mut program = Program::start(net, "udp_server.janet");
    let [first, second] = [(); 2].map(|()| connect_datagram());
    for number in 0..QUESTIONS {
        let question = |name: &str| format!("question {number} of the {name}, {}", "x".repeat(200));
        first.send(question("first").as_bytes()).unwrap();
        second.send(question("second").as_bytes()).unwrap();
        for (client, name) in [(&first, "first"), (&second, "second")] {
            assert_eq!(datagram(client), question(name).as_bytes());
        }
    }
    first.send(&[b'y'; 2000]).unwrap();
    assert_eq!(datagram(&first), [b'y'; 1024], "it takes 1024 bytes of each, and drops the rest");
    assert!(program.is_running());
    program.0.kill().unwrap();
    let mut output = String::new();
    program.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(output.lines().count() > 4, "{output}");
    let probe = "got @\"are you there?\" from <core/socket-address 0x";
    assert!(output.starts_with(probe), "{output}");
    let line = output.lines().nth(2).unwrap();
    assert!(line.starts_with("got @\"question 0 of the first, xxx"), "{line}");
    assert!(line.contains("xxx\" from <core/socket-address 0x") && line.ends_with(">, echoing!"), "{line}");
}

/// A socket that has had an answer of a datagram server that has just been started.
fn connect_datagram() -> UdpSocket {
    const PROBE: &[u8] = b"are you there?";
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(DATAGRAM_ADDRESS).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    let start = Instant::now();
    loop {
        let mut answer = [0; 1024];
        match socket.send(PROBE).and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => {
                assert_eq!(&answer[..length], PROBE);
                return socket;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
        assert!(start.elapsed() < HANG, "nobody receives");
        thread::sleep(Duration::from_millis(2));
    }
}

fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    let length = socket.recv(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// An empty folder to be the `/tmp` of a program. Its name is short, as that of a Unix socket in it has to be.
fn empty_folder(name: &str, net: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{net}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(HANG)).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        assert!(start.elapsed() < HANG, "nobody connects to {:?}", listener.local_addr());
        thread::sleep(Duration::from_millis(2));
    }
}

fn unix_connects_reach_a_path_and_an_abstract_name(net: &str) {
    let folder = empty_folder("reach", net);
    let listeners = [
        UnixListener::bind(folder.join("my.socket")).unwrap(),
        UnixListener::bind_addr(&SocketAddr::from_abstract_name("my.socket").unwrap()).unwrap(),
    ];
    let program = Program::start_with_tmp(net, "unix_connects.janet", &folder);
    for listener in listeners {
        let mut stream = accept(&listener);
        assert_eq!(
            stream.read(&mut [0; 16]).unwrap(),
            0,
            "it says nothing, and its end closes the connection"
        );
    }
    assert_eq!(printed(program.end()), "");
}

fn unix_connects_tell_which_of_the_two_nobody_listens_at(net: &str) {
    let folder = empty_folder("nobody", net);
    let fails = |expected: &str, line: &str| {
        let output = Program::start_with_tmp(net, "unix_connects.janet", &folder).end();
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.starts_with(&format!("error: could not connect socket: {expected}\n  in net/connect")),
            "{errors}"
        );
        assert!(errors.contains(line), "{errors}");
    };
    fails("No such file or directory", "on line 2,");
    let _listener = UnixListener::bind(folder.join("my.socket")).unwrap();
    fails("Connection refused", "on line 5,");
}

/// One test of each on the ring, and one on the VM's own net code: what is expected is the same. Each is given
/// what it needs by the function before it.
macro_rules! on_both {
    ($($with:ident: $($scenario:ident)*;)*) => {
        mod on_the_ring {
            $($(#[test]
            fn $scenario() {
                super::$with(concat!("on_the_ring::", stringify!($scenario)), || super::$scenario("ring"));
            })*)*
        }

        mod on_stock {
            $($(#[test]
            fn $scenario() {
                super::$with(concat!("on_stock::", stringify!($scenario)), || super::$scenario("stock"));
            })*)*
        }
    };
}

on_both! {
    with_ports:
        client_connects_writes_reads_and_closes
        client_reads_the_end_of_the_stream_as_nil
        client_is_refused
        server_handles_ten_connections
        echo_server_makes_all_clients_wait_at_once
        datagram_client_sends_receives_and_prints
        datagram_server_echoes_to_each_sender;
    with_unix_names:
        unix_connects_reach_a_path_and_an_abstract_name
        unix_connects_tell_which_of_the_two_nobody_listens_at;
}
