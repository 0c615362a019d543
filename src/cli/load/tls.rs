//! The flags of `ringspun load` for TLS, and their part of the results.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringspun::tls::{Identity, Roots};
use ringspun_load::{Plan, TlsOptions};
use serde_json::{Value, json};

use super::input::read_bounded;

/// The longest file of certificates that is read.
const PEM_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The flags for TLS.
#[derive(Args)]
pub struct TlsFlags {
    /// File with the authorities to trust instead of the system's, in PEM; for tls, https and wss, as are the next five
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    cacert: Option<PathBuf>,
    /// File with a certificate chain to present to the target, in PEM: --cert me.pem --key me.key
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// File with the private key of --cert, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Accept any certificate of the target, for any name; the results say so
    #[arg(long)]
    insecure: bool,
    /// Protocols to offer (ALPN), such as --alpn http/1.1
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Whether connections resume the TLS sessions of earlier ones; otherwise, each performs a full handshake, as
    /// clients do that come for the first time
    #[arg(long, value_enum, value_name = "WHETHER", default_value = "no")]
    tls_resume: YesNo,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

impl TlsFlags {
    /// The files that are read, with their flags.
    pub fn input_files(&self) -> [(&'static str, Option<&Path>); 3] {
        let [cacert, cert, key] = [&self.cacert, &self.cert, &self.key].map(Option::as_deref);
        [("--cacert", cacert), ("--cert", cert), ("--key", key)]
    }

    /// Sets the part of a plan.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or does not have what it should.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), String> {
        let authorities = self.cacert.as_ref().map(|path| {
            let pem = read("--cacert", path)?;
            let error = |error| format!("--cacert {}: {error}", path.display());
            Roots::from_pem(&pem).map_err(error).map(|_| pem)
        });
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let (chain_pem, key_pem) = (read("--cert", cert)?, read("--key", key)?);
                let error = |error| format!("--cert {} --key {}: {error}", cert.display(), key.display());
                Some(Identity::from_pem(&chain_pem, &key_pem).map_err(error).map(|_| (chain_pem, key_pem))?)
            }
            _ => None,
        };
        plan.tls = TlsOptions {
            authorities_pem: authorities.transpose()?,
            identity_pem: identity,
            is_insecure: self.insecure,
            alpn: self.alpn.clone(),
            resumes: self.tls_resume == YesNo::Yes,
        };
        Ok(())
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_bounded(path, PEM_MAX_BYTES).map_err(|error| format!("{flag}: {error}"))?;
    match bytes.len() > PEM_MAX_BYTES {
        true => {
            Err(format!("{flag}: {} is too long: expected at most {PEM_MAX_BYTES} bytes", path.display()))
        }
        false => Ok(bytes),
    }
}

/// What a plan has of TLS (docs/load-json.md).
pub fn fields(plan: &Plan) -> Value {
    plan.target.tls_host().map_or(Value::Null, |host| {
        json!({
            "host": host,
            "insecure": plan.tls.is_insecure,
            "own_authorities": plan.tls.authorities_pem.is_some(),
            "client_certificate": plan.tls.identity_pem.is_some(),
            "alpn": plan.tls.alpn,
            "resume": plan.tls.resumes,
        })
    })
}
