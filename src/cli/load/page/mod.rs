//! The results as an HTML page: a self-contained file without scripts, for browsers, attachments, and CI
//! artifacts. It is also well-formed XML, so that programs can parse it.
//!
//! Its content is generated from the JSON results, so that the two always agree; the charts are drawn from the
//! histograms and the intervals of the run.

mod chart;
mod machine;
mod markup;
mod repeats;
mod scale;
mod search;
mod sections;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringspun_load::{Interval, Latencies, Log, Second};
use serde_json::Value;

use self::markup::{Escaped, add};

/// The maximum number of points of a line: more would be indistinguishable, and make the page large.
const STEPS_MAX: usize = 600;

const STYLE: &str = include_str!("style.css");

/// A second of a run.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Relative to the beginning of the chart.
    start_s: f64,
    duration_s: f64,
    answered: u64,
    /// Absent in logs.
    errors: Option<u64>,
    /// p50, p99 and maximum, if anything was answered.
    times: Option<[Duration; 3]>,
}

impl Point {
    /// `None` for the interval after the end, which rates exclude.
    pub fn of(interval: &Interval) -> Option<Self> {
        let times = interval.times();
        (!interval.is_after_end).then(|| Self {
            start_s: interval.start.as_secs_f64(),
            duration_s: interval.duration.as_secs_f64(),
            answered: times.count(),
            errors: Some(interval.errors),
            times: (times.count() > 0)
                .then(|| [50.0, 99.0, 100.0].map(|percentile| times.percentile(percentile))),
        })
    }

    fn rate_per_s(&self) -> f64 {
        if self.duration_s > 0.0 { self.answered as f64 / self.duration_s } else { 0.0 }
    }

    /// Zero if they are unknown.
    fn errors_per_s(&self) -> f64 {
        self.errors.unwrap_or_default() as f64 / self.duration_s.max(1e-3)
    }

    fn end_s(&self) -> f64 {
        self.start_s + self.duration_s
    }

    /// Combines several seconds: their overall rate, and the maximum of each of their times.
    fn together(points: &[Self]) -> Option<Self> {
        let (first, others) = points.split_first()?;
        Some(others.iter().fold(*first, |all, point| Self {
            start_s: all.start_s,
            duration_s: point.end_s() - all.start_s,
            answered: all.answered + point.answered,
            errors: all.errors.zip(point.errors).map(|(a, b)| a + b),
            times: match (all.times, point.times) {
                (Some(a), Some(b)) => Some([0, 1, 2].map(|index| a[index].max(b[index]))),
                (a, b) => a.or(b),
            },
        }))
    }
}

/// The share of the second before it from which on the last part of a second is drawn on its own.
const TOO_SHORT: f64 = 0.1;

/// The seconds of a run, or of a log.
pub struct Series {
    name: String,
    points: Vec<Point>,
    /// The number of seconds that each point combines.
    seconds_each: usize,
}

impl Series {
    pub fn new(name: String, seconds: &[Point]) -> Self {
        let seconds_each = seconds.len().div_ceil(STEPS_MAX).max(1);
        let mut points: Vec<Point> = seconds.chunks(seconds_each).filter_map(Point::together).collect();
        // A run limited by count may end just after a second has begun: a response in a moment would be drawn as a
        // peak, beside which all else is flat.
        if let [.., before, last] = points.as_slice()
            && last.duration_s < before.duration_s * TOO_SHORT
        {
            let both = Point::together(&[*before, *last]);
            points.truncate(points.len() - 2);
            points.extend(both);
        }
        Self { name, points, seconds_each }
    }

    /// The seconds of logs, all relative to the earliest beginning.
    pub fn of_logs(logs: &[Log]) -> Vec<Self> {
        let start_s = logs.iter().map(Log::start_s).fold(f64::MAX, f64::min);
        let series = |log: &Log| {
            let point = |second: &Second| Point {
                start_s: second.start_s - start_s,
                duration_s: second.duration_s,
                answered: second.answered,
                errors: None,
                times: (second.answered > 0).then(|| [second.times[0], second.times[2], second.times[4]]),
            };
            Self::new(log.name.clone(), &log.seconds.iter().map(point).collect::<Vec<_>>())
        };
        logs.iter().map(series).collect()
    }
}

