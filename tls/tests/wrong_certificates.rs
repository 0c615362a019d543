//! Certificates, and what else a handshake agrees upon, wrong in many ways: both sides say what is wrong.

use std::io;

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use ringspun_tls::{self as tls, ClientAuth, ClientConfig, Identity, ServerConfig, Versions};

mod common;

use common::{Authority, Pair, pem, run, shake};

const VERSIONS: [Versions; 2] = [Versions::Tls12, Versions::Tls13];

/// A certificate that a client must refuse, and what both sides say.
struct Case {
    what: &'static str,
    pair: Pair,
    client_says: &'static str,
    server_says: &'static str,
}

fn cases(authority: &Authority) -> Vec<Case> {
    let localhost = ["localhost"];
    let intermediate = authority.intermediate("intermediate");
    let case = |what, pair, client_says, server_says| Case { what, pair, client_says, server_says };
    vec![
        case(
            "signed by a stranger",
            Authority::new("stranger").sign(&localhost, |_| {}),
            "the peer's certificate is not trusted",
            "UnknownCA: it does not trust the authority that signed our certificate",
        ),
        case(
            "an intermediate is missing",
            intermediate.sign(&localhost, |_| {}),
            "an intermediate certificate may be missing",
            "UnknownCA",
        ),
        case(
            "expired",
            authority.sign(&localhost, |params| params.not_after = date_time_ymd(2020, 2, 3)),
            "the peer's certificate has expired, ",
            "CertificateExpired: our certificate has expired by its clock",
        ),
        case(
            "not valid yet",
            authority.sign(&localhost, |params| params.not_before = date_time_ymd(2200, 1, 1)),
            "the peer's certificate is not valid yet, but in ",
            "CertificateExpired",
        ),
        case(
            "for another name",
            authority.sign(&["example.org", "www.example.org"], |_| {}),
            "the peer's certificate is for example.org, www.example.org, not for localhost",
            "BadCertificate: our certificate does not suit it",
        ),
        case(
            "for no name",
            authority.sign(&[], |_| {}),
            "the peer's certificate is for no name at all, not for localhost",
            "BadCertificate",
        ),
        case(
            "for clients only",
            authority.sign(&localhost, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            "is for another purpose (extended key usage)",
            "UnsupportedCertificate: our certificate is of a kind or for a purpose that it does not accept",
        ),
        case(
            "an authority's own",
            authority.sign(&localhost, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "CaUsedAsEndEntity",
            "the peer refused by a TLS alert",
        ),
        case("for an address", authority.sign(&["127.0.0.1"], |_| {}), "not for localhost", "BadCertificate"),
        case(
            "a signature that is not its authority's",
            with_wrong_signature(authority.sign(&localhost, |_| {})),
            "has a wrong signature",
            "DecryptError",
        ),
    ]
}

/// The same certificate, with one byte of its signature changed.
fn with_wrong_signature(mut pair: Pair) -> Pair {
    use ringspun_tls::rustls::pki_types::CertificateDer;
    use ringspun_tls::rustls::pki_types::pem::PemObject as _;
    let mut der = CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap().to_vec();
    *der.last_mut().unwrap() ^= 1;
    pair.chain = pem("CERTIFICATE", &der);
    pair
}

#[test]
fn clients_refuse_wrong_certificates_and_both_sides_say_why() {
    for version in VERSIONS {
        run(move || {
            let authority = Authority::new("authority");
            let client = ClientConfig::builder().roots(authority.roots()).versions(version).build()?;
            for case in cases(&authority) {
                let server = ServerConfig::builder().identity(case.pair.identity()).build()?;
                let (connected, accepted) = shake(&client, &server)?;
                let (connected, accepted) = (connected.unwrap_err(), accepted.unwrap_err());
                check(case.what, &connected, case.client_says);
                check(case.what, &accepted, case.server_says);
                assert!(tls::tls_error_of(&connected).unwrap().certificate_error().is_some());
                assert!(tls::tls_error_of(&accepted).unwrap().is_alert());
                // One that accepts everything does.
                let trusting = ClientConfig::builder().dangerous_accept_any_certificate().build()?;
                assert!(shake(&trusting, &server)?.0.is_ok(), "{}", case.what);
            }
            Ok(())
        });
    }
}

fn check(what: &str, error: &io::Error, expected: &str) {
    let text = error.to_string();
    assert!(text.contains(expected), "{what}: {text:?} lacks {expected:?}");
    assert!(text.starts_with("TLS handshake with 127.0.0.1:"), "{what}: {text}");
}

#[test]
fn servers_refuse_clients_and_both_sides_say_why() {
    for version in VERSIONS {
        run(move || {
            let authority = Authority::new("authority");
            let server = |auth| {
                ServerConfig::builder()
                    .identity(authority.identity(&["localhost"]))
                    .client_auth(auth, authority.roots())
                    .build()
            };
            let client = |identity: Option<Identity>| {
                let builder = ClientConfig::builder().roots(authority.roots()).versions(version);
                match identity {
                    Some(identity) => builder.identity(identity),
                    None => builder,
                }
                .build()
            };
            let stranger = Authority::new("stranger").identity(&["me"]);
            let expired =
                authority.sign(&["me"], |params| params.not_after = date_time_ymd(2020, 2, 3)).identity();
            let for_servers = authority
                .sign(&["me"], |params| {
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
                })
                .identity();
            let unknown = "UnknownCA: it does not trust";
            for (identity, auth, server_says, client_says) in [
                (Some(stranger.clone()), ClientAuth::Required, "is not trusted", unknown),
                (Some(stranger), ClientAuth::Optional, "is not trusted", unknown),
                (Some(expired), ClientAuth::Required, "has expired, ", "CertificateExpired"),
                (Some(for_servers), ClientAuth::Required, "is for another purpose", "UnsupportedCertificate"),
                (
                    None,
                    ClientAuth::Required,
                    "the peer sent no certificate, and one is required",
                    "ertificate",
                ),
            ] {
                let (connected, accepted) = shake(&client(identity)?, &server(auth)?)?;
                check("a client", &accepted.unwrap_err(), server_says);
                // In TLS 1.3, a client is told after it has begun to send.
                let refused = connected.and_then(|stream| {
                    stream.read(&mut [0])?;
                    Ok(stream)
                });
                let text = refused.unwrap_err().to_string();
                assert!(
                    text.contains("the peer refused by a TLS alert, ") && text.contains(client_says),
                    "{text}"
                );
            }
            // Without a certificate, where that is allowed.
            let (connected, accepted) = shake(&client(None)?, &server(ClientAuth::Optional)?)?;
            assert!(connected.is_ok() && accepted?.peer_certificates().is_empty());
            Ok(())
        });
    }
}

#[test]
fn what_cannot_be_agreed_upon_is_named() {
    run(|| {
        let authority = Authority::new("authority");
        let server = || ServerConfig::builder().identity(authority.identity(&["localhost"]));
        let client = || ClientConfig::builder().roots(authority.roots());
        let (connected, accepted) =
            shake(&client().alpn(["h2"]).build()?, &server().alpn(["http/1.1"]).build()?)?;
        check(
            "alpn",
            &connected.unwrap_err(),
            "NoApplicationProtocol: it has no protocol in common with us (ALPN)",
        );
        check("alpn", &accepted.unwrap_err(), "no protocol in common (ALPN)");
        for name in [String::new(), "h".repeat(256)] {
            let expected = format!("(ALPN) whose name has {} bytes: expected 1 to 255", name.len());
            let offered = client().alpn(["h2", &name]).build().map(drop).unwrap_err();
            let accepted = server().alpn([name.as_str()]).build().map(drop).unwrap_err();
            for error in [offered, accepted] {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }

        let (connected, accepted) = shake(
            &client().versions(Versions::Tls13).build()?,
            &server().versions(Versions::Tls12).build()?,
        )?;
        check("version", &connected.unwrap_err(), "ProtocolVersion: it has no TLS version in common with us");
        check("version", &accepted.unwrap_err(), "it speaks neither TLS 1.2 nor 1.3 as configured here");

        let nameless = client().server_name("not a name").build()?;
        let error = shake(&nameless, &server().build()?)?.0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("\"not a name\" is not a host name"), "{error}");
        Ok(())
    });
}

/// Before a connection is made.
#[test]
fn files_that_do_not_fit_are_refused_early() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.sign(&["first"], |_| {}), authority.sign(&["second"], |_| {}));
    let folder = std::env::temp_dir().join(format!("ringspun-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let critical = authority.sign(&["localhost"], |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let (chain, key) = (file("chain.pem", &first.chain), file("key.pem", &first.key));
    for (chain, key, expected) in [
        (
            chain.clone(),
            file("other.pem", &second.key),
            "the private key does not belong to the first certificate",
        ),
        (
            chain.clone(),
            file("locked.pem", encrypted),
            "locked.pem: the key is encrypted; `openssl pkey` decrypts it",
        ),
        (chain.clone(), chain.clone(), "chain.pem: no private key in PEM"),
        (key.clone(), key.clone(), "key.pem: no certificate in PEM (-----BEGIN CERTIFICATE-----)"),
        (file("empty.pem", ""), key.clone(), "empty.pem: no certificate in PEM"),
        (
            file("broken.pem", "-----BEGIN CERTIFICATE-----\nMII"),
            key.clone(),
            "broken.pem: a certificate cannot be read",
        ),
        (
            file("odd.pem", &critical.chain),
            file("odd.key", &critical.key),
            "odd.pem: the certificate is not accepted",
        ),
        (folder.join("missing.pem"), key.clone(), "missing.pem: No such file"),
    ] {
        let error = Identity::from_pem_files(&chain, &key).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
    // Both in one file.
    let both = file("both.pem", &format!("{}{}", first.key, first.chain));
    assert!(Identity::from_pem_files(&both, &both).is_ok());
    assert!(ServerConfig::builder().build().unwrap_err().to_string().contains("needs a certificate"));
    std::fs::remove_dir_all(&folder).unwrap();
}
