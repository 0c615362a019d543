//! The examples run, and what the README shows is what runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::backend;
use crate::support::closing::leave_dead_socket;
use crate::support::scratch::scratch_path;

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");
/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn janet(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(RINGSPUN);
    command.arg("janet").arg(project(&format!("examples/{script}"))).args(arguments);
    command
}

fn rust(example: &str, arguments: &[&str]) -> Command {
    let path = Path::new(RINGSPUN).with_file_name("examples").join(example);
    assert!(path.exists(), "cargo builds {path:?} for a whole test run, or by `cargo build --examples`");
    let mut command = Command::new(path);
    command.args(arguments);
    command
}

/// An example that serves, and ends with the test.
struct Server {
    process: Child,
    output: BufReader<ChildStdout>,
    /// Where it says that it listens.
    address: String,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening at ").expect("a server prints its address");
        Self { address: address.to_string(), process, output }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream
    }

    fn end(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < HANG, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended and has been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts an echo server that prints its address, and echoes once.
fn echoes(command: Command) {
    let server = Server::start(command);
    let mut stream = server.connect();
    stream.write_all(b"Echo...").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"Echo...");
}

#[test]
fn the_tour_ends_by_itself_and_says_which_backend_served_it() {
    let output = janet("tour.janet", &[]).output().unwrap();
    let backend = format!("served by {}", backend::expected());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        &backend,
        "the echo server answered: Echo...",
        "all 10000 messages came back",
        // The order is that of their pauses, unless the machine was busy with other things.
        "they finished in this order: ",
        "1048576 bytes came back, unchanged",
        "gave the error: timeout",
        "what came later: still here",
        "gets: Connection refused",
    ] {
        assert!(text.contains(line), "{line:?} is missing from:\n{text}");
    }
}

#[test]
fn the_hello_servers_echo() {
    echoes(janet("hello.janet", &[]));
    echoes(janet("echo.janet", &[]));
    echoes(rust("hello", &[]));
}

#[test]
fn the_readme_shows_the_hello_programs_as_they_are_and_in_under_fifteen_lines() {
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    for path in ["examples/hello.janet", "examples/hello.rs"] {
        let program = std::fs::read_to_string(project(path)).unwrap();
        assert!(readme.contains(&program), "{path} is not in the README as it is");
        assert!(program.lines().count() < 15, "{path} has grown");
    }
}

#[test]
fn the_book_names_every_example() {
    let index = fs::read_to_string(project("docs/index.md")).unwrap();
    for entry in fs::read_dir(project("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // What scripts measure.
        let is_tool = name == "echo.janet";
        let is_named = index.contains(&format!("examples/{name}"));
        assert!(is_tool || is_named, "examples/{name} is not in docs/index.md");
    }
}

#[test]
fn the_http_server_keeps_connections_and_refuses_what_it_does_not_understand() {
    let server = Server::start(rust("http", &["127.0.0.1:0"]));
    let answer = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n", body.len())
    };
    let refusal =
        |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(17_000));
    let ends = "Connection: close\r\n\r\n";
    for (parts, expected) in [
        // In one piece, and two requests at once.
        (
            vec![
                "GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            ],
            answer("GET /a\n") + "\r\nGET /a\n" + &answer("HEAD /b\n") + ends,
        ),
        // A request that comes in pieces, with a body.
        (
            vec!["POST /c HTTP/1.1\r\nContent-Le", "ngth: 4\r\n\r\nab", "cdGET / HTTP/1.0\r\n\r\n"],
            answer("POST /c\n") + "\r\nPOST /c\n" + &answer("GET /\n") + ends + "GET /\n",
        ),
        (vec!["nonsense\r\n\r\n"], refusal("400 Bad Request")),
        (vec!["GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"], refusal("400 Bad Request")),
        (
            vec!["GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n."],
            refusal("400 Bad Request"),
        ),
        (vec!["GET / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n"], refusal("413 Content Too Large")),
        (vec!["GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"], refusal("501 Not Implemented")),
        (vec![long.as_str()], refusal("431 Request Header Fields Too Large")),
    ] {
        let mut stream = server.connect();
        for part in &parts {
            stream.write_all(part.as_bytes()).unwrap();
            // So that most parts come by themselves; the answer is the same if not.
            thread::sleep(Duration::from_millis(5));
        }
        let mut received = String::new();
        // A reset may follow an answer to what was not read to its end.
        let _ = stream.read_to_string(&mut received);
        assert_eq!(received, expected, "{parts:?}");
    }
}

