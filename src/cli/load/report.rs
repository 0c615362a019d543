//! `ringspun load report`: merges logs of `--hdr`, or compares two of them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, error::ErrorKind};
use ringspun_load::{Comparison, Log, Merged, Row, compare, format_count, format_duration};
use serde_json::{Value, json};

use super::files::{ResultFile, check_distinct, check_kept};
use super::{histogram, json::times, open_json, page, print, reject, text};
use crate::cli::output;

/// Merge or compare logs written by --hdr
#[derive(Args)]
#[command(after_help = "\
Examples:
  ringspun load report one.hdr
  ringspun load report machine-1.hdr machine-2.hdr machine-3.hdr --json all.json
  ringspun load report machine-1.hdr machine-2.hdr --html all.html
  ringspun load report --compare before.hdr after.hdr

Logs of several machines are merged as if one machine had sent all requests. The rate is that of the time in
which all of them measured, according to their clocks.

--compare shows for rate, p50, p90, p99, p99.9 and max which run was better, if they differ by more than 1 %
and by more than the noise: the medians of the values per second differ with 95 % confidence. This takes at
least 6 seconds per run; docs/load-logs.md explains it.

The exit status is 0 if the logs could be read, 1 if not, and 2 if the command line is invalid. A difference
is not a failure.")]
pub struct Report {
    /// Logs written by `ringspun load TARGET --hdr LOG`
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// Compare two runs
    #[arg(long)]
    compare: bool,
    /// Write the report as JSON to a file (described in docs/load-logs.md), or with - to standard output
    /// instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the merged logs as an HTML page with charts; self-contained, without scripts
    #[arg(long, value_name = "FILE", conflicts_with = "compare")]
    html: Option<PathBuf>,
}

/// Merges or compares logs, and prints the result.
pub fn report(options: &Report) -> ExitCode {
    if options.compare && options.logs.len() != 2 {
        let message = format!("--compare got {} logs: expected two\n", options.logs.len());
        reject(&["report"], ErrorKind::WrongNumberOfValues, &message);
    }
    let files = [("--json", options.json.as_deref()), ("--html", options.html.as_deref())];
    let logs: Vec<_> = options.logs.iter().map(|path| ("the report", Some(path.as_path()))).collect();
    if let Err(message) = check_distinct(&files).and_then(|()| check_kept(&files, &logs)) {
        reject(&["report"], ErrorKind::ArgumentConflict, &message);
    }
    match try_report(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::complain(message);
            ExitCode::FAILURE
        }
    }
}

