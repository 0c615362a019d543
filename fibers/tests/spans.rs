//! Spans of `tracing` belong to the fiber that entered them, and logs and panics name the fiber.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringspun_fibers::{self as fibers, FiberBuilder};
use tracing::{Level, error, error_span, info, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};

const SOON: Duration = Duration::from_millis(2);

/// The lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Runs `test` with a subscriber, and returns the lines that it logged, in their alphabetical order.
fn log_of(max_level: Level, test: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let format = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    let subscriber = format.with_max_level(max_level).with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, test);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // The loop logs its backend at DEBUG.
    let events = text.lines().map(str::trim).filter(|line| !line.starts_with("DEBUG"));
    let mut lines: Vec<_> = events.map(str::to_string).collect();
    lines.sort_unstable();
    lines
}

fn join_all(fibers: Vec<fibers::JoinHandle<()>>) {
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

#[test]
fn events_stand_in_the_spans_of_their_fiber() {
    let lines = log_of(Level::INFO, || {
        fibers::run(|| {
            let requests = ["alice", "bob"].map(|user| {
                fibers::spawn(move || {
                    let outer = info_span!("request", user).entered();
                    fibers::sleep(SOON).unwrap();
                    info_span!("step").in_scope(|| {
                        fibers::yield_now().unwrap();
                        // The same span once more.
                        outer.in_scope(|| {
                            fibers::with_deadline(SOON, || fibers::sleep(Duration::MAX)).unwrap_err()
                        });
                        info!("inside");
                    });
                    info!("after");
                    drop(outer);
                    fibers::sleep(SOON).unwrap();
                    info!("outside, as {user}");
                })
                .unwrap()
            });
            info!("of main");
            join_all(requests.into());
        })
        .unwrap();
    });
    let expected = [
        "INFO of main",
        "INFO outside, as alice",
        "INFO outside, as bob",
        "INFO request{user=\"alice\"}: after",
        "INFO request{user=\"alice\"}:step: inside",
        "INFO request{user=\"bob\"}: after",
        "INFO request{user=\"bob\"}:step: inside",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn rare_spans_are_found_where_only_warnings_are_logged() {
    let lines = log_of(Level::WARN, || {
        fibers::run(|| {
            let wait_in_span = || {
                fibers::spawn(|| {
                    let _span = error_span!("rare").entered();
                    fibers::sleep(SOON).unwrap();
                })
                .unwrap()
            };
            // Enough turns of the loop with a span that is entered.
            (0..100).for_each(|_| wait_in_span().join().unwrap());
            let other = wait_in_span();
            fibers::yield_now().unwrap();
            error!("in none");
            other.join().unwrap();
        })
        .unwrap();
    });
    assert_eq!(lines, ["ERROR in none"]);
}

#[test]
fn the_spans_around_a_runtime_are_those_of_its_main_fiber() {
    let lines = log_of(Level::INFO, || {
        let _server = info_span!("server").entered();
        fibers::run(|| {
            info!("1 begins");
            fibers::spawn(|| info!("2 another fiber")).unwrap().join().unwrap();
            info!("3 after a wait");
        })
        .unwrap();
        info!("4 after the runtime");
        let panicked = std::panic::catch_unwind(|| {
            let _ = fibers::run(|| {
                fibers::yield_now().unwrap();
                std::panic::resume_unwind(Box::new("of main"))
            });
        });
        assert!(panicked.is_err());
        info!("5 after a panic");
    });
    let expected = [
        "INFO 2 another fiber",
        "INFO server: 1 begins",
        "INFO server: 3 after a wait",
        "INFO server: 4 after the runtime",
        "INFO server: 5 after a panic",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn named_fibers_are_named_in_logs() {
    let spawn_both = || {
        fibers::run(|| {
            let named = FiberBuilder::new().name("worker").spawn(|| {
                fibers::sleep(SOON).unwrap();
                info!("hello");
            });
            join_all(vec![named.unwrap(), fibers::spawn(|| info!("hello")).unwrap()]);
        })
        .unwrap();
    };
    let expected = ["INFO fiber{id=1 name=\"worker\"}: hello", "INFO hello"];
    assert_eq!(log_of(Level::INFO, spawn_both), expected);
    let expected = ["INFO fiber{id=1 name=\"worker\"}: hello", "INFO fiber{id=2}: hello"];
    assert_eq!(log_of(Level::DEBUG, spawn_both), expected);
}

#[test]
fn a_subscriber_that_panics_or_waits_does_no_harm() {
    /// Waits when a fiber's spans are entered again, and panics when they are left.
    struct Bad;
    impl<S: tracing::Subscriber> Layer<S> for Bad {
        fn on_enter(&self, _: &tracing::Id, _: Context<'_, S>) {
            if !fibers::is_fiber() {
                fibers::yield_now().unwrap();
            }
        }
        fn on_exit(&self, _: &tracing::Id, _: Context<'_, S>) {
            if !fibers::is_fiber() {
                std::panic::resume_unwind(Box::new("in the subscriber"));
            }
        }
    }
    let subscriber = tracing_subscriber::registry().with(Bad);
    tracing::subscriber::with_default(subscriber, || {
        fibers::run(|| {
            let _span = info_span!("outer").entered();
            for _ in 0..10 {
                fibers::sleep(SOON).unwrap();
            }
        })
        .unwrap();
    });
}

#[test]
fn a_panic_names_the_fiber() {
    const CHILD: &str = "RINGSPUN_TEST_PANICS";
    if std::env::var_os(CHILD).is_some() {
        fibers::run(|| {
            let named = FiberBuilder::new().name("cook").spawn(|| panic!("burnt")).unwrap();
            assert!(named.join().is_err());
            assert!(fibers::spawn(|| panic!("dropped")).unwrap().join().is_err());
        })
        .unwrap();
        return;
    }
    let test = std::env::current_exe().unwrap();
    let arguments = ["a_panic_names_the_fiber", "--exact", "--nocapture", "--test-threads=1"];
    let output = Command::new(test).args(arguments).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let place = |wanted: &str| text.find(wanted).unwrap_or_else(|| panic!("no {wanted:?} in {text}"));
    assert!(place("fiber 1 'cook':\n") < place("burnt"), "{text}");
    assert!(place("burnt") < place("fiber 2:\n") && place("fiber 2:\n") < place("dropped"), "{text}");
}

/// As that of a span whose guard is forgotten, or goes to another fiber as a result.
#[test]
fn a_span_that_is_never_left_ends_with_its_fiber() {
    let lines = log_of(Level::INFO, || {
        fibers::run(|| {
            let forgetting = fibers::spawn(|| {
                std::mem::forget(info_span!("forgotten").entered());
                info!("1 inside");
            });
            let giving = fibers::spawn(|| info_span!("given").entered());
            forgetting.unwrap().join().unwrap();
            let given = giving.unwrap().join().unwrap();
            info!("2 after both");
            drop(given);
            info!("3 at the end");
        })
        .unwrap();
        info!("4 outside");
    });
    assert_eq!(
        lines,
        ["INFO 2 after both", "INFO 3 at the end", "INFO 4 outside", "INFO forgotten: 1 inside"]
    );
}
