//! A proxy that speaks TLS with clients and plain TCP with the target, on every core.
//!
//! ```sh
//! cargo run --release --example tls_proxy -- [TARGET [LISTEN [CERTIFICATE KEY]]]    # 127.0.0.1:8080, 127.0.0.1:8443
//! curl --insecure https://127.0.0.1:8443/
//! ```
//!
//! Without a certificate it makes one that signs itself, for trials. Each direction is a fiber, and both end together:
//! the end of one is passed on by a half-close, and the other goes on. SIGTERM and SIGINT end the proxy: it accepts no
//! more, and gives the connections some time. SIGHUP has it read certificate and key again, for new connections.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringspun::fibers::{self, Signal, Signals};
use ringspun::net::{self, Endpoint, Peer};
use ringspun::tls::{self, Identity, ServerConfig, TlsStream};

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A client that neither sends nor takes anything for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(600);
const END_MAX: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 16 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_proxy: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize| arguments.get(index).map(String::as_str);
    if !matches!(arguments.len(), 0..=2 | 4) {
        let text = "expected at most: [TARGET [LISTEN [CERTIFICATE KEY]]]";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let target = argument(0).unwrap_or("127.0.0.1:8080").endpoint()?;
    let place = argument(1).unwrap_or("127.0.0.1:8443").endpoint()?;
    let identity = || match (argument(2), argument(3)) {
        (Some(certificate), Some(key)) => Identity::from_pem_files(certificate, key),
        _ => Identity::self_signed(&["localhost", "127.0.0.1"]),
    };
    let config =
        ServerConfig::builder().identity(identity()?).handshake_timeout(Some(HANDSHAKE_MAX)).build()?;
    let signals = Signals::new(&[Signal::TERM, Signal::INT, Signal::HUP])?;
    let server = tls::serve(place, &config, move |client| {
        if let Err(error) = serve(&client, &target) {
            eprintln!("tls_proxy: {error}");
        }
    })?;
    println!("listening at {}", server.addresses()[0]);
    let signals = std::sync::Arc::new(signals);
    loop {
        let waiting = signals.clone();
        if ringspun::run(move || waiting.wait())?? != Signal::HUP {
            return server.drain(END_MAX).map(drop);
        }
        match identity().and_then(|identity| config.set_identities([identity])) {
            Ok(()) => eprintln!("tls_proxy: has a new certificate"),
            Err(error) => eprintln!("tls_proxy: keeps the old certificate: {error}"),
        }
    }
}

fn serve(client: &TlsStream, target: &Endpoint) -> Result<()> {
    let target = fibers::timeout(CONNECT_MAX, || net::connect(target))??;
    client.set_read_timeout(Some(IDLE_MAX));
    target.set_read_timeout(Some(IDLE_MAX));
    client.set_write_timeout(Some(IDLE_MAX));
    target.set_write_timeout(Some(IDLE_MAX));
    let moved = Cell::new(fibers::now());
    // Ends of the output fail only where the connection has ended.
    fibers::scope(|scope| {
        let there = scope.spawn(|| {
            let carried = carry(client, &target, &moved);
            if carried.is_err() {
                target.close()
            } else {
                drop(target.shutdown(Shutdown::Write))
            }
            carried
        })?;
        let carried = carry(&target, client, &moved);
        if carried.is_err() {
            client.close()
        } else {
            drop(client.shutdown(Shutdown::Write))
        }
        there.join()?.and(carried)
    })
}

/// Carries bytes in one direction until their end.
fn carry(mut from: impl Read, mut to: impl Write, moved: &Cell<Instant>) -> Result<()> {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&bytes[..count])?;
                moved.set(fibers::now());
            }
            // The other direction may be busy.
            Err(error) if error.kind() == ErrorKind::TimedOut && fibers::now() - moved.get() < IDLE_MAX => {}
            Err(error) => return Err(error),
        }
    }
}
