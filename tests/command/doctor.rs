//! What `ringspun doctor` reports, to people and to programs, and its exit status.

use serde_json::Value;

use super::cli::{error_text, output_of, ringspun, text_of};
use crate::support::backend;

#[test]
fn the_doctor_reports_to_people() {
    let output = output_of(&["doctor"]);
    let report = text_of(&output);
    assert!(output.status.success(), "{report}{}", error_text(&output));
    let feature = if backend::refusal().is_none() { "deferred task work" } else { "refused" };
    for expected in ["io_uring", feature, "open files", "connections per process"] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    assert!(!report.contains('\u{1b}'), "no colours when this is not a terminal");
    assert_eq!(error_text(&output), "");
}

#[test]
fn the_doctor_reports_to_programs() {
    let output = ringspun(&["doctor", "--json"]).env_remove("RINGSPUN_BACKEND").output().unwrap();
    assert!(output.status.success(), "{}", error_text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["version"], 1);
    assert_eq!(report["ringspun"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["janet_vm"]["version"], text_of(&output_of(&["janet", "-v"])).trim_end());
    assert_eq!(report["can_run"], true);
    assert!(report["system"]["kernel_release"].as_str().is_some_and(|release| !release.is_empty()));
    assert_eq!(report["backend"]["requested"], Value::Null);
    match backend::refusal() {
        None => {
            assert_eq!(report["backend"]["name"], "io_uring");
            assert_eq!(report["io_uring"]["allowed"], true);
            assert_eq!(report["io_uring"]["refusal"], Value::Null);
        }
        Some(errno) => {
            assert_eq!(report["backend"]["name"], "poll");
            assert_eq!(report["io_uring"]["allowed"], false);
            let cause =
                if errno == "EPERM" { "a security policy refuses it" } else { "this kernel, or a seccomp" };
            for reason in [&report["backend"]["reason"], &report["io_uring"]["refusal"]] {
                let reason = reason.as_str().unwrap();
                assert!(reason.starts_with("io_uring cannot be used: "), "{reason}");
                // A machine may have it switched off as well, and is told that first.
                assert!(reason.contains(cause) || reason.contains("io_uring_disabled"), "{reason}");
            }
        }
    }
    let features = report["io_uring"]["features"].as_array().unwrap();
    for feature in features.iter().chain([&report["stack_guards"]]) {
        assert!(feature["name"].is_string() && feature["available"].is_boolean(), "{feature}");
        assert!(feature["since_linux"].is_string() && feature["purpose"].is_string(), "{feature}");
    }
    let limits = report["limits"].as_object().unwrap();
    for (name, limit) in limits {
        assert!(limit["meaning"].as_str().is_some_and(|meaning| meaning.ends_with('.')), "{name}: {limit}");
    }
    // Zero and "no limit" (null) are possible values of some; to be there is what counts.
    for (name, fields) in [
        ("open_files", &["soft", "hard"][..]),
        ("locked_memory", &["soft_bytes", "hard_bytes"]),
        ("memory", &["available_bytes", "total_bytes"]),
        ("local_ports", &["first", "last", "ports"]),
        ("somaxconn", &["value"]),
        ("max_map_count", &["value"]),
    ] {
        for field in fields {
            assert!(limits[name].get(*field).is_some(), "{name}.{field}");
        }
    }
}

#[test]
fn the_doctor_shows_a_backend_that_was_asked_for() {
    for (backend, name) in [("uring", "io_uring"), ("poll", "poll")] {
        let output = ringspun(&["doctor", "--json"]).env("RINGSPUN_BACKEND", backend).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["backend"]["requested"], backend);
        let reason = report["backend"]["reason"].as_str().unwrap();
        if backend == "uring" && backend::refusal().is_some() {
            assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
            assert_eq!(report["backend"]["name"], Value::Null);
            assert!(reason.starts_with("io_uring cannot be used: "), "{reason}");
            assert!(reason.contains("RINGSPUN_BACKEND=poll"), "{reason}");
        } else {
            assert!(output.status.success(), "{}", error_text(&output));
            assert_eq!(report["backend"]["name"], name);
            assert!(reason.contains(&format!("RINGSPUN_BACKEND={backend}")), "{reason}");
        }
    }
}

#[test]
fn the_doctor_fails_without_the_backend_that_is_required() {
    for (backend, required, is_there) in [("poll", "poll", true), ("poll", "uring", false)] {
        let output =
            ringspun(&["doctor", "--require", required]).env("RINGSPUN_BACKEND", backend).output().unwrap();
        assert_eq!(output.status.success(), is_there, "{backend} {required}");
        let reason = "io_uring is required, but the backend is poll: requested by RINGSPUN_BACKEND=poll";
        assert_eq!(error_text(&output).contains(reason), !is_there);
    }
}
