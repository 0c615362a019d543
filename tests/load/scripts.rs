//! `ringspun load --script`: the steps that Janet programs make, as the server saw them and as they are told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{HELLO, http_server};
use crate::support::closing::dead_target;
use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::scratch_path;

/// A file with a script.
pub fn script(source: &str) -> PathBuf {
    let path = scratch_path("script.janet");
    fs::write(&path, source).unwrap();
    path
}

/// Measures a script.
pub fn run(target: &str, source: &str, arguments: &[&str], status: i32) -> Value {
    let path = script(source);
    measure(&[&[target, "--script", path.to_str().unwrap()], arguments].concat(), status)
}

/// The results with a name.
pub fn named<'v>(report: &'v Value, name: &str) -> &'v Value {
    let all = report["by_name"].as_array().unwrap();
    all.iter().find(|named| named["name"] == name).unwrap_or_else(|| panic!("there is {name}: {all:?}"))
}

pub fn sessions(report: &Value) -> [u64; 3] {
    ["planned", "begun", "completed"].map(|name| number(&report["sessions"][name]))
}

/// A shop that knows its users by their cookie, and counts its requests by their first line without numbers.
fn shop() -> (String, Arc<Mutex<BTreeMap<String, u64>>>) {
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let counted = counts.clone();
    let target = http_server(move |request| {
        let line = request.head.lines().next().unwrap();
        let line: String =
            line.trim_end_matches(" HTTP/1.1").chars().filter(|c| !c.is_ascii_digit()).collect();
        *counted.lock().unwrap().entry(line.clone()).or_insert(0) += 1;
        let cookie = request.head.lines().find_map(|line| line.strip_prefix("Cookie: "));
        let user = String::from_utf8(request.body.clone()).unwrap();
        match (line.as_str(), cookie) {
            ("POST /login", None) => format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: {user}; Path=/\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nyou\r\n7;x\r\n are in\r\n0\r\n\r\n"
            ),
            ("GET /items/", Some(cookie)) if cookie.starts_with("user=") => {
                "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nprice: 7".to_string()
            }
            ("POST /logout", Some(_)) => {
                "HTTP/1.1 303 See Other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_string()
            }
            _ => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_string(),
        }
    });
    (target, counts)
}

#[test]
fn the_example_makes_its_steps_and_the_results_tell_them_by_name() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/load_shop.janet");
    for arguments in [
        &["-n", "12"][..],
        &["-n", "12", "--workers", "3"],
        &["-n", "12", "--rate", "100"],
        &["-n", "12", "--rate", "100", "--workers", "2", "--arrivals", "even"],
    ] {
        let (target, counts) = shop();
        let base = [&target, "-c", "4", "--script", example, "--fail-if", "errors>0@login"];
        let report = measure(&[&base, arguments].concat(), 0);
        let counts = counts.lock().unwrap();
        assert_eq!((sessions(&report), number(&report["errors"]["total"])), ([12, 12, 12], 0), "{counts:?}");
        for (name, line) in [("login", "POST /login"), ("item", "GET /items/"), ("logout", "POST /logout")] {
            let results = named(&report, name);
            assert_eq!(number(&results["requests"]["answered"]), counts[line], "{name}: {counts:?}");
            assert_eq!(results["response_time"]["count"], results["requests"]["answered"]);
        }
        assert_eq!((counts["POST /login"], counts["POST /logout"]), (12, 12));
        assert!((12..=36).contains(&counts["GET /items/"]));
        assert_eq!(number(&report["requests"]["sent"]), counts.values().sum::<u64>());
        assert_eq!(number(&report["statuses"]["303"]), 12);
        assert_eq!(number(&report["connections"]["opened"]), 12);
        assert_eq!(report["plan"]["workload"], "script");
    }
}

