//! `ringspun load`: what it measures, what it prints, and what it exits with.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use nix::libc::linger;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::backend;
use crate::support::closing::{close, dead_target, mortal_listener};
use crate::support::measuring::{
    check_sums, error_text, load, measure, number, stopped_text, tcp_server, text_of,
};
use crate::support::scratch::scratch_path;

/// How long each message is, unless a test says otherwise.
const MESSAGE_BYTES: usize = 64;

/// `ringspun serve echo`, which ends with its test.
struct EchoServer(Child);

impl EchoServer {
    /// Starts it on TCP, UDP and a Unix socket, and returns the three targets.
    fn start(name: &str) -> (Self, [String; 3]) {
        let path = format!("@ringspun-load-{name}-{}", std::process::id());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["serve", "echo", "--tcp", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--unix", &path]);
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let targets = ["tcp://", "udp://", ""].map(|scheme| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            format!("{scheme}{}", line.split(' ').nth(2).unwrap())
        });
        (Self(server), targets)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers messages until `answer` says otherwise or the client is gone. It may change the message.
fn answer_each(mut stream: TcpStream, mut answer: impl FnMut(u64, &mut Vec<u8>) -> bool) {
    for number in 0.. {
        let mut message = vec![0; MESSAGE_BYTES];
        if stream.read_exact(&mut message).is_err() || !answer(number, &mut message) {
            return;
        }
        if stream.write_all(&message).is_err() {
            return;
        }
    }
}

#[test]
fn every_kind_of_socket_is_measured_in_both_loops() {
    let (_server, targets) = EchoServer::start("kinds");
    for target in &targets {
        for (pace, loop_name) in [(&[][..], "closed"), (&["--rate", "1k"], "open")] {
            let base = [target.as_str(), "--connections", "7", "--count", "500"];
            let report = measure(&[&base, pace].concat(), 0);
            assert_eq!(report["plan"]["loop"], loop_name);
            assert_eq!(report["plan"]["target"], target.as_str());
            assert_eq!(report["backend"], backend::expected());
            assert_eq!(
                (number(&report["requests"]["answered"]), number(&report["errors"]["total"])),
                (500, 0)
            );
            assert_eq!(
                (number(&report["connections"]["opened"]), &report["connections"]["open_max"]),
                (7, &7.into())
            );
            assert!(report["rate_per_s"].as_f64().unwrap() > 0.0);
            assert_eq!(report["generator"]["send_delay"]["p50_us"].is_null(), loop_name == "closed");
            if loop_name == "closed" {
                assert_eq!(report["response_time"], report["service_time"]);
            }
        }
    }
}

#[test]
fn messages_of_any_length_come_back_right() {
    let (_server, targets) = EchoServer::start("lengths");
    for target in &targets {
        let longest = if target.starts_with("udp") { "65507" } else { "65536" };
        for payload in ["1", "1k", longest] {
            let report = measure(&[target, "--payload", payload, "--count", "20", "--connections", "2"], 0);
            assert_eq!(number(&report["requests"]["answered"]), 20, "{target} {payload}");
            assert_eq!(number(&report["errors"]["total"]), 0, "{target} {payload}");
        }
    }
}

#[test]
fn the_plainest_call_prints_a_table_and_writes_a_file() {
    let (_server, [target, ..]) = EchoServer::start("plain");
    let path = scratch_path("out.json");
    let arguments = ["--connections", "64", "--duration", "300ms", "--payload", "64"];
    let gates = ["--fail-if", "p99>50s", "--fail-if", "errors>0", "--fail-if", "rate<1"];
    let output =
        load(&[&[target.as_str()][..], &arguments, &gates, &["--json", path.to_str().unwrap()]].concat());
    assert_eq!((output.status.code(), error_text(&output).as_str()), (Some(0), ""));
    let table = text_of(&output);
    for expected in [
        "64 connections",
        "answered requests/s",
        "p99.99",
        "service time",
        "service time     up to       responses    share",
        "closed loop",
        "errors       0",
        "% busy",
    ] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert!(!table.contains('\u{1b}') && !table.contains('\r'), "no terminal's codes in a pipe: {table}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    check_sums(&report);
    assert_eq!(report["measured_s"], 0.3);
    let gates = report["gates"].as_array().unwrap();
    assert_eq!(gates.len(), 3);
    assert!(gates.iter().all(|gate| gate["broken"] == false), "{gates:?}");
}

#[test]
fn an_open_loop_prints_both_times_and_what_they_are() {
    let (_server, [target, ..]) = EchoServer::start("both");
    let output = load(&[&target, "--rate", "200", "--count", "20"]);
    let table = text_of(&output);
    for expected in ["\nresponse time ", "\nservice time ", "\nResponse time: from when a request was due"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}

#[test]
fn the_warm_up_is_sent_and_not_counted() {
    let served = Arc::new(AtomicU64::new(0));
    let counter = served.clone();
    let target = tcp_server(move |stream, _| {
        answer_each(stream, |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
    });
    for pace in [&[][..], &["--rate", "1k"]] {
        let before = served.load(Ordering::Relaxed);
        let report = measure(&[&[target.as_str(), "--warmup", "1s", "--count", "50"], pace].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 50);
        assert!(served.load(Ordering::Relaxed) - before > 50, "the warm-up sent nothing");
    }
}

#[test]
fn a_gate_that_breaks_exits_with_three_and_says_so() {
    let (_server, [target, ..]) = EchoServer::start("gates");
    let output = load(&[
        &target,
        "--count",
        "10",
        "--fail-if",
        "p50>1ns",
        "--fail-if",
        "errors>0",
        "--fail-if",
        "rate<100M",
    ]);
    assert_eq!(output.status.code(), Some(3));
    let errors = error_text(&output);
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("ringspun: gate p50>1ns failed: "), "{errors}");
    assert!(
        lines[1].starts_with("ringspun: gate rate<100M failed: ") && lines[1].ends_with("/s"),
        "{errors}"
    );
    let report = measure(&[&target, "--count", "10", "--fail-if", "max>1ns"], 3);
    assert_eq!(
        (&report["gates"][0]["gate"], &report["gates"][0]["broken"]),
        (&"max>1ns".into(), &true.into())
    );
}

#[test]
fn a_target_that_is_not_there_exits_with_one_and_the_reason() {
    let target = dead_target();
    let missing = format!("unix:{}", scratch_path("missing.socket").display());
    for (target, reason) in [(&target, "Connection refused"), (&missing, "No such file")] {
        let output = load(&[target, "--connections", "500"]);
        let errors = error_text(&output);
        assert_eq!((output.status.code(), text_of(&output).as_str()), (Some(1), ""), "{errors}");
        assert!(
            errors.starts_with(&format!("ringspun: {target}: the target cannot be reached: ")),
            "{errors}"
        );
        assert!(errors.contains(reason), "{errors}");
    }
}

#[test]
fn a_target_that_takes_few_connections_is_measured_with_those() {
    // A queue of two connections, of which none is accepted: the kernel completes two or three, and the attempts
    // of the others wait. The first to be accepted is served.
    let path = format!("@ringspun-load-few-{}", std::process::id());
    let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new_abstract(&path.as_bytes()[1..]).unwrap()).unwrap();
    listen(&listener, Backlog::new(2).unwrap()).unwrap();
    let listener = UnixListener::from(listener);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut message = [0; MESSAGE_BYTES];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message).unwrap();
        }
        drop(listener);
    });
    let target = format!("unix:{path}");
    let report = measure(&[&target, "--connections", "300", "--timeout", "1s", "--duration", "2s"], 0);
    server.join().unwrap();
    let connections = &report["connections"];
    assert!((1..10).contains(&number(&connections["opened"])), "{connections}");
    assert!(number(&connections["timed_out"]) + number(&connections["failed"]) > 0, "{connections}");
    assert!(number(&report["requests"]["answered"]) > 0, "{}", report["requests"]);
}

