//! `ringspun load --repeat`: several runs, and the intervals of their figures. That the intervals are right is for
//! `load/src/estimate.rs`.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;

fn echo_server() -> String {
    tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    })
}

#[test]
fn runs_are_reported_together_with_intervals() {
    let (target, folder) = (echo_server(), ScratchFolder::new("repeat"));
    let page = folder.file("page.html");
    for pace in [&["--rate", "500", "--seed", "7"][..], &[]] {
        let flags = ["-c", "2", "-n", "200", "--repeat", "3", "--timeout", "60s", "--html", &page];
        let report = measure(&[&[target.as_str()], &flags[..], pace].concat(), 0);
        let repeat = &report["repeat"];
        assert_eq!((&repeat["wanted"], &repeat["runs"]), (&3.into(), &3.into()));
        let figures = repeat["figures"].as_array().unwrap();
        let names: Vec<_> = figures.iter().map(|figure| figure["figure"].as_str().unwrap()).collect();
        // 200 requests have no p99.9.
        assert_eq!(
            names,
            ["rate_per_s", "failed_percent", "mean_us", "p50_us", "p90_us", "p99_us", "max_us"]
        );
        for figure in figures {
            let value = |name: &str| figure[name].as_f64().unwrap();
            let values: Vec<f64> =
                figure["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            assert_eq!(values.len(), 3);
            assert!(value("low") <= value("mean") && value("mean") <= value("high"), "{figure}");
            assert!((value("mean") - values.iter().sum::<f64>() / 3.0).abs() < 0.01, "{figure}");
        }
        assert_eq!(figures[1]["values"], serde_json::json!([0.0, 0.0, 0.0]));
        // Other results are those of the last run.
        assert_eq!(figures[6]["values"][2], report["response_time"]["max_us"]);
        assert_eq!(number(&report["requests"]["answered"]), 200);
        let page = fs::read_to_string(&page).unwrap();
        assert!(page.contains("id=\"repeats\"") && page.contains("95 % interval"), "no section");
        if !pace.is_empty() {
            assert_eq!(repeat["seeds"], serde_json::json!([7, 8, 9]));
            assert_eq!(report["plan"]["seed"], 9);
        }
    }
    let text = text_of(&load(&[&target, "-n", "50", "--repeat", "2"]));
    assert!(text.starts_with("2 runs: means, with 95 % confidence intervals\n"), "{text}");
    assert!(text.contains("\nrate ") && text.contains("\nThe last run:\ntcp://"), "{text}");
    assert!(text.lines().take(11).all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_gate_that_breaks_in_one_run_has_failed() {
    let connections = AtomicU64::new(0);
    let target = tcp_server(move |mut stream, _| {
        // The second run gets wrong answers.
        let answer = if connections.fetch_add(1, Ordering::Relaxed) == 1 { 1 } else { 0 };
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            message[0] ^= answer;
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let flags = ["-n", "1", "--repeat", "4", "--fail-if", "errors>0"];
    let output = load(&[&[target.as_str()], &flags[..], &["--json", "-"]].concat());
    // Nothing was answered in the second run, which is the last one.
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["repeat"]["wanted"], &report["repeat"]["runs"]), (&4.into(), &2.into()));
    assert_eq!(report["gates"][0]["broken"], true);
}

#[test]
fn repeats_that_do_not_fit_exit_with_two() {
    for (arguments, value, expected) in [
        (&["--repeat", "1"][..], "expected a whole number from 2 to 1000", "--repeat"),
        (&["--repeat", "x"], "'x'", "expected a whole number from 2 to 1000"),
        (&["--repeat", "3", "--csv", "-"], "--csv", "cannot be used with"),
        (&["--repeat", "3", "--find", "p99<1s"], "--find", "cannot be used with"),
    ] {
        let output = load(&[&["tcp://127.0.0.1:9"], arguments].concat());
        let errors = error_text(&output);
        assert_eq!(
            (output.status.code(), text_of(&output)),
            (Some(2), String::new()),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}
