//! `ringspun load` with many connections: where they come from, and what it says when they do not fit.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::namespace;

/// An echo server that tells where its connections come from.
fn server_with_peers() -> (String, mpsc::Receiver<SocketAddr>) {
    let (sender, peers) = mpsc::channel();
    let target = tcp_server(move |mut stream, _| {
        // Nobody may be listening any more.
        let _ = sender.send(stream.peer_addr().unwrap());
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    });
    (target, peers)
}

/// How often each of the addresses is among the peers.
fn counts<const N: usize>(peers: &mpsc::Receiver<SocketAddr>, addresses: [&str; N]) -> [usize; N] {
    let peers: Vec<String> = peers.try_iter().map(|peer| peer.ip().to_string()).collect();
    addresses.map(|address| peers.iter().filter(|peer| *peer == address).count())
}

fn assert_refused(output: &Output, expected: &[&str]) {
    let errors = error_text(output);
    assert_eq!((output.status.code(), text_of(output)), (Some(1), String::new()), "{errors}");
    assert!(expected.iter().all(|expected| errors.contains(expected)), "{expected:?}: {errors}");
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    let (target, peers) = server_with_peers();
    let report =
        measure(&[&target, "--connections", "6", "--bind", "127.0.0.2,127.0.0.3", "--count", "60"], 0);
    assert_eq!(number(&report["connections"]["opened"]), 6);
    assert_eq!(report["plan"]["bind"], serde_json::json!(["127.0.0.2", "127.0.0.3"]));
    assert_eq!(counts(&peers, ["127.0.0.2", "127.0.0.3"]), [3, 3]);

    let (sender, peers) = mpsc::channel();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut message = [0; 64];
        while let Ok((length, peer)) = socket.recv_from(&mut message) {
            let _ = sender.send(peer);
            socket.send_to(&message[..length], peer).unwrap();
        }
    });
    measure(
        &[&target, "--connections", "2", "--bind", "127.0.0.2,127.0.0.3", "--rate", "1k", "--count", "10"],
        0,
    );
    // The next free socket takes a request, whichever it is.
    let counts = counts(&peers, ["127.0.0.2", "127.0.0.3"]);
    assert!(counts.iter().all(|count| *count > 0) && counts.iter().sum::<usize>() == 10, "{counts:?}");
}

#[test]
fn source_addresses_that_cannot_be_used_are_named() {
    let (target, peers) = server_with_peers();
    // An address for examples, which no machine has.
    let output = load(&[&target, "--bind", "127.0.0.2,192.0.2.1", "--count", "1"]);
    assert_refused(&output, &["the source address 192.0.2.1 cannot be used: "]);
    let output = load(&[&target, "--bind", "::1", "--count", "1"]);
    // Where there is no IPv6, the address is not this machine's.
    assert_refused(&output, &["source address"]);
    assert_eq!(peers.try_iter().count(), 0, "something was opened");
    for (arguments, value, expected) in [
        (
            ["unix:@socket", "--bind", "127.0.0.1"],
            "127.0.0.1 cannot be used with unix:@socket",
            "expected tcp://",
        ),
        ([&target, "--bind", "localhost"], "'localhost'", "IP address"),
    ] {
        let output = load(&arguments);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(value) && errors.contains(expected), "{errors}");
    }
}

#[test]
fn a_limit_on_files_is_named_before_anything_is_opened() {
    let (target, peers) = server_with_peers();
    let limited = |connections: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringspun"), "load"]);
        command.args([&target, "--count", "200", "--connections", connections]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert_refused(
        &limited("100"),
        &["100 connections do not fit", "may open 100 files", " fit. Raise the limit to 1", "LimitNOFILE="],
    );
    assert_eq!(peers.try_iter().count(), 0, "something was opened");
    let output = limited("70");
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
}

#[test]
fn ports_of_source_addresses_are_used_up_and_the_limit_is_named() {
    const TEST: &str = "ports_of_source_addresses_are_used_up_and_the_limit_is_named";
    let is_done = namespace::in_namespace(
        &format!("{}::{TEST}", module_path!()),
        "echo 40001 40010 > /proc/sys/net/ipv4/ip_local_port_range",
        || {
            let target = {
                // Its port is none of the ten.
                let listener = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
                thread::spawn(move || {
                    for stream in listener.incoming() {
                        thread::spawn(move || {
                            let (mut stream, mut message) = (stream.unwrap(), [0; 64]);
                            while stream.read_exact(&mut message).is_ok()
                                && stream.write_all(&message).is_ok()
                            {}
                        });
                    }
                });
                "tcp://127.0.0.1:7000"
            };
            assert_refused(
                &load(&[target, "--connections", "11", "--count", "1"]),
                &[
                    "11 connections do not fit",
                    "10 ports",
                    "= 40001 40010",
                    "10 fit",
                    "Give 2 source addresses",
                ],
            );
            let arguments = [target, "--connections", "20", "--bind", "127.0.0.2,127.0.0.3", "--count", "20"];
            let report = measure(&arguments, 0);
            assert_eq!(
                (number(&report["connections"]["opened"]), number(&report["errors"]["total"])),
                (20, 0)
            );
        },
    );
    if !is_done {
        println!("SKIPPED {TEST}: the range of ports cannot be set in a namespace here");
    }
}
