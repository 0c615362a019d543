//! The progress of a run as counts, for `ringspun top`.

use std::sync::{Arc, Mutex, PoisonError};

use ringspun::MetricKind::{Counter, Gauge};
use ringspun::Metrics;
use ringspun_load::{Observer, Progress};

use crate::cli::inspection::Sources;
use crate::cli::metrics::Source;

/// Keeps the last progress for those who ask, and hands it on.
pub fn observe(sources: &Sources, mut shown: Option<Observer>) -> Observer {
    let last = Arc::new(Mutex::new(None));
    let asked = last.clone();
    sources.set_counts(Source::new(move |metrics| {
        if let Some(progress) = &*asked.lock().unwrap_or_else(PoisonError::into_inner) {
            add_to(metrics, progress);
        }
    }));
    Box::new(move |progress| {
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(*progress);
        if let Some(shown) = &mut shown {
            shown(progress);
        }
    })
}

fn add_to(metrics: &mut Metrics, progress: &Progress) {
    let mut add = |name, kind, help, value| metrics.add(name, kind, help, &[], value);
    add("ringspun_load_connections", Gauge, "Open connections.", progress.connections_open as f64);
    let help = "Expected responses per second, in the last second.";
    add("ringspun_load_responses_per_second", Gauge, help, progress.rate_per_s);
    add("ringspun_load_errors_total", Counter, "Errors of all kinds.", progress.errors as f64);
    for (name, help, time) in [
        ("ringspun_load_response_time_p50_seconds", "Median of the response times so far.", progress.p50),
        (
            "ringspun_load_response_time_p99_seconds",
            "99th percentile of the response times so far.",
            progress.p99,
        ),
    ] {
        if let Some(time) = time {
            add(name, Gauge, help, time.as_secs_f64());
        }
    }
}
