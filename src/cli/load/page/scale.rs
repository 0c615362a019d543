//! Axes: the position of values between 0 and 1, and the ticks.

use std::time::Duration;

use ringspun_load::{format_count, format_duration};

/// A tick of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The position, from 0 to 1.
    pub at: f64,
    /// The label.
    pub label: String,
}

/// A logarithmic scale of times, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct LogScale {
    low: f64,
    high: f64,
}

impl LogScale {
    /// A scale from the round number below `low` to the one above `high`.
    pub fn around(low: Duration, high: Duration) -> Self {
        let (low, high) = (seconds(low), seconds(high));
        let steps: Vec<f64> = steps(&[1.0, 2.0, 5.0]).collect();
        let below = steps.iter().rev().find(|step| **step <= low * 1.001).copied().unwrap_or(low);
        let above = steps.iter().find(|step| **step * 1.001 >= high && **step > below).copied();
        Self { low: below, high: above.unwrap_or(high * 2.0) }
    }

    /// A scale from exactly `low` to exactly `high`.
    pub fn exact(low: Duration, high: Duration) -> Self {
        let low = seconds(low);
        Self { low, high: seconds(high).max(low * 1.01) }
    }

    pub fn position(&self, time: Duration) -> f64 {
        let share = (seconds(time) / self.low).ln() / (self.high / self.low).ln();
        share.clamp(0.0, 1.0)
    }

    /// Ticks at powers of ten; in between if these are too few; evenly spaced if the range is narrow.
    pub fn ticks(&self) -> Vec<Tick> {
        let inside = |all: Vec<f64>| -> Vec<f64> {
            all.into_iter().filter(|step| *step >= self.low * 0.999 && *step <= self.high * 1.001).collect()
        };
        let decades = inside(steps(&[1.0]).collect());
        let chosen = [decades, inside(steps(&[1.0, 2.0, 5.0]).collect())]
            .into_iter()
            .find(|ticks| ticks.len() >= 3)
            .unwrap_or_else(|| inside(even_steps(self.low, self.high)));
        chosen
            .into_iter()
            .map(|tick| {
                let time = Duration::from_secs_f64(tick);
                Tick { at: self.position(time), label: short_time(time) }
            })
            .collect()
    }
}

/// At least a nanosecond, as zero has no logarithm.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

fn steps(series: &[f64]) -> impl Iterator<Item = f64> {
    (-9..=4).flat_map(move |power| series.iter().map(move |step| step * 10_f64.powi(power)))
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn even_steps(low: f64, high: f64) -> Vec<f64> {
    let step = round_up((high - low) / 5.0);
    let first = (low / step).ceil();
    (0..=6).map(|number| (first + f64::from(number)) * step).collect()
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value * 0.999)
        .unwrap_or(10.0 * power)
}

/// A linear scale from zero.
#[derive(Clone, Copy, Debug)]
pub struct LinearScale {
    high: f64,
    step: f64,
}

impl LinearScale {
    /// A scale up to the round number above `high`, with about five ticks.
    pub fn up_to(high: f64) -> Self {
        // An axis of zeros ends at 1.
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_up(high / 5.0);
        Self { high: (high / step * 0.999).ceil() * step, step }
    }

    pub fn position(&self, value: f64) -> f64 {
        (value / self.high).clamp(0.0, 1.0)
    }

    /// Ticks whose labels have enough decimals to differ, and a unit.
    pub fn ticks(&self, unit: &str) -> Vec<Tick> {
        let count = (self.high / self.step).round() as u32;
        let tick = |number| {
            let value = f64::from(number) * self.step;
            Tick { at: self.position(value), label: short_count(value, self.step, self.high) + unit }
        };
        (0..=count).map(tick).collect()
    }
}

/// The ticks of a time axis from 0 to `total_s`.
pub fn elapsed_ticks(total_s: f64) -> Vec<Tick> {
    let whole = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0];
    let hours = [1.0, 2.0, 6.0, 12.0, 24.0, 48.0, 120.0, 240.0].map(|hours| hours * 3600.0);
    let step = match total_s {
        0.0..=3.0 => round_up(total_s / 6.0),
        _ => whole.into_iter().chain(hours).find(|step| total_s / step <= 6.5).unwrap_or(total_s),
    };
    let count = (total_s / step.max(1e-6) * 1.001).floor() as u32;
    (0..=count)
        .map(|number| {
            let at_s = f64::from(number) * step;
            Tick { at: (at_s / total_s).min(1.0), label: short_elapsed(at_s, step) }
        })
        .collect()
}

