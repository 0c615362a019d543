//! Signals that end a run, in each of its phases, and connections that its target closes before it starts.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::answering::{counts, errors};
use crate::support::measuring::{at_once, check_sums, error_text, measure, number, stopped_text, tcp_server};
use crate::support::namespace;

/// A run that nothing but a signal ends.
fn start(program: &mut Command, target: &str, arguments: &[&str]) -> Child {
    program.args(["load", target, "--json", "-"]).args(arguments);
    // Under nohup(1), SIGHUP is ignored.
    // SAFETY: async-signal-safe.
    unsafe { program.pre_exec(|| Ok(signal(Signal::SIGHUP, SigHandler::SigDfl).map(drop)?)) };
    program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn echo(stream: &TcpStream) {
    let (mut from, mut to) = (stream, stream);
    // A client may go at any time.
    let _ = io::copy(&mut from, &mut to);
}

/// Sends a signal, once the process handles or ignores all that end a run, as ours: a shell that becomes it does, too.
fn send(signal: Signal, running: &Child) {
    let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
        assert!(!status.contains("\nState:\tZ"), "the run has ended before the signal");
        let mask = |name: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        let handled = mask("SigCgt:") | mask("SigIgn:");
        let handles_all = ending.iter().all(|signal| handled & 1 << (*signal as u64 - 1) != 0);
        if handles_all && status.starts_with("Name:\tringspun\n") {
            break;
        }
        thread::yield_now();
    }
    kill(Pid::from_raw(running.id().try_into().unwrap()), signal).unwrap();
}

/// Checks that a run was stopped by a signal, and returns its results.
fn check_stopped(output: &Output, signal: Signal) -> Value {
    let told = format!("ringspun: the run was stopped early by {signal}\n");
    assert_eq!((output.status.code(), stopped_text(output)), (Some(128 + signal as i32), told));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    check_sums(&report);
    assert_eq!((&report["stopped_by"], errors(&report)), (&signal.as_str().into(), 0));
    report
}

/// A listener that has no room for another connection, with those that fill it.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
    (listener, std::iter::from_fn(connect).collect())
}

#[test]
fn a_signal_ends_each_phase_of_a_run() {
    let (full, _filling) = full_listener();
    let full = format!("tcp://{}", full.local_addr().unwrap());
    let target = tcp_server(|stream, _| echo(&stream));
    let in_an_hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    let in_an_hour = in_an_hour.to_string();
    for (server, arguments) in [
        (&full, &["--timeout", "1h"][..]),
        (&full, &["--timeout", "1h", "--connections", "4", "--workers", "2"]),
        (&full, &["--timeout", "1h", "--find", "p99<1s"]),
        (&target, &["--start-at", &in_an_hour]),
        (&target, &["--start-at", &in_an_hour, "--connections", "4", "--workers", "2", "--rate", "5"]),
        (&target, &["--ramp-up", "1h", "--rate", "1", "--arrivals", "even"]),
        (&target, &["--warmup", "1h", "--steps", "1:1h", "--arrivals", "even", "--connections", "3"]),
    ] {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let running = start(&mut Command::new(env!("CARGO_BIN_EXE_ringspun")), server, arguments);
            send(signal, &running);
            let output = running.wait_with_output().unwrap();
            if arguments.contains(&"--find") {
                assert!(error_text(&output).contains("stopped"), "{}", error_text(&output));
                continue;
            }
            let report = check_stopped(&output, signal);
            assert_eq!(counts(&report, ["sent", "answered", "lost"]), [0; 3], "{arguments:?}");
        }
    }
}

#[test]
fn a_run_whose_terminal_closes_goes_on_under_nohup() {
    let target = tcp_server(|stream, _| echo(&stream));
    let mut program = Command::new("sh");
    program.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringspun")]);
    let running = start(&mut program, &target, &["--ramp-up", "1h", "--rate", "1", "--arrivals", "even"]);
    send(Signal::SIGHUP, &running);
    send(Signal::SIGINT, &running);
    check_stopped(&running.wait_with_output().unwrap(), Signal::SIGINT);
}

