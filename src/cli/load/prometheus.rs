//! `--prometheus`: the results in the text format of Prometheus, for the textfile collector of its node_exporter.
//! docs/load-prometheus.md lists the metrics.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use ringspun::MetricKind::{Counter, Gauge};
use ringspun::{Metrics, Summary};
use ringspun_load::{ErrorKind, Latencies, Outcome, Pace, Requests, StatusCounts};
use serde_json::Value;

use super::{Measured, Together, sessions};

/// The quantiles of all times, with the least and the greatest.
const QUANTILES: [f64; 7] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// Names and values of labels.
type Labels<'l> = &'l [(&'static str, &'l str)];

/// The results. `value` is the same as JSON; what it leaves out, such as queries and passwords, is not here either.
pub fn text(measured: &Measured, together: Option<&Together>, value: &Value) -> String {
    let mut metrics = Metrics::default();
    add_run(&mut metrics, measured, value);
    add_requests(&mut metrics, measured);
    add_connections(&mut metrics, &measured.outcome);
    add_times(&mut metrics, measured);
    add_names(&mut metrics, &measured.outcome);
    add_steps(&mut metrics, &measured.outcome);
    match together {
        Some(Together::Search(search)) => search.add_to(&mut metrics),
        Some(Together::Repeats(repeats)) => repeats.add_to(&mut metrics),
        None => {}
    }
    metrics.to_string()
}

