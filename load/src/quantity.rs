//! Parses and formats durations, counts and sizes.

use std::time::Duration;

/// The expected format of a duration, for error messages.
const DURATION_FORM: &str =
    "expected numbers with a unit (ns, us, ms, s, m or h), such as 500us, 3s or 1h30m";
/// The expected format of a count, for error messages.
const COUNT_FORM: &str = "expected a whole number, with k for thousands or M for millions, such as 64 or 50k";

/// Parses a duration: a decimal number with the unit `ns`, `us` (or `µs`), `ms`, `s`, `m` or `h`, or several with
/// descending units.
///
/// # Errors
///
/// A message that says what was expected; callers put the value in front of it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(ringspun_load::parse_duration("500us"), Ok(Duration::from_micros(500)));
/// assert_eq!(ringspun_load::parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(ringspun_load::parse_duration("3").unwrap_err().contains("with a unit"));
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (mut rest, mut seconds, mut last_unit_s) = (text, 0.0, f64::INFINITY);
    while !rest.is_empty() || last_unit_s.is_infinite() {
        let unit_at = rest.find(char::is_alphabetic).ok_or(DURATION_FORM)?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_end = behind.find(|letter: char| !letter.is_alphabetic()).unwrap_or(behind.len());
        let unit_s = match &behind[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(DURATION_FORM.to_string()),
        };
        let value = parse_decimal(number).filter(|_| unit_s < last_unit_s).ok_or(DURATION_FORM)?;
        seconds += value * unit_s;
        (rest, last_unit_s) = (&behind[unit_end..], unit_s);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("is too long, {DURATION_FORM}"))
}

/// Parses a count: a number, optionally with the suffix `k` or `M`. `1.5k` is 1,500.
///
/// # Errors
///
/// As [`parse_duration`].
///
/// # Examples
///
/// ```
/// assert_eq!(ringspun_load::parse_count("50k"), Ok(50_000));
/// assert_eq!(ringspun_load::parse_count("1.5M"), Ok(1_500_000));
/// ```
pub fn parse_count(text: &str) -> Result<u64, String> {
    let value = parse_count_part(text).ok_or(COUNT_FORM)?;
    // Above 2^53, f64 does not represent every integer.
    if value.fract() != 0.0 || value > (1_u64 << f64::MANTISSA_DIGITS) as f64 {
        return Err(COUNT_FORM.to_string());
    }
    Ok(value as u64)
}

/// A number that need not be whole, optionally with the suffix `k` or `M`.
pub(crate) fn parse_count_part(text: &str) -> Option<f64> {
    let (number, factor) = match text.strip_suffix('k') {
        Some(number) => (number, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |number| (number, 1e6)),
    };
    Some(parse_decimal(number)? * factor)
}

/// Digits with at most one point. Other formats of `f64`, such as `inf` and `1e9`, are rejected as mistakes.
fn parse_decimal(text: &str) -> Option<f64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_decimal)
}

/// Formats a duration with three digits and a unit, such as `12.3 ms`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(ringspun_load::format_duration(Duration::from_nanos(12_345_678)), "12.3 ms");
/// ```
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos() as f64;
    let (value, unit) = match nanoseconds {
        0.0..999.5 => (nanoseconds, "ns"),
        0.0..999.5e3 => (nanoseconds / 1e3, "µs"),
        0.0..999.5e6 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    let decimals = match value {
        _ if unit == "ns" => 0,
        0.0..9.995 => 2,
        0.0..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Formats a number of bytes with three digits and a decimal unit, such as `12.3 MB`.
///
/// # Examples
///
/// ```
/// assert_eq!(ringspun_load::format_bytes(12_345_678.0), "12.3 MB");
/// ```
pub fn format_bytes(bytes: f64) -> String {
    let (value, unit) = match bytes {
        ..999.5 => return format!("{bytes:.0} B"),
        ..999.5e3 => (bytes / 1e3, "kB"),
        ..999.5e6 => (bytes / 1e6, "MB"),
        _ => (bytes / 1e9, "GB"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Formats an integer with thousands separators, such as `1,234,567`.
///
/// # Examples
///
/// ```
/// assert_eq!(ringspun_load::format_count(1_234_567), "1,234,567");
/// ```
pub fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Formats a measured number per second: whole with thousands separators, and below 100 with up to two decimals.
///
/// # Examples
///
/// ```
/// assert_eq!(ringspun_load::format_per_s(12_345.6), "12,346");
/// assert_eq!(ringspun_load::format_per_s(0.5), "0.5");
/// ```
pub fn format_per_s(per_s: f64) -> String {
    match per_s {
        0.0..99.995 => format!("{per_s:.2}").trim_end_matches('0').trim_end_matches('.').to_string(),
        _ => format_count(per_s.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_a_unit() {
        for (text, nanoseconds) in [
            ("0s", 0),
            ("7ns", 7),
            ("500us", 500_000),
            ("3s", 3_000_000_000),
            ("0.5ms", 500_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m0.5s", 60_500_000_000),
            ("5µs", 5_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_gets_the_form_that_was_expected() {
        for text in [
            "",
            "3",
            "s",
            "3 s",
            "-3s",
            "3sec",
            "1e3s",
            "infs",
            "3..0s",
            "99999999999999999999h",
            "30m1h",
            "1s1s",
            "1h30",
            "s1",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains("such as 500us, 3s or 1h30m"), "{text}: {error}");
        }
    }

    #[test]
    fn counts_take_thousands_and_millions() {
        for (text, count) in [("0", 0), ("64", 64), ("50k", 50_000), ("1.5k", 1500), ("2M", 2_000_000)] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "k", "-1", "1.5", "0.0001k", "50K", "1e3", "1,000", "99999999999999999999"] {
            let error = parse_count(text).unwrap_err();
            assert!(error.contains("such as 64 or 50k"), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_shown_with_three_digits() {
        for (nanoseconds, shown) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_340, "12.3 µs"),
            (99_960, "100 µs"),
            (999_700, "1.00 ms"),
            (123_456_789, "123 ms"),
            (61_000_000_000, "61.0 s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanoseconds)), shown);
        }
    }

    #[test]
    fn bytes_are_shown_with_three_digits() {
        for (bytes, shown) in [
            (0.0, "0 B"),
            (999.4, "999 B"),
            (999.6, "1.00 kB"),
            (12_340.0, "12.3 kB"),
            (999_700.0, "1.00 MB"),
            (123_456_789.0, "123 MB"),
            (61e9, "61.0 GB"),
        ] {
            assert_eq!(format_bytes(bytes), shown);
        }
    }

    #[test]
    fn counts_are_shown_with_commas() {
        for (count, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (123_456_789, "123,456,789")] {
            assert_eq!(format_count(count), shown);
        }
    }
}
