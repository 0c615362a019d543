//! Counts of a process, in the text format of Prometheus.

use std::fmt;
use std::time::Duration;

use crate::fibers::{RuntimeStatistics, statistics_of_process};
use crate::runtime::{LoopStatistics, SpinStatistics};

/// How long a runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts by name, from [`metrics`]. Printed, they are in the text format of Prometheus (version 0.0.4).
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    families: Vec<Family>,
}

/// What a count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// The distribution of a measure, for [`Metrics::add_summary`].
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Values by quantile, from 0 (the least value) to 1 (the greatest).
    pub quantiles: Vec<(f64, f64)>,
    /// The sum of all values.
    pub sum: f64,
    /// How many values there are.
    pub count: u64,
}

#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    /// As in the text.
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    /// What follows the name of the metric.
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Metrics {
    /// Adds a sample to the metric of a name, which keeps the kind and the help of its first sample. Names of counters
    /// end with `_total`, and before that, or at the end, with the unit.
    ///
    /// # Panics
    ///
    /// If the name, or that of a label, has other characters than ASCII letters, digits and `_`, or begins with a
    /// digit.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun::{MetricKind, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// metrics.add("jobs_total", MetricKind::Counter, "Jobs done.", &[("queue", "mail")], 3.0);
    /// assert_eq!(
    ///     metrics.to_string(),
    ///     "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\njobs_total{queue=\"mail\"} 3\n"
    /// );
    /// ```
    pub fn add(
        &mut self,
        name: &'static str,
        kind: MetricKind,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        self.add_samples(name, kind, help, [Sample { suffix: "", labels: owned(labels), value }]);
    }

    /// Adds a summary to the metric of a name, which keeps the help of its first one: a sample for each quantile, and
    /// the sum and the count of the values, with `_sum` and `_count` behind the name.
    ///
    /// # Panics
    ///
    /// As [`Metrics::add`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun::{Metrics, Summary};
    ///
    /// let mut metrics = Metrics::default();
    /// let times = Summary { quantiles: vec![(0.5, 0.25), (0.99, 2.0)], sum: 120.0, count: 300 };
    /// metrics.add_summary("job_time_seconds", "How long jobs took.", &[("queue", "mail")], &times);
    /// assert_eq!(
    ///     metrics.to_string(),
    ///     "# HELP job_time_seconds How long jobs took.\n\
    ///      ## TYPE job_time_seconds summary\n\
    ///      job_time_seconds{queue=\"mail\",quantile=\"0.5\"} 0.25\n\
    ///      job_time_seconds{queue=\"mail\",quantile=\"0.99\"} 2\n\
    ///      job_time_seconds_sum{queue=\"mail\"} 120\n\
    ///      job_time_seconds_count{queue=\"mail\"} 300\n"
    /// );
    /// ```
    pub fn add_summary(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        summary: &Summary,
    ) {
        let with_quantile = |quantile: &f64| {
            let mut labels = owned(labels);
            labels.push(("quantile", quantile.to_string()));
            labels
        };
        let quantiles = summary.quantiles.iter().map(|(quantile, value)| Sample {
            suffix: "",
            labels: with_quantile(quantile),
            value: *value,
        });
        let ends = [("_sum", summary.sum), ("_count", summary.count as f64)].map(|(suffix, value)| Sample {
            suffix,
            labels: owned(labels),
            value,
        });
        self.add_samples(name, "summary", help, quantiles.chain(ends));
    }

    fn add_samples(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = Sample>,
    ) {
        let index = match self.families.iter().position(|family| family.name == name) {
            Some(index) => index,
            None => {
                self.families.push(Family { name, kind, help, samples: Vec::new() });
                self.families.len() - 1
            }
        };
        for sample in samples {
            for name in sample.labels.iter().map(|(label, _)| *label).chain([name]) {
                assert!(is_name(name), "{name:?} is no name of a metric or a label");
            }
            self.families[index].samples.push(sample);
        }
    }

    fn add_runtime(&mut self, runtime: &RuntimeStatistics) {
        let labels = [("thread", &*runtime.thread), ("backend", runtime.backend)];
        for (name, help, value) in [
            ("ringspun_fibers", "Fibers that have not ended.", runtime.fibers.alive),
            ("ringspun_stacks", "Stacks of fibers in use.", runtime.fibers.stacks),
        ] {
            self.add(name, MetricKind::Gauge, help, &labels, value as f64);
        }
        let (name, help) =
            ("ringspun_queue_time_seconds", "How long the thread took to come to this question.");
        self.add(name, MetricKind::Gauge, help, &labels, runtime.queue_time.as_secs_f64());
        self.add_loop(&runtime.thread, runtime.backend, &runtime.event_loop, &runtime.waits);
    }

    /// Adds the counts of an event loop under the names that those of [`metrics`] have, for the loop of a thread that
    /// is not a runtime's.
    pub fn add_loop(&mut self, thread: &str, backend: &str, held: &LoopStatistics, waits: &SpinStatistics) {
        let labels = [("thread", thread), ("backend", backend)];
        for (name, help, value) in [
            (
                "ringspun_operations_in_flight",
                "Operations that the kernel works on.",
                held.operations_in_flight,
            ),
            ("ringspun_timers", "Timers that have not fired.", held.timers),
            ("ringspun_receive_buffers_lent", "Receive buffers with data that waits.", held.buffers_lent),
            (
                "ringspun_blocking_calls",
                "Calls on threads of the pool that have not ended.",
                held.blocking_calls,
            ),
        ] {
            self.add(name, MetricKind::Gauge, help, &labels, value as f64);
        }
        for (name, help, value) in [
            ("ringspun_waits_total", "Waits of the event loop for completions.", waits.waits),
            ("ringspun_busy_polled_waits_total", "Waits that polled before they blocked.", waits.busy_polled),
        ] {
            self.add(name, MetricKind::Counter, help, &labels, value as f64);
        }
    }
}

/// Counts of each runtime of the process: fibers, operations, timers, buffers, blocking calls, waits. They are counted
/// anyway: nothing is slower for it.
///
/// Blocks the thread for up to a second, if a runtime does not answer, which is then missing: in a fiber, call it by
/// [`fibers::blocking`](crate::fibers::blocking).
///
/// # Examples
///
/// ```
/// use ringspun::fibers;
///
/// ringspun::run(|| {
///     let metrics = fibers::blocking(ringspun::metrics).unwrap().to_string();
///     assert!(metrics.contains("# TYPE ringspun_fibers gauge\nringspun_fibers{thread="), "{metrics}");
/// })
/// .unwrap();
/// ```
pub fn metrics() -> Metrics {
    let mut metrics = Metrics::default();
    for runtime in statistics_of_process(PATIENCE) {
        metrics.add_runtime(&runtime);
    }
    metrics
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(label, text)| (*label, text.to_string())).collect()
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_inner) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Family { name, kind, help, samples } in &self.families {
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for Sample { suffix, labels, value } in samples {
                write!(f, "{name}{suffix}")?;
                for (number, (label, text)) in labels.iter().enumerate() {
                    let separator = if number == 0 { '{' } else { ',' };
                    let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
                    write!(f, "{separator}{label}=\"{text}\"")?;
                }
                writeln!(f, "{} {value}", if labels.is_empty() { "" } else { "}" })?;
            }
        }
        Ok(())
    }
}
