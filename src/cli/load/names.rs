//! The results per name of listed requests, as text.

use std::fmt::Write as _;

use ringspun_load::{NamedOutcome, Outcome, format_count};

use super::histogram::show_percentile;

/// The heading of the column of names.
const HEAD: &str = "response times by request";
/// Longer names are cut: the columns behind them have to fit into a terminal's line.
const NAME_MAX_CHARS: usize = 40;
/// The columns of percentiles.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("max", 100.0)];

/// Writes a row per name, if there are any.
pub fn write_table(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if outcome.named.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = outcome.named.iter().map(shown_name).collect();
    let width = names.iter().map(|name| name.chars().count()).fold(HEAD.len(), usize::max);
    write!(text, "\n{HEAD:<width$}{:>11}{:>9}", "answered", "failed")?;
    PERCENTILES.iter().try_for_each(|(name, _)| write!(text, "{name:>9}"))?;
    for (name, named) in names.iter().zip(&outcome.named) {
        let [answered, failed] = [named.requests.answered, named.requests.failed()].map(format_count);
        write!(text, "\n{name:<width$}{answered:>11}{failed:>9}")?;
        for (_, percentile) in PERCENTILES {
            write!(text, "{:>9}", show_percentile(&named.response_times, percentile))?;
        }
    }
    writeln!(text)
}

fn shown_name(named: &NamedOutcome) -> String {
    match named.name.char_indices().nth(NAME_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &named.name[..end]),
        None => named.name.clone(),
    }
}
