//! Certificates with their private keys, and roots, from PEM.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "self-signed")]
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, server::ParsedCertificate};

use crate::error::{text_of, text_of_certificate};

/// The longest file that is read.
const PEM_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A chain of certificates, the own one first, and its private key. The key stays in memory of the process until the
/// last configuration and session that use it are dropped; it is never shown.
///
/// # Examples
///
/// ```no_run
/// let identity = ringspun_tls::Identity::from_pem_files("server.pem", "server.key")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the chain from one file and the key from another, or both from the same, in PEM.
    ///
    /// Blocks the thread, as programs read their certificates when they start.
    ///
    /// # Errors
    ///
    /// The kernel's, with the path; `InvalidData` with what is wrong: no certificate or key in the file, one that
    /// cannot be parsed, an encrypted key, a key that does not belong to the certificate, or a file longer than 16 MiB.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let (chain_name, key_name) = (certificates.display(), key.display());
        Self::build(&read(certificates)?, &chain_name, &read(key)?, &key_name)
    }

    /// As [`from_pem_files`](Self::from_pem_files), from memory.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> io::Result<Self> {
        Self::build(certificates, &"the certificate", key, &"the private key")
    }

    fn build(
        certificates: &[u8],
        chain_name: &dyn fmt::Display,
        key: &[u8],
        key_name: &dyn fmt::Display,
    ) -> io::Result<Self> {
        let chain = certificates_of(certificates, chain_name)?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(_) if contains(key, b"ENCRYPTED") => {
                return invalid(format!("{key_name}: the key is encrypted; `openssl pkey` decrypts it"));
            }
            Err(error) => return invalid(format!("{key_name}: no private key in PEM: {error}")),
        };
        let signing_key = match provider().key_provider.load_private_key(key) {
            Ok(key) => key,
            Err(error) => return invalid(format!("{key_name}: {}", text_of(&error))),
        };
        let key = CertifiedKey::new(chain, signing_key);
        match key.keys_match() {
            // Some kinds of keys cannot tell.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InvalidCertificate(error)) => {
                return invalid(format!("{chain_name}: {}", text_of_certificate("the certificate", &error)));
            }
            Err(error) => return invalid(format!("{chain_name}, {key_name}: {}", text_of(&error))),
        }
        Ok(Self { key: Arc::new(key) })
    }

    /// A certificate for these host names or addresses, which signs itself: for tests and trials, where the peer trusts
    /// it as a root ([`certificate_pem`](Self::certificate_pem)) or does not look.
    ///
    /// # Errors
    ///
    /// If a name is not valid.
    ///
    /// # Examples
    ///
    /// ```
    /// let identity = ringspun_tls::Identity::self_signed(&["localhost", "127.0.0.1"])?;
    /// assert!(identity.certificate_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "self-signed")]
    pub fn self_signed(names: &[&str]) -> io::Result<Self> {
        let (chain, key) = Self::self_signed_pem(names)?;
        Self::from_pem(chain.as_bytes(), key.as_bytes())
    }

    /// As [`self_signed`](Self::self_signed): the certificate and its key, in PEM, to be kept in files.
    ///
    /// # Errors
    ///
    /// As there.
    #[cfg(feature = "self-signed")]
    pub fn self_signed_pem(names: &[&str]) -> io::Result<(String, String)> {
        let make = || {
            let mut params =
                CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?;
            // Two such certificates are not each other's authority.
            params
                .distinguished_name
                .push(DnType::CommonName, format!("signed by itself for {}", names.join(" ")));
            let key = KeyPair::generate()?;
            Ok((params.self_signed(&key)?, key.serialize_der()))
        };
        match make() {
            Ok((certificate, key)) => {
                Ok((to_pem("CERTIFICATE", certificate.der()), to_pem("PRIVATE KEY", &key)))
            }
            Err::<_, rcgen::Error>(error) => invalid(format!("a certificate that signs itself: {error}")),
        }
    }

    /// The chain in PEM, without the key.
    pub fn certificate_pem(&self) -> String {
        self.key.cert.iter().map(|certificate| to_pem("CERTIFICATE", certificate)).collect()
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whether the certificate is for this host name.
    pub(crate) fn is_for(&self, name: &ServerName<'_>) -> bool {
        let first = self.key.cert.first().and_then(|first| ParsedCertificate::try_from(first).ok());
        first.is_some_and(|first| rustls::client::verify_server_name(&first, name).is_ok())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity {{ certificates: {} }}", self.key.cert.len())
    }
}

/// Certificates of authorities that are trusted to sign those of peers.
///
/// # Examples
///
/// ```
/// let system = ringspun_tls::Roots::system();
/// assert!(system.is_ok() || system.is_err_and(|error| error.to_string().contains("no trusted root")));
/// ```
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Those of the system: from where OpenSSL has them, or from the file and folder that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name. Reads some hundred files: blocks the thread for some milliseconds.
    ///
    /// # Errors
    ///
    /// If there are none, with what was wrong. Single files that cannot be read or parsed are skipped.
    pub fn system() -> io::Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        if !store.is_empty() {
            return Ok(Self { store: Arc::new(store) });
        }
        let reasons: Vec<String> = found.errors.iter().map(|error| format!(": {error}")).collect();
        let text =
            "no trusted root certificates on this system; install ca-certificates, or set SSL_CERT_FILE";
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{text}{}", reasons.concat())))
    }

    /// Those in a file, in PEM.
    ///
    /// # Errors
    ///
    /// The kernel's, with the path; `InvalidData` if there is none, one that cannot be a root, or more than 16 MiB.
    pub fn from_pem_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Self::build(&read(path)?, &path.display())
    }

    /// As [`from_pem_file`](Self::from_pem_file), from memory.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_pem(certificates: &[u8]) -> io::Result<Self> {
        Self::build(certificates, &"the roots")
    }

    fn build(certificates: &[u8], name: &dyn fmt::Display) -> io::Result<Self> {
        let mut store = RootCertStore::empty();
        for certificate in certificates_of(certificates, name)? {
            if let Err(error) = store.add(certificate) {
                return invalid(format!("{name}: not a root certificate: {}", text_of(&error)));
            }
        }
        Ok(Self { store: Arc::new(store) })
    }

    pub(crate) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots {{ certificates: {} }}", self.store.len())
    }
}

/// The cryptography: AWS-LC, with X25519MLKEM768 as the first key exchange to offer.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "simulation")]
    if let Some(provider) = crate::simulation::provider() {
        return provider;
    }
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates_of(pem: &[u8], name: &dyn fmt::Display) -> io::Result<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => {
            invalid(format!("{name}: no certificate in PEM (-----BEGIN CERTIFICATE-----)"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => invalid(format!("{name}: a certificate cannot be read: {error}")),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    // One byte more reveals an excess: some files never end.
    let mut file = File::open(path).map_err(failed)?.take(PEM_MAX_BYTES as u64 + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > PEM_MAX_BYTES {
        return invalid(format!(
            "{}: longer than {PEM_MAX_BYTES} bytes: expected certificates or a key",
            path.display()
        ));
    }
    Ok(bytes)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn invalid<T>(text: String) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// What is in PEM (RFC 7468): lines of 64 letters of base64.
fn to_pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = der.chunks(48).map(|line| STANDARD.encode(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