#[test]
fn an_error_is_that_of_its_step_and_ends_the_session() {
    let (target, counts) = shop();
    let source = r#"
      (defn main [session]
        (load/step session "first" (fn [] 1))
        (case (% (session :number) 4)
          0 (load/step session "bad" (fn [] (error "no luck")))
          1 (load/step session "closed" load/request session "GET" "/secret?token=x")
          2 (errorf "between steps")
          3 (try (load/step session "caught" error @{:a 1}) ([_] nil)))
        (load/step session "last" (fn [answer] (assert (= answer 42))) 42))"#;
    let report = run(&target, source, &["-n", "8", "-c", "2", "--fail-if", "wrong>1@bad"], 3);
    // Only those that caught the error went on.
    assert_eq!(sessions(&report), [8, 8, 2]);
    let counts_of = |name| {
        let requests = &named(&report, name)["requests"];
        ["sent", "answered", "wrong", "bad_status"].map(|count| number(&requests[count]))
    };
    assert_eq!(counts_of("first"), [8, 8, 0, 0]);
    assert_eq!(counts_of("bad"), [2, 0, 2, 0]);
    assert_eq!(counts_of("closed"), [2, 0, 0, 2]);
    assert_eq!(counts_of("caught"), [2, 0, 2, 0]);
    assert_eq!(counts_of("last"), [2, 2, 0, 0]);
    assert_eq!(counts.lock().unwrap()["GET /secret?token=x"], 2);
    let errors = report["errors"]["kinds"].as_array().unwrap();
    let kinds: Vec<_> =
        errors.iter().map(|kind| (kind["kind"].as_str().unwrap(), number(&kind["count"]))).collect();
    assert_eq!(kinds, [("status", 2), ("script", 6)]);
    assert_eq!(errors[0]["example"], "closed: HTTP 403 for GET /secret");
    assert!(
        ["bad: no luck", "between steps", "caught: @{:a 1}"].iter().any(|text| errors[1]["example"] == *text),
        "{errors:?}"
    );
    assert_eq!(number(&report["statuses"]["403"]), 2);
}

#[test]
fn a_script_that_cannot_be_run_is_an_error_before_the_run() {
    let (target, counts) = shop();
    for (source, expected) in [
        ("(defn main [session]", "unexpected end of source"),
        ("(defn main [session] (undefined-function))", "unknown symbol undefined-function"),
        ("(error \"not today\")", "not today"),
        ("(defn other [session])", "it defines no function main"),
        ("(def main 5)", "it defines no function main"),
    ] {
        for workers in ["1", "2"] {
            let path = script(source);
            let path = path.to_str().unwrap();
            let output = load(&[&target, "-c", "2", "-n", "5", "--workers", workers, "--script", path]);
            let error = error_text(&output);
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(&format!("the script {path} failed: ")), "{error}");
            assert!(error.contains(expected), "{source}: {error}");
            assert_eq!(text_of(&output), "");
        }
    }
    let output = load(&[&target, "--script", "/nowhere/script.janet"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_text(&output).contains("/nowhere/script.janet"), "{}", error_text(&output));
    assert!(counts.lock().unwrap().is_empty());
}

#[test]
fn a_step_without_an_answer_times_out_and_the_next_session_gets_its_own() {
    let count = AtomicU64::new(0);
    let target = tcp_server(move |mut stream, _| {
        let mut bytes = [0; 5];
        // The first request of each second connection gets no answer.
        while stream.read_exact(&mut bytes).is_ok() {
            if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                stream.write_all(&bytes).unwrap();
            }
        }
    });
    let source = r#"
      (defn main [session]
        (load/step session "echo"
          (fn []
            (def stream (load/connection session))
            (:write stream "hello")
            (assert (= "hello" (string (:chunk stream 5)))))))"#;
    let report = run(&target, source, &["-n", "6", "--timeout", "3s"], 0);
    let requests = &report["requests"];
    assert_eq!(["sent", "answered", "timed_out"].map(|name| number(&requests[name])), [6, 3, 3]);
    assert_eq!((sessions(&report), number(&report["connections"]["opened"])), ([6, 6, 3], 6));
    assert_eq!(report["errors"]["kinds"][0]["example"], "echo: deadline expired");
    // Times are rounded down to one in a thousand.
    assert!(report["failure_time"]["min_us"].as_f64().unwrap() >= 2_997_000.0, "{}", report["failure_time"]);
}

#[test]
fn the_end_of_the_run_cuts_sessions_off_between_steps_and_awaits_steps() {
    let (target, _) = shop();
    let source = r#"
      (ev/go (fn [] (forever (ev/sleep 1000))))
      (defn main [session]
        (load/step session "one" (fn [] 1))
        (if (even? (session :user))
          (ev/sleep 1000)
          (load/step session "long" (fn [] (ev/sleep 1.2))))
        (load/step session "never" (fn [] 1)))"#;
    let begun = Instant::now();
    for pace in [&[][..], &["--rate", "50", "--fail-if", "unsent>9"]] {
        let arguments = [&["-c", "2", "-d", "800ms"], pace].concat();
        let report = run(&target, source, &arguments, if pace.is_empty() { 0 } else { 3 });
        assert_eq!((number(&report["sessions"]["begun"]), number(&report["sessions"]["completed"])), (2, 0));
        assert_eq!(number(&named(&report, "one")["requests"]["answered"]), 2);
        // It began in time, and was answered after the end.
        assert_eq!(number(&named(&report, "long")["requests"]["answered_after_end"]), 1);
        assert_eq!(report["by_name"].as_array().unwrap().len(), 2);
        assert_eq!(number(&report["errors"]["total"]), 0);
        if !pace.is_empty() {
            assert_eq!((&report["plan"]["loop"], sessions(&report)[0]), (&"partly_open".into(), 40));
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(500), "no one waits for those who sleep");
}

#[test]
fn users_that_wait_for_nothing_take_turns() {
    let (target, _) = shop();
    let source = r#"(defn main [session] (load/step session (string (session :user)) (fn [] 1)))"#;
    let report = run(&target, source, &["-c", "3", "-d", "300ms"], 0);
    let counts: Vec<u64> =
        ["0", "1", "2"].map(|name| number(&named(&report, name)["requests"]["answered"])).into();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least > 0 && 2 * least >= *most, "{counts:?}");
    assert_eq!(number(&report["connections"]["opened"]), 0);
}

