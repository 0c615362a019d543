//! `ringspun load --session`: which requests the sessions make, where, and when, as the server saw them.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{HELLO, http_server};
use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::scratch_path;

/// A server that answers each request with `answer`, and counts them.
fn counting_server(answer: &'static str) -> (String, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let target = http_server(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer.to_string()
    });
    (target, count)
}

/// The planned, begun and completed sessions of a report.
fn sessions(report: &Value) -> [u64; 3] {
    ["planned", "begun", "completed"].map(|name| number(&report["sessions"][name]))
}

#[test]
fn a_closed_loop_makes_one_session_after_the_other() {
    let (target, count) = counting_server(HELLO);
    for workers in ["1", "3"] {
        count.store(0, Ordering::Relaxed);
        let report = measure(&[&target, "-c", "3", "-n", "12", "--session", "5", "--workers", workers], 0);
        assert_eq!(sessions(&report), [12, 12, 12]);
        let requests = &report["requests"];
        assert_eq!((number(&requests["planned"]), number(&requests["answered"])), (60, 60));
        assert_eq!((count.load(Ordering::Relaxed), number(&report["connections"]["opened"])), (60, 3));
        assert_eq!(report["plan"]["loop"], "closed");
        assert_eq!(number(&report["generator"]["send_delay"]["count"]), 0);
    }
}

#[test]
fn sessions_begin_at_a_rate_and_are_the_same_with_the_same_seed() {
    let (target, count) = counting_server(HELLO);
    let base = [&target, "-c", "20", "-n", "40", "--rate", "400", "--session", "1..6", "--think", "1ms..9ms"];
    let mut totals = Vec::new();
    for (seed, workers) in [("3", "1"), ("3", "2"), ("4", "1")] {
        count.store(0, Ordering::Relaxed);
        let report = measure(&[&base[..], &["--seed", seed, "--workers", workers]].concat(), 0);
        assert_eq!(sessions(&report), [40, 40, 40]);
        let answered = number(&report["requests"]["answered"]);
        assert_eq!((count.load(Ordering::Relaxed), number(&report["errors"]["total"])), (answered, 0));
        assert_eq!(number(&report["requests"]["planned"]), answered);
        assert!((80..=200).contains(&answered), "{answered} requests of 40 sessions");
        let plan = &report["plan"];
        assert_eq!((&plan["loop"], &plan["session"]["requests_max"]), (&"partly_open".into(), &6.into()));
        assert_eq!(plan["session"]["think_min_s"], 0.001);
        totals.push(answered);
    }
    assert_eq!(totals[0], totals[1]);
    assert_ne!(totals[0], totals[2]);
}

#[test]
fn sessions_pause_between_their_requests_and_no_time_has_a_pause_in_it() {
    const THINK: Duration = Duration::from_millis(300);
    for pace in [&[][..], &["--rate", "50"]] {
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let seen = pauses.clone();
        let target = tcp_server(move |mut stream, _| {
            let mut message = [0; 64];
            let mut answered_at = None::<Instant>;
            while stream.read_exact(&mut message).is_ok() {
                seen.lock().unwrap().extend(answered_at.map(|at| at.elapsed()));
                answered_at = Some(Instant::now());
                stream.write_all(&message).unwrap();
            }
        });
        let base = [&target, "-c", "2", "-n", "2", "--session", "4", "--think", "300ms"];
        let report = measure(&[&base, pace].concat(), 0);
        assert_eq!((sessions(&report), number(&report["requests"]["answered"])), ([2, 2, 2], 8));
        // Six pauses within sessions. A connection may also have waited before its second session.
        let pauses = pauses.lock().unwrap();
        let long = pauses.iter().filter(|pause| **pause >= THINK).count();
        assert!(long >= 6, "{pauses:?}");
        // Three of four requests come after a pause.
        for times in ["response_time", "service_time"] {
            let p50_us = report[times]["p50_us"].as_f64().unwrap();
            assert!(p50_us < THINK.as_micros() as f64, "{times}: {p50_us}");
        }
    }
}

#[test]
fn a_session_that_waits_for_a_connection_is_late_from_its_arrival_on() {
    const TAKES: Duration = Duration::from_millis(60);
    let target = http_server(|_| {
        thread::sleep(TAKES);
        HELLO.to_string()
    });
    let base = [&target, "-n", "5", "--rate", "100", "--arrivals", "even", "--session", "2"];
    let report = measure(&base, 0);
    // The last session arrives after 40 ms, and has to wait for eight requests of others.
    let max_ms = report["response_time"]["max_us"].as_f64().unwrap() / 1000.0;
    assert!(max_ms >= 8.0 * 60.0 - 40.0 + 60.0, "{max_ms}");
    // Later requests are due when the one before is answered: each second one did not wait.
    let p50_ms = report["response_time"]["p50_us"].as_f64().unwrap() / 1000.0;
    assert!(p50_ms < max_ms / 2.0, "{p50_ms} {max_ms}");
}

