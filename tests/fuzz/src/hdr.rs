//! Interval logs: what can be read can be written, and then reads as the same.

use ringspun_load::fuzzing::rewrite_log;
use ringspun_load::{Log, Merged};

/// Reads the input as a log.
pub fn check(data: &[u8]) {
    let log = match Log::parse("log", data) {
        Ok(log) => log,
        Err(error) => return assert!(error.to_string().starts_with("log: "), "{error}"),
    };
    assert!(log.rate_per_s() >= 0.0, "{} answers/s", log.rate_per_s());
    let _ = (log.times().mean(), log.times().percentile(99.9), log.measured_s());
    let merged = Merged::new(&[log.clone(), log.clone()]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(merged.answered, 2 * log.answered());
    let text = rewrite_log(&log).unwrap_or_else(|error| panic!("what was read cannot be written: {error}"));
    let again = Log::parse("again", &text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.service_times, log.service_times);
    assert_eq!(again.response_times, log.response_times);
}
