//! A server that stalls once: who waits for it has to show in the right times.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_load::{Hooks, Latencies, Length, Outcome, Pace, Plan, Rate};
use ringspun_net as net;

const STALL: Duration = Duration::from_millis(1500);
/// Far above what an answer takes, and far below the stall.
const LONG: Duration = Duration::from_millis(500);
const REQUESTS: u64 = 400;

/// An echo server on a thread of its own, for one run. It sleeps at its request of this number, and then answers what
/// has come meanwhile.
fn stalling_server(stalls_at: u32) -> (String, JoinHandle<()>) {
    let (sender, address) = mpsc::channel();
    let thread = thread::spawn(move || {
        let served = fibers::run(move || {
            let listener = net::listen("127.0.0.1:0").unwrap();
            sender.send(listener.localname().unwrap().to_string()).unwrap();
            let stream = listener.accept().unwrap();
            let count = Rc::new(Cell::new(0));
            while let Ok(Some(bytes)) = stream.receive() {
                count.set(count.get() + 1);
                if count.get() == stalls_at {
                    fibers::sleep(STALL).unwrap();
                }
                stream.write(&bytes).unwrap();
            }
        });
        served.unwrap();
    });
    (address.recv().unwrap(), thread)
}

fn measure(pace: Pace) -> Outcome {
    measure_pipeline(pace, 1)
}

fn measure_pipeline(pace: Pace, pipeline: usize) -> Outcome {
    let (address, server) = stalling_server(50);
    let mut plan = Plan::new(format!("tcp://{address}").parse().unwrap());
    plan.pace = pace;
    plan.pipeline = pipeline;
    plan.length = Length::Count(REQUESTS);
    plan.timeout = Duration::from_secs(60);
    let outcome = ringspun_load::run(&plan, Hooks::default()).unwrap();
    server.join().unwrap();
    assert_eq!((outcome.requests.sent, outcome.requests.answered), (REQUESTS, REQUESTS));
    assert_eq!(outcome.errors.total(), 0);
    for times in [&outcome.response_times, &outcome.service_times] {
        assert_eq!(times.count(), REQUESTS);
        assert!(times.max() >= STALL, "the request that met the stall waited for it");
    }
    outcome
}

fn long_ones(times: &Latencies) -> u64 {
    times.count_above(LONG)
}

#[test]
fn an_open_loop_shows_a_stall_to_all_who_would_have_waited() {
    // 200 requests a second: 100 of them are due in each half second.
    let outcome = measure(Pace::Open { rate: Rate::per_s(200) });
    // Those due in the first second of the stall waited longer than half of one. More did, if the machine was slow.
    let responses = long_ones(&outcome.response_times);
    assert!(responses >= 195, "{responses} of the response times are long");
    let services = long_ones(&outcome.service_times);
    assert!(services <= 5, "{services} of the service times are long");
    assert!(outcome.response_times.percentile(50.0) >= outcome.service_times.percentile(50.0));
    assert_eq!(outcome.requests.planned, Some(REQUESTS));
}

#[test]
fn a_closed_loop_shows_a_stall_to_one_request_only() {
    let outcome = measure(Pace::Closed);
    assert!(long_ones(&outcome.response_times) <= 5);
    assert_eq!(long_ones(&outcome.response_times), long_ones(&outcome.service_times));
}

#[test]
fn a_stall_shows_in_the_service_times_of_all_requests_in_flight() {
    for pace in [Pace::Closed, Pace::Open { rate: Rate::per_s(200) }] {
        let outcome = measure_pipeline(pace.clone(), 4);
        let services = long_ones(&outcome.service_times);
        assert!((4..=9).contains(&services), "{services} of the service times are long: {pace:?}");
        // In an open loop, those that found the pipeline full waited as well.
        let responses = long_ones(&outcome.response_times);
        let expected = if pace == Pace::Closed { 4..=9 } else { 195..=REQUESTS };
        assert!(expected.contains(&responses), "{responses} of the response times are long: {pace:?}");
    }
}

#[test]
fn what_could_not_be_sent_in_time_is_told() {
    let (address, server) = stalling_server(5);
    let mut plan = Plan::new(format!("tcp://{address}").parse().unwrap());
    plan.pace = Pace::Open { rate: Rate::per_s(200) };
    // Over before the stall is: of 200 requests, those after the fifth wait on its connection.
    plan.length = Length::Duration(Duration::from_secs(1));
    let outcome = ringspun_load::run(&plan, Hooks::default()).unwrap();
    server.join().unwrap();
    let requests = outcome.requests;
    assert_eq!((requests.planned, requests.sent, requests.unsent()), (Some(200), 5, 195));
    assert_eq!((requests.answered, requests.answered_after_end), (5, 1));
    assert_eq!(outcome.rate_per_s(), 4.0);
}