#[test]
fn the_http_server_can_be_read_in_one_sitting() {
    let program = fs::read_to_string(project("examples/http.rs")).unwrap();
    assert!(program.lines().count() < 200, "examples/http.rs has grown");
}

#[test]
fn the_http_server_in_janet_serves_on_every_core() {
    let server = Server::start(janet("http.janet", &["127.0.0.1", "0"]));
    let answer = |body: &str, more: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}{more}\r\n\r\n")
    };
    let ends = "\r\nConnection: close";
    let (get, post) = ("GET /a, with 0 bytes\n", "POST /c, with 4 bytes\n");
    for (parts, expected) in [
        (
            vec!["GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n"],
            answer(get, "") + get + &answer("HEAD /a, with 0 bytes\n", ends),
        ),
        (
            vec!["POST /c HTTP/1.1\r\nContent-Le", "ngth: 4\r\n\r\nab", "cdGET /a HTTP/1.0\r\n\r\n"],
            answer(post, "") + post + &answer(get, ends) + get,
        ),
    ] {
        let mut stream = server.connect();
        for part in &parts {
            stream.write_all(part.as_bytes()).unwrap();
            // So that most parts come by themselves; the answer is the same if not.
            thread::sleep(Duration::from_millis(5));
        }
        let mut received = String::new();
        stream.read_to_string(&mut received).unwrap();
        assert_eq!(received, expected, "{parts:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(17_000));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nContent-Length: 1000001\r\n\r\n", "413 Content Too Large"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request"),
        (long.as_str(), "400 Bad Request"),
    ] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = String::new();
        // A reset may follow an answer to what was not read to its end.
        let _ = stream.read_to_string(&mut received);
        assert!(received.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {received:?}");
    }
}

/// A client of a chat.
struct Chatter {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Chatter {
    fn enter(server: &Server, name: &str) -> Self {
        let stream = server.connect();
        let mut chatter = Self { lines: BufReader::new(stream.try_clone().unwrap()), stream };
        assert_eq!(chatter.hear(), "* what is your name?");
        chatter.say(name);
        chatter
    }

    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_string()
    }
}

fn people_chat(command: Command) {
    // More than what the kernel holds of a connection, and the chat for a client.
    const LINES_MAX: usize = 20_000;
    let server = Server::start(command);
    let mut ann = Chatter::enter(&server, "ann");
    assert_eq!(ann.hear(), "* welcome; with you:");
    let mut bob = Chatter::enter(&server, "bob");
    assert_eq!(bob.hear(), "* welcome; with you: ann");
    assert_eq!(ann.hear(), "* bob has come");
    // Who listens and does not read is told of, too.
    let slow = Chatter::enter(&server, "carl");
    assert_eq!([ann.hear(), bob.hear()], ["* carl has come"; 2].map(String::from));

    // In two pieces, which are one line, and two lines in one piece.
    ann.stream.write_all(b"hel").unwrap();
    ann.stream.write_all(b"lo\nI am Ann\r\n").unwrap();
    assert_eq!([bob.hear(), bob.hear()], ["ann: hello".to_string(), "ann: I am Ann".to_string()]);
    bob.say("and I am Bob");
    assert_eq!(ann.hear(), "bob: and I am Bob");

    let long = "x".repeat(8000);
    let heard = (0..LINES_MAX).find_map(|_| {
        ann.say(&long);
        let line = bob.hear();
        (line != format!("ann: {long}")).then_some(line)
    });
    assert_eq!(
        heard.as_deref(),
        Some("* carl has left"),
        "who does not read is cut off, and holds up nobody"
    );
    assert_eq!(ann.hear(), "* carl has left");
    drop(slow);

    drop(ann);
    loop {
        let line = bob.hear();
        if line == "* ann has left" {
            break;
        }
        assert!(line == format!("ann: {long}"), "{line}");
    }
}

