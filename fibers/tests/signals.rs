//! Signals as something to wait for: by many, on any thread, with deadlines, cancels and the end of the runtime; and
//! what signals do before and after.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, kill, raise, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use ringspun_fibers::{self as fibers, Channel, Elapsed, Select, Signal, Signals, WorkersBuilder};
use ringspun_runtime::SignalWatch;

use common::{Chance, settle, spawn};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(5);
const ROLE: &str = "RINGSPUN_TEST_ROLE";

/// Runs the test of this name alone in a process, as signals are the process's.
fn alone(test: &str, body: fn()) {
    if std::env::var_os(ROLE).is_some() {
        return body();
    }
    let output = in_process(test, "alone");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}\n{errors}", output.status);
}

fn in_process(test: &str, role: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .output()
        .unwrap()
}

/// Sends a signal, which this thread handles before it goes on.
fn send(signal: Signal) {
    raise(signal::Signal::try_from(signal.number()).unwrap()).unwrap();
}

/// Sends a signal that any thread of the process may handle, at any time.
fn send_to_process(signal: Signal) {
    kill(Pid::this(), signal::Signal::try_from(signal.number()).unwrap()).unwrap();
}

fn operations() -> usize {
    fibers::event_loop().unwrap().statistics().operations_in_flight
}

fn action_of(signal: Signal) -> SigHandler {
    let signal = signal::Signal::try_from(signal.number()).unwrap();
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no signal arrives meanwhile.
    unsafe {
        let present = sigaction(signal, &ignore).unwrap();
        sigaction(signal, &present).unwrap();
        present.handler()
    }
}

#[test]
fn each_of_many_waiters_sees_each_signal() {
    alone("each_of_many_waiters_sees_each_signal", || {
        fibers::run(|| {
            let before = Signals::new(&[Signal::USR1, Signal::TERM]).unwrap();
            let waiting = [1, 2, 3].map(|_| {
                spawn(|| {
                    let signals = Signals::new(&[Signal::USR1, Signal::USR2]).unwrap();
                    [signals.wait().unwrap(), signals.wait().unwrap()]
                })
            });
            settle();
            send(Signal::USR1);
            assert_eq!(before.wait().unwrap(), Signal::USR1);
            while !waiting.iter().all(|fiber| fiber.is_finished()) {
                send(Signal::USR2);
                fibers::sleep(Duration::from_millis(1)).unwrap();
            }
            for fiber in waiting {
                assert_eq!(fiber.join().unwrap(), [Signal::USR1, Signal::USR2]);
            }
            assert_eq!(before.try_next(), None, "SIGUSR2 is not for it");
            // What arrived while nobody waited, once each, the lowest number first.
            for signal in [Signal::TERM, Signal::USR1, Signal::USR1] {
                send(signal);
            }
            assert_eq!([before.wait().unwrap(), before.wait().unwrap()], [Signal::USR1, Signal::TERM]);
            assert_eq!(fibers::timeout(SOON, || before.wait().unwrap_err().kind()), Err(Elapsed));
        })
        .unwrap();
    });
}

#[test]
fn of_two_fibers_that_share_signals_each_gets_one() {
    alone("of_two_fibers_that_share_signals_each_gets_one", || {
        fibers::run(|| {
            let signals = Rc::new(Signals::new(&[Signal::USR1, Signal::USR2]).unwrap());
            for _ in 0..100 {
                let waiting = [1, 2].map(|_| {
                    let signals = signals.clone();
                    spawn(move || signals.wait().unwrap())
                });
                settle();
                send(Signal::USR1);
                send(Signal::USR2);
                let mut taken = waiting.map(|fiber| fiber.join().unwrap());
                taken.sort_unstable();
                assert_eq!(taken, [Signal::USR1, Signal::USR2]);
            }
            assert_eq!(signals.try_next(), None);
        })
        .unwrap();
    });
}

