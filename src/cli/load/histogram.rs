//! A text histogram of times, 80 columns wide, for terminals and CI logs.

use std::fmt::Write;

use ringspun_load::{Bin, Latencies, format_count, format_duration};

/// The maximum number of bins, without the one for the longest times.
const BINS_MAX: usize = 14;
/// Times outside these percentiles share a bin, so that outliers do not squeeze the others into one line.
const PERCENTILES: [f64; 2] = [0.1, 99.9];
/// The width of the longest bar, in columns.
const BAR_COLUMNS: usize = 28;
/// Block characters for eighths of a column.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Writes the histogram; nothing if there are no times.
pub fn write(text: &mut String, name: &str, times: &Latencies) -> std::fmt::Result {
    write_bins(text, name, &times.bins(PERCENTILES[0], PERCENTILES[1], BINS_MAX))
}

fn write_bins(text: &mut String, name: &str, bins: &[Bin]) -> std::fmt::Result {
    let (total, most) =
        bins.iter().fold((0, 0), |(total, most), bin| (total + bin.count, bin.count.max(most)));
    if total == 0 {
        return Ok(());
    }
    writeln!(text, "\n{name:<13}{:>9}{:>16}{:>9}", "up to", "responses", "share")?;
    for bin in bins {
        let share = share(bin.count, total);
        let (up_to, count) = (format_duration(bin.up_to), format_count(bin.count));
        let line = format!("{:13}{up_to:>9}{count:>16}{share:>9}  {}", "", bar(bin.count, most));
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A percentile, or `-` if there are too few times to know it.
pub fn show_percentile(times: &Latencies, percentile: f64) -> String {
    times.known_percentile(percentile).map_or("-".to_string(), format_duration)
}

/// A share in percent; a non-zero share is never shown as zero.
pub fn share(count: u64, total: u64) -> String {
    let percent = 100.0 * count as f64 / total.max(1) as f64;
    match count {
        0 => "-".to_string(),
        _ if percent < 0.05 => "<0.1 %".to_string(),
        _ => format!("{percent:.1} %"),
    }
}

/// A bar with a length in proportion to the longest; non-zero counts are always visible.
fn bar(count: u64, most: u64) -> String {
    let eighths = (count as f64 / most as f64 * (8 * BAR_COLUMNS) as f64).round() as usize;
    let eighths = eighths.max(usize::from(count > 0));
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// Counts as columns of two lines, the upper one first; non-zero counts are always visible.
pub fn columns(counts: &[u64]) -> [String; 2] {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let level = |count: u64| {
        let eighths = (16.0 * count as f64 / most as f64).round() as usize;
        eighths.max(usize::from(count > 0))
    };
    let upper = counts.iter().map(|count| LEVELS[level(*count).saturating_sub(8)]);
    let lower = counts.iter().map(|count| LEVELS[level(*count).min(8)]);
    [upper.collect(), lower.collect()]
}

/// A progress bar of ten columns, for a share from 0 to 1.
pub fn progress_bar(share: f64) -> String {
    const COLUMNS: usize = 10;
    let eighths = (share.min(1.0) * (8 * COLUMNS) as f64) as usize;
    let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    format!("▕{bar:<COLUMNS$}▏")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_lines_of_a_histogram_fit_into_80_columns() {
        let bin = |above_us, up_to_us, count| Bin {
            above: Duration::from_micros(above_us),
            up_to: Duration::from_micros(up_to_us),
            count,
        };
        let bins =
            [bin(0, 100, 1), bin(100, 125, 0), bin(125, 160, 1_000_000_000_000), bin(160, 999_000, 49)];
        let mut text = String::new();
        write_bins(&mut text, "response time", &bins).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "response time    up to       responses    share");
        assert_eq!(lines[2], "                100 µs               1   <0.1 %  ▏");
        assert_eq!(lines[3], "                125 µs               0        -");
        assert!(lines[4].ends_with(&"█".repeat(BAR_COLUMNS)), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn progress_fills_its_bar() {
        assert_eq!(progress_bar(0.0), format!("▕{}▏", " ".repeat(10)));
        assert_eq!(progress_bar(0.5), format!("▕{}{}▏", "█".repeat(5), " ".repeat(5)));
        assert_eq!(progress_bar(2.0), format!("▕{}▏", "█".repeat(10)));
    }

    #[test]
    fn columns_are_as_high_as_their_counts() {
        assert_eq!(columns(&[0, 1, 500, 1000, 750]), ["   █▄", " ▁███"]);
        assert_eq!(columns(&[0, 0]), ["  ", "  "]);
    }
}
