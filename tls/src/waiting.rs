//! Drives the machines from fibers, which park between polls.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_fibers::{self as fibers, WaitReason};
use ringspun_net::machine::StreamCore;
use ringspun_runtime::Wake;

/// Runs `function`, with a deadline if there is a timeout.
pub(crate) fn within<T>(timeout: Option<Duration>, function: impl FnOnce() -> T) -> T {
    match timeout {
        Some(timeout) => fibers::with_time_limit(timeout, function),
        None => function(),
    }
}

/// Fails unless the fiber's runtime turns the stream's loop: otherwise, the fiber would never be woken.
pub(crate) fn check_loop(stream: &StreamCore) -> io::Result<()> {
    stream.check_open()?;
    if fibers::runs_on(stream.event_loop()) {
        return Ok(());
    }
    let text = "the stream belongs to another event loop than the one that this thread's runtime turns";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// Parks until `poll` is ready. If the fiber is interrupted, calls `abandon` with the machine and the waiter. `reason`
/// says in a dump what the fiber waits for.
pub(crate) fn wait_on<M, T>(
    stream: &StreamCore,
    mut machine: M,
    timeout: Option<Duration>,
    mut poll: impl FnMut(&mut M, &Rc<dyn Wake>) -> Poll<io::Result<T>>,
    abandon: impl FnOnce(M, &Rc<dyn Wake>),
    reason: impl Fn(&M) -> WaitReason,
) -> io::Result<T> {
    check_loop(stream)?;
    fibers::check()?;
    let waited = within(timeout, || fibers::wait_telling(&mut machine, &mut poll, &reason));
    waited.unwrap_or_else(|interrupt| {
        abandon(machine, &fibers::waiter());
        Err(interrupt.into())
    })
}
