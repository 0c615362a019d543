//! `ringspun load ws://...` and `wss://...` against servers of the crate tungstenite: what is sent, what counts as an
//! answer, and what is told of ends.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ringspun::tls::{self, Identity, ServerConfig};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::support::measuring::{at_once, error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;

/// What a server does with a message.
type Serve = dyn Fn(&mut WebSocket<TcpStream>, Message, u64) -> tungstenite::Result<()> + Send + Sync;

/// What servers have seen.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    /// Handshakes, and connections that ended with a close frame.
    opened: AtomicU64,
    closed: AtomicU64,
}

/// A server that gives each data message, with its number on its connection, to `serve`, until that fails.
fn server(serve: Box<Serve>) -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let counts = seen.clone();
    let target = tcp_server(move |stream, _| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        counts.opened.fetch_add(1, Ordering::Relaxed);
        for number in 0.. {
            let message = loop {
                match socket.read() {
                    Ok(message) if message.is_text() || message.is_binary() => break message,
                    Ok(Message::Close(_)) => {
                        counts.closed.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            };
            counts.messages.fetch_add(1, Ordering::Relaxed);
            if serve(&mut socket, message, number).is_err() {
                return;
            }
        }
    });
    (target.replace("tcp://", "ws://"), seen)
}

fn echo(socket: &mut WebSocket<TcpStream>, message: Message, _: u64) -> tungstenite::Result<()> {
    socket.send(message)
}

/// Ways to send requests: closed and open loops, on one thread and on two.
const PACES: [&[&str]; 4] =
    [&[], &["--rate", "2k"], &["--workers", "2"], &["--rate", "2k", "--workers", "2"]];

#[test]
fn echoes_are_counted_as_the_server_counts_them() {
    for message in [
        &["--payload", "1"][..],
        &["--payload", "70000"],
        &["--payload", "100-2000", "--message-type", "text"],
        &["--body", "ring-spun yarn: Garn, fil, 糸"],
        &["--body", "as bytes", "--message-type", "binary"],
    ] {
        for pace in PACES {
            let (target, seen) = server(Box::new(echo));
            let base = [&target, "--connections", "3", "--count", "60", "--fail-if", "errors>0"];
            let report = measure(&[&base[..], message, pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), 60);
            assert_eq!(seen.messages.load(Ordering::Relaxed), 60);
            assert_eq!(number(&report["connections"]["opened"]), 3);
            assert_eq!(seen.opened.load(Ordering::Relaxed), 3);
            assert_eq!(report["plan"]["workload"], "websocket");
            let traffic = &report["traffic"];
            assert_eq!(traffic["sent_bytes"], traffic["received_bytes"], "{traffic}");
            let payload = report["plan"]["payload_bytes"].as_u64();
            assert!(payload.is_none_or(|bytes| number(&traffic["sent_bytes"]) == 60 * bytes), "{traffic}");
        }
    }
}

#[test]
fn answers_are_those_that_were_asked_for() {
    let answer = |text: &'static str| {
        let (target, _) = server(Box::new(move |socket, _, _| socket.send(Message::text(text))));
        target
    };
    let target = answer("pong");
    for (arguments, outcome) in [
        (&["--body", "ping", "--expect", "pong"][..], "answered"),
        (&["--body", "ping", "--workload", "request"], "answered"),
        (&["--body", "ping", "--expect", "ping"], "wrong"),
        (&["--body", "ping"], "wrong"),
        (&["--payload", "4"], "wrong"),
    ] {
        let status = if outcome == "answered" { 0 } else { 1 };
        let report = measure(&[&[target.as_str(), "--count", "10"], arguments].concat(), status);
        assert_eq!(number(&report["requests"][outcome]), 10, "{arguments:?} {report}");
    }
    let output = load(&[&target, "--count", "3", "--body", "ping"]);
    let text = text_of(&output);
    assert!(text.contains("byte 1 came back as 0x6f: expected 0x69"), "{text}");
    assert!(text.contains("4 bytes per text WebSocket message, closed loop"), "{text}");
    let output = load(&[&target, "--count", "3", "--payload", "4"]);
    assert!(text_of(&output).contains("a text message came back: expected binary"), "{}", text_of(&output));
}

