//! `ringspun load --workers`: what several threads do is one run. And `--start-at`, when they begin.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::closing::dead_target;
use crate::support::measuring::{
    check_sums, error_text, load, measure, number, stopped_text, tcp_server, text_of,
};
use crate::support::scratch::scratch_path;

/// An echo server that tells when each request came, and over which of its connections.
fn watched_server() -> (String, Receiver<(u64, SystemTime)>) {
    let (sender, requests) = mpsc::channel();
    let target = tcp_server(move |mut stream, connection| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            // Nobody may be listening any more.
            let _ = sender.send((connection, SystemTime::now()));
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    (target, requests)
}

#[test]
fn threads_share_connections_and_requests_and_it_all_adds_up() {
    for pace in [&[][..], &["--rate", "2k"], &["--rate", "2k", "--warmup", "1s", "--ramp-up", "50ms"]] {
        let (target, requests) = watched_server();
        let base = [&target, "--workers", "3", "--connections", "7", "--count", "100", "--timeout", "60s"];
        let report = measure(&[&base[..], pace].concat(), 0);
        assert_eq!((&report["plan"]["workers"], &report["generator"]["workers"]), (&3.into(), &3.into()));
        let counts = &report["requests"];
        assert_eq!((number(&counts["planned"]), number(&counts["answered"])), (100, 100), "{pace:?}");
        let connections = &report["connections"];
        for name in ["wanted", "opened", "open_max"] {
            assert_eq!(number(&connections[name]), 7, "{name} {pace:?}");
        }
        let came: Vec<u64> = requests.try_iter().map(|(connection, _)| connection).collect();
        assert!((0..7).all(|connection| came.contains(&connection)), "{came:?}");
        match pace {
            [] | [_, _] => assert_eq!(came.len(), 100),
            _ => assert!(came.len() > 100, "the warm-up sent nothing"),
        }
    }
}

#[test]
fn steps_and_seconds_of_several_threads_are_those_of_one_run() {
    let (target, _requests) = watched_server();
    let files =
        ["hdr", "csv"].map(|kind| scratch_path(&format!("workers.{kind}")).to_str().unwrap().to_string());
    let [hdr, csv] = &files;
    let run = measure(
        &[
            &target,
            "--workers",
            "2",
            "--connections",
            "5",
            "--steps",
            "100,300:1200ms",
            "--timeout",
            "60s",
            "--hdr",
            hdr,
            "--csv",
            csv,
        ],
        0,
    );
    let planned: Vec<u64> =
        run["steps"].as_array().unwrap().iter().map(|step| number(&step["requests"]["planned"])).collect();
    assert_eq!(planned, [120, 360]);
    let report = load(&["report", hdr, "--json", "-"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    for name in ["response_time", "service_time"] {
        assert_eq!(report[name], run[name]);
    }
    let rows = fs::read_to_string(csv).unwrap();
    let (mut before_s, mut answered, mut steps) = (0.0, 0.0, Vec::new());
    for row in rows.lines().skip(1) {
        let values: Vec<f64> = row.split(',').map(|value| value.parse().unwrap_or(0.0)).collect();
        assert!(values[0] > before_s, "{rows}");
        answered += (values[0] - before_s) * values[1];
        before_s = values[0];
        steps.push(*values.last().unwrap());
    }
    let in_time = number(&run["requests"]["answered"]) - number(&run["requests"]["answered_after_end"]);
    assert!((answered - in_time as f64).abs() < 5.0, "{answered} {in_time} {rows}");
    // A row belongs to the step in which it began. On a slow machine one may span two.
    assert!(steps.is_sorted() && steps[0] == 1.0 && *steps.last().unwrap() <= 2.0, "{rows}");
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
}

#[test]
fn a_signal_ends_all_threads_and_also_while_they_wait_to_start() {
    let later = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600).to_string();
    for (workers, start) in [("2", &[][..]), ("1", &["--start-at", &later]), ("2", &["--start-at", &later])] {
        let (sender, came) = mpsc::channel();
        let target = tcp_server(move |mut stream, _| {
            let _ = sender.send(());
            let mut message = [0; 64];
            while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {
                let _ = sender.send(());
            }
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["load", &target, "--connections", "3", "--duration", "1h", "--json", "-"]);
        command.args(["--workers", workers]).args(start);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // All connections; and requests, if any are sent.
        (0..if start.is_empty() { 10 } else { 3 }).for_each(|_| came.recv().unwrap());
        kill(Pid::from_raw(running.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let output = running.wait_with_output().unwrap();
        let errors = stopped_text(&output);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_sums(&report);
        assert_eq!((&report["requests"]["planned"], number(&report["errors"]["total"])), (&Value::Null, 0));
        let told = "ringspun: the run was stopped early by SIGINT\n";
        assert_eq!((output.status.code(), errors.as_str()), (Some(130), told));
        assert_eq!(number(&report["requests"]["sent"]) == 0, !start.is_empty());
    }
}

#[test]
fn a_run_starts_at_the_time_that_it_was_told() {
    // To the second, as `date +%s` says it; late enough for both to have been called by then.
    let start_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 10;
    let measured = ["1", "2"].map(|workers| {
        std::thread::spawn(move || {
            let (target, requests) = watched_server();
            let start_text = start_at.to_string();
            let arguments = [&target, "--connections", "2", "--workers", workers, "--start-at", &start_text];
            let report = measure(&[&arguments[..], &["--count", "20"]].concat(), 0);
            assert_eq!(report["plan"]["start_at_s"], start_at as f64);
            let earliest = requests.try_iter().map(|(_, came)| came).min().unwrap();
            assert!(earliest >= UNIX_EPOCH + Duration::from_secs(start_at), "{earliest:?} {start_at}");
            assert!(report["generator"]["started_late_s"].as_f64().unwrap() >= 0.0);
        })
    });
    measured.into_iter().for_each(|measured| measured.join().unwrap());
}

#[test]
fn what_does_not_fit_is_named() {
    let target = dead_target();
    let output = load(&[&target, "--workers", "4", "--connections", "10"]);
    let errors = error_text(&output);
    assert_eq!((output.status.code(), text_of(&output)), (Some(1), String::new()), "{errors}");
    assert!(errors.contains("cannot be reached: ") && errors.contains("refused"), "{errors}");
    for (arguments, value, expected) in [
        (&["--workers", "3", "--connections", "2"][..], "3 workers for 2 connections", "expected 1 to 2"),
        (&["--workers", "0"], "'0'", "expected a whole number from 1 to 65535"),
        (&["--workers", "many"], "'many'", "expected a whole number from 1 to 65535"),
        (&["--start-at", "1e9"], "'1e9'", "seconds since 1970"),
        (&["--start-at", "1900000000000"], "days ahead", "expected 1000 at most, and seconds"),
        (&["--bind", "127.0.0.1:80"], "'127.0.0.1:80'", "expected an IP address without a port"),
        (&["--fail-if", "503>0"], "503>0", "http and https only"),
        (&["--abort-if", "5xx>1%"], "5xx>1%", "http and https only"),
        (&["--find", "p99<1s,429<1"], "429<1", "http and https only"),
        (&["--start-at", "2020-01-01T00:00:00Z"], "ago", "expected a time in the future"),
    ] {
        let output = load(&[&[target.as_str()], arguments].concat());
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}
