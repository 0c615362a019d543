//! `ringspun load --prometheus`: the text is parsed strictly, has the figures of the JSON, and takes the place of an
//! earlier file at once.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::http::{HELLO, http_server};
use crate::support::measuring::{error_text, load, measure, tcp_server, text_of};
use crate::support::prometheus::{Samples, parse};
use crate::support::scratch::ScratchFolder;

fn echo_server() -> String {
    tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    })
}

/// Measures, and returns what was written as JSON and as metrics.
fn results(arguments: &[&str], status: i32) -> (Value, Samples) {
    let folder = ScratchFolder::new("metrics");
    let file = folder.file("load.prom");
    let report = measure(&[arguments, &["--prometheus", &file]].concat(), status);
    let text = fs::read_to_string(&file).unwrap();
    (report, parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// The sample of a name, with labels as they are in the text.
fn sample(samples: &Samples, name: &str) -> f64 {
    *samples.get(&format!("ringspun_load_{name}")).unwrap_or_else(|| panic!("{name} in {samples:#?}"))
}

/// Checks that a summary has the times of the JSON.
fn check_times(samples: &Samples, name: &str, labels: &str, times: &Value) {
    let count = times["count"].as_f64().unwrap();
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    assert_eq!(sample(samples, &format!("{name}_count{braced}")), count);
    let sum = sample(samples, &format!("{name}_sum{braced}"));
    let mean_us = times["mean_us"].as_f64().unwrap_or_default();
    assert!((sum * 1e6 - mean_us * count).abs() <= 0.001 * sum * 1e6 + 1e-9, "{name}: {sum}, {times}");
    let separator = if labels.is_empty() { "" } else { "," };
    for (quantile, field, least) in
        [("0", "min_us", 1.0), ("0.5", "p50_us", 2.0), ("0.99", "p99_us", 100.0), ("1", "max_us", 1.0)]
    {
        let key = format!("ringspun_load_{name}{{{labels}{separator}quantile=\"{quantile}\"}}");
        match (samples.get(&key), times[field].as_f64()) {
            (Some(seconds), Some(us)) => assert!((seconds * 1e6 - us).abs() < 0.01, "{key}: {seconds}, {us}"),
            // Quantiles that are no other than the greatest time are left out.
            (found, _) => assert!(found.is_none() && count < least, "{key}: {found:?}, {times}"),
        }
    }
}

#[test]
fn a_run_has_the_figures_of_its_json() {
    let served = AtomicU64::new(0);
    let target = http_server(move |_| match served.fetch_add(1, Ordering::Relaxed) % 5 {
        0 => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_string(),
        _ => HELLO.to_string(),
    });
    let url = format!("{target}/path?token=secret");
    let gate = "503>1";
    let flags =
        ["-c", "2", "-r", "1k", "-n", "300", "--timeout", "60s", "--fail-if", gate, "--fail-if", gate];
    let (report, samples) = results(&[&[url.as_str()], &flags[..]].concat(), 3);
    let requests = &report["requests"];
    for result in ["answered", "wrong", "bad_status", "bad_body", "timed_out", "lost"] {
        let count = sample(&samples, &format!("requests_total{{result=\"{result}\"}}"));
        assert_eq!(Some(count), requests[result].as_f64(), "{result}");
    }
    assert_eq!(sample(&samples, "requests_planned_total"), 300.0);
    assert_eq!(sample(&samples, "requests_unsent_total"), 0.0);
    assert_eq!(sample(&samples, "responses_total{status=\"200\"}"), 240.0);
    assert_eq!(sample(&samples, "errors_total{kind=\"status\"}"), 60.0);
    assert_eq!(sample(&samples, "errors_total{kind=\"reset\"}"), 0.0);
    assert_eq!(sample(&samples, "gate_failed{gate=\"503>1\"}"), 1.0);
    assert_eq!(sample(&samples, "connections_wanted"), 2.0);
    assert_eq!(Some(sample(&samples, "sent_bytes_total")), report["traffic"]["sent_bytes"].as_f64());
    let rate = sample(&samples, "responses_per_second");
    assert!((rate - report["rate_per_s"].as_f64().unwrap()).abs() <= 0.06, "{rate}");
    let began_s = sample(&samples, "begin_timestamp_seconds");
    assert!((1.7e9..1e11).contains(&began_s), "{began_s}");
    for name in ["response_time", "service_time", "failure_time"] {
        check_times(&samples, &format!("{name}_seconds"), "", &report[name]);
    }
    check_times(&samples, "send_delay_seconds", "", &report["generator"]["send_delay"]);
    let info = samples.keys().find(|key| key.starts_with("ringspun_load_info{")).unwrap();
    assert!(
        info.contains(&format!("target=\"{target}/path?...\",workload=\"http\",loop=\"open\"")),
        "{info}"
    );
    assert!(!info.contains("secret"), "{info}");
}

#[test]
fn steps_names_repeats_and_searches_have_theirs() {
    let (echo, http) = (echo_server(), http_server(|_| HELLO.to_string()));
    let (report, samples) = results(&[&echo, "--steps", "100,200..300:300ms"], 0);
    for (number, step) in (1..).zip(report["steps"].as_array().unwrap()) {
        let labels = format!("step=\"{number}\"");
        let answered = sample(&samples, &format!("step_requests_total{{{labels},result=\"answered\"}}"));
        assert_eq!(Some(answered), step["requests"]["answered"].as_f64());
        check_times(&samples, "step_response_time_seconds", &labels, &step["response_time"]);
    }
    assert_eq!(sample(&samples, "step_planned_per_second{step=\"2\",at=\"end\"}"), 300.0);

    let folder = ScratchFolder::new("named");
    let list = folder.file("requests.jsonl");
    let lines = r#"{"path":"/","name":"a \"quoted\" \\ name"}"#;
    fs::write(&list, lines).unwrap();
    let (report, samples) = results(&[&http, "-n", "20", "--requests", &list], 0);
    let labels = r#"name="a \"quoted\" \\ name""#;
    assert_eq!(sample(&samples, &format!("named_requests_total{{{labels},result=\"answered\"}}")), 20.0);
    assert_eq!(sample(&samples, &format!("named_responses_total{{{labels},status=\"200\"}}")), 20.0);
    check_times(&samples, "named_response_time_seconds", labels, &report["by_name"][0]["response_time"]);

    let (report, samples) = results(&[&echo, "-n", "50", "--repeat", "3"], 0);
    assert_eq!(sample(&samples, "repeat_runs"), 3.0);
    let figures = report["repeat"]["figures"].as_array().unwrap();
    for (figure, name, per_unit) in [
        ("rate_per_s", "repeat_responses_per_second{estimate=\"low\"}", 1.0),
        ("failed_percent", "repeat_failed_ratio{estimate=\"low\"}", 100.0),
        ("p50_us", "repeat_response_time_seconds{estimate=\"low\",figure=\"p50\"}", 1e6),
    ] {
        let known = figures.iter().find(|known| known["figure"] == figure).unwrap();
        let found = sample(&samples, name) * per_unit;
        assert!((found - known["low"].as_f64().unwrap()).abs() < 0.01, "{name}: {found}, {known}");
    }

    let find = ["--find", "errors>=0", "--find-from", "50", "--find-to", "50", "--find-confirm", "1"];
    let (report, samples) = results(&[&[echo.as_str(), "-d", "300ms", "-c", "4"], &find[..]].concat(), 0);
    assert_eq!(sample(&samples, "find_found"), 1.0);
    // A slow machine may find less.
    let rate = report["search"]["rate_per_s"].as_f64();
    assert_eq!(Some(sample(&samples, "find_rate_per_second")), rate);
}

#[test]
fn the_file_is_replaced_at_once_and_nothing_else_is_left() {
    let (target, folder) = (echo_server(), ScratchFolder::new("replaced"));
    let (file, link) = (folder.file("load.prom"), folder.file("link.prom"));
    fs::write(&file, "earlier\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&file, &link).unwrap();
    let before = fs::metadata(&file).unwrap();
    let earlier = fs::File::open(&file).unwrap();
    let output = load(&[&target, "-n", "10", "--prometheus", &link]);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let after = fs::metadata(&file).unwrap();
    assert_ne!(before.ino(), after.ino(), "a reader could have read a part");
    assert_eq!(after.mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // To a file that is not there yet, and a name as long as they get.
    let (new, later, long) =
        (folder.file("new.prom"), folder.file("later.prom"), folder.file(&"n".repeat(255)));
    symlink("new.prom", &later).unwrap();
    for path in [&later, &long] {
        let output = load(&[&target, "-n", "10", "--prometheus", path]);
        assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
        assert!(parse(&fs::read_to_string(path).unwrap()).is_ok());
    }
    assert!(
        fs::symlink_metadata(&later).unwrap().is_symlink() && fs::symlink_metadata(&new).unwrap().is_file()
    );
    // Who had opened the earlier one reads all of it.
    assert_eq!(std::io::read_to_string(earlier).unwrap(), "earlier\n");
    assert!(parse(&fs::read_to_string(&file).unwrap()).is_ok());
    assert!(text_of(&output).starts_with("tcp://"), "the table is printed as well");
    let files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 5, "{files:?}");
}

#[test]
fn what_cannot_be_written_is_known_before_the_run() {
    let (target, folder) = (echo_server(), ScratchFolder::new("unwritable"));
    let (missing, slash, ring) = (folder.file("missing/load.prom"), folder.file("new/"), folder.file("ring"));
    symlink("ring", &ring).unwrap();
    for (path, why) in [
        (missing.as_str(), "No such file"),
        (&slash, "expected a file"),
        (&ring, "symbolic links"),
        (folder.path().to_str().unwrap(), "expected a file"),
    ] {
        // An hour would not end in time.
        let output = load(&[&target, "-d", "1h", "--prometheus", path]);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(&format!("cannot write {path}: ")) && errors.contains(why), "{errors}");
    }
    let output = load(&[&target, "-n", "1", "--prometheus", "/dev/full"]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("cannot write /dev/full: No space left"), "{errors}");

    let file = folder.file("same");
    for other in [["--json", &file], ["--html", &file], ["--csv", &file]] {
        let output = load(&[&target, "-n", "1", "--prometheus", &file, other[0], other[1]]);
        let expected = format!("{} and --prometheus both write to {file}", other[0]);
        assert!(error_text(&output).contains(&expected), "{}", error_text(&output));
        assert_eq!(output.status.code(), Some(2));
    }
    let output = load(&[&target, "-n", "1", "--prometheus", "-", "--json", "-"]);
    assert_eq!(output.status.code(), Some(2), "{}", error_text(&output));
}

#[test]
fn metrics_can_go_to_standard_output_instead_of_the_table() {
    let output = load(&[&echo_server(), "-n", "10", "--prometheus", "-"]);
    assert_eq!((output.status.code(), error_text(&output).as_str()), (Some(0), ""));
    let samples = parse(&text_of(&output)).unwrap();
    assert_eq!(sample(&samples, "requests_total{result=\"answered\"}"), 10.0);
    assert!(!samples.keys().any(|key| key.contains("send_delay")), "none in a closed loop: {samples:?}");
}
