//! Calls of code whose panic must not get any further.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls a function; `None` if it panics, which the panic hook has then reported. A payload whose drop panics, too, is
/// leaked.
///
/// For code of others, where a panic would end a thread that serves everybody, or unwind a stack that the kernel uses.
///
/// # Examples
///
/// ```
/// assert_eq!(ringspun_runtime::contained(|| 1 + 1), Some(2));
/// assert_eq!(ringspun_runtime::contained(|| panic!("of others")), None::<()>);
/// ```
pub fn contained<T>(function: impl FnOnce() -> T) -> Option<T> {
    let payload = match catch_unwind(AssertUnwindSafe(function)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    None
}
