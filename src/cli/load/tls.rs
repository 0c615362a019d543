//! The flags of `ringspun load` for TLS, and their part of the results.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringspun_load::{Plan, TlsOptions};
use serde_json::{Value, json};

/// The longest file of certificates that is read.
const PEM_MAX_BYTES: u64 = 16 * 1024 * 1024;

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
    /// A file that cannot be read.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), String> {
        let cacert = self.cacert.as_ref().map(|path| read("--cacert", path));
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read("--cert", cert)?, read("--key", key)?)),
            _ => None,
        };
        plan.tls = TlsOptions {
            authorities_pem: cacert.transpose()?,
            identity_pem: identity,
            is_insecure: self.insecure,
            alpn: self.alpn.clone(),
            resumes: self.tls_resume == YesNo::Yes,
        };
        Ok(())
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(PEM_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| format!("{flag}: cannot read {}: {error}", path.display()))
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
