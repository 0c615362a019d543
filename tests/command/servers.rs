//! The example servers, asked by clients that others have written: curl, openssl, redis-cli.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::scratch::scratch_path;
use crate::support::serving::Server;

/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

fn example(name: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_ringspun")).with_file_name("examples").join(name);
    assert!(path.exists(), "cargo builds {path:?} for a whole test run, or by `cargo build --examples`");
    let mut command = Command::new(path);
    command.args(arguments);
    command
}

fn serve(name: &str, arguments: &[&str]) -> Server {
    Server::start_command(example(name, arguments))
}

/// Runs a client to its end, and returns what it printed; `None` if it is not installed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut client) = command.spawn() else {
        println!("SKIPPED what {program} asks an example: it is not installed");
        return None;
    };
    let mut stdin = client.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // It may end without having read all.
        scope.spawn(move || drop(stdin.write_all(input)));
        client.wait_with_output().unwrap()
    });
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {printed}{errors}");
    Some(printed.into_owned())
}

fn curl(arguments: &[&str]) -> Option<String> {
    run("curl", &[&["--silent", "--show-error", "--max-time", "60"], arguments].concat(), b"")
}

/// Sends a signal, and returns whether the process then ended with status 0.
fn ends_by(server: &mut Server, signal: Signal) -> bool {
    kill(Pid::from_raw(server.id().try_into().unwrap()), signal).unwrap();
    server.wait(HANG).success()
}

