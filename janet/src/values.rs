//! Janet values made from Rust's, and what a function of ours tells its shim to do.

use std::ffi::CStr;
use std::io;

use evil_janet as janet;
use evil_janet::Janet;

/// What the outermost shim does with its Janet frame. Plain data: a `longjmp` may drop it unseen.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Return this value.
    Return(Janet),
    /// Raise this value as an error.
    Raise(Janet),
    /// Yield to the event loop, which will resume the fiber.
    Await,
}

pub(crate) fn nil() -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_nil() }
}

/// A Janet string. The VM must be running on this thread.
pub(crate) fn string(text: &str) -> Janet {
    let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
    // SAFETY: copies `length` bytes, all of which are in `text`.
    unsafe { janet::janet_wrap_string(janet::janet_string(text.as_ptr(), length)) }
}

/// The kernel's text for an error, which is what stock Janet raises.
pub(crate) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    // The standard library adds the number, which stock Janet does not show.
    let number = error.raw_os_error().map(|errno| format!(" (os error {errno})"));
    number.and_then(|number| text.strip_suffix(&number).map(str::to_string)).unwrap_or(text)
}

pub(crate) fn error_string(error: &io::Error) -> Janet {
    string(&error_text(error))
}

/// An error of ours with the kernel's reason behind it.
pub(crate) fn explained(what: &str, error: &io::Error) -> Janet {
    string(&format!("{what}: {}", error_text(error)))
}

/// The key under which the core image knows a function.
pub(crate) fn symbol(name: &CStr) -> Janet {
    // SAFETY: the name is terminated; the VM copies it.
    unsafe { janet::janet_wrap_symbol(janet::janet_csymbol(name.as_ptr())) }
}
