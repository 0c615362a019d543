//! A check for debug builds: does a fiber wait inside of something that belongs to its thread?
//!
//! With `RINGSPUN_CHECK_WAITS=1`, each wait that parks looks through the fiber's stack for functions that enter
//! something for the thread, and reports each place once; with `abort`, a place that is undefined behaviour ends the
//! process before anything has come of it. It takes a millisecond or so per wait. Held locks have no function on the
//! stack, so they are not found.

use std::backtrace::Backtrace;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::fiber::Fiber;

const UNDEFINED: &str = "a scope of a thread-local reference, which is undefined behaviour";

/// Parts of the names of such functions, and what they are.
const ENTERED: [(&str, &str); 10] = [
    ("std::sync::once::Once::call", "the initialisation of a `LazyLock`, a `OnceLock` or a `Once`"),
    ("sync::poison::once::Once::call", "the initialisation of a `LazyLock`, a `OnceLock` or a `Once`"),
    ("OnceCell<T>::get_or_try_init", "the initialisation of a `OnceCell` or a `LazyCell`"),
    ("LocalKey<T>::with", "a closure of `LocalKey::with`"),
    ("LocalKey<T>::try_with", "a closure of `LocalKey::with`"),
    ("scoped_tls", UNDEFINED),
    ("environmental::", UNDEFINED),
    ("dispatcher::with_default", "the scope of a default subscriber of `tracing`"),
    ("mlua::", "a call of an interpreter, which is undefined behaviour where another fiber is in one, too"),
    ("pyo3::", "a call of an interpreter, which is undefined behaviour where another fiber is in one, too"),
];

/// Where the stack of the fiber ends, and that of the scheduler begins.
const END_OF_STACK: &str = "corosensei::";

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Report,
    Abort,
}

static MODE: LazyLock<Mode> =
    LazyLock::new(|| match std::env::var_os("RINGSPUN_CHECK_WAITS").unwrap_or_default().to_str() {
        Some("" | "0") => Mode::Off,
        Some("abort") => Mode::Abort,
        _ => Mode::Report,
    });
static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Reports where the running fiber, which is about to park, must not.
pub(crate) fn check(fiber: &Fiber) {
    if *MODE == Mode::Off {
        return;
    }
    let backtrace = Backtrace::force_capture().to_string();
    for (entered, place) in found(&backtrace) {
        if REPORTED.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone()) {
            let (id, name) = fiber.identity();
            let name = name.map(|name| format!(" '{name}'")).unwrap_or_default();
            let _ = writeln!(io::stderr(), "ringspun: fiber {id}{name} waits in {entered}:\n{place}");
        }
        if entered == UNDEFINED && *MODE == Mode::Abort {
            std::process::abort();
        }
    }
}

/// What has been entered, and the frames of it and its caller.
fn found(backtrace: &str) -> Vec<(&'static str, String)> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let mut calling: Option<&'static str> = None;
    let mut lines = backtrace.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, function)) =
            line.split_once(": ").filter(|(number, _)| number.trim().parse::<u32>().is_ok())
        else {
            continue;
        };
        if function.contains(END_OF_STACK) {
            break;
        }
        let location = lines.next_if(|next| next.trim_start().starts_with("at ")).unwrap_or_default();
        let entered = ENTERED.iter().find(|(part, _)| function.contains(part)).map(|(_, what)| *what);
        match (entered, calling) {
            (Some(_), _) => calling = entered,
            // The first function above that is not a part of the same thing: who entered it.
            (None, Some(what)) if !location.contains("/rustc/") => {
                found.push((what, format!("  {function}\n  {}", location.trim())));
                calling = None;
            }
            (None, _) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_is_found_with_its_caller_and_not_beyond_the_stack() {
        let backtrace = "   0: ringspun_fibers::wait::park_until
             at /src/wait.rs:9:9
   1: std::sync::poison::once::Once::call_once
             at /rustc/0/library/std/src/sync/poison/once.rs:1:1
   2: std::sync::lazy_lock::LazyLock<T,F>::force
             at /rustc/0/library/std/src/sync/lazy_lock.rs:1:1
   3: program::configuration
             at ./src/main.rs:7:5
   4: program::main
             at ./src/main.rs:9:5
   5: corosensei::coroutine::Coroutine::resume
             at /registry/corosensei/src/coroutine.rs:1:1
   6: scoped_tls::ScopedKey<T>::set
   7: program::other
";
        let found = found(backtrace);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.contains("LazyLock"), "{found:?}");
        assert_eq!(found[0].1, "  program::configuration\n  at ./src/main.rs:7:5");
    }
}
