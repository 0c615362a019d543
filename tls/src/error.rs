//! Errors of TLS, in words that say what is wrong with which certificate.

use std::fmt;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, PeerIncompatible};

/// Why a TLS session has failed. As an [`io::Error`], its kind is `UnexpectedEof` for the cuts, and `InvalidData`
/// otherwise; [`tls_error_of`] finds it in an error.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
/// use ringspun_tls as tls;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let server = net::server("127.0.0.1:0", |stream| {
///         stream.write(b"220 this is not TLS\r\n").unwrap();
///     })?;
///     let error = tls::connect(server.localname()?).unwrap_err();
///     assert!(matches!(tls::tls_error_of(&error), Some(tls::TlsError::Protocol(_))));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The connection ended without a close_notify: what came before may not be all that the peer has sent.
    Cut,
    /// The connection ended before the handshake was complete.
    HandshakeCut,
    /// The peer, or its certificate, is not as it must be; or it has refused us, by an alert.
    Protocol(Error),
}

impl TlsError {
    /// Whether the peer has sent an alert, and so has refused the connection.
    pub fn is_alert(&self) -> bool {
        self.alert().is_some()
    }

    /// The alert that the peer has sent.
    pub fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::Protocol(Error::AlertReceived(alert)) => Some(*alert),
            _ => None,
        }
    }

    /// What is wrong with the peer's certificate.
    pub fn certificate_error(&self) -> Option<&CertificateError> {
        match self {
            Self::Protocol(Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the connection was cut: it ended without a close_notify"),
            Self::HandshakeCut => f.write_str("the peer closed the connection during the TLS handshake"),
            Self::Protocol(error) => f.write_str(&text_of(error)),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match error {
            TlsError::Cut | TlsError::HandshakeCut => io::ErrorKind::UnexpectedEof,
            TlsError::Protocol(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// The error of TLS in an error of a [`TlsStream`](crate::TlsStream) or of a connect; `None` if it has another cause.
pub fn tls_error_of(error: &io::Error) -> Option<&TlsError> {
    let inner = error.get_ref()?;
    let wrapped = || inner.source()?.downcast_ref::<io::Error>().and_then(tls_error_of);
    inner.downcast_ref::<TlsError>().or_else(wrapped)
}

/// Whether the connection was cut: it ended without the peer's close_notify, so that what was read may be a part of
/// what the peer has sent.
pub fn is_cut(error: &io::Error) -> bool {
    matches!(tls_error_of(error), Some(TlsError::Cut | TlsError::HandshakeCut))
}

/// An error of rustls in words.
pub(crate) fn text_of(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => text_of_alert(*alert),
        Error::InvalidCertificate(error) => text_of_certificate("the peer's certificate", error),
        Error::InvalidMessage(_) => format!("what the peer sends is not TLS: {error}"),
        Error::NoCertificatesPresented => "the peer sent no certificate, and one is required".into(),
        Error::NoApplicationProtocol => "the peer and we have no protocol in common (ALPN)".into(),
        Error::PeerIncompatible(reason) => text_of_incompatible(reason),
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key does not belong to the first certificate of the chain".into()
        }
        error => error.to_string(),
    }
}

fn text_of_incompatible(reason: &PeerIncompatible) -> String {
    let text = match reason {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common",
        PeerIncompatible::NoKxGroupsInCommon => "no key exchange group in common",
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "no signature scheme in common: the certificate's kind of key does not suit the peer"
        }
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "it speaks neither TLS 1.2 nor 1.3 as configured here"
        }
        other => return format!("the peer's TLS is not compatible: {other:?}"),
    };
    format!("the peer's TLS is not compatible: {text}")
}

fn text_of_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let meaning = match alert {
        A::UnknownCA => "it does not trust the authority that signed our certificate",
        A::CertificateExpired => "our certificate has expired by its clock",
        A::CertificateRevoked => "our certificate is revoked",
        A::CertificateRequired => "it requires a certificate of ours, and got none",
        A::BadCertificate => "our certificate does not suit it: a wrong name, signature or purpose",
        A::CertificateUnknown => "it does not accept our certificate",
        A::UnsupportedCertificate => "our certificate is of a kind or for a purpose that it does not accept",
        A::AccessDenied => "our certificate is valid, but not allowed",
        A::UnrecognisedName => "it serves no host of this name",
        A::NoApplicationProtocol => "it has no protocol in common with us (ALPN)",
        A::ProtocolVersion => "it has no TLS version in common with us",
        A::HandshakeFailure => "it found no cipher suite, group or signature in common with us",
        A::DecryptError => "a signature or a finished message did not verify",
        A::InsufficientSecurity => "it demands stronger cryptography",
        A::DecodeError | A::UnexpectedMessage | A::IllegalParameter | A::RecordOverflow | A::BadRecordMac => {
            "it could not make sense of what it received"
        }
        A::InternalError => "it failed for reasons of its own",
        A::UserCanceled => "it gave up",
        _ => "it did not say more",
    };
    format!("the peer refused by a TLS alert, {alert:?}: {meaning}")
}

/// What is wrong with a certificate, which `whose` names.
pub(crate) fn text_of_certificate(whose: &str, error: &CertificateError) -> String {
    use CertificateError as C;
    let text = match error {
        C::BadEncoding => "is malformed",
        C::Expired => "has expired",
        C::ExpiredContext { time, not_after } => {
            return format!("{whose} has expired, {} ago", duration(*not_after, *time));
        }
        C::NotValidYet => "is not valid yet",
        C::NotValidYetContext { time, not_before } => {
            let until = duration(*time, *not_before);
            return format!("{whose} is not valid yet, but in {until}; or this machine's clock is wrong");
        }
        C::Revoked => "is revoked",
        C::UnknownIssuer => {
            "is not trusted: no trusted root signed it or its chain (an intermediate certificate may be missing)"
        }
        C::BadSignature => "has a wrong signature",
        C::NotValidForName => "is for another name",
        C::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "for no name at all".into(),
                names => {
                    // Shown as `DnsName("example.org")`.
                    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_string();
                    format!("for {}", names.iter().map(bare).collect::<Vec<_>>().join(", "))
                }
            };
            return format!("{whose} is {names}, not for {}", expected.to_str());
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "is for another purpose (extended key usage): one for servers or clients is expected"
        }
        C::UnsupportedSignatureAlgorithmContext { .. }
        | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed by an algorithm that is not accepted"
        }
        C::UnhandledCriticalExtension => "has a critical extension that is not known here",
        C::ApplicationVerificationFailure => "is not accepted by this program",
        // "CaUsedAsEndEntity" and the like of webpki.
        C::Other(other) => return format!("{whose} is not accepted: {other}"),
        other => return format!("{whose} is not accepted: {other}"),
    };
    format!("{whose} {text}")
}

/// A span in the largest unit that has at least two of it.
fn duration(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
