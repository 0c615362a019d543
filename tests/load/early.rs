//! Answers that come before their requests were sent.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use crate::support::answering::{counts, errors};
use crate::support::measuring::{measure, number, tcp_server};

/// Answers each request twice, the second time while the connection is idle, with no request in flight.
fn answering_twice(request_end: &'static [u8], answer: &'static [u8]) -> String {
    tcp_server(move |mut stream, _| {
        let (mut received, mut byte) = (Vec::new(), [0]);
        while stream.read_exact(&mut byte).is_ok() {
            received.push(byte[0]);
            if !received.ends_with(request_end) {
                continue;
            }
            received.clear();
            for _ in 0..2 {
                if stream.write_all(answer).is_err() {
                    return;
                }
                // Long enough for the first to be read alone, and far less than from one request to the next.
                thread::sleep(Duration::from_millis(20));
            }
        }
    })
}

#[test]
fn bytes_that_come_before_a_request_are_no_answer_to_it() {
    let http = answering_twice(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .replace("tcp://", "http://");
    let resp = answering_twice(b"\r\n", b"+PONG\r\n");
    let ping = crate::support::scratch::scratch_path("ping");
    std::fs::write(&ping, "PING\r\n").unwrap();
    let by_line =
        ["--workload", "request", "--payload-file", ping.to_str().unwrap(), "--response-end", r"\r\n"];
    for (target, workload) in [(&http, &[][..]), (&resp, &by_line[..])] {
        for depth in ["1", "3"] {
            // Fewer than 250 ms lie between two requests: idle connections are not watched.
            let pace = ["--rate", "5", "--arrivals", "even", "--count", "6", "--pipeline", depth];
            let report = measure(&[&[target.as_str()], workload, &pace].concat(), 0);
            let [sent, answered, wrong] = counts(&report, ["sent", "answered", "wrong"]);
            assert_eq!((sent, answered + wrong), (6, 6), "{}", report["requests"]);
            // Each second answer may also come late, on a busy machine, but not all of them.
            assert!(wrong > 0, "{}", report["requests"]);
            assert_eq!(errors(&report), wrong);
            // Each costs the connection; after the last request, none is opened.
            let replaced = number(&report["connections"]["opened"]).abs_diff(wrong);
            assert!(replaced <= 1, "{} {}", report["connections"], report["requests"]);
            let text = report["errors"]["kinds"][0]["example"].as_str().unwrap();
            assert!(
                text.starts_with("bytes before a request: ") || text.starts_with("surplus data"),
                "{text}"
            );
        }
    }
}

/// Servers tell idle connections so before they close them.
const IDLE_END: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_408_on_an_idle_connection_is_its_end_and_no_error() {
    // Idle connections are watched if they are idle for 250 ms and more: here, those of the first rate are. On a busy
    // machine, it comes in one piece with the response, as it does in the last case.
    for (rate, idle_ms) in [("2", 50), ("5", 20), ("50", 0)] {
        for depth in ["1", "3"] {
            let target = tcp_server(move |mut stream, _| {
                let (mut received, mut byte) = (Vec::new(), [0]);
                while !received.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    received.push(byte[0]);
                }
                let response = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..];
                if idle_ms == 0 {
                    let _ = stream.write_all(&[response, IDLE_END].concat());
                } else {
                    let _ = stream.write_all(response);
                    thread::sleep(Duration::from_millis(idle_ms));
                    let _ = stream.write_all(IDLE_END);
                }
            });
            let target = target.replace("tcp://", "http://");
            let pace = ["--rate", rate, "--arrivals", "even", "--count", "4", "--pipeline", depth];
            let report = measure(&[&[target.as_str()], &pace[..]].concat(), 0);
            let [sent, answered, bad_status] = counts(&report, ["sent", "answered", "bad_status"]);
            // On a busy machine, one may come so late that it meets a request: then, it is its response.
            assert_eq!((sent, answered + bad_status), (4, 4), "{} {}", report["requests"], report["errors"]);
            assert_eq!(errors(&report), bad_status, "{}", report["errors"]);
            assert!(answered > 1, "{}", report["requests"]);
        }
    }
}
