//! `ringspun load` with rates and connections that change in time: `--steps`, rising rates, `--ramp-up`.

use std::fs;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::scratch_path;

/// An echo server that tells when each connection came, and each request.
fn watched_server() -> (String, mpsc::Receiver<Instant>, mpsc::Receiver<Instant>) {
    let ((connections, came), (requests, asked)) = (mpsc::channel(), mpsc::channel());
    let target = tcp_server(move |mut stream, _| {
        // Nobody may be listening any more.
        let _ = connections.send(Instant::now());
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {
            let _ = requests.send(Instant::now());
        }
    });
    (target, came, asked)
}

#[test]
fn steps_are_told_one_by_one_and_together() {
    let (target, ..) = watched_server();
    let csv = scratch_path("steps.csv");
    let steps = "100,200..400:500ms,300:700ms";
    let arguments = [&target, "--connections", "3", "--steps", steps, "--timeout", "60s"];
    let report = measure(&[&arguments[..], &["--csv", csv.to_str().unwrap()]].concat(), 0);
    assert_eq!((&report["plan"]["loop"], &report["plan"]["rate_per_s"]), (&"open".into(), &Value::Null));
    assert_eq!((&report["plan"]["duration_s"], &report["measured_s"]), (&1.7.into(), &1.7.into()));
    let (asked, found) = (report["plan"]["steps"].as_array().unwrap(), report["steps"].as_array().unwrap());
    assert_eq!((asked.len(), found.len()), (3, 3));
    let (mut sent, mut in_time) = (0, 0.0);
    for (step, planned) in found.iter().zip([50, 150, 210]) {
        let requests = &step["requests"];
        assert_eq!(
            (number(&requests["planned"]), number(&requests["unsent"])),
            (planned, planned - number(&requests["sent"]))
        );
        assert_eq!(requests["sent"], requests["answered"]);
        assert_eq!(step["response_time"]["count"], requests["answered"]);
        sent += number(&requests["sent"]);
        in_time += step["rate_per_s"].as_f64().unwrap() * step["measured_s"].as_f64().unwrap();
    }
    assert_eq!(sent, number(&report["requests"]["sent"]));
    assert_eq!((&found[1]["from_per_s"], &found[1]["to_per_s"]), (&200.into(), &400.into()));
    // To the tenth of a request per second.
    let answered_in_time =
        number(&report["requests"]["answered"]) - number(&report["requests"]["answered_after_end"]);
    assert!((in_time - answered_in_time as f64).abs() < 0.5, "{in_time} {answered_in_time}");

    let rows = fs::read_to_string(&csv).unwrap();
    fs::remove_file(csv).unwrap();
    let mut lines = rows.lines();
    assert!(lines.next().unwrap().ends_with(",step"), "{rows}");
    let marks: Vec<u64> = lines.map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect();
    // A row belongs to the step in which it began. On a slow machine one may span several.
    assert!(marks.is_sorted() && marks[0] == 1 && *marks.last().unwrap() <= 3, "{rows}");

    let table = text_of(&load(&arguments));
    for expected in ["open loop in 3 steps", "\n1: 100/s for 500 ms ", "\n2: 200 to 400/s for 500 ms "] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}

#[test]
fn a_rate_rises_evenly_over_the_duration() {
    let (target, ..) = watched_server();
    let report = measure(&[&target, "--rate", "0..400", "--duration", "1s", "--timeout", "60s"], 0);
    assert_eq!(number(&report["requests"]["planned"]), 200);
    assert_eq!(report["steps"].as_array().unwrap().len(), 1);
    let table = text_of(&load(&[&target, "--rate", "400..1k", "--duration", "100ms"]));
    assert!(table.contains("open loop at 400 to 1,000/s"), "{table}");
}

