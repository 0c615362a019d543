//! How the counts look: a screen on a terminal, a line elsewhere.

use std::time::Duration;

use ringspun_load::{format_count, format_duration};

use super::samples::Change;
use crate::cli::terminal;

/// What a column shows.
enum Shows {
    Now,
    PerSecond,
    /// Of a count of seconds.
    Percent,
    /// A time in seconds.
    Time,
}
use Shows::{Now, PerSecond, Percent, Time};

/// The name of a column, its metric, and what of that.
type Column = (&'static str, &'static str, Shows);

/// Of a worker of a server.
const OF_WORKERS: [Column; 7] = [
    ("connections", "ringspun_connections", Now),
    ("new/s", "ringspun_connections_total", PerSecond),
    ("handed over/s", "ringspun_connections_handed_over_total", PerSecond),
    ("failed", "ringspun_connections_failed_total", Now),
    ("bytes/s", "ringspun_received_bytes_total", PerSecond),
    ("datagrams/s", "ringspun_datagrams_total", PerSecond),
    ("cpu", "ringspun_processor_time_seconds_total", Percent),
];
/// Of a loop.
const OF_THREADS: [Column; 6] = [
    ("fibers", "ringspun_fibers", Now),
    ("in flight", "ringspun_operations_in_flight", Now),
    ("timers", "ringspun_timers", Now),
    ("buffers", "ringspun_receive_buffers_lent", Now),
    ("pool", "ringspun_blocking_calls", Now),
    ("waits/s", "ringspun_waits_total", PerSecond),
];
/// Of a load generator, and of a Janet VM.
const OF_PROCESS: [Column; 6] = [
    ("janet fibers", "ringspun_janet_fibers", Now),
    ("connections", "ringspun_load_connections", Now),
    ("responses/s", "ringspun_load_responses_per_second", Now),
    ("errors", "ringspun_load_errors_total", Now),
    ("p50", "ringspun_load_response_time_p50_seconds", Time),
    ("p99", "ringspun_load_response_time_p99_seconds", Time),
];
/// The widest name of a thread that is shown.
const THREAD_COLUMNS: usize = 14;

/// A count, for a text of a label or for all; `None` if the process has none.
fn value(change: &Change, (_, metric, shows): &Column, label: Option<(&str, &str)>) -> Option<String> {
    let number = |value: f64| match value {
        _ if value.fract() == 0.0 || value >= 100.0 => format_count(value as u64),
        _ => format!("{value:.1}"),
    };
    match shows {
        Now => change.sum(metric, label).map(number),
        PerSecond => change.rate(metric, label).map(|rate| number((rate * 10.0).round() / 10.0)),
        Time => {
            let time = change.sum(metric, label)?;
            Duration::try_from_secs_f64(time).ok().map(format_duration)
        }
        Percent => change.rate(metric, label).map(|share| format!("{:.0}%", share * 100.0)),
    }
}

/// The counts of the whole process, on a line: of each that it has, its name and its value.
pub fn line(change: &Change) -> String {
    let columns = OF_PROCESS.iter().chain(&OF_WORKERS).chain(&OF_THREADS);
    let counts = columns.filter_map(|column| {
        let name = column.0.replace(' ', "_");
        Some(format!("{name}={}", value(change, column, None)?.replace([',', ' '], "")))
    });
    counts.collect::<Vec<_>>().join(" ")
}

/// The lines of a screen of so many columns and rows.
pub fn lines(source: &str, change: &Change, (columns, rows): (usize, usize)) -> Vec<String> {
    let mut lines = vec![format!("ringspun top: {source}, rates over {:.1} s", change.over.as_secs_f64())];
    let of_process: Vec<String> = OF_PROCESS
        .iter()
        .filter_map(|column| Some(format!("{} {}", column.0, value(change, column, None)?)))
        .collect();
    if !of_process.is_empty() {
        lines.extend([String::new(), of_process.join("   ")]);
    }
    lines.extend(table(change, "worker", None, &OF_WORKERS));
    lines.extend(table(change, "thread", Some("backend"), &OF_THREADS));
    if lines.len() > rows {
        let hidden = lines.len() - rows.saturating_sub(1);
        lines.truncate(rows.saturating_sub(1));
        lines.push(format!("{hidden} more lines"));
    }
    // A terminal may wrap a line that fills it.
    lines.iter().map(|line| terminal::cut(line, columns.saturating_sub(1))).collect()
}

