//! The server's side: its configuration, listening, and accepting.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, Listener, Peer, Server, ServerBuilder, Stream};
use rustls::Connection;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConnection, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use crate::error::text_of;
use crate::identity::{Identity, Roots, provider};
use crate::stream::TlsStream;
use crate::version::{Versions, check_protocols, supported};
use crate::waiting::within;

/// How long a handshake may take unless told otherwise.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server presents and accepts. Cloning it is cheap; clones share certificates and the keys of tickets.
///
/// # Examples
///
/// ```no_run
/// use ringspun_tls::{ClientAuth, Identity, Roots, ServerConfig};
///
/// let config = ServerConfig::builder()
///     .identity(Identity::from_pem_files("example.org.pem", "example.org.key")?)
///     .identity(Identity::from_pem_files("example.com.pem", "example.com.key")?) // chosen by the name (SNI)
///     .client_auth(ClientAuth::Required, Roots::from_pem_file("clients.pem")?)
///     .alpn(["http/1.1"])
///     .build()?;
/// // Later, when the certificates have been renewed:
/// config.set_identities([Identity::from_pem_files("example.org.pem", "example.org.key")?])?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerConfig {
    inner: Arc<rustls::ServerConfig>,
    identities: Arc<Identities>,
    handshake_timeout: Option<Duration>,
}

/// Whether clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// One without a certificate is refused.
    Required,
    /// One without is accepted; one that presents a certificate that is not trusted is refused.
    Optional,
}

/// Collects the settings of a [`ServerConfig`].
#[derive(Clone, Debug)]
pub struct ServerConfigBuilder {
    identities: Vec<Identity>,
    client_auth: Option<(ClientAuth, Roots)>,
    alpn: Vec<Vec<u8>>,
    resumes: bool,
    versions: Versions,
    handshake_timeout: Option<Duration>,
}

impl ServerConfig {
    /// The defaults: TLS 1.2 and 1.3, no certificates of clients, no ALPN, sessions resumed by tickets, 30 seconds for
    /// a handshake.
    pub fn builder() -> ServerConfigBuilder {
        ServerConfigBuilder {
            identities: Vec::new(),
            client_auth: None,
            alpn: Vec::new(),
            resumes: true,
            versions: Versions::default(),
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }

    /// Replaces the certificates, for handshakes that begin from now on: without a restart, after renewal. May be
    /// called from any thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there are none; those before stay then.
    pub fn set_identities(&self, identities: impl IntoIterator<Item = Identity>) -> io::Result<()> {
        let identities: Vec<Identity> = identities.into_iter().collect();
        if identities.is_empty() {
            return Err(without_identity());
        }
        *self.identities.0.write().unwrap_or_else(PoisonError::into_inner) = identities.into();
        Ok(())
    }

    /// The session of a new connection, for machines.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn connection(&self) -> io::Result<Connection> {
        let connection = ServerConnection::new(self.inner.clone());
        connection.map(Connection::Server).map_err(|error| io::Error::other(text_of(&error)))
    }
}

fn without_identity() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a TLS server needs a certificate and its key")
}

impl ServerConfigBuilder {
    /// Adds a certificate. Of several, the first that is for the name that a client asks for (SNI), with a kind of key
    /// that it accepts; otherwise the first of all.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Asks clients for certificates that one of these authorities has signed.
    pub fn client_auth(mut self, client_auth: ClientAuth, roots: Roots) -> Self {
        self.client_auth = Some((client_auth, roots));
        self
    }

