//! What the tests of workloads and pipelines share: a server with answers of its own, and short words for what
//! is in a report.

use std::io::{Read, Write};

use serde_json::Value;

use super::measuring::{number, tcp_server};

/// A server that answers each `request_bytes` with what `answer` makes of its number and connection, until it
/// makes nothing.
pub fn answering_server(
    request_bytes: usize,
    answer: impl Fn(u64, u64) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> String {
    tcp_server(move |mut stream, connection| {
        let mut request = vec![0; request_bytes];
        for request_number in 0.. {
            if stream.read_exact(&mut request).is_err() {
                return;
            }
            let Some(answer) = answer(request_number, connection) else { return };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

/// Counts of requests by their names in the report.
pub fn counts(report: &Value, names: [&str; 3]) -> [u64; 3] {
    names.map(|name| number(&report["requests"][name]))
}

/// How many errors there were.
pub fn errors(report: &Value) -> u64 {
    number(&report["errors"]["total"])
}

/// The text of the first error that is told.
pub fn example(report: &Value) -> &str {
    report["errors"]["kinds"][0]["example"].as_str().unwrap()
}