#[test]
fn what_is_left_keeps_the_descriptor_readable() {
    alone("what_is_left_keeps_the_descriptor_readable", || {
        let watch = SignalWatch::new(&[Signal::USR1, Signal::USR2]).unwrap();
        let is_readable = || {
            let mut descriptor = libc::pollfd { fd: watch.descriptor(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid descriptor.
            unsafe { libc::poll(&raw mut descriptor, 1, 0) > 0 }
        };
        assert!(!is_readable());
        send(Signal::USR1);
        send(Signal::USR2);
        watch.acknowledge();
        // For a waiter on another thread that has not looked yet.
        assert_eq!((watch.take(), is_readable()), (Some(Signal::USR1), true));
        watch.acknowledge();
        assert_eq!((watch.take(), is_readable()), (Some(Signal::USR2), false));
    });
}

#[test]
fn a_selection_waits_for_signals_with_others() {
    alone("a_selection_waits_for_signals_with_others", || {
        fibers::run(|| {
            let (signals, channel) = (Signals::new(&[Signal::HUP]).unwrap(), Channel::<u32>::bounded(1));
            let select = |patience| {
                let select = Select::new().take(&channel, |number| number.unwrap().to_string());
                let select = select.on(signals.next(), |signal| signal.unwrap().to_string());
                select.on(fibers::after(patience), |()| "nothing".to_string()).wait().unwrap()
            };
            assert_eq!(select(SOON), "nothing");
            channel.give(7).unwrap();
            assert_eq!(select(AGES), "7");
            let sender = spawn(|| send(Signal::HUP));
            assert_eq!(select(AGES), "SIGHUP");
            sender.join().unwrap();
            settle();
            assert_eq!(operations(), 0, "selections leave nothing behind");
        })
        .unwrap();
    });
}

#[test]
fn a_wait_ends_by_a_deadline_a_cancel_and_the_runtime() {
    alone("a_wait_ends_by_a_deadline_a_cancel_and_the_runtime", || {
        let ended = Rc::new(std::cell::Cell::new(false));
        let seen = ended.clone();
        fibers::run(move || {
            let signals = Rc::new(Signals::new(&[Signal::TERM]).unwrap());
            let late = fibers::with_deadline(SOON, || signals.wait()).unwrap_err();
            assert_eq!(late.to_string(), "deadline expired");
            let shared = signals.clone();
            let cancelled = spawn(move || shared.wait().unwrap_err().to_string());
            settle();
            cancelled.cancel();
            assert!(cancelled.join().unwrap().contains("cancelled"));
            settle();
            assert_eq!(operations(), 0);
            // The signal that nobody waited for is there for the next.
            send(Signal::TERM);
            assert_eq!(signals.wait().unwrap(), Signal::TERM);
            let _waits_until_the_end = spawn(move || {
                assert!(signals.wait().is_err());
                assert!(signals.wait().is_err(), "and again");
                ended.set(true);
            });
            settle();
        })
        .unwrap();
        assert!(seen.get());
    });
}

#[test]
fn every_worker_sees_a_signal_and_so_does_one_that_began_before_them() {
    alone("every_worker_sees_a_signal_and_so_does_one_that_began_before_them", || {
        let early = Signals::new(&[Signal::TERM]).unwrap();
        send_to_process(Signal::TERM);
        let seen = WorkersBuilder::new().count(3).run(move |workers| {
            assert_eq!(early.wait().unwrap(), Signal::TERM);
            let ready = fibers::SharedChannel::bounded(3);
            let waiting = Vec::from_iter(workers.iter().map(|worker| {
                let ready = ready.clone();
                worker.spawn(move || {
                    let signals = Signals::new(&[Signal::TERM]).unwrap();
                    ready.give(()).unwrap();
                    signals.wait().unwrap()
                })
            }));
            (0..3).for_each(|_| ready.take().unwrap());
            send_to_process(Signal::TERM);
            Vec::from_iter(waiting.into_iter().map(|task| task.unwrap().join().unwrap()))
        });
        assert_eq!(seen.unwrap(), [Signal::TERM; 3]);
    });
}

extern "C" fn own(_: i32) {}

/// Whether a signal has its default action; where there has been a ring, it ends that first.
fn is_default(signal: Signal) -> bool {
    matches!(action_of(signal), SigHandler::SigDfl)
}

#[test]
fn the_last_one_restores_what_a_signal_did_before() {
    alone("the_last_one_restores_what_a_signal_did_before", || {
        // SAFETY: the handler does nothing.
        unsafe {
            signal::signal(signal::Signal::SIGUSR1, SigHandler::Handler(own)).unwrap();
            signal::signal(signal::Signal::SIGHUP, SigHandler::SigIgn).unwrap();
        }
        for _ in 0..3 {
            let all = [Signal::USR1, Signal::USR2, Signal::HUP, Signal::TERM];
            let (first, second) = (Signals::new(&all).unwrap(), Signals::new(&all[..2]).unwrap());
            // A ring that is made meanwhile has its own wishes for SIGTERM, once that is free.
            let backend = fibers::run(|| fibers::event_loop().unwrap().backend_name()).unwrap();
            drop(first);
            assert!(matches!(action_of(Signal::HUP), SigHandler::SigIgn));
            assert_eq!(is_default(Signal::TERM), backend != "io_uring");
            send(Signal::USR2);
            while second.try_next().is_none() {
                std::thread::yield_now();
            }
            drop(second);
            assert_eq!(is_default(Signal::USR2), backend != "io_uring");
            let SigHandler::Handler(handler) = action_of(Signal::USR1) else { panic!("the handler is gone") };
            assert!(std::ptr::fn_addr_eq(handler, own as extern "C" fn(i32)));
        }
        // A handler that is installed meanwhile stays.
        let signals = Signals::new(&[Signal::USR2]).unwrap();
        // SAFETY: the handler does nothing.
        unsafe { signal::signal(signal::Signal::SIGUSR2, SigHandler::Handler(own)) }.unwrap();
        drop(signals);
        assert!(matches!(action_of(Signal::USR2), SigHandler::Handler(_)));
    });
}

#[test]
fn a_signal_ends_the_process_before_and_after() {
    const TEST: &str = "a_signal_ends_the_process_before_and_after";
    if let Some(role) = std::env::var_os(ROLE) {
        fibers::run(move || {
            let signals = Signals::new(&[Signal::TERM]).unwrap();
            send(Signal::TERM);
            signals.wait().unwrap();
            if role == "after" {
                drop(signals);
            }
            println!("survived the first");
            send(Signal::TERM);
            fibers::sleep(Duration::from_millis(1)).unwrap();
        })
        .unwrap();
        println!("survived the second");
        return;
    }
    for (role, ending) in [("after", Some(15)), ("still", None)] {
        let output = in_process(TEST, role);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.signal(), ending, "{role}: {:?} {text}", output.status);
        assert!(text.contains("survived the first"), "{text}");
        assert_eq!(text.contains("survived the second"), ending.is_none(), "{text}");
    }
}

#[test]
fn a_forked_child_takes_the_previous_action() {
    alone("a_forked_child_takes_the_previous_action", || {
        fibers::run(|| {
            let signals = Signals::new(&[Signal::TERM, Signal::USR1]).unwrap();
            // SAFETY: the child makes no call that needs the parent's threads.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let text = signals.wait().map_err(|error| error.to_string());
                    assert!(text.unwrap_err().contains("belongs to process"));
                    raise(signal::Signal::SIGTERM).unwrap();
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(0) }
                }
                ForkResult::Parent { child } => {
                    let status = waitpid(child, None).unwrap();
                    assert_eq!(status, WaitStatus::Signaled(child, signal::Signal::SIGTERM, false));
                }
            }
            assert_eq!(signals.try_next(), None, "the child's signal is not the parent's");
            // A child may have signals of its own.
            // SAFETY: as above.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let own = Signals::new(&[Signal::USR1]).unwrap();
                    send(Signal::USR1);
                    let seen = fibers::run(move || own.wait().unwrap());
                    drop(signals);
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(if seen.is_ok_and(|seen| seen == Signal::USR1) { 0 } else { 101 }) }
                }
                ForkResult::Parent { child } => {
                    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                }
            }
            assert_eq!(signals.try_next(), None);
            send(Signal::USR1);
            assert_eq!(signals.wait().unwrap(), Signal::USR1);
        })
        .unwrap();
    });
}

