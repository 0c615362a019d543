//! Histograms of times.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that can be recorded: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Values are accurate to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of times in nanoseconds, with three significant digits, up to an hour; longer times count as an
/// hour. Recording does not allocate.
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

    /// Converts a histogram from a log. A time above an hour is an error.
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

    /// Adds the times of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        // Cannot fail, as all histograms have the same bounds.
        let _ = self.histogram_ns.add(&other.histogram_ns);
    }

    /// Returns the times and leaves an empty histogram. A new one is cheaper than copying and clearing, as the
    /// kernel provides zeroed memory only where it is touched.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Histogram::new_from(&self.histogram_ns);
        Self { histogram_ns: std::mem::replace(&mut self.histogram_ns, empty) }
    }

    /// The number of recorded times.
    pub fn count(&self) -> u64 {
        self.histogram_ns.len()
    }

    /// The number of times longer than `time`, to three digits.
    pub fn count_above(&self, time: Duration) -> u64 {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count() - self.histogram_ns.count_between(0, time_ns.min(LONGEST_NS))
    }

    /// A percentile, from 0 to 100; zero if there are no times.
    pub fn percentile(&self, percentile: f64) -> Duration {
        // 99.9 % of 15,000 is 14,985, but slightly more in floating point, which would be rounded up to the next
        // value. HdrHistogram's own implementations lower the percentile as well.
        let quantile = percentile / 100.0 * (1.0 - 4.0 * f64::EPSILON);
        Duration::from_nanos(self.histogram_ns.value_at_quantile(quantile))
    }

    /// A percentile, if there are enough times to distinguish it from the maximum: at least one must be above it, so
    /// that p99.9 takes a thousand. The 100th is the maximum.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn example(outcome: &ringspun_load::Outcome) {
    /// let p99 = outcome.response_times.known_percentile(99.0).map(ringspun_load::format_duration);
    /// println!("p99: {}", p99.unwrap_or("-".to_string()));
    /// # }
    /// ```
    pub fn known_percentile(&self, percentile: f64) -> Option<Duration> {
        // Rounding must not turn 1 into 0.999...
        let above = self.count() as f64 * (100.0 - percentile) / 100.0 + 1e-6;
        let is_known = self.count() > 0 && (above >= 1.0 || percentile >= 100.0);
        is_known.then(|| self.percentile(percentile))
    }

    /// The shortest time; zero if there are none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.histogram_ns.min())
    }

    /// The longest time; zero if there are none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram_ns.max())
    }

    /// The mean; zero if there are no times.
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
    fn percentiles_need_enough_times() {
        let known = |count: u64| {
            let mut latencies = Latencies::new().unwrap();
            (0..count).for_each(|_| latencies.record(Duration::from_micros(1)));
            [50.0, 90.0, 99.0, 99.9, 99.99, 100.0]
                .map(|percentile| latencies.known_percentile(percentile).is_some())
        };
        assert_eq!(known(0), [false; 6]);
        assert_eq!(known(1), [false, false, false, false, false, true]);
        assert_eq!(known(2), [true, false, false, false, false, true]);
        for (count, expected) in
            [(9, 1), (10, 2), (99, 2), (100, 3), (999, 3), (1000, 4), (9999, 4), (10_000, 5)]
        {
            assert_eq!(known(count)[..5].iter().filter(|known| **known).count(), expected, "{count}");
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
