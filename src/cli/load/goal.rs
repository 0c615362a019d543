//! The flags of `ringspun load --find`, and what they ask for.

use clap::Args;
use ringspun_load::{Condition, Pace, Rate, SearchBounds};

use super::whole::whole;

/// The flags of a search.
#[derive(Args)]
pub struct FindFlags {
    /// Find the highest rate at which all of these conditions hold: --find 'p99<5ms,errors<0.1%'
    ///
    /// Each trial is a run of --duration at a rate (open loop), with its own connections and warm-up. The rate is
    /// doubled until a trial fails, and the range narrowed from there. A trial that fails is repeated: two of three
    /// decide. Fresh trials confirm the result. The conditions are those of --fail-if, but must hold; a trial also
    /// fails if less than 95 % of the rate is answered, or of the sessions begin. The results are those of the last
    /// trial at the rate that was found, and of the search. The exit status is 3 if no rate holds.
    #[arg(long, value_name = "CONDITIONS", value_delimiter = ',',
          conflicts_with_all = ["rate", "steps", "count", "start_at", "hdr", "csv"])]
    find: Vec<Condition>,
    /// First rate of a search: --find-from 10k
    #[arg(long, value_name = "RATE", default_value = "1k", requires = "find")]
    find_from: Rate,
    /// Highest rate of a search: --find-to 100k [default: what the generator can send]
    #[arg(long, value_name = "RATE", requires = "find")]
    find_to: Option<Rate>,
    /// How close to the highest rate a search gets: --find-within 5%
    #[arg(long, value_name = "SHARE", default_value = "2%", requires = "find", value_parser = parse_percent)]
    find_within: f64,
    /// Number of trials that confirm the result of a search, most of which must hold: --find-confirm 3
    #[arg(long, value_name = "COUNT", default_value = "5", requires = "find", value_parser = whole(0..=u32::MAX))]
    find_confirm: u32,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number.ok_or_else(|| "expected a share, such as 2%".to_string())
}

/// What is searched for.
pub struct Goal {
    pub conditions: Vec<Condition>,
    pub bounds: SearchBounds,
}

impl FindFlags {
    /// The conditions to hold; none without a search.
    pub fn conditions(&self) -> &[Condition] {
        &self.find
    }

    /// What is searched for; `None` without a search. The error names a value, and what was expected.
    pub fn goal(&self) -> Result<Option<Goal>, String> {
        if self.find.is_empty() {
            return Ok(None);
        }
        if let Some(condition) = self.find.iter().find(|condition| condition.is_of_part()) {
            return Err(format!("--find {condition}: expected conditions without @"));
        }
        let bounds = SearchBounds {
            from: self.find_from,
            max: self.find_to.unwrap_or(Rate::MAX),
            within_percent: self.find_within,
            confirmations: self.find_confirm,
        };
        bounds.check()?;
        Ok(Some(Goal { conditions: self.find.clone(), bounds }))
    }
}

impl Goal {
    /// The pace of the first trial.
    pub fn pace(&self) -> Pace {
        Pace::Open { rate: self.bounds.from }
    }
}