/// The content of a page.
pub struct Page<'a> {
    /// The title: the target, or the logs.
    pub title: String,
    /// A line about the run.
    pub summary: String,
    /// When the measurement began.
    pub began_at: SystemTime,
    /// The JSON results.
    pub value: &'a Value,
    /// Histograms with their names.
    pub times: Vec<(&'static str, &'a Latencies)>,
    /// An explanation of the times.
    pub meaning: String,
    /// The unit of the rate.
    pub rate_unit: &'static str,
    pub series: Vec<Series>,
    /// Caveats about the results, in paragraphs.
    pub remarks: String,
    /// The figures of several runs: a name, a mean, an interval, and a value per run; empty for a single run.
    pub repeats: Vec<Vec<String>>,
}

impl Page<'_> {
    /// The page as HTML.
    pub fn render(&self) -> String {
        let title = Escaped(&self.title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n\
             <meta charset=\"utf-8\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             img-src data:\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <link rel=\"icon\" href=\"data:,\"/>\n<title>{title} - ringspun load</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header><p class=\"program\">RINGSPUN LOAD</p><h1>{title}</h1>\n<p>{}</p>\n<p>Began {}.</p></header>\n\
             <main>\n",
            Escaped(&self.summary),
            machine::show_date(self.began_at),
        );
        sections::add_gates(&mut html, self.value);
        sections::add_remarks(&mut html, &self.remarks);
        repeats::add_repeats(&mut html, &self.repeats);
        search::add_search(&mut html, self.value);
        sections::add_tiles(&mut html, self.value, self.times.first().map(|(_, times)| *times));
        sections::add_percentiles(&mut html, &self.times, &self.meaning);
        sections::add_latency(&mut html, &self.series, self.times.first().map_or("", |(name, _)| *name));
        sections::add_rate(&mut html, &self.series, self.value, self.rate_unit);
        sections::add_names(&mut html, self.value);
        sections::add_steps(&mut html, self.value);
        sections::add_histogram(&mut html, &self.times);
        sections::add_logs(&mut html, self.value);
        sections::add_errors(&mut html, self.value);
        sections::add_counts(&mut html, self.value);
        sections::add_machine(&mut html, self.value);
        add(&mut html, format_args!("</main>\n</body>\n</html>\n"));
        html
    }
}

/// Converts seconds since 1970.
pub fn time_of(since_1970_s: f64) -> SystemTime {
    UNIX_EPOCH + Duration::try_from_secs_f64(since_1970_s).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_at_the_end_is_no_peak() {
        let point = |start_s, duration_s, answered| Point {
            start_s,
            duration_s,
            answered,
            errors: Some(0),
            times: Some([answered; 3].map(Duration::from_millis)),
        };
        let series =
            Series::new(String::new(), &[point(0.0, 1.0, 4), point(1.0, 1.0, 4), point(2.0, 0.002, 1)]);
        let rates: Vec<f64> = series.points.iter().map(Point::rate_per_s).collect();
        assert!(rates.len() == 2 && rates.iter().all(|rate| (3.9..5.1).contains(rate)), "{rates:?}");
        assert_eq!(series.points[1].end_s(), 2.002);
        // Alone, or not so short, it is drawn as it is.
        assert_eq!(Series::new(String::new(), &[point(0.0, 0.002, 1)]).points.len(), 1);
        assert_eq!(Series::new(String::new(), &[point(0.0, 1.0, 4), point(1.0, 0.2, 1)]).points.len(), 2);
    }

    #[test]
    fn long_runs_are_drawn_in_fewer_steps() {
        let second = |number: u32| Point {
            start_s: f64::from(number),
            duration_s: 1.0,
            answered: 10,
            errors: Some(u64::from(number % 2)),
            times: (!number.is_multiple_of(3))
                .then(|| [10, 20, 30].map(|time| Duration::from_millis(time + u64::from(number)))),
        };
        let seconds: Vec<Point> = (0..1501).map(second).collect();
        let series = Series::new(String::new(), &seconds);
        assert_eq!((series.seconds_each, series.points.len()), (3, 501));
        let point = &series.points[1];
        assert_eq!((point.start_s, point.duration_s, point.answered), (3.0, 3.0, 30));
        assert_eq!((point.rate_per_s(), point.errors), (10.0, Some(2)));
        assert_eq!(point.times, Some([15, 25, 35].map(Duration::from_millis)));
        assert_eq!(series.points[500].duration_s, 1.0);
        assert_eq!(Series::new(String::new(), &seconds[..600]).points.len(), 600);
    }
}
