//! Shared by the tests: an authority of their own, a runtime that has to end with nothing left, both ends of a stream.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ringspun_fibers as fibers;
use ringspun_net::{self as net, Stream};
use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig, TlsStream};

/// Only a hang takes this long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Runs `test` in a runtime, and checks that nothing is left when it ends.
pub fn run(test: impl FnOnce() -> io::Result<()> + 'static) {
    fibers::run(move || {
        fibers::with_deadline(DEADLINE, test)?;
        // What was dropped is closed once its operations have ended.
        while fibers::event_loop().unwrap().statistics().operations_in_flight > 0
            || fibers::statistics().unwrap().alive > 1
        {
            fibers::sleep(Duration::from_millis(1))?;
        }
        let left = fibers::event_loop().unwrap().statistics();
        assert_eq!((left.timers, left.buffers_lent), (0, 0));
        io::Result::Ok(())
    })
    .unwrap()
    .unwrap();
}

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Another authority that this one has signed.
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let pem = pem("CERTIFICATE", params.signed_by(&key, &self.issuer).unwrap().der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).unwrap()
    }

    /// A certificate for these names, as `change` changes it.
    pub fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = pem("CERTIFICATE", params.signed_by(&key, &self.issuer).unwrap().der());
        Pair { chain, key: pem("PRIVATE KEY", &key.serialize_der()) }
    }

    pub fn identity(&self, names: &[&str]) -> Identity {
        self.sign(names, |_| {}).identity()
    }

    /// The usual configurations: a server for "localhost", and a client that trusts it.
    pub fn configs(&self) -> (ClientConfig, ServerConfig) {
        let server = ServerConfig::builder().identity(self.identity(&["localhost"])).build().unwrap();
        (ClientConfig::builder().roots(self.roots()).build().unwrap(), server)
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// What is in PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = der.chunks(48).map(|line| STANDARD.encode(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Both ends of a connection, before TLS.
pub fn plain_pair() -> io::Result<(Stream, Stream)> {
    let listener = net::listen("127.0.0.1:0")?;
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

/// The result of a handshake on both ends.
pub fn shake(
    client: &ClientConfig,
    server: &ServerConfig,
) -> io::Result<(io::Result<TlsStream>, io::Result<TlsStream>)> {
    let (left, right) = plain_pair()?;
    let server = server.clone();
    let accepting = fibers::spawn(move || tls::accept(right, &server))?;
    let connected = tls::wrap(left, "localhost", client);
    Ok((connected, accepting.join().unwrap()))
}

/// Both ends of a session.
pub fn pair(client: &ClientConfig, server: &ServerConfig) -> io::Result<(TlsStream, TlsStream)> {
    let (connected, accepted) = shake(client, server)?;
    Ok((connected?, accepted?))
}

/// Bytes that tell where they stand in the stream.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Reads to the end.
pub fn read_all(stream: &TlsStream) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 20_000]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}
