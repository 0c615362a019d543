//! `ringspun load --http2` against servers that are made here: of frames written by hand, which do whatever a server
//! may, and of the crate h2 on fibers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use ringspun::fibers::{self, block_on};
use ringspun::net::AsyncStream;
use ringspun::tls::{self, Identity, ServerConfig, TlsStream};

use crate::support::measuring::{at_once, error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
/// Statuses of the static table of HPACK.
const STATUS_200: u8 = 0x88;
const STATUS_500: u8 = 0x8e;

/// A connection of the server of frames.
struct Frames(TcpStream);

impl Frames {
    /// Sends a frame. One that cannot be sent has lost its connection, as the next read tells.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let _ = self.0.write_all(&[&head, payload].concat());
    }

    /// The next frame: its kind, its flags and its stream.
    fn receive(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok((head[3], head[4], stream, payload))
    }

    fn answer(&mut self, stream: u32, status: u8, body: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, &[status]);
        self.send(DATA, END_STREAM, stream, body);
    }

    fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    fn goaway(&mut self, last_stream: u32) {
        self.send(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), [0; 4]].concat());
    }
}

/// A request as the server of frames gets it.
struct Seen {
    stream: u32,
    /// Its number on its connection, and that of the connection.
    number: u64,
    connection: u64,
}

/// A server that gives each request to `serve`, which returns false to close the connection. `streams` is how many it
/// allows.
fn frame_server(streams: u32, serve: impl Fn(&mut Frames, &Seen) -> bool + Send + Sync + 'static) -> String {
    let target = tcp_server(move |mut stream, connection| {
        let mut preface = [0; PREFACE.len()];
        if stream.read_exact(&mut preface).is_err() || preface != PREFACE {
            return;
        }
        let mut frames = Frames(stream);
        // SETTINGS_MAX_CONCURRENT_STREAMS.
        frames.send(SETTINGS, 0, 0, &[&[0, 3][..], &streams.to_be_bytes()].concat());
        let mut number = 0;
        while let Ok((kind, flags, stream, payload)) = frames.receive() {
            match kind {
                SETTINGS if flags & ACK == 0 => frames.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frames.send(PING, ACK, 0, &payload),
                HEADERS => {
                    if !serve(&mut frames, &Seen { stream, number, connection }) {
                        // What is still on its way would reset the connection, with all that was sent.
                        frames.0.shutdown(Shutdown::Write).unwrap();
                        let _ = frames.0.read_to_end(&mut Vec::new());
                        return;
                    }
                    number += 1;
                }
                _ => {}
            }
        }
    });
    target.replace("tcp://", "http://")
}

/// Ways to send requests: closed and open loops, on one thread and on two.
const PACES: [&[&str]; 4] =
    [&[], &["--rate", "2k"], &["--workers", "2"], &["--rate", "2k", "--workers", "2"]];

#[test]
fn streams_share_connections_and_are_never_more_than_planned_or_allowed() {
    const REQUESTS: u64 = 60;
    for (planned, allowed) in [(1, 100), (5, 100), (8, 3)] {
        for pace in PACES {
            let most = Arc::new(AtomicU64::new(0));
            let (seen, waiting) = (most.clone(), Mutex::new((0, Vec::<(u64, u32, Frames)>::new())));
            let target = frame_server(allowed, move |frames, request| {
                // Each waits until as many have come on its connection as may, or the last of all has.
                let (came, waiting) = &mut *waiting.lock().unwrap();
                *came += 1;
                waiting.push((request.connection, request.stream, Frames(frames.0.try_clone().unwrap())));
                let ours = waiting.iter().filter(|(connection, ..)| *connection == request.connection);
                seen.fetch_max(ours.count() as u64, Ordering::Relaxed);
                let is_full = request.number % u64::from(allowed.min(planned)) == 0 || request.number >= 12;
                let is_last = *came == REQUESTS;
                waiting.retain_mut(|(connection, stream, frames)| {
                    let is_due = is_last || (is_full && *connection == request.connection);
                    if is_due {
                        frames.answer(*stream, STATUS_200, b"hello");
                    }
                    !is_due
                });
                true
            });
            let streams = planned.to_string();
            let count = REQUESTS.to_string();
            let base = [&target, "--http2", "--streams", &streams, "--connections", "2", "--count", &count];
            let report = measure(&[&base[..], pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), REQUESTS, "{report}");
            assert_eq!(number(&report["errors"]["total"]), 0, "{}", report["errors"]);
            assert_eq!(number(&report["connections"]["opened"]), 2);
            assert_eq!(number(&report["traffic"]["received_bytes"]), REQUESTS * 5);
            assert_eq!(report["statuses"]["200"], REQUESTS);
            assert!(most.load(Ordering::Relaxed) <= u64::from(planned.min(allowed)), "{planned} {allowed}");
            let told = &report["connections"]["streams_allowed"];
            assert_eq!(told.as_u64(), (allowed < planned).then_some(allowed.into()), "{report}");
            assert_eq!(
                (&report["plan"]["http_version"], &report["plan"]["streams"]),
                (&"2".into(), &planned.into())
            );
        }
    }
}

