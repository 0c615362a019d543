//! Steps of an open loop: rates that are held, or that change linearly, one after the other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::{format_count, parse_count, parse_duration};

/// The highest rate of an open loop, in requests per second.
pub const RATE_MAX_PER_S: u64 = 1_000_000_000;
/// The longest step: a day. The sums for a longer linear step could exceed 128 bits.
pub const STEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// The expected format, for error messages.
const FORM: &str = "expected rates in requests per second and how long each lasts, such as 10k,20k,40k:30s, \
                    or 1k..50k:1m for a rate that changes linearly";

/// A rate in requests per second, constant or changing linearly.
///
/// # Examples
///
/// ```
/// use ringspun_load::Rates;
///
/// assert_eq!("50k".parse(), Ok(Rates { from_per_s: 50_000, to_per_s: 50_000 }));
/// assert_eq!("1k..50k".parse(), Ok(Rates { from_per_s: 1_000, to_per_s: 50_000 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The rate at the beginning.
    pub from_per_s: u64,
    /// The rate at the end.
    pub to_per_s: u64,
}

impl FromStr for Rates {
    type Err = String;

    /// The error says what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from_per_s: parse_count(from)?, to_per_s: parse_count(to)? }),
            None => parse_count(text).map(|rate_per_s| Self { from_per_s: rate_per_s, to_per_s: rate_per_s }),
        }
    }
}

/// A part of an open loop with its own rate, which changes linearly if the two ends differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Requests per second at its beginning.
    pub from_per_s: u64,
    /// Requests per second at its end.
    pub to_per_s: u64,
    /// Its length, up to [`STEP_MAX`].
    pub duration: Duration,
}

impl Step {
    /// Checks the values; the error names the one that is out of bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        for rate_per_s in [self.from_per_s, self.to_per_s] {
            if rate_per_s > RATE_MAX_PER_S || self.from_per_s + self.to_per_s == 0 {
                return Err(format!("the rate is {rate_per_s} requests/s: expected 1 to {RATE_MAX_PER_S}"));
            }
        }
        if self.duration.is_zero() {
            return Err(format!("the step of {self} lasts 0 s: expected more"));
        }
        if self.duration > STEP_MAX {
            return Err(format!(
                "the step of {self} lasts {} s: expected a day or less",
                self.duration.as_secs()
            ));
        }
        Ok(())
    }
}

/// The rate without the duration: `10,000/s`, or `1,000 to 50,000/s`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from_per_s != self.to_per_s {
            write!(f, "{} to ", format_count(self.from_per_s))?;
        }
        write!(f, "{}/s", format_count(self.to_per_s))
    }
}

/// Parses steps: rates separated by commas. A colon and a duration after a rate apply to it and to the rates
/// before it that have no duration of their own.
///
/// # Errors
///
/// A message that says what was expected; callers put the value in front of it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringspun_load::{Step, parse_steps};
///
/// let steps = parse_steps("10k,20k:30s,1k..5k:1m").unwrap();
/// assert_eq!(steps.len(), 3);
/// assert_eq!((steps[0].duration, steps[1].duration), (Duration::from_secs(30), Duration::from_secs(30)));
/// let rising = Step { from_per_s: 1_000, to_per_s: 5_000, duration: Duration::from_secs(60) };
/// assert_eq!(steps[2], rising);
/// ```
pub fn parse_steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut untimed = 0;
    for part in text.split(',') {
        let (rates, duration) = match part.split_once(':') {
            Some((rates, duration)) => {
                let duration =
                    parse_duration(duration).map_err(|error| format!("{duration:?}: {error}; {FORM}"))?;
                (rates, Some(duration))
            }
            None => (part, None),
        };
        let rates: Rates = rates.parse().map_err(|error| format!("{rates:?}: {error}; {FORM}"))?;
        let Rates { from_per_s, to_per_s } = rates;
        steps.push(Step { from_per_s, to_per_s, duration: Duration::ZERO });
        if let Some(duration) = duration {
            steps[untimed..].iter_mut().for_each(|step| step.duration = duration);
            untimed = steps.len();
        }
    }
    match untimed == steps.len() {
        true => Ok(steps),
        false => Err(format!("the last step has no duration, {FORM}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_are_no_steps_gets_the_form_that_was_expected() {
        for (text, expected) in [
            ("10k,20k", "the last step has no duration"),
            ("10k:5s,20k", "the last step has no duration"),
            ("", "whole number"),
            ("fast:5s", "\"fast\""),
            ("10k:5", "with a unit"),
            ("1..:5s", "\"1..\""),
            ("10k:5s:6s", "with a unit"),
        ] {
            let error = parse_steps(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("such as 10k,20k,40k:30s"), "{text}: {error}");
        }
    }
}