    /// Accepts these protocols (ALPN), the preferred one first. A client that offers others only is refused; one that
    /// offers none is not.
    pub fn alpn<'a>(mut self, protocols: impl IntoIterator<Item = &'a str>) -> Self {
        self.alpn = protocols.into_iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Whether clients may resume sessions, by tickets that are encrypted with a key that lives in memory only, and is
    /// replaced every six hours. On by default.
    pub fn resumption(mut self, resumes: bool) -> Self {
        self.resumes = resumes;
        self
    }

    /// The versions of TLS to accept. Both by default.
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// How long a handshake may take before the connection is closed; `None` for no limit. 30 seconds by default.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// `InvalidInput` without an [`identity`](Self::identity), and for a protocol whose name is empty, or has more than
    /// 255 bytes; if the system has no random numbers.
    pub fn build(self) -> io::Result<ServerConfig> {
        check_protocols(&self.alpn)?;
        if self.identities.is_empty() {
            return Err(without_identity());
        }
        let failed = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidInput, text_of(&error));
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(supported(self.versions))
            .map_err(failed)?;
        let builder = match self.client_auth {
            None => builder.with_no_client_auth(),
            Some((client_auth, roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.store().clone(), provider());
                let verifier = match client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                let built = verifier.build();
                builder.with_client_cert_verifier(
                    built.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?,
                )
            }
        };
        let identities = Arc::new(Identities(RwLock::new(self.identities.into())));
        let mut inner = builder.with_cert_resolver(identities.clone());
        inner.alpn_protocols = self.alpn;
        if self.resumes {
            inner.ticketer = Ticketer::new().map_err(failed)?;
        } else {
            inner.session_storage = Arc::new(NoServerSessionStorage {});
            inner.send_tls13_tickets = 0;
        }
        #[cfg(feature = "simulation")]
        crate::simulation::change_server(&mut inner);
        Ok(ServerConfig { inner: Arc::new(inner), identities, handshake_timeout: self.handshake_timeout })
    }
}

/// The certificates that a server has at present.
struct Identities(RwLock<Arc<[Identity]>>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identities = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let suits = |identity: &&Identity| {
            identity.key().key.choose_scheme(hello.signature_schemes()).is_some()
                && name.as_ref().is_none_or(|name| identity.is_for(name))
        };
        let chosen = match &*identities {
            [only] => Some(only),
            several => several.iter().find(suits).or(several.first()),
        };
        chosen.map(|identity| identity.key().clone())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}

/// A listening socket whose connections speak TLS, from [`listen`] or [`server`]. Dropping it closes it.
#[derive(Debug)]
pub struct TlsListener {
    listener: Listener,
    config: ServerConfig,
}

/// Listens as [`net::listen`] does, for connections that speak TLS.
///
/// # Errors
///
/// As there.
///
/// # Panics
///
/// As there.
pub fn listen(address: impl Peer, config: &ServerConfig) -> io::Result<TlsListener> {
    Ok(TlsListener { listener: net::listen(address)?, config: config.clone() })
}

/// Listens at an address, and serves each connection by `handler` in a fiber of its own, in the background, once its
/// handshake is complete: [`listen`], and [`TlsListener::accept_loop`] in a fiber.
///
/// That fiber also holds the listener: it serves until [`TlsListener::close`] or the end of the runtime.
///
/// # Errors
///
/// As [`net::server`].
///
/// # Panics
///
/// As [`net::server`].
pub fn server(
    address: impl Peer,
    config: &ServerConfig,
    handler: impl Fn(TlsStream) + 'static,
) -> io::Result<Rc<TlsListener>> {
    let listener = Rc::new(listen(address, config)?);
    let accepting = listener.clone();
    fibers::spawn(move || match accepting.accept_loop(handler) {
        Err(error) if net::interrupt_of(&error).is_none() => {
            tracing::error!(%error, "a server stopped accepting");
        }
        // Closed, or cancelled at the end of the runtime.
        _ => {}
    })?;
    Ok(listener)
}