#[test]
fn more_streams_than_one_are_in_flight_at_once() {
    // Nothing is answered before four have come.
    let target = frame_server(100, |frames, request| {
        if request.number % 4 == 3 {
            (0..4).rev().for_each(|back| frames.answer(request.stream - 2 * back, STATUS_200, b""));
        }
        true
    });
    for pace in PACES {
        let base = [&target, "--http2", "--streams", "4", "--count", "40"];
        let connections = if pace.contains(&"--workers") { "2" } else { "1" };
        let report = measure(&[&base[..], pace, &["--connections", connections]].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 40, "{report}");
    }
}

#[test]
fn what_a_target_did_not_process_is_sent_again_and_counted_once() {
    // Ends each connection at the ninth request, which it does not process, nor later ones.
    for method in ["GET", "POST"] {
        for pace in PACES {
            let processed = Arc::new(AtomicU64::new(0));
            let count = processed.clone();
            let target = frame_server(100, move |frames, request| {
                if request.number < 8 {
                    count.fetch_add(1, Ordering::Relaxed);
                    frames.answer(request.stream, STATUS_200, b"hello");
                }
                if request.number == 8 {
                    frames.goaway(15);
                }
                true
            });
            let base = [&target, "--http2", "--streams", "5", "--count", "100", "--method", method];
            let report = measure(&[&base[..], pace, &["--connections", "2"]].concat(), 0);
            let requests = &report["requests"];
            assert_eq!(number(&requests["answered"]), 100, "{method} {report}");
            assert_eq!(processed.load(Ordering::Relaxed), 100);
            assert!(number(&requests["resent"]) > 0, "{requests}");
            assert_eq!(number(&report["errors"]["total"]), 0, "{}", report["errors"]);
        }
    }
}

#[test]
fn a_refused_stream_is_tried_again_once_and_a_reset_one_is_an_error() {
    for pace in PACES {
        let target = frame_server(100, |frames, request| {
            match request.number % 5 {
                2 => frames.reset(request.stream, REFUSED_STREAM),
                _ => frames.answer(request.stream, STATUS_200, b"hello"),
            }
            true
        });
        let base = [&target, "--http2", "--connections", "2", "--count", "100"];
        let report = measure(&[&base[..], pace].concat(), 0);
        let requests = &report["requests"];
        assert_eq!((number(&requests["answered"]), number(&report["errors"]["total"])), (100, 0), "{report}");
        // Each connection refuses every fifth.
        assert!((24..=25).contains(&number(&requests["resent"])), "{requests}");
    }
    for (code, resent, text) in [
        (REFUSED_STREAM, 1, "the target refused the stream (REFUSED_STREAM)"),
        (INTERNAL_ERROR, 0, "the target reset the stream (INTERNAL_ERROR)"),
    ] {
        let target = frame_server(100, move |frames, request| {
            frames.reset(request.stream, code);
            true
        });
        let report = measure(&[&target, "--http2", "--count", "10"], 1);
        let requests = &report["requests"];
        assert_eq!((number(&requests["lost"]), number(&requests["resent"])), (10, resent), "{report}");
        assert_eq!(number(&report["connections"]["opened"]), 1, "{report}");
        let kind = &report["errors"]["kinds"][0];
        assert_eq!((&kind["kind"], &kind["count"]), (&"stream_reset".into(), &10.into()));
        assert!(kind["example"].as_str().unwrap().contains(text), "{kind}");
    }
}