#[test]
fn signals_that_cannot_be_waited_for_are_refused() {
    for number in [0, -1, 65, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV] {
        assert_eq!(Signal::from_number(number).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    // The C library keeps it for itself.
    let refused = Signals::new(&[Signal::from_number(33).unwrap()]).unwrap_err();
    assert_eq!(refused.to_string(), "signal 33 cannot be waited for: Invalid argument (os error 22)");
}

static LATE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_late(_: libc::c_int) {
    LATE.fetch_add(1, Ordering::Relaxed);
}

/// Watches come and go on several threads while signals arrive: none ends the process, and each that stays sees one.
#[test]
fn a_storm_of_watches_loses_no_signal() {
    alone("a_storm_of_watches_loses_no_signal", || {
        let rounds = std::env::var("RINGSPUN_STORM").map_or(2_000, |storm| storm.parse().unwrap_or(2_000));
        let rounds = rounds.min(20_000);
        let both = [Signal::USR1, Signal::USR2];
        for signal in both {
            let count = SigAction::new(SigHandler::Handler(count_late), SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler changes an atomic number.
            unsafe { sigaction(signal::Signal::try_from(signal.number()).unwrap(), &count) }.unwrap();
        }
        // While this one is there, the action from before is never taken.
        let keeper = Signals::new(&[Signal::USR1, Signal::USR2]).unwrap();
        let threads = [1, 2, 3].map(|seed| {
            std::thread::spawn(move || {
                let mut chance = Chance::new(seed);
                fibers::run(move || {
                    for _ in 0..rounds {
                        let signal = [Signal::USR1, Signal::USR2][chance.below(2)];
                        let signals = Signals::new(&[signal]).unwrap();
                        match chance.below(4) {
                            0 => send_to_process(signal),
                            1 => {
                                let waiting = spawn(move || signals.wait());
                                if chance.below(2) == 0 {
                                    fibers::yield_now().unwrap();
                                }
                                waiting.cancel();
                                let _ = waiting.join();
                            }
                            2 => {
                                let limit = Duration::from_micros(chance.below(50) as u64);
                                let _ = fibers::with_deadline(limit, || signals.wait());
                            }
                            _ => {
                                send_to_process(signal);
                                assert_eq!(signals.wait().unwrap(), signal);
                            }
                        }
                    }
                })
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        assert!(keeper.try_next().is_some());
        assert_eq!(LATE.load(Ordering::Relaxed), 0);
        drop(keeper);
        // Another thread may handle the last ones only now: the action is not the default, which would end all.
        for signal in both {
            let SigHandler::Handler(handler) = action_of(signal) else { panic!("{:?}", action_of(signal)) };
            assert!(std::ptr::fn_addr_eq(handler, count_late as extern "C" fn(libc::c_int)));
        }
    });
}
