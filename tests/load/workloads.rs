//! The workloads of `ringspun load` against servers made here that answer well, wrongly, slowly or not at all.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::answering::{answering_server, counts, errors, example};
use crate::support::closing::dead_target;
use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::scratch_path;

/// A server that sends back whatever comes.
fn echo_server() -> String {
    tcp_server(|mut stream, _| {
        let mut buffer = [0; 100_000];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn echoes_of_mixed_sizes_come_back_right() {
    let target = echo_server();
    for pipeline in ["1", "8"] {
        let arguments = ["--payload", "64:90%,4k:10%", "--count", "500", "--pipeline", pipeline];
        let report = measure(&[&[target.as_str()][..], &arguments].concat(), 0);
        assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [500, 0, 0], "{pipeline}");
        // One connection: of each 100 messages, exactly 10 are long.
        let bytes = 450 * 64 + 50 * 4000;
        assert_eq!(number(&report["traffic"]["sent_bytes"]), bytes);
        assert_eq!(number(&report["traffic"]["received_bytes"]), bytes);
        let plan = &report["plan"];
        assert_eq!((&plan["workload"], &plan["payload_sizes"]), (&"echo".into(), &"64:90%,4000:10%".into()));
        assert!(plan["payload_bytes"].is_null());
    }
    let report = measure(&[&target, "--payload", "1-9", "--count", "100", "--connections", "3"], 0);
    assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([100, 0, 0], 0));
}

#[test]
fn the_content_of_a_file_is_sent() {
    let path = scratch_path("payload");
    fs::write(&path, "PING\r\n").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let target = tcp_server(move |mut stream, _| {
        let mut request = [0; 6];
        while stream.read_exact(&mut request).is_ok() {
            kept.lock().unwrap().push(request);
            stream.write_all(b"+PONG and more\r\n").unwrap();
        }
    });
    let file = path.to_str().unwrap();
    let base = [&target, "--workload", "request", "--payload-file", file, "--response-end", r"\r\n"];
    let report = measure(&[&base[..], &["--count", "10"]].concat(), 0);
    assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([10, 0, 0], 0));
    assert_eq!(*seen.lock().unwrap(), [*b"PING\r\n"; 10]);
    assert_eq!(report["plan"]["response_end"], "\\r\\n");
    assert_eq!(
        (number(&report["traffic"]["sent_bytes"]), number(&report["traffic"]["received_bytes"])),
        (60, 160)
    );
    fs::remove_file(&path).unwrap();
}

#[test]
fn an_answer_of_fixed_size_may_have_any_bytes() {
    for pipeline in ["1", "4"] {
        let target = answering_server(32, |request, _| Some(vec![request as u8; 500]));
        let base = [&target, "--workload", "request", "--payload", "32", "--response", "500"];
        let report = measure(&[&base[..], &["--count", "50", "--pipeline", pipeline]].concat(), 0);
        assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([50, 0, 0], 0));
        assert_eq!(number(&report["traffic"]["received_bytes"]), 50 * 500);
    }
}

#[test]
fn an_answer_that_is_too_long_is_wrong() {
    let target = answering_server(64, |_, connection| Some(vec![0; if connection == 0 { 11 } else { 10 }]));
    let report = measure(&[&target, "--workload", "request", "--response", "10", "--count", "5"], 0);
    // What is too much comes with its answer, or is taken for the beginning of the next.
    assert!((1..=2).contains(&number(&report["requests"]["wrong"])), "{report}");
    assert_eq!(
        (number(&report["connections"]["opened"]), errors(&report)),
        (2, number(&report["requests"]["wrong"]))
    );
}

#[test]
fn a_short_answer_times_out_or_ends_with_its_connection() {
    // Every second request gets half of an answer. The connection stays, or is closed.
    for (closes, end) in [(false, "timed_out"), (true, "lost")] {
        for framing in [["--response", "10"], ["--response-end", "."]] {
            let target = tcp_server(move |mut stream, _| {
                let mut request = [0; 64];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(b"123456789.").unwrap();
                stream.read_exact(&mut request).unwrap();
                stream.write_all(b"12345").unwrap();
                // Until the other side is gone.
                if !closes {
                    let _ = stream.read(&mut request);
                }
            });
            let base = [&target, "--workload", "request", "--count", "2", "--timeout", "2s"];
            let report = measure(&[&base[..], &framing].concat(), 0);
            assert_eq!(counts(&report, ["answered", end, "wrong"]), [1, 1, 0], "{framing:?}");
            assert_eq!(errors(&report), 1);
            if closes {
                assert!(example(&report).contains("after 5 "), "{}", example(&report));
            }
        }
    }
}