#[test]
fn the_end_of_the_run_cuts_sessions_off_and_says_so() {
    let (target, count) = counting_server(HELLO);
    let base = [&target, "-c", "2", "-d", "600ms", "--session", "1000", "--think", "20ms"];
    let report = measure(&base, 0);
    let counts = &report["sessions"];
    assert_eq!((number(&counts["begun"]), number(&counts["completed"])), (2, 0));
    assert!(counts["planned"].is_null() && report["requests"]["planned"].is_null());
    assert_eq!(count.swap(0, Ordering::Relaxed), number(&report["requests"]["sent"]));
    // A think time that would end after the run ends it.
    let long = [&target, "-d", "300ms", "--session", "5", "--think", "1h"];
    assert_eq!(number(&measure(&long, 0)["requests"]["answered"]), 1);
    count.store(0, Ordering::Relaxed);

    let open = [&base[..], &["--rate", "50", "--arrivals", "even", "--fail-if", "unsent>27"]].concat();
    let page = scratch_path("sessions.html");
    let output = load(&[&open[..], &["--html", page.to_str().unwrap()]].concat());
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(3), "{text}{}", error_text(&output));
    for expected in [
        "GET, sessions of 1,000 requests with 20.0 ms between them, partly open loop: sessions begin at 50/s",
        "sessions     2 begun, 0 completed",
        "28 of 30 sessions did not begin before the end",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("<h2>Sessions</h2>") && page.contains("partly open loop"), "{page}");
}

#[test]
fn a_session_goes_on_over_another_connection() {
    // The target says that it closes.
    let (target, count) =
        counting_server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    for pace in [&[][..], &["--rate", "200"]] {
        count.store(0, Ordering::Relaxed);
        let base = [&target, "-c", "2", "-n", "6", "--session", "3", "--think", "1ms..3ms"];
        let report = measure(&[&base, pace].concat(), 0);
        assert_eq!((sessions(&report), number(&report["requests"]["answered"])), ([6, 6, 6], 18));
        assert_eq!(count.load(Ordering::Relaxed), 18);
    }
    // It closes without a word after two requests of a connection, which are sent again where they may be.
    let answered = Arc::new(AtomicU64::new(0));
    let count = answered.clone();
    let target = tcp_server(move |mut stream, _| {
        let mut bytes = [0; 4096];
        for _ in 0..2 {
            if stream.read(&mut bytes).unwrap_or(0) == 0 {
                return;
            }
            count.fetch_add(1, Ordering::Relaxed);
            stream.write_all(HELLO.as_bytes()).unwrap();
        }
        // The third gets no answer.
        let _ = stream.read(&mut bytes);
    });
    let target = target.replace("tcp://", "http://");
    for (method, resent, lost) in [("GET", 5, 0), ("POST", 0, 4)] {
        answered.store(0, Ordering::Relaxed);
        let report = measure(&[&target, "-n", "4", "--session", "3", "--method", method], 0);
        assert_eq!(sessions(&report), [4, 4, 4]);
        let requests = &report["requests"];
        assert_eq!(
            ["answered", "resent", "lost"].map(|name| number(&requests[name])),
            [12 - lost, resent, lost],
            "{requests}"
        );
        assert_eq!(answered.load(Ordering::Relaxed), 12 - lost);
    }
}

#[test]
fn the_requests_of_a_session_have_the_same_row_of_data() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = names.clone();
    let target = http_server(move |request| {
        let path = request.head.split(' ').nth(1).unwrap();
        seen.lock().unwrap().push(path.trim_start_matches('/').to_string());
        HELLO.to_string()
    });
    let (list, data) = (scratch_path("sessions.jsonl"), scratch_path("sessions.csv"));
    fs::write(&list, r#"{"path":"/{{csv.user}}-{{counter}}","name":"visit"}"#).unwrap();
    fs::write(&data, "user\nann\nbob\n").unwrap();
    let [list, data] = [&list, &data].map(|path| path.to_str().unwrap());
    let base = [&target, "-n", "3", "--session", "2", "--requests", list, "--data", data];
    let report = measure(&base, 0);
    assert_eq!(*names.lock().unwrap(), ["ann-1", "ann-2", "bob-3", "bob-4", "ann-5", "ann-6"]);
    assert_eq!(number(&report["by_name"][0]["requests"]["answered"]), 6);
}

