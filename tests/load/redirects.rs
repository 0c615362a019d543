//! `ringspun load --follow --follow-to`: redirects to other servers, what is sent there, and what is counted.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringspun::tls::{Identity, ServerConfig, TlsStream};

use crate::http::{HELLO, http_server};
use crate::support::closing::dead_target;
use crate::support::measuring::{error_text, load, measure, number, tcp_server};
use crate::support::scratch::ScratchFolder;
use crate::tls::serve;

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// A server that redirects each request to a path of another one.
fn redirecting(to: &str) -> String {
    let location = format!("{to}/there");
    http_server(move |_| redirect(&location))
}

/// A server that counts what it is asked, and checks that nothing comes that is not for it.
fn other(answer: &'static str) -> (String, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let server = http_server(move |request| {
        let head = request.head.to_ascii_lowercase();
        assert!(head.starts_with("get /there http/1.1\r\nhost: 127.0.0.1:"), "{head}");
        let is_secret = head.contains("authorization") || head.contains("cookie") || head.contains("secret");
        assert!(!is_secret && head.contains("\r\naccept: text/html\r\n"), "{head}");
        counted.fetch_add(1, Ordering::Relaxed);
        answer.to_string()
    });
    (server, count)
}

const SECRETS: [&str; 6] = ["--user", "me:secret", "-H", "Cookie: a=secret", "-H", "Accept: text/html"];

#[test]
fn redirects_to_a_named_server_are_followed_without_secrets() {
    for pace in [
        &["-c", "3"][..],
        &["-c", "3", "--rate", "2k"],
        &["-c", "4", "--workers", "2"],
        &["-c", "3", "--session", "1..4", "--rate", "1k"],
    ] {
        let (server, count) = other(HELLO);
        let target = redirecting(&server);
        let base =
            [target.as_str(), "-n", "40", "--follow", "1", "--follow-to", &server, "--fail-if", "errors>0"];
        let report = measure(&[&base[..], &SECRETS, pace].concat(), 0);
        let [answered, redirects] = ["answered", "redirects"].map(|name| number(&report["requests"][name]));
        assert!(answered >= 40 && answered == redirects, "{}", report["requests"]);
        assert_eq!(count.load(Ordering::Relaxed), answered);
        assert_eq!(
            (number(&report["statuses"]["200"]), report["statuses"].as_object().unwrap().len()),
            (answered, 1)
        );
        let connections = &report["connections"];
        let wanted = number(&connections["wanted"]);
        assert_eq!(number(&connections["opened"]), wanted);
        assert!((1..=wanted).contains(&number(&connections["elsewhere"])), "{connections}");
        assert_eq!(report["plan"]["http"]["follow_to"], serde_json::json!([server]));
    }
}

#[test]
fn connections_that_other_servers_close_are_replaced() {
    const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (server, count) = other(LAST);
    let target = redirecting(&server);
    let base =
        [target.as_str(), "-n", "10", "--follow", "1", "--follow-to", &server, "--fail-if", "errors>0"];
    let report = measure(&[&base[..], &SECRETS].concat(), 0);
    assert_eq!(number(&report["connections"]["elsewhere"]), 10);
    assert_eq!(number(&report["connections"]["opened"]), 1, "the target's own is kept");
    assert_eq!(count.load(Ordering::Relaxed), 10);

    // Without a word, after an answer.
    let silent = tcp_server(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(HELLO.as_bytes());
    })
    .replace("tcp://", "http://");
    let target = redirecting(&silent);
    let base =
        [target.as_str(), "-n", "10", "--follow", "1", "--follow-to", &silent, "--fail-if", "errors>0"];
    let report = measure(&base, 0);
    assert_eq!(number(&report["requests"]["answered"]), 10, "{}", report["errors"]);
    assert_eq!(number(&report["connections"]["elsewhere"]), 10);
}

#[test]
fn errors_elsewhere_are_told_and_cost_the_target_nothing() {
    let closed = dead_target().replace("tcp://", "http://");
    let garbage = tcp_server(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"SSH-2.0-x\r\n\r\n");
    })
    .replace("tcp://", "http://");
    let cut = tcp_server(|mut stream, _| drop(stream.read(&mut [0; 1024]))).replace("tcp://", "http://");
    for (server, expected) in [
        (closed, "Connection refused"),
        (garbage, "SSH-2.0"),
        (cut, "closed the connection before responding"),
    ] {
        let target = redirecting(&server);
        let report = measure(&[&target, "-n", "4", "--follow", "1", "--follow-to", &server], 1);
        assert_eq!(number(&report["requests"]["wrong"]), 4, "{server}");
        assert_eq!(number(&report["connections"]["opened"]), 1, "{server}");
        let example = report["errors"]["kinds"][0]["example"].as_str().unwrap();
        assert!(example.starts_with(&format!("after a redirect to {server}: ")), "{example}");
        assert!(example.contains(expected), "{example}");
    }
    // It answers nothing: the timeout is that of all requests together.
    let silent = tcp_server(|mut stream, _| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let silent = silent.replace("tcp://", "http://");
    let target = redirecting(&silent);
    let flags = ["-n", "2", "--follow", "1", "--follow-to", &silent, "--timeout", "200ms"];
    let report = measure(&[&[target.as_str()], &flags[..]].concat(), 1);
    assert_eq!(number(&report["requests"]["timed_out"]), 2, "{}", report["requests"]);
}

