//! Compares two runs, with a verdict where they differ by more than the noise.
//!
//! The noise is estimated from the one-second intervals of each run: the values of a row, one per second, give a
//! distribution-free 95 % confidence interval for their median. Two runs differ if these intervals do not
//! overlap, and the values of the whole runs differ in the same direction and by more than 1 %. A stall in a
//! few seconds of one run does not widen its interval and yields no verdict: it may be chance.

use std::time::Duration;

use crate::log::{Log, Second};

/// Fewer values have no 95 % confidence interval for their median.
const SECONDS_MIN: usize = 6;
/// A smaller relative difference never gets a verdict.
const DIFFERENCE_MIN: f64 = 0.01;
/// The 97.5 % quantile of the normal distribution.
const NORMAL_QUANTILE: f64 = 1.96;
/// Shorter intervals are left out: their rates and tails are not comparable with those of whole seconds.
const SECOND_MIN_S: f64 = 0.5;

/// One measure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `rate`, `p50`, `p90`, `p99`, `p99.9` or `max`.
    pub name: &'static str,
    /// The value of the first run: answers per second for `rate`, otherwise seconds.
    pub a: f64,
    /// The value of the second run.
    pub b: f64,
    /// Whether the second run is better; `None` if the difference is within the noise.
    pub is_b_better: Option<bool>,
}

impl Row {
    /// The second value divided by the first; `None` if the first is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.a > 0.0).then(|| self.b / self.a)
    }
}

/// The comparison of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The rows, in display order.
    pub rows: Vec<Row>,
    /// Whether both runs are long enough (6 seconds) to estimate the noise. If not, no row has a verdict.
    pub is_noise_known: bool,
}

/// Compares two runs by their response times, or service times in closed loops.
///
/// # Errors
///
/// One log is of a closed loop and the other of an open loop: their times are not comparable.
pub fn compare(a: &Log, b: &Log) -> Result<Comparison, String> {
    if a.response_times.is_some() != b.response_times.is_some() {
        return Err(format!(
            "{} and {} are of different kinds, one of a closed and one of an open loop: expected the same kind",
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

/// A confidence interval for the median of the values' distribution, at 95 % or more.
fn median_range(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.len() < SECONDS_MIN {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    // The number of values below the median is binomially distributed, here approximated by the normal
    // distribution. Rounding down widens the interval.
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
