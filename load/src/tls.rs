//! How the generator speaks TLS.

use std::fmt;
use std::io;

use ringspun_tls::{ClientConfig, Identity, Roots};

/// How to speak TLS with the target, for `tls://` and `https://`.
///
/// # Examples
///
/// ```
/// use ringspun_load::{Plan, TlsOptions};
///
/// let mut plan = Plan::new("https://localhost:8443/".parse().unwrap());
/// plan.tls.alpn = vec!["http/1.1".to_string()];
/// assert_eq!(plan.check(), Ok(()));
/// let mut plain = Plan::new("http://localhost:8080/".parse().unwrap());
/// plain.tls = plan.tls;
/// assert!(plain.check().unwrap_err().contains("expected tls:// or https://"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Authorities to trust instead of the system's, in PEM.
    pub authorities_pem: Option<Vec<u8>>,
    /// A certificate chain to present, and its private key, in PEM.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Accept any certificate of the target, for any name.
    pub is_insecure: bool,
    /// Protocols to offer (ALPN), the preferred one first.
    pub alpn: Vec<String>,
    /// Whether connections resume the sessions of earlier ones. Off by default: each connection stands for a client of
    /// its own.
    pub resumes: bool,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        let (insecure, resumes) = (self.is_insecure, self.resumes);
        write!(f, "TlsOptions {{ alpn: {:?}, is_insecure: {insecure}, resumes: {resumes} }}", self.alpn)
    }
}

impl TlsOptions {
    /// The configuration, with the PEM texts parsed.
    ///
    /// `protocols` are offered if no others are asked for.
    pub(crate) fn config(&self, protocols: &[&str]) -> io::Result<ClientConfig> {
        let asked = self.alpn.iter().map(String::as_str);
        let mut builder = ClientConfig::builder();
        builder = match self.alpn.is_empty() {
            true => builder.alpn(protocols.iter().copied()),
            false => builder.alpn(asked),
        };
        builder = builder.resumption(self.resumes);
        if let Some(authorities) = &self.authorities_pem {
            builder = builder.roots(Roots::from_pem(authorities)?);
        }
        if let Some((chain, key)) = &self.identity_pem {
            builder = builder.identity(Identity::from_pem(chain, key)?);
        }
        if self.is_insecure {
            builder = builder.dangerous_accept_any_certificate();
        }
        builder.build()
    }
}