#[test]
fn the_http_server_gives_files_to_curl() {
    let folder = scratch_path("http_files");
    fs::create_dir_all(folder.join("below")).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    for (name, content) in [("small.txt", &b"wool"[..]), ("below/index.html", b"<p>yarn"), ("large", &large)]
    {
        fs::write(folder.join(name), content).unwrap();
    }
    fs::write(folder.with_file_name("secret"), "outside").unwrap();
    let mut server = serve("http", &["127.0.0.1:0", folder.to_str().unwrap()]);
    let url = |path: &str| format!("http://{}{path}", server.address);
    let copy = scratch_path("http_copy");
    let copy = copy.to_str().unwrap();
    // All over one connection.
    let answers = curl(&[
        "--write-out",
        "%{http_code} %{num_connects} %{content_type}\n",
        &url("/small.txt?query"),
        &url("/below/"),
        &url("/missing"),
        &url("/below"),
        "--path-as-is",
        &url("/../secret"),
        &url("/large"),
        "-o-",
        "-o-",
        "-o-",
        "-o-",
        "-o-",
        "-o",
        copy,
    ]);
    if let Some(answers) = answers {
        let expected = "wool200 1 text/plain\n<p>yarn200 0 text/html\n404 0 \n404 0 \n404 0 \n\
                        200 0 application/octet-stream\n";
        assert_eq!(answers, expected);
        assert!(fs::read(copy).unwrap() == large);
        let head = curl(&["--head", &url("/large")]).unwrap();
        assert!(head.contains("Content-Length: 3000000\r\n"), "{head}");
        let refused = curl(&["--data", "x", "--write-out", "%{http_code}", &url("/small.txt")]);
        assert_eq!(refused.as_deref(), Some("405"));
    }
    assert!(ends_by(&mut server, Signal::SIGTERM));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_http_server_answers_what_it_has_received_and_ends_idle_connections_with_the_server() {
    let mut server = serve("http", &["127.0.0.1:0"]);
    let connect = || {
        let stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    };
    let (mut idle, mut asking) = (connect(), connect());
    let read_answer = |stream: &mut TcpStream| {
        let mut answer = String::new();
        let mut lines = BufReader::new(stream);
        while !answer.ends_with("GET /a\n") {
            assert_ne!(lines.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
    };
    for stream in [&mut idle, &mut asking] {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_answer(stream);
    }
    // A refusal reaches a client that sends more than the server takes.
    let mut large = connect();
    large.write_all(b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let sending = large.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let mut sending = sending;
        while sending.write_all(&[0; 10_000]).is_ok() {}
    });
    let mut refusal = [0; 12];
    large.read_exact(&mut refusal).unwrap();
    assert_eq!(&refusal, b"HTTP/1.1 413");
    large.shutdown(Shutdown::Both).unwrap();
    sender.join().unwrap();
    asking.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut asking);
    let started = Instant::now();
    assert!(ends_by(&mut server, Signal::SIGINT));
    // By itself, and not at its time limit.
    assert!(started.elapsed() < HANG);
    for stream in [&mut idle, &mut asking] {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn the_axum_service_keeps_notes_for_curl() {
    let mut server = serve("axum", &["127.0.0.1:0"]);
    let url = |path: &str| format!("http://{}{path}", server.address);
    let status = ["--write-out", "%{http_code}"];
    let ask = |arguments: &[&str], path: &str| curl(&[&status, arguments, &[&url(path)]].concat());
    if let Some(created) = ask(&["--request", "PUT", "--data", "spin wool"], "/notes/today") {
        assert_eq!(created, "201");
        for (arguments, path, expected) in [
            (&["--request", "PUT", "--data", "spin yarn"][..], "/notes/today", "204"),
            (&[], "/notes/today", "spin yarn200"),
            (&[], "/", "today\n200"),
            (&[], "/slow", "after a rest\n200"),
            (&["--request", "DELETE"], "/notes/today", "204"),
            (&[], "/notes/today", "404"),
            (&["--data", "x"], "/notes/today", "405"),
        ] {
            assert_eq!(ask(arguments, path).as_deref(), Some(expected), "{arguments:?} {path}");
        }
        let fetched = example("fetch", &[&url("/"), &url("/slow"), &url("/nowhere")]).output().unwrap();
        let mut lines: Vec<_> =
            String::from_utf8(fetched.stdout).unwrap().lines().map(str::to_string).collect();
        lines.sort();
        let lines: Vec<_> = lines.iter().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(lines, ["200 OK, 0 bytes", "404 Not Found, 0 bytes", "200 OK, 13 bytes"]);
        assert!(fetched.status.success());
    }
    assert!(ends_by(&mut server, Signal::SIGTERM));
}

#[test]
fn fetch_says_what_it_could_not_get() {
    for (url, expected) in [
        ("ftp://localhost/", "expected http:// or https://"),
        ("http://127.0.0.1:1/", "Connection refused"),
        ("nowhere", "expected http:// or https://"),
    ] {
        let output = example("fetch", &[url]).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected) && errors.contains(url), "{errors}");
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(example("fetch", &[]).output().unwrap().status.code(), Some(2));
}

#[test]
fn the_tls_proxy_takes_curl_and_openssl_to_the_http_server() {
    let target = serve("http", &["127.0.0.1:0"]);
    let mut proxy = serve("tls_proxy", &[&target.address, "127.0.0.1:0"]);
    let url = format!("https://{}/through", proxy.address);
    if let Some(answer) = curl(&["--insecure", &url, &url]) {
        assert_eq!(answer, "GET /through\n".repeat(2));
        assert!(
            Command::new("curl").args(["--silent", &url]).status().unwrap().code() == Some(60),
            "no such trust"
        );
    }
    let request = b"GET /by-openssl HTTP/1.1\r\nConnection: close\r\n\r\n";
    let session = ["s_client", "-quiet", "-ign_eof", "-connect", &proxy.address];
    if let Some(answer) = run("openssl", &session, request) {
        assert!(answer.ends_with("\r\n\r\nGET /by-openssl\n"), "{answer}");
    }
    assert!(ends_by(&mut proxy, Signal::SIGTERM));
}

#[test]
fn the_redis_server_takes_commands_of_redis_cli() {
    let mut server = serve("redis", &["127.0.0.1:0"]);
    let port = server.address.rsplit_once(':').unwrap().1.to_string();
    let commands = b"PING\nSET yarn \"ring spun\"\nGET yarn\nGET wool\nINCR count\nINCR count\nINCR yarn\n\
                     SET brief x PX 1\nDEL yarn count nothing\nGET yarn\nSPIN\nECHO \"\"\n";
    if let Some(replies) = run("redis-cli", &["-p", &port], commands) {
        let expected = "PONG\nOK\nring spun\n\n1\n2\nERR value is not an integer or out of range\n\nOK\n2\n\n\
                        ERR unknown command or wrong arguments: 'SPIN'\n\n\n";
        assert_eq!(replies, expected);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(run("redis-cli", &["-p", &port, "GET", "brief"], b"").as_deref(), Some("\n"));
        // Many at once, by the protocol itself.
        let mass: String =
            (0..10_000).map(|number| format!("*2\r\n$4\r\nINCR\r\n$6\r\ntotal{}\r\n", number % 10)).collect();
        let piped = run("redis-cli", &["-p", &port, "--pipe"], mass.as_bytes()).unwrap();
        assert!(piped.contains("errors: 0, replies: 10000"), "{piped}");
        assert_eq!(run("redis-cli", &["-p", &port, "GET", "total7"], b"").as_deref(), Some("1000\n"));
    }
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(b"*1\r\n$4\r\nPI").unwrap();
    stream.write_all(b"NG\r\n*1\r\n$9999999\r\n").unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "+PONG\r\n-ERR Protocol error: expected an array of bulk strings\r\n");
    assert!(ends_by(&mut server, Signal::SIGTERM));
}