#[test]
fn what_sessions_cannot_be_combined_with_is_refused() {
    let target = "http://127.0.0.1:1/";
    for (arguments, expected) in [
        (
            &[target, "--session", "5", "--pipeline", "2"][..],
            "sessions with a pipeline of 2: expected one request",
        ),
        (&[target, "--session", "5", "--http2"], "sessions over HTTP/2: expected HTTP/1.1"),
        (
            &[target, "--session", "5", "--requests-per-connection", "9"],
            "sessions with 9 requests per connection",
        ),
        (&[target, "--session", "5", "--rate", "1..10"], "at rates that change (1 to 10/s"),
        (&[target, "--session", "5", "--steps", "1,10:1s"], "cannot be used with"),
        (&[target, "--think", "1s"], "--session"),
        (&[target, "--session", "5..1"], "expected the smaller one first"),
        (&["udp://127.0.0.1:1", "--session", "5"], "sessions with the workload echo for udp://127.0.0.1:1"),
        (&["tcp://127.0.0.1:1", "--workload", "churn", "--session", "5"], "with the workload churn"),
    ] {
        let output = load(arguments);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

/// The value of a header of a request, in its head.
fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_session_sends_the_cookies_that_it_got_and_the_next_one_forgets_them() {
    let next = AtomicU64::new(0);
    let cookies = Arc::new(Mutex::new(Vec::new()));
    let seen = cookies.clone();
    // Who has none yet gets one, and another one for elsewhere.
    let target = http_server(move |request| {
        let cookie = header(&request.head, "Cookie").map(str::to_string);
        seen.lock().unwrap().push(cookie.clone());
        match cookie {
            Some(_) => HELLO.to_string(),
            None => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let set = format!(
                    "Set-Cookie: id={number}; Path=/; HttpOnly; Secure\r\nSet-Cookie: other=1; Path=/x\r\n"
                );
                HELLO.replacen("\r\n", &format!("\r\n{set}"), 1)
            }
        }
    });
    let list = scratch_path("cookies.jsonl");
    fs::write(&list, r#"{"method":"POST","body":"{{counter}}"}"#).unwrap();
    for (extra, pace) in [
        (&[][..], &["--rate", "200"][..]),
        (&["--requests", list.to_str().unwrap()], &[]),
        (&["--follow", "1"], &[]),
    ] {
        cookies.lock().unwrap().clear();
        let report = measure(
            &[&[&target, "-c", "2", "-n", "5", "--session", "4", "--workers", "2"], extra, pace].concat(),
            0,
        );
        assert_eq!((sessions(&report), number(&report["requests"]["answered"])), ([5, 5, 5], 20));
        let mut counts = std::collections::BTreeMap::new();
        cookies.lock().unwrap().iter().for_each(|cookie| *counts.entry(cookie.clone()).or_insert(0) += 1);
        // Five first requests without one, and each session's own with the other three.
        assert_eq!((counts.remove(&None), counts.len()), (Some(5), 5), "{counts:?}");
        assert!(counts.iter().all(|(cookie, count)| {
            *count == 3 && cookie.as_deref().is_some_and(|cookie| cookie.starts_with("id="))
        }));
        let sent_bytes = number(&report["traffic"]["sent_bytes"]);
        assert!(sent_bytes > 0, "{}", report["traffic"]);
    }
    // Without sessions there are none.
    cookies.lock().unwrap().clear();
    measure(&[&target, "-n", "5"], 0);
    assert!(cookies.lock().unwrap().iter().all(Option::is_none));
}

#[test]
fn a_login_that_redirects_is_followed_with_its_cookie() {
    let target = http_server(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        let is_known = header(&request.head, "Cookie") == Some("given=1; id=7");
        match (path, is_known) {
            ("/home", true) => HELLO.to_string(),
            ("/login", _) => "HTTP/1.1 303 See Other\r\nLocation: /home\r\nSet-Cookie: id=7\r\n\
                              Content-Length: 0\r\n\r\n"
                .to_string(),
            _ => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_string(),
        }
    });
    let login = format!("{target}/login");
    let base =
        [&login, "-n", "3", "--method", "POST", "--body", "me", "--follow", "1", "-H", "Cookie: given=1"];
    let report = measure(&[&base[..], &["--session", "2"]].concat(), 0);
    assert_eq!(number(&report["requests"]["answered"]), 6, "{}", report["errors"]);
    assert_eq!((number(&report["requests"]["redirects"]), &report["statuses"]["200"]), (6, &6.into()));
    let report = measure(&base, 1);
    assert_eq!(number(&report["requests"]["bad_status"]), 3);
}