#[test]
fn datagrams_that_nobody_answers_exit_with_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    let report = measure(&[&target, "--count", "2", "--timeout", "50ms"], 1);
    assert_eq!(number(&report["requests"]["timed_out"]), 2);
    assert_eq!(report["service_time"]["p50_us"], Value::Null);
    drop(socket);
    let output = load(&[&target, "--count", "2"]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("nothing was answered: ") && errors.contains("refused"), "{errors}");
}

#[test]
fn bad_flags_exit_with_two_the_value_and_what_was_expected() {
    let target = "tcp://127.0.0.1:9";
    for (arguments, value, expected) in [
        (&["ftp://127.0.0.1:80/"][..], "ftp", "tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:PATH"),
        (&[], "TARGET", "required"),
        (&[target, "--duration", "3"], "'3'", "such as 500us, 3s or 1h30m"),
        (&[target, "--duration", "0s"], "duration is 0", "expected"),
        (&[target, "--rate", "fast"], "'fast'", "such as 50k, 0.5 or 30/m"),
        (&[target, "--rate", "0"], "rate is 0", "expected 1"),
        (&[target, "--connections", "0"], "0 connections", "expected 1"),
        (&[target, "--payload", "65537"], "65537", "expected 1 to 65536"),
        (&["udp://127.0.0.1:9", "--payload", "65508"], "65508", "expected 1 to 65507"),
        (&[target, "--fail-if", "p99>5"], "'p99>5'", "with a unit"),
        (&[target, "--fail-if", "speed>5"], "speed", "p50, p99"),
        (&[target, "--method", "GET"], "--method", "expected http://"),
        (&[target, "--header", "A: b"], "--header", "expected http://"),
        (&[target, "--body", "text"], "--body", "expected http://"),
        (&[target, "--body-file", "file"], "--body-file", "expected http://"),
        (&[target, "--count", "5", "--duration", "1s"], "--count", "cannot be used with"),
    ] {
        let output = load(arguments);
        let errors = error_text(&output);
        assert_eq!(
            (output.status.code(), text_of(&output).as_str()),
            (Some(2), ""),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}

#[test]
fn wrong_bytes_are_counted_and_named() {
    // Each third answer has a changed byte, and the connection goes on.
    let target = tcp_server(|stream, _| {
        answer_each(stream, |number, message| {
            message[5] ^= u8::from(number % 3 == 2);
            true
        });
    });
    let report = measure(&[&target, "--count", "30", "--fail-if", "errors>0"], 3);
    let requests = &report["requests"];
    assert_eq!((number(&requests["answered"]), number(&requests["wrong"])), (20, 10));
    assert_eq!(number(&report["connections"]["opened"]), 1);
    let example = report["errors"]["kinds"][0]["example"].as_str().unwrap();
    assert!(example.starts_with("byte 5 came back as "), "{example}");
}

#[test]
fn an_answer_to_another_request_is_wrong() {
    // Answers each request but the first with the message before it.
    let target = tcp_server(|stream, _| {
        let mut before = Vec::new();
        answer_each(stream, move |_, message| {
            let current = message.clone();
            if !before.is_empty() {
                message.clone_from(&before);
            }
            before = current;
            true
        });
    });
    let report = measure(&[&target, "--count", "10"], 0);
    assert_eq!((number(&report["requests"]["answered"]), number(&report["requests"]["wrong"])), (1, 9));
}

#[test]
fn bytes_too_many_are_wrong_and_cost_the_connection() {
    let target = tcp_server(|stream, connection| {
        answer_each(stream, move |_, message| {
            if connection == 0 {
                message.push(0);
            }
            true
        });
    });
    let report = measure(&[&target, "--count", "5"], 0);
    // The surplus may arrive with the answer or after it.
    let requests = &report["requests"];
    assert!((1..=2).contains(&number(&requests["wrong"])), "{requests}");
    assert_eq!(number(&report["connections"]["opened"]), 2);
}

#[test]
fn a_server_that_closes_is_told_from_one_that_resets() {
    for (kind, resets) in [("closed", false), ("reset", true)] {
        // Ten answers, and no more.
        let target = tcp_server(move |stream, _| {
            let descriptor = stream.try_clone().unwrap();
            answer_each(stream, |number, _| {
                if number == 10 && resets {
                    setsockopt(&descriptor, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
                }
                number < 10
            });
        });
        for pace in [&[][..], &["--rate", "2k"]] {
            let report = measure(&[&[target.as_str(), "--count", "33"], pace].concat(), 0);
            let (requests, connections) = (&report["requests"], &report["connections"]);
            assert_eq!((number(&requests["answered"]), number(&requests["lost"])), (30, 3), "{kind}");
            assert_eq!(number(&connections[kind]), 3, "{connections}");
            assert_eq!(
                (&report["errors"]["kinds"][0]["kind"], number(&report["errors"]["total"])),
                (&kind.into(), 3)
            );
        }
    }
}

#[test]
fn a_request_that_times_out_is_counted_and_its_late_answer_is_not_taken_for_another() {
    // The first answer of the first connection comes when that has been given up for another.
    let (sender, again) = mpsc::channel();
    let again = Mutex::new(again);
    let target = tcp_server(move |stream, connection| {
        if connection > 0 {
            // Only the first connection waits for it.
            let _ = sender.send(());
        }
        answer_each(stream, |number, _| {
            if (connection, number) == (0, 0) {
                again.lock().unwrap().recv().unwrap();
            }
            true
        });
    });
    let report = measure(&[&target, "--count", "20", "--timeout", "10s"], 0);
    let (requests, connections) = (&report["requests"], &report["connections"]);
    assert_eq!((number(&requests["answered"]), number(&requests["timed_out"])), (19, 1), "{requests}");
    assert_eq!((number(&connections["opened"]), &connections["open_max"]), (2, &1.into()));
}

#[test]
fn lost_datagrams_are_counted() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        for number in 0.. {
            let (length, source) = socket.recv_from(&mut buffer).unwrap();
            if number % 20 != 7 {
                socket.send_to(&buffer[..length], source).unwrap();
            }
        }
    });
    let report = measure(&[&target, "--count", "40", "--timeout", "5s"], 0);
    let requests = &report["requests"];
    assert_eq!((number(&requests["answered"]), number(&requests["timed_out"])), (38, 2), "{requests}");
}

