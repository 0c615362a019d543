//! `ringspun load` against targets that close, stall, fail or die, and runs that are interrupted: each is counted
//! for what it is, and never taken for a success.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::closing::{close, dead_target, mortal_listener};
use crate::support::measuring::{at_once, error_text, load, measure, number, tcp_server, text_of};
use serde_json::Value;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Reads the head of a request without a body; false at the end of the connection.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).is_ok_and(|length| length == 1) {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

/// A server that gives each request, with its number on its connection and that of the connection, to `answer`. It
/// closes the connection where that returns no response.
fn http_server(answer: impl Fn(u64, u64) -> Option<String> + Send + Sync + 'static) -> String {
    let target = tcp_server(move |mut stream, connection| {
        for request in 0.. {
            if !read_head(&mut stream) {
                return;
            }
            let Some(response) = answer(request, connection) else { return };
            if stream.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    });
    target.replace("tcp://", "http://")
}

fn requests(report: &Value, names: [&str; 3]) -> [u64; 3] {
    names.map(|name| number(&report["requests"][name]))
}

#[test]
fn connections_closed_while_idle_are_reopened_without_a_loss() {
    // Closed long before the next request is due.
    let target = tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        if stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
    for pipeline in ["1", "4"] {
        let rate = ["--rate", "2", "--arrivals", "even", "--count", "6"];
        let base = [&["--connections", "2", "--pipeline", pipeline][..], &rate].concat();
        let report = measure(&[&[target.as_str()][..], &base].concat(), 0);
        assert_eq!(requests(&report, ["answered", "lost", "unsent"]), [6, 0, 0], "{}", report["errors"]);
        assert_eq!(number(&report["errors"]["total"]), 0, "{}", report["errors"]);
        let connections = &report["connections"];
        assert_eq!(number(&connections["opened"]), 2 + number(&connections["closed_idle"]), "{connections}");
        assert!(number(&connections["closed_idle"]) >= 4, "{connections}");
    }
}

#[test]
fn a_connection_whose_end_is_known_gets_no_request() {
    // Closed after each answer, without a word. Fewer than 250 ms lie between two requests: idle connections are not
    // watched.
    let echo = tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        if stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message).unwrap();
        }
    });
    let http_closing = tcp_server(|mut stream, _| {
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok_and(|count| count > 0) {
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let http_closing = http_closing.replace("tcp://", "http://");
    for flags in [
        &[echo.as_str()][..],
        &[&echo, "--pipeline", "2"],
        &[&http_closing, "--method", "POST"],
        &[&http_closing, "--method", "POST", "--session", "2", "--think", "150ms"],
    ] {
        let pace = ["--rate", "5", "--arrivals", "even", "--count", "5"];
        let report = measure(&[flags, &pace].concat(), 0);
        let sent = if flags.contains(&"--session") { 10 } else { 5 };
        let counts = requests(&report, ["sent", "answered", "lost"]);
        assert_eq!((counts[0], counts[1] + counts[2]), (sent, sent), "{flags:?}: {}", report["requests"]);
        // An end may come late, on a busy machine, but not each.
        assert!(number(&report["connections"]["closed_idle"]) > 0, "{flags:?}: {report}");
    }
}

#[test]
fn a_request_goes_to_the_next_free_connection() {
    // The first response of the first connection waits for all others, which therefore must not wait for it.
    let others = Arc::new((Mutex::new(0), Condvar::new()));
    let target = tcp_server(move |mut stream, connection| {
        let (count, changed) = &*others;
        let mut message = [0; 64];
        for request in 0.. {
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            let mut answered = count.lock().unwrap();
            if (connection, request) == (0, 0) {
                drop(changed.wait_while(answered, |answered| *answered < 199).unwrap());
            } else {
                *answered += 1;
                changed.notify_all();
                drop(answered);
            }
            stream.write_all(&message).unwrap();
        }
    });
    let base = ["--connections", "10", "--rate", "1k", "--count", "200", "--timeout", "60s"];
    let report = measure(&[&[target.as_str()][..], &base].concat(), 0);
    assert_eq!(requests(&report, ["answered", "timed_out", "lost"]), [200, 0, 0]);
}

#[test]
fn a_response_after_the_timeout_counts_as_timed_out_however_soon_after() {
    // Each response comes a little later than it may.
    let target = tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            thread::sleep(Duration::from_millis(205));
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    for flags in
        [&[][..], &["--rate", "1k"], &["--pipeline", "2"], &["--workload", "churn", "--payload", "64"]]
    {
        let base = [target.as_str(), "--connections", "4", "--count", "12", "--timeout", "200ms"];
        let report = measure(&[&base[..], flags].concat(), 1);
        assert_eq!(number(&report["requests"]["answered"]), 0, "{flags:?}: {}", report["requests"]);
        let ends = requests(&report, ["timed_out", "lost", "sent"]);
        assert!(ends[0] > 0 && ends[0] + ends[1] == ends[2], "{flags:?}: {}", report["requests"]);
    }
}

#[test]
fn failures_count_in_gates() {
    // Each second response never comes.
    let target = tcp_server(|mut stream, connection| {
        let mut message = [0; 64];
        if stream.read_exact(&mut message).is_ok() {
            if connection % 2 == 1 {
                thread::sleep(Duration::from_secs(3600));
            }
            stream.write_all(&message).unwrap();
        }
    });
    let base = [
        target.as_str(),
        "--workload",
        "churn",
        "--payload",
        "64",
        "--connections",
        "10",
        "--count",
        "10",
        "--timeout",
        "5s",
    ];
    let failed = "5 of 10 requests failed or were not sent";
    let broken = [("p99>3600s", failed), ("max>3600s", failed), ("errors>40%", "50.000%")];
    let gates = |gates: &[&'static str]| Vec::from_iter(gates.iter().flat_map(|gate| ["--fail-if", gate]));
    let report = measure(&[&base[..], &gates(&broken.map(|(gate, _)| gate))].concat(), 3);
    assert_eq!(requests(&report, ["answered", "timed_out", "sent"]), [5, 5, 10]);
    for (gate, (_, value)) in report["gates"].as_array().unwrap().iter().zip(broken) {
        assert_eq!((&gate["broken"], &gate["value"]), (&true.into(), &value.into()), "{gate}");
    }
    measure(&[&base[..], &gates(&["p50>3600s", "errors>50%"])].concat(), 0);
}

#[test]
fn statuses_are_counted_one_by_one_in_every_output() {
    let served = AtomicU64::new(0);
    let target = http_server(move |_, _| {
        let status = ["200 OK", "502 Bad Gateway", "503 Busy", "200 OK", "429 Slow Down"];
        let number = served.fetch_add(1, Ordering::Relaxed) as usize;
        Some(format!("HTTP/1.1 {}\r\nContent-Length: 2\r\n\r\nok", status[number % 5]))
    });
    let csv = format!("{}/{}-statuses.csv", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let html = csv.replace(".csv", ".html");
    let gates = ["--fail-if", "503>4", "--fail-if", "5xx>41%", "--fail-if", "404>0"];
    let flags = ["--count", "20", "--csv", &csv, "--html", &html];
    let report = measure(&[&[target.as_str()], &flags[..], &gates].concat(), 0);
    assert_eq!(report["gates"][1]["value"], "40.000%");
    measure(&[&target, "--count", "20", "--fail-if", "4xx,5xx>59%"], 3);
    let expected = serde_json::json!({ "200": 8, "429": 4, "502": 4, "503": 4 });
    assert_eq!(report["statuses"], expected);
    assert_eq!(requests(&report, ["answered", "bad_status", "lost"]), [8, 12, 0]);
    assert_eq!(report["failure_time"]["count"], 12);
    assert!(report["failure_time"]["p50_us"].as_f64().unwrap() > 0.0);
    let rows = std::fs::read_to_string(&csv).unwrap();
    assert!(rows.contains(",200:8 429:4 502:4 503:4\n"), "{rows}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<th scope=\"row\">502</th><td>4</td>"), "{page}");
    [csv, html].iter().for_each(|path| std::fs::remove_file(path).unwrap());

    let table = text_of(&load(&[&target, "--count", "20"]));
    for expected in ["\nstatuses     8 of 200, 4 of 429, 4 of 502, 4 of 503\n", "\nfailed after "] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}

#[test]
fn expected_statuses_are_successes_and_only_those() {
    let target = http_server(|request, _| {
        let status = if request % 4 == 3 { "200 OK" } else { "404 Not Found" };
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    });
    let report = measure(&[&target, "--count", "8", "--expect", "404"], 0);
    assert_eq!(requests(&report, ["answered", "bad_status", "lost"]), [6, 2, 0]);
    assert_eq!(report["errors"]["kinds"][0]["example"], "HTTP 200 for GET /");
    let report = measure(&[&target, "--count", "8", "--expect", "2xx,404", "--fail-if", "errors>0"], 0);
    assert_eq!(report["plan"]["http"]["expected"], "200-299,404");
    for (arguments, value) in
        [([target.as_str(), "--expect", "600"], "'600'"), (["tcp://a:1", "--expect", "200"], "--expect")]
    {
        let output = load(&arguments);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(value) && errors.contains("expected"), "{errors}");
    }
}

#[test]
fn the_axes_of_a_page_of_failures_can_be_read() {
    let target = http_server(|_, _| Some("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_string()));
    let html = format!("{}/{}-failures.html", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    measure(&[&target, "--rate", "100", "--duration", "500ms", "--html", &html], 1);
    let page = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_file(&html).unwrap();
    let rate = page.split("<figure id=\"rate\"").nth(1).unwrap().split("</figure>").next().unwrap();
    let labels: Vec<f64> = rate
        .split("<text class=\"y\"")
        .skip(1)
        .map(|label| label.split(['>', '<']).nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(labels.len() >= 4 && labels.windows(2).all(|pair| pair[0] < pair[1]), "{labels:?}");
    // The line of errors is within the axis, not clipped at its end.
    assert!(rate.contains("path class=\"errors\"") && *labels.last().unwrap() >= 100.0, "{rate}");
}

#[test]
fn a_target_that_dies_is_a_failure_that_says_so() {
    at_once(
        &[
            &["--count", "2000"][..],
            &["--duration", "6s"],
            &["--duration", "6s", "--rate", "100"],
            &["--duration", "6s", "--rate", "100", "--workload", "churn"],
            &["--duration", "6s", "--workers", "2"],
        ],
        |flags| {
            let listener = mortal_listener();
            let target = format!("tcp://{}", listener.local_addr().unwrap());
            let server = thread::spawn(move || {
                let mut streams: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
                close(listener);
                let mut message = [0; 64];
                for stream in &mut streams {
                    // With churn, there is nothing to read.
                    let _ = stream.read_exact(&mut message).and_then(|()| stream.write_all(&message));
                }
            });
            let base = [target.as_str(), "--connections", "2", "--timeout", "5s", "--json", "-"];
            let output = load(&[&base[..], flags].concat());
            server.join().unwrap();
            let errors = error_text(&output);
            assert_eq!(output.status.code(), Some(1), "{flags:?}: {errors}");
            assert!(
                errors.contains("the target was lost ") && errors.contains("refused"),
                "{flags:?}: {errors}"
            );
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let loss = &report["target_loss"];
            assert!(loss["before_end_s"].as_f64().unwrap() > 0.0, "{flags:?}: {loss}");
        },
    );
}

#[test]
fn requests_on_their_way_when_the_target_dies_are_lost() {
    at_once(
        &[
            &["--count", "2000"][..],
            &["--duration", "6s"],
            &["--count", "50", "--rate", "100"],
            &["--count", "2000", "--pipeline", "4"],
            &["--count", "50", "--session", "3"],
            &["--count", "50", "--session", "20"],
        ],
        |flags| {
            let listener = mortal_listener();
            let target = format!("http://{}/", listener.local_addr().unwrap());
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                close(listener);
                for answer in [OK, OK, OK, ""] {
                    assert!(read_head(&mut stream));
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
            let report = measure(&[&[target.as_str(), "--timeout", "5s"][..], flags].concat(), 1);
            server.join().unwrap();
            let [answered, resent, lost] = requests(&report, ["answered", "resent", "lost"]);
            assert_eq!((answered, resent), (3, 0), "{flags:?}: {}", report["requests"]);
            assert!(lost >= 1, "{flags:?}: {}", report["requests"]);
            assert_eq!(report["requests"]["sent"], 3 + lost, "{flags:?}: {}", report["requests"]);
        },
    );
}

#[test]
fn no_output_has_a_secret() {
    let target = http_server(|_, _| Some("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_string()));
    let folder = format!("{}/{}-secrets", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::create_dir(&folder).unwrap();
    let path = |name: &str| format!("{folder}/{name}");
    let [json, html, csv, hdr] = ["a.json", "a.html", "a.csv", "a.hdr"].map(path);
    let url = format!("{target}/path?key=s3cr3t");
    let flags =
        ["--header", "Authorization: Bearer s3cr3t", "--header", "X-Any: s3cr3t", "--header", "Accept: text"];
    let files = ["--json", &json, "--html", &html, "--csv", &csv, "--hdr", &hdr];
    let output = load(&[&[&url, "--count", "3", "--body", "s3cr3t"][..], &flags, &files].concat());
    assert_eq!(output.status.code(), Some(1));
    let read = |path: &String| std::fs::read_to_string(path).unwrap();
    let shown = [text_of(&output), error_text(&output), read(&json), read(&html), read(&csv), read(&hdr)];
    std::fs::remove_dir_all(&folder).unwrap();
    for text in &shown {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    let report: Value = serde_json::from_str(&shown[2]).unwrap();
    let headers = serde_json::json!(["Authorization: ...", "X-Any: ...", "Accept: text"]);
    assert_eq!(report["plan"]["http"]["headers"], headers);
    assert!(shown[1].contains("/path?...: nothing was answered: HTTP 403 for GET /path?..."), "{}", shown[1]);
}

#[test]
fn what_is_refused_is_not_shown_with_its_secrets() {
    let target = "http://127.0.0.1:9/";
    for arguments in [
        &["http://127.0.0.1:9/?key=s3cr3t and"][..],
        &["http://127.0.0.1:9/#s3cr3t"],
        &["http://me:s3cr3t@127.0.0.1:99999/"],
        &["tcp://s3cr3t@127.0.0.1:9"],
        &["udp://127.0.0.1:9/?s3cr3t"],
        &[target, "--header", "Authorization s3cr3t"],
        &[target, "--header", "Authorization: s3cr3t\n"],
        &[target, "--header", "A\u{1}: s3cr3t"],
        &[target, "-Hs3cr3t"],
        &[target, "--connect-to", "http://me:s3cr3t@127.0.0.1:80"],
        &[target, "--connect-to", "127.0.0.1:80/?s3cr3t"],
    ] {
        let output = load(arguments);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(!error.contains("s3cr3t") && error.contains("expected "), "{error}");
    }
}

#[test]
fn a_file_that_is_read_is_not_overwritten() {
    let folder = format!("{}/{}-kept", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::create_dir(&folder).unwrap();
    let [file, link] = ["file", "link"].map(|name| format!("{folder}/{name}"));
    std::fs::write(&file, "GET /\n").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let target = "http://127.0.0.1:9/";
    for (input, output) in
        [("--requests", "--csv"), ("--body-file", "--json"), ("--requests", "--prometheus")]
    {
        let finished = load(&[target, input, &file, output, &link]);
        let error = error_text(&finished);
        assert_eq!(finished.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("{output} would overwrite {link}, which {input} reads")), "{error}");
    }
    let error = error_text(&load(&["report", &file, "--json", &link]));
    assert!(error.contains("which the report reads"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "GET /\n");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn requests_on_connections_that_were_just_closed_are_sent_again() {
    // Three responses on each connection. The close meets a request that is on its way.
    for flags in [&[][..], &["--rate", "1k"], &["--pipeline", "4"], &["--pipeline", "4", "--rate", "1k"]] {
        let target = http_server(|request, _| (request < 3).then(|| OK.to_string()));
        let base = [target.as_str(), "--connections", "2", "--count", "60", "--fail-if", "errors>0"];
        let report = measure(&[&base[..], flags].concat(), 0);
        let [answered, lost, resent] = requests(&report, ["answered", "lost", "resent"]);
        assert_eq!((answered, lost), (60, 0), "{flags:?}");
        assert!(resent >= 15, "{flags:?}: {}", report["requests"]);
        // A request that may have had an effect is not.
        let report = measure(&[&base[..5], &["--method", "POST"], flags].concat(), 0);
        let [lost, resent, sent] = requests(&report, ["lost", "resent", "sent"]);
        assert!(lost > 0 && resent == 0 && sent == 60, "{flags:?}: {}", report["requests"]);
    }
    // A connection that never answered is no reused one.
    let target = http_server(|_, _| None);
    let report = measure(&[&target, "--count", "5"], 1);
    assert_eq!(requests(&report, ["lost", "resent", "sent"]), [5, 0, 5]);
}

#[test]
fn two_outputs_need_two_files() {
    let path = format!("{}/{}-same", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let other = path.replace("/tmp/", "/tmp/./");
    let output = load(&["tcp://127.0.0.1:9", "--csv", &path, "--html", &other]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--csv and --html both write to "), "{errors}");
    assert!(!std::path::Path::new(&path).exists());
    // Links: to a file that is there, to one that is not, and a second name.
    let name = |kind: &str| format!("{path}-{kind}");
    std::fs::write(name("there"), "earlier").unwrap();
    std::os::unix::fs::symlink(name("there"), name("to-there")).unwrap();
    std::os::unix::fs::symlink(name("missing"), name("to-missing")).unwrap();
    std::fs::hard_link(name("there"), name("second")).unwrap();
    for (one, other) in [("there", "to-there"), ("missing", "to-missing"), ("there", "second")] {
        let output = load(&["tcp://127.0.0.1:9", "--json", &name(one), "--hdr", &name(other)]);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{one}, {other}: {errors}");
        assert!(errors.contains(&format!("both write to {}", name(other))), "{errors}");
    }
    assert_eq!(std::fs::read_to_string(name("there")).unwrap(), "earlier");
    assert!(!std::path::Path::new(&name("missing")).exists());
    ["there", "to-there", "to-missing", "second"]
        .into_iter()
        .for_each(|kind| std::fs::remove_file(name(kind)).unwrap());
    for (one, other) in [("-", "-"), ("-", "/dev/stdout")] {
        let output = load(&["tcp://127.0.0.1:9", "--csv", one, "--json", other]);
        assert_eq!(output.status.code(), Some(2), "{one}, {other}: {}", error_text(&output));
    }
}

#[test]
fn rows_of_seconds_can_go_to_standard_output() {
    let target = http_server(|_, _| Some(OK.to_string()));
    let output = load(&[&target, "--count", "20", "--csv", "-"]);
    assert_eq!((output.status.code(), error_text(&output).as_str()), (Some(0), ""));
    let text = text_of(&output);
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("time_s,rate_per_s,"), "{text}");
    let columns = rows[0].split(',').count();
    assert!(rows.len() >= 2 && rows.iter().all(|row| row.split(',').count() == columns), "{text}");
}

#[test]
fn a_run_that_cannot_begin_leaves_the_results_of_an_earlier_one() {
    let path = format!("{}/{}-earlier.json", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&path, "earlier").unwrap();
    let target = dead_target();
    let output = load(&[&target, "--json", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn duplicates_of_datagrams_are_not_taken_for_the_next_response() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], source).unwrap();
            socket.send_to(&buffer[..length], source).unwrap();
        }
    });
    let report = measure(&[&target, "--count", "50", "--fail-if", "errors>0"], 0);
    assert_eq!(requests(&report, ["answered", "wrong", "lost"]), [50, 0, 0]);
}

#[test]
fn short_flags_and_usage_are_those_of_the_command() {
    let target = http_server(|_, _| Some(OK.to_string()));
    let report = measure(&[&target, "-c", "2", "-n", "5", "-r", "1k", "-H", "Accept: b"], 0);
    let plan = &report["plan"];
    assert_eq!(
        (number(&plan["connections"]), number(&plan["count"]), number(&plan["rate_per_s"])),
        (2, 5, 1000)
    );
    assert_eq!(plan["http"]["headers"][0], "Accept: b");
    assert_eq!(measure(&[&target, "-d", "0.1s"], 0)["measured_s"], 0.1);
    for (arguments, usage) in [
        (&["tcp://127.0.0.1:9", "-c", "0"][..], "Usage: ringspun load [OPTIONS]"),
        (&["report", "--compare", "a"], "Usage: ringspun load report [OPTIONS]"),
        (&["127.0.0.1:9"], "did you mean tcp://127.0.0.1:9 or http://127.0.0.1:9/?"),
    ] {
        let output = load(arguments);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(usage), "{errors}");
    }
}

#[test]
fn a_reset_names_the_target() {
    let target = tcp_server(|mut stream, _| {
        stream.read_exact(&mut [0]).unwrap();
        // Bytes that were not read make the close a reset.
    });
    let report = measure(&[&target, "--count", "3"], 1);
    let errors = &report["errors"];
    let example = errors["kinds"][0]["example"].as_str().unwrap();
    assert!(example.contains(&target), "{errors}");
}

#[test]
fn values_below_zero_are_refused_as_such() {
    // They are no flags, although they look like them.
    for (flag, value) in
        [("-n", "-5"), ("--connections", "-1"), ("-r", "-1"), ("--seed", "-7"), ("--repeat", "-2")]
    {
        let output = load(&["tcp://127.0.0.1:9", flag, value]);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains(&format!("invalid value '{value}'")) && error.contains("expected "),
            "{error}"
        );
    }
}
