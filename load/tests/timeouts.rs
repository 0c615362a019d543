//! Answers that come when they are given up: each request still ends in exactly one way.

use std::cell::Cell;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_load::{ErrorKind, Hooks, Length, Pace, Plan, Rate};
use ringspun_net as net;

const TIMEOUT: Duration = Duration::from_millis(40);

/// An echo server on a thread of its own, that takes up to somewhat longer than the timeout for each answer, and ends
/// when the other side of `end` is dropped.
fn slow_server(end: mpsc::Receiver<()>) -> String {
    let (sender, address) = mpsc::channel();
    thread::spawn(move || {
        let served = fibers::run(move || {
            // One for all connections, as each new one would begin with the same delay otherwise.
            let random = Cell::new(0x2545_F491_u32);
            let server = net::server("127.0.0.1:0", move |stream| {
                while let Ok(Some(bytes)) = stream.receive() {
                    random.set(random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
                    let late_us = 10_000 + u64::from(random.get() >> 16) % 40_000;
                    let slept = fibers::sleep(Duration::from_micros(late_us));
                    if slept.is_err() || stream.write(&bytes).is_err() {
                        return;
                    }
                }
            });
            sender.send(server.unwrap().localname().unwrap().to_string()).unwrap();
            let _ = fibers::blocking(move || end.recv());
        });
        served.unwrap();
    });
    address.recv().unwrap()
}

#[test]
fn a_request_ends_once_however_close_its_answer_is_to_the_timeout() {
    let (_running, end) = mpsc::channel();
    let mut plan = Plan::new(format!("tcp://{}", slow_server(end)).parse().unwrap());
    plan.connections = 150;
    plan.length = Length::Count(5000);
    plan.timeout = TIMEOUT;
    for (pace, pipeline) in [
        (Pace::Closed, 1),
        (Pace::Open { rate: Rate::per_s(3500) }, 1),
        (Pace::Closed, 3),
        (Pace::Open { rate: Rate::per_s(3500) }, 3),
    ] {
        (plan.pace, plan.pipeline) = (pace, pipeline);
        let outcome = ringspun_load::run(&plan, Hooks::default()).unwrap();
        let requests = outcome.requests;
        let ends = requests.answered + requests.wrong + requests.timed_out + requests.lost;
        assert_eq!(
            (requests.sent + requests.unsent(), ends),
            (5000, requests.sent),
            "{requests:?} {:?}",
            outcome.errors
        );
        assert!(requests.answered > 0 && requests.timed_out > 0, "both happen: {requests:?}");
        assert_eq!(requests.wrong, 0, "{:?}", outcome.errors);
        // Those behind a request that timed out are lost with their connection.
        assert_eq!(requests.lost > 0, pipeline > 1, "{requests:?} {:?}", outcome.errors);
        // A machine that stands still for a while makes connections late, too.
        let late = outcome.errors.count(ErrorKind::ConnectTimedOut);
        assert_eq!(outcome.errors.total() - late, requests.timed_out, "{:?}", outcome.errors);
        assert_eq!(outcome.errors.count(ErrorKind::TimedOut), requests.timed_out);
        // Nobody is left with a connection that another interrupt has broken.
        assert_eq!(outcome.errors.count(ErrorKind::Failed), 0, "{:?}", outcome.errors);
    }
}