/// Answers each request.
fn hello(stream: TlsStream) {
    let mut head = Vec::new();
    while let Ok(Some(bytes)) = stream.receive() {
        head.extend_from_slice(&bytes);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write(HELLO.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn from_http_to_https_certificates_are_verified_and_handshakes_counted() {
    let folder = ScratchFolder::new("redirect-tls");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let authority = folder.file("authority.pem");
    std::fs::write(&authority, identity.certificate_pem()).unwrap();
    let port = serve(ServerConfig::builder().identity(identity).build().unwrap(), hello);
    let server = format!("https://localhost:{port}");
    let target = redirecting(&server);
    let base = [target.as_str(), "-c", "2", "-n", "20", "--follow", "1", "--follow-to", &server];
    let report = measure(&[&base[..], &["--cacert", &authority, "--fail-if", "errors>0"]].concat(), 0);
    assert_eq!(number(&report["requests"]["answered"]), 20);
    assert_eq!(report["handshake_time"]["count"], report["connections"]["elsewhere"]);
    assert!((1..=2).contains(&number(&report["connections"]["elsewhere"])), "{}", report["connections"]);
    let report = measure(&base, 1);
    assert_eq!(number(&report["requests"]["wrong"]), 20);
    let example = report["errors"]["kinds"][0]["example"].as_str().unwrap();
    assert!(example.contains("certificate"), "{example}");
}

#[test]
fn a_redirect_may_lead_back() {
    let (address, asked) = (Arc::new(std::sync::Mutex::new(String::new())), Arc::new(AtomicU64::new(0)));
    let target = {
        let (address, asked) = (address.clone(), asked.clone());
        http_server(move |request| {
            assert!(
                request.head.contains("\r\nAuthorization: Basic "),
                "it is the target's: {}",
                request.head
            );
            asked.fetch_add(1, Ordering::Relaxed);
            match request.head.contains(" /back ") {
                true => HELLO.to_string(),
                false => redirect(&format!("{}/there", address.lock().unwrap())),
            }
        })
    };
    let back = format!("{target}/back");
    let server = http_server(move |_| redirect(&back));
    address.lock().unwrap().clone_from(&server);
    let base = [target.as_str(), "-n", "6", "--user", "me:secret", "--follow-to", &server];
    let report = measure(&[&base[..], &["--follow", "2", "--fail-if", "errors>0"]].concat(), 0);
    assert_eq!((number(&report["requests"]["answered"]), number(&report["requests"]["redirects"])), (6, 12));
    assert_eq!(asked.load(Ordering::Relaxed), 12);
    let report = measure(&[&base[..], &["--follow", "1"]].concat(), 1);
    assert_eq!(number(&report["requests"]["wrong"]), 6, "one more than are followed");
}

#[test]
fn other_servers_have_to_be_named_as_such() {
    let target = "http://127.0.0.1:9/";
    for (flags, expected) in [
        (&["--follow-to", "http://a"][..], "--follow <COUNT>"),
        (
            &["--follow", "1", "--follow-to", "http://a/path"],
            "--follow-to http://a/path: expected a server without",
        ),
        (&["--follow", "1", "--follow-to", "tcp://a:1"], "--follow-to tcp://a:1: expected a server"),
        (&["--follow", "1", "--follow-to", "http://me:secret@a"], "--follow-to ...: expected a server"),
        (&["--follow", "1", "--follow-to", "http://a", "--insecure"], "TLS is not spoken with"),
        (
            &["--follow", "0", "--follow-to", "http://a"],
            "(http://a): expected HTTP requests with redirects to follow",
        ),
    ] {
        let output = load(&[&[target], flags].concat());
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {error}");
        assert!(error.contains(expected) && !error.contains("secret"), "{flags:?}: {error}");
    }
    // Names are looked up before the run.
    let output = load(&[target, "--follow", "1", "--follow-to", "http://nowhere.invalid"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("nowhere.invalid"), "{}", error_text(&output));
}
