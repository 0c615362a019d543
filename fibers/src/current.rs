//! The fiber that runs on this thread.

use std::cell::Cell;
use std::rc::Rc;

use crate::fiber::Fiber;

thread_local! {
    /// Null between fibers. A raw pointer, because every wait reads it, and because the handler of a stack
    /// overflow must be able to read it at any instruction.
    static CURRENT: Cell<*const Fiber> = const { Cell::new(std::ptr::null()) };
}

/// Runs a fiber until it parks or ends; true once it has ended.
#[inline]
pub(crate) fn run(fiber: &Rc<Fiber>) -> bool {
    /// Also where the fiber's end panics.
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            CURRENT.set(std::ptr::null());
        }
    }
    CURRENT.set(Rc::as_ptr(fiber));
    let _leave = Leave;
    fiber.resume()
}

/// Hides the running fiber from a runtime that begins within it, as in the child of a `fork(2)`.
pub(crate) struct Hidden(*const Fiber);

pub(crate) fn hide() -> Hidden {
    Hidden(CURRENT.replace(std::ptr::null()))
}

impl Drop for Hidden {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Calls `function` with the running fiber, if there is one.
#[inline]
pub(crate) fn with_running<T>(function: impl FnOnce(Option<&Fiber>) -> T) -> T {
    // SAFETY: null, or the fiber that runs this code, which `run` borrows until it parks or ends; while it is
    // parked its scheduler keeps it alive. The pointer came from an `Rc`, as the methods of `Fiber` that need one
    // rely on.
    function(unsafe { CURRENT.get().as_ref() })
}

/// Calls `function` with the running fiber.
///
/// Panics outside of a fiber: waiting there is a mistake in the program, as parking would block the thread
/// for good.
#[inline]
pub(crate) fn with_current<T>(function: impl FnOnce(&Fiber) -> T) -> T {
    with_running(|fiber| match fiber {
        Some(fiber) => function(fiber),
        None => outside_of_fibers(),
    })
}

#[cold]
fn outside_of_fibers() -> ! {
    panic!("this waits, so it must run in a fiber: start one with ringspun_fibers::run")
}
