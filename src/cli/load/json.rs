//! The results as JSON, documented in docs/load-json.md. Fields may be added; incompatible changes increment
//! `version`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringspun::fibers::Signal;
use ringspun_load::{
    Arrivals, Breach, ErrorKind, Latencies, Length, Outcome, Pace, Plan, Rate, Requests, StatusCounts,
    Workload,
};
use serde_json::{Value, json};

use super::{Verdicts, http2, sessions, tls, websocket, workload};

/// The results as one JSON object.
pub fn results(plan: &Plan, outcome: &Outcome, verdicts: &Verdicts, stop_signal: Option<Signal>) -> Value {
    let (requests, errors) = (&outcome.requests, &outcome.errors);
    let kinds = ErrorKind::ALL.into_iter().filter(|kind| errors.count(*kind) > 0).map(
        |kind| json!({ "kind": kind.name(), "count": errors.count(kind), "example": errors.example(kind) }),
    );
    let gates = verdicts.iter().map(|(gate, verdict)| {
        // A run that was stopped early has not shown that a gate holds.
        let is_broken = (verdict.is_broken || !outcome.was_stopped).then_some(verdict.is_broken);
        json!({ "gate": gate.to_string(), "broken": is_broken, "value": verdict.value })
    });
    let has_statuses = matches!(plan.workload, Workload::Http(_)) || outcome.statuses.total() > 0;
    let statuses = has_statuses.then(|| statuses_value(&outcome.statuses));
    json!({
        "format": "ringspun-load",
        "version": 1,
        "ringspun": env!("CARGO_PKG_VERSION"),
        "backend": outcome.backend,
        "plan": plan_value(plan),
        "stopped_by": stop_signal.map(|signal| signal.to_string()),
        "target_loss": outcome.target_loss.as_ref().map(
            |loss| json!({ "before_end_s": loss.before_end.as_secs_f64(), "error": loss.error }),
        ),
        "measured_s": outcome.measured.as_secs_f64(),
        "rate_per_s": rounded_rate(outcome.rate_per_s()),
        "generator": {
            "workers": outcome.workers,
            "started_late_s": outcome.started_late.as_secs_f64(),
            "cpu_s": outcome.cpu_time.as_secs_f64(),
            "busy_percent": rounded(outcome.busy_percent()),
            "send_delay": times(&outcome.send_delays),
        },
        "connections": connections_value(outcome),
        "requests": requests_value(requests),
        "sessions": sessions::value(outcome.sessions),
        "traffic": {
            "sent_bytes": outcome.traffic.sent_bytes,
            "received_bytes": outcome.traffic.received_bytes,
            "sent_bytes_per_s": outcome.sent_bytes_per_s().round(),
            "received_bytes_per_s": outcome.received_bytes_per_s().round(),
        },
        "statuses": statuses,
        "errors": { "total": errors.total(), "kinds": kinds.collect::<Vec<_>>() },
        "response_time": times(&outcome.response_times),
        "service_time": times(&outcome.service_times),
        "failure_time": times(&outcome.failure_times),
        "handshake_time": times(&outcome.handshake_times),
        "by_name": results_by_name(outcome),
        "steps": step_results(outcome),
        "gates": gates.collect::<Vec<_>>(),
        "aborted": null,
        "search": null,
        "repeat": null,
    })
}

/// The condition that ended a run.
pub fn breach(Breach { condition, value, at }: &Breach) -> Value {
    json!({ "condition": condition.to_string(), "value": value, "at_s": at.as_secs_f64() })
}

