//! The sections of a page, from top to bottom. Empty sections are omitted.

use std::time::Duration;

use ringspun_load::{Latencies, format_count, format_duration, format_per_s};
use serde_json::Value;

use super::Series;
use super::chart::{Chart, Line, Spot, steps};
use super::machine;
use super::markup::{Escaped, add, rows_of, table};
use super::scale::{LinearScale, LogScale, Tick, elapsed_ticks};
use crate::cli::load::histogram::{share, show_percentile};
use crate::cli::load::secrets;

/// The percentiles in the table.
const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999];
/// The number of points of the percentile chart, each with a tooltip.
const PERCENTILE_COLUMNS: u32 = 150;
/// The maximum number of bins of the histogram.
const BINS_MAX: usize = 64;
/// Keeps lines below the upper edge.
const HEADROOM: f64 = 1.03;
/// The order of counts and settings; others follow.
const ORDER: [&str; 24] = [
    "wanted",
    "opened",
    "open max",
    "refused",
    "planned",
    "sent",
    "unsent",
    "answered",
    "answered after end",
    "wrong",
    "bad status",
    "timed out",
    "failed",
    "lost",
    "reset",
    "closed",
    "target",
    "connections",
    "payload",
    "loop",
    "rate",
    "duration",
    "count",
    "warmup",
];
/// The CSS classes of lines.
const CLASSES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

pub fn add_gates(html: &mut String, value: &Value) {
    let Some(gates) = value["gates"].as_array().filter(|gates| !gates.is_empty()) else { return };
    html.push_str("<ul class=\"gates\" id=\"gates\" aria-label=\"Gates\">\n");
    for gate in gates {
        let (class, verdict) = match gate["broken"].as_bool() {
            Some(true) => ("bad", "✗ failed"),
            Some(false) => ("good", "✓ passed"),
            None => ("open", "? stopped early"),
        };
        let [condition, measured] =
            ["gate", "value"].map(|name| Escaped(gate[name].as_str().unwrap_or_default()));
        add(
            html,
            format_args!(
                "<li class=\"{class}\"><b>{verdict}</b> fail if {condition}: it is {measured}</li>\n"
            ),
        );
    }
    html.push_str("</ul>\n");
}

pub fn add_remarks(html: &mut String, remarks: &str) {
    if remarks.trim().is_empty() {
        return;
    }
    html.push_str("<section class=\"remark\" id=\"remarks\" aria-label=\"Remarks\">\n");
    for paragraph in remarks.trim().split("\n\n") {
        add(html, format_args!("<p>{}</p>\n", Escaped(paragraph)));
    }
    html.push_str("</section>\n");
}

pub fn add_tiles(html: &mut String, value: &Value, times: Option<&Latencies>) {
    let mut tiles = Vec::new();
    // Steps are not to be averaged: they have a section of their own.
    let has_steps = value["steps"].as_array().is_some_and(|steps| steps.len() > 1);
    if let Some(rate_per_s) = value["rate_per_s"].as_f64().filter(|_| !has_steps) {
        tiles.push(("responses/s", format_per_s(rate_per_s), ""));
    }
    if let Some(times) = times.filter(|times| times.count() > 0 && !has_steps) {
        for (name, percentile) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)] {
            tiles.push((name, show_percentile(times, percentile), ""));
        }
    }
    if let Some(errors) = value["errors"]["total"].as_u64() {
        tiles.push(("errors", format_count(errors), if errors > 0 { " class=\"bad\"" } else { "" }));
    }
    html.push_str("<ul class=\"tiles\" id=\"tiles\" aria-label=\"In short\">\n");
    for (name, text, class) in tiles {
        add(html, format_args!("<li{class}><span>{name}</span><b>{}</b></li>\n", Escaped(text)));
    }
    html.push_str("</ul>\n");
}

/// The percentile with this number of nines: 90 for 1, 99 for 2.
fn percentile_of(nines: f64) -> f64 {
    100.0 * (1.0 - 10_f64.powf(-nines))
}