#[test]
fn a_lost_connection_is_one_error_and_costs_what_may_not_be_sent_again() {
    for method in ["GET", "POST"] {
        for pace in PACES {
            // Closes each connection at its third request, with all that are in flight.
            let answered = Arc::new(AtomicU64::new(0));
            let count = answered.clone();
            let target = frame_server(100, move |frames, request| {
                if request.number < 2 {
                    count.fetch_add(1, Ordering::Relaxed);
                    frames.answer(request.stream, STATUS_200, b"hello");
                }
                request.number < 2
            });
            let base = [&target, "--http2", "--streams", "4", "--count", "40", "--method", method];
            let report = measure(&[&base[..], &["--connections", "2"], pace].concat(), 0);
            let (requests, errors) = (&report["requests"], &report["errors"]);
            assert_eq!(number(&requests["answered"]), answered.load(Ordering::Relaxed), "{report}");
            if method == "GET" {
                assert_eq!((number(&requests["answered"]), number(&errors["total"])), (40, 0), "{report}");
                continue;
            }
            let (lost, errors) = (number(&requests["lost"]), &report["errors"]);
            assert_eq!(lost, 40 - number(&requests["answered"]), "{report}");
            assert!(
                (1..=number(&report["connections"]["opened"])).contains(&number(&errors["total"])),
                "{report}"
            );
            assert_eq!(
                (number(&errors["kinds"][0]["count"]), &errors["kinds"][0]["kind"]),
                (number(&errors["total"]), &"closed".into())
            );
            if pace.is_empty() {
                assert!(lost > number(&errors["total"]), "{report}");
            }
        }
    }
}

#[test]
fn statuses_are_counted_and_expected_as_over_http_1() {
    let target = frame_server(100, |frames, request| {
        let status = if request.number % 2 == 0 { STATUS_200 } else { STATUS_500 };
        frames.answer(request.stream, status, b"hello");
        true
    });
    let report = measure(&[&target, "--http2", "--count", "20"], 0);
    assert_eq!((&report["statuses"]["200"], &report["statuses"]["500"]), (&10.into(), &10.into()));
    assert_eq!(number(&report["requests"]["bad_status"]), 10);
    let report = measure(&[&target, "--http2", "--count", "20", "--expect", "200,500"], 0);
    assert_eq!(number(&report["requests"]["answered"]), 20);
}

#[test]
fn a_request_without_an_answer_times_out_alone() {
    // The second of each connection never gets one.
    let target = frame_server(100, |frames, request| {
        if request.number != 1 {
            frames.answer(request.stream, STATUS_200, b"hello");
        }
        true
    });
    at_once(&["1", "2"], |workers| {
        let base = [&target, "--http2", "--streams", "2", "--connections", "2", "--count", "50"];
        let report = measure(&[&base[..], &["--timeout", "5s", "--workers", workers]].concat(), 0);
        let requests = &report["requests"];
        assert_eq!(number(&requests["timed_out"]), 2, "{report}");
        assert_eq!(number(&report["connections"]["opened"]), 2, "a stream was reset, not the connection");
    });
}

#[test]
fn connections_are_replaced_after_so_many_requests() {
    let connections = Arc::new(Mutex::new(Vec::new()));
    let seen = connections.clone();
    let target = frame_server(100, move |frames, request| {
        seen.lock().unwrap().push(request.connection);
        frames.answer(request.stream, STATUS_200, b"hello");
        true
    });
    for streams in ["1", "3"] {
        for pace in [&[][..], &["--rate", "2k"]] {
            connections.lock().unwrap().clear();
            let base =
                [&target, "--http2", "--count", "20", "--requests-per-connection", "7", "--streams", streams];
            let report = measure(&[&base[..], pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), 20, "{report}");
            assert_eq!(number(&report["connections"]["opened"]), 3, "{report}");
            let seen = connections.lock().unwrap();
            assert!(
                seen.iter().all(|one| seen.iter().filter(|other| one == *other).count() <= 7),
                "{seen:?}"
            );
        }
    }
}

