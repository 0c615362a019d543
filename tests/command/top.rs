//! `ringspun top` shows the counts of a running process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;

use super::cli::{error_text, output_of, ringspun, text_of};
use super::dumps::{Ended, first_line, start};
use crate::support::backend;

/// The counts of a line.
fn counts(line: &str) -> BTreeMap<String, String> {
    let count = |part: &str| part.split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
    line.split_whitespace().map(|part| count(part).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The counts of one look at a process.
fn look(source: &str) -> BTreeMap<String, String> {
    let output = output_of(&["top", source, "--interval", "100ms", "--count", "1"]);
    assert!(output.status.success(), "{}", error_text(&output));
    let text = text_of(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    counts(&text)
}

#[test]
fn a_server_is_shown_by_its_number_and_by_its_metrics() {
    for &backend in backend::usable() {
        let arguments =
            ["serve", "echo", "--tcp", "127.0.0.1:0", "--workers", "2", "--metrics", "127.0.0.1:0"];
        let mut server = Ended(start(backend, &arguments));
        let lines = BufReader::new(server.0.stdout.take().unwrap()).lines().take(2);
        let places: Vec<String> =
            lines.map(|line| line.unwrap().split_whitespace().nth(2).unwrap().to_string()).collect();
        let mut peers: Vec<_> = (0..3).map(|_| TcpStream::connect(&places[0]).unwrap()).collect();
        for peer in &mut peers {
            peer.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        for source in [
            &server.0.id().to_string(),
            &places[1],
            &places[1].replace("http://", "").replace("/metrics", ""),
        ] {
            let counts = look(source);
            assert_eq!(counts["connections"], "3", "{counts:?}");
            assert_eq!(counts["new/s"], "0", "{counts:?}");
            assert!(
                counts["fibers"].parse::<u64>().unwrap() >= 3 && counts.contains_key("cpu"),
                "{counts:?}"
            );
        }
    }
}

#[test]
fn a_load_generator_and_a_janet_program_are_shown() {
    for &backend in backend::usable() {
        let mut janet = Ended(start(
            backend,
            &[
                "-e",
                "(net/listen \"127.0.0.1\" \"0\") (ev/spawn (ev/sleep 3600)) (print 1) (flush) (ev/sleep 3600)",
            ],
        ));
        first_line(&mut janet.0);
        let counts = look(&janet.0.id().to_string());
        assert!(
            counts["janet_fibers"].parse::<u64>().unwrap() >= 2 && counts.contains_key("timers"),
            "{counts:?}"
        );

        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("tcp://{}", echo.local_addr().unwrap());
        let load = Ended(start(backend, &["load", &target, "--connections", "1", "--duration", "1h"]));
        let mut peer = echo.accept().unwrap().0;
        thread::spawn(move || {
            let mut piece = [0; 64];
            while peer.read_exact(&mut piece).and_then(|()| peer.write_all(&piece)).is_ok() {}
        });
        // Its progress is noted each second.
        while !look(&load.0.id().to_string()).contains_key("p50") {}
    }
}

/// Starts a look that does not end by itself, and reads its first line.
fn endless(source: &str) -> (Child, BufReader<impl Read + use<>>, String) {
    let mut top = ringspun(&["top", source, "--interval", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut lines, mut line) = (BufReader::new(top.stdout.take().unwrap()), String::new());
    lines.read_line(&mut line).unwrap();
    (top, lines, line)
}

#[test]
fn it_ends_with_its_reader_and_with_the_process() {
    let mut server = Ended(start("poll", &["serve", "echo", "--tcp", "127.0.0.1:0"]));
    first_line(&mut server.0);
    let id = server.0.id().to_string();
    let (mut unread, reader, line) = endless(&id);
    assert_eq!(counts(&line)["connections"], "0");
    drop(reader);
    assert!(unread.wait().unwrap().success());

    let (top, _reader, _) = endless(&id);
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    let output = top.wait_with_output().unwrap();
    let error = error_text(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("process {id}")), "{error}");
}

#[test]
fn what_serves_no_metrics_is_refused() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let serving = thread::spawn(move || {
        for answer in [
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<html>\n",
            "",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let mut client = server.accept().unwrap().0;
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            client.write_all(answer.as_bytes()).unwrap();
        }
    });
    for expected in ["404 Not Found", "\"<html>\": expected a sample", "and got \"\"", "expected metrics"] {
        let output = output_of(&["top", &address, "--count", "1"]);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&address) && error.contains(expected), "{error}");
    }
    serving.join().unwrap();
    // Nobody listens there any more.
    assert!(error_text(&output_of(&["top", &address])).contains("refused"));
    for (arguments, expected) in [
        (["top", "nobody", "--count", "1"], "expected the number of a process, or HOST:PORT"),
        (["top", "1", "--interval", "1ms"], "at least 100ms"),
        (["top", "1", "--count", "0"], "0"),
    ] {
        let output = output_of(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(error_text(&output).contains(expected), "{}", error_text(&output));
    }
}
