//! `ringspun load http://...` against servers of HTTP/1.1, made here on threads: what it sends and counts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::scratch_path;

pub const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLOSING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// A request as the server got it.
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
    /// Its number on its connection, and that of the connection.
    number: u64,
    connection: u64,
}

/// A server that gives each request to `answer`, and sends the text that it returns. It closes the connection
/// behind an answer that says so, or is one of HTTP/1.0.
pub fn http_server(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> String {
    let target = tcp_server(move |mut stream, connection| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for request_number in 0.. {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            let answer = answer(&Request { head, body, number: request_number, connection });
            let ends = answer.contains("Connection: close") || answer.starts_with("HTTP/1.0");
            if stream.write_all(answer.as_bytes()).is_err() || ends {
                return;
            }
        }
    });
    target.replace("tcp://", "http://")
}

#[test]
fn connections_are_kept_from_one_request_to_the_next() {
    let target = http_server(|_| HELLO.to_string());
    for pace in [&["--warmup", "50ms"][..], &["--rate", "5k"]] {
        let base = [target.as_str(), "--count", "200", "--connections", "3", "--fail-if", "errors>0"];
        let report = measure(&[&base, pace].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 200);
        assert_eq!(number(&report["connections"]["opened"]), 3);
        assert_eq!(report["statuses"]["200"], 200);
        assert_eq!(report["plan"]["http"]["method"], "GET");
        assert!(report["plan"]["payload_bytes"].is_null());
    }
}

#[test]
fn connections_are_replaced_after_so_many_requests() {
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let seen = numbers.clone();
    let target = http_server(move |request| {
        seen.lock().unwrap().push((request.connection, request.number));
        HELLO.to_string()
    });
    for (max, opened) in [(1, 20), (7, 3), (20, 1), (100, 1)] {
        for pace in [&[][..], &["--rate", "5k"]] {
            numbers.lock().unwrap().clear();
            let max_text = max.to_string();
            let base = [target.as_str(), "--count", "20", "--requests-per-connection", &max_text];
            let report = measure(&[&base, pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), 20);
            assert_eq!(number(&report["errors"]["total"]), 0, "{}", report["errors"]);
            assert_eq!(number(&report["connections"]["opened"]), opened, "{max} per connection");
            assert_eq!(report["plan"]["requests_per_connection"], max);
            assert!(numbers.lock().unwrap().iter().all(|(_, number)| *number < max), "{max} per connection");
        }
    }
    for (arguments, expected) in [
        (&[target.as_str(), "--requests-per-connection", "0"][..], "0 requests per connection: expected 1"),
        (
            &["udp://127.0.0.1:9", "--requests-per-connection", "2"],
            "expected echo, request or HTTP over a stream",
        ),
        (&[target.as_str(), "--requests-per-connection", "2", "--pipeline", "2"], "expected no pipelining"),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&output).contains(expected), "{arguments:?}: {}", error_text(&output));
    }
}

#[test]
fn a_connection_that_the_server_ends_after_an_answer_is_no_error() {
    let until_end = "HTTP/1.0 200 OK\r\n\r\nall that comes";
    for answer in [CLOSING, until_end] {
        let target = http_server(move |_| answer.to_string());
        let report = measure(&[&target, "--count", "20"], 0);
        assert_eq!(number(&report["requests"]["answered"]), 20, "{answer}");
        assert_eq!(number(&report["errors"]["total"]), 0, "{answer}: {}", report["errors"]);
        assert_eq!(number(&report["connections"]["opened"]), 20, "{answer}");
        let arguments = ["--count", "20", "--rate", "5k", "--connections", "2"];
        let report = measure(&[&[target.as_str()][..], &arguments].concat(), 0);
        assert_eq!(number(&report["connections"]["opened"]), 20, "{answer}");
    }
}

