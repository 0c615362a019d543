//! `ringspun load --pipeline`: several requests in flight on a connection, each with its own times and end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::answering::{answering_server, counts, errors, example};
use crate::support::measuring::{measure, number, tcp_server};

#[test]
fn a_pipeline_keeps_its_depth_in_flight() {
    // Answers when 8 requests have come: with fewer in flight, all would wait for ever.
    let target = tcp_server(|mut stream, _| {
        let mut requests = [0; 8 * 64];
        while stream.read_exact(&mut requests).is_ok() {
            stream.write_all(&requests).unwrap();
        }
    });
    for pace in [&[][..], &["--rate", "5k"]] {
        let base = [target.as_str(), "--pipeline", "8", "--count", "800"];
        let report = measure(&[&base, pace].concat(), 0);
        assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([800, 0, 0], 0));
        assert_eq!(number(&report["connections"]["opened"]), 1);
        assert_eq!(number(&report["plan"]["pipeline"]), 8);
    }
}

#[test]
fn each_request_in_a_pipeline_has_its_own_times() {
    // Each answer takes a while, so that the second of two requests in flight waits for it twice.
    let pause = Duration::from_millis(100);
    let target = answering_server(64, move |_, _| {
        thread::sleep(pause);
        Some(b"x".to_vec())
    });
    let base =
        [target.as_str(), "--workload", "request", "--response", "1", "--pipeline", "2", "--count", "20"];
    let report = measure(&base, 0);
    assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [20, 0, 0]);
    let microseconds = |times: &Value, name: &str| times[name].as_f64().unwrap();
    let times = &report["service_time"];
    assert!(microseconds(times, "min_us") >= 100_000.0, "{times}");
    // All but the first, less what it takes until the next request is sent.
    assert!(microseconds(times, "p50_us") >= 150_000.0, "{times}");
    // All are due in the first 20 ms. Two at a time are sent, 100 ms apart.
    let report = measure(&[&base[..], &["--rate", "1k"]].concat(), 0);
    assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [20, 0, 0]);
    let (responses, services) = (&report["response_time"], &report["service_time"]);
    assert!(microseconds(responses, "max_us") >= 1_980_000.0, "{responses}");
    assert!(microseconds(responses, "p50_us") >= 980_000.0, "{responses}");
    assert!(microseconds(services, "p50_us") <= microseconds(responses, "p50_us") / 2.0, "{services}");
}

#[test]
fn a_connection_that_ends_takes_its_pipeline_with_it() {
    // Ten answers on each connection, and no more. Four in flight are lost at each end.
    for pace in [&[][..], &["--rate", "10k"]] {
        let target = answering_server(64, |request, _| (request < 10).then(|| vec![0; 4]));
        let base = [target.as_str(), "--workload", "request", "--response", "4", "--pipeline", "4"];
        let report = measure(&[&base[..], &["--count", "40"], pace].concat(), 0);
        let [answered, lost, sent] = counts(&report, ["answered", "lost", "sent"]);
        assert_eq!((answered + lost, sent), (40, 40), "{}", report["requests"]);
        assert!(answered >= 20 && (3..=12).contains(&lost), "{}", report["requests"]);
        let ends = number(&report["connections"]["closed"]) + number(&report["connections"]["reset"]);
        assert_eq!(ends, errors(&report));
        assert!((2..=4).contains(&ends), "{}", report["connections"]);
    }
}

#[test]
fn one_wrong_echo_in_a_pipeline_is_one() {
    let target = tcp_server(|mut stream, _| {
        let mut message = [0; 64];
        for request in 0.. {
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            message[7] ^= u8::from(request % 10 == 4);
            stream.write_all(&message).unwrap();
        }
    });
    let report = measure(&[&target, "--pipeline", "5", "--count", "100"], 0);
    assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [90, 10, 0]);
    assert_eq!((number(&report["connections"]["opened"]), errors(&report)), (1, 10));
    assert!(example(&report).starts_with("byte 7 came back as "), "{}", example(&report));
}

#[test]
fn a_surplus_in_a_pipeline_costs_the_connection() {
    // The first connection gets a byte too many behind two answers, which is no request's.
    let target = tcp_server(|mut stream, connection| {
        let mut requests = [0; 2 * 64];
        while stream.read_exact(&mut requests).is_ok() {
            stream.write_all(&[0; 21][..if connection == 0 { 21 } else { 20 }]).unwrap();
        }
    });
    let base = [&target, "--workload", "request", "--response", "10", "--pipeline", "2", "--count", "4"];
    let report = measure(&base, 0);
    assert_eq!(counts(&report, ["answered", "sent", "wrong"]), [4, 4, 0]);
    assert_eq!((errors(&report), number(&report["connections"]["opened"])), (1, 2));
    assert_eq!(example(&report), "surplus data after the response: 1 B, expected none");
}

#[test]
fn a_timeout_in_a_pipeline_is_of_the_oldest_request() {
    // The first connection stops after three answers.
    let target = answering_server(64, |request, connection| {
        if connection == 0 && request == 3 {
            thread::sleep(Duration::from_secs(3600));
        }
        Some(vec![0; 4])
    });
    let base = [&target, "--workload", "request", "--response", "4", "--pipeline", "4", "--timeout", "10s"];
    let report = measure(&[&base[..], &["--count", "20"]].concat(), 0);
    assert_eq!(counts(&report, ["answered", "timed_out", "lost"]), [16, 1, 3]);
    assert_eq!((errors(&report), number(&report["connections"]["opened"])), (1, 2));
}

#[test]
fn http_takes_pipelines() {
    // Answers two at a time, so that answers come together, and in pieces.
    let target = tcp_server(|mut stream, _| {
        let mut seen = Vec::new();
        let mut buffer = [0; 1000];
        let mut answered = 0;
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
            let came = seen.windows(4).filter(|window| window == b"\r\n\r\n").count();
            while answered + 2 <= came {
                answered += 2;
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".repeat(2);
                let (head, tail) = answer.split_at(50);
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(tail.as_bytes()).unwrap();
            }
        }
    });
    let target = target.replace("tcp://", "http://");
    for pace in [&[][..], &["--rate", "2k"]] {
        let report = measure(&[&[target.as_str(), "--pipeline", "6", "--count", "300"], pace].concat(), 0);
        assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([300, 0, 0], 0));
        assert_eq!(report["statuses"]["200"], 300);
        assert_eq!(number(&report["traffic"]["received_bytes"]), 300 * 41);
    }
}

#[test]
fn an_http_server_that_closes_leaves_the_rest_of_a_pipeline_unanswered() {
    let target = tcp_server(|mut stream, _| {
        let mut buffer = [0; 1000];
        let _ = stream.read(&mut buffer);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        // All has to be read, or the answer may be lost with a reset.
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    let target = target.replace("tcp://", "http://");
    let report = measure(&[&target, "--pipeline", "3", "--count", "9"], 0);
    // Those behind each closing response are sent again, on the next connection.
    assert_eq!(counts(&report, ["answered", "lost", "sent"]), [9, 0, 9], "{}", report["errors"]);
    assert!(number(&report["requests"]["resent"]) > 0, "{}", report["requests"]);
    assert_eq!((errors(&report), number(&report["connections"]["opened"])), (0, 9));
    let report = measure(&[&target, "--pipeline", "3", "--count", "9", "--method", "POST"], 0);
    let [answered, lost, sent] = counts(&report, ["answered", "lost", "sent"]);
    assert_eq!((answered, lost, sent), (3, 6, 9), "{}", report["errors"]);
    assert_eq!(number(&report["connections"]["closed"]), 3);
}