#[test]
fn people_chat_in_janet() {
    people_chat(janet("chat.janet", &["127.0.0.1", "0"]));
}

#[test]
fn people_chat_in_janet_on_every_core() {
    people_chat(janet("chat_cores.janet", &["127.0.0.1", "0"]));
}

#[test]
fn people_chat_in_rust() {
    people_chat(rust("chat", &["127.0.0.1:0"]));
}

#[test]
fn a_name_in_the_chat_is_one_persons() {
    for program in ["chat.janet", "chat_cores.janet"] {
        a_name_is_one_persons(&Server::start(janet(program, &["127.0.0.1", "0"])));
    }
}

fn a_name_is_one_persons(server: &Server) {
    let mut first = Chatter::enter(server, "ann");
    assert_eq!(first.hear(), "* welcome; with you:");
    let mut second = Chatter::enter(server, "ann");
    assert_eq!(second.hear(), "* there is one of that name: ann");
    second.say("");
    assert_eq!(second.hear(), "* a name has a letter at least");
    second.say("anna");
    assert_eq!(second.hear(), "* welcome; with you: ann");
    assert_eq!(first.hear(), "* anna has come");
}

/// A proxy that is started by `proxy` with a target.
fn a_proxy_passes_on_bytes_and_ends(proxy: impl Fn(&str, &str) -> Command) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let target_address = target.local_addr().unwrap();
    let server = Server::start(proxy("127.0.0.1", &target_address.port().to_string()));
    // The target answers when it has all: without the half-close, it never would.
    let answering = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = target.accept().unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            question.reverse();
            stream.write_all(&question).unwrap();
        }
    });
    let idle = server.connect();
    let mut client = server.connect();
    // The target is busy with the idle one until that ends.
    idle.shutdown(Shutdown::Write).unwrap();
    let question: Vec<u8> = (0..1 << 20).map(|index| (index % 251) as u8).collect();
    client.write_all(&question).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.iter().eq(question.iter().rev()), "{} bytes came back", answer.len());
    answering.join().unwrap();

    // The target is gone: its clients are told by an end, and the next are served as well.
    for _ in 0..2 {
        assert_eq!(server.connect().read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn a_proxy_in_janet_passes_on_bytes_and_ends() {
    a_proxy_passes_on_bytes_and_ends(|host, port| janet("proxy.janet", &[host, port, "127.0.0.1", "0"]));
}

#[test]
fn a_proxy_in_rust_passes_on_bytes_and_ends() {
    a_proxy_passes_on_bytes_and_ends(|host, port| rust("proxy", &[&format!("{host}:{port}"), "127.0.0.1:0"]));
}

/// What an example printed that ended with this exit status, and what it wrote to standard error.
fn ended(output: Output, exit_status: i32) -> (String, String) {
    let texts = (output.stdout, output.stderr);
    let (printed, errors) = (String::from_utf8(texts.0).unwrap(), String::from_utf8(texts.1).unwrap());
    assert_eq!(output.status.code(), Some(exit_status), "{printed}{errors}");
    (printed, errors)
}

#[test]
fn datagrams_are_echoed_to_whoever_sent_them() {
    let mut server = Server::start(janet("udp_echo.janet", &["serve", "127.0.0.1", "0"]));
    let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for (number, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(HANG)).unwrap();
        client.send_to(&vec![b'x'; 10 + number], &server.address).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.recv(&mut [0; 100]).unwrap(), 10 + number);
        let mut line = String::new();
        server.output.read_line(&mut line).unwrap();
        let sender = client.local_addr().unwrap();
        assert_eq!(line, format!("{} bytes from {sender}\n", 10 + number));
    }
    let (host, port) = server.address.split_once(':').unwrap();
    let output = janet("udp_echo.janet", &["ask", "hello", host, port]).output().unwrap();
    assert_eq!(ended(output, 0).0, "hello\n");
}