#[test]
fn a_server_that_is_asked_to_end_connections_need_not_say_that_it_does() {
    // The end of the request's connection may come with the answer or after it.
    let target = tcp_server(|mut stream, _| {
        let mut request = [0; 1000];
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            stream.write_all(HELLO.as_bytes()).unwrap();
        }
    });
    let target = target.replace("tcp://", "http://");
    let report = measure(&[&target, "--count", "20", "--header", "connection: Close"], 0);
    assert_eq!(number(&report["requests"]["answered"]), 20);
    assert_eq!(number(&report["errors"]["total"]), 0, "{}", report["errors"]);
}

#[test]
fn requests_say_what_was_asked_for() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let target = http_server(move |request| {
        seen.lock().unwrap().push(request.head.clone());
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_string()
    });
    let host = target.strip_prefix("http://").unwrap();
    // An answer to HEAD has no body, whatever its length.
    let url = format!("{target}/a/b?c=d");
    measure(&[&url, "--count", "2", "--method", "HEAD", "--header", "X-One: 1", "--header", "Two:2"], 0);
    let expected = format!("HEAD /a/b?c=d HTTP/1.1\r\nHost: {host}\r\nX-One: 1\r\nTwo: 2\r\n\r\n");
    assert_eq!(*heads.lock().unwrap(), [expected.as_str(), &expected]);
}