#[test]
fn datagrams_are_requests_and_answers() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        for number in 0.. {
            let (length, source) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(length, 20);
            let answer: &[u8] = if number % 10 == 9 { b"other" } else { b"answer;" };
            socket.send_to(answer, source).unwrap();
        }
    });
    for framing in [["--response", "7"], ["--response-end", ";"]] {
        let base = [&target, "--workload", "request", "--payload", "20", "--count", "20"];
        let report = measure(&[&base[..], &framing].concat(), 0);
        assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [18, 2, 0], "{framing:?}");
        assert!(example(&report).starts_with("a response of 5 bytes"), "{}", example(&report));
    }
}

/// A server that counts the bytes that come, and does something before each read.
fn counting_server(before: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicU64>) {
    let counted = Arc::new(AtomicU64::new(0));
    let count = counted.clone();
    let target = tcp_server(move |mut stream, _| {
        let mut buffer = vec![0; 1 << 20];
        loop {
            before(&mut stream);
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => count.fetch_add(length as u64, Ordering::SeqCst),
                _ => return,
            };
        }
    });
    (target, counted)
}

/// Waits until a count is what it should be; what was written may be read later.
fn wait_for(count: &AtomicU64, expected: u64) {
    let begun = Instant::now();
    while count.load(Ordering::SeqCst) != expected && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(count.load(Ordering::SeqCst), expected);
}

#[test]
fn all_that_is_sent_arrives() {
    for pace in [&[][..], &["--rate", "5k"]] {
        let (target, counted) = counting_server(|_| {});
        let base = [&target, "--workload", "send", "--payload", "1k", "--count", "500", "--connections", "3"];
        let report = measure(&[&base[..], pace].concat(), 0);
        assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([500, 0, 0], 0));
        assert_eq!(number(&report["traffic"]["sent_bytes"]), 500_000);
        assert_eq!(number(&report["traffic"]["received_bytes"]), 0);
        wait_for(&counted, 500_000);
    }
}

#[test]
fn sending_to_who_answers_does_not_stall() {
    // Far more than the buffers hold, so that the server has to get rid of its answers.
    let report = measure(&[&echo_server(), "--workload", "send", "--payload", "64k", "--count", "1k"], 0);
    assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([1000, 0, 0], 0));
}

#[test]
fn a_slow_reader_shows_in_the_times_of_what_is_sent() {
    // Reads nothing for a while, once, and then all. Far more is sent than the buffers hold.
    let was_slow = AtomicU64::new(0);
    let (target, counted) = counting_server(move |stream| {
        if was_slow.fetch_add(1, Ordering::SeqCst) == 0 {
            // Not before something is sent.
            let _ = stream.peek(&mut [0]);
            thread::sleep(Duration::from_millis(500));
        }
    });
    let report =
        measure(&[&target, "--workload", "send", "--payload", "1M", "--count", "64", "--timeout", "60s"], 0);
    assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([64, 0, 0], 0));
    wait_for(&counted, 64_000_000);
    let longest_us = report["service_time"]["max_us"].as_f64().unwrap();
    assert!(longest_us > 100_000.0, "some message waited for most of the pause: {longest_us}");
}

#[test]
fn a_reader_that_stops_times_out() {
    let (target, _) = counting_server(|_| thread::sleep(Duration::from_secs(3600)));
    let base = [&target, "--workload", "send", "--payload", "1M", "--duration", "500ms", "--timeout", "3s"];
    let report = measure(&base, 0);
    assert!(number(&report["requests"]["timed_out"]) > 0, "{}", report["requests"]);
    assert_eq!(errors(&report), number(&report["requests"]["timed_out"]));
}