#[test]
fn rates_may_be_below_one_per_second() {
    let (target, ..) = watched_server();
    let base = [target.as_str(), "--connections", "2", "--timeout", "60s", "--arrivals", "even"];
    for (pace, planned, rate_per_s, shown) in [
        (&["--rate", "0.5", "--duration", "1s"][..], 1, 0.5, "at 0.5/s (evenly spaced)"),
        (&["--rate", "20/m", "--duration", "100ms"], 1, 1.0 / 3.0, "at 20/m"),
        (&["--rate", "150/m", "--duration", "700ms", "--workers", "2"], 2, 2.5, "at 2.5/s"),
        (&["--rate", "1/h", "--count", "1"], 1, 1.0 / 3600.0, "at 1/h"),
    ] {
        let report = measure(&[&base, pace].concat(), 0);
        let requests = &report["requests"];
        assert_eq!(
            (number(&requests["planned"]), number(&requests["answered"])),
            (planned, planned),
            "{pace:?}"
        );
        let found_per_s = report["plan"]["rate_per_s"].as_f64().unwrap();
        assert!((found_per_s - rate_per_s).abs() < 1e-6, "{found_per_s}");
        let table = text_of(&load(&[&base, pace].concat()));
        assert!(table.contains(shown), "{shown}: {table}");
    }
    let report = measure(&[&base[..], &["--steps", "90/m,0..300/m:1s"]].concat(), 0);
    let planned: Vec<u64> =
        report["steps"].as_array().unwrap().iter().map(|step| number(&step["requests"]["planned"])).collect();
    assert_eq!((planned, &report["plan"]["steps"][0]["from_per_s"]), (vec![2, 3], &1.5.into()));
}

#[test]
fn connections_are_opened_over_the_ramp_up_and_an_open_loop_rises_with_them() {
    let ramp_up = Duration::from_secs(1);
    for (pace, sent_max) in [(&[][..], None), (&["--rate", "1k", "--arrivals", "even"], Some(550 + 10))] {
        let (target, came, asked) = watched_server();
        let base = [&target, "--connections", "10", "--ramp-up", "1s", "--count", "300", "--timeout", "60s"];
        let report = measure(&[&base[..], pace].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 300);
        assert_eq!(number(&report["connections"]["opened"]), 10);
        assert_eq!(report["plan"]["ramp_up_s"], 1.0);
        let came: Vec<Instant> = came.try_iter().collect();
        // The last one comes after nine tenths of the time. When the server looks is up to the machine.
        assert!(came[9] - came[0] > ramp_up / 4, "{:?}", came[9] - came[0]);
        let before = asked.try_iter().count() - 300;
        // Those open sent something. Of 1000 requests that are due in the time, those due on a connection before it
        // was open were left out: half of them, and a half of those of a tenth of the time.
        assert!(before > 0, "the ramp-up sent nothing");
        assert!(sent_max.is_none_or(|sent_max| before <= sent_max), "{before}");
    }
}

#[test]
fn flags_that_do_not_fit_exit_with_two_the_value_and_what_was_expected() {
    let target = "tcp://127.0.0.1:9";
    for (arguments, value, expected) in [
        (&["--steps", "10k,20k"][..], "'10k,20k'", "the last step has no duration"),
        (&["--steps", "10k,fast:5s"], "\"fast\"", "such as 10k,20k,40k:30s"),
        (&["--steps", "0:5s"], "rate is 0/s", "expected 1/h to"),
        (&["--steps", "5,2G:5s"], "\"2G\"", "such as 50k, 0.5 or 30/m"),
        (&["--steps", "1..2:25h"], "1 to 2/s lasts 90000 s", "expected a day or less"),
        (&["--steps", "5:0s"], "5/s lasts 0 s", "expected more"),
        (&["--steps", "0..5:5s", "--warmup", "1s"], "starts with 0 to 5/s", "expected more than 0"),
        (&["--steps", "5:5s", "--rate", "5"], "--rate", "cannot be used with"),
        (&["--steps", "5:5s", "--duration", "5s"], "--duration", "cannot be used with"),
        (&["--steps", "5:5s", "--count", "5"], "--count", "cannot be used with"),
        (&["--rate", "1k..2k", "--count", "5"], "--rate 1,000/s..2,000/s", "expected --duration"),
        (&["--rate", "1k..", "--duration", "5s"], "'1k..'", "such as 50k, 0.5 or 30/m"),
        (&["--rate", "5/day"], "'5/day'", "such as 50k, 0.5 or 30/m"),
        (&["--rate", "1/h", "--count", "1M"], "1000000 requests at 1/h", "expected fewer"),
        (&["--find", "errors<1", "--find-from", "10/h"], "starts at 10/h", "expected 0.01/s to"),
        (&["--ramp-up", "5"], "'5'", "with a unit"),
    ] {
        let output = load(&[&[target], arguments].concat());
        let errors = error_text(&output);
        let status = (output.status.code(), text_of(&output));
        assert_eq!(status, (Some(2), String::new()), "{arguments:?}: {errors}");
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}