#[test]
fn a_server_that_does_not_speak_http_2_is_told_of() {
    let target = tcp_server(|mut stream, _| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = load(&[&target.replace("tcp://", "http://"), "--http2", "--count", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = error_text(&output);
    assert!(text.contains("the target does not speak HTTP/2"), "{text}");
}

#[test]
fn what_does_not_go_with_http_2_is_refused() {
    for (arguments, expected) in [
        (&["tcp://127.0.0.1:9", "--http2"][..], "HTTP/2 is not spoken with tcp://127.0.0.1:9: expected http"),
        (&["http://127.0.0.1:9/", "--http2", "--pipeline", "2"], "expected streams with HTTP/2"),
        (
            &["http://127.0.0.1:9/", "--http2", "--expect-body", "x"],
            "are for HTTP/1.1: expected none with HTTP/2",
        ),
        (&["http://127.0.0.1:9/", "--http2", "--follow", "1"], "are for HTTP/1.1: expected none with HTTP/2"),
        (
            &["http://127.0.0.1:9/", "--http2", "--streams", "0"],
            "0 streams on each of 1 connections: expected 1",
        ),
        (&["http://127.0.0.1:9/", "--streams", "2"], "--http2"),
        (
            &["http://127.0.0.1:9/", "--http2", "-H", "Connection: close"],
            "the header Connection is HTTP/1.1's",
        ),
        (&["https://127.0.0.1:9/", "--http2", "--alpn", "http/1.1"], "expected none with HTTP/2"),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&output).contains(expected), "{arguments:?}: {}", error_text(&output));
    }
}

/// Serves a connection by the crate h2: answers with the method, the path and the length of the body.
fn mirror(stream: TlsStream) -> Result<(), h2::Error> {
    let serving = async {
        let mut connection = h2::server::handshake(AsyncStream::new(stream)).await?;
        while let Some(accepted) = connection.accept().await {
            let (request, mut respond) = accepted?;
            let answer = move || {
                block_on(async {
                    let head = format!("{} {} ", request.method(), request.uri());
                    let (mut body, mut length) = (request.into_body(), 0);
                    while let Some(data) = body.data().await {
                        length += data.as_ref().map_or(0, Bytes::len);
                        body.flow_control().release_capacity(data?.len())?;
                    }
                    let mut answer = respond.send_response(Response::new(()), false)?;
                    answer.send_data(Bytes::from(format!("{head}{length}")), true)
                })
            };
            fibers::spawn(answer).unwrap();
        }
        Ok(())
    };
    block_on(serving).unwrap_or(Ok(()))
}

/// A server of the crate h2 with TLS, and the file with its authority. The folder ends with the test.
fn h2_server() -> (ScratchFolder, String, String) {
    let folder = ScratchFolder::new("http2");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, identity.certificate_pem()).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        ringspun::run(move || -> io::Result<()> {
            let config = ServerConfig::builder().identity(identity).alpn(["h2"]).build()?;
            let listener = tls::listen("127.0.0.1:0", &config)?;
            sender.send(listener.localname()?.port().unwrap()).unwrap();
            listener.accept_loop(|stream| drop(mirror(stream)))
        })
        .unwrap()
    });
    let target = format!("https://localhost:{}", receiver.recv().unwrap());
    (folder, target, authority.to_str().unwrap().to_string())
}

#[test]
fn requests_and_bodies_arrive_whole_over_tls() {
    let (_folder, target, authority) = h2_server();
    let url = format!("{target}/a/b?c=d");
    for pace in PACES {
        // Longer than a window of either side.
        for length in [0_usize, 1, 100_000] {
            let body = "x".repeat(length);
            let file = _folder.path().join("body");
            std::fs::write(&file, body).unwrap();
            let base = [&url, "--http2", "--cacert", &authority, "--streams", "4", "--connections", "2"];
            let requests = ["--count", "20", "--method", "POST", "--body-file", file.to_str().unwrap()];
            let report = measure(&[&base[..], &requests, pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), 20, "{report}");
            let answer = format!("POST {url} {length}");
            let traffic = &report["traffic"];
            assert_eq!(number(&traffic["sent_bytes"]), 20 * length as u64, "{traffic}");
            assert_eq!(number(&traffic["received_bytes"]), 20 * answer.len() as u64, "{traffic}");
            assert_eq!(number(&report["handshake_time"]["count"]), 2);
        }
    }
    let output = load(&[&url, "--http2", "--cacert", &authority, "--streams", "4", "--count", "8"]);
    assert!(text_of(&output).contains("GET, HTTP/2 with 4 streams per connection"), "{}", text_of(&output));
}

#[test]
fn a_response_to_no_request_is_an_error_and_takes_no_request_with_it() {
    let target = frame_server(10, |frames, seen| {
        frames.answer(seen.stream, STATUS_200, b"hello");
        // Long enough for the response to be read alone, and far less than from one request to the next.
        thread::sleep(Duration::from_millis(20));
        // Of a stream that the client has not opened.
        frames.answer(seen.stream + 1000, STATUS_200, b"again");
        true
    });
    let pace = ["--http2", "--rate", "5", "--arrivals", "even", "--count", "4"];
    let report = measure(&[&[target.as_str()], &pace[..]].concat(), 0);
    let [answered, wrong] = ["answered", "wrong"].map(|name| number(&report["requests"][name]));
    assert_eq!(answered + wrong, 4, "{}", report["requests"]);
    // Each costs the connection; after the last request, none is opened. On a busy machine, it may come with the
    // next one.
    let [total, opened] = [&report["errors"]["total"], &report["connections"]["opened"]].map(number);
    assert!(total >= 1 && opened.abs_diff(total) <= 1, "{}", report["errors"]);
    assert_eq!(number(&report["connections"]["closed_idle"]), 0, "{}", report["connections"]);
    let error = &report["errors"]["kinds"][0];
    assert_eq!(error["kind"], "wrong", "{error}");
    assert!(error["example"].as_str().unwrap().starts_with("expected valid HTTP/2: "), "{error}");
}