#[test]
fn a_message_that_comes_before_one_was_sent_is_no_answer_to_it() {
    // Answers twice: the second message comes while nothing is asked, long before the next is due.
    let (target, _) = server(Box::new(|socket, message, _| {
        socket.send(message.clone())?;
        thread::sleep(Duration::from_millis(20));
        socket.send(message)
    }));
    for expected in [&[][..], &["--workload", "request"]] {
        // Fewer than 250 ms lie between two requests: idle connections are not watched.
        let pace = ["--rate", "5", "--arrivals", "even", "--count", "6"];
        let report = measure(&[&[target.as_str()], expected, &pace].concat(), 0);
        let [answered, wrong] = ["answered", "wrong"].map(|name| number(&report["requests"][name]));
        assert_eq!(answered + wrong, 6, "{}", report["requests"]);
        // Each second message may also come late, on a busy machine, but not all of them.
        assert!(wrong > 0, "{}", report["requests"]);
        let text = report["errors"]["kinds"][0]["example"].as_str().unwrap();
        // Or as the answer to the next request, if it is that late.
        let late = expected.is_empty() && text.starts_with("byte ");
        assert!(text.starts_with("bytes before a request: ") || late, "{text}");
        // Each costs the connection; after the last request, none is opened.
        assert!(number(&report["connections"]["opened"]).abs_diff(wrong) <= 1, "{report}");
    }
}

#[test]
fn pings_between_messages_are_no_fault() {
    let (target, _) = server(Box::new(|socket, message, _| {
        socket.send(message)?;
        thread::sleep(Duration::from_millis(20));
        socket.send(Message::Ping(vec![1].into()))?;
        // Its answer comes with the next message.
        socket.send(Message::Ping(vec![2].into()))
    }));
    let pace = ["--rate", "10", "--arrivals", "even", "--count", "6", "--fail-if", "errors>0"];
    let report = measure(&[&[target.as_str()], &pace[..]].concat(), 0);
    assert_eq!(number(&report["requests"]["answered"]), 6);
    assert_eq!(number(&report["connections"]["opened"]), 1);
}

#[test]
fn pings_are_answered_while_an_answer_is_awaited_and_while_none_is() {
    for pace in [&["--count", "5"][..], &["--rate", "2", "--arrivals", "even", "--count", "2"]] {
        let pongs = Arc::new(AtomicU64::new(0));
        let count = pongs.clone();
        let is_idle = pace.contains(&"--rate");
        let (target, _) = server(Box::new(move |socket, message, number| {
            let wait_for_pong = |socket: &mut WebSocket<TcpStream>| {
                socket.send(Message::Ping("still there?".into()))?;
                match socket.read()? {
                    Message::Pong(_) => count.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other:?} instead of a pong"),
                };
                Ok(())
            };
            match (is_idle, number) {
                (false, _) => {
                    wait_for_pong(socket)?;
                    socket.send(message)
                }
                (true, 0) => {
                    socket.send(message)?;
                    wait_for_pong(socket)
                }
                (true, _) => socket.send(message),
            }
        }));
        let report = measure(&[&[target.as_str()], pace].concat(), 0);
        let answered = number(&report["requests"]["answered"]);
        assert_eq!(number(&report["errors"]["total"]), 0, "{report}");
        assert_eq!(pongs.load(Ordering::Relaxed), if is_idle { 1 } else { answered }, "{report}");
    }
}