fn try_report(options: &Report) -> Result<(), String> {
    let logs: Vec<Log> = options
        .logs
        .iter()
        .map(|path| Log::read(path).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let (table, value) = match logs.as_slice() {
        [a, b] if options.compare => {
            let comparison = compare(a, b)?;
            (comparison_table(a, b, &comparison), comparison_value(a, b, &comparison))
        }
        logs => {
            let merged = Merged::new(logs)?;
            let value = merged_value(logs, &merged);
            if let Some(path) = &options.html {
                let page = merged_page(logs, &merged, &value);
                ResultFile::open(path)
                    .and_then(|file| file.write(&page))
                    .map_err(|error| error.to_string())?;
            }
            (merged_table(logs, &merged), value)
        }
    };
    let json = options.json.as_deref();
    open_json(json).and_then(|file| print(&table, &value, json, file)).map_err(|error| error.to_string())
}

/// One line about a log.
fn log_line(log: &Log) -> String {
    format!(
        "{}: {} answered in {}, {}/s",
        log.name,
        format_count(log.answered()),
        show_seconds(log.measured_s()),
        show_rate(log.rate_per_s())
    )
}

fn show_rate(rate_per_s: f64) -> String {
    format_count(rate_per_s.round() as u64)
}

/// Seconds from a log, which may be any number, even an invalid duration.
fn show_seconds(seconds: f64) -> String {
    format_duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn merged_table(logs: &[Log], merged: &Merged) -> String {
    let mut table: String = logs.iter().map(|log| log_line(log) + "\n").collect();
    let rate = match merged.rate_per_s {
        Some(rate_per_s) => {
            let common = show_seconds(merged.common_s);
            let of_all = if logs.len() > 1 { "in which all logs measured" } else { "measured" };
            format!("{} answered requests/s in the {common} {of_all}", show_rate(rate_per_s))
        }
        None => "- (the measurements do not overlap in time)".to_string(),
    };
    // Writing to a string cannot fail.
    let _ = write!(table, "\nrate         {rate}\nrequests     {} answered", format_count(merged.answered));
    if merged.answered_after_end > 0 {
        let _ = write!(
            table,
            ", {} of them after the end of the measurement",
            format_count(merged.answered_after_end)
        );
    }
    table.push('\n');
    let _ = text::write_head(&mut table);
    if let Some(response_times) = &merged.response_times {
        let _ = text::write_row(&mut table, "response time", response_times);
    }
    let _ = text::write_row(&mut table, "service time", &merged.service_times);
    table.push('\n');
    let _ = match &merged.response_times {
        Some(times) => histogram::write(&mut table, "response time", times),
        None => histogram::write(&mut table, "service time", &merged.service_times),
    };
    table.push_str(match merged.response_times {
        Some(_) => {
            "\nResponse time: from when a request was due to its response. \
             Service time: from when it was sent.\n"
        }
        None => {
            "\nService time: from sending a request to its response. In a closed loop, stalls hardly show.\n"
        }
    });
    table
}

fn merged_value(logs: &[Log], merged: &Merged) -> Value {
    json!({
        "format": "ringspun-load-report",
        "version": 1,
        "ringspun": env!("CARGO_PKG_VERSION"),
        "logs": logs.iter().map(log_value).collect::<Vec<_>>(),
        "loop": loop_name(merged.response_times.is_some()),
        "measured_s": merged.common_s,
        "rate_per_s": merged.rate_per_s.map(tenths),
        "requests": { "answered": merged.answered, "answered_after_end": merged.answered_after_end },
        "response_time": times(merged.response_times.as_ref().unwrap_or(&merged.service_times)),
        "service_time": times(&merged.service_times),
    })
}

fn merged_page(logs: &[Log], merged: &Merged, value: &Value) -> String {
    let names: Vec<&str> = logs.iter().map(|log| log.name.as_str()).collect();
    let began_at_s = logs.iter().map(Log::start_s).fold(f64::MAX, f64::min);
    let mut times = vec![("service time", &merged.service_times)];
    if let Some(response_times) = &merged.response_times {
        times.insert(0, ("response time", response_times));
    }
    page::Page {
        title: names.join(", "),
        summary: match logs {
            [log] => format!(
                "{} loop, measured for {}.",
                loop_name(times.len() > 1),
                show_seconds(log.measured_s())
            ),
            _ => {
                let together = match merged.rate_per_s {
                    Some(_) => format!("all measured together for {}", show_seconds(merged.common_s)),
                    None => "the measurements do not overlap in time".to_string(),
                };
                let loops = loop_name(times.len() > 1);
                format!(
                    "{} logs of {loops} loops, merged as if one machine had sent all requests; {together}.",
                    logs.len()
                )
            }
        },
        repeats: Vec::new(),
        began_at: page::time_of(began_at_s),
        value,
        times,
        meaning: match merged.response_times {
            Some(_) => {
                "Response time: from when a request was due to its response. \
                 Service time: from when it was sent."
            }
            None => "Service time: in a closed loop, stalls hardly show.",
        }
        .to_string(),
        rate_unit: "answered requests/s",
        series: page::Series::of_logs(logs),
        remarks: String::new(),
    }
    .render()
}

fn log_value(log: &Log) -> Value {
    json!({
        "file": log.name,
        "start_s": log.start_s(),
        "measured_s": log.measured_s(),
        "rate_per_s": tenths(log.rate_per_s()),
        "answered": log.answered(),
        "answered_after_end": log.answered_after_end,
    })
}

fn loop_name(is_open_loop: bool) -> &'static str {
    if is_open_loop { "open" } else { "closed" }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn comparison_table(a: &Log, b: &Log, comparison: &Comparison) -> String {
    let times = if a.response_times.is_some() { "Response" } else { "Service" };
    let mut table = format!("A = {}\nB = {}\n\n", log_line(a), log_line(b));
    let _ = writeln!(table, "{:<7}{:>12}{:>12}{:>8}", "", "A", "B", "B/A");
    for row in &comparison.rows {
        let shown = |value| if row.name == "rate" { show_rate(value) + "/s" } else { show_seconds(value) };
        let ratio = row.ratio().map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
        let verdict = verdict_of(row).map_or(String::new(), |verdict| format!("  B is {verdict}"));
        let _ = writeln!(table, "{:<7}{:>12}{:>12}{ratio:>8}{verdict}", row.name, shown(row.a), shown(row.b));
    }
    let _ = writeln!(
        table,
        "\n{times} times. {}",
        match comparison.is_noise_known {
            true =>
                "Rows have a verdict if the values per second of the two runs differ by more than their noise,\n\
                 and by more than 1 %.",
            false => "No verdict: estimating the noise takes at least 6 seconds of each run.",
        }
    );
    table
}

fn verdict_of(row: &Row) -> Option<&'static str> {
    row.is_b_better.map(|is_b_better| if is_b_better { "better" } else { "worse" })
}

fn comparison_value(a: &Log, b: &Log, comparison: &Comparison) -> Value {
    let rows = comparison.rows.iter().map(|row| {
        // Times are in microseconds, as in the other results.
        let (name, factor) = match row.name {
            "rate" => ("rate_per_s".to_string(), 1.0),
            name => (format!("{}_us", name.replace('.', "_")), 1e6),
        };
        let rounded = |value: f64| (value * factor * 1000.0).round() / 1000.0;
        json!({
            "name": name,
            "a": rounded(row.a),
            "b": rounded(row.b),
            "ratio": row.ratio(),
            "verdict": verdict_of(row),
        })
    });
    json!({
        "format": "ringspun-load-comparison",
        "version": 1,
        "ringspun": env!("CARGO_PKG_VERSION"),
        "loop": loop_name(a.response_times.is_some()),
        "a": log_value(a),
        "b": log_value(b),
        "noise_known": comparison.is_noise_known,
        "rows": rows.collect::<Vec<_>>(),
    })
}