/// As servers do that close connections which are idle for some seconds.
#[test]
fn a_connection_that_is_closed_before_the_start_is_replaced() {
    const CONNECTIONS: u64 = 4;
    at_once(&[&[][..], &["--workers", "2", "--rate", "1k"], &["--pipeline", "3"]], |arguments| {
        let target = tcp_server(|stream, connection| {
            if connection < CONNECTIONS {
                return;
            }
            echo(&stream);
        });
        let start_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 10;
        let start_at = start_at.to_string();
        let run = [&target, "--connections", "4", "--count", "40", "--start-at", &start_at];
        let report = measure(&[&run[..], arguments].concat(), 0);
        assert_eq!(counts(&report, ["sent", "answered", "lost"]), [40, 40, 0]);
        assert_eq!((errors(&report), number(&report["connections"]["closed_idle"])), (0, CONNECTIONS));
    });
}

#[test]
fn a_signal_at_the_end_of_a_run_ends_those_that_were_to_follow() {
    let target = tcp_server(|stream, _| echo(&stream));
    for round in 0..8 {
        let arguments = ["--repeat", "1000", "--count", "1", "--requests-per-connection", "1"];
        let running = start(&mut Command::new(env!("CARGO_BIN_EXE_ringspun")), &target, &arguments);
        // In another part of a run each time; nothing depends on which.
        thread::sleep(Duration::from_millis(7 * round));
        send(Signal::SIGTERM, &running);
        let output = running.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_ne!(output.status.code(), Some(0), "{report}");
        assert_eq!(report["stopped_by"], "SIGTERM");
    }
}

/// The name server does not answer, and the lookup would go on for a minute.
#[test]
fn a_signal_ends_a_run_whose_target_is_being_looked_up() {
    namespace::as_name_server(
        concat!(module_path!(), "::a_signal_ends_a_run_whose_target_is_being_looked_up"),
        || {
            let server = UdpSocket::bind("127.0.0.1:53").unwrap();
            for arguments in [
                &["--timeout", "1h"][..],
                &["--timeout", "1h", "--workers", "2", "--connections", "4", "--rate", "5"],
                &["--timeout", "1h", "--repeat", "3"],
            ] {
                let mut program = Command::new(env!("CARGO_BIN_EXE_ringspun"));
                let running = start(&mut program, "http://nowhere.test:1/", arguments);
                server.recv_from(&mut [0; 512]).unwrap();
                let asked_at = Instant::now();
                send(Signal::SIGINT, &running);
                let report = check_stopped(&running.wait_with_output().unwrap(), Signal::SIGINT);
                assert_eq!(counts(&report, ["sent", "answered", "lost"]), [0; 3], "{arguments:?}");
                assert!(asked_at.elapsed() < Duration::from_secs(50), "it waited for the lookup");
            }
        },
    );
}

#[test]
fn a_signal_that_comes_while_responses_are_awaited_says_so() {
    // It takes the request, and answers when the client has said that it waits.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let mut program = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    let mut running = start(&mut program, &target, &["--timeout", "1h", "-d", "1h"]);
    let (mut stream, _) = listener.accept().unwrap();
    let (mut message, mut told) = ([0; 64], String::new());
    stream.read_exact(&mut message).unwrap();
    send(Signal::SIGTERM, &running);
    BufReader::new(running.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(
        told.starts_with("ringspun: still waiting for responses, each for at most 3600 s (--timeout)"),
        "{told}"
    );
    stream.write_all(&message).unwrap();
    let output = running.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts(&report, ["sent", "answered", "lost"]), [1, 1, 0]);
    assert_eq!(output.status.code(), Some(128 + Signal::SIGTERM as i32));
}

#[test]
fn a_signal_before_the_measurement_leaves_gates_undecided() {
    let target = tcp_server(|stream, _| echo(&stream));
    let arguments = ["--ramp-up", "1h", "--rate", "1", "--arrivals", "even", "--fail-if", "p99>1h"];
    let running = start(&mut Command::new(env!("CARGO_BIN_EXE_ringspun")), &target, &arguments);
    send(Signal::SIGTERM, &running);
    let report = check_stopped(&running.wait_with_output().unwrap(), Signal::SIGTERM);
    assert!(report["gates"][0]["broken"].is_null(), "{}", report["gates"]);
}
