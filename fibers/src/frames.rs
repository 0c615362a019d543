//! The names of the functions on a stack.

use std::backtrace::Backtrace;

/// Parts of the names of functions by which fibers wait, and of those by which they run.
const WAIT: [&str; 4] = [
    "ringspun_fibers::fiber::Fiber::tell",
    "ringspun_fibers::wait::",
    "ringspun_fibers::current::with_",
    "ringspun_fibers::pollable::wait_for",
];
const ABOVE: [&str; 8] = [
    "ringspun_fibers::spawn::body",
    "ringspun_fibers::join::Packet",
    "ringspun_fibers::fiber::Fiber::",
    "std::panic",
    "core::panic",
    "core::ops::function",
    "__rust_try",
    "<alloc::boxed::Box",
];
/// Where the stack of the fiber ends, and that of the scheduler begins.
pub(crate) const END_OF_STACK: &str = "corosensei::";

/// The functions on a stack, without those by which fibers wait and run.
pub(crate) fn frames(backtrace: &Backtrace) -> Vec<String> {
    let text = backtrace.to_string();
    let mut frames: Vec<String> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, function)) =
            line.split_once(": ").filter(|(number, _)| number.trim().parse::<u32>().is_ok())
        else {
            continue;
        };
        if function.contains(END_OF_STACK) {
            break;
        }
        let place = lines.next_if(|next| next.trim_start().starts_with("at "));
        frames.push(match place {
            Some(place) => format!("{function} {}", place.trim()),
            None => function.to_string(),
        });
    }
    // Before these are those that look at the stack.
    let is_wait = |frame: &String| WAIT.iter().any(|part| frame.contains(part));
    let begin = frames.iter().position(is_wait).unwrap_or_default();
    let waiting = frames[begin..].iter().take_while(|frame| is_wait(frame)).count();
    frames.drain(..begin + waiting);
    while frames.last().is_some_and(|frame| ABOVE.iter().any(|part| frame.contains(part))) {
        frames.pop();
    }
    frames
}

/// Whether a function is one of those by which fibers run.
#[cfg(target_os = "linux")]
pub(crate) fn is_above(frame: &str) -> bool {
    ABOVE.iter().any(|part| frame.contains(part))
}
