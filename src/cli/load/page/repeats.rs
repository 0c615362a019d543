//! The repeats of a page: the figures of several runs.

use super::markup::{add, table};

/// Adds the section; `rows` have a name, a mean, an interval, and a value per run.
pub fn add_repeats(html: &mut String, rows: &[Vec<String>]) {
    let Some(first) = rows.first() else { return };
    let runs: Vec<String> = (1..=first.len().saturating_sub(3)).map(|run| format!("run {run}")).collect();
    let head: Vec<&str> =
        ["", "mean", "95 % interval"].into_iter().chain(runs.iter().map(String::as_str)).collect();
    let text = "Means of all runs, with 95 % confidence intervals. The rest of the page shows the last run.";
    add(html, format_args!("<section id=\"repeats\"><h2>{} runs</h2>\n<p>{text}</p>\n", runs.len()));
    html.push_str(&table("Runs", &head, rows));
    html.push_str("</section>\n");
}
