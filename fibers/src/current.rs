//! The fiber that runs on this thread.

use std::cell::Cell;
use std::rc::Rc;

use crate::fiber::Fiber;
use crate::locals::FiberLocal;

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

/// Calls `function` as if it did not run in a fiber, so that it cannot wait.
pub(crate) fn outside_of_fiber<T>(function: impl FnOnce() -> T) -> T {
    let _hidden = hide();
    function()
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

/// Gives the memory of the running fiber's stack below the caller's frame back to the system, after a computation that
/// needed much of it and before a long wait. Otherwise, a fiber keeps what it has touched until it ends.
///
/// Takes a system call (`madvise(2)`); what is touched again costs a page fault per page. Does nothing outside of a
/// fiber, or on a stack other than the fiber's. Never waits.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
///
/// #[inline(never)]
/// fn compute() -> u64 {
///     let large = std::hint::black_box([7_u8; 300_000]);
///     large.iter().map(|byte| u64::from(*byte)).sum()
/// }
///
/// let sum = fibers::run(|| {
///     let sum = compute();
///     fibers::release_stack();
///     sum
/// });
/// assert_eq!(sum.unwrap(), 2_100_000);
/// ```
pub fn release_stack() {
    with_running(|fiber| {
        if let Some(fiber) = fiber {
            fiber.release_stack();
        }
    });
}

/// The number of the running fiber, which no other fiber of its runtime has; 0 is the main fiber. `None` outside of a
/// fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
///
/// assert_eq!(fibers::current_id(), None);
/// fibers::run(|| {
///     assert_eq!(fibers::current_id(), Some(0));
///     let fiber = fibers::spawn(fibers::current_id).unwrap();
///     assert_eq!(Some(fiber.id()), fiber.join().unwrap());
/// })
/// .unwrap();
/// ```
pub fn current_id() -> Option<u64> {
    with_running(|fiber| fiber.map(|fiber| fiber.identity().0))
}

/// The name of the running fiber ([`FiberBuilder::name`](crate::FiberBuilder::name)): `main` for the main fiber. `None`
/// without one, and outside of a fiber.
pub fn current_name() -> Option<String> {
    with_running(|fiber| fiber?.identity().1.map(str::to_string))
}

impl<T: 'static> FiberLocal<T> {
    /// Calls `function` with the running fiber's value. It may wait, and may use the key again.
    ///
    /// # Panics
    ///
    /// Outside of a fiber; and with the panics of the functions.
    pub fn with<R>(&'static self, function: impl FnOnce(&T) -> R) -> R {
        // Not kept borrowed, as the function may wait, and other fibers with it.
        let value = with_current(|fiber| fiber.locals().get(self.key(), self.init()));
        function(&value)
    }
}
