//! HTTP statuses: sets of expected ones, and counts.

use std::fmt;
use std::str::FromStr;

use crate::quantity::format_count;

/// The lowest status; responses have no other ones.
const MIN: u16 = 100;
/// The highest status.
const MAX: u16 = 599;
/// The number of statuses.
const COUNT: usize = (MAX - MIN) as usize + 1;

/// The expected format, for error messages.
const FORM: &str = "expected statuses from 100 to 599 such as 200,404, with ranges such as 200-299 or 2xx";

/// A set of HTTP statuses. The default is all of 2xx and 3xx.
///
/// # Examples
///
/// ```
/// use ringspun_load::StatusSet;
///
/// let expected: StatusSet = "200,404,5xx".parse().unwrap();
/// assert!(expected.contains(404) && expected.contains(503) && !expected.contains(201));
/// assert_eq!(expected.to_string(), "200,404,500-599");
/// assert_eq!(StatusSet::default().to_string(), "200-399");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet {
    /// A bit for each status, from the lowest.
    words: [u64; COUNT.div_ceil(64)],
}

impl Default for StatusSet {
    fn default() -> Self {
        let mut set = Self::empty();
        set.add(200, 399);
        set
    }
}

impl StatusSet {
    fn empty() -> Self {
        Self { words: [0; COUNT.div_ceil(64)] }
    }

    /// Whether a status is in the set.
    #[inline]
    pub fn contains(&self, status: u16) -> bool {
        let bit = usize::from(status.wrapping_sub(MIN));
        self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Adds the statuses of a range, which must be valid.
    fn add(&mut self, first: u16, last: u16) {
        for bit in usize::from(first - MIN)..=usize::from(last - MIN) {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }
}

impl FromStr for StatusSet {
    type Err = String;

    /// The error says what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = Self::empty();
        for part in text.split(',') {
            let (first, last) = parse_range(part.trim()).ok_or_else(|| format!("{part:?}: {FORM}"))?;
            set.add(first, last);
        }
        Ok(set)
    }
}

/// A status, a range, or a class such as `2xx`.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|status| is_number && (MIN..=MAX).contains(status))
    };
    if let Some(class) = text.strip_suffix("xx") {
        return Some((number(&format!("{class}00"))?, number(&format!("{class}99"))?));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut status = MIN;
        while status <= MAX {
            let first = status;
            while self.contains(status) {
                status += 1;
            }
            match status - first {
                0 => {
                    status += 1;
                    continue;
                }
                1 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{}", status - 1)?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Counts of responses by HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCounts {
    /// A count for each status.
    counts: Vec<u64>,
}

impl Default for StatusCounts {
    fn default() -> Self {
        Self { counts: vec![0; COUNT] }
    }
}

impl StatusCounts {
    /// Counts a response.
    #[inline]
    pub(crate) fn note(&mut self, status: u16) {
        if let Some(count) = self.counts.get_mut(usize::from(status.wrapping_sub(MIN))) {
            *count += 1;
        }
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, others) in self.counts.iter_mut().zip(&other.counts) {
            *count += others;
        }
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts);
        Self { counts: counts.map(|(count, earlier)| count.saturating_sub(*earlier)).collect() }
    }

    /// The number of responses with a status of a set.
    pub fn count_in(&self, set: &StatusSet) -> u64 {
        self.iter().filter(|(status, _)| set.contains(*status)).map(|(_, count)| count).sum()
    }

    /// The number of responses.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The statuses that occurred, in ascending order, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        (MIN..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

/// The statuses and their counts: `12 of 200, 3 of 503`.
impl fmt::Display for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (status, count)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} of {status}", format_count(count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_back_as_they_are_written() {
        for text in ["200", "200,404", "100-599", "200-299,304,500-503"] {
            assert_eq!(text.parse::<StatusSet>().unwrap().to_string(), text);
        }
        assert_eq!("2xx,3xx".parse(), Ok(StatusSet::default()));
        let set: StatusSet = "100,599".parse().unwrap();
        assert_eq!(
            [99, 100, 101, 598, 599, 600, 0].map(|status| set.contains(status)),
            [false, true, false, false, true, false, false]
        );
    }

    #[test]
    fn invalid_statuses_get_the_format_that_was_expected() {
        for text in ["", "20", "2000", "600", "6xx", "299-200", "200,", "+20", "2x"] {
            let error = text.parse::<StatusSet>().unwrap_err();
            assert!(error.contains("such as 200,404"), "{text}: {error}");
        }
    }

    #[test]
    fn counts_are_added_and_subtracted() {
        let mut counts = StatusCounts::default();
        [200, 503, 200, 99, 600].iter().for_each(|status| counts.note(*status));
        let earlier = counts.clone();
        counts.note(404);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(200, 2), (404, 1), (503, 1)]);
        assert_eq!(counts.since(&earlier).to_string(), "1 of 404");
        counts.add(&earlier);
        assert_eq!(counts.to_string(), "4 of 200, 1 of 404, 2 of 503");
    }
}