#[test]
fn close_frames_are_told_with_their_code_and_reason() {
    for (reason, expected) in [
        ("restarting", "the target closed the WebSocket with code 1012: \"restarting\""),
        ("", "the target closed the WebSocket with code 1012"),
    ] {
        for pace in PACES {
            // Each connection answers three messages.
            let (target, seen) = server(Box::new(move |socket, message, number| match number {
                0..3 => socket.send(message),
                _ => {
                    socket.close(Some(CloseFrame { code: CloseCode::Restart, reason: reason.into() }))?;
                    while socket.read().is_ok() {}
                    Err(tungstenite::Error::ConnectionClosed)
                }
            }));
            let base = [&target, "--connections", "2", "--count", "16"];
            let report = measure(&[&base[..], pace].concat(), 0);
            let (requests, error) = (&report["requests"], &report["errors"]["kinds"][0]);
            let (answered, lost) = (number(&requests["answered"]), number(&requests["lost"]));
            assert_eq!((answered + lost, seen.messages.load(Ordering::Relaxed)), (16, 16), "{report}");
            assert!((3..=4).contains(&lost), "{report}");
            assert_eq!((&error["kind"], number(&error["count"])), (&"closed".into(), lost));
            assert_eq!(error["example"], expected);
        }
    }
    // Without a close frame.
    let (target, _) = server(Box::new(|_, _, _| Err(tungstenite::Error::ConnectionClosed)));
    let report = measure(&[&target, "--count", "2"], 1);
    let error = &report["errors"]["kinds"][0];
    assert_eq!(error["example"], "the target closed the connection without a close frame", "{report}");
}

#[test]
fn a_close_while_nothing_is_under_way_is_no_error() {
    // Found while the connection is watched, or with the answer: no further message is sent there.
    for pace in [&["--rate", "2", "--arrivals", "even"][..], &[], &["--session", "2"]] {
        let (target, seen) = server(Box::new(|socket, message, _| {
            // Both are written at once.
            socket.write(message)?;
            socket.close(None)?;
            while socket.read().is_ok() {}
            Err(tungstenite::Error::ConnectionClosed)
        }));
        let report = measure(&[&[target.as_str(), "--count", "3"], pace].concat(), 0);
        let messages = if pace.contains(&"--session") { 6 } else { 3 };
        let requests = &report["requests"];
        let counts = ["sent", "answered", "resent"].map(|name| number(&requests[name]));
        assert_eq!((counts, number(&report["errors"]["total"])), ([messages, messages, 0], 0), "{report}");
        assert_eq!(number(&report["connections"]["closed_idle"]), messages - 1, "{report}");
        assert_eq!(seen.messages.load(Ordering::Relaxed), messages);
        assert_eq!(seen.opened.load(Ordering::Relaxed), messages);
    }
}

#[test]
fn a_message_without_an_answer_times_out_and_its_connection_is_replaced() {
    let (target, _) = server(Box::new(|socket, message, number| match number {
        0 | 1 => socket.send(message),
        _ => Ok(()),
    }));
    at_once(&["1", "2"], |workers| {
        let base = [&target, "--connections", "2", "--count", "12", "--timeout", "5s"];
        let report = measure(&[&base[..], &["--workers", workers]].concat(), 0);
        let requests = &report["requests"];
        assert_eq!((number(&requests["answered"]), number(&requests["timed_out"])), (8, 4), "{report}");
    });
}

#[test]
fn sessions_send_their_messages_over_one_connection() {
    let (target, seen) = server(Box::new(echo));
    let base = [&target, "-c", "2", "-n", "6", "--session", "3", "--think", "1ms..2ms"];
    for pace in [&[][..], &["--rate", "200"]] {
        let report = measure(&[&base, pace].concat(), 0);
        let sessions = &report["sessions"];
        assert_eq!((number(&sessions["begun"]), number(&sessions["completed"])), (6, 6));
        assert_eq!(number(&report["requests"]["answered"]), 18);
        assert_eq!(seen.messages.swap(0, Ordering::Relaxed), 18);
        assert_eq!(seen.opened.swap(0, Ordering::Relaxed), 2);
    }
}

#[test]
fn connections_end_with_a_close_frame() {
    let (target, seen) = server(Box::new(echo));
    let report = measure(&[&target, "--count", "20", "--requests-per-connection", "6"], 0);
    assert_eq!(number(&report["requests"]["answered"]), 20);
    assert_eq!(number(&report["connections"]["opened"]), 4);
    // The last one may still be on its way.
    for _ in 0..2000 {
        if seen.closed.load(Ordering::Relaxed) == 4 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} of 4 close frames arrived", seen.closed.load(Ordering::Relaxed));
}

