//! `ringspun load tls://...` and `https://...`: what is verified, what is counted, and how handshakes are told apart.

use std::io;
use std::sync::mpsc;

use ringspun::fibers;
use ringspun::tls::{self, ClientAuth, Identity, Roots, ServerConfig, TlsStream};
use serde_json::Value;

use crate::support::measuring::{error_text, load, measure, number, text_of};
use crate::support::pem::to_pem;
use crate::support::scratch::ScratchFolder;
use crate::support::serving::Server;

/// An echo server in a process of its own, with a certificate that signs itself, and its target.
pub fn echo_server() -> (Server, String) {
    let server = Server::start(&["serve", "echo", "--tls", "127.0.0.1:0", "--self-signed"]);
    let target = format!("tls://{}", server.address);
    (server, target)
}

/// Serves on a thread for as long as the test's process lives, and returns the port.
pub fn serve(config: ServerConfig, serve: impl Fn(TlsStream) + Send + 'static) -> u16 {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        ringspun::run(move || -> io::Result<()> {
            let listener = tls::listen("127.0.0.1:0", &config)?;
            sender.send(listener.localname()?.port().unwrap()).unwrap();
            listener.accept_loop(serve)
        })
        .unwrap()
    });
    receiver.recv().unwrap()
}

pub fn echo(stream: TlsStream) {
    while let Ok(Some(bytes)) = stream.receive() {
        if stream.write(&bytes).is_err() {
            break;
        }
    }
}

/// Answers each request with the protocol that was agreed upon, and closes after the fifth without a close_notify, as
/// many servers do.
fn hello(stream: TlsStream) {
    let alpn = stream.alpn_protocol().map_or("none".into(), |alpn| String::from_utf8(alpn).unwrap());
    let (mut head, mut count) = (Vec::new(), 0);
    while let Ok(Some(bytes)) = stream.receive() {
        head.extend_from_slice(&bytes);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = format!("HTTP/1.1 200 {alpn}\r\nContent-Length: {}\r\n\r\n{alpn}", alpn.len());
            if stream.write(answer.as_bytes()).is_err() {
                return;
            }
            count += 1;
            if count == 5 {
                stream.core().stream().close();
            }
        }
    }
}

