//! Bins of equal width on a logarithmic scale, to draw a histogram of times.

use std::time::Duration;

use crate::latencies::Latencies;

/// The upper bounds that bins may have within a power of ten, from fine to coarse: round numbers (preferred
/// numbers) at nearly equal ratios.
const SERIES: [&[f64]; 7] = [
    &[
        1.0, 1.06, 1.12, 1.18, 1.25, 1.32, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.12, 2.24, 2.36, 2.5, 2.65,
        2.8, 3.0, 3.15, 3.35, 3.55, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.3, 5.6, 6.0, 6.3, 6.7, 7.1, 7.5, 8.0,
        8.5, 9.0, 9.5,
    ],
    &[
        1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8, 3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0,
        9.0,
    ],
    &[1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0],
    &[1.0, 1.6, 2.5, 4.0, 6.3],
    &[1.0, 2.0, 5.0],
    &[1.0, 3.0],
    &[1.0],
];
/// Recorded times are below ten to this power, in nanoseconds.
const POWER_MAX: i32 = 13;

/// A range of times, with the count of times in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// The lower bound, exclusive.
    pub above: Duration,
    /// The upper bound, inclusive.
    pub up_to: Duration,
    /// How many times are in the bin.
    pub count: u64,
}

impl Latencies {
    /// Up to `most` bins of equal width on a logarithmic scale that cover the times between two percentiles, as
    /// narrow as round bounds allow. Shorter times are added to the first bin, which then starts at zero; longer
    /// ones get an extra bin that ends with the maximum. Empty if there are no times.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn example(outcome: &ringspun_load::Outcome) {
    /// for bin in outcome.response_times.bins(0.0, 99.9, 12) {
    ///     println!("up to {:?}: {}", bin.up_to, bin.count);
    /// }
    /// # }
    /// ```
    pub fn bins(&self, from_percentile: f64, to_percentile: f64, most: usize) -> Vec<Bin> {
        if self.count() == 0 {
            return Vec::new();
        }
        let (first, last) = (self.percentile(from_percentile), self.percentile(to_percentile));
        let fitting =
            SERIES.iter().map(|series| ends(series, first, last)).find(|ends| ends.len() <= most + 1);
        let ends = fitting.unwrap_or_else(|| ends(&[1.0], first, last));
        let mut bins = Vec::with_capacity(ends.len());
        for pair in ends.windows(2) {
            let count = self.count_above(pair[0]) - self.count_above(pair[1]);
            bins.push(Bin { above: pair[0], up_to: pair[1], count });
        }
        let shorter = ends.first().map_or(0, |end| self.count() - self.count_above(*end));
        if let Some(bin) = bins.first_mut().filter(|_| shorter > 0) {
            (bin.above, bin.count) = (Duration::ZERO, bin.count + shorter);
        }
        let above = ends.last().copied().unwrap_or_default();
        let longer = self.count_above(above);
        if longer > 0 {
            bins.push(Bin { above, up_to: self.max(), count: longer });
        }
        bins
    }
}

/// The bounds from the last one below `first` to the first one not below `last`.
fn ends(series: &[f64], first: Duration, last: Duration) -> Vec<Duration> {
    let all = (0..=POWER_MAX).flat_map(|power| series.iter().map(move |step| step * 10_f64.powi(power)));
    let mut ends: Vec<Duration> = all.map(|end_ns| Duration::from_nanos(end_ns.round() as u64)).collect();
    ends.dedup();
    let from = ends.iter().rposition(|end| *end < first).unwrap_or(0);
    let to = ends.iter().position(|end| *end >= last).unwrap_or(ends.len() - 1);
    // The histogram rounds times up, which may put `last` just beyond a bound that it belongs to.
    let is_rounded = to > from + 1 && last.as_nanos() as f64 <= ends[to - 1].as_nanos() as f64 * 1.001;
    ends[from..=to - usize::from(is_rounded)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(microseconds: impl IntoIterator<Item = u64>) -> Latencies {
        let mut times = Latencies::new().unwrap();
        microseconds.into_iter().for_each(|time| times.record(Duration::from_micros(time)));
        times
    }

    #[test]
    fn every_time_is_in_one_bin() {
        for (times, most) in [
            (times([]), 12),
            (times([1]), 12),
            (times([1, 3_600_000_000]), 5),
            (times(1..=1000), 12),
            (times((1..=1000).map(|number| number * number)), 40),
            (times([100; 1000]), 12),
        ] {
            for (from, to) in [(0.0, 100.0), (1.0, 99.9), (50.0, 50.0)] {
                let bins = times.bins(from, to, most);
                assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), times.count(), "{bins:?}");
                assert!(bins.windows(2).all(|pair| pair[0].up_to == pair[1].above), "{bins:?}");
                assert!(bins.iter().all(|bin| bin.above < bin.up_to), "{bins:?}");
            }
        }
    }

    #[test]
    fn bins_are_as_narrow_as_their_number_allows() {
        let times = times(1..=1000);
        for (most, expected) in [(200, 121), (40, 31), (16, 16), (12, 10), (3, 4)] {
            let bins = times.bins(0.0, 100.0, most);
            assert!(bins.len() <= expected, "{most}: {} {bins:?}", bins.len());
            assert!(2 * bins.len() >= most.min(expected), "{most}: {} {bins:?}", bins.len());
        }
    }

    #[test]
    fn what_is_longer_has_a_bin_that_ends_with_the_longest() {
        let times = times((1..=999).map(|_| 100).chain([50_000]));
        let bins = times.bins(0.0, 99.0, 12);
        assert_eq!(bins.len(), 2, "{bins:?}");
        assert_eq!((bins[1].count, bins[1].up_to), (1, times.max()));
    }
}
