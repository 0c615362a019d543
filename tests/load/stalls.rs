//! A target that freezes for a tenth of the time: what an open loop has to report then is known by arithmetic.
//!
//! A freeze of length S delays each request that is due in it until it ends. At a constant rate, requests are due
//! evenly over it, so that their response times are even from 0 to S. Of all requests that come in a period P,
//! those that take longer than t are due in the first S - t of the freeze: a share of (S - t) / P. The percentile
//! p99 is the t for which that is 1 %:
//!
//! p99 = S - P / 100, or with f = S / P, the share of the time that is frozen: p99 = S * (1 - 0.01 / f).
//!
//! For a freeze of 1 s every 10 s that is 0.9 s, and here 270 ms for 300 ms every 3 s. The target notes how long
//! each freeze really was, and the same sum is done with those: a slow machine changes both sides.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::measuring::{error_text, load, measure, number, tcp_server, text_of};

const RATE_PER_S: u64 = 1000;
const FREEZE: Duration = Duration::from_millis(300);
/// At the rate, requests of 3 seconds.
const REQUESTS_PER_PERIOD: u64 = 3000;
const PERIODS: u64 = 3;
const REQUESTS: u64 = PERIODS * REQUESTS_PER_PERIOD;
/// So few that the requests that are on their way when a freeze begins are a third of a percent of all, which leaves
/// room for pauses of the machine, and so many that those due at the beginning of it, which make p99, hardly wait for
/// each other.
const CONNECTIONS: u64 = 10;

/// An echo server that sleeps in the middle of each period of requests, and tells how long it really slept. No
/// clock starts a freeze: a period is a number of requests.
fn freezing_server() -> (String, Receiver<Duration>) {
    let (sender, freezes) = mpsc::channel();
    // Who holds it serves a request. The others wait.
    let served = Mutex::new((0, sender));
    let target = tcp_server(move |mut stream, _| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            let (count, sender) = &mut *served.lock().unwrap();
            *count += 1;
            if *count % REQUESTS_PER_PERIOD == REQUESTS_PER_PERIOD / 2 {
                let begun = Instant::now();
                thread::sleep(FREEZE);
                // The test may have ended.
                let _ = sender.send(begun.elapsed());
            }
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    (target, freezes)
}

fn arguments<'a>(target: &'a str, count: &'a str, connections: &'a str) -> Vec<&'a str> {
    vec![target, "--count", count, "--connections", connections, "--timeout", "60s"]
}

/// The percentile 99 of the response times, if requests wait only for the ends of freezes.
fn predicted_p99_s(freezes: &[Duration]) -> f64 {
    // The first percent of all requests took longer. Found by halving.
    let slow_max = REQUESTS as f64 / 100.0;
    let (mut low_s, mut high_s) = (0.0, freezes.iter().max().unwrap().as_secs_f64());
    for _ in 0..50 {
        let middle_s = (low_s + high_s) / 2.0;
        let slow: f64 =
            freezes.iter().map(|freeze| (freeze.as_secs_f64() - middle_s).max(0.0) * RATE_PER_S as f64).sum();
        if slow > slow_max { low_s = middle_s } else { high_s = middle_s }
    }
    low_s
}

fn p99_s(times: &Value) -> f64 {
    times["p99_us"].as_f64().unwrap() / 1e6
}

#[test]
fn the_prediction_is_the_formula() {
    let predicted_s = predicted_p99_s(&[FREEZE; PERIODS as usize]);
    assert!((predicted_s - 0.27).abs() < 1e-9, "{predicted_s}");
}

/// Runs of the same measurement until one was not disturbed by what else the machine does, which makes times longer and
/// never shorter. Where it does that in each of them, what it would have shown is skipped.
fn undisturbed(test: &str, run: impl Fn() -> Result<(), String>) {
    const RUNS_MAX: usize = 3;
    let disturbed: Vec<String> = (0..RUNS_MAX).map_while(|_| run().err()).collect();
    if disturbed.len() == RUNS_MAX {
        println!("SKIPPED {test}, upper bounds: this machine is busy with other things: {disturbed:?}");
    }
}

#[test]
fn an_open_loop_reports_the_p99_that_arithmetic_predicts() {
    undisturbed("an_open_loop_reports_the_p99_that_arithmetic_predicts", || {
        let (target, freezes) = freezing_server();
        let (count, connections, rate) =
            (REQUESTS.to_string(), CONNECTIONS.to_string(), RATE_PER_S.to_string());
        let arguments = arguments(&target, &count, &connections);
        let report = measure(&[&arguments[..], &["--rate", &rate]].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), REQUESTS);
        let freezes: Vec<Duration> = freezes.try_iter().collect();
        assert_eq!(freezes.len() as u64, PERIODS);
        let (reported_s, predicted_s) = (p99_s(&report["response_time"]), predicted_p99_s(&freezes));
        assert!(reported_s >= 0.95 * predicted_s, "{reported_s} s, predicted {predicted_s} s");
        // One request of each connection was sent when the freeze began; those behind it had to wait for it.
        let service_s = p99_s(&report["service_time"]);
        let is_right = reported_s <= 1.05 * predicted_s && service_s < reported_s / 2.0;
        is_right
            .then_some(())
            .ok_or(format!("{reported_s} s, predicted {predicted_s} s, service {service_s} s"))
    });
}

#[test]
fn a_closed_loop_does_not_see_it_and_says_so() {
    undisturbed("a_closed_loop_does_not_see_it_and_says_so", || {
        let (target, freezes) = freezing_server();
        let (count, connections) = (REQUESTS.to_string(), CONNECTIONS.to_string());
        let report = measure(&arguments(&target, &count, &connections), 0);
        let freezes: Vec<Duration> = freezes.try_iter().collect();
        assert_eq!(freezes.len() as u64, PERIODS);
        let times = &report["response_time"];
        assert!(times["max_us"].as_f64().unwrap() >= FREEZE.as_secs_f64() * 1e6, "{times}");
        // A freeze meets one request of each connection: 30 of 9,000, which is less than a percent.
        let (reported_s, predicted_s) = (p99_s(times), predicted_p99_s(&freezes));
        let is_blind = reported_s < predicted_s / 2.0;
        is_blind.then_some(()).ok_or(format!("{reported_s} s, in an open loop {predicted_s} s"))
    });
    let (target, _freezes) = freezing_server();
    let output = load(&[&target, "--count", "100", "--timeout", "60s"]);
    let table = text_of(&output);
    assert_eq!((output.status.code(), error_text(&output).as_str()), (Some(0), ""));
    assert!(table.contains("In a closed loop, a stalled target gets"), "{table}");
}
