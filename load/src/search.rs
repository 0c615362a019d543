//! The search for the highest rate at which trials hold.
//!
//! A trial is a run at a rate; its verdict is random near the rate that is looked for, and may be wrong anywhere, if
//! something else disturbs the machine. So a trial that fails is repeated, and two of three decide; and what the search
//! finds is confirmed by fresh trials, most of which must hold.

use std::ops::ControlFlow;

use crate::rate::Rate;

/// What is searched, and how thoroughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchBounds {
    /// The first rate; from there, the rate is doubled or halved.
    pub from: Rate,
    /// The highest rate.
    pub max: Rate,
    /// How close to the highest rate that holds the search gets, in percent of it.
    pub within_percent: f64,
    /// How many trials confirm the result; most of them must hold.
    pub confirmations: u32,
}

/// The lowest rate of a search: 0.01 per second.
const LOWEST: Rate = Rate::MIN.times(36);

/// The nearest rate that is tried: a whole one from 100 per second on, and otherwise one in hundredths.
fn tried(per_s: f64) -> Rate {
    let steps_per_one = if per_s >= 100.0 { 1.0 } else { 100.0 };
    Rate::per_s_f64((per_s * steps_per_one).round() / steps_per_one)
}

impl Default for SearchBounds {
    /// From 1,000 requests per second to the highest possible rate, within 2 %, confirmed by 5 trials.
    fn default() -> Self {
        Self { from: Rate::per_s(1000), max: Rate::MAX, within_percent: 2.0, confirmations: 5 }
    }
}

impl SearchBounds {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Self { from, max, within_percent, confirmations } = self;
        if !(LOWEST..=Rate::MAX).contains(max) {
            return Err(format!("the search ends at {max}: expected {LOWEST} to {}", Rate::MAX));
        }
        if !(LOWEST..=*max).contains(from) {
            return Err(format!("the search starts at {from}: expected {LOWEST} to its end, {max}"));
        }
        if !(0.1..=50.0).contains(within_percent) {
            return Err(format!("the search is to get within {within_percent}%: expected 0.1% to 50%"));
        }
        match confirmations {
            1..=100 => Ok(()),
            _ => Err(format!("{confirmations} trials to confirm: expected 1 to 100")),
        }
    }

    /// The lowest rate that is tried: 1 per second, unless the search starts below.
    fn lowest(&self) -> Rate {
        if self.from >= Rate::per_s(1) { Rate::per_s(1) } else { LOWEST }
    }

    /// The geometric mean of two rates; `None` if no rate worth trying is between them.
    fn between(&self, low: Rate, high: Rate) -> Option<Rate> {
        let (low_per_s, high_per_s) = (low.as_per_s(), high.as_per_s());
        let middle = tried((low_per_s * high_per_s).sqrt());
        let is_far = high_per_s - low_per_s > low_per_s * self.within_percent / 100.0;
        (is_far && low < middle && middle < high).then_some(middle)
    }
}

/// Why a trial was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialPurpose {
    /// To find a rate that holds and one that does not: the rate was doubled, or halved.
    Bracket,
    /// To narrow the range between two such rates.
    Narrow,
    /// To confirm the result.
    Confirm,
}

impl TrialPurpose {
    /// A stable identifier.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bracket => "bracket",
            Self::Narrow => "narrow",
            Self::Confirm => "confirm",
        }
    }
}

/// The highest rate that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The rate.
    pub rate: Rate,
    /// How many of the trials that confirmed it held.
    pub held: u32,
    /// How many trials confirmed it.
    pub confirmations: u32,
}

impl Found {
    /// How sure it is that trials at this rate hold more often than not, in percent: a rate at which they do not would
    /// show so many that hold with the remaining probability, or less (sign test).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::{Found, Rate};
    ///
    /// let found = Found { rate: Rate::per_s(1000), held: 5, confirmations: 5 };
    /// assert_eq!(found.confidence_percent(), 96.875);
    /// ```
    pub fn confidence_percent(&self) -> f64 {
        let mut ways = 1.0;
        let mut tail = 0.0;
        for failed in 0..=self.confirmations.saturating_sub(self.held) {
            tail += ways;
            ways = ways * f64::from(self.confirmations - failed) / f64::from(failed + 1);
        }
        100.0 * (1.0 - tail / 2_f64.powi(self.confirmations as i32))
    }
}

/// What a search has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// The highest rate that holds; `None` if the lowest that was tried fails, and if the search was stopped before
    /// anything was confirmed.
    pub found: Option<Found>,
    /// The lowest rate that fails; `None` if none that was tried does.
    pub fails_at: Option<Rate>,
    /// Whether the search was stopped early. Then `found` is missing.
    pub was_stopped: bool,
}

