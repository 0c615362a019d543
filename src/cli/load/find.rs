//! `--find`: the highest rate at which conditions hold, by a search with a run per trial.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use ringspun::{MetricKind, Metrics};
use ringspun_load::{
    Condition, Finding, Outcome, Pace, Plan, Rate, SearchResult, SessionCounts, TrialPurpose, format_per_s,
    search,
};
use serde_json::{Value, json};

use super::goal::Goal;
use super::histogram::show_percentile;
use super::{GATE_BROKEN, Measured, Measuring, json, text};
use crate::cli::output;

/// A trial whose requests are not answered, or whose sessions do not begin, at this share of its rate fails: the
/// target, or the generator, does not keep up, and times would get longer the longer the trial is.
const KEPT_UP_PERCENT: f64 = 95.0;

/// What a search has done.
pub struct Search {
    goal: Goal,
    trials: Vec<Trial>,
    result: SearchResult,
    /// Why a trial could not be run, which ended the search.
    error: Option<String>,
}

/// A trial, without its histograms.
struct Trial {
    rate: Rate,
    holds: bool,
    /// The conditions, each with what it was found to be.
    findings: Vec<(String, Finding)>,
    /// As in the results of a run.
    value: Value,
    /// The columns of the table.
    columns: [String; 4],
}

impl Trial {
    fn new(
        conditions: &[Condition],
        purpose: TrialPurpose,
        rate: Rate,
        Measured { plan, outcome, .. }: &Measured,
    ) -> Self {
        let kept_up = [
            Some((format!("answered>={KEPT_UP_PERCENT}%"), kept_up(outcome))),
            outcome.sessions.map(|sessions| (format!("begun>={KEPT_UP_PERCENT}%"), begun(&sessions))),
        ];
        let findings =
            conditions.iter().map(|condition| (condition.to_string(), condition.evaluate(outcome)));
        let findings: Vec<_> = findings.chain(kept_up.into_iter().flatten()).collect();
        let holds = findings.iter().all(|(_, finding)| finding.holds == Some(true));
        let times = |percentile| show_percentile(&outcome.response_times, percentile);
        let answered = format!("{}/s", format_per_s(outcome.rate_per_s()));
        let value = json!({
            "rate_per_s": json::rate(rate),
            "purpose": purpose.name(),
            "holds": holds,
            "seed": plan.seed,
            "answered_per_s": json::rounded_rate(outcome.rate_per_s()),
            "busy_percent": json::rounded(outcome.busy_percent()),
            "requests": json::requests_value(&outcome.requests),
            "response_time": json::times(&outcome.response_times),
            "conditions": findings.iter().map(|(condition, finding)| {
                json!({ "condition": condition, "holds": finding.holds, "value": finding.value })
            }).collect::<Vec<_>>(),
        });
        Self { rate, holds, findings, value, columns: [answered, times(50.0), times(99.0), times(100.0)] }
    }

    /// A row of the table.
    fn row(&self, number: usize) -> String {
        let mut row = format!("{number:>5}{:>13}", self.rate.to_string());
        for (column, width) in self.columns.iter().zip([13, 9, 9, 9]) {
            // Writing to a string cannot fail.
            let _ = write!(row, "{column:>width$}");
        }
        let failed = self.findings.iter().find(|(_, finding)| finding.holds != Some(true));
        row + &failed.map_or("  holds".to_string(), |(condition, _)| format!("  fails: {condition}"))
    }
}

/// Whether so many of the planned requests came to an end in time, with an answer or an error.
fn kept_up(outcome: &Outcome) -> Finding {
    let requests = &outcome.requests;
    let ended = requests.answered - requests.answered_after_end + requests.failed();
    share_kept_up(ended, requests.planned, "no request was due")
}

/// Whether so many of the planned sessions began: others found no free connection before the end.
fn begun(sessions: &SessionCounts) -> Finding {
    share_kept_up(sessions.begun, sessions.planned, "no session was due")
}

fn share_kept_up(count: u64, planned: Option<u64>, otherwise: &str) -> Finding {
    match planned {
        None | Some(0) => Finding { holds: None, value: otherwise.to_string() },
        Some(planned) => {
            let percent = 100.0 * count as f64 / planned as f64;
            Finding { holds: Some(percent >= KEPT_UP_PERCENT), value: format!("{percent:.1}%") }
        }
    }
}

