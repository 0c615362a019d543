//! Which fiber runs on this thread.

use std::cell::Cell;
use std::rc::Rc;

use crate::fiber::Fiber;

thread_local! {
    /// Null between fibers. A bare pointer, because every wait asks for it, and because the handler of a stack
    /// overflow has to be able to read it at any instruction.
    static RUNNING: Cell<*const Fiber> = const { Cell::new(std::ptr::null()) };
}

/// Has a fiber be the running one, for as long as this lives.
pub(crate) struct Turn<'a> {
    _fiber: &'a Rc<Fiber>,
}

impl<'a> Turn<'a> {
    pub(crate) fn of(fiber: &'a Rc<Fiber>) -> Self {
        RUNNING.set(Rc::as_ptr(fiber));
        Self { _fiber: fiber }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        RUNNING.set(std::ptr::null());
    }
}

/// Calls `function` with the running fiber, if there is one.
#[inline]
pub(crate) fn with_running<T>(function: impl FnOnce(Option<&Fiber>) -> T) -> T {
    // SAFETY: null, or a fiber that runs what calls this. Its scheduler owns it until that has ended, also while it
    // is parked; and fibers do not change threads.
    function(unsafe { RUNNING.get().as_ref() })
}

/// Calls `function` with the running fiber.
///
/// Panics outside of a fiber: to wait there is a mistake in the program, as parking would block the
/// thread for good.
#[inline]
pub(crate) fn with_current_fiber<T>(function: impl FnOnce(&Fiber) -> T) -> T {
    with_running(|fiber| match fiber {
        Some(fiber) => function(fiber),
        None => panic!("this waits, so it must run in a fiber: start one with ringspun_fibers::run"),
    })
}

/// The running fiber.
///
/// Panics outside of a fiber, as [`with_current_fiber`].
#[inline]
pub(crate) fn current_fiber() -> Rc<Fiber> {
    with_current_fiber(|_| {});
    let fiber = RUNNING.get();
    // SAFETY: not null, or the line above has panicked. `Turn::of` had the pointer from an `Rc`, which the scheduler
    // keeps while its fiber runs; the count is for the one that is made here.
    unsafe {
        Rc::increment_strong_count(fiber);
        Rc::from_raw(fiber)
    }
}
