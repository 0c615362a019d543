//! How long things took: a histogram.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told from longer ones: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// A value is off by less than one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Times, recorded in nanoseconds with three significant digits, up to an hour; what is longer counts as
/// an hour. Recording one takes no memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies {
    histogram_ns: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> io::Result<Self> {
        let histogram_ns =
            Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS).map_err(io::Error::other)?;
        Ok(Self { histogram_ns })
    }

    #[inline]
    pub(crate) fn record(&mut self, time: Duration) {
        self.histogram_ns.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS));
    }

    /// Takes times as they are in a log; what is longer than an hour is an error.
    pub(crate) fn from_histogram(histogram_ns: &Histogram<u64>) -> Result<Self, String> {
        let mut latencies = Self::new().map_err(|error| error.to_string())?;
        latencies.histogram_ns.add(histogram_ns).map_err(|_| {
            format!("a time of {} ns, expected up to an hour: {LONGEST_NS} ns", histogram_ns.max())
        })?;
        Ok(latencies)
    }

    pub(crate) fn histogram_ns(&self) -> &Histogram<u64> {
        &self.histogram_ns
    }

    /// Adds the times of another.
    pub(crate) fn add(&mut self, other: &Self) {
        // The bounds of all are the same, so that there is nothing to fail on.
        let _ = self.histogram_ns.add(&other.histogram_ns);
    }

    /// Returns the times, and begins anew. A new histogram costs less than to copy and to clear this one, as
    /// the kernel gives zeroed memory where it is touched.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Histogram::new_from(&self.histogram_ns);
        Self { histogram_ns: std::mem::replace(&mut self.histogram_ns, empty) }
    }

    /// How many times were recorded.
    pub fn count(&self) -> u64 {
        self.histogram_ns.len()
    }

    /// How many of them are longer than `time`, as far as three digits tell.
    pub fn count_above(&self, time: Duration) -> u64 {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count() - self.histogram_ns.count_between(0, time_ns.min(LONGEST_NS))
    }

    /// The time that this percentage of all took, or less; zero if there is none.
    pub fn percentile(&self, percentile: f64) -> Duration {
        // 99.9 % of 15,000 are 14,985, of which floating-point numbers make a little more, and that would be rounded
        // up to one more. HdrHistogram's own implementations lower the percentile as well.
        let quantile = percentile / 100.0 * (1.0 - 4.0 * f64::EPSILON);
        Duration::from_nanos(self.histogram_ns.value_at_quantile(quantile))
    }

    /// The shortest; zero if there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.histogram_ns.min())
    }

    /// The longest; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram_ns.max())
    }

    /// The mean; zero if there is none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram_ns.mean() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_counts_no_time_too_many() {
        for (percentile, per_thousand) in [(50.0, 500), (90.0, 900), (99.0, 990), (99.9, 999), (100.0, 1000)]
        {
            for thousands in 1..=40 {
                let mut latencies = Latencies::new().unwrap();
                let (short, all) = (per_thousand * thousands, 1000 * thousands);
                (0..short).for_each(|_| latencies.record(Duration::from_micros(1)));
                (short..all).for_each(|_| latencies.record(Duration::from_secs(1)));
                assert_eq!(latencies.percentile(percentile).as_micros(), 1, "{percentile} % of {all}");
                if short < all {
                    let above = percentile + 100.0 / all as f64;
                    assert_eq!(latencies.percentile(above).as_millis() / 10, 100, "{above} % of {all}");
                }
            }
        }
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!((latencies.count(), latencies.percentile(99.0)), (0, Duration::ZERO));
        for microseconds in 1..=10_000 {
            latencies.record(Duration::from_micros(microseconds));
        }
        for (percentile, expected_us) in [(50.0, 5_000.0), (99.0, 9_900.0), (99.99, 9_999.0)] {
            let found_us = latencies.percentile(percentile).as_secs_f64() * 1e6;
            assert!((found_us / expected_us - 1.0).abs() < 0.001, "{percentile}: {found_us}");
        }
        assert_eq!(latencies.count(), 10_000);
        assert!(latencies.count_above(Duration::from_millis(9)).abs_diff(1_000) <= 10);
        latencies.record(Duration::MAX);
        // As long as times get, to three digits.
        assert_eq!(latencies.max().as_secs() / 10, 360);
    }
}
