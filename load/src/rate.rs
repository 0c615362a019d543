//! Rates of requests, which may be less than one per second.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{format_count, parse_count_part};

/// A rate of requests, from 1 per hour to 1,000,000,000 per second, in steps of a thousandth of a request per hour; or
/// none at all.
///
/// As text, it is a number per second, optionally with `k` or `M`, or with a unit: `50k`, `0.5`, `0.5/s`, `30/m` or
/// `10/h`.
///
/// # Examples
///
/// ```
/// use ringspun_load::Rate;
///
/// assert_eq!("50k".parse(), Ok(Rate::per_s(50_000)));
/// assert_eq!("0.5/s".parse::<Rate>(), "30/m".parse());
/// assert_eq!("20/m".parse::<Rate>().unwrap().to_string(), "20/m");
/// assert_eq!(Rate::per_s(50_000).to_string(), "50,000/s");
/// assert!("fast".parse::<Rate>().unwrap_err().contains("such as 50k, 0.5 or 30/m"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Requests in [`SPAN_S`] seconds.
    requests: u64,
}

/// A thousand hours: rates per second, per minute and per hour are whole numbers of requests in it, also with three
/// decimals.
const SPAN_S: u64 = 3_600_000;
const FORM: &str =
    "expected requests per second, or with a unit per minute or hour, such as 50k, 0.5 or 30/m";

impl Rate {
    /// No requests, where a linear rate begins or ends.
    pub const ZERO: Self = Self { requests: 0 };
    /// The lowest rate other than zero: one request per hour.
    pub const MIN: Self = Self { requests: 1000 };
    /// The highest rate: 1,000,000,000 requests per second.
    pub const MAX: Self = Self { requests: 1_000_000_000 * SPAN_S };

    /// So many requests per second, at most [`Rate::MAX`].
    pub const fn per_s(requests: u64) -> Self {
        Self { requests: SPAN_S }.times(requests)
    }

    /// So many times this rate, at most [`Rate::MAX`].
    pub(crate) const fn times(self, factor: u64) -> Self {
        let requests = self.requests.saturating_mul(factor);
        if requests > Self::MAX.requests { Self::MAX } else { Self { requests } }
    }

    /// The nearest rate to so many requests per second, at most [`Rate::MAX`].
    pub fn per_s_f64(requests: f64) -> Self {
        // Saturates; what is no number becomes 0.
        Self { requests: (requests * SPAN_S as f64).round() as u64 }.min(Self::MAX)
    }

    /// The rate in requests per second.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!("30/m".parse::<ringspun_load::Rate>().unwrap().as_per_s(), 0.5);
    /// ```
    pub fn as_per_s(self) -> f64 {
        self.requests as f64 / SPAN_S as f64
    }

    /// The rate in requests per second, if that is a whole number.
    pub fn as_whole_per_s(self) -> Option<u64> {
        self.requests.is_multiple_of(SPAN_S).then_some(self.requests / SPAN_S)
    }

    /// Fails for rates that no open loop can have.
    pub(crate) fn check(self) -> Result<(), String> {
        match (Self::MIN..=Self::MAX).contains(&self) {
            true => Ok(()),
            false => Err(format!("the rate is {self}: expected {} to {}", Self::MIN, Self::MAX)),
        }
    }

    /// The rates as requests in a common number of seconds, which is the smallest possible, and 1 for whole rates per
    /// second.
    pub(crate) fn over_common_seconds<const N: usize>(rates: [Self; N]) -> ([u64; N], u64) {
        let common = rates.iter().fold(SPAN_S, |common, rate| greatest_common_divisor(rate.requests, common));
        (rates.map(|rate| rate.requests / common), SPAN_S / common)
    }

    /// The number and the unit, as shown.
    pub(crate) fn shown(self) -> (String, &'static str) {
        let units = [(1, "/s"), (60, "/m"), (3600, "/h")];
        let is_short = |seconds: &u64| (1000 * seconds * self.requests).is_multiple_of(SPAN_S);
        let is_shown =
            |(seconds, _): &&(u64, _)| self.requests >= Self::per_s(1).requests || is_short(seconds);
        let (seconds, unit) = units.iter().find(is_shown).unwrap_or(&units[2]);
        (format_rate(self.as_per_s() * *seconds as f64), unit)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A number with thousands separators and up to three decimals.
fn format_rate(number: f64) -> String {
    let thousandths = (number * 1000.0).round() as u64;
    let decimals = format!("{:03}", thousandths % 1000);
    match decimals.trim_end_matches('0') {
        "" => format_count(thousandths / 1000),
        decimals => format!("{}.{decimals}", format_count(thousandths / 1000)),
    }
}

/// The number with its unit: `50,000/s`, `0.5/s`, or `20/m` where that takes fewer decimals.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = self.shown();
        write!(f, "{number}{unit}")
    }
}

impl FromStr for Rate {
    type Err = String;

    /// The error says what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, seconds) = match text.split_once('/') {
            None | Some((_, "s")) => (text.strip_suffix("/s").unwrap_or(text), 1.0),
            Some((number, "m")) => (number, 60.0),
            Some((number, "h")) => (number, 3600.0),
            Some(_) => return Err(FORM.to_string()),
        };
        let requests = parse_count_part(number).ok_or(FORM)? / seconds * SPAN_S as f64;
        match requests.round() as u64 {
            0 if requests > 0.0 => Err(format!("is too low, expected {} or more", Self::MIN)),
            // Saturated values exceed the limit, too; whoever uses the rate checks it.
            requests => Ok(Self { requests }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_per_second_minute_and_hour() {
        for (text, requests, seconds, shown) in [
            ("0", 0, 1, "0/s"),
            ("1", 1, 1, "1/s"),
            ("50k", 50_000, 1, "50,000/s"),
            ("1.5k", 1500, 1, "1,500/s"),
            ("1000M", 1_000_000_000, 1, "1,000,000,000/s"),
            ("0.5", 1, 2, "0.5/s"),
            ("0.5/s", 1, 2, "0.5/s"),
            ("30/m", 1, 2, "0.5/s"),
            ("90/m", 3, 2, "1.5/s"),
            ("1/m", 1, 60, "1/m"),
            ("100/m", 5, 3, "1.667/s"),
            ("7/h", 7, 3600, "7/h"),
            ("1.2k/h", 1, 3, "20/m"),
            ("0.001", 1, 1000, "0.001/s"),
            ("1234.5", 2469, 2, "1,234.5/s"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(Rate::over_common_seconds([rate]), ([requests], seconds), "{text}");
            assert_eq!(rate.to_string(), shown, "{text}");
        }
        let rates = ["2/m", "1"].map(|text| text.parse().unwrap());
        assert_eq!(Rate::over_common_seconds(rates), ([1, 30], 30));
    }

    #[test]
    fn what_is_no_rate_gets_the_form_that_was_expected() {
        for text in ["", "/s", "1/", "1/d", "1/s/s", "-1", "1e3", "1,000", "50K", "inf", "1..2", "k/m"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("such as 50k, 0.5 or 30/m"), "{text}: {error}");
        }
        assert!("0.00000001".parse::<Rate>().unwrap_err().contains("expected 1/h or more"));
        for text in ["0", "0.9/h", "1001M", "999999999999999M"] {
            let error = text.parse::<Rate>().unwrap().check().unwrap_err();
            assert!(error.contains("expected 1/h to 1,000,000,000/s"), "{text}: {error}");
        }
    }
}
