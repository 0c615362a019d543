//! What the tests of `ringspun load` share: calling it, checking that its counts add up, and a server.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use serde_json::Value;

/// Calls `ringspun load`.
pub fn load(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.arg("load").args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What it said to people about what went wrong.
pub fn error_text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The same of a run that a signal has stopped, without what is said about the wait for the last responses where that
/// takes long.
pub fn stopped_text(output: &Output) -> String {
    let text = error_text(output);
    let waited = text.starts_with("ringspun: still waiting for responses");
    text.split_inclusive('\n').skip(usize::from(waited)).collect()
}

/// What it printed.
pub fn text_of(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Measures with `--json -`, expects an exit status, and checks that the counts add up.
pub fn measure(arguments: &[&str], status: i32) -> Value {
    let output = load(&[arguments, &["--json", "-"]].concat());
    assert_eq!(output.status.code(), Some(status), "{}{}", text_of(&output), error_text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    check_sums(&report);
    report
}

/// Tests several cases at the same time, as most of theirs goes into waiting.
pub fn at_once<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// A count in the report.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a whole number"))
}

/// Checks what holds in every report.
pub fn check_sums(report: &Value) {
    assert_eq!((&report["format"], &report["version"]), (&"ringspun-load".into(), &1.into()));
    let requests = &report["requests"];
    let ends: u64 = ["answered", "wrong", "bad_status", "bad_body", "timed_out", "lost"]
        .iter()
        .map(|end| number(&requests[end]))
        .sum();
    assert_eq!(number(&requests["sent"]), ends, "{requests}");
    if !requests["planned"].is_null() {
        let sent_or_not = number(&requests["sent"]) + number(&requests["unsent"]);
        assert_eq!(number(&requests["planned"]), sent_or_not, "{requests}");
    }
    let (plan, traffic) = (&report["plan"], &report["traffic"]);
    if let (Some("echo"), Some(payload_bytes)) = (plan["workload"].as_str(), plan["payload_bytes"].as_u64()) {
        let in_time = number(&requests["answered"]) - number(&requests["answered_after_end"]);
        for bytes in ["sent_bytes", "received_bytes"] {
            assert_eq!(number(&traffic[bytes]), in_time * payload_bytes, "{traffic} {requests}");
        }
    }
    for times in ["response_time", "service_time"] {
        let times = &report[times];
        assert_eq!(times["count"], requests["answered"]);
        let ordered = ["min_us", "p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us", "max_us"];
        let values: Vec<f64> = ordered.iter().filter_map(|name| times[name].as_f64()).collect();
        assert_eq!(values.len(), if number(&times["count"]) > 0 { ordered.len() } else { 0 }, "{times}");
        assert!(values.is_sorted(), "{times}");
    }
    let errors = &report["errors"];
    let kinds = errors["kinds"].as_array().unwrap();
    let total: u64 = kinds.iter().map(|kind| number(&kind["count"])).sum();
    assert_eq!(number(&errors["total"]), total, "{errors}");
    for kind in kinds {
        assert!(kind["example"].as_str().is_some_and(|example| !example.is_empty()), "{kind}");
    }
}

/// A TCP server that gives each connection, with its number, to `serve` on a thread of its own, for as long as
/// the test's process lives.
pub fn tcp_server(serve: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, connection) in (0..).zip(listener.incoming()) {
            let serve = serve.clone();
            thread::spawn(move || serve(connection.unwrap(), number));
        }
    });
    target
}
