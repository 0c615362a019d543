//! `ringspun load --hdr --csv`, and `ringspun load report` on what they wrote.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::support::measuring::{self, error_text, load};
use crate::support::scratch::scratch_path;
use crate::support::serving::Server;

/// What it printed, if it succeeded.
fn text_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", error_text(output));
    measuring::text_of(output)
}

/// What `ringspun load` writes with `--json -`.
fn value_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&text_of(&load(&[arguments, &["--json", "-"]].concat()))).unwrap()
}

/// An echo server, and the target that it is.
fn echo_server() -> (Server, String) {
    let server = Server::start(&["serve", "echo", "--tcp", "127.0.0.1:0"]);
    let target = format!("tcp://{}", server.address);
    (server, target)
}

/// A file's path as an argument.
fn scratch(name: &str) -> String {
    scratch_path(name).to_str().unwrap().to_string()
}

fn remove(paths: &[&str]) {
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn a_log_reports_what_its_run_did_and_logs_merge() {
    let (_server, target) = echo_server();
    let (closed, open, csv) = (scratch("closed.hdr"), scratch("open.hdr"), scratch("run.csv"));
    let run = value_of(&[
        &target,
        "--connections",
        "4",
        "--duration",
        "1500ms",
        "--warmup",
        "100ms",
        "--hdr",
        &closed,
    ]);
    let report = value_of(&["report", &closed]);
    assert_eq!((&report["format"], &report["version"]), (&"ringspun-load-report".into(), &1.into()));
    assert_eq!(report["loop"], "closed");
    assert!(!fs::read_to_string(&closed).unwrap().contains("Tag=response"), "closed loops have no response");
    for name in ["response_time", "service_time"] {
        assert_eq!(report[name], run[name]);
    }
    for name in ["answered", "answered_after_end"] {
        assert_eq!(report["requests"][name], run["requests"][name]);
    }
    // The log has its times in milliseconds.
    let (reported, measured) = (number(&report["rate_per_s"]), number(&run["rate_per_s"]));
    assert!((reported / measured - 1.0).abs() < 0.005, "{reported} {measured}");

    let run = value_of(&[
        &target,
        "--connections",
        "4",
        "--rate",
        "500",
        "--count",
        "800",
        "--hdr",
        &open,
        "--csv",
        &csv,
    ]);
    let report = value_of(&["report", &open, &open]);
    assert_eq!((&report["loop"], &report["requests"]["answered"]), (&"open".into(), &1600.into()));
    for name in ["response_time", "service_time"] {
        // Each time twice: the percentiles are the same.
        for field in ["min_us", "mean_us", "p50_us", "p99_us", "p99_99_us", "max_us"] {
            assert_eq!(report[name][field], run[name][field], "{name} {field}");
        }
        assert_eq!(report[name]["count"], 1600);
    }
    let table = text_of(&load(&["report", &open]));
    assert!(table.contains("requests     800 answered") && table.contains("\nresponse time"), "{table}");

    check_csv(&fs::read_to_string(&csv).unwrap(), &run);
    let mixed = load(&["report", &open, &closed]);
    assert_eq!(mixed.status.code(), Some(1));
    assert!(error_text(&mixed).contains("expected logs of the same kind of loop"), "{}", error_text(&mixed));
    remove(&[&closed, &open, &csv]);
}

/// The rows add up to the run.
fn check_csv(csv: &str, run: &Value) {
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("time_s,rate_per_s,p50_us,p99_us,max_us,errors,sent_bytes_per_s,received_bytes_per_s,statuses")
    );
    // Percentiles of a second without responses are empty.
    let value = |value: &str| if value.is_empty() { 0.0 } else { value.parse().unwrap() };
    let rows: Vec<Vec<f64>> = lines.map(|line| line.split(',').take(8).map(value).collect()).collect();
    // A run of 1.6 seconds; a slow machine takes longer, or misses the end of a second.
    assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == 8), "{csv}");
    let (mut before_s, mut answered, mut longest_us) = (0.0, 0.0, 0.0_f64);
    for row in &rows {
        assert!(row[0] > before_s && row[2] <= row[3] && row[3] <= row[4], "{csv}");
        answered += (row[0] - before_s) * row[1];
        before_s = row[0];
        longest_us = longest_us.max(row[4]);
        assert_eq!(row[5], 0.0, "{csv}");
        // 64 bytes each way. The rate has one digit behind the point.
        assert!((row[6] - 64.0 * row[1]).abs() < 5.0 && row[6] == row[7], "{csv}");
    }
    assert!((answered - 800.0).abs() < 8.0, "{answered} {csv}");
    assert!((longest_us - number(&run["response_time"]["max_us"])).abs() < 0.01, "{csv}");
}

