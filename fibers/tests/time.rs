//! Sleeps until a moment, intervals, time limits, and how they are told apart.

mod common;

use std::time::Duration;

use ringspun_fibers::{self as fibers, Elapsed, Interrupt};

use common::{on_both_stacks, spawn};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(5);

#[test]
fn a_sleep_until_a_moment_that_has_passed_does_not_park() {
    on_both_stacks(|| {
        let other = spawn(|| ());
        fibers::sleep_until(fibers::now()).unwrap();
        assert!(!other.is_finished(), "nobody else ran");
        let moment = fibers::now() + SOON;
        fibers::sleep_until(moment).unwrap();
        assert!(fibers::now() >= moment);
    });
}

#[test]
fn ticks_do_not_drift_and_count_what_was_missed() {
    on_both_stacks(|| {
        let mut ticks = fibers::interval(SOON);
        let start = ticks.next_due() - SOON;
        let mut periods = 0;
        for round in 0..20 {
            periods += ticks.tick().unwrap();
            // The next tick is a whole number of periods after the start, however late this one was.
            let due = ticks.next_due() - start;
            assert_eq!(due, SOON * (periods as u32 + 1));
            assert!(fibers::now() - start >= SOON * periods as u32);
            if round % 5 == 0 {
                fibers::sleep(3 * SOON).unwrap();
            }
        }
        assert!(periods >= 20 + 4 * 2, "{periods} periods in 20 ticks with four long pauses");
    });
}

#[test]
fn an_interrupted_tick_is_still_to_come() {
    on_both_stacks(|| {
        let mut ticks = fibers::interval(AGES);
        let due = ticks.next_due();
        assert_eq!(fibers::timeout(SOON, || ticks.tick()), Err(Elapsed));
        assert_eq!(ticks.next_due(), due);
        let waiting = spawn(move || ticks.tick());
        fibers::yield_now().unwrap();
        waiting.cancel();
        assert_eq!(waiting.join().unwrap(), Err(Interrupt::Cancelled));
    });
}

#[test]
fn a_timeout_tells_whether_it_has_ended_a_wait() {
    on_both_stacks(|| {
        assert_eq!(fibers::timeout(AGES, || 7), Ok(7));
        assert_eq!(fibers::timeout(SOON, || fibers::sleep(AGES)), Err(Elapsed));
        // What needs no wait is done, however late it is.
        assert_eq!(fibers::timeout(Duration::ZERO, || 7), Ok(7));
        // Of nested ones, the one that has passed says so.
        let nested = fibers::timeout(SOON, || fibers::timeout(AGES, || fibers::sleep(AGES)));
        assert_eq!(nested, Err(Elapsed));
        let nested = fibers::timeout(AGES, || fibers::timeout(SOON, || fibers::sleep(AGES)));
        assert_eq!(nested, Ok(Err(Elapsed)));
        // An outer one shows in the inner's result.
        let mut inner = None;
        let outer = fibers::timeout(SOON, || inner = Some(fibers::timeout(AGES, || fibers::sleep(AGES))));
        assert_eq!((outer, inner), (Err(Elapsed), Some(Ok(Err(Interrupt::DeadlineExpired)))));
        // A moment is for all that has to come by it.
        let due = fibers::now() + SOON;
        assert_eq!(fibers::timeout_at(due, || fibers::sleep_until(due + AGES)), Err(Elapsed));
        assert!(fibers::now() >= due);
        assert_eq!(fibers::timeout_at(due, || fibers::sleep(AGES)), Err(Elapsed));
        assert_eq!(fibers::timeout_at(due, || 7), Ok(7));
        let nested = fibers::timeout(SOON, || fibers::timeout_at(due + AGES, || fibers::sleep(AGES)));
        assert_eq!(nested, Err(Elapsed));
        // A cancel is not a timeout.
        let cancelled = spawn(|| fibers::timeout(AGES, || fibers::sleep(AGES)));
        fibers::yield_now().unwrap();
        cancelled.cancel();
        assert_eq!(cancelled.join().unwrap(), Ok(Err(Interrupt::Cancelled)));
    });
}

#[test]
fn a_time_limit_and_a_deadline_are_of_different_kinds() {
    on_both_stacks(|| {
        let limited = || fibers::with_time_limit(SOON, || fibers::sleep(AGES)).unwrap_err();
        assert_eq!(limited(), Interrupt::TimedOut);
        assert_eq!(std::io::Error::from(limited()).kind(), std::io::ErrorKind::TimedOut);
        let rounds = fibers::with_deadline(4 * SOON, || {
            let mut rounds = 0;
            // Takes a limit of its own for "nothing yet", as code for blocking sockets does.
            while std::io::Error::from(limited()).kind() == std::io::ErrorKind::TimedOut {
                rounds += 1;
            }
            assert_eq!(limited(), Interrupt::DeadlineExpired);
            rounds
        });
        assert!(rounds <= 4, "{rounds}");
    });
}

#[test]
fn a_fiber_that_goes_on_whatever_interrupts_it_lets_others_run() {
    on_both_stacks(|| {
        let stubborn = spawn(|| {
            let other = spawn(|| fibers::sleep(SOON).is_ok());
            fibers::with_deadline(Duration::ZERO, || {
                // Never parks, as its deadline is over.
                while !other.is_finished() {
                    assert!(fibers::sleep(AGES).is_err());
                    assert!(fibers::check().is_err());
                }
            });
            other.join().unwrap()
        });
        assert!(stubborn.join().unwrap());
    });
}
