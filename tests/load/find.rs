//! `ringspun load --find`: what a search tries, what it reports, and how it ends. That it ends where theory says is for
//! `load/src/search/tests.rs`.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::closing::{close, mortal_listener};
use crate::support::measuring::{error_text, load, measure, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;

fn echo_server() -> String {
    tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    })
}

fn trials(report: &Value) -> &[Value] {
    report["search"]["trials"].as_array().unwrap()
}

fn rates(report: &Value) -> Vec<f64> {
    trials(report).iter().map(|trial| trial["rate_per_s"].as_f64().unwrap()).collect()
}

#[test]
fn a_search_ends_at_the_highest_rate_that_holds() {
    let (target, folder) = (echo_server(), ScratchFolder::new("find"));
    let page = folder.file("page.html");
    let flags =
        ["-c", "4", "--find", "rate<100,p99<60s", "--find-from", "30", "-d", "500ms", "--html", &page];
    let report = measure(&[&[target.as_str()], &flags[..]].concat(), 0);
    let search = &report["search"];
    let found = search["rate_per_s"].as_f64().unwrap();
    // A slow machine may answer fewer in time, but at least 95 % of the rate.
    assert!(found <= 106.0, "{search}");
    assert_eq!(report["plan"]["rate_per_s"], search["rate_per_s"]);
    assert_eq!(search["conditions"], serde_json::json!(["rate<100", "p99<60s"]));
    assert_eq!(rates(&report)[0], 30.0);
    for trial in trials(&report) {
        let conditions = trial["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 3);
        let holds = conditions.iter().all(|condition| condition["holds"] == true);
        assert_eq!(trial["holds"], holds, "{trial}");
    }
    let confirming: Vec<_> = trials(&report)
        .iter()
        .filter(|trial| trial["purpose"] == "confirm" && trial["rate_per_s"] == search["rate_per_s"])
        .collect();
    assert_eq!(confirming.len(), 5);
    let held = confirming.iter().filter(|trial| trial["holds"] == true).count();
    assert_eq!(search["held"], held);
    assert!(held >= 3 && search["confidence_percent"].as_f64().unwrap() >= 50.0, "{search}");
    let page = fs::read_to_string(page).unwrap();
    for part in ["id=\"search\"", "id=\"trials\"", "Latency against rate", "is the highest rate with"] {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn a_search_stays_within_its_bounds_and_says_so() {
    let target = echo_server();
    let base = [&target, "-c", "2", "--find-confirm", "1"];
    // A rate only holds if nearly all requests end before the run does: none of them is due shortly before that.
    let flags =
        ["-d", "3s", "--arrivals", "even", "--find", "errors>=0", "--find-from", "20", "--find-to", "50"];
    let output = load(&[&base[..], &flags].concat());
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let text = text_of(&output);
    assert!(text.starts_with("50/s is the highest rate with errors>=0: 1 of 1 trials at it held"), "{text}");
    assert!(text.contains("no higher rate was to be tried") && text.contains("open loop at 50/s"), "{text}");
    assert!(text.lines().filter(|line| line.ends_with("  holds")).count() >= 3, "{text}");

    let base = [&base[..], &["-d", "400ms"]].concat();
    let report = measure(&[&base[..], &["--find", "errors<0", "--find-from", "10"]].concat(), 3);
    assert_eq!(rates(&report), [10.0, 10.0, 5.0, 5.0, 2.5, 2.5, 1.25, 1.25, 1.0, 1.0]);
    assert_eq!(
        (&report["search"]["rate_per_s"], &report["search"]["fails_at_per_s"]),
        (&Value::Null, &1.into())
    );
    let output = load(&[&base[..], &["--find", "errors<0", "--find-from", "1"]].concat());
    let expected = "no rate was found with errors<0: 1/s fails, the lowest that was tried";
    assert!(error_text(&output).contains(expected), "{}", error_text(&output));
}

#[test]
fn a_search_on_a_target_that_goes_away_keeps_what_it_has() {
    let listener = mortal_listener();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        // No other connection is accepted, nor waits to be.
        close(listener);
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    });
    let output = load(&[&target, "--find", "errors<1", "--find-from", "20", "-d", "200ms", "--json", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("the search ended early: "), "{}", error_text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rates(&report)[0], 20.0);
    let error = report["search"]["error"].as_str().unwrap();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_signal_ends_the_whole_search() {
    let (asked, first) = std::sync::mpsc::channel();
    let target = tcp_server(move |mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {
            // Nobody may be listening any more.
            let _ = asked.send(());
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    let arguments = ["load", &target, "--find", "errors<1", "--find-from", "50", "-d", "1h", "--json", "-"];
    let running = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    first.recv().unwrap();
    kill(Pid::from_raw(running.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", error_text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["search"]["stopped"], &report["stopped_by"]), (&true.into(), &"SIGINT".into()));
    assert_eq!(trials(&report).len(), 0);
}

#[test]
fn flags_of_a_search_that_do_not_fit_exit_with_two() {
    let target = "tcp://127.0.0.1:9";
    for (arguments, value, expected) in [
        (&["--find", "p99"][..], "'p99'", "expected a measure, a comparison and a limit"),
        (&["--find", "p99<5ms", "--rate", "5"], "--rate", "cannot be used with"),
        (&["--find", "p99<5ms", "--count", "5"], "--count", "cannot be used with"),
        (&["--find", "p99<5ms", "--csv", "-"], "--csv", "cannot be used with"),
        (&["--find-from", "5"], "--find", "required"),
        (&["--find", "p99<5ms", "--find-from", "0"], "starts at 0/s", "expected 0.01/s to"),
        (&["--find", "p99<5ms", "--find-to", "2"], "starts at 1,000/s", "expected 0.01/s to its end, 2/s"),
        (&["--find", "p99<5ms", "--find-within", "2"], "'2'", "such as 2%"),
        (&["--find", "p99<5ms", "--find-within", "60%"], "within 60%", "expected 0.1% to 50%"),
        (&["--find", "p99<5ms", "--find-confirm", "0"], "0 trials", "expected 1 to 100"),
    ] {
        let output = load(&[&[target], arguments].concat());
        let errors = error_text(&output);
        assert_eq!(
            (output.status.code(), text_of(&output)),
            (Some(2), String::new()),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}
