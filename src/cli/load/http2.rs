//! The flags of `ringspun load` for HTTP/2, and their part of the results.

use clap::Args;
use ringspun_load::{Outcome, Plan, Workload, format_count, parse_count};
use serde_json::{Map, Value, json};

/// The flags for HTTP/2.
#[derive(Args)]
pub struct Http2Flags {
    /// Speak HTTP/2 with http and https targets
    ///
    /// With https it is agreed upon in TLS (ALPN), with http the target has to expect it (prior knowledge).
    #[arg(long)]
    http2: bool,
    /// Maximum number of unanswered requests per connection, with --http2: --streams 100 [default: 1]
    ///
    /// Never more than the target allows.
    #[arg(long, value_name = "COUNT", requires = "http2", value_parser = parse_count)]
    streams: Option<u64>,
}

impl Http2Flags {
    /// Sets the part of a plan.
    pub fn apply(&self, plan: &mut Plan) {
        plan.http2 = self.http2;
        // Saturated values exceed the plan's limits, too.
        plan.streams = self.streams.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX));
    }
}

/// What follows the workload in the first line of the results.
pub fn describe(plan: &Plan) -> String {
    match (plan.http2, plan.streams) {
        (false, _) => String::new(),
        (true, 1) => ", HTTP/2".to_string(),
        (true, count) => format!(", HTTP/2 with {} streams per connection", format_count(count as u64)),
    }
}

/// Where the target allows fewer streams than planned.
pub fn remark(plan: &Plan, outcome: &Outcome) -> Option<String> {
    let allowed = outcome.connections.streams_allowed?;
    let (allowed, streams) = (format_count(allowed as u64), format_count(plan.streams as u64));
    let noun = if allowed == "1" { "stream" } else { "streams" };
    Some(format!("The target allows {allowed} {noun} per connection: the others of {streams} were not used."))
}

/// What a plan has of it (docs/load-json.md).
pub fn fields(plan: &Plan) -> Map<String, Value> {
    let version = matches!(plan.workload, Workload::Http(_)).then_some(if plan.http2 { "2" } else { "1.1" });
    let streams = plan.http2.then_some(plan.streams);
    [("http_version", json!(version)), ("streams", json!(streams))]
        .map(|(name, value)| (name.to_string(), value))
        .into_iter()
        .collect()
}