pub fn check_handshakes(report: &Value) {
    let (connections, times) = (&report["connections"], &report["handshake_time"]);
    assert_eq!(times["count"], connections["opened"], "{report}");
    assert!(times["p50_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn echoes_over_tls_are_measured_in_every_way() {
    let (_server, target) = echo_server();
    for arguments in [
        &["--connections", "4"][..],
        &["--connections", "4", "--workers", "2"],
        &["--pipeline", "16", "--payload", "1000"],
        &["--rate", "2k", "--warmup", "50ms"],
        &["--payload", "64k"],
        &["--workload", "send", "--payload", "3000"],
        &["--workload", "request", "--payload", "100", "--response", "100"],
    ] {
        let base = [target.as_str(), "--insecure", "--count", "200", "--fail-if", "errors>0"];
        let report = measure(&[&base, arguments].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 200);
        check_handshakes(&report);
        assert_eq!(report["connections"]["resumed"], 0);
        assert_eq!(report["plan"]["tls"]["insecure"], true);
    }
}

#[test]
fn handshakes_are_full_unless_they_are_to_be_resumed() {
    let (_server, target) = echo_server();
    for (resume, is_resumed) in [("yes", true), ("no", false)] {
        let arguments = [&target, "--insecure", "--workload", "churn", "--payload", "64", "--count", "50"];
        let report = measure(&[&arguments[..], &["--tls-resume", resume]].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 50);
        check_handshakes(&report);
        // All but the first, which gets the ticket.
        assert_eq!(number(&report["connections"]["resumed"]), if is_resumed { 49 } else { 0 });
        assert_eq!(report["plan"]["tls"]["resume"], is_resumed);
    }
}

#[test]
fn a_certificate_that_is_not_trusted_ends_the_run_unless_that_is_asked_for() {
    let (_server, target) = echo_server();
    let output = load(&[&target, "--count", "5"]);
    assert_eq!(output.status.code(), Some(1));
    let text = error_text(&output);
    assert!(
        text.contains("the peer's certificate is not trusted") || text.contains("no trusted root"),
        "{text}"
    );
    let output = load(&[&target, "--insecure", "--count", "5"]);
    let text = text_of(&output);
    assert!(text.contains("The target's certificate was not verified (--insecure)"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("handshake ")), "{text}");
}

#[test]
fn https_is_http_with_certificates_alpn_and_names() {
    let folder = ScratchFolder::new("load-tls");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let authority = folder.file("authority.pem");
    std::fs::write(&authority, identity.certificate_pem()).unwrap();
    let port = serve(ServerConfig::builder().identity(identity).alpn(["http/1.1"]).build().unwrap(), hello);
    let target = format!("https://localhost:{port}/path?query");
    let report = measure(&[&target, "--cacert", &authority, "--alpn", "http/1.1", "--count", "12"], 0);
    assert_eq!(number(&report["requests"]["answered"]), 12, "{report}");
    // A cut of an idle connection, and of one on which the next request was sent.
    assert_eq!(number(&report["connections"]["opened"]), 3, "{report}");
    assert_eq!(report["errors"]["total"], 0, "{report}");
    check_handshakes(&report);
    assert_eq!(report["plan"]["target"], format!("https://localhost:{port}/path?..."));
    assert_eq!(report["plan"]["tls"]["alpn"], serde_json::json!(["http/1.1"]));

    // For another name; and another protocol.
    let address = format!("https://127.0.0.1:{port}/");
    let output = load(&[&address, "--cacert", &authority, "--count", "1"]);
    assert!(error_text(&output).contains("is for localhost, not for 127.0.0.1"), "{}", error_text(&output));
    let output = load(&[&target, "--cacert", &authority, "--alpn", "h2", "--count", "1"]);
    assert!(error_text(&output).contains("no protocol in common with us (ALPN)"), "{}", error_text(&output));
}

#[test]
fn a_server_may_ask_for_a_certificate_of_ours() {
    let folder = ScratchFolder::new("load-mtls");
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let (chain, key) = (folder.file("chain.pem"), folder.file("key.pem"));
    let chain_pem = to_pem("CERTIFICATE", made.cert.der());
    std::fs::write(&chain, &chain_pem).unwrap();
    let key_pem = to_pem("PRIVATE KEY", &made.signing_key.serialize_der());
    std::fs::write(&key, &key_pem).unwrap();
    let identity = Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes()).unwrap();
    let roots = Roots::from_pem(chain_pem.as_bytes()).unwrap();
    let config =
        ServerConfig::builder().identity(identity).client_auth(ClientAuth::Required, roots).build().unwrap();
    let target = format!("tls://localhost:{}", serve(config, echo));
    let base = [target.as_str(), "--cacert", &chain, "--count", "20"];
    let report = measure(&[&base[..], &["--cert", &chain, "--key", &key]].concat(), 0);
    assert_eq!(number(&report["requests"]["answered"]), 20);
    assert_eq!(report["plan"]["tls"]["client_certificate"], true);
    let output = load(&base);
    assert_ne!(output.status.code(), Some(0));
    assert!(
        text_of(&output).contains("it requires a certificate of ours, and got none"),
        "{}",
        text_of(&output)
    );
}

#[test]
fn flags_for_tls_are_refused_without_it() {
    for (arguments, expected) in [
        (&["tcp://localhost:1", "--insecure"][..], "expected tls:// or https://"),
        (&["tls://localhost:1", "--cert", "x"], "--key <FILE>"),
        (&["tls://localhost:1", "--cacert", "/nonexistent"], "--cacert: cannot read /nonexistent"),
        (&["tls://localhost:1", "--cacert", "x", "--insecure"], "cannot be used with"),
        (
            &["tls://localhost:1", "--alpn", "h2,"],
            "a protocol to offer in TLS has 0 bytes: expected 1 to 255",
        ),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(error_text(&output).contains(expected), "{}", error_text(&output));
    }
    let folder = ScratchFolder::new("load-tls-files");
    let file = folder.file("empty.pem");
    std::fs::write(&file, "").unwrap();
    for flags in [&["--cacert", &file][..], &["--cert", &file, "--key", &file]] {
        let output = load(&[&["tls://127.0.0.1:1"][..], flags].concat());
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&flags.join(" ")) && error.contains("no certificate in PEM"), "{error}");
    }
}

/// Fibers of a run have room for TLS, with the least stack of all.
#[test]
fn many_connections_at_once_shake_hands() {
    let (_server, target) = echo_server();
    let base = [&target, "--insecure", "--timeout", "60s"];
    let report = measure(&[&base[..], &["--connections", "200", "--count", "1k"]].concat(), 0);
    assert_eq!(number(&report["connections"]["open_max"]), 200);
    check_handshakes(&report);
    assert!(fibers::statistics().is_none());
}
