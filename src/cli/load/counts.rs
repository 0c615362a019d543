//! The progress of a run as counts, for `ringspun top`.

use std::sync::{Arc, Mutex, PoisonError};

use ringspun::MetricKind::{Counter, Gauge};
use ringspun::Metrics;
use ringspun_load::{Observer, Progress};

use super::live::Screen;
use crate::cli::inspection::Sources;
use crate::cli::metrics::Source;

/// Keeps the last progress for those who ask, and for the screen.
pub fn observe(sources: &Sources, screen: Option<Screen>) -> Observer {
    let last = Arc::new(Mutex::new(None::<Arc<Progress>>));
    let asked = last.clone();
    sources.set_counts(Source::new(move |metrics| {
        let progress = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(progress) = progress {
            add_to(metrics, &progress);
        }
    }));
    Box::new(move |progress| {
        let progress = Arc::new(progress);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
        if let Some(screen) = &screen {
            screen.see(progress);
        }
    })
}

fn add_to(metrics: &mut Metrics, progress: &Progress) {
    let mut add = |name, kind, help, value| metrics.add(name, kind, help, &[], value);
    add("ringspun_load_connections", Gauge, "Open connections.", progress.connections_open as f64);
    let help = "Expected responses per second, in the last second.";
    add("ringspun_load_responses_per_second", Gauge, help, progress.rate_per_s);
    add("ringspun_load_errors_total", Counter, "Errors of all kinds.", progress.errors as f64);
    let times = &progress.response_times;
    for (name, help, percentile) in [
        ("ringspun_load_response_time_p50_seconds", "Median of the response times so far.", 50.0),
        ("ringspun_load_response_time_p99_seconds", "99th percentile of the response times so far.", 99.0),
    ] {
        if times.count() > 0 {
            add(name, Gauge, help, times.percentile(percentile).as_secs_f64());
        }
    }
}