/// A server that sends pieces to each connection, and then ends it or not.
fn sending_server(pieces: usize, piece: &'static [u8], ends: bool) -> String {
    tcp_server(move |mut stream, _| {
        for _ in 0..pieces {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if ends {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let _ = stream.read(&mut [0]);
    })
}

#[test]
fn all_that_comes_is_counted() {
    // 100,000 bytes on each of 3 connections, and then silence, which is no error at the end.
    let target = sending_server(100, &[b'x'; 1000], false);
    let base = [&target, "--workload", "receive", "--connections", "3"];
    let report = measure(&[&base[..], &["--duration", "6s", "--timeout", "60s"]].concat(), 0);
    assert_eq!(number(&report["traffic"]["received_bytes"]), 300_000);
    assert_eq!(number(&report["traffic"]["sent_bytes"]), 0);
    assert_eq!(errors(&report), 0);
    let [answered, sent, timed_out] = counts(&report, ["answered", "sent", "timed_out"]);
    assert!(answered > 0 && answered == sent && timed_out == 0, "{}", report["requests"]);
}

#[test]
fn a_target_that_sends_nothing_exits_with_one() {
    let output = load(&[&sending_server(0, b"", false), "--workload", "receive", "--duration", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    let message = error_text(&output);
    assert!(message.ends_with(": nothing was answered: nothing was received\n"), "{message}");
}

#[test]
fn silence_longer_than_the_timeout_is_an_error() {
    let target = sending_server(1, b"x", false);
    let base = [&target, "--workload", "receive", "--duration", "2s", "--timeout", "300ms"];
    let report = measure(&base, 0);
    let [answered, timed_out, lost] = counts(&report, ["answered", "timed_out", "lost"]);
    assert!(answered > 0 && timed_out > 0 && lost == 0, "{}", report["requests"]);
    assert_eq!(errors(&report), timed_out);
}

#[test]
fn the_end_of_what_comes_is_an_error_only_if_nothing_came() {
    let target = sending_server(1, b"all of it", true);
    let report = measure(&[&target, "--workload", "receive", "--count", "5"], 0);
    assert_eq!((counts(&report, ["answered", "sent", "lost"]), errors(&report)), ([5, 5, 0], 0));
    assert_eq!(number(&report["connections"]["opened"]), 5);
    let target = tcp_server(|stream, connection| {
        if connection > 0 {
            (&stream).write_all(b"x").unwrap();
        }
    });
    let report = measure(&[&target, "--workload", "receive", "--count", "2"], 0);
    assert_eq!((counts(&report, ["answered", "sent", "lost"]), errors(&report)), ([1, 2, 1], 1));
    assert_eq!(report["errors"]["kinds"][0]["kind"], "closed");
}

#[test]
fn what_comes_can_be_asked_for() {
    // Datagrams to whoever sent one.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = format!("udp://{}", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            assert_eq!(&buffer[..length], b"SUBSCRIBE");
            for _ in 0..20 {
                socket.send_to(b"tick", source).unwrap();
            }
        }
    });
    // The same over a stream, whose pieces may come together.
    let tcp = tcp_server(|mut stream, _| {
        let mut asked = [0; 9];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"SUBSCRIBE");
        stream.write_all(&b"tick".repeat(20)).unwrap();
        let _ = stream.read(&mut asked);
    });
    let path = scratch_path("subscribe");
    fs::write(&path, "SUBSCRIBE").unwrap();
    let asking = ["--workload", "receive", "--payload-file", path.to_str().unwrap()];
    let report = measure(&[&[udp.as_str(), "--count", "20"][..], &asking].concat(), 0);
    assert_eq!((counts(&report, ["answered", "sent", "lost"]), errors(&report)), ([20, 20, 0], 0));
    assert_eq!(number(&report["traffic"]["received_bytes"]), 80);
    let report = measure(&[&[tcp.as_str(), "--duration", "1s"][..], &asking].concat(), 0);
    assert_eq!((number(&report["traffic"]["received_bytes"]), errors(&report)), (80, 0));
    assert_eq!(report["plan"]["payload_bytes"], 9);
    fs::remove_file(&path).unwrap();
}

