//! Steps of an open loop: rates that are held, or that change linearly, one after the other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::parse_duration;
use crate::rate::Rate;

/// The longest step: a day. The sums for a longer linear step could exceed 128 bits.
pub const STEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// The expected format, for error messages.
const FORM: &str = "expected rates and how long each lasts, such as 10k,20k,40k:30s, \
                    or 1k..50k:1m for a rate that changes linearly";

/// A rate, constant or changing linearly.
///
/// # Examples
///
/// ```
/// use ringspun_load::{Rate, Rates};
///
/// assert_eq!("50k".parse(), Ok(Rates { from: Rate::per_s(50_000), to: Rate::per_s(50_000) }));
/// assert_eq!("30/m..2".parse(), Ok(Rates { from: Rate::per_s_f64(0.5), to: Rate::per_s(2) }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The rate at the beginning.
    pub from: Rate,
    /// The rate at the end.
    pub to: Rate,
}

impl FromStr for Rates {
    type Err = String;

    /// The error says what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from: from.parse()?, to: to.parse()? }),
            None => text.parse().map(|rate| Self { from: rate, to: rate }),
        }
    }
}

/// A part of an open loop with its own rate, which changes linearly if the two ends differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rate at its beginning.
    pub from: Rate,
    /// The rate at its end.
    pub to: Rate,
    /// Its length, up to [`STEP_MAX`].
    pub duration: Duration,
}

impl Step {
    /// Checks the values; the error names the one that is out of bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_constant = self.from == self.to;
        for rate in [self.from, self.to] {
            if is_constant || rate != Rate::ZERO {
                rate.check()?;
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
        // What a linear rate adds up to must fit into 128 bits.
        let ([from, to], _) = Rate::over_common_seconds([self.from, self.to]);
        let square = 4 * self.duration.as_nanos() * self.duration.as_nanos();
        if !is_constant && square.checked_mul(from.max(to).into()).is_none() {
            return Err(format!(
                "the step of {self} lasts {} s: expected whole requests per second, or less time",
                self.duration.as_secs()
            ));
        }
        Ok(())
    }
}

/// The rate without the duration: `10,000/s`, `1,000 to 50,000/s`, or `20/m to 5/s`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from != self.to {
            let (number, unit) = self.from.shown();
            let is_common = unit == self.to.shown().1 || self.from == Rate::ZERO;
            write!(f, "{number}{} to ", if is_common { "" } else { unit })?;
        }
        self.to.fmt(f)
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
/// use ringspun_load::{Rate, Step, parse_steps};
///
/// let steps = parse_steps("10k,20k:30s,1k..5k:1m").unwrap();
/// assert_eq!(steps.len(), 3);
/// assert_eq!((steps[0].duration, steps[1].duration), (Duration::from_secs(30), Duration::from_secs(30)));
/// let (from, to) = (Rate::per_s(1_000), Rate::per_s(5_000));
/// let rising = Step { from, to, duration: Duration::from_secs(60) };
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
        let Rates { from, to } = rates;
        steps.push(Step { from, to, duration: Duration::ZERO });
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
            ("", "requests per second"),
            ("fast:5s", "\"fast\""),
            ("10k:5", "with a unit"),
            ("1..:5s", "\"1..\""),
            ("10k:5s:6s", "with a unit"),
        ] {
            let error = parse_steps(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("such as 10k,20k,40k:30s"), "{text}: {error}");
        }
    }

    #[test]
    fn steps_may_have_fractions_of_requests_per_second() {
        let steps = parse_steps("0.5,20/m..5:1m,0..30/m:10s").unwrap();
        let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0.5/s", "20/m to 5/s", "0 to 0.5/s"]);
        assert!(steps.iter().all(|step| step.check().is_ok()));
        for (text, expected) in [
            ("0:1s", "the rate is 0/s: expected 1/h to"),
            ("0..0.5/h:1s", "the rate is 0.5/h: expected 1/h to"),
            ("1/h..1000M:24h", "expected whole requests per second, or less time"),
        ] {
            let error = parse_steps(text).unwrap()[0].check().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