fn short_elapsed(at_s: f64, step_s: f64) -> String {
    match step_s {
        0.0..60.0 => format!("{} s", trimmed(at_s, 3)),
        0.0..3600.0 => format!("{} min", trimmed(at_s / 60.0, 0)),
        _ => format!("{} h", trimmed(at_s / 3600.0, 0)),
    }
}

/// Formats a number without trailing zeros.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// Formats a round time: `1 ms` rather than `1.00 ms`.
fn short_time(time: Duration) -> String {
    let text = format_duration(time);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Formats a multiple of `step` up to `high`, briefly if they are large, such as `150k`. All up to `high` have the same
/// unit, and enough decimals to be distinguished.
fn short_count(count: f64, step: f64, high: f64) -> String {
    let (divisor, suffix) = match high {
        ..1e4 => (1.0, ""),
        ..1e6 => (1e3, "k"),
        _ => (1e6, "M"),
    };
    let decimals = (-(step / divisor).log10()).ceil().clamp(0.0, 12.0) as usize;
    let count = count / divisor;
    match count {
        0.0 => "0".to_string(),
        1000.0.. => format_count(count.round() as u64) + suffix,
        _ => trimmed(count, decimals) + suffix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.at)), "{ticks:?}");
        assert!(ticks.windows(2).all(|pair| pair[0].at < pair[1].at), "{ticks:?}");
        ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn logarithmic_axes_have_round_ends_and_enough_marks() {
        let us = Duration::from_micros;
        for (low, high, expected) in [
            (us(30), us(70), &["20 µs", "50 µs", "100 µs"][..]),
            (us(60), us(60), &["50 µs", "60 µs", "70 µs", "80 µs", "90 µs", "100 µs"]),
            (us(12), us(900_000), &["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]),
            (us(1000), us(2000), &["1 ms", "1.2 ms", "1.4 ms", "1.6 ms", "1.8 ms", "2 ms"]),
        ] {
            let scale = LogScale::around(low, high);
            assert_eq!(labels(&scale.ticks()), expected);
            assert!(scale.position(low) < scale.position(high) || low == high);
        }
        let scale = LogScale::exact(us(40), us(5230));
        assert_eq!(labels(&scale.ticks()), ["50 µs", "100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
        assert_eq!((scale.position(us(40)), scale.position(us(5230))), (0.0, 1.0));
        assert_eq!(LogScale::exact(Duration::ZERO, Duration::ZERO).position(us(0)), 0.0);
    }

    #[test]
    fn rates_begin_at_zero() {
        let scale = LinearScale::up_to(151_000.0);
        assert_eq!(labels(&scale.ticks("")), ["0", "50k", "100k", "150k", "200k"]);
        assert_eq!(labels(&LinearScale::up_to(7000.0).ticks("")), ["0", "2,000", "4,000", "6,000", "8,000"]);
        assert_eq!(labels(&LinearScale::up_to(12_345.0).ticks("")), ["0", "5k", "10k", "15k"]);
        assert_eq!(
            labels(&LinearScale::up_to(2_400_000.0).ticks("/s")),
            ["0/s", "0.5M/s", "1M/s", "1.5M/s", "2M/s", "2.5M/s"]
        );
    }

    #[test]
    fn labels_differ_however_small_or_large_the_values_are() {
        for high in [0.0, 1e-9, 0.004, 0.05, 0.7, 1.0, 3.0, 12.0, 999.0, 9_999.0, 12_345.0, 1.2e6, 3e9] {
            let ticks = LinearScale::up_to(high).ticks("");
            let labels = labels(&ticks);
            assert!(labels.len() >= 4, "{high}: {labels:?}");
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{high}: {labels:?}");
        }
    }

    #[test]
    fn the_seconds_of_a_run_are_marked_in_round_numbers() {
        assert_eq!(labels(&elapsed_ticks(0.5)), ["0 s", "0.1 s", "0.2 s", "0.3 s", "0.4 s", "0.5 s"]);
        assert_eq!(labels(&elapsed_ticks(10.0)), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]);
        assert_eq!(labels(&elapsed_ticks(301.0)), ["0 min", "1 min", "2 min", "3 min", "4 min", "5 min"]);
        assert_eq!(labels(&elapsed_ticks(86_400.0)).last(), Some(&"24 h"));
    }
}