#[test]
fn a_datagram_that_was_lost_is_sent_again() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(HANG)).unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let asking = thread::spawn(move || {
        janet("udp_echo.janet", &["ask", "hello", "127.0.0.1", &port]).output().unwrap()
    });
    let mut question = [0; 100];
    server.recv_from(&mut question).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // On a slow machine it may be asked more than once again, before the answer has come.
    while !asking.is_finished() {
        if let Ok((length, client)) = server.recv_from(&mut question) {
            server.send_to(&question[..length], client).unwrap();
        }
    }
    let (answer, errors) = ended(asking.join().unwrap(), 0);
    assert_eq!(answer, "hello\n");
    assert!(!errors.is_empty() && errors.lines().all(|line| line == "no answer: timeout"), "{errors}");

    let (_, errors) = ended(janet("udp_echo.janet", &["ask"]).output().unwrap(), 2);
    assert!(errors.starts_with("expected: serve [HOST [PORT]], or: ask TEXT"), "{errors}");
}

fn socket_path(name: &str) -> String {
    scratch_path(&format!("{name}.socket")).to_str().unwrap().to_string()
}

#[test]
fn a_command_server_answers_and_removes_its_socket() {
    let path = socket_path("command");
    // A server that was killed has left this one.
    leave_dead_socket(path.as_ref());
    let server = Server::start(janet("command_server.janet", &[&path]));
    assert_eq!(server.address, path);
    let (_, errors) = ended(janet("command_server.janet", &[&path]).output().unwrap(), 1);
    assert_eq!(errors, format!("{path}: another server is listening there\n"));

    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    };
    // Stays connected, and does not keep the server from its end.
    let mut idle = connect();
    let mut stream = connect();
    stream.write_all(b"SET colour dark blue\nget colour\nGET size\nSET size\nwhat\n").unwrap();
    stream.write_all(b"SET age 7\r\nNAMES\nST").unwrap();
    stream.write_all(b"OP\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let expected = [
        "OK",
        "VALUE dark blue",
        "ERROR nothing of that name",
        "ERROR expected: SET NAME VALUE",
        "ERROR expected: SET, GET, NAMES or STOP",
        "OK",
        "NAMES age colour",
        "OK",
    ];
    assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    assert!(!fs::exists(&path).unwrap(), "it removes its socket");
}

#[test]
fn a_command_server_ends_by_a_signal_and_removes_its_socket() {
    let path = socket_path("signal");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(janet("command_server.janet", &[&path]));
        assert!(fs::exists(&path).unwrap());
        kill(Pid::from_raw(server.process.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(server.end().code(), Some(0), "{signal}");
        assert!(!fs::exists(&path).unwrap(), "{signal}: it removes its socket");
    }
}

#[test]
fn jobs_are_fanned_out_and_all_results_collected() {
    for workers in ["1", "7", "100"] {
        let (printed, errors) = ended(janet("fan_out.janet", &[workers]).output().unwrap(), 0);
        assert_eq!(errors, "");
        let answer = |number| {
            let answers = ["quick", "slow", "steady"].map(|name| format!("{name} on question {number}"));
            format!("question {number}: {}\n", answers.join(", "))
        };
        let answers: String = (0..10).map(answer).collect();
        assert_eq!(printed, format!("{answers}30 answers by {workers} workers\n"));
    }
    let (_, errors) = ended(janet("fan_out.janet", &["0"]).output().unwrap(), 2);
    assert_eq!(errors, "\"0\": expected how many workers there are to be\n");
}

#[test]
fn bad_arguments_are_named_with_what_was_expected() {
    for (command, expected) in [
        (rust("chat", &["localhost"]), "chat: address \"localhost\": expected HOST:PORT"),
        (rust("chat", &["127.0.0.1:99999"]), "99999"),
        (rust("chat", &["127.0.0.1:0", "more"]), "chat: expected at most one argument: HOST:PORT"),
        (rust("proxy", &["localhost"]), "proxy: address \"localhost\": expected HOST:PORT"),
        (rust("proxy", &["localhost:1", "here"]), "proxy: address \"here\": expected HOST:PORT"),
        (rust("proxy", &["a:1", "b:2", "more"]), "proxy: expected at most two arguments: [TARGET [LISTEN]]"),
    ] {
        let mut command = command;
        let (printed, errors) = ended(command.output().unwrap(), 2);
        assert!(printed.is_empty() && errors.contains(expected), "{command:?}: {printed}{errors}");
    }
}