#[test]
fn errors_are_in_the_row_of_their_second() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let mut message = [0; 64];
        for number in 0.. {
            if connection.read_exact(&mut message).is_err() {
                return;
            }
            // The third answer is wrong in one byte.
            message[0] ^= u8::from(number == 2);
            connection.write_all(&message).unwrap();
        }
    });
    let csv = scratch("errors.csv");
    // Some seconds, so that there is a second row.
    let run = value_of(&[&target, "--rate", "50", "--count", "200", "--timeout", "60s", "--csv", &csv]);
    assert_eq!((&run["errors"]["total"], &run["requests"]["wrong"]), (&1.into(), &1.into()), "{run}");
    let rows = fs::read_to_string(&csv).unwrap();
    let (mut before_s, mut answered, mut expected, mut errors) = (0.0, 0.0, Vec::new(), Vec::new());
    for row in rows.lines().skip(1) {
        let value = |column| row.split(',').nth(column).unwrap().parse::<f64>().unwrap();
        // The row of the third response, which has come after two that were right.
        let answered_before = answered;
        answered += (value(0) - before_s) * value(1);
        before_s = value(0);
        errors.push(value(5));
        expected.push(f64::from(answered_before < 2.5 && answered > 1.5));
    }
    assert!(errors.len() > 1 && errors.iter().sum::<f64>() == 1.0, "{rows}");
    // Where two rows have it that may be: the third response came at the end of the one or the start of the other.
    assert!(errors.iter().zip(&expected).all(|(errors, expected)| errors <= expected), "{rows}");
    remove(&[&csv]);
}

#[test]
fn a_log_compared_with_itself_has_no_verdict() {
    let (_server, target) = echo_server();
    let log = scratch("same.hdr");
    let run = load(&[&target, "--rate", "200", "--duration", "6100ms", "--hdr", &log]);
    assert_eq!(run.status.code(), Some(0), "{}", error_text(&run));
    let comparison = value_of(&["report", "--compare", &log, &log]);
    let rows = comparison["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["rate_per_s", "p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"]);
    for row in rows {
        assert!(row["a"] == row["b"] && row["ratio"] == 1.0 && row["verdict"].is_null(), "{row}");
    }
    let table = text_of(&load(&["report", "--compare", &log, &log]));
    assert!(table.contains("p99.9") && !table.contains("B is"), "{table}");
    remove(&[&log]);
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let (missing, broken) = (scratch("missing.hdr"), scratch("broken.hdr"));
    let failed = load(&["report", &missing]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(error_text(&failed).contains(&format!("{missing}: No such file")), "{}", error_text(&failed));

    fs::write(&broken, "#[BaseTime: 1.000 (seconds since epoch)]\nTag=service,0.000,1.000\n").unwrap();
    let failed = load(&["report", &broken]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(error_text(&failed).contains(&format!("{broken}: line 2: ")), "{}", error_text(&failed));
    remove(&[&broken]);

    let nowhere = format!("{missing}/none");
    for flag in ["--hdr", "--csv"] {
        // Before anything is sent: nobody listens there.
        let failed = load(&["tcp://127.0.0.1:1", flag, &nowhere]);
        assert_eq!(failed.status.code(), Some(1));
        assert!(error_text(&failed).contains("missing.hdr/none: "), "{}", error_text(&failed));
    }
}

#[test]
fn command_lines_that_do_not_fit_are_refused() {
    for (arguments, expected) in [
        (&["report"][..], "<LOG>"),
        (&[][..], "<TARGET>"),
        (&["report", "--compare", "a.hdr"], "expected two"),
        (&["tcp://127.0.0.1:1", "report", "a.hdr"], "cannot be used with"),
    ] {
        let refused = load(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&refused).contains(expected), "{}", error_text(&refused));
    }
}
