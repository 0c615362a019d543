//! The client's side: its configuration, connecting, and wrapping a stream.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ringspun_fibers::{self as fibers, BlockingError};
use ringspun_net::{self as net, OperationError, Peer, Stream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{Connection, DigitallySignedStruct, SignatureScheme};

use crate::error::text_of;
use crate::identity::{Identity, Roots, provider};
use crate::stream::TlsStream;
use crate::version::{Versions, check_protocols, supported};

/// What a client offers and expects. Cloning it is cheap; clones share the sessions that can be resumed.
///
/// # Examples
///
/// ```no_run
/// use ringspun_tls::{ClientConfig, Identity, Roots};
///
/// let config = ClientConfig::builder()
///     .roots(Roots::from_pem_file("authority.pem")?)
///     .identity(Identity::from_pem_files("me.pem", "me.key")?)
///     .alpn(["h2", "http/1.1"])
///     .build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    inner: Arc<rustls::ClientConfig>,
    server_name: Option<String>,
}

/// Collects the settings of a [`ClientConfig`].
#[derive(Clone, Debug)]
pub struct ClientConfigBuilder {
    roots: Option<Roots>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
    resumes: bool,
    versions: Versions,
    accepts_any_certificate: bool,
}

impl ClientConfig {
    /// The defaults: TLS 1.2 and 1.3, the system's roots, the name of the host checked, no certificate of ours, no
    /// ALPN, sessions resumed.
    pub fn builder() -> ClientConfigBuilder {
        ClientConfigBuilder {
            roots: None,
            identity: None,
            alpn: Vec::new(),
            server_name: None,
            resumes: true,
            versions: Versions::default(),
            accepts_any_certificate: false,
        }
    }

    /// The session of a new connection to a host, for machines.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the name is neither a host name nor a numeric address.
    pub fn connection(&self, host: &str) -> io::Result<Connection> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let Ok(name) = ServerName::try_from(name.to_string()) else {
            let text =
                format!("{name:?} is not a host name or an address, with which to check a certificate");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        match ClientConnection::new(self.inner.clone(), name) {
            Ok(connection) => Ok(Connection::Client(connection)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, text_of(&error))),
        }
    }
}

impl ClientConfigBuilder {
    /// Trusts these authorities instead of the system's.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Presents this certificate to servers that ask for one.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Offers these protocols (ALPN), the preferred one first. A server that knows ALPN and none of them refuses.
    pub fn alpn<'a>(mut self, protocols: impl IntoIterator<Item = &'a str>) -> Self {
        self.alpn = protocols.into_iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// The name to ask for (SNI) and to check, in place of the host that is connected to.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Whether to resume sessions, which saves the signatures of a full handshake. On by default.
    pub fn resumption(mut self, resumes: bool) -> Self {
        self.resumes = resumes;
        self
    }

    /// The versions of TLS to offer. Both by default.
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Accepts whatever certificate the server presents, for whatever name: **anyone on the way can read and change
    /// everything**. For trials on machines of one's own. Signatures of the handshake are still checked.
    pub fn dangerous_accept_any_certificate(mut self) -> Self {
        self.accepts_any_certificate = true;
        self
    }

    /// The configuration. Reads the system's roots unless told of others, which blocks the thread for some
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// Those of [`Roots::system`]; `InvalidInput` for a protocol whose name is empty, or has more than 255 bytes.
    pub fn build(self) -> io::Result<ClientConfig> {
        check_protocols(&self.alpn)?;
        let provider = provider();
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(supported(self.versions))
            .map_err(invalid)?
            .dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = match self.accepts_any_certificate {
            true => Arc::new(AnyCertificate(provider)),
            false => {
                let roots = self.roots.map_or_else(Roots::system, Ok)?;
                WebPkiServerVerifier::builder_with_provider(roots.store().clone(), provider)
                    .build()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?
            }
        };
        let builder = builder.with_custom_certificate_verifier(verifier);
        let mut inner = match self.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(identity.key().clone()),
            )),
            None => builder.with_no_client_auth(),
        };
        inner.alpn_protocols = self.alpn;
        if !self.resumes {
            inner.resumption = Resumption::disabled();
        }
        #[cfg(feature = "simulation")]
        crate::simulation::change_client(&mut inner);
        Ok(ClientConfig { inner: Arc::new(inner), server_name: self.server_name })
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text_of(&error))
}