#[test]
fn bodies_arrive_whole() {
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    let path = scratch_path("body");
    fs::write(&path, &body).unwrap();
    for (arguments, expected) in
        [(["--body", "one, two"], "one, two"), (["--body-file", path.to_str().unwrap()], &body)]
    {
        let (wanted, right) = (expected.to_string(), Arc::new(AtomicU64::new(0)));
        let counter = right.clone();
        let target = http_server(move |request| {
            if request.head.starts_with("POST ") && request.body == wanted.as_bytes() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n".to_string()
        });
        let report =
            measure(&[&[target.as_str(), "--count", "5", "--method", "POST"], &arguments[..]].concat(), 0);
        assert_eq!((number(&report["requests"]["answered"]), right.load(Ordering::Relaxed)), (5, 5));
        assert_eq!(report["plan"]["http"]["body_bytes"], expected.len());
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn bad_statuses_are_counted_and_named() {
    // Each third request fails; each fourth is redirected.
    let target = http_server(|request| match request.number {
        number if number % 3 == 2 => "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno".to_string(),
        number if number % 4 == 3 => "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_string(),
        _ => HELLO.to_string(),
    });
    let url = format!("{target}/path");
    let report = measure(&[&url, "--count", "24", "--fail-if", "errors>0"], 3);
    let requests = &report["requests"];
    assert_eq!((number(&requests["answered"]), number(&requests["bad_status"])), (16, 8));
    assert_eq!(number(&report["connections"]["opened"]), 1);
    let expected = serde_json::json!({ "200": 12, "302": 4, "503": 8 });
    assert_eq!(report["statuses"], expected);
    assert_eq!(report["failure_time"]["count"], 8);
    let kind = &report["errors"]["kinds"][0];
    assert_eq!((&kind["kind"], &kind["example"]), (&"status".into(), &"HTTP 503 for GET /path".into()));
    let output = load(&[&url, "--count", "24"]);
    let table = text_of(&output);
    for expected in
        ["GET, closed loop", "\nstatuses     12 of 200, 4 of 302, 8 of 503\n", "8 with a failing status"]
    {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}

#[test]
fn a_server_with_nothing_but_bad_statuses_exits_with_one() {
    let target = http_server(|_| "HTTP/1.1 404 No\r\nConnection: close\r\n\r\n".to_string());
    let output = load(&[&target, "--count", "4"]);
    let errors = error_text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("nothing was answered: HTTP 404 for GET /"), "{errors}");
}

#[test]
fn answers_that_are_no_http_are_wrong() {
    // Only on the first connection, which is given up for another.
    let target = http_server(|request| match (request.connection, request.number) {
        (0, 2) => "220 mail.example ESMTP\r\n".to_string(),
        _ => HELLO.to_string(),
    });
    let report = measure(&[&target, "--count", "10"], 0);
    let requests = &report["requests"];
    assert_eq!((number(&requests["answered"]), number(&requests["wrong"])), (9, 1));
    assert_eq!(number(&report["connections"]["opened"]), 2);
    let example = report["errors"]["kinds"][0]["example"].as_str().unwrap();
    assert!(example.contains("220 mail.example") && example.contains("expected"), "{example}");
}

#[test]
fn an_answer_that_is_cut_off_is_lost() {
    let target = http_server(|request| match request.connection {
        0 => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhello".to_string(),
        _ => HELLO.to_string(),
    });
    let report = measure(&[&target, "--count", "10"], 0);
    let requests = &report["requests"];
    assert_eq!((number(&requests["answered"]), number(&requests["lost"])), (9, 1));
    let kind = &report["errors"]["kinds"][0];
    assert_eq!(kind["kind"], "closed");
    assert!(kind["example"].as_str().unwrap().contains("4 bytes of the response body missing"), "{kind}");
}

#[test]
fn bad_flags_exit_with_two_the_value_and_what_was_expected() {
    let target = "http://127.0.0.1:9/";
    for (arguments, value, expected) in [
        (&["https://localhost:99999/"][..], "99999", "1 to 65535"),
        (&[target, "--payload", "64"], "--payload", "expected --body"),
        (&[target, "--header", "no colon"], "'no ...'", "'Name: value'"),
        (&[target, "--header", "A b: c"], "A b", "is not a header name"),
        (&[target, "--header", "A: b\nC: d"], "'A: ...'", "control characters"),
        (&[target, "--method", "G E T"], "G E T", "such as GET"),
        (&[target, "--body", "a", "--body-file", "b"], "--body", "cannot be used with"),
        (&[target, "--body-file", "/no/such/file"], "/no/such/file", "No such file"),
        (&[target, "--body-file", "/dev/zero"], "67108865", "expected at most 67108864"),
    ] {
        let output = load(arguments);
        let errors = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}

/// Answers requests to app.invalid, and refuses others.
fn answer_for_app(stream: impl Read + Write) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !reader.read_line(&mut head).is_ok_and(|count| count > 0) {
                return;
            }
        }
        let is_right = head.contains("\r\nHost: app.invalid\r\n");
        let answer =
            if is_right { HELLO } else { "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n" };
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn connections_go_elsewhere_and_the_host_stays_that_of_the_target() {
    let path = scratch_path("detour.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| answer_for_app(stream.unwrap())));
    let tcp = tcp_server(|stream, _| answer_for_app(stream));
    let unix = format!("unix:{}", path.display());
    for place in [unix.as_str(), tcp.strip_prefix("tcp://").unwrap()] {
        let arguments = ["http://app.invalid/", "--connect-to", place, "--count", "20"];
        let report = measure(&arguments, 0);
        assert_eq!(number(&report["requests"]["answered"]), 20, "{}", report["errors"]);
        assert_eq!(report["plan"]["connect_to"], place);
        let table = text_of(&load(&arguments));
        assert!(table.starts_with(&format!("http://app.invalid/ at {place}: 1 connection")), "{table}");
    }
    fs::remove_file(&path).unwrap();
    for (arguments, expected) in [
        (&["http://a/", "--connect-to", "7000"][..], "expected HOST:PORT, unix:PATH or unix:@NAME"),
        (&["http://a/", "--connect-to", "unix:"], "a path or an abstract name, expected HOST:PORT"),
        (&["udp://a:1", "--connect-to", "b:2"], "b:2 cannot be connected to for udp://a:1: expected tcp://"),
        (
            &["http://a/", "--connect-to", "unix:/a", "--bind", "127.0.0.1"],
            "127.0.0.1 cannot be used with http://a/ at unix:/a: expected tcp://",
        ),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&output).contains(expected), "{arguments:?}: {}", error_text(&output));
    }
}

#[test]
fn a_response_without_the_expected_text_is_an_error_of_its_own_kind() {
    let answers = AtomicU64::new(0);
    let target = http_server(move |_| match answers.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad".to_string(),
        1 => "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad".to_string(),
        2 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
            .to_string(),
        _ => HELLO.to_string(),
    });
    for pace in [
        &["-c", "3"][..],
        &["-c", "3", "--rate", "5k"],
        &["-c", "4", "--workers", "2"],
        &["-c", "4", "--workers", "2", "--rate", "5k"],
        &["--pipeline", "4"],
    ] {
        let base = [&target, "--count", "200", "--expect-body", "hello", "--fail-if", "bad-body>24.9%"];
        let report = measure(&[&base[..], pace].concat(), 3);
        let requests = &report["requests"];
        let counts = ["answered", "bad_body", "bad_status", "wrong"].map(|name| number(&requests[name]));
        assert_eq!(counts, [100, 50, 50, 0], "{pace:?}");
        assert_eq!(report["plan"]["http"]["expected_body_bytes"], 5);
        assert_eq!(report["gates"][0]["value"], "25.000%");
        let kinds = report["errors"]["kinds"].as_array().unwrap();
        let of_body = kinds.iter().find(|kind| kind["kind"] == "body").unwrap();
        assert_eq!(number(&of_body["count"]), 50);
        assert_eq!(of_body["example"], "HTTP 200 for GET / without the expected text in its body");
        assert!(!report.to_string().contains("hello"), "{report}");
    }
    let table = text_of(&load(&[&target, "--count", "4", "--expect-body", "hello"]));
    assert!(
        table.contains("1 without the expected text") && table.contains("1 body, for example"),
        "{table}"
    );
    let output = load(&[&target, "--expect-body", ""]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_text(&output).contains("has 0 bytes: expected 1 or more"), "{}", error_text(&output));
}