/// The highest rate that holds, by runs of a plan. Returns what was tried and the run to show, which is the last one
/// that confirmed the result, or else the last one; or why there was none.
pub fn find(goal: Goal, plan: &Plan, measuring: &Measuring) -> Result<(Search, Measured), String> {
    let mut trials: Vec<Trial> = Vec::new();
    let (mut confirming, mut last, mut error) = (None, None, None);
    let result = search(&goal.bounds, |rate, purpose| {
        let mut plan = plan.clone();
        plan.pace = Pace::Open { rate };
        plan.seed = plan.seed.wrapping_add(trials.len() as u64);
        let measured = match measuring.run(plan, format!("trial {}", trials.len() + 1)) {
            Ok(measured) => measured,
            Err(message) => {
                error = Some(message);
                return ControlFlow::Break(());
            }
        };
        let was_stopped = measured.was_interrupted();
        if !was_stopped {
            let trial = Trial::new(&goal.conditions, purpose, rate, &measured);
            measuring.tell(|| trial.row(trials.len() + 1));
            trials.push(trial);
        }
        let holds = trials.last().is_some_and(|trial| trial.holds);
        match (was_stopped, holds && purpose == TrialPurpose::Confirm) {
            (false, true) => confirming = Some(measured),
            _ => last = Some(measured),
        }
        if was_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(holds) }
    });
    let confirming = confirming.filter(|_| result.found.is_some());
    match confirming.or(last) {
        Some(shown) => Ok((Search { goal, trials, result, error }, shown)),
        None => Err(error.unwrap_or_else(|| "no trial was run".to_string())),
    }
}

impl Search {
    /// The exit status, if it is not that of the run; complains about what failed.
    pub fn exit_code(&self) -> Option<ExitCode> {
        if let Some(error) = &self.error {
            output::complain(format_args!("the search ended early: {error}"));
            return Some(ExitCode::FAILURE);
        }
        if self.result.found.is_none() && !self.result.was_stopped {
            output::complain(self.summary());
            return Some(ExitCode::from(GATE_BROKEN));
        }
        None
    }

    fn conditions(&self) -> String {
        self.goal.conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The result in a sentence.
    fn summary(&self) -> String {
        let conditions = self.conditions();
        let fails_at = self.result.fails_at.map(|rate| rate.to_string());
        match (self.result.found, fails_at) {
            (Some(found), fails_at) => {
                let beyond = match fails_at {
                    Some(fails_at) => format!("{fails_at} fails"),
                    None => "no higher rate was to be tried".to_string(),
                };
                format!(
                    "{} is the highest rate with {conditions}: {} of {} trials at it held, {beyond}",
                    found.rate, found.held, found.confirmations
                )
            }
            (None, _) if self.result.was_stopped => {
                format!("the search for the highest rate with {conditions} was stopped early")
            }
            (None, fails_at) => format!(
                "no rate was found with {conditions}: {} fails, the lowest that was tried",
                fails_at.unwrap_or_default()
            ),
        }
    }

    /// The result and the trials, as text.
    pub fn table(&self) -> String {
        let mut table = format!("{}.\n", self.summary());
        if let Some(found) = self.result.found {
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "Confidence that trials at it hold more often than not: {}.",
                text::percent_below(found.confidence_percent())
            );
        }
        let _ = writeln!(
            table,
            "\n{:>5}{:>13}{:>13}{:>9}{:>9}{:>9}  verdict",
            "trial", "rate", "answered", "p50", "p99", "max"
        );
        for (number, trial) in (1..).zip(&self.trials) {
            table.push_str(&trial.row(number));
            table.push('\n');
        }
        table
    }

    /// Adds the result for `--prometheus`.
    pub fn add_to(&self, metrics: &mut Metrics) {
        let mut add = |name, help, value| metrics.add(name, MetricKind::Gauge, help, &[], value);
        let help = "Whether a rate was found at which the conditions of --find hold.";
        add("ringspun_load_find_found", help, f64::from(self.result.found.is_some()));
        add("ringspun_load_find_trials", "Trials of the search.", self.trials.len() as f64);
        if let Some(found) = self.result.found {
            let help = "Highest rate at which the conditions of --find hold.";
            add("ringspun_load_find_rate_per_second", help, found.rate.as_per_s());
            let help = "Confidence that trials at that rate hold more often than not.";
            add("ringspun_load_find_confidence_ratio", help, found.confidence_percent() / 100.0);
        }
        if let Some(rate) = self.result.fails_at {
            let help = "Lowest rate that was tried and at which the conditions of --find fail.";
            add("ringspun_load_find_fails_at_per_second", help, rate.as_per_s());
        }
    }

    /// The field `search` of the results.
    pub fn value(&self) -> Value {
        let SearchResult { found, fails_at, was_stopped } = self.result;
        let bounds = &self.goal.bounds;
        json!({
            "conditions": self.goal.conditions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "summary": self.summary(),
            "from_per_s": json::rate(bounds.from),
            "max_per_s": json::rate(bounds.max),
            "within_percent": bounds.within_percent,
            "confirmations": bounds.confirmations,
            "rate_per_s": found.map(|found| json::rate(found.rate)),
            "held": found.map(|found| found.held),
            "confidence_percent": found.map(|found| found.confidence_percent()),
            "fails_at_per_s": fails_at.map(json::rate),
            "stopped": was_stopped && self.error.is_none(),
            "error": self.error,
            "trials": self.trials.iter().map(|trial| trial.value.clone()).collect::<Vec<_>>(),
        })
    }
}