/// Accepts every certificate, and checks signatures.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects to a server and performs the handshake, with the default [`ClientConfig`], which all threads of the process
/// share. The certificate must be for the host of the address.
///
/// # Errors
///
/// As [`net::connect`]; [`TlsError`](crate::TlsError); those of [`Roots::system`]; `InvalidInput` for a Unix socket,
/// whose server has no name: use [`connect_with`].
///
/// # Panics
///
/// As [`net::connect`].
///
/// # Examples
///
/// ```no_run
/// use ringspun_fibers as fibers;
/// use ringspun_tls as tls;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let stream = tls::connect("example.org:443")?;
///     stream.write(b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")?;
///     std::io::copy(&mut &stream, &mut std::io::stdout())?;
///     Ok(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn connect(address: impl Peer) -> io::Result<TlsStream> {
    let endpoint = address.endpoint()?;
    connect_with(&endpoint, &default_config()?)
}

/// As [`connect`], with a configuration.
///
/// # Errors
///
/// As [`connect`]. A Unix socket needs [`ClientConfigBuilder::server_name`].
///
/// # Panics
///
/// As [`net::connect`].
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let identity = Identity::self_signed(&["localhost"])?;
///     let roots = Roots::from_pem(identity.certificate_pem().as_bytes())?;
///     let server = tls::server("localhost:0", &ServerConfig::builder().identity(identity).build()?, |stream| {
///         stream.write(b"hello").unwrap();
///     })?;
///     let config = ClientConfig::builder().roots(roots).build()?;
///     let port = server.localname()?.port().unwrap();
///     let client = tls::connect_with(("localhost", port), &config)?;
///     let mut greeting = [0; 5];
///     client.chunk(&mut greeting)?;
///     assert_eq!(&greeting, b"hello");
///     assert_eq!(client.key_exchange().as_deref(), Some("X25519MLKEM768"));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn connect_with(address: impl Peer, config: &ClientConfig) -> io::Result<TlsStream> {
    let endpoint = address.endpoint()?;
    let host = endpoint.host().unwrap_or_default();
    // Before there is a connection.
    let connection =
        config.connection(&host).map_err(|error| OperationError::wrap("connect to", &endpoint, error))?;
    TlsStream::handshake(net::connect(&endpoint)?, connection)
}

/// Begins TLS, as a client, on a stream that has been used before: STARTTLS. `host` is the name that the certificate
/// must be for. Bytes that have arrived and that nobody has read belong to the handshake;
/// [`Stream::put_back`] returns those that were read too early.
///
/// # Errors
///
/// As [`connect`]; the stream is closed then.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
/// use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let identity = Identity::self_signed(&["mail.example"])?;
///     let roots = Roots::from_pem(identity.certificate_pem().as_bytes())?;
///     let config = ServerConfig::builder().identity(identity).build()?;
///     let server = net::server("127.0.0.1:0", move |stream| {
///         let mut line = [0; 9];
///         stream.chunk(&mut line).unwrap();
///         stream.write(b"OK\n").unwrap();
///         let stream = tls::accept(stream, &config).unwrap();
///         stream.write(b"secret").unwrap();
///     })?;
///     let stream = net::connect(server.localname()?)?;
///     stream.write(b"STARTTLS\n")?;
///     let mut answer = [0; 3];
///     stream.chunk(&mut answer)?;
///     let stream = tls::wrap(stream, "mail.example", &ClientConfig::builder().roots(roots).build()?)?;
///     let mut secret = [0; 6];
///     stream.chunk(&mut secret)?;
///     assert_eq!(&secret, b"secret");
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn wrap(stream: Stream, host: &str, config: &ClientConfig) -> io::Result<TlsStream> {
    TlsStream::handshake(stream, config.connection(host)?)
}

/// The default configuration, made by another thread when it is first asked for, as it reads files.
fn default_config() -> io::Result<ClientConfig> {
    static DEFAULT: Mutex<Option<ClientConfig>> = Mutex::new(None);
    let held = || DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = &*held() {
        return Ok(config.clone());
    }
    let built = match fibers::blocking(|| ClientConfig::builder().build()) {
        Ok(built) => built?,
        Err(BlockingError::Interrupted(interrupt)) => return Err(interrupt.into()),
        Err(BlockingError::Unavailable(error)) => return Err(error),
        Err(_) => return Err(io::Error::other("reading the system's root certificates failed")),
    };
    // Another fiber may have been faster; its sessions are kept.
    Ok(held().get_or_insert(built).clone())
}
