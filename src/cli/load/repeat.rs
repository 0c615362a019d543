//! `--repeat`: several whole runs, and what they show together.

use std::fmt::Write as _;
use std::time::Duration;

use ringspun::MetricKind::Gauge;
use ringspun::Metrics;
use ringspun_load::{Estimate, Latencies, Outcome, Plan, format_duration, format_per_s};
use serde_json::{Value, json};

use super::{Measured, Measuring, json};

/// A figure that each run has.
struct Figure {
    /// As in the results.
    field: &'static str,
    /// For people.
    name: &'static str,
    of: fn(&Outcome) -> Option<f64>,
    show: fn(f64) -> String,
}

/// The figures, in their order. In a closed loop, response times are the service times.
const FIGURES: [Figure; 8] = [
    Figure { field: "rate_per_s", name: "rate", of: |outcome| Some(outcome.rate_per_s()), show: show_rate },
    Figure {
        field: "failed_percent",
        name: "failed",
        of: failed_percent,
        show: |percent| format!("{percent:.3} %"),
    },
    Figure {
        field: "mean_us",
        name: "mean",
        of: |outcome| microseconds(times(outcome), Latencies::mean),
        show: show_time,
    },
    Figure { field: "p50_us", name: "p50", of: |outcome| percentile(outcome, 50.0), show: show_time },
    Figure { field: "p90_us", name: "p90", of: |outcome| percentile(outcome, 90.0), show: show_time },
    Figure { field: "p99_us", name: "p99", of: |outcome| percentile(outcome, 99.0), show: show_time },
    Figure { field: "p99_9_us", name: "p99.9", of: |outcome| percentile(outcome, 99.9), show: show_time },
    Figure {
        field: "max_us",
        name: "max",
        of: |outcome| microseconds(times(outcome), Latencies::max),
        show: show_time,
    },
];

fn show_rate(per_s: f64) -> String {
    format!("{}/s", format_per_s(per_s))
}

fn show_time(microseconds: f64) -> String {
    format_duration(Duration::from_nanos((microseconds * 1000.0) as u64))
}

fn failed_percent(outcome: &Outcome) -> Option<f64> {
    let requests = &outcome.requests;
    (requests.sent > 0).then(|| 100.0 * requests.failed() as f64 / requests.sent as f64)
}

fn times(outcome: &Outcome) -> &Latencies {
    &outcome.response_times
}

fn microseconds(times: &Latencies, of: fn(&Latencies) -> Duration) -> Option<f64> {
    (times.count() > 0).then(|| of(times).as_nanos() as f64 / 1000.0)
}

fn percentile(outcome: &Outcome, percentile: f64) -> Option<f64> {
    times(outcome).known_percentile(percentile).map(|time| time.as_nanos() as f64 / 1000.0)
}

/// What the runs have shown together.
pub struct Repeats {
    wanted: u32,
    seeds: Vec<u64>,
    /// Per figure, its values; fewer than runs if one has no such figure.
    values: [Vec<f64>; FIGURES.len()],
}

/// Runs a plan several times, each with a seed of its own. Returns what the runs show together, and the last run. A run
/// that is stopped, or that fails, is the last one.
pub fn repeat(wanted: u32, plan: &Plan, measuring: &Measuring) -> Result<(Repeats, Measured), String> {
    let mut repeats = Repeats { wanted, seeds: Vec::new(), values: Default::default() };
    let mut verdicts = None;
    loop {
        let mut plan = plan.clone();
        plan.seed = plan.seed.wrapping_add(repeats.seeds.len() as u64);
        let mut measured = measuring.run(plan, format!("run {} of {wanted}", repeats.seeds.len() + 1))?;
        // A gate that breaks in one of the runs is broken.
        let so_far = verdicts.get_or_insert_with(|| measured.verdicts.clone());
        for (known, new) in so_far.iter_mut().zip(&measured.verdicts) {
            if !known.1.is_broken {
                known.clone_from(new);
            }
        }
        let outcome = &measured.outcome;
        if !outcome.was_stopped {
            repeats.add(measured.plan.seed, outcome);
            measuring.tell(|| repeats.last_run());
        }
        let has_failed = outcome.requests.answered == 0 || outcome.target_loss.is_some();
        if repeats.seeds.len() == wanted as usize || outcome.was_stopped || has_failed {
            measured.verdicts.clone_from(so_far);
            return Ok((repeats, measured));
        }
    }
}

