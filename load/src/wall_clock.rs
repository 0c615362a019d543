//! Parses points in time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The expected format, for error messages.
const FORM: &str =
    "expected a time such as 2030-01-31T12:00:00Z or 2030-01-31T12:00:00+01:00, or seconds since 1970";
const DAY_S: u64 = 24 * 3600;

/// Parses a point in time: RFC 3339 with `Z` or an offset, or seconds since 1970 (as printed by `date +%s`),
/// optionally with a fraction. A leap second counts as the second after it.
///
/// # Errors
///
/// A message that says what was expected; callers put the value in front of it.
///
/// # Examples
///
/// ```
/// use ringspun_load::parse_time;
///
/// assert_eq!(parse_time("2030-01-31T13:00:00+01:00"), parse_time("2030-01-31T12:00:00Z"));
/// assert_eq!(parse_time("1896091200.5"), parse_time("2030-01-31T12:00:00.5Z"));
/// assert!(parse_time("tomorrow").unwrap_err().contains("seconds since 1970"));
/// ```
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    let since_1970 = parse_seconds(text).or_else(|| parse_rfc3339(text)).ok_or(FORM)?;
    UNIX_EPOCH.checked_add(since_1970).ok_or_else(|| FORM.to_string())
}

fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    Some(Duration::new(digits(whole)?, parse_fraction_ns(fraction)?))
}

/// `YYYY-MM-DDTHH:MM:SS`, an optional fraction, and `Z` or an offset; not before 1970.
fn parse_rfc3339(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local_s = days_since_1970(year, month, day)? * DAY_S + hour * 3600 + minute * 60 + second;
    let seconds = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => Some(local_s),
        ("+", offset) => local_s.checked_sub(offset_s(offset)?),
        ("-", offset) => local_s.checked_add(offset_s(offset)?),
        _ => None,
    };
    Some(Duration::new(seconds?, parse_fraction_ns(fraction)?))
}

fn offset_s(text: &str) -> Option<u64> {
    let [hour, minute] = fields(text, ':', [2, 2])?;
    (hour < 24 && minute < 60).then_some(hour * 3600 + minute * 60)
}

/// Numbers with fixed numbers of digits, with separators between them.
fn fields<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[u64; N]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let mut values = [0; N];
    for (index, length) in lengths.into_iter().enumerate() {
        values[index] = digits(parts.get(index).filter(|part| part.len() == length)?)?;
    }
    (parts.len() == N).then_some(values)
}

fn digits(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Decimals, truncated after the ninth digit.
fn parse_fraction_ns(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let nine: String = text.chars().chain("000000000".chars()).take(9).collect();
    nine.parse().ok().filter(|_| is_number)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let (before, rest) = months.split_at(month as usize - 1);
    if !(1..=rest[0]).contains(&day) {
        return None;
    }
    // The number of leap years from 1 up to a year.
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(years + before.iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_date_writes_them() {
        // As `date -u -d TIME +%s` says.
        for (text, seconds) in [
            ("0", 0.0),
            ("1790000000.25", 1_790_000_000.25),
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T23:59:59Z", 951_868_799.0),
            ("2000-03-01t00:00:00z", 951_868_800.0),
            ("2026-11-23 05:30:00.5Z", 1_795_411_800.5),
            ("2100-03-01T00:00:00Z", 4_107_542_400.0),
            ("2026-11-23T05:30:00-08:30", 1_795_442_400.0),
            ("2026-11-23T05:30:00+05:30", 1_795_392_000.0),
        ] {
            let expected = UNIX_EPOCH + Duration::from_secs_f64(seconds);
            assert_eq!(parse_time(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_gets_the_form_that_was_expected() {
        for text in [
            "",
            "now",
            "-1",
            "1e9",
            "1.",
            "12:00",
            "2026-11-23",
            "2026-11-23T05:30:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00:00+1",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999999",
            "2026-01-01T00:00:00Zé",
            "2026-01-01Té",
        ] {
            let error = parse_time(text).unwrap_err();
            assert!(error.contains("2030-01-31T12:00:00Z"), "{text}: {error}");
        }
    }
}
