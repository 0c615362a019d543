//! Bytes that a peer sends to either side of TLS: before, in and after the handshake.

use std::io;
use std::net::Shutdown;
use std::sync::OnceLock;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Stream};
use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig, TlsStream};

/// Only a hang takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who gets the input.
#[derive(Clone, Copy)]
enum Victim {
    Server,
    Client,
    /// A client whose handshake is complete.
    Session,
}

/// The first byte says who gets the rest; its upper bits, in pieces of which size.
pub fn check(data: &[u8]) {
    let Some((first, input)) = data.split_first() else { return };
    let victim = [Victim::Server, Victim::Client, Victim::Session][usize::from(first % 3)];
    let (piece_bytes, input) = (1 + usize::from(first >> 2) * 20, input.to_vec());
    let checked = fibers::run(move || fibers::with_deadline(DEADLINE, || attack(victim, piece_bytes, input)));
    checked.expect("a runtime").expect("sockets of this machine");
}

fn attack(victim: Victim, piece_bytes: usize, input: Vec<u8>) -> io::Result<()> {
    let (client, server) = configs();
    let listener = net::listen("127.0.0.1:0")?;
    let near = net::connect(listener.localname()?)?;
    let far = listener.accept()?;
    let error = match victim {
        Victim::Server => {
            send(near, piece_bytes, input)?;
            tls::accept(far, server).err()
        }
        Victim::Client => {
            send(far, piece_bytes, input)?;
            tls::wrap(near, "localhost", client).err()
        }
        Victim::Session => {
            let accepting = fibers::spawn(move || tls::accept(far, server))?;
            let session = tls::wrap(near, "localhost", client)?;
            let peer = accepting.join()??;
            peer.core().stream().send_detached(&input)?;
            peer.core().stream().close();
            read_to_the_end(&session).err()
        }
    };
    // Nobody can have made a valid handshake, or a record with keys that are not known.
    let error = error.expect("arbitrary bytes are not accepted");
    assert!(tls::tls_error_of(&error).is_some() || net::errno_of(&error).is_some(), "{error}");
    Ok(())
}

/// Sends everything in pieces and ends, in a fiber of its own.
fn send(stream: Stream, piece_bytes: usize, input: Vec<u8>) -> io::Result<()> {
    fibers::spawn(move || {
        for piece in input.chunks(piece_bytes) {
            if stream.write(piece).is_err() {
                // The victim has closed.
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        while let Ok(Some(_)) = stream.receive() {}
    })?;
    Ok(())
}

fn read_to_the_end(stream: &TlsStream) -> io::Result<()> {
    while stream.receive()?.is_some() {}
    Ok(())
}

fn configs() -> &'static (ClientConfig, ServerConfig) {
    static CONFIGS: OnceLock<(ClientConfig, ServerConfig)> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let identity = Identity::self_signed(&["localhost"]).expect("a certificate");
        let roots = Roots::from_pem(identity.certificate_pem().as_bytes()).expect("its roots");
        let client = ClientConfig::builder().roots(roots).build().expect("a client");
        (client, ServerConfig::builder().identity(identity).build().expect("a server"))
    })
}
