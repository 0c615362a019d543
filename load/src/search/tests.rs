//! The search is tried on simulated servers whose capacity theory knows, without time.

use std::cell::RefCell;

use super::*;
use crate::payload::mix;
use crate::simulated::{Random, response_times};

/// Searches on a server whose verdicts are a function, and returns the rates that were tried.
fn tried(bounds: &SearchBounds, holds: impl Fn(f64, usize) -> bool) -> (SearchResult, Vec<f64>) {
    let tried = RefCell::new(Vec::new());
    let result = search(bounds, |rate, _| {
        let rate_per_s = rate.as_per_s();
        tried.borrow_mut().push(rate_per_s);
        ControlFlow::Continue(holds(rate_per_s, tried.borrow().len()))
    });
    (result, tried.into_inner())
}

#[test]
fn a_range_is_found_by_doubling_and_narrowed_to_the_bound() {
    for limit in [1.0, 1.5, 3.0, 99.99, 100.0, 101.5, 999.0, 1000.0, 1999.0, 50_000.0, 1_234_567.0, 1e9 - 1.0]
    {
        let (result, tried) = tried(&SearchBounds::default(), |rate_per_s, _| rate_per_s <= limit);
        let found = result.found.unwrap();
        let found_per_s = found.rate.as_per_s();
        let unit_per_s = if limit >= 100.0 { 1.0 } else { 0.01 };
        assert!(found_per_s <= limit && found_per_s >= limit / 1.02 - unit_per_s, "{limit}: {found:?}");
        assert!(result.fails_at.is_some_and(|fails_at| fails_at.as_per_s() > limit), "{limit}: {result:?}");
        assert!(tried.len() < 60, "{limit}: {tried:?}");
        assert_eq!(tried[tried.len() - 5..], [found_per_s; 5]);
    }
}

#[test]
fn a_search_stays_within_its_bounds() {
    let bounds = SearchBounds {
        from: Rate::per_s(30),
        max: Rate::per_s(100),
        confirmations: 3,
        ..SearchBounds::default()
    };
    let (result, rates) = tried(&bounds, |_, _| true);
    assert_eq!(rates, [30.0, 60.0, 100.0, 100.0, 100.0, 100.0]);
    let found = Found { rate: Rate::per_s(100), held: 3, confirmations: 3 };
    assert_eq!(result, SearchResult { found: Some(found), fails_at: None, was_stopped: false });
    let (result, rates) = tried(&bounds, |_, _| false);
    assert_eq!(rates, [30.0, 30.0, 15.0, 15.0, 7.5, 7.5, 3.75, 3.75, 1.88, 1.88, 1.0, 1.0]);
    assert_eq!(result, SearchResult { found: None, fails_at: Some(Rate::per_s(1)), was_stopped: false });
    let bounds = SearchBounds { from: "30/m".parse().unwrap(), ..bounds };
    let (result, _) = tried(&bounds, |rate_per_s, _| rate_per_s <= 0.04);
    assert_eq!(result.found.unwrap().rate.to_string(), "0.04/s");
    let (result, rates) = tried(&bounds, |_, _| false);
    assert_eq!((rates[0], rates.last(), result.found), (0.5, Some(&0.01), None));
}

#[test]
fn a_single_disturbance_does_not_end_the_search() {
    for disturbed in 1..20 {
        let (result, _) = tried(&SearchBounds::default(), |rate_per_s, number| {
            rate_per_s <= 50_000.0 && number != disturbed
        });
        let found = result.found.unwrap();
        assert!((49_000.0..=50_000.0).contains(&found.rate.as_per_s()), "{disturbed}: {found:?}");
    }
}

#[test]
fn a_search_can_be_stopped_at_any_trial() {
    for end in 0..15 {
        let mut count = 0;
        let result = search(&SearchBounds::default(), |rate, _| {
            count += 1;
            if count > end {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(rate <= Rate::per_s(5000))
            }
        });
        assert_eq!((result.found, result.was_stopped), (None, true), "{end}");
    }
}

#[test]
fn what_is_found_says_how_sure_it_is() {
    for (held, confirmations, percent) in
        [(1, 1, 50.0), (3, 3, 87.5), (5, 5, 96.875), (4, 5, 81.25), (3, 5, 50.0)]
    {
        assert_eq!(Found { rate: Rate::per_s(1), held, confirmations }.confidence_percent(), percent);
    }
}

#[test]
fn bounds_are_named_with_what_was_expected() {
    let bounds = SearchBounds::default();
    assert_eq!(bounds.check(), Ok(()));
    for (bounds, expected) in [
        (SearchBounds { from: Rate::ZERO, ..bounds }, "starts at 0/s: expected 0.01/s to"),
        (
            SearchBounds { from: Rate::per_s(6), max: Rate::per_s(5), ..bounds },
            "starts at 6/s: expected 0.01/s to its end, 5/s",
        ),
        (SearchBounds { max: Rate::ZERO, ..bounds }, "ends at 0/s"),
        (SearchBounds { within_percent: 0.0, ..bounds }, "within 0%: expected 0.1% to 50%"),
        (SearchBounds { within_percent: f64::NAN, ..bounds }, "within NaN%"),
        (SearchBounds { confirmations: 0, ..bounds }, "0 trials to confirm"),
    ] {
        let error = bounds.check().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Requests per second that a simulated server takes.
const CAPACITY_PER_S: f64 = 10_000.0;
/// Requests per trial.
const REQUESTS: u64 = 40_000;

/// Searches with 20 seeds; each has to end within 5 % of what theory gives.
fn check_searches(expected_per_s: f64, holds: impl Fn(f64, u64) -> bool) {
    for seed in 0..20 {
        let mut trials = 0;
        let result = search(&SearchBounds::default(), |rate, _| {
            trials += 1;
            ControlFlow::Continue(holds(rate.as_per_s(), mix(seed ^ mix(trials))))
        });
        let found = result.found.unwrap();
        let ratio = found.rate.as_per_s() / expected_per_s;
        assert!(
            (0.95..1.05).contains(&ratio),
            "{seed}: {found:?} after {trials} trials, expected {expected_per_s}"
        );
    }
}

#[test]
fn searches_end_where_theory_says_on_m_m_1() {
    // Response times are exponential with the rate 1 - u, in service times: p99 is ln(100) / (1 - u).
    let utilization = 0.7;
    let limit = 100_f64.ln() / (1.0 - utilization);
    check_searches(utilization * CAPACITY_PER_S, |rate_per_s, seed| {
        let mut random = Random::new(seed);
        let mut above = 0;
        response_times(
            rate_per_s / CAPACITY_PER_S,
            REQUESTS,
            seed,
            || random.exponential(),
            |time| above += u64::from(time > limit),
        );
        above * 100 <= REQUESTS
    });
}

#[test]
fn searches_end_where_theory_says_on_m_d_1() {
    // The mean is 1 + u / (2 (1 - u)) service times.
    let utilization = 0.8;
    let limit = 1.0 + utilization / (2.0 * (1.0 - utilization));
    check_searches(utilization * CAPACITY_PER_S, |rate_per_s, seed| {
        let mut sum = 0.0;
        response_times(rate_per_s / CAPACITY_PER_S, REQUESTS, seed, || 1.0, |time| sum += time);
        sum / REQUESTS as f64 <= limit
    });
}
