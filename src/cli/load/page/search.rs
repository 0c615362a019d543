//! The search of a page: latency against rate, and the trials.

use std::time::Duration;

use ringspun_load::{Condition, format_count, format_duration, format_per_s};
use serde_json::Value;

use super::chart::{Chart, Line, Spot};
use super::markup::{Escaped, add, table};
use super::scale::{LinearScale, LogScale};

/// The times that are drawn, with their fields and classes.
const TIMES: [(&str, &str, &str); 3] =
    [("max", "max_us", "c"), ("p99", "p99_us", "b"), ("p50", "p50_us", "a")];
/// Keeps lines within the edges.
const HEADROOM: f64 = 1.03;

/// All trials at a rate.
struct Rate<'a> {
    per_s: f64,
    trials: Vec<&'a Value>,
}

impl Rate<'_> {
    /// The median of a time of its trials, in which something was answered.
    fn time(&self, field: &str) -> Option<Duration> {
        let mut times: Vec<Duration> =
            self.trials.iter().filter_map(|trial| time(&trial["response_time"][field])).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    fn held(&self) -> usize {
        self.trials.iter().filter(|trial| trial["holds"] == true).count()
    }
}

fn time(microseconds: &Value) -> Option<Duration> {
    microseconds.as_f64().map(|microseconds| Duration::from_nanos((microseconds * 1000.0) as u64))
}

fn shown(time: Option<Duration>) -> String {
    time.map_or("-".to_string(), format_duration)
}

/// The trials by rate, ascending.
fn rates_of(trials: &[Value]) -> Vec<Rate<'_>> {
    let mut rates: Vec<Rate<'_>> = Vec::new();
    for trial in trials {
        let per_s = trial["rate_per_s"].as_f64().unwrap_or_default();
        match rates.iter_mut().find(|rate| rate.per_s == per_s) {
            Some(rate) => rate.trials.push(trial),
            None => rates.push(Rate { per_s, trials: vec![trial] }),
        }
    }
    rates.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
    rates
}

pub fn add_search(html: &mut String, value: &Value) {
    let search = &value["search"];
    let Some(trials) = search["trials"].as_array().filter(|trials| !trials.is_empty()) else { return };
    let summary = search["summary"].as_str().unwrap_or_default();
    add(html, format_args!("<section id=\"search\"><h2>Search</h2>\n<p>{}.", Escaped(summary)));
    if let Some(percent) = search["confidence_percent"].as_f64() {
        let percent = crate::cli::load::text::percent_below(percent);
        add(html, format_args!(" Confidence that trials at it hold more often than not: {percent}."));
    }
    html.push_str("</p>\n</section>\n");
    let rates = rates_of(trials);
    let limits: Vec<Duration> = search["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| condition.as_str()?.parse::<Condition>().ok()?.time_limit())
        .collect();
    let times = || rates.iter().flat_map(|rate| TIMES.map(|(_, field, _)| rate.time(field))).flatten();
    let all = || times().chain(limits.iter().copied());
    let (Some(low), Some(high)) = (all().min(), all().max()) else { return };
    let y_scale = LogScale::around(low, high);
    let x_scale = LinearScale::up_to(rates.last().map_or(1.0, |rate| rate.per_s) * HEADROOM);
    let mut lines: Vec<Line> = TIMES
        .map(|(name, field, class)| {
            let points = rates
                .iter()
                .filter_map(|rate| Some((x_scale.position(rate.per_s), y_scale.position(rate.time(field)?))));
            Line { name: name.to_string(), class, pieces: vec![points.collect()] }
        })
        .into();
    if !limits.is_empty() {
        let pieces = limits.iter().map(|limit| y_scale.position(*limit)).map(|y| vec![(0.0, y), (1.0, y)]);
        lines.push(Line { name: "limit".to_string(), class: "errors", pieces: pieces.collect() });
    }
    if let Some(x) = search["rate_per_s"].as_f64().map(|rate_per_s| x_scale.position(rate_per_s)) {
        lines.push(Line { name: "found".to_string(), class: "d", pieces: vec![vec![(x, 0.0), (x, 1.0)]] });
    }
    let chart = Chart {
        id: "trials",
        heading: "Latency against rate",
        description: "The response times of the trials at each rate: the median of the trials.".to_string(),
        x_name: "requests per second",
        x_ticks: x_scale.ticks(""),
        y_ticks: y_scale.ticks(),
        lines,
        spots: spots(&rates, &x_scale),
        table: trials_table(trials),
        is_table_open: false,
    };
    html.push_str(&chart.render());
}

/// A tooltip for each rate, halfway to its neighbours.
fn spots(rates: &[Rate<'_>], scale: &LinearScale) -> Vec<Spot> {
    let at = |index: usize| scale.position(rates[index].per_s);
    let spot = |(index, rate): (usize, &Rate<'_>)| Spot {
        from: if index == 0 { 0.0 } else { (at(index - 1) + at(index)) / 2.0 },
        to: if index + 1 == rates.len() { 1.0 } else { (at(index) + at(index + 1)) / 2.0 },
        bar: None,
        text: format!(
            "{}/s: p50 {}, p99 {}, max {}; {} of {} held",
            format_per_s(rate.per_s),
            shown(rate.time("p50_us")),
            shown(rate.time("p99_us")),
            shown(rate.time("max_us")),
            rate.held(),
            rate.trials.len()
        ),
    };
    rates.iter().enumerate().map(spot).collect()
}

/// The trials in their order.
fn trials_table(trials: &[Value]) -> String {
    let row = |(number, trial): (usize, &Value)| {
        let rate = |name: &str| format_count(trial[name].as_f64().unwrap_or_default().round() as u64);
        let failed =
            trial["conditions"].as_array().into_iter().flatten().filter(|found| found["holds"] != true);
        let failed: Vec<String> = failed
            .map(|found| {
                [&found["condition"], &found["value"]]
                    .map(|text| text.as_str().unwrap_or_default())
                    .join(": ")
            })
            .collect();
        let verdict =
            if failed.is_empty() { "holds".to_string() } else { format!("fails, {}", failed.join("; ")) };
        let times = ["p50_us", "p99_us", "max_us"].map(|field| shown(time(&trial["response_time"][field])));
        let purpose = trial["purpose"].as_str().unwrap_or_default().to_string();
        [number.to_string(), rate("rate_per_s"), rate("answered_per_s")]
            .into_iter()
            .chain(times)
            .chain([purpose, verdict])
            .collect()
    };
    let rows: Vec<Vec<String>> = (1..).zip(trials).map(row).collect();
    table("Trials", &["", "requests/s", "responses/s", "p50", "p99", "max", "purpose", "verdict"], &rows)
}
