//! `ringspun serve echo --tls`: certificates from files and self-signed, and refusals of what does not fit.

use std::process::Command;

use ringspun::fibers;
use ringspun::tls::{self, ClientConfig, Identity, Roots};

use crate::support::pem::to_pem;
use crate::support::scratch::ScratchFolder;
use crate::support::serving::Server;

fn echoes(address: String, config: ClientConfig) {
    ringspun::run(move || -> std::io::Result<()> {
        let stream = tls::connect_with(address, &config)?;
        let sent = vec![7; 100_000];
        let (stream, data) = (std::rc::Rc::new(stream), sent.clone());
        let writer = stream.clone();
        let writing = fibers::spawn(move || writer.write(&data).unwrap())?;
        let mut echo = vec![0; sent.len()];
        assert_eq!(stream.chunk(&mut echo)?, sent.len());
        assert!(echo == sent);
        writing.join().unwrap();
        Ok(())
    })
    .unwrap()
    .unwrap();
}

#[test]
fn the_echo_server_speaks_tls() {
    let scratch = ScratchFolder::new("serve-tls");
    let (chain, key) = (scratch.file("chain.pem"), scratch.file("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    std::fs::write(&chain, to_pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&key, to_pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    let server = Server::start(&["serve", "echo", "--tls", "127.0.0.1:0", "--cert", &chain, "--key", &key]);
    let roots = Roots::from_pem_file(&chain).unwrap();
    let config = ClientConfig::builder().roots(roots).server_name("localhost").build().unwrap();
    echoes(server.address.clone(), config);
}

#[test]
fn a_certificate_that_signs_itself_is_for_trials() {
    let server = Server::start(&["serve", "echo", "--tls", "127.0.0.1:0", "--self-signed"]);
    let config = ClientConfig::builder().dangerous_accept_any_certificate().build().unwrap();
    echoes(server.address.clone(), config);
    // Who verifies it refuses it.
    let stranger = Identity::self_signed(&["other"]).unwrap().certificate_pem();
    let config =
        ClientConfig::builder().roots(Roots::from_pem(stranger.as_bytes()).unwrap()).build().unwrap();
    let address = server.address.clone();
    let error = ringspun::run(move || tls::connect_with(address, &config).unwrap_err().to_string()).unwrap();
    assert!(error.contains("the peer's certificate is not trusted"), "{error}");
}

#[test]
fn flags_that_lack_something_are_refused() {
    for (arguments, expected) in [
        (&["--tls", "127.0.0.1:0"][..], "expected --cert FILE and --key FILE, or --self-signed"),
        (
            &["--tls", "127.0.0.1:0", "--cert", "/nonexistent", "--key", "/nonexistent"],
            "cannot read /nonexistent",
        ),
        // It has no end.
        (&["--tls", "127.0.0.1:0", "--cert", "/dev/zero", "--key", "/dev/zero"], "/dev/zero: longer than"),
        (&["--tcp", "127.0.0.1:0", "--cert", "x", "--key", "y"], "--tls <HOST:PORT>"),
        (&["--tls", "127.0.0.1:0", "--cert", "x"], "--key <FILE>"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringspun")).args(["serve", "echo"]).args(arguments).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(expected), "{text:?} lacks {expected:?}");
    }
}