#[test]
fn a_server_that_goes_away_for_good_ends_a_run_by_count() {
    let listener = mortal_listener();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        close(listener);
        answer_each(stream, |number, _| number < 5);
    });
    let report = measure(&[&target, "--count", "100", "--timeout", "10s"], 1);
    assert!(
        report["target_loss"]["error"].as_str().unwrap().contains("refused"),
        "{}",
        report["target_loss"]
    );
    let requests = &report["requests"];
    assert_eq!(
        (number(&requests["answered"]), number(&requests["lost"]), number(&requests["unsent"])),
        (5, 1, 94)
    );
    assert!(number(&report["connections"]["refused"]) > 0, "{}", report["connections"]);
}

#[test]
fn a_signal_ends_a_run_early_with_its_results() {
    for pace in [&[][..], &["--rate", "2"]] {
        let (sender, asked) = mpsc::channel();
        let target = tcp_server(move |stream, _| {
            let sender = sender.clone();
            answer_each(stream, move |_, _| {
                // Nobody listens for long.
                let _ = sender.send(());
                true
            });
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["load", &target, "--connections", "3", "--duration", "1h", "--json", "-"]);
        command.args(["--fail-if", "p99>1h"]).args(pace);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Over the sleep of those whose request is not due yet, too.
        (0..2).for_each(|_| asked.recv().unwrap());
        kill(Pid::from_raw(running.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let output = running.wait_with_output().unwrap();
        let told = "ringspun: the run was stopped early by SIGINT\n";
        assert_eq!((output.status.code(), stopped_text(&output).as_str()), (Some(130), told));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_sums(&report);
        assert_eq!(report["stopped_by"], "SIGINT");
        assert_eq!(report["gates"][0]["broken"], Value::Null);
        assert!(report["measured_s"].as_f64().unwrap() < 3600.0);
        assert_eq!((&report["requests"]["planned"], number(&report["errors"]["total"])), (&Value::Null, 0));
    }
}

#[test]
fn results_that_cannot_be_written_exit_with_one() {
    let (_server, [target, ..]) = EchoServer::start("unwritable");
    let path = scratch_path("no-such-folder").join("out.json");
    // Before the run, which would take an hour.
    let output = load(&[&target, "--duration", "1h", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("out.json: "), "{}", error_text(&output));
}

#[test]
fn a_full_disk_is_an_error_and_the_results_are_printed() {
    // Every write to it fails, as on a full disk.
    if !Path::new("/dev/full").exists() {
        return println!("SKIPPED: there is no /dev/full here");
    }
    let (_server, [target, ..]) = EchoServer::start("full");
    for flag in ["--csv", "--hdr", "--html", "--json"] {
        let output = load(&[&target, "--count", "20", flag, "/dev/full"]);
        assert_eq!(output.status.code(), Some(1), "{flag}");
        assert!(text_of(&output).contains("answered requests/s"), "{flag}: {}", text_of(&output));
        let errors = error_text(&output);
        assert!(errors.contains("/dev/full: No space left on device"), "{flag}: {errors}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_the_results_are_printed() {
    let (_server, [target, ..]) = EchoServer::start("file-size");
    let path = scratch_path("limited");
    for flag in ["--csv", "--hdr", "--html", "--json", "--prometheus"] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringspun"), "load"]);
        let output = command.args([&target, "--count", "20", flag]).arg(&path).output().unwrap();
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(1), "{flag}: {errors}");
        assert!(text_of(&output).contains("answered requests/s"), "{flag}: {}", text_of(&output));
        assert!(errors.contains("limited: File too large"), "{flag}: {errors}");
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn every_field_of_the_results_is_documented() {
    let (_server, [target, ..]) = EchoServer::start("fields");
    let http = tcp_server(|mut stream, _| {
        let mut request = [0; 1000];
        while stream.read(&mut request).is_ok_and(|length| length > 0) {
            stream.write_all(b"HTTP/1.1 204 Empty\r\n\r\n").unwrap();
        }
    });
    let targets = [target, http.replace("tcp://", "http://")];
    let documentation =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/load-json.md")).unwrap();
    fn check(value: &Value, documentation: &str) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    // The members of `statuses` are numbers.
                    let is_known =
                        name.parse::<u16>().is_ok() || documentation.contains(&format!("`{name}`"));
                    assert!(is_known, "{name} is not documented");
                    check(value, documentation);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| check(value, documentation)),
            _ => {}
        }
    }
    for target in targets {
        check(&measure(&[&target, "--count", "1", "--fail-if", "errors>0"], 0), &documentation);
    }
}
