//! Blocking calls from a fiber: another thread makes them while the fiber is parked.

use std::any::Any;
use std::fmt;
use std::io;
use std::task::Poll;

use ringspun_runtime::{BlockingCall, BlockingKind};

use crate::current::with_current;
use crate::interrupt::Interrupt;
use crate::join::panic_text;
use crate::wait::{check, wait_for_completion, wait_telling};
use crate::wait_reason::WaitReason;

/// Calls `function` on another thread and parks until it has returned: for name lookups, files, and
/// computations that would keep the other fibers waiting. The threads are those of
/// [`EventLoop::call_blocking`](ringspun_runtime::EventLoop::call_blocking).
///
/// # Errors
///
/// [`BlockingError::Interrupted`] if the fiber is interrupted. A function that has not begun is then never
/// called; one that has continues, and its result is dropped on its thread.
/// [`BlockingError::Panicked`] if the function panics, and [`BlockingError::Unavailable`] if there is no
/// thread to call it and none can be made.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let text = fibers::blocking(|| std::fs::read_to_string("/etc/passwd")).unwrap();
///     assert!(!text.unwrap().is_empty());
/// })
/// .unwrap();
/// ```
pub fn blocking<T: Send + 'static>(
    function: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    blocking_of(BlockingKind::Other, function)
}

/// As [`blocking`], on the threads for calls of a kind: [`BlockingKind::Peer`] for a wait of which nobody knows how
/// long it takes, so that it does not keep a thread from the others.
///
/// # Errors
///
/// As [`blocking`].
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader};
///
/// use ringspun_fibers as fibers;
/// use ringspun_runtime::BlockingKind;
///
/// fibers::run(|| {
///     let (commands, sender) = std::io::pipe().unwrap();
///     # drop(sender);
///     // Whenever somebody has a command.
///     let command = fibers::blocking_of(BlockingKind::Peer, || BufReader::new(commands).lines().next());
///     # assert!(command.unwrap().is_none());
/// })
/// .unwrap();
/// ```
pub fn blocking_of<T: Send + 'static>(
    kind: BlockingKind,
    function: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    if std::thread::panicking() {
        // Parking now would show the thread's panic to other fibers.
        return Err(Interrupt::Cancelled.into());
    }
    // No work begins after a cancel.
    check()?;
    let event_loop = with_current(|fiber| fiber.event_loop().clone());
    let mut call = event_loop.call_blocking_of(kind, function).map_err(BlockingError::Unavailable)?;
    wait_telling(&mut call, BlockingCall::poll, reason)?.map_err(BlockingError::Panicked)
}

/// As [`blocking`], for a function that borrows from the caller: waits until it has returned, also after an interrupt.
///
/// # Errors
///
/// As [`blocking`], except that an interrupt only ends a call that has not begun. One that comes later stays pending.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let mut numbers = vec![3, 1, 2];
///     fibers::blocking_scoped(|| numbers.sort()).unwrap();
///     assert_eq!(numbers, [1, 2, 3]);
/// })
/// .unwrap();
/// ```
///
/// What it returns, and what it borrows, must be `Send`:
///
/// ```compile_fail
/// use std::cell::Cell;
/// let count = Cell::new(0);
/// ringspun_fibers::blocking_scoped(|| count.set(1)).unwrap();
/// ```
pub fn blocking_scoped<T: Send>(function: impl FnOnce() -> T + Send) -> Result<T, BlockingError> {
    if std::thread::panicking() {
        // Parking now would show the thread's panic to other fibers.
        return Err(Interrupt::Cancelled.into());
    }
    check()?;
    let event_loop = with_current(|fiber| fiber.event_loop().clone());
    let mut output = None;
    let task: Box<dyn FnOnce() + Send + '_> = Box::new(|| output = Some(function()));
    // SAFETY: only the lifetime changes. This returns once the task has been called and dropped, or has been dropped
    // without a call, and nothing in between can unwind: see `wait_for_completion`.
    let task: Box<dyn FnOnce() + Send + 'static> = unsafe { std::mem::transmute(task) };
    let call = event_loop.call_blocking(task).map_err(BlockingError::Unavailable)?;
    let result = wait_for_completion(
        &mut (call, false),
        |(call, is_withdrawn), waiter| match is_withdrawn {
            true => Poll::Ready(None),
            false => call.poll(waiter).map(Some),
        },
        |(call, is_withdrawn)| *is_withdrawn = call.withdraw(),
        |(call, _)| reason(call),
    );
    match (result, output) {
        (Some(Ok(())), Some(output)) => Ok(output),
        (Some(Err(payload)), _) => Err(BlockingError::Panicked(payload)),
        _ => Err(check().err().unwrap_or(Interrupt::Cancelled).into()),
    }
}

fn reason<T>(call: &BlockingCall<T>) -> WaitReason {
    WaitReason::new(
        "a blocking call",
        match call.has_begun() {
            true => "that a thread makes",
            false => "that no thread has begun: all threads for such calls are busy",
        },
    )
}

/// Why a blocking call gave no result.
#[non_exhaustive]
pub enum BlockingError {
    /// The function panicked; this is its payload, as [`std::panic::catch_unwind`] gives it.
    Panicked(Box<dyn Any + Send>),
    /// The wait for it was interrupted.
    Interrupted(Interrupt),
    /// No thread could be made to call it: the kernel's error.
    Unavailable(io::Error),
}

impl fmt::Display for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => {
                write!(f, "the blocking call panicked: {}", panic_text(payload.as_ref()))
            }
            Self::Interrupted(interrupt) => interrupt.fmt(f),
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockingError({self})")
    }
}

impl std::error::Error for BlockingError {}

impl From<Interrupt> for BlockingError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<BlockingError> for io::Error {
    /// An interrupt is converted as [`Interrupt`] is; a panic is `Other`, with its message and without its
    /// payload.
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::Interrupted(interrupt) => interrupt.into(),
            BlockingError::Unavailable(error) => error,
            panicked => Self::other(panicked.to_string()),
        }
    }
}
