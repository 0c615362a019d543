//! Writes certificates and keys as files have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What is in PEM (RFC 7468).
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = der.chunks(48).map(|line| STANDARD.encode(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
