//! Two runs side by side, with a verdict where they differ by more than the noise.
//!
//! The noise is taken from the seconds of each run: for a row, each second gives a value, and the median of
//! these lies within two of them with 95 % confidence, whatever their distribution. Two runs differ if these
//! ranges do not overlap, if the values of the whole runs differ the same way, and by more than 1 %. A stall
//! in a few seconds of one run widens no range, and gives no verdict: it may be chance.

use std::time::Duration;

use crate::log::{Log, Second};

/// With fewer seconds, no range of theirs holds the median with 95 % confidence.
const SECONDS_MIN: usize = 6;
/// Less than this share is never called a difference.
const DIFFERENCE_MIN: f64 = 0.01;
/// Quantile of the normal distribution that leaves 2.5 % at each side.
const NORMAL_QUANTILE: f64 = 1.96;
/// Shorter intervals are too short to tell a rate, or a tail, like the others.
const SECOND_MIN_S: f64 = 0.5;

/// One value of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `rate`, `p50`, `p90`, `p99`, `p99.9` or `max`.
    pub name: &'static str,
    /// Of the first run: answers per second for `rate`, otherwise seconds.
    pub a: f64,
    /// Of the second run.
    pub b: f64,
    /// Whether the second run is better; `None` if the difference is within the noise.
    pub is_b_better: Option<bool>,
}

impl Row {
    /// The second by the first; `None` if the first is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.a > 0.0).then(|| self.b / self.a)
    }
}

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The rows, in the order in which they are told.
    pub rows: Vec<Row>,
    /// Both runs have the seconds that it takes to know the noise, at least 6. Without, there is no verdict.
    pub is_noise_known: bool,
}

/// Compares two runs; their response times, or service times in closed loops.
///
/// # Errors
///
/// One is of a closed and one of an open loop, whose times mean different things.
pub fn compare(a: &Log, b: &Log) -> Result<Comparison, String> {
    if a.response_times.is_some() != b.response_times.is_some() {
        return Err(format!(
            "one of {} and {} is of a closed loop, the other of an open one: expected the same kind of loop",
            a.name, b.name
        ));
    }
    let whole_seconds = |log: &Log| -> Vec<Second> {
        log.seconds.iter().filter(|second| second.duration_s >= SECOND_MIN_S).cloned().collect()
    };
    let (seconds_a, seconds_b) = (whole_seconds(a), whole_seconds(b));
    let row = |name, of_log: &dyn Fn(&Log) -> f64, of_second: &dyn Fn(&Second) -> Option<f64>| {
        let (value_a, value_b) = (of_log(a), of_log(b));
        let range = |seconds: &[Second]| median_range(seconds.iter().filter_map(of_second).collect());
        let is_larger = match (range(&seconds_a), range(&seconds_b)) {
            _ if (value_b - value_a).abs() <= DIFFERENCE_MIN * value_a.max(value_b) => None,
            (Some(range_a), Some(range_b)) if range_b.0 > range_a.1 && value_b > value_a => Some(true),
            (Some(range_a), Some(range_b)) if range_b.1 < range_a.0 && value_b < value_a => Some(false),
            _ => None,
        };
        let is_b_better = is_larger.map(|is_larger| is_larger == (name == "rate"));
        Row { name, a: value_a, b: value_b, is_b_better }
    };
    let rate_of_second = |second: &Second| Some(second.answered as f64 / second.duration_s);
    let mut rows = vec![row("rate", &Log::rate_per_s, &rate_of_second)];
    let percentiles = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];
    for (index, (name, percentile)) in percentiles.into_iter().enumerate() {
        let of_log = |log: &Log| seconds_of(log.times().percentile(percentile));
        let of_second = |second: &Second| (second.answered > 0).then(|| seconds_of(second.times[index]));
        rows.push(row(name, &of_log, &of_second));
    }
    Ok(Comparison { rows, is_noise_known: seconds_a.len().min(seconds_b.len()) >= SECONDS_MIN })
}

fn seconds_of(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Two of the values between which their distribution's median lies, with a confidence of 95 % or more.
fn median_range(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.len() < SECONDS_MIN {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    // How many values are below the median has a binomial distribution, near enough a normal one. Rounding
    // down makes the range wider.
    let skipped = ((count - NORMAL_QUANTILE * count.sqrt()) / 2.0).floor().max(1.0) as usize - 1;
    Some((values[skipped], values[values.len() - 1 - skipped]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_median_narrows_with_more_values() {
        let values = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(median_range(values(5)), None);
        assert_eq!(median_range(values(6)), Some((1.0, 6.0)));
        // Exact for 100 by the binomial distribution: 40 and 61.
        assert_eq!(median_range(values(100)), Some((40.0, 61.0)));
    }
}