/// A row for each text of a label, and the sums; nothing if there is none.
fn table(change: &Change, label: &str, other: Option<&str>, columns: &[Column]) -> Vec<String> {
    let texts = change.texts_of(label);
    if texts.is_empty() {
        return Vec::new();
    }
    let names = columns.iter().map(|column| column.0.to_string());
    let mut rows: Vec<Vec<String>> =
        vec![[label].into_iter().chain(other).map(str::to_string).chain(names).collect()];
    for text in &texts {
        let of = (label, text.as_str());
        let mut row = vec![text.chars().take(THREAD_COLUMNS).collect()];
        row.extend(other.map(|other| change.other_label(of, other).unwrap_or_default()));
        row.extend(columns.iter().map(|column| value(change, column, Some(of)).unwrap_or_default()));
        rows.push(row);
    }
    if texts.len() > 1 {
        let mut row = vec!["all".to_string()];
        row.extend(other.map(|_| String::new()));
        row.extend(columns.iter().map(|column| value(change, column, None).unwrap_or_default()));
        rows.push(row);
    }
    let width = |index: usize| rows.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    // Names to the left, numbers to the right.
    let names = 1 + usize::from(other.is_some());
    let aligned = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(index, (cell, &width))| match index < names {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    });
    [String::new()].into_iter().chain(aligned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::Samples;
    use super::*;

    /// A busy server on three workers, with large counts.
    fn server(connections: u64) -> Samples {
        let mut text = String::new();
        for (worker, thread) in ["main", "worker 1", "worker 10"].iter().enumerate() {
            for (_, metric, _) in OF_WORKERS {
                text += &format!("{metric}{{worker=\"{worker}\"}} {connections}\n");
            }
            for (_, metric, _) in OF_THREADS {
                text += &format!("{metric}{{thread=\"{thread}\",backend=\"io_uring\"}} {connections}\n");
            }
        }
        text.parse().unwrap()
    }

    #[test]
    fn a_busy_server_fits_into_80_columns_and_the_rows_there_are() {
        let (last, now) = (server(100_000), server(100_001));
        let change = Change { last: &last, now: &now, over: Duration::from_secs(1) };
        let screen = |source, size| super::lines(source, &change, size);
        let lines = screen("process 4294967295", terminal::SIZE);
        println!("{}", lines.join("\n"));
        assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() < 80), "{lines:?}");
        assert!(lines[2].starts_with("worker  connections  new/s  handed over/s"), "{}", lines[2]);
        let expected = ["0", "100,001", "1", "1", "100,001", "1", "1", "100%"];
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), expected);
        assert_eq!(
            lines[6].split_whitespace().collect::<Vec<_>>(),
            ["all", "300,003", "3", "3", "300,003", "3", "3", "300%"]
        );
        assert!(lines[9].starts_with("main       io_uring"), "{}", lines[9]);
        let small = screen("process 1", (20, 5));
        assert_eq!((small.len(), small[4].as_str()), (5, "9 more lines"));
        assert!(small.iter().all(|line| line.len() < 20), "{small:?}");
    }

    #[test]
    fn a_line_has_the_counts_that_there_are() {
        let last: Samples = "ringspun_load_errors_total 1\nringspun_fibers{thread=\"a\"} 1".parse().unwrap();
        let now: Samples = "ringspun_load_errors_total 1234567\nringspun_fibers{thread=\"a\"} 7\n\
                            ringspun_load_response_time_p50_seconds 0.000125\n"
            .parse()
            .unwrap();
        let change = Change { last: &last, now: &now, over: Duration::from_secs(1) };
        assert_eq!(line(&change), "errors=1234567 p50=125µs fibers=7");
    }
}
