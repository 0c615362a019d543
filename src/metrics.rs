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

#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
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
        for name in labels.iter().map(|(label, _)| *label).chain([name]) {
            assert!(is_name(name), "{name:?} is no name of a metric or a label");
        }
        let labels = labels.iter().map(|(label, text)| (*label, text.to_string())).collect();
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push((labels, value)),
            None => self.families.push(Family { name, kind, help, samples: vec![(labels, value)] }),
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

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_inner) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Family { name, kind, help, samples } in &self.families {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for (labels, value) in samples {
                f.write_str(name)?;
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
