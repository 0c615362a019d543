//! The report as JSON. Fields may be added; incompatible changes increment `version`.
//!
//! An unlimited value is `null`; values that this system does not provide are omitted.

use ringspun::runtime::probe::Feature;
use serde_json::{Map, Value, json};

use super::Report;
use super::limits::{Amount, Limit};

/// The report as one JSON object with a line end.
pub fn render(report: &Report) -> String {
    let limits: Map<String, Value> =
        report.limits.iter().map(|limit| (limit.name.to_string(), limit_value(limit))).collect();
    let value = json!({
        "version": 1,
        "ringspun": env!("CARGO_PKG_VERSION"),
        "can_run": report.backend.chosen.is_ok(),
        "system": {
            "name": report.system,
            "kernel_release": report.kernel_release,
            "architecture": report.architecture,
        },
        "backend": {
            "name": report.backend.chosen.as_ref().ok(),
            "requested": report.backend.requested,
            "reason": report.backend.reason,
        },
        "io_uring": {
            "allowed": report.ring.refusal.is_none(),
            "refusal": report.ring.refusal,
            "features": report.ring.features.iter().map(feature_value).collect::<Vec<_>>(),
        },
        "janet_vm": { "version": ringspun::janet::vm_version() },
        "stack_guards": feature_value(&report.stack_guards),
        "limits": limits,
    });
    format!("{value:#}\n")
}

fn feature_value(feature: &Feature) -> Value {
    json!({
        "name": feature.name,
        "since_linux": feature.since,
        "available": feature.available,
        "purpose": feature.purpose,
    })
}

fn limit_value(limit: &Limit) -> Value {
    let mut fields = Map::new();
    for field in &limit.fields {
        let value = match field.amount {
            Amount::Count(amount) | Amount::Bytes(amount) => amount.into(),
            Amount::Unlimited => Value::Null,
        };
        fields.insert(field.name.to_string(), value);
    }
    fields.insert("meaning".to_string(), limit.meaning.as_str().into());
    Value::Object(fields)
}