pub fn add_percentiles(html: &mut String, times: &[(&str, &Latencies)], meaning: &str) {
    let Some((_, first)) = times.first().filter(|(_, times)| times.count() > 0) else { return };
    // A thousand responses have three nines; beyond that there is no data.
    let nines = (first.count() as f64).log10().clamp(1.0, 9.0);
    let (low, high) = times.iter().fold((Duration::MAX, Duration::ZERO), |(low, high), (_, times)| {
        (low.min(times.min()), high.max(times.max()))
    });
    let scale = LogScale::around(low, high);
    let columns: Vec<f64> =
        (0..=PERCENTILE_COLUMNS).map(|column| f64::from(column) / f64::from(PERCENTILE_COLUMNS)).collect();
    let time_at = |times: &Latencies, x: f64| match x {
        1.0 => times.max(),
        _ => times.percentile(percentile_of(x * nines)),
    };
    let lines = times.iter().zip(CLASSES).map(|((name, times), class)| Line {
        name: name.to_string(),
        class,
        pieces: vec![columns.iter().map(|&x| (x, scale.position(time_at(times, x)))).collect()],
    });
    let spots = columns.windows(2).map(|pair| {
        let x = (pair[0] + pair[1]) / 2.0;
        let shown: Vec<String> = times
            .iter()
            .map(|(name, times)| format!("{name} {}", format_duration(time_at(times, x))))
            .collect();
        let text = format!("p{}: {}", short_percentile(percentile_of(x * nines)), shown.join(", "));
        Spot { from: pair[0], to: pair[1], bar: None, text }
    });
    let mut x_ticks = vec![Tick { at: percentile_of_nines(50.0) / nines, label: "50".to_string() }];
    x_ticks.extend((1..=nines.floor() as i32).map(|count| Tick {
        at: f64::from(count) / nines,
        label: format!("{:.*}", (count - 2).max(0) as usize, percentile_of(f64::from(count))),
    }));
    let head: Vec<&str> = [""].into_iter().chain(times.iter().map(|(name, _)| *name)).collect();
    let row = |name: String, of: &dyn Fn(&Latencies) -> Duration| -> Vec<String> {
        [name].into_iter().chain(times.iter().map(|(_, times)| format_duration(of(times)))).collect()
    };
    let mut rows = vec![row("min".to_string(), &Latencies::min), row("mean".to_string(), &Latencies::mean)];
    for percentile in PERCENTILES {
        let name = format!("p{percentile}");
        rows.push(
            [name]
                .into_iter()
                .chain(times.iter().map(|(_, times)| show_percentile(times, percentile)))
                .collect(),
        );
    }
    rows.push(row("max".to_string(), &Latencies::max));
    let chart = Chart {
        id: "percentiles",
        heading: "Latency by percentile",
        description: format!("At 99: 99 % of the responses took this time or less. {meaning}"),
        x_name: "percentile",
        x_ticks,
        y_ticks: scale.ticks(),
        lines: lines.collect(),
        spots: spots.collect(),
        table: table("Latency by percentile", &head, &rows),
        is_table_open: true,
    };
    html.push_str(&chart.render());
}

/// The number of nines of a percentile.
fn percentile_of_nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// Formats a percentile with enough digits to distinguish it from its neighbours.
fn short_percentile(percentile: f64) -> String {
    let decimals = (percentile_of_nines(percentile).floor() - 1.0).clamp(0.0, 9.0) as usize;
    format!("{percentile:.decimals$}")
}

/// The length of the time axis.
fn total_s(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| &series.points).map(super::Point::end_s).fold(0.0, f64::max)
}

pub fn add_latency(html: &mut String, series: &[Series], name: &str) {
    let total_s = total_s(series);
    let all = || series.iter().flat_map(|series| &series.points).filter_map(|point| point.times);
    let low = all().map(|[p50, ..]| p50).min();
    let high = all().map(|[_, _, longest]| longest).max();
    let (Some(low), Some(high)) = (low, high) else { return };
    let scale = LogScale::around(low, high);
    let line = |series: &Series, name: String, class, index: usize| Line {
        name,
        class,
        pieces: steps(series.points.iter().map(|point| {
            let value = point.times.map(|times| scale.position(times[index]));
            (point.start_s / total_s, point.end_s() / total_s, value)
        })),
    };
    let (lines, which): (Vec<Line>, _) = match series {
        [one] => {
            let names = [("max", "c", 2), ("p99", "b", 1), ("p50", "a", 0)];
            let lines = names.map(|(name, class, index)| line(one, name.to_string(), class, index));
            (lines.into(), "p50, p99 and maximum")
        }
        all => {
            let each = all.iter().zip(CLASSES.into_iter().cycle());
            (each.map(|(one, class)| line(one, one.name.clone(), class, 1)).collect(), "p99 of each log")
        }
    };
    let chart = Chart {
        id: "latency",
        heading: "Latency over time",
        description: format!("The {name} of each second's responses: {which}.{}", steps_note(series)),
        x_name: "time since the beginning",
        x_ticks: elapsed_ticks(total_s),
        y_ticks: scale.ticks(),
        lines,
        spots: seconds_spots(series, total_s),
        table: seconds_table(series, "Latency by second"),
        is_table_open: false,
    };
    html.push_str(&chart.render());
}