/// Searches for the highest rate at which trials hold, which a trial at a lower rate also does. `trial` runs one and
/// returns whether it held, or breaks off the search.
///
/// The rate is doubled from the first one until a trial fails, or halved until one holds, and then the range between
/// the two is narrowed by its geometric mean. A trial that fails is repeated: a rate fails if two of three do. The
/// result is confirmed by fresh trials, most of which must hold; otherwise that rate fails, too, and the search goes on
/// below it.
///
/// # Examples
///
/// ```
/// use std::ops::ControlFlow;
///
/// use ringspun_load::{Rate, SearchBounds, search};
///
/// // A server that takes 12,345 requests per second.
/// let capacity = Rate::per_s(12_345);
/// let result = search(&SearchBounds::default(), |rate, _| ControlFlow::Continue(rate <= capacity));
/// let found = result.found.unwrap();
/// assert!((Rate::per_s(12_098)..=capacity).contains(&found.rate));
/// assert_eq!((found.held, found.confirmations), (5, 5));
/// ```
pub fn search(
    bounds: &SearchBounds,
    trial: impl FnMut(Rate, TrialPurpose) -> ControlFlow<(), bool>,
) -> SearchResult {
    let mut searcher = Searcher { bounds, trial, held: Vec::new(), fails_at: None };
    let (found, was_stopped) = match searcher.search() {
        ControlFlow::Continue(found) => (found, false),
        ControlFlow::Break(()) => (None, true),
    };
    SearchResult { found, fails_at: searcher.fails_at, was_stopped }
}

struct Searcher<'a, F> {
    bounds: &'a SearchBounds,
    trial: F,
    /// Rates that held, ascending; all are below the one that fails.
    held: Vec<Rate>,
    fails_at: Option<Rate>,
}

impl<F: FnMut(Rate, TrialPurpose) -> ControlFlow<(), bool>> Searcher<'_, F> {
    fn search(&mut self) -> ControlFlow<(), Option<Found>> {
        let mut rate = self.bounds.from;
        let mut purpose = TrialPurpose::Bracket;
        loop {
            match self.holds(rate, purpose)? {
                true => self.held.push(rate),
                false => self.fails_at = Some(rate),
            }
            loop {
                match self.next() {
                    Some(next) => (rate, purpose) = next,
                    None => return ControlFlow::Continue(None),
                }
                if purpose != TrialPurpose::Confirm {
                    break;
                }
                if let Some(found) = self.confirm(rate)? {
                    return ControlFlow::Continue(Some(found));
                }
                // Above what holds with fewer trials may be what does not.
                self.held.pop();
                self.fails_at = Some(rate);
            }
        }
    }

    /// The next rate, and what for; `None` if nothing is left to try.
    fn next(&self) -> Option<(Rate, TrialPurpose)> {
        let low = self.held.last().copied();
        Some(match (low, self.fails_at) {
            (Some(low), None) if low >= self.bounds.max => (low, TrialPurpose::Confirm),
            (low, None) => {
                let doubled = low.unwrap_or(self.bounds.from).times(2);
                (doubled.min(self.bounds.max), TrialPurpose::Bracket)
            }
            (None, Some(high)) if high <= self.bounds.lowest() => return None,
            (None, Some(high)) => {
                (tried(high.as_per_s() / 2.0).max(self.bounds.lowest()), TrialPurpose::Bracket)
            }
            (Some(low), Some(high)) => match self.bounds.between(low, high) {
                Some(middle) => (middle, TrialPurpose::Narrow),
                None => (low, TrialPurpose::Confirm),
            },
        })
    }

    /// Whether a rate holds: if the first trial does, or two of three.
    fn holds(&mut self, rate: Rate, purpose: TrialPurpose) -> ControlFlow<(), bool> {
        let mut trial = || (self.trial)(rate, purpose);
        ControlFlow::Continue(trial()? || (trial()? && trial()?))
    }

    /// Confirms a rate, or finds that most trials at it do not hold.
    fn confirm(&mut self, rate: Rate) -> ControlFlow<(), Option<Found>> {
        let confirmations = self.bounds.confirmations;
        let (mut held, mut failed) = (0, 0);
        while held + failed < confirmations {
            match (self.trial)(rate, TrialPurpose::Confirm)? {
                true => held += 1,
                false => failed += 1,
            }
            if 2 * failed >= confirmations {
                return ControlFlow::Continue(None);
            }
        }
        ControlFlow::Continue(Some(Found { rate, held, confirmations }))
    }
}

#[cfg(test)]
mod tests;
