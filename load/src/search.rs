//! The search for the highest rate at which trials hold.
//!
//! A trial is a run at a rate; its verdict is random near the rate that is looked for, and may be wrong anywhere, if
//! something else disturbs the machine. So a trial that fails is repeated, and two of three decide; and what the search
//! finds is confirmed by fresh trials, most of which must hold.

use std::ops::ControlFlow;

use crate::steps::RATE_MAX_PER_S;

/// What is searched, and how thoroughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchBounds {
    /// The first rate, in requests per second; from there, the rate is doubled or halved.
    pub from_per_s: u64,
    /// The highest rate.
    pub max_per_s: u64,
    /// How close to the highest rate that holds the search gets, in percent of it.
    pub within_percent: f64,
    /// How many trials confirm the result; most of them must hold.
    pub confirmations: u32,
}

impl Default for SearchBounds {
    /// From 1,000 requests per second to the highest possible rate, within 2 %, confirmed by 5 trials.
    fn default() -> Self {
        Self { from_per_s: 1000, max_per_s: RATE_MAX_PER_S, within_percent: 2.0, confirmations: 5 }
    }
}

impl SearchBounds {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Self { from_per_s, max_per_s, within_percent, confirmations } = self;
        if !(1..=RATE_MAX_PER_S).contains(max_per_s) {
            return Err(format!("the search ends at {max_per_s} requests/s: expected 1 to {RATE_MAX_PER_S}"));
        }
        if !(1..=*max_per_s).contains(from_per_s) {
            return Err(format!(
                "the search starts at {from_per_s} requests/s: expected 1 to its end, {max_per_s}"
            ));
        }
        if !(0.1..=50.0).contains(within_percent) {
            return Err(format!("the search is to get within {within_percent}%: expected 0.1% to 50%"));
        }
        match confirmations {
            1..=100 => Ok(()),
            _ => Err(format!("{confirmations} trials to confirm: expected 1 to 100")),
        }
    }

    /// Whether no rate worth trying is between two.
    fn is_close(&self, low: u64, high: u64) -> bool {
        high - low <= 1 || (high - low) as f64 <= low as f64 * self.within_percent / 100.0
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
    /// Requests per second.
    pub rate_per_s: u64,
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
    /// let found = ringspun_load::Found { rate_per_s: 1000, held: 5, confirmations: 5 };
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
    /// The lowest rate that fails, in requests per second; `None` if none that was tried does.
    pub fails_at_per_s: Option<u64>,
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
/// use ringspun_load::{SearchBounds, search};
///
/// // A server that takes 12,345 requests per second.
/// let result = search(&SearchBounds::default(), |rate_per_s, _| ControlFlow::Continue(rate_per_s <= 12_345));
/// let found = result.found.unwrap();
/// assert!((12_098..=12_345).contains(&found.rate_per_s));
/// assert_eq!((found.held, found.confirmations), (5, 5));
/// ```
pub fn search(
    bounds: &SearchBounds,
    trial: impl FnMut(u64, TrialPurpose) -> ControlFlow<(), bool>,
) -> SearchResult {
    let mut searcher = Searcher { bounds, trial, held_per_s: Vec::new(), fails_at_per_s: None };
    let (found, was_stopped) = match searcher.search() {
        ControlFlow::Continue(found) => (found, false),
        ControlFlow::Break(()) => (None, true),
    };
    SearchResult { found, fails_at_per_s: searcher.fails_at_per_s, was_stopped }
}

struct Searcher<'a, F> {
    bounds: &'a SearchBounds,
    trial: F,
    /// Rates that held, ascending; all are below the one that fails.
    held_per_s: Vec<u64>,
    fails_at_per_s: Option<u64>,
}

impl<F: FnMut(u64, TrialPurpose) -> ControlFlow<(), bool>> Searcher<'_, F> {
    fn search(&mut self) -> ControlFlow<(), Option<Found>> {
        let mut rate_per_s = self.bounds.from_per_s;
        let mut purpose = TrialPurpose::Bracket;
        loop {
            match self.holds(rate_per_s, purpose)? {
                true => self.held_per_s.push(rate_per_s),
                false => self.fails_at_per_s = Some(rate_per_s),
            }
            loop {
                (rate_per_s, purpose) = self.next();
                if rate_per_s == 0 {
                    return ControlFlow::Continue(None);
                }
                if purpose != TrialPurpose::Confirm {
                    break;
                }
                if let Some(found) = self.confirm(rate_per_s)? {
                    return ControlFlow::Continue(Some(found));
                }
                // Above what holds with fewer trials may be what does not.
                self.held_per_s.pop();
                self.fails_at_per_s = Some(rate_per_s);
            }
        }
    }

    /// The next rate, and what for; 0 if nothing is left to try.
    fn next(&self) -> (u64, TrialPurpose) {
        let low = self.held_per_s.last().copied();
        match (low, self.fails_at_per_s) {
            (Some(low), None) if low >= self.bounds.max_per_s => (low, TrialPurpose::Confirm),
            (low, None) => {
                let doubled = low.unwrap_or(self.bounds.from_per_s).saturating_mul(2);
                (doubled.min(self.bounds.max_per_s), TrialPurpose::Bracket)
            }
            (None, Some(high)) => (high / 2, TrialPurpose::Bracket),
            (Some(low), Some(high)) if self.bounds.is_close(low, high) => (low, TrialPurpose::Confirm),
            (Some(low), Some(high)) => {
                let middle = (low as f64 * high as f64).sqrt().round() as u64;
                (middle.clamp(low + 1, high - 1), TrialPurpose::Narrow)
            }
        }
    }

    /// Whether a rate holds: if the first trial does, or two of three.
    fn holds(&mut self, rate_per_s: u64, purpose: TrialPurpose) -> ControlFlow<(), bool> {
        let mut trial = || (self.trial)(rate_per_s, purpose);
        ControlFlow::Continue(trial()? || (trial()? && trial()?))
    }

    /// Confirms a rate, or finds that most trials at it do not hold.
    fn confirm(&mut self, rate_per_s: u64) -> ControlFlow<(), Option<Found>> {
        let confirmations = self.bounds.confirmations;
        let (mut held, mut failed) = (0, 0);
        while held + failed < confirmations {
            match (self.trial)(rate_per_s, TrialPurpose::Confirm)? {
                true => held += 1,
                false => failed += 1,
            }
            if 2 * failed >= confirmations {
                return ControlFlow::Continue(None);
            }
        }
        ControlFlow::Continue(Some(Found { rate_per_s, held, confirmations }))
    }
}

#[cfg(test)]
mod tests;
