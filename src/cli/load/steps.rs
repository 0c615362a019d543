//! The results per step, as text.

use std::fmt::Write as _;

use ringspun_load::{Outcome, StepOutcome, format_count, format_duration, format_per_s};

use super::histogram::show_percentile;

/// The heading of the column of names.
const HEAD: &str = "response times by step";
/// The columns of percentiles.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// Writes a row per step, if there are any.
pub fn write_table(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if outcome.steps.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = (1..)
        .zip(&outcome.steps)
        .map(|(number, step)| format!("{number}: {} for {}", step.step, format_duration(step.measured)))
        .collect();
    let width = names.iter().map(String::len).fold(HEAD.len(), usize::max);
    write!(text, "\n{HEAD:<width$}{:>13}", "answered")?;
    PERCENTILES.iter().try_for_each(|(name, _)| write!(text, "{name:>9}"))?;
    for (name, step) in names.iter().zip(&outcome.steps) {
        let rate = format!("{}/s", format_per_s(step.rate_per_s()));
        write!(text, "\n{name:<width$}{rate:>13}")?;
        for (_, percentile) in PERCENTILES {
            write!(text, "{:>9}", show_percentile(&step.response_times, percentile))?;
        }
        write_shortfall(text, step)?;
    }
    writeln!(text)
}

/// Writes the counts that are missing from the times of a row.
fn write_shortfall(text: &mut String, step: &StepOutcome) -> std::fmt::Result {
    let unsent = if step.sessions.is_some() { "sessions unbegun" } else { "unsent" };
    for (count, what) in [(step.requests.failed(), "failed"), (step.requests.unsent(), unsent)] {
        if count > 0 {
            write!(text, "  {} {what}", format_count(count))?;
        }
    }
    Ok(())
}
