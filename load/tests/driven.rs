//! Runs whose sessions a program makes: what it is asked for, and what comes of what it tells.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringspun_load::{
    DrivenStep, Driver, DueSession, ErrorKind, Hooks, Ledger, Length, Outcome, Pace, Plan, Rate, RunError,
    SessionCounts, Workload, run_driven,
};

fn plan(length: Length) -> Plan {
    let mut plan = Plan::new("tcp://127.0.0.1:1".parse().unwrap());
    plan.workload = Workload::Driven { name: "a test".to_string() };
    plan.length = length;
    plan
}

/// A driver with one user per thread, which makes each session by `make`; true if it is completed.
fn driver(make: impl Fn(&Ledger, &DueSession) -> bool + Send + Sync + 'static) -> Driver {
    Arc::new(move |ledger: &Rc<Ledger>| {
        ledger.start("none")?;
        while let Some(session) = ledger.next_session() {
            let wait = session.due.saturating_duration_since(Instant::now());
            thread::sleep(wait);
            ledger.begin_session(&session, !wait.is_zero());
            let is_completed = make(ledger, &session);
            ledger.end_session(&session, is_completed);
            ledger.tick();
        }
        Ok(())
    })
}

fn step(ledger: &Ledger, name: &str, due: Instant, failure: Option<ErrorKind>) {
    let failure = failure.map(|kind| (kind, "why".to_string()));
    ledger.step(&DrivenStep { name, due, began: Instant::now(), status: None, failure });
}

fn run(plan: &Plan, driver: Driver) -> Outcome {
    run_driven(plan, Hooks::default(), driver).unwrap()
}

#[test]
fn sessions_are_shared_by_the_threads_and_their_steps_added_up() {
    for workers in [1, 3] {
        let mut plan = plan(Length::Count(10));
        (plan.connections, plan.workers) = (3, workers);
        let made = Arc::new(AtomicU64::new(0));
        let numbers = made.clone();
        let outcome = run(
            &plan,
            driver(move |ledger, session| {
                assert_eq!(ledger.plan().connections, 3);
                numbers.fetch_add(1 << session.number, Ordering::Relaxed);
                step(ledger, "each", Instant::now(), None);
                match session.number {
                    0 => step(ledger, "first", Instant::now(), Some(ErrorKind::Script)),
                    1 => step(ledger, "first", Instant::now(), Some(ErrorKind::TimedOut)),
                    2 => step(ledger, "first", Instant::now(), Some(ErrorKind::Status)),
                    3 => step(ledger, "first", Instant::now(), Some(ErrorKind::ConnectFailed)),
                    _ => {}
                }
                session.number > 3
            }),
        );
        // Each number once.
        if workers == 1 {
            assert_eq!(made.load(Ordering::Relaxed), (1 << 10) - 1);
        }
        let counts = SessionCounts { planned: Some(10), begun: 10, completed: 6 };
        assert_eq!((outcome.sessions, outcome.workers), (Some(counts), workers));
        let requests = &outcome.requests;
        assert_eq!((requests.planned, requests.sent, requests.answered), (Some(14), 14, 10));
        assert_eq!((requests.wrong, requests.timed_out, requests.bad_status, requests.lost), (1, 1, 1, 1));
        assert_eq!(
            (outcome.errors.total(), outcome.errors.example(ErrorKind::Script)),
            (4, Some("first: why"))
        );
        let names: Vec<_> =
            outcome.named.iter().map(|named| (named.name.as_str(), named.requests.sent)).collect();
        assert_eq!(names, [("each", 10), ("first", 4)]);
        assert_eq!(outcome.response_times.count(), 10);
    }
}

#[test]
fn a_first_step_is_late_from_when_its_session_was_due() {
    const TAKES: Duration = Duration::from_millis(50);
    let mut plan = plan(Length::Count(5));
    plan.pace = Pace::Open { rate: Rate::per_s(100) };
    let outcome = run(
        &plan,
        driver(|ledger, session| {
            let began = Instant::now();
            thread::sleep(TAKES);
            ledger.step(&DrivenStep { name: "a", due: session.due, began, status: Some(204), failure: None });
            true
        }),
    );
    // The last is due after 40 ms at most, and waits for four others.
    assert!(outcome.response_times.max() >= Duration::from_millis(5 * 50 - 50), "{outcome:?}");
    assert!(outcome.service_times.min() >= Duration::from_millis(49), "{outcome:?}");
    assert_eq!(outcome.statuses.total(), 5);
}

#[test]
fn sessions_that_did_not_begin_are_unsent() {
    let mut plan = plan(Length::Duration(Duration::from_secs(2)));
    plan.pace = Pace::Open { rate: Rate::per_s(10) };
    let outcome = run(
        &plan,
        driver(|ledger, session| {
            step(ledger, "a", session.due, None);
            while !ledger.is_over() {
                thread::sleep(Duration::from_millis(5));
            }
            step(ledger, "b", Instant::now(), None);
            false
        }),
    );
    assert_eq!(outcome.sessions, Some(SessionCounts { planned: Some(20), begun: 1, completed: 0 }));
    assert_eq!((outcome.requests.unsent(), outcome.requests.answered_after_end), (19, 1));
}

#[test]
fn beyond_a_hundred_names_the_others_have_their_results_in_common() {
    let outcome = run(
        &plan(Length::Count(150)),
        driver(|ledger, session| {
            step(ledger, &session.number.to_string(), session.due, None);
            true
        }),
    );
    assert_eq!((outcome.named.len(), outcome.named[100].name.as_str()), (101, "others"));
    assert_eq!(outcome.named[100].requests.answered, 50);
}

#[test]
fn a_run_that_is_stopped_ends_early() {
    let stopper = || ringspun_fibers::sleep(Duration::from_millis(100)).unwrap_or_default();
    let hooks = Hooks { stopper: Some(Box::new(stopper)), ..Hooks::default() };
    let make = driver(|ledger, _| {
        thread::sleep(Duration::from_millis(5));
        step(ledger, "a", Instant::now(), None);
        true
    });
    let outcome = run_driven(&plan(Length::Duration(Duration::from_secs(3600))), hooks, make).unwrap();
    assert!(outcome.was_stopped && outcome.measured < Duration::from_secs(1800));
    assert_eq!(outcome.requests.planned, None);
}

#[test]
fn a_driver_that_fails_ends_the_run_with_its_reason() {
    let drivers: [(Driver, &str); 3] = [
        (Arc::new(|_| Err("no luck".to_string())), "no luck"),
        (Arc::new(|_| Ok(())), "the driver of a thread did not start"),
        (Arc::new(|_| panic!("as planned")), "a thread of the generator panicked"),
    ];
    for (driver, expected) in drivers {
        let mut plan = plan(Length::Count(1));
        (plan.connections, plan.workers) = (2, 2);
        let error = run_driven(&plan, Hooks::default(), driver).map(drop).unwrap_err();
        assert!(matches!(error, RunError::Failed(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
    let mut other = plan(Length::Count(1));
    let driver: Driver = Arc::new(|_| Ok(()));
    assert!(
        ringspun_load::run(&other, Hooks::default()).unwrap_err().to_string().contains("expected run_driven")
    );
    other.workload = Workload::Send { payload: 1.into() };
    let error = run_driven(&other, Hooks::default(), driver).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "the workload send has no driver: expected Workload::Driven");
}