/// Performs the server's side of a handshake on a stream, which may have been used before (STARTTLS): bytes that have
/// arrived and that nobody has read belong to the handshake, and [`Stream::put_back`] returns those that were read too
/// early.
///
/// # Errors
///
/// The stream's; [`TlsError`](crate::TlsError); `TimedOut` after the
/// [timeout](ServerConfigBuilder::handshake_timeout). The stream is closed then.
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
/// use ringspun_tls::{self as tls, Identity, ServerConfig};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let config = ServerConfig::builder().identity(Identity::self_signed(&["localhost"])?).build()?;
///     let others = tls::Roots::from_pem(Identity::self_signed(&["other"])?.certificate_pem().as_bytes())?;
///     let listener = net::listen("127.0.0.1:0")?;
///     let address = listener.localname()?;
///     let client = tls::ClientConfig::builder().roots(others).build()?;
///     fibers::spawn(move || {
///         let error = tls::connect_with(address, &client).unwrap_err();
///         assert!(error.to_string().contains("not trusted"), "{error}");
///     })?;
///     let error = tls::accept(listener.accept()?, &config).unwrap_err();
///     assert!(error.to_string().contains("does not trust the authority"), "{error}");
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn accept(stream: Stream, config: &ServerConfig) -> io::Result<TlsStream> {
    let connection = config.connection()?;
    within(config.handshake_timeout, || TlsStream::handshake(stream, connection))
}

/// Serves each connection at an address by a clone of `handler` once its handshake is complete, as [`net::serve`] does:
/// on every core, from the handshake to the end on one worker.
///
/// # Errors
///
/// As [`net::serve`].
///
/// # Panics
///
/// As [`net::serve`].
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
///
/// let identity = Identity::self_signed(&["localhost"])?;
/// let trusted = Roots::from_pem(identity.certificate_pem().as_bytes())?;
/// let server = tls::serve("localhost:0", &ServerConfig::builder().identity(identity).build()?, |stream| {
///     while let Ok(Some(bytes)) = stream.receive() {
///         if stream.write(&bytes).is_err() {
///             break;
///         }
///     }
/// })?;
/// let port = server.addresses()[0].port().unwrap();
/// fibers::run(move || -> std::io::Result<()> {
///     let client = ClientConfig::builder().roots(trusted).build()?;
///     let client = tls::connect_with(("localhost", port), &client)?;
///     client.write(b"hello")?;
///     assert_eq!(client.receive()?.unwrap(), b"hello");
///     Ok(())
/// })?
/// # ; Ok::<(), std::io::Error>(())
/// ```
pub fn serve(
    address: impl Peer,
    config: &ServerConfig,
    handler: impl Fn(TlsStream) + Send + Clone + 'static,
) -> io::Result<Server> {
    ServerBuilder::new().serve(address, self::handler(config, handler)).start()
}

/// A handler of plain connections that performs the handshake and has `handler` serve what comes of it, for
/// [`ServerBuilder::serve`]. A connection whose handshake fails is closed, with a line at the level `DEBUG`.
pub fn handler<H: Fn(TlsStream) + Clone>(
    config: &ServerConfig,
    handler: H,
) -> impl Fn(Stream) + Clone + use<H> {
    let config = config.clone();
    move |stream| accept_for(&handler, stream, &config)
}

fn accept_for(handler: impl Fn(TlsStream), stream: Stream, config: &ServerConfig) {
    match accept(stream, config) {
        Ok(stream) => handler(stream),
        Err(error) => tracing::debug!(%error, "a handshake failed"),
    }
}

impl TlsListener {
    /// Parks until a connection arrives, performs its handshake, and returns it. While that takes, no other connection
    /// is accepted: servers use [`accept_loop`](Self::accept_loop).
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`], and as [`accept`].
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn accept(&self) -> io::Result<TlsStream> {
        accept(self.listener.accept()?, &self.config)
    }

    /// Accepts connections until the listener is closed, as [`Listener::accept_loop`] does. Each gets a fiber of its
    /// own, which performs the handshake and then runs `handler`. A connection whose handshake fails is closed, with a
    /// line at the level `DEBUG`.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn accept_loop(&self, handler: impl Fn(TlsStream) + 'static) -> io::Result<()> {
        let config = self.config.clone();
        self.listener.accept_loop(move |stream| accept_for(&handler, stream, &config))
    }

    /// The address that the listener is bound to (`getsockname(2)`).
    ///
    /// # Errors
    ///
    /// As [`Listener::localname`].
    pub fn localname(&self) -> io::Result<Address> {
        self.listener.localname()
    }

    /// Closes the listener, as [`Listener::close`] does.
    pub fn close(&self) {
        self.listener.close();
    }
}