pub fn add_rate(html: &mut String, series: &[Series], value: &Value, unit: &str) {
    let total_s = total_s(series);
    if total_s <= 0.0 {
        return;
    }
    let due = due_rates(value, total_s);
    let planned = due.iter().map(|(_, rate_per_s)| *rate_per_s);
    let all = series.iter().flat_map(|series| &series.points);
    let high =
        all.flat_map(|point| [point.rate_per_s(), point.errors_per_s()]).chain(planned).fold(0.0, f64::max);
    let scale = LinearScale::up_to(high * HEADROOM);
    let rate_line = |(one, class): (&Series, &'static str)| Line {
        name: if series.len() > 1 { one.name.clone() } else { "answered".to_string() },
        class,
        pieces: steps(one.points.iter().map(|point| {
            let at = [point.start_s, point.end_s()].map(|second| second / total_s);
            (at[0], at[1], Some(scale.position(point.rate_per_s())))
        })),
    };
    let mut lines: Vec<Line> = series.iter().zip(CLASSES.into_iter().cycle()).map(rate_line).collect();
    if let [one] = series
        && one.points.iter().any(|point| point.errors.is_some_and(|errors| errors > 0))
    {
        let errors = one.points.iter().map(|point| {
            let at = [point.start_s, point.end_s()].map(|second| second / total_s);
            (at[0], at[1], point.errors.map(|_| scale.position(point.errors_per_s())))
        });
        lines.push(Line { name: "errors".to_string(), class: "errors", pieces: steps(errors) });
    }
    if !due.is_empty() {
        let points = due.iter().map(|(at_s, rate_per_s)| (at_s / total_s, scale.position(*rate_per_s)));
        lines.insert(0, Line { name: "planned".to_string(), class: "b", pieces: vec![points.collect()] });
    }
    let chart = Chart {
        id: "rate",
        heading: "Rate over time",
        description: format!("In {unit}; only successful requests count.{}", steps_note(series)),
        x_name: "time since the beginning",
        x_ticks: elapsed_ticks(total_s),
        y_ticks: scale.ticks(""),
        lines,
        spots: seconds_spots(series, total_s),
        table: seconds_table(series, "Rate by second"),
        is_table_open: false,
    };
    html.push_str(&chart.render());
}

/// The corners of the line of planned rates; none in a closed loop.
fn due_rates(value: &Value, total_s: f64) -> Vec<(f64, f64)> {
    let plan = &value["plan"];
    if let Some(rate_per_s) = plan["rate_per_s"].as_f64() {
        return vec![(0.0, rate_per_s), (total_s, rate_per_s)];
    }
    let mut corners = Vec::new();
    let mut begin_s = 0.0;
    for step in plan["steps"].as_array().into_iter().flatten() {
        let number = |name: &str| step[name].as_f64().unwrap_or_default();
        let (from, to, duration_s) = (number("from_per_s"), number("to_per_s"), number("duration_s"));
        // The run may have ended early.
        let part = ((total_s - begin_s) / duration_s).clamp(0.0, 1.0);
        if part > 0.0 {
            corners.extend([(begin_s, from), (begin_s + part * duration_s, from + part * (to - from))]);
        }
        begin_s += duration_s;
    }
    corners
}