/// To a thousandth.
pub fn thousandth(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// A planned rate, in requests per second.
pub fn rate(rate: Rate) -> Value {
    rate.as_whole_per_s().map_or_else(|| json!(rate.as_per_s()), Value::from)
}

/// A measured rate: to a tenth, and to a thousandth where that is less than one in a thousand of it.
pub fn rounded_rate(per_s: f64) -> f64 {
    if per_s < 100.0 { thousandth(per_s) } else { rounded(per_s) }
}

/// To a tenth.
pub fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn plan_value(plan: &Plan) -> Value {
    let (loop_name, rate_per_s) = match &plan.pace {
        Pace::Closed => ("closed", None),
        Pace::Open { rate } if sessions::are_made(plan) => ("partly_open", Some(self::rate(*rate))),
        Pace::Open { rate } => ("open", Some(self::rate(*rate))),
        Pace::Steps(_) if sessions::are_made(plan) => ("partly_open", None),
        Pace::Steps(_) => ("open", None),
    };
    let is_open = plan.pace != Pace::Closed;
    let is_random =
        is_open && plan.arrivals == Arrivals::Poisson || plan.requests.is_some() || plan.sessions.is_some();
    let (duration_s, count) = match plan.length {
        Length::Duration(duration) => (Some(duration.as_secs_f64()), None),
        Length::Count(count) => (None, Some(count)),
    };
    let mut value = json!({
        "target": plan.target.without_query(),
        "connect_to": plan.detour.as_ref().map(ToString::to_string),
        "connections": plan.connections,
        "loop": loop_name,
        "rate_per_s": rate_per_s,
        "arrivals": is_open.then(|| plan.arrivals.to_string()),
        "seed": is_random.then_some(plan.seed),
        "steps": planned_steps(plan),
        "duration_s": duration_s,
        "count": count,
        "workers": plan.workers,
        "start_at_s": plan.start_at.map(seconds_since_1970),
        "bind": plan.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ramp_up_s": plan.ramp_up.as_secs_f64(),
        "warmup_s": plan.warmup.as_secs_f64(),
        "timeout_s": plan.timeout.as_secs_f64(),
        "tls": tls::fields(plan),
        "websocket": websocket::fields(plan),
    });
    if let Some(fields) = value.as_object_mut() {
        fields.append(&mut workload::fields(plan));
        fields.append(&mut http2::fields(plan));
        fields.append(&mut sessions::fields(plan));
    }
    value
}

/// The planned steps; `null` without steps.
fn planned_steps(plan: &Plan) -> Value {
    let Pace::Steps(steps) = &plan.pace else { return Value::Null };
    let steps = steps.iter().map(|step| {
        json!({
            "from_per_s": rate(step.from),
            "to_per_s": rate(step.to),
            "duration_s": step.duration.as_secs_f64(),
        })
    });
    steps.collect()
}

/// Counts by status.
fn statuses_value(statuses: &StatusCounts) -> Value {
    let counts = statuses.iter().map(|(status, count)| (status.to_string(), count.into()));
    Value::Object(counts.collect())
}

/// The results per name; `null` without a list of requests.
fn results_by_name(outcome: &Outcome) -> Value {
    if outcome.named.is_empty() {
        return Value::Null;
    }
    let names = outcome.named.iter().map(|named| {
        json!({
            "name": named.name,
            "requests": requests_value(&named.requests),
            "statuses": statuses_value(&named.statuses),
            "response_time": times(&named.response_times),
        })
    });
    names.collect()
}

/// The results per step; `null` without steps.
fn step_results(outcome: &Outcome) -> Value {
    if outcome.steps.is_empty() {
        return Value::Null;
    }
    let steps = outcome.steps.iter().map(|step| {
        json!({
            "from_per_s": rate(step.step.from),
            "to_per_s": rate(step.step.to),
            "measured_s": step.measured.as_secs_f64(),
            "rate_per_s": rounded_rate(step.rate_per_s()),
            "requests": requests_value(&step.requests),
            "sessions": sessions::value(step.sessions),
            "statuses": (step.statuses.total() > 0).then(|| statuses_value(&step.statuses)),
            "response_time": times(&step.response_times),
            "service_time": times(&step.service_times),
        })
    });
    steps.collect()
}

fn connections_value(outcome: &Outcome) -> Value {
    let (errors, connections) = (&outcome.errors, &outcome.connections);
    json!({
        "wanted": connections.wanted,
        "opened": connections.opened,
        "open_max": connections.open_max,
        "closed_idle": connections.closed_idle,
        "elsewhere": connections.elsewhere,
        "resumed": connections.resumed,
        "streams_allowed": connections.streams_allowed,
        "refused": errors.count(ErrorKind::Refused),
        "timed_out": errors.count(ErrorKind::ConnectTimedOut),
        "failed": errors.count(ErrorKind::ConnectFailed),
        "handshake_failed": errors.count(ErrorKind::HandshakeFailed),
        "reset": errors.count(ErrorKind::Reset),
        "closed": errors.count(ErrorKind::Closed),
    })
}

fn seconds_since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Counts of requests.
pub fn requests_value(requests: &Requests) -> Value {
    json!({
        "planned": requests.planned,
        "sent": requests.sent,
        "unsent": requests.unsent(),
        "answered": requests.answered,
        "answered_after_end": requests.answered_after_end,
        "wrong": requests.wrong,
        "bad_status": requests.bad_status,
        "bad_body": requests.bad_body,
        "timed_out": requests.timed_out,
        "lost": requests.lost,
        "resent": requests.resent,
        "redirects": requests.redirects,
    })
}

/// Statistics of times, all `null` if there are none.
pub fn times(latencies: &Latencies) -> Value {
    let microseconds = |time: Duration| (latencies.count() > 0).then(|| time.as_nanos() as f64 / 1000.0);
    json!({
        "count": latencies.count(),
        "min_us": microseconds(latencies.min()),
        "mean_us": microseconds(latencies.mean()),
        "p50_us": microseconds(latencies.percentile(50.0)),
        "p90_us": microseconds(latencies.percentile(90.0)),
        "p99_us": microseconds(latencies.percentile(99.0)),
        "p99_9_us": microseconds(latencies.percentile(99.9)),
        "p99_99_us": microseconds(latencies.percentile(99.99)),
        "max_us": microseconds(latencies.max()),
    })
}