fn add_run(metrics: &mut Metrics, Measured { outcome, began_at, verdicts, .. }: &Measured, value: &Value) {
    let plan = &value["plan"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let labels = [&plan["target"], &plan["workload"], &plan["loop"], &value["backend"], &value["ringspun"]];
    let [target, workload, kind, backend, version] = labels.map(text);
    let labels = [
        ("target", &*target),
        ("workload", &*workload),
        ("loop", &*kind),
        ("backend", &*backend),
        ("version", &*version),
    ];
    metrics.add("ringspun_load_info", Gauge, "What was measured, as labels.", &labels, 1.0);
    let mut add = |name, help, value| metrics.add(name, Gauge, help, &[], value);
    let began_s = began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    add("ringspun_load_begin_timestamp_seconds", "When the measurement began, since 1970.", began_s);
    add("ringspun_load_measured_seconds", "Length of the measurement.", outcome.measured.as_secs_f64());
    let help = "Whether the run was stopped early, by a signal or by --abort-if.";
    add("ringspun_load_stopped_early", help, f64::from(outcome.was_stopped));
    let help = "Whether the target was lost before the end.";
    add("ringspun_load_target_lost", help, f64::from(outcome.target_loss.is_some()));
    let help = "Expected responses per second of the measurement.";
    add("ringspun_load_responses_per_second", help, outcome.rate_per_s());
    let help = "Share of its time that the generator's busiest thread computed; near 1, times include its own queue.";
    add("ringspun_load_generator_busy_ratio", help, outcome.busy_percent() / 100.0);
    add("ringspun_load_generator_threads", "Threads of the generator.", outcome.workers as f64);
    let (name, help) = ("ringspun_load_generator_cpu_seconds_total", "Processor time of the generator.");
    metrics.add(name, Counter, help, &[], outcome.cpu_time.as_secs_f64());

    let (name, help) = ("ringspun_load_gate_failed", "Whether a gate of --fail-if failed.");
    let mut known = BTreeSet::new();
    for (gate, verdict) in verdicts {
        // A run that was stopped early has not shown that a gate holds.
        if (verdict.is_broken || !outcome.was_stopped) && known.insert(gate.to_string()) {
            metrics.add(name, Gauge, help, &[("gate", &gate.to_string())], f64::from(verdict.is_broken));
        }
    }
}

fn add_requests(metrics: &mut Metrics, Measured { plan, outcome, .. }: &Measured) {
    let requests = &outcome.requests;
    let help = "Requests that were sent, by what became of them.";
    add_by_result(metrics, "ringspun_load_requests_total", help, &[], requests);
    let mut add = |name, help, value: u64| metrics.add(name, Counter, help, &[], value as f64);
    if let Some(planned) = requests.planned {
        add("ringspun_load_requests_planned_total", "Requests that were planned.", planned);
        let help = "Planned requests that were not sent before the end.";
        add("ringspun_load_requests_unsent_total", help, requests.unsent());
    }
    let help = "Requests that were answered as expected after the end of the measurement.";
    add("ringspun_load_requests_answered_after_end_total", help, requests.answered_after_end);
    let help = "Requests that were sent again, as the target had closed their connection.";
    add("ringspun_load_requests_resent_total", help, requests.resent);
    add("ringspun_load_redirects_total", "Redirects that were followed.", requests.redirects);
    if let Some(counts) = outcome.sessions.filter(|_| sessions::are_made(plan)) {
        add("ringspun_load_sessions_begun_total", "Sessions that sent a request.", counts.begun);
        let help = "Sessions that made all of their requests.";
        add("ringspun_load_sessions_completed_total", help, counts.completed);
    }
    let help = "Bytes of the requests that were answered during the measurement.";
    add("ringspun_load_sent_bytes_total", help, outcome.traffic.sent_bytes);
    let help = "Bytes of their responses.";
    add("ringspun_load_received_bytes_total", help, outcome.traffic.received_bytes);
    let (name, help) = ("ringspun_load_responses_total", "Responses by HTTP status.");
    add_statuses(metrics, name, help, &[], &outcome.statuses);
    let (name, help) = ("ringspun_load_errors_total", "Errors by kind, with those of the warm-up.");
    for kind in ErrorKind::ALL {
        metrics.add(name, Counter, help, &[("kind", kind.name())], outcome.errors.count(kind) as f64);
    }
}

fn add_by_result(
    metrics: &mut Metrics,
    name: &'static str,
    help: &'static str,
    labels: Labels<'_>,
    requests: &Requests,
) {
    for (result, count) in [
        ("answered", requests.answered),
        ("wrong", requests.wrong),
        ("bad_status", requests.bad_status),
        ("bad_body", requests.bad_body),
        ("timed_out", requests.timed_out),
        ("lost", requests.lost),
    ] {
        metrics.add(name, Counter, help, &[labels, &[("result", result)]].concat(), count as f64);
    }
}

fn add_statuses(
    metrics: &mut Metrics,
    name: &'static str,
    help: &'static str,
    labels: Labels<'_>,
    statuses: &StatusCounts,
) {
    for (status, count) in statuses.iter() {
        let status = status.to_string();
        metrics.add(name, Counter, help, &[labels, &[("status", &*status)]].concat(), count as f64);
    }
}

fn add_connections(metrics: &mut Metrics, outcome: &Outcome) {
    let connections = &outcome.connections;
    for (name, help, value) in [
        ("ringspun_load_connections_wanted", "Connections that were planned.", connections.wanted),
        (
            "ringspun_load_connections_open_max",
            "Most connections that were open at a time.",
            connections.open_max,
        ),
    ] {
        metrics.add(name, Gauge, help, &[], value as f64);
    }
    for (name, help, count) in [
        (
            "ringspun_load_connections_opened_total",
            "Connections that were opened, with replacements.",
            connections.opened,
        ),
        (
            "ringspun_load_connections_closed_idle_total",
            "Connections that the target closed while they were idle.",
            connections.closed_idle,
        ),
        (
            "ringspun_load_connections_elsewhere_total",
            "Connections to other servers, to follow redirects.",
            connections.elsewhere,
        ),
        (
            "ringspun_load_connections_resumed_total",
            "Connections that resumed an earlier TLS session.",
            connections.resumed,
        ),
    ] {
        metrics.add(name, Counter, help, &[], count as f64);
    }
}

fn add_times(metrics: &mut Metrics, Measured { plan, outcome, .. }: &Measured) {
    let mut add = |name, help, times: &Latencies| metrics.add_summary(name, help, &[], &summary(times));
    let help = "Times from when a request was due to its response; in a closed loop, service times.";
    add("ringspun_load_response_time_seconds", help, &outcome.response_times);
    let help = "Times from when a request was sent to its response.";
    add("ringspun_load_service_time_seconds", help, &outcome.service_times);
    let help = "Times from when a request was due until it had failed.";
    add("ringspun_load_failure_time_seconds", help, &outcome.failure_times);
    if outcome.handshake_times.count() > 0 {
        let help = "Times of TLS handshakes, with those of the warm-up.";
        add("ringspun_load_handshake_time_seconds", help, &outcome.handshake_times);
    }
    if plan.pace != Pace::Closed {
        let help = "How much later than due requests were sent although a connection was free.";
        add("ringspun_load_send_delay_seconds", help, &outcome.send_delays);
    }
}

fn add_names(metrics: &mut Metrics, outcome: &Outcome) {
    for named in &outcome.named {
        let labels = [("name", &*named.name)];
        let help = "Requests with a name that were sent, by what became of them.";
        add_by_result(metrics, "ringspun_load_named_requests_total", help, &labels, &named.requests);
        let (name, help) = ("ringspun_load_named_responses_total", "Responses by name and HTTP status.");
        add_statuses(metrics, name, help, &labels, &named.statuses);
        let (name, help) = ("ringspun_load_named_response_time_seconds", "Response times by name.");
        metrics.add_summary(name, help, &labels, &summary(&named.response_times));
    }
}

fn add_steps(metrics: &mut Metrics, outcome: &Outcome) {
    for (number, step) in (1..).zip(&outcome.steps) {
        let number = number.to_string();
        let labels = [("step", &*number)];
        for (end, rate) in [("begin", step.step.from), ("end", step.step.to)] {
            let (name, help) =
                ("ringspun_load_step_planned_per_second", "Planned requests per second of a step.");
            metrics.add(name, Gauge, help, &[("step", &number), ("at", end)], rate.as_per_s());
        }
        let (name, help) =
            ("ringspun_load_step_responses_per_second", "Expected responses per second of a step.");
        metrics.add(name, Gauge, help, &labels, step.rate_per_s());
        let help = "Requests of a step that were sent, by what became of them.";
        add_by_result(metrics, "ringspun_load_step_requests_total", help, &labels, &step.requests);
        if let Some(sessions) = step.sessions {
            let (name, help) = ("ringspun_load_step_sessions_begun_total", "Sessions of a step that began.");
            metrics.add(name, Counter, help, &labels, sessions.begun as f64);
            let help = "Sessions of a step that made all of their requests.";
            let name = "ringspun_load_step_sessions_completed_total";
            metrics.add(name, Counter, help, &labels, sessions.completed as f64);
        }
        let (name, help) = ("ringspun_load_step_responses_total", "Responses by step and HTTP status.");
        add_statuses(metrics, name, help, &labels, &step.statuses);
        let (name, help) = ("ringspun_load_step_response_time_seconds", "Response times by step.");
        metrics.add_summary(name, help, &labels, &summary(&step.response_times));
    }
}

/// Times in seconds, with those quantiles that can be told apart from the greatest time.
fn summary(times: &Latencies) -> Summary {
    let known = QUANTILES.into_iter().filter_map(|quantile| {
        let time = match quantile {
            0.0 => (times.count() > 0).then(|| times.min()),
            _ => times.known_percentile(100.0 * quantile),
        };
        time.map(|time| (quantile, time.as_secs_f64()))
    });
    let sum = times.mean().as_secs_f64() * times.count() as f64;
    Summary { quantiles: known.collect(), sum, count: times.count() }
}
