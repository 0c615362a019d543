//! The flags of `ringspun load` for sessions, and their part of the results.

use std::fmt::Display;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringspun_load::{
    Outcome, Plan, SESSION_MAX, SessionCounts, Sessions, Workload, format_count, format_duration,
    parse_duration,
};
use serde_json::{Map, Value, json};

use super::whole::whole;

/// What a script decides itself, or what there is not for it.
const NOT_WITH_SCRIPT: [&str; 21] = [
    "session",
    "think",
    "workload",
    "payload",
    "payload_file",
    "response",
    "response_end",
    "pipeline",
    "requests_per_connection",
    "method",
    "header",
    "expect",
    "expect_body",
    "follow",
    "user",
    "requests",
    "body",
    "body_file",
    "http2",
    "bind",
    "ramp_up",
];

/// The flags for sessions, and for scripts that make them.
#[derive(Args)]
pub struct SessionFlags {
    /// Make sessions of this many requests, one after the other on one connection: --session 5, or --session 1..20 for
    /// a number that is drawn for each session, uniformly from the range
    ///
    /// With --rate, sessions begin at that rate, whatever the target does, and --count is a number of sessions; the
    /// connections are the most sessions at a time; --find searches for that rate. Without --rate, each connection
    /// makes one session after the other. With http and https, a session sends the cookies that it got.
    #[arg(long, value_name = "COUNT", value_parser = parse_requests, conflicts_with = "steps")]
    session: Option<RangeInclusive<u32>>,
    /// Think time between an answer and the next request of its session: --think 200ms, or --think 100ms..1s for a
    /// time that is drawn each time, uniformly from the range
    ///
    /// It is part of no latency.
    #[arg(long, value_name = "TIME", requires = "session", value_parser = parse_think)]
    think: Option<RangeInclusive<Duration>>,
    /// Make the sessions of a Janet program: --script shop.janet
    ///
    /// Its function main is called for each session, (defn main [session] ...), and makes steps with names, such as
    /// (load/step session "login" load/request session "POST" "/login" :body "name=ann"). Each connection is a user
    /// that makes one session after the other; with --rate, --steps or --find, sessions begin at a rate, and --count
    /// is a number of them. Not for ws and wss targets. docs/load.md has more.
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_WITH_SCRIPT)]
    pub script: Option<PathBuf>,
}

/// One value, or a range of them.
fn parse_range<T: PartialOrd + Clone + Display>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<RangeInclusive<T>, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let (min, max) = (parse(min)?, parse(max)?);
    match min <= max {
        true => Ok(min..=max),
        false => Err(format!("a range from {min} to {max}: expected the smaller one first")),
    }
}

fn parse_requests(text: &str) -> Result<RangeInclusive<u32>, String> {
    parse_range(text, whole(1..=SESSION_MAX))
        .map_err(|error| format!("{error}, or a range of them such as 1..20"))
}

fn parse_think(text: &str) -> Result<RangeInclusive<Duration>, String> {
    let shown = |time: Time| time.0;
    let range = parse_range(text, |text| parse_duration(text).map(Time))?;
    let (min, max) = range.into_inner();
    Ok(shown(min)..=shown(max))
}

/// A duration that can be shown.
#[derive(Clone, PartialEq, PartialOrd)]
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl SessionFlags {
    /// Sets the part of a plan.
    ///
    /// # Errors
    ///
    /// A script that cannot be read.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), String> {
        plan.sessions = self.session.clone().map(|requests| {
            let mut sessions = Sessions::of(requests);
            sessions.think = self.think.clone().unwrap_or(sessions.think);
            sessions
        });
        if let Some(path) = &self.script {
            let shown = path.display();
            // Each thread's VM reads it.
            File::open(path).map_err(|error| format!("--script: cannot read {shown}: {error}"))?;
            plan.workload = Workload::Driven { name: shown.to_string() };
        }
        Ok(())
    }
}

/// Whether the rate is one of sessions.
pub fn are_made(plan: &Plan) -> bool {
    plan.sessions.is_some() || matches!(plan.workload, Workload::Driven { .. })
}

/// What follows the workload in the first line of the results.
pub fn describe(plan: &Plan) -> String {
    let Some(Sessions { requests, think, .. }) = &plan.sessions else { return String::new() };
    let count = |count: &u32| format_count((*count).into());
    let requests = match (requests.start(), requests.end()) {
        (1, 1) => "1 request".to_string(),
        (min, max) if min == max => format!("{} requests", count(min)),
        (min, max) => format!("{} to {} requests", count(min), count(max)),
    };
    let time = |time: &Duration| format_duration(*time);
    match (think.start(), think.end()) {
        (_, max) if max.is_zero() => format!(", sessions of {requests}"),
        (min, max) if min == max => format!(", sessions of {requests} with {} between them", time(min)),
        (min, max) => format!(", sessions of {requests} with {} to {} between them", time(min), time(max)),
    }
}

/// What became of the sessions.
pub fn counts(outcome: &Outcome) -> Option<String> {
    let SessionCounts { begun, completed, .. } = outcome.sessions?;
    Some(format!("{} begun, {} completed", format_count(begun), format_count(completed)))
}

/// How many of the planned sessions did not begin.
pub fn unbegun_remark(outcome: &Outcome) -> Option<String> {
    let sessions = outcome.sessions?;
    let planned = sessions.planned.filter(|planned| *planned > sessions.begun)?;
    Some(format!(
        "{} of {} sessions did not begin before the end: no connection was free. The times do\nnot include them, and \
         would be worse. More connections may help.",
        format_count(planned - sessions.begun),
        format_count(planned)
    ))
}

/// The results (docs/load-json.md); `null` without sessions.
pub fn value(sessions: Option<SessionCounts>) -> Value {
    sessions.map_or(Value::Null, |SessionCounts { planned, begun, completed }| {
        json!({ "planned": planned, "begun": begun, "completed": completed })
    })
}

/// What a plan has of it (docs/load-json.md).
pub fn fields(plan: &Plan) -> Map<String, Value> {
    let session = plan.sessions.as_ref().map(|Sessions { requests, think, .. }| {
        json!({
            "requests_min": requests.start(),
            "requests_max": requests.end(),
            "think_min_s": think.start().as_secs_f64(),
            "think_max_s": think.end().as_secs_f64(),
        })
    });
    [("session".to_string(), json!(session))].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_ends_or_one() {
        assert_eq!(parse_requests("5"), Ok(5..=5));
        assert_eq!(parse_requests("1..20"), Ok(1..=20));
        let ms = Duration::from_millis;
        assert_eq!(parse_think("200ms"), Ok(ms(200)..=ms(200)));
        assert_eq!(parse_think("0s..1s"), Ok(ms(0)..=ms(1000)));
        for text in ["", "0", "0..5", "x", "1..", "..5", "1..2..3", "-1", "1-20", "1000001"] {
            let error = parse_requests(text).unwrap_err();
            assert!(
                error.contains("from 1 to 1000000") && error.contains("such as 1..20"),
                "{text}: {error}"
            );
        }
        assert!(parse_requests("20..1").unwrap_err().contains("expected the smaller one first"));
        assert!(parse_think("1s..200ms").unwrap_err().contains("a range from 1.00 s to 200"));
        assert!(parse_think("200").is_err());
    }
}