#[test]
fn conditions_end_runs_and_a_warm_up_is_not_counted() {
    let (target, counts) = shop();
    let source =
        r#"(defn main [session] (ev/sleep 0.01) (load/step session "bad" (fn [] (error "always"))))"#;
    let report = run(&target, source, &["-d", "1h", "--abort-if", "errors>0", "--abort-window", "1s"], 1);
    assert_eq!(report["aborted"]["condition"], "errors>0");
    let source = r#"(defn main [session]
      (load/step session "login" load/request session "POST" "/login" :body "user=1" :headers {"X-A" 1}))"#;
    let report = run(&target, source, &["-d", "300ms", "--warmup", "300ms"], 0);
    let measured = number(&report["requests"]["answered"]);
    assert!(measured > 0 && measured < counts.lock().unwrap()["POST /login"]);
}

#[test]
fn a_target_that_refuses_is_told_and_not_tried_in_a_busy_loop() {
    let source = r#"(defn main [session] (load/step session "get" load/request session "GET" "/"))"#;
    let path = script(source);
    let target = dead_target().replace("tcp://", "http://");
    let output = load(&[&target, "-d", "1s", "--json", "-", "--script", path.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let refused = number(&report["errors"]["total"]);
    assert!((1..=20).contains(&refused), "{refused}");
    assert_eq!(report["errors"]["kinds"][0]["kind"], "connect_failed");
    assert_eq!(number(&report["requests"]["lost"]), refused);
    assert!(error_text(&output).contains("nothing was answered: get: "), "{}", error_text(&output));
}

#[test]
fn responses_of_every_form_are_read() {
    let target = http_server(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        match path {
            "/old" => "HTTP/1.0 200 OK\r\n\r\nuntil the end".to_string(),
            "/trailer" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
                    .to_string()
            }
            "/early" => format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{HELLO}"),
            "/none" => "HTTP/1.1 204 No Content\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n".to_string(),
            "/missing" => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_string(),
            "/garbage" => "SSH-2.0-x\r\n\r\n".to_string(),
            "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhel".to_string(),
            _ => HELLO.to_string(),
        }
    });
    let source = r#"
      (defn main [session]
        (defn get-it [path & options] (load/request session "GET" path ;options))
        (defn is [expected actual] (unless (deep= expected actual) (errorf "expected %q, got %q" expected actual)))
        (load/step session "all" (fn []
          (is "hello" ((get-it "/") :body))
          (is "until the end" ((get-it "/old") :body))
          (is "ok" ((get-it "/trailer") :body))
          (is "hello" ((get-it "/early") :body))
          (is {"x-twice" "1, 2"} ((get-it "/none") :headers))
          (is 404 ((get-it "/missing" :expect 404) :status))
          (is 404 ((get-it "/missing" :expect [200 404]) :status))
          (is "" ((load/request session "HEAD" "/none") :body))
          (is [false "HTTP 404 for GET /missing"] (protect (get-it "/missing")))
          (is "\"SSH-2.0-x\" was received: expected an HTTP/1.1 response" (last (protect (get-it "/garbage"))))
          (is "the target closed the connection before its response was complete" (last (protect (get-it "/cut"))))
          (is "hello" ((get-it "/") :body)))))"#;
    let report = run(&target, source, &["-n", "2"], 0);
    assert_eq!(sessions(&report), [2, 2, 2], "{}", report["errors"]);
}

#[test]
fn what_a_script_cannot_be_combined_with_is_refused() {
    let path = script("(defn main [session])");
    let path = path.to_str().unwrap();
    for (arguments, expected) in [
        (
            &["wss://localhost/"][..],
            "cannot be run against wss://localhost/: expected http://, https://, tcp://, tls://, udp:// or unix:",
        ),
        (&["http://localhost/", "--session", "2"], "cannot be used with"),
        (&["http://localhost/", "--pipeline", "2"], "cannot be used with"),
        (&["http://localhost/", "--find", "p99<1s", "--rate", "5"], "cannot be used with"),
    ] {
        let output = load(&[arguments, &["--script", path]].concat());
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}