impl Repeats {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds.push(seed);
        for (figure, values) in FIGURES.iter().zip(&mut self.values) {
            values.extend((figure.of)(outcome));
        }
    }

    /// A line about the last run.
    fn last_run(&self) -> String {
        let shown = |name| {
            let known = FIGURES.iter().zip(&self.values).find(|(figure, _)| figure.name == name);
            known.and_then(|(figure, values)| values.last().map(|value| (figure.show)(*value)))
        };
        let [rate, p99] = ["rate", "p99"].map(|name| shown(name).unwrap_or("-".to_string()));
        format!("run {} of {}: {rate}, p99 {p99}", self.seeds.len(), self.wanted)
    }

    /// The figures that all runs have, each with its values and their estimate.
    fn estimates(&self) -> impl Iterator<Item = (&Figure, &[f64], Estimate)> {
        FIGURES.iter().zip(&self.values).filter_map(|(figure, values)| {
            let is_complete = values.len() == self.seeds.len();
            Estimate::of(values).filter(|_| is_complete).map(|estimate| (figure, values.as_slice(), estimate))
        })
    }

    /// The figures of all runs, as text.
    pub fn table(&self) -> String {
        let count = self.seeds.len();
        if count < 2 {
            return format!("{count} of {} runs ended: an interval takes two.\n", self.wanted);
        }
        let of = if count < self.wanted as usize { format!(" of {}", self.wanted) } else { String::new() };
        let mut table = format!("{count}{of} runs: means, with 95 % confidence intervals\n\n{:<13}", "");
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{:>12}{:>27}{:>9}", "mean", "interval", "±");
        for (figure, _, Estimate { mean, low, high }) in self.estimates() {
            // No figure is negative.
            let interval = format!("{} to {}", (figure.show)(low.max(0.0)), (figure.show)(high));
            let half =
                if mean == 0.0 { "-".to_string() } else { format!("{:.1} %", 100.0 * (high - mean) / mean) };
            let _ = writeln!(table, "{:<13}{:>12}{interval:>27}{half:>9}", figure.name, (figure.show)(mean));
        }
        table.push_str("\nThe last run:\n");
        table
    }

    /// The rows of a table: the name, the mean, the interval, and the value of each run.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |(figure, values, estimate): (&Figure, &[f64], Estimate)| {
            let show = |value: f64| (figure.show)(value.max(0.0));
            let interval = format!("{} to {}", show(estimate.low), show(estimate.high));
            let cells = [figure.name.to_string(), show(estimate.mean), interval];
            cells.into_iter().chain(values.iter().map(|value| show(*value))).collect()
        };
        self.estimates().map(row).collect()
    }

    /// Adds the means and their intervals for `--prometheus`.
    pub fn add_to(&self, metrics: &mut Metrics) {
        let help = "Runs of --repeat that came to their end.";
        metrics.add("ringspun_load_repeat_runs", Gauge, help, &[], self.seeds.len() as f64);
        for (figure, _, Estimate { mean, low, high }) in self.estimates() {
            for (estimate, value) in [("mean", mean), ("low", low), ("high", high)] {
                let labels = [("estimate", estimate), ("figure", figure.name)];
                let mut add =
                    |name, help, labels, scale: f64| metrics.add(name, Gauge, help, labels, value / scale);
                match figure.field {
                    "rate_per_s" => {
                        let help = "Expected responses per second: the mean of runs, and its 95 % confidence interval.";
                        add("ringspun_load_repeat_responses_per_second", help, &labels[..1], 1.0);
                    }
                    "failed_percent" => {
                        let help = "Share of requests that failed: the mean of runs, and its 95 % confidence interval.";
                        add("ringspun_load_repeat_failed_ratio", help, &labels[..1], 100.0);
                    }
                    _ => {
                        let help = "Response times: the mean of runs, and its 95 % confidence interval.";
                        add("ringspun_load_repeat_response_time_seconds", help, &labels[..], 1e6);
                    }
                }
            }
        }
    }

    /// The field `repeat` of the results.
    pub fn value(&self) -> Value {
        let figures = self.estimates().map(|(figure, values, estimate)| {
            json!({
                "figure": figure.field,
                "mean": json::thousandth(estimate.mean),
                "low": json::thousandth(estimate.low),
                "high": json::thousandth(estimate.high),
                "values": values.iter().map(|value| json::thousandth(*value)).collect::<Vec<_>>(),
            })
        });
        json!({
            "wanted": self.wanted,
            "runs": self.seeds.len(),
            "seeds": self.seeds,
            "confidence_percent": 95,
            "figures": figures.collect::<Vec<_>>(),
        })
    }
}
