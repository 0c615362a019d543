//! `ringspun load --script` over TLS, and over UDP.

use std::io;
use std::net::UdpSocket;

use ringspun::tls::{ClientAuth, Identity, Roots, ServerConfig, TlsStream};
use serde_json::Value;

use crate::scripts::{named, run, script, sessions};
use crate::support::measuring::{at_once, error_text, load, measure, number, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;
use crate::tls::{check_handshakes, echo, echo_server, serve};

const ECHO: &str = r#"
  (defn main [session]
    (for _ 0 3
      (load/step session "echo" (fn []
        (def stream (load/connection session))
        (:write stream "hello")
        (assert (= "hello" (string (:chunk stream 5))))))))"#;

const GET: &str = r#"
  (defn main [session]
    (load/step session "get" (fn []
      (def response (load/request session "GET" "/path?query"))
      (unless (= "http/1.1" (response :body)) (errorf "got %q" response)))))"#;

/// Answers each request with the protocol that was agreed upon, and with the host that it was for.
fn hello(stream: TlsStream) {
    let alpn = stream.alpn_protocol().map_or("none".into(), |alpn| String::from_utf8(alpn).unwrap());
    let mut head = Vec::new();
    while let Ok(Some(bytes)) = stream.receive() {
        head.extend_from_slice(&bytes);
        if head.ends_with(b"\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{alpn}", alpn.len());
            head.clear();
            if stream.write(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The kind and the example of the only error.
fn error_of(report: &Value) -> (&str, &str) {
    let error = &report["errors"]["kinds"][0];
    (error["kind"].as_str().unwrap(), error["example"].as_str().unwrap())
}

#[test]
fn sessions_over_tls_have_handshakes_that_are_counted() {
    let (_server, target) = echo_server();
    for arguments in [
        &["-c", "3"][..],
        &["-c", "3", "--workers", "3"],
        &["-c", "3", "--rate", "100", "--workers", "2"],
        &["-c", "1", "--tls-resume", "yes"],
    ] {
        let resumes = arguments.contains(&"yes");
        let base = ["-n", "9", "--insecure", "--fail-if", "errors>0"];
        let report = run(&target, ECHO, &[&base, arguments].concat(), 0);
        assert_eq!(sessions(&report), [9, 9, 9]);
        assert_eq!(number(&named(&report, "echo")["requests"]["answered"]), 27);
        assert_eq!(number(&report["connections"]["opened"]), 9);
        check_handshakes(&report);
        // All but the first.
        assert_eq!(number(&report["connections"]["resumed"]), if resumes { 8 } else { 0 });
        assert_eq!(report["plan"]["tls"]["insecure"], true);
    }
}

#[test]
fn https_has_certificates_protocols_and_names() {
    let folder = ScratchFolder::new("script-tls");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let authority = folder.file("authority.pem");
    std::fs::write(&authority, identity.certificate_pem()).unwrap();
    let port = serve(ServerConfig::builder().identity(identity).alpn(["http/1.1"]).build().unwrap(), hello);
    let target = format!("https://localhost:{port}/");
    let trusting = ["-n", "6", "--cacert", &authority, "--alpn", "http/1.1"];
    let report = run(&target, GET, &trusting, 0);
    assert_eq!(sessions(&report), [6, 6, 6], "{}", report["errors"]);
    check_handshakes(&report);
    // The name of certificates stays that of the target.
    let place = format!("127.0.0.1:{port}");
    let elsewhere = [&trusting[..], &["--connect-to", &place]].concat();
    assert_eq!(sessions(&run("https://localhost/", GET, &elsewhere, 0)), [6, 6, 6]);

    for (target, flags, expected) in [
        (&target, &[][..], "certificate"),
        (
            &format!("https://127.0.0.1:{port}/"),
            &["--cacert", &authority],
            "is for localhost, not for 127.0.0.1",
        ),
        (&target, &["--cacert", &authority, "--alpn", "h2"], "no protocol in common with us (ALPN)"),
    ] {
        let report = run(target, GET, &[&["-n", "2"], flags].concat(), 1);
        let (kind, example) = error_of(&report);
        assert_eq!((kind, number(&report["connections"]["handshake_failed"])), ("handshake_failed", 2));
        assert!(example.starts_with("get: ") && example.contains(expected), "{example}");
        assert_eq!((number(&report["requests"]["lost"]), number(&report["connections"]["opened"])), (2, 0));
    }
}

#[test]
fn a_certificate_of_ours_is_presented() {
    let (chain_pem, key_pem) = Identity::self_signed_pem(&["localhost"]).unwrap();
    let identity = Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes()).unwrap();
    let folder = ScratchFolder::new("script-mtls");
    let (chain, key) = (folder.file("chain.pem"), folder.file("key.pem"));
    std::fs::write(&chain, &chain_pem).unwrap();
    std::fs::write(&key, &key_pem).unwrap();
    let roots = Roots::from_pem(chain_pem.as_bytes()).unwrap();
    let config =
        ServerConfig::builder().identity(identity).client_auth(ClientAuth::Required, roots).build().unwrap();
    let target = format!("tls://localhost:{}", serve(config, echo));
    let report = run(&target, ECHO, &["-n", "3", "--cacert", &chain, "--cert", &chain, "--key", &key], 0);
    assert_eq!(sessions(&report), [3, 3, 3], "{}", report["errors"]);
}

#[test]
fn a_target_that_speaks_no_tls_and_files_without_certificates_are_told() {
    // It answers with what is no TLS.
    let plain = tcp_server(|mut stream, _| {
        let _ = io::Write::write_all(&mut stream, b"220 mail.example ready, and more\r\n");
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let report = run(&plain.replace("tcp://", "tls://"), ECHO, &["-n", "1", "--insecure"], 1);
    assert_eq!(error_of(&report).0, "handshake_failed", "{}", report["errors"]);

    let folder = ScratchFolder::new("script-tls-files");
    let file = folder.file("empty.pem");
    // The name of another file must not be read in its place.
    std::fs::write(&file, "/etc/hostname").unwrap();
    let path = script(ECHO);
    let output = load(&["tls://127.0.0.1:1", "--cacert", &file, "--script", path.to_str().unwrap()]);
    assert_eq!((output.status.code(), text_of(&output).as_str()), (Some(2), ""));
    assert!(error_text(&output).contains("no certificate in PEM"), "{}", error_text(&output));
}

#[test]
fn a_silent_target_times_out_in_the_handshake() {
    let silent = tcp_server(|mut stream, _| drop(io::copy(&mut stream, &mut io::sink())));
    let target = silent.replace("tcp://", "tls://");
    let report = run(&target, ECHO, &["-n", "2", "--insecure", "--timeout", "200ms"], 1);
    assert_eq!(number(&report["requests"]["timed_out"]), 2, "{}", report["errors"]);
    assert_eq!(number(&report["connections"]["opened"]), 0);
}

#[test]
fn sessions_over_udp_have_a_socket_each() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp://{}", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((count, peer)) = socket.recv_from(&mut bytes) {
            // What asks for nothing gets nothing.
            if &bytes[..count] != b"lost" {
                socket.send_to(&bytes[..count], peer).unwrap();
            }
        }
    });
    let source = r#"
      (defn ask [session text]
        (def socket (load/connection session))
        (:write socket text)
        (def answer (:read socket 64))
        (unless (= text (string answer)) (errorf "got %q" answer)))
      (defn main [session]
        (load/step session "first" ask session "one")
        (load/step session "second" ask session "another")
        (load/step session "third" ask session "lost"))"#;
    let path = script(source);
    let base = [target.as_str(), "--script", path.to_str().unwrap(), "-c", "2", "-n", "4", "--timeout", "5s"];
    at_once(&[&[][..], &["--rate", "50"]], |pace| {
        let report = measure(&[&base[..], pace].concat(), 0);
        let requests = &report["requests"];
        assert_eq!(["sent", "answered", "timed_out"].map(|name| number(&requests[name])), [12, 8, 4]);
        assert_eq!((sessions(&report), number(&report["connections"]["opened"])), ([4, 4, 0], 4));
    });
}