#[test]
fn handshakes_have_the_headers_and_refused_ones_are_told() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let target = tcp_server(move |stream, _| {
        let seen = seen.clone();
        #[expect(clippy::result_large_err, reason = "it is the crate's")]
        let check = move |request: &Request, response: Response| {
            let header =
                |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_string());
            seen.lock().unwrap().push((request.uri().to_string(), header("origin"), header("host")));
            match request.uri().path() {
                "/gone" => {
                    let mut refusal = ErrorResponse::new(None);
                    *refusal.status_mut() = tungstenite::http::StatusCode::GONE;
                    Err(refusal)
                }
                _ => Ok(response),
            }
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, check) else { return };
        while let Ok(message) = socket.read() {
            let _ = socket.send(message);
        }
    });
    let host = target.strip_prefix("tcp://").unwrap();
    let url = format!("ws://{host}/chat?key=secret");
    let output = load(&[&url, "--count", "2", "--body", "a", "-H", "Origin: https://a.example"]);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    assert!(!text_of(&output).contains("secret"), "{}", text_of(&output));
    let head =
        ("/chat?key=secret".to_string(), Some("https://a.example".to_string()), Some(host.to_string()));
    assert_eq!(*heads.lock().unwrap(), [head]);
    let output = load(&[&format!("ws://{host}/gone"), "--count", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let text = error_text(&output);
    assert!(text.contains("HTTP 410 in answer to the WebSocket handshake: expected 101"), "{text}");
}

#[test]
fn what_does_not_go_with_websocket_is_refused() {
    for (arguments, expected) in [
        (&["ws://127.0.0.1:9/", "--pipeline", "2"][..], "pipelining (2) is not supported over WebSocket"),
        (&["ws://127.0.0.1:9/", "--http2"], "HTTP/2 is not spoken with ws://127.0.0.1:9/"),
        (&["ws://127.0.0.1:9/", "--workload", "send"], "expected echo or request"),
        (&["ws://127.0.0.1:9/", "--method", "POST"], "--method cannot be used with ws://"),
        (&["ws://127.0.0.1:9/", "-H", "Upgrade: x"], "the header Upgrade is the WebSocket handshake's"),
        (&["ws://127.0.0.1:9/", "--body", "a", "--payload", "2"], "a message was given twice"),
        (&["ws://127.0.0.1:9/", "--body", ""], "the message has 0 bytes: expected 1"),
        (&["http://127.0.0.1:9/", "--message-type", "text"], "expected ws:// or wss://"),
        (&["http://127.0.0.1:9/", "--expect", "ok"], "expected statuses"),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_text(&output).contains(expected), "{arguments:?}: {}", error_text(&output));
    }
}

#[test]
fn messages_go_over_tls() {
    let folder = ScratchFolder::new("wss");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let authority = folder.file("authority.pem");
    std::fs::write(&authority, identity.certificate_pem()).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        ringspun::run(move || -> io::Result<()> {
            let config = ServerConfig::builder().identity(identity).build()?;
            let listener = tls::listen("127.0.0.1:0", &config)?;
            sender.send(listener.localname()?.port().unwrap()).unwrap();
            listener.accept_loop(|stream| {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    let _ = socket.send(message);
                }
            })
        })
        .unwrap()
    });
    let target = format!("wss://localhost:{}", receiver.recv().unwrap());
    for pace in PACES {
        let base = [&target, "--cacert", &authority, "--connections", "3", "--count", "60"];
        let report = measure(&[&base[..], pace].concat(), 0);
        assert_eq!(
            (number(&report["requests"]["answered"]), number(&report["errors"]["total"])),
            (60, 0),
            "{report}"
        );
        assert_eq!(number(&report["handshake_time"]["count"]), 3);
    }
}