#[test]
fn names_and_passwords_are_sent_and_not_shown() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let target = http_server(move |request| {
        seen.lock().unwrap().push(request.head.clone());
        HELLO.to_string()
    });
    let with_user = target.replace("http://", "http://me:sec%52et@");
    let page = scratch_path("user.html");
    let flags = ["--count", "2", "--html", page.to_str().unwrap()];
    for arguments in [&[target.as_str(), "--user", "me:secRet"][..], &[&with_user]] {
        let report = measure(&[arguments, &flags].concat(), 0).to_string();
        // The header, in base64, and the password itself.
        let sent: Vec<String> = heads.lock().unwrap().drain(..).collect();
        assert!(
            sent.iter().all(|head| head.contains("\r\nAuthorization: Basic bWU6c2VjUmV0\r\n")),
            "{sent:?}"
        );
        assert_eq!(sent.len(), 2);
        let output = load(&[arguments, &["--count", "2", "--fail-if", "rate<1k"]].concat());
        let page = fs::read_to_string(&page).unwrap();
        heads.lock().unwrap().clear();
        for shown in [report, page, text_of(&output), error_text(&output)] {
            for secret in ["bWU6c2VjUmV0", "secRet", "sec%52et"] {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
        }
    }
    fs::remove_file(page).unwrap();
    for (arguments, expected) in [
        (
            &[with_user.as_str(), "--user", "me:secRet"][..],
            "the header Authorization is given twice: expected",
        ),
        (&[&target, "--user", "me:secRet", "-H", "authorization: secRet"], "is given twice: expected"),
        (&[&target, "--user", "secRet"], "--user: expected NAME:PASSWORD"),
        (&[&with_user, "--payload", "5"], "expected --body"),
        (&["http://me:secRet@localhost:0/"], "'http://...@localhost:0/' for '[TARGET]': the port is"),
        (&["me:secRet@localhost"], "'...@localhost' for '[TARGET]': expected tcp://"),
        (&["http://me:secRet%0a@localhost/"], "without control characters"),
        (&["tcp://localhost:9", "--user", "me:secRet"], "--user cannot be used with"),
    ] {
        let output = load(arguments);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected) && !error.contains("secRet"), "{arguments:?}: {error}");
    }
}

