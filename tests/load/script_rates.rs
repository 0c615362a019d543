//! `ringspun load --script`, and `--session`, at rates that change, and in searches.

use std::fs;

use serde_json::Value;

use crate::scripts::{run, script, sessions};
use crate::support::measuring::{check_sums, load, measure, number, tcp_server, text_of};
use crate::support::scratch::ScratchFolder;

const STEPS: &str = r#"
  (defn main [session]
    (load/step session "good" (fn [] 1))
    (load/step session "bad" (fn [] (error "always"))))"#;

/// Nothing is sent to it.
fn target() -> String {
    tcp_server(|_, _| {})
}

fn sum_of(steps: &[Value], path: &str) -> u64 {
    steps.iter().map(|step| number(step.pointer(path).unwrap())).sum()
}

#[test]
fn sessions_and_their_steps_belong_to_the_step_of_the_rate_in_which_they_are_due() {
    let folder = ScratchFolder::new("script-steps");
    let csv = folder.file("steps.csv");
    for arguments in [
        &["--steps", "20,60:500ms", "-c", "8", "--arrivals", "even", "--csv", &csv][..],
        &["--steps", "20:500ms,60:500ms", "-c", "8", "--workers", "3", "--warmup", "200ms"],
        &["--steps", "0..40:1s,40:500ms", "-c", "4"],
    ] {
        // Half of all fail, if as many of each were made.
        let report = run(&target(), STEPS, &[arguments, &["--fail-if", "wrong>51%@2"]].concat(), 0);
        let steps = report["steps"].as_array().unwrap();
        let planned = if arguments[1].starts_with('0') { [20, 20] } else { [10, 30] };
        for (step, planned) in steps.iter().zip(planned) {
            let (requests, sessions) = (&step["requests"], &step["sessions"]);
            assert_eq!(number(&sessions["planned"]), planned);
            let unbegun = planned - number(&sessions["begun"]);
            assert_eq!(number(&requests["planned"]), number(&requests["sent"]) + unbegun, "{step}");
            assert_eq!(number(&requests["sent"]), number(&requests["answered"]) + number(&requests["wrong"]));
            // All sessions fail.
            assert_eq!(number(&sessions["completed"]), 0);
            assert_eq!(step["response_time"]["count"], requests["answered"]);
        }
        for path in ["/requests/sent", "/requests/answered", "/requests/wrong", "/requests/planned"] {
            assert_eq!(sum_of(steps, path), number(report.pointer(path).unwrap()), "{path}");
        }
        for name in ["planned", "begun", "completed"] {
            assert_eq!(sum_of(steps, &format!("/sessions/{name}")), number(&report["sessions"][name]));
        }
        assert_eq!(
            (&report["plan"]["loop"], &report["plan"]["rate_per_s"]),
            (&"partly_open".into(), &Value::Null)
        );
    }
    let rows = fs::read_to_string(&csv).unwrap();
    assert!(rows.lines().next().unwrap().ends_with(",step"), "{rows}");
    assert!(rows.lines().nth(1).unwrap().ends_with(",1"), "{rows}");
    assert!(rows.lines().last().unwrap().ends_with(",2"), "{rows}");
}

#[test]
fn a_rate_may_change_linearly() {
    let path = script(STEPS);
    let flags = ["--rate", "10..50", "-d", "1s", "-c", "4", "--script", path.to_str().unwrap()];
    let text = text_of(&load(&[&[target().as_str()], &flags[..]].concat()));
    assert!(text.contains("partly open loop: sessions begin at 10 to 50/s (Poisson)"), "{text}");
    let report = measure(&[&[target().as_str()], &flags[..]].concat(), 0);
    assert_eq!(sessions(&report)[0], 30);
}

#[test]
fn a_search_finds_the_rate_at_which_sessions_begin() {
    // A user takes at least 100 ms for a session, of many steps: those of the sessions that began would be nearly all.
    let source = r#"
      (defn main [session]
        (for _ 0 40 (load/step session "step" (fn [] 1)))
        (ev/sleep 0.1))"#;
    let find = ["--find", "errors<1", "--find-from", "2", "--find-confirm", "1", "--find-within", "50%"];
    let base = ["-d", "1s", "--arrivals", "even"];
    let report = run(&target(), source, &[&base[..], &find].concat(), 0);
    let search = &report["search"];
    // A slow machine may find less.
    assert!(search["rate_per_s"].as_f64().unwrap() < 13.0, "{search}");
    let trials = search["trials"].as_array().unwrap();
    let first = trials[0]["conditions"].as_array().unwrap();
    let names: Vec<_> = first.iter().map(|condition| condition["condition"].as_str().unwrap()).collect();
    assert_eq!(names, ["errors<1", "answered>=95%", "begun>=95%"]);
    let failed = trials.iter().find(|trial| trial["holds"] == false).unwrap();
    assert_eq!(failed["conditions"][2]["holds"], false, "{failed}");
    assert_eq!(report["plan"]["loop"], "partly_open");
    check_sums(&report);
}

#[test]
fn a_search_may_be_for_a_rate_of_sessions_without_a_script() {
    let target = tcp_server(|mut stream, _| {
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
    });
    let find = ["--find", "errors<1", "--find-from", "20", "--find-to", "40", "--find-confirm", "1"];
    let flags = ["-c", "8", "-d", "4s", "--session", "3", "--arrivals", "even", "--timeout", "60s"];
    let report = measure(&[&[target.as_str()], &flags[..], &find].concat(), 0);
    let rate = report["search"]["rate_per_s"].as_f64().unwrap();
    assert!((20.0..=40.0).contains(&rate), "{}", report["search"]);
    let begun = number(&report["sessions"]["begun"]);
    // The end cuts sessions off.
    assert!((begun..=3 * begun).contains(&number(&report["requests"]["sent"])), "{report}");
}