#[test]
fn churn_makes_a_connection_for_each_request() {
    let accepted = Arc::new(AtomicU64::new(0));
    let count = accepted.clone();
    let target = tcp_server(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut buffer = [0; 100];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
    let mut expected = 0;
    for (payload, bytes) in [(&[][..], 0), (&["--payload", "50"], 50 * 100)] {
        for pace in [&[][..], &["--rate", "2k"]] {
            let base = [target.as_str(), "--workload", "churn", "--count", "100", "--connections", "4"];
            let report = measure(&[&base, payload, pace].concat(), 0);
            assert_eq!((counts(&report, ["answered", "wrong", "lost"]), errors(&report)), ([100, 0, 0], 0));
            let connections = &report["connections"];
            assert_eq!(number(&connections["opened"]), 100);
            assert!(number(&connections["open_max"]) <= 4, "{connections}");
            assert_eq!(number(&report["traffic"]["received_bytes"]), bytes);
            expected += 100;
            wait_for(&accepted, expected);
        }
    }
    let output = load(&[&target, "--workload", "churn", "--count", "10"]);
    let table = text_of(&output);
    for expected in
        ["connect and close", " connections/s\n", "Service time: from connecting until connected."]
    {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}

#[test]
fn churn_counts_what_is_refused_and_what_is_not_echoed() {
    let target = dead_target();
    let report = measure(&[&target, "--workload", "churn", "--count", "3"], 1);
    assert_eq!(counts(&report, ["answered", "sent", "lost"]), [0, 3, 3]);
    assert_eq!((number(&report["connections"]["refused"]), errors(&report)), (3, 3));
    // Of four connections one is echoed, one answered wrongly, one ended, one not answered.
    let target = tcp_server(|mut stream, connection| {
        let mut message = [0; 8];
        stream.read_exact(&mut message).unwrap();
        match connection % 4 {
            0 => stream.write_all(&message).unwrap(),
            1 => stream.write_all(&message.map(|byte| !byte)).unwrap(),
            2 => return,
            _ => {}
        }
        let _ = stream.read(&mut message);
    });
    let base = [&target, "--workload", "churn", "--payload", "8", "--count", "4", "--timeout", "2s"];
    let report = measure(&base, 0);
    assert_eq!(counts(&report, ["answered", "wrong", "lost"]), [1, 1, 1]);
    assert_eq!((number(&report["requests"]["timed_out"]), errors(&report)), (1, 3));
    assert_eq!(number(&report["connections"]["opened"]), 4);
}

#[test]
fn bytes_per_second_have_gates() {
    let target = echo_server();
    let base = [target.as_str(), "--count", "100", "--fail-if", "send-rate<1"];
    measure(&[&base[..], &["--fail-if", "receive-rate<1"]].concat(), 0);
    let output = load(&[&base[..], &["--fail-if", "receive-rate<1000000M"]].concat());
    assert_eq!(output.status.code(), Some(3));
    let message = error_text(&output);
    assert!(
        message.contains("gate receive-rate<1000000M failed: ") && message.contains(" bytes/s"),
        "{message}"
    );
    let table = text_of(&output);
    assert!(table.contains("\ntraffic      ") && table.contains("B/s received\n"), "{table}");
}

#[test]
fn flags_that_do_not_go_together_exit_with_two() {
    let (tcp, http) = ("tcp://127.0.0.1:9", "http://127.0.0.1:9/");
    for (arguments, value, expected) in [
        (
            &[tcp, "--workload", "dance"][..],
            "dance",
            "[possible values: echo, request, send, receive, churn]",
        ),
        (&[tcp, "--workload", "request"], "request", "expected --response BYTES or --response-end TEXT"),
        (
            &[tcp, "--response", "5"],
            "--response cannot be used with --workload echo",
            "expected --workload request",
        ),
        (
            &[tcp, "--workload", "send", "--response-end", "x"],
            "--response-end",
            "expected --workload request",
        ),
        (&[tcp, "--workload", "request", "--response", "0"], "0 bytes", "expected 1 or more"),
        (&[tcp, "--workload", "request", "--response-end", ""], "0 bytes", "expected 1 to 1024"),
        (&[tcp, "--workload", "request", "--response-end", r"\q"], r"'\q'", r"expected \n"),
        (
            &[tcp, "--workload", "request", "--response", "1", "--response-end", "x"],
            "--response",
            "cannot be",
        ),
        (
            &[tcp, "--workload", "receive", "--rate", "5"],
            "receive has no rate",
            "expected a workload that sends",
        ),
        (&[tcp, "--payload", "9-8"], "'9-8'", "expected the smaller one first"),
        (&[tcp, "--payload", "1:50%,2:40%"], "90 %", "expected 100 %"),
        (&[tcp, "--payload", "0"], "0 bytes", "expected 1 to 65536"),
        (&[tcp, "--payload", "5", "--payload-file", "x"], "--payload", "cannot be used with"),
        (&[tcp, "--payload-file", "/nonexistent"], "/nonexistent", "cannot read"),
        (&[tcp, "--payload-file", "/dev/null"], "0 bytes", "expected 1 to 65536"),
        (&[tcp, "--payload-file", "/dev/zero"], "67108865 bytes", "expected 1 to 65536"),
        (&["udp://127.0.0.1:9", "--workload", "churn"], "churn is not for udp", "expected tcp or unix"),
        (&["udp://127.0.0.1:9", "--pipeline", "2"], "pipelining (2)", "expected more connections"),
        (&[tcp, "--pipeline", "0"], "pipeline depth is 0", "expected 1 to 1024"),
        (&[tcp, "--pipeline", "17", "--payload", "4k"], "pipeline depth is 17", "expected 1 to 16"),
        (
            &[tcp, "--pipeline", "2", "--workload", "churn"],
            "workload churn",
            "expected a workload with responses",
        ),
        (
            &[http, "--pipeline", "2", "--header", "Connection: close"],
            "pipelining (2)",
            "expected persistent connections",
        ),
        (&[http, "--workload", "echo"], "--workload cannot be used with http", "expected tcp://"),
        (&[http, "--response", "5"], "--response cannot be used with http", "expected tcp://"),
        (&[http, "--payload", "5"], "--payload cannot be used with http", "expected --body"),
    ] {
        let output = load(arguments);
        let errors = error_text(&output);
        assert_eq!(
            (output.status.code(), text_of(&output).as_str()),
            (Some(2), ""),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(value) && errors.contains(expected), "{arguments:?}: {errors}");
    }
}