pub fn add_steps(html: &mut String, value: &Value) {
    let Some(steps) = value["steps"].as_array() else { return };
    let row = |step: &Value| {
        let rate = |name: &str| format_per_s(step[name].as_f64().unwrap_or_default());
        let due = match step["from_per_s"] == step["to_per_s"] {
            true => rate("from_per_s"),
            false => format!("{} to {}", rate("from_per_s"), rate("to_per_s")),
        };
        let time = |name: &str| shown_time(&step["response_time"][name]);
        let seconds = format!("{:.2} s", step["measured_s"].as_f64().unwrap_or_default());
        let unsent = format_count(step["requests"]["unsent"].as_u64().unwrap_or_default());
        let times = ["p50_us", "p99_us", "p99_9_us", "max_us"].map(time);
        [due + "/s", seconds, rate("rate_per_s")].into_iter().chain(times).chain([unsent]).collect()
    };
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    html.push_str("<section id=\"steps\"><h2>Steps</h2>\n<p>Response times.</p>\n");
    let head = ["planned", "measured", "responses/s", "p50", "p99", "p99.9", "max", "unsent"];
    html.push_str(&table("Steps", &head, &rows));
    html.push_str("</section>\n");
}

/// The results per name of the requests of a list.
pub fn add_names(html: &mut String, value: &Value) {
    let Some(names) = value["by_name"].as_array() else { return };
    let row = |named: &Value| {
        let count = |field: &str| named["requests"][field].as_u64().unwrap_or_default();
        let failed = count("sent").saturating_sub(count("answered"));
        let times = ["p50_us", "p99_us", "max_us"].map(|field| shown_time(&named["response_time"][field]));
        let name = named["name"].as_str().unwrap_or_default().to_string();
        let counts = [count("answered"), failed].map(format_count);
        [name].into_iter().chain(counts).chain(times).collect()
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    html.push_str("<section id=\"names\"><h2>Requests by name</h2>\n<p>Response times.</p>\n");
    html.push_str(&table("Requests by name", &["name", "answered", "failed", "p50", "p99", "max"], &rows));
    html.push_str("</section>\n");
}

/// A time in microseconds, if there is one.
fn shown_time(value: &Value) -> String {
    match value.as_f64() {
        Some(microseconds) => format_duration(Duration::from_nanos((microseconds * 1000.0) as u64)),
        None => "-".to_string(),
    }
}

/// Explains points that combine several seconds.
fn steps_note(series: &[Series]) -> String {
    match series.iter().map(|series| series.seconds_each).max() {
        Some(seconds @ 2..) => format!(
            " Each point combines {seconds} seconds: their overall rate, and the maximum of each of their times."
        ),
        _ => String::new(),
    }
}

/// Tooltips for the seconds of a single series.
fn seconds_spots(series: &[Series], total_s: f64) -> Vec<Spot> {
    let [one] = series else { return Vec::new() };
    let spots = one.points.iter().map(|point| {
        let [rate, p50, p99, longest, errors] = cells(point);
        let mut text = format!("{}: {rate}/s", until(point));
        if point.times.is_some() {
            text += &format!(", p50 {p50}, p99 {p99}, max {longest}");
        }
        if point.errors.is_some_and(|errors| errors > 0) {
            text += &format!(", errors {errors}");
        }
        Spot { from: point.start_s / total_s, to: point.end_s() / total_s, bar: None, text }
    });
    spots.collect()
}

fn until(point: &super::Point) -> String {
    format!("{:.2} s to {:.2} s", point.start_s, point.end_s())
}

/// Rate, p50, p99, maximum, errors.
fn cells(point: &super::Point) -> [String; 5] {
    let time = |index: usize| point.times.map_or("-".to_string(), |times| format_duration(times[index]));
    [
        format_count(point.rate_per_s().round() as u64),
        time(0),
        time(1),
        time(2),
        point.errors.map_or("-".to_string(), format_count),
    ]
}

fn seconds_table(series: &[Series], caption: &str) -> String {
    let mut rows = Vec::new();
    for one in series {
        for point in &one.points {
            let name = match series.len() {
                1 => until(point),
                _ => format!("{}: {}", one.name, until(point)),
            };
            let mut row = vec![name];
            row.extend(cells(point));
            rows.push(row);
        }
    }
    table(caption, &["", "responses/s", "p50", "p99", "max", "errors"], &rows)
}

pub fn add_histogram(html: &mut String, times: &[(&str, &Latencies)]) {
    let Some((name, times)) = times.first() else { return };
    let bins = times.bins(0.0, 100.0, BINS_MAX);
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else { return };
    // A logarithmic scale has no zero.
    let begin = first.above.max(first.up_to / 2);
    let scale = LogScale::exact(begin, last.up_to);
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or_default();
    let percents = |count: u64| 100.0 * count as f64 / times.count() as f64;
    let y_scale = LinearScale::up_to(percents(most) * HEADROOM);
    let spots = bins.iter().map(|bin| {
        let range = format!("{} to {}", format_duration(bin.above), format_duration(bin.up_to));
        Spot {
            from: scale.position(bin.above.max(begin)),
            to: scale.position(bin.up_to),
            bar: Some(y_scale.position(percents(bin.count))),
            text: format!(
                "{range}: {} responses, {}",
                format_count(bin.count),
                share(bin.count, times.count())
            ),
        }
    });
    let rows: Vec<Vec<String>> = bins
        .iter()
        .filter(|bin| bin.count > 0)
        .map(|bin| {
            let range = format!("{} to {}", format_duration(bin.above), format_duration(bin.up_to));
            vec![range, format_count(bin.count), share(bin.count, times.count())]
        })
        .collect();
    let chart = Chart {
        id: "histogram",
        heading: "Latency distribution",
        description: format!(
            "The share of the responses whose {name} is in each range. Even a single response has a visible bar."
        ),
        x_name: name,
        x_ticks: scale.ticks(),
        y_ticks: y_scale.ticks(" %"),
        lines: Vec::new(),
        spots: spots.collect(),
        table: table("Latency distribution", &["", "responses", "share"], &rows),
        is_table_open: false,
    };
    html.push_str(&chart.render());
}

pub fn add_logs(html: &mut String, value: &Value) {
    let Some(logs) = value["logs"].as_array() else { return };
    let row = |log: &Value| {
        let number = |name: &str| log[name].as_f64().unwrap_or_default();
        vec![
            log["file"].as_str().unwrap_or_default().to_string(),
            machine::show_date(super::time_of(number("start_s"))),
            format!("{:.2} s", number("measured_s")),
            format_count(number("rate_per_s").round() as u64),
            format_count(log["answered"].as_u64().unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = logs.iter().map(row).collect();
    html.push_str("<section id=\"logs\"><h2>Logs</h2>\n");
    html.push_str(&table("Logs", &["", "began", "measured", "responses/s", "responses"], &rows));
    html.push_str("</section>\n");
}

pub fn add_errors(html: &mut String, value: &Value) {
    let Some(kinds) = value["errors"]["kinds"].as_array() else { return };
    html.push_str("<section id=\"errors\"><h2>Errors</h2>\n");
    if kinds.is_empty() {
        html.push_str("<p>None.</p>\n");
    } else {
        let row = |kind: &Value| {
            vec![
                kind["kind"].as_str().unwrap_or_default().replace('_', " "),
                format_count(kind["count"].as_u64().unwrap_or_default()),
                kind["example"].as_str().unwrap_or_default().to_string(),
            ]
        };
        let rows: Vec<_> = kinds.iter().map(row).collect();
        html.push_str("<div class=\"texts\">");
        html.push_str(&table("Errors by kind", &["", "count", "first example"], &rows));
        html.push_str("</div>\n");
    }
    html.push_str("</section>\n");
}

pub fn add_counts(html: &mut String, value: &Value) {
    html.push_str("<div class=\"pair\">\n");
    for (name, heading) in [
        ("requests", "Requests"),
        ("sessions", "Sessions"),
        ("connections", "Connections"),
        ("statuses", "Responses by status"),
        ("traffic", "Bytes"),
        ("plan", "Plan"),
        ("generator", "Generator"),
    ] {
        let mut rows = rows_of(&value[name]);
        // Send delays are reported in the remarks if they matter.
        rows.retain(|row| !row[0].starts_with("send delay"));
        rows.sort_by_key(|row| ORDER.iter().position(|name| *name == row[0]).unwrap_or(ORDER.len()));
        if rows.is_empty() {
            continue;
        }
        add(
            html,
            format_args!(
                "<section id=\"{name}\"><h2>{heading}</h2>\n{}</section>\n",
                table(heading, &[], &rows)
            ),
        );
    }
    html.push_str("</div>\n");
}

/// The machine is shown for runs only: reports on logs may be made anywhere.
pub fn add_machine(html: &mut String, value: &Value) {
    let (heading, facts) = match value["logs"].is_array() {
        true => ("Command", String::new()),
        false => ("Command and machine", table("The machine", &[], &machine::facts())),
    };
    add(
        html,
        format_args!(
            "<section id=\"machine\"><h2>{heading}</h2>\n<pre>{}</pre>\n<div class=\"texts\">{facts}</div></section>\n",
            Escaped(secrets::command_line()),
        ),
    );
}