#[test]
fn redirects_are_followed_on_request_and_counted() {
    let redirect = |status: u32, location: &str, rest: &str| {
        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n{rest}\r\n")
    };
    let served = Arc::new(AtomicU64::new(0));
    let counted = served.clone();
    let target = http_server(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut words = request.head.split(' ');
        match (words.next().unwrap(), words.next().unwrap()) {
            ("GET", "/a/one") => redirect(302, "../two?x", ""),
            ("GET", "/two?x") => redirect(308, "/three", ""),
            ("POST", "/form") => redirect(303, "/three", ""),
            ("GET", "/three") => HELLO.to_string(),
            ("GET", "/round") => redirect(301, "/round", ""),
            ("GET", "/away") => redirect(301, "http://other.example/", ""),
            ("GET", "/last") => redirect(301, "/three", "Connection: close\r\n"),
            (method, path) => panic!("{method} {path}"),
        }
    });
    for pace in [
        &["-c", "3"][..],
        &["-c", "3", "--rate", "5k"],
        &["-c", "4", "--workers", "2"],
        &["-c", "4", "--workers", "2", "--rate", "5k"],
    ] {
        for (path, flags, hops) in
            [("/a/one", &[][..], 2), ("/form", &["--method", "POST", "--body", "x"], 1), ("/three", &[], 0)]
        {
            served.store(0, Ordering::Relaxed);
            let url = format!("{target}{path}");
            let base = [url.as_str(), "--follow", "2", "--count", "40", "--expect-body", "hello"];
            let report = measure(&[&base[..], flags, pace].concat(), 0);
            let requests = &report["requests"];
            assert_eq!(
                (number(&requests["answered"]), number(&requests["redirects"])),
                (40, 40 * hops),
                "{path}"
            );
            assert_eq!(served.load(Ordering::Relaxed), 40 + 40 * hops, "{path} {pace:?}");
            assert_eq!((&report["statuses"]["200"], number(&report["errors"]["total"])), (&40.into(), 0));
        }
    }
    let report = measure(&[&format!("{target}/a/one"), "--count", "5"], 0);
    assert_eq!((&report["statuses"]["302"], &report["requests"]["redirects"]), (&5.into(), &0.into()));
    for (path, expected) in [
        ("/round", "more than 2 redirects"),
        ("/away", "a redirect to another server, http://other.example: expected one to http://127.0.0.1:"),
        ("/last", "the target closed the connection after a redirect"),
    ] {
        let report = measure(&[&format!("{target}{path}"), "--follow", "2", "--count", "5"], 1);
        assert_eq!(number(&report["requests"]["wrong"]), 5, "{path}");
        let example = report["errors"]["kinds"][0]["example"].as_str().unwrap();
        assert!(example.contains(expected), "{example}");
    }
    for (arguments, expected) in [
        (
            &[target.as_str(), "--follow", "2", "--pipeline", "2"][..],
            "expected neither a list of requests nor",
        ),
        (&[&target, "--follow", "101"], "101 redirects to follow: expected at most 100"),
        (&["tcp://127.0.0.1:9", "--follow", "1"], "--follow cannot be used with"),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&output).contains(expected), "{arguments:?}: {}", error_text(&output));
    }
}

#[test]
fn compressed_bodies_are_left_as_they_are() {
    // What is compressed is opaque: the text is looked for in the bytes that are sent.
    let target = http_server(|request| {
        assert!(request.head.contains("\r\nAccept-Encoding: gzip\r\n"), "{}", request.head);
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n\x1f\x08 no gzip".to_string()
    });
    let base = [target.as_str(), "--count", "5", "-H", "Accept-Encoding: gzip", "--expect-body", "no gzip"];
    for pipeline in ["1", "3"] {
        let report = measure(&[&base[..], &["--pipeline", pipeline]].concat(), 0);
        let head_bytes =
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n".len() as u64;
        assert_eq!(number(&report["requests"]["answered"]), 5, "{}", report["errors"]);
        assert_eq!(number(&report["traffic"]["received_bytes"]), 5 * (head_bytes + 10));
    }
}
