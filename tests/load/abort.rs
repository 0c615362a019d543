//! `ringspun load --abort-if`: a condition that holds over the last seconds ends the run.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::support::measuring::{check_sums, error_text, load, measure, tcp_server, text_of};

/// Answers every second request wrongly.
fn unreliable_server() -> String {
    let count = AtomicU64::new(0);
    tcp_server(move |mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            message[0] ^= u8::from(count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2));
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_condition_that_holds_ends_the_run_which_has_failed() {
    let target = unreliable_server();
    for workers in ["1", "2"] {
        let abort = ["--abort-if", "p50>1h", "--abort-if", "errors>=1", "--abort-window", "1s"];
        let flags = ["-c", "2", "-r", "200", "-d", "1h", "--workers", workers, "--json", "-"];
        let output = load(&[&[target.as_str()], &abort[..], &flags].concat());
        assert_eq!(output.status.code(), Some(3), "{}", error_text(&output));
        assert!(error_text(&output).contains(" held: "), "{}", error_text(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_sums(&report);
        let aborted = &report["aborted"];
        assert!(aborted["at_s"].as_f64().unwrap() >= 1.0, "{aborted}");
        assert!(["p50>1h", "errors>=1"].contains(&aborted["condition"].as_str().unwrap()), "{aborted}");
        assert_eq!((&report["stopped_by"], &report["requests"]["planned"]), (&Value::Null, &Value::Null));
    }
    let flags = ["-c", "2", "-r", "200", "-d", "1h", "--abort-if", "errors>=1", "--abort-window", "0s"];
    let text = text_of(&load(&[&[target.as_str()], &flags[..]].concat()));
    assert!(text.starts_with("the run was ended after ") && text.contains(": errors>=1 held: "), "{text}");
}

#[test]
fn an_aborted_run_ends_the_repeats_and_an_aborted_trial_fails() {
    let target = unreliable_server();
    let base = [target.as_str(), "-d", "1h", "--abort-if", "errors>=1", "--abort-window", "1s"];
    let report = measure(&[&base[..], &["-r", "100", "--repeat", "3"]].concat(), 3);
    assert_eq!((&report["repeat"]["runs"], report["aborted"].is_null()), (&0.into(), false));
    let report =
        measure(&[&base[..], &["--find", "errors<1", "--find-from", "20", "--find-to", "20"]].concat(), 3);
    let trials = report["search"]["trials"].as_array().unwrap();
    assert!(trials.len() >= 2 && trials.iter().all(|trial| trial["holds"] == false), "{trials:?}");
}

#[test]
fn a_run_in_which_the_condition_never_holds_goes_on() {
    let target = unreliable_server();
    let flags = ["-r", "100", "-d", "1500ms", "--abort-if", "errors>=1000000", "--abort-window", "1s"];
    let report = measure(&[&[target.as_str()], &flags[..]].concat(), 0);
    assert_eq!((&report["aborted"], &report["stopped_by"]), (&Value::Null, &Value::Null));
    // It would never be looked at.
    for (length, window) in [("5s", "5s"), ("2s", "5s"), ("1s", "1ms")] {
        let flags = ["-d", length, "--abort-window", window, "--abort-if", "errors>0"];
        let output = load(&[&[target.as_str()], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
        assert!(error_text(&output).contains("expected a shorter window"), "{}", error_text(&output));
    }
    let output = load(&[&target, "--abort-window", "1s"]);
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    assert!(error_text(&output).contains("--abort-if"), "{}", error_text(&output));
}
