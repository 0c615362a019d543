//! Limits on how long a block of code may wait.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::current::{with_current, with_running};
use crate::fiber::Fiber;
use crate::interrupt::{Deadline, Interrupt};

/// Runs `function` with a deadline: once `duration` has passed, every wait in it that would park ends with
/// [`Interrupt::DeadlineExpired`]. Of nested deadlines the earliest counts. Fibers that the function spawns do
/// not inherit the deadline.
///
/// The function is not stopped between waits, and its result is returned whether or not the deadline
/// has passed; [`timeout`] tells whether it has. A duration beyond the clock's range sets no deadline.
///
/// A loop that takes the read timeout of a socket for "nothing yet" ends with the deadline, whose error is another
/// kind: [`Interrupt::DeadlineExpired`] as an [`io::Error`] is `Other`, a timeout of a socket is `TimedOut`.
///
/// # Panics
///
/// Outside of a fiber; and with the panic of `function`, after which the deadline is removed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Interrupt};
///
/// fibers::run(|| {
///     let slept = fibers::with_deadline(Duration::from_millis(1), || fibers::sleep(Duration::MAX));
///     assert_eq!(slept, Err(Interrupt::DeadlineExpired));
///     // It ends with its scope.
///     assert_eq!(fibers::check(), Ok(()));
/// })
/// .unwrap();
/// ```
pub fn with_deadline<T>(duration: Duration, function: impl FnOnce() -> T) -> T {
    Limit::after(duration, Interrupt::DeadlineExpired).run(function)
}

/// As [`with_deadline`], and tells whether the deadline has ended a wait of `function`: its result is then dropped. A
/// function that comes to its end without such a wait has its result returned, however long it took.
///
/// # Errors
///
/// [`Elapsed`]. If the deadline of an outer scope ended the wait, the result of `function` says so.
///
/// # Panics
///
/// As [`with_deadline`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Channel, Elapsed};
///
/// fibers::run(|| {
///     let jobs = Channel::<u32>::bounded(1);
///     let job = fibers::timeout(Duration::from_millis(1), || jobs.take());
///     assert_eq!(job, Err(Elapsed));
///     jobs.give(7).unwrap();
///     assert_eq!(fibers::timeout(Duration::from_secs(60), || jobs.take()), Ok(Ok(7)));
/// })
/// .unwrap();
/// ```
pub fn timeout<T>(duration: Duration, function: impl FnOnce() -> T) -> Result<T, Elapsed> {
    Limit::after(duration, Interrupt::DeadlineExpired).run_telling(function)
}

/// As [`timeout`], until a moment by the clock of [`now`](crate::now): for what has a time for all of its parts.
///
/// # Errors
///
/// As [`timeout`].
///
/// # Panics
///
/// As [`with_deadline`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Channel, Elapsed};
///
/// fibers::run(|| {
///     let parts = Channel::<u32>::bounded(2);
///     parts.give(1).unwrap();
///     // For all parts together.
///     let due = fibers::now() + Duration::from_millis(1);
///     let mut received = Vec::new();
///     while let Ok(part) = fibers::timeout_at(due, || parts.take()) {
///         received.push(part);
///     }
///     assert!(received.len() <= 1 && fibers::now() >= due);
/// })
/// .unwrap();
/// ```
pub fn timeout_at<T>(moment: Instant, function: impl FnOnce() -> T) -> Result<T, Elapsed> {
    with_current(|fiber| Limit::at(fiber, Some(moment), Interrupt::DeadlineExpired)).run_telling(function)
}

/// Runs `function` with a time limit of its own: as [`with_deadline`], but the waits that it ends get
/// [`Interrupt::TimedOut`], which callers may take for "nothing yet". For what has timeouts as sockets have them.
///
/// # Panics
///
/// As [`with_deadline`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Interrupt};
///
/// fibers::run(|| {
///     let slept = fibers::with_time_limit(Duration::from_millis(1), || fibers::sleep(Duration::MAX));
///     assert_eq!(slept, Err(Interrupt::TimedOut));
/// })
/// .unwrap();
/// ```
pub fn with_time_limit<T>(duration: Duration, function: impl FnOnce() -> T) -> T {
    Limit::after(duration, Interrupt::TimedOut).run(function)
}

/// The time of a [`timeout`] has passed. As an [`io::Error`], its kind is `TimedOut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("time limit elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// A limit that is in force until it is dropped.
struct Limit {
    outer: Option<Deadline>,
    scope: u32,
}

impl Limit {
    fn after(duration: Duration, interrupt: Interrupt) -> Self {
        with_current(|fiber| {
            // `None` beyond the clock's range.
            let at = fiber.event_loop().now().checked_add(duration);
            Self::at(fiber, at, interrupt)
        })
    }

    fn at(fiber: &Fiber, at: Option<Instant>, interrupt: Interrupt) -> Self {
        let outer = fiber.whole_deadline();
        let scope = fiber.new_scope();
        let own = at.map(|at| Deadline { at, interrupt, scope });
        fiber.set_deadline(match (outer, own) {
            (Some(outer), Some(own)) if own.at < outer.at => Some(own),
            (outer, own) => outer.or(own),
        });
        Self { outer, scope }
    }

    fn run<T>(self, function: impl FnOnce() -> T) -> T {
        function()
    }

    /// Tells whether this limit has ended a wait.
    fn run_telling<T>(self, function: impl FnOnce() -> T) -> Result<T, Elapsed> {
        let scope = self.scope;
        let result = self.run(function);
        if with_current(Fiber::expired_scope) == scope { Err(Elapsed) } else { Ok(result) }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        with_running(|fiber| fiber.map(|fiber| fiber.set_deadline(self.outer)));
    }
}
