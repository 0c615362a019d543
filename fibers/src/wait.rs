//! Waiting: the only way for a fiber to park, and what is built on it.

use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ringspun_runtime::{EventLoop, TimerKey, Wake};

use crate::current::{with_current, with_running};
use crate::fiber::Fiber;
use crate::interrupt::Interrupt;

/// Wakes the running fiber: the same waiter that [`wait`] passes to `poll`.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub fn waiter() -> Rc<dyn Wake> {
    with_current(|fiber| Rc::clone(&fiber.waiter()))
}

/// Whether the caller runs in a fiber, and so may wait. Tasks of a [`Remote`](crate::Remote) do not.
pub fn is_fiber() -> bool {
    with_running(|fiber| fiber.is_some())
}

/// Whether the caller runs in a fiber whose runtime turns this event loop. What waits for an operation of another loop
/// would never be woken.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_runtime::{Configuration, EventLoop};
///
/// fibers::run(|| {
///     assert!(fibers::runs_on(&fibers::event_loop().unwrap()));
///     assert!(!fibers::runs_on(&EventLoop::new(&Configuration::default()).unwrap()));
/// })
/// .unwrap();
/// ```
#[inline]
pub fn runs_on(event_loop: &Rc<EventLoop>) -> bool {
    with_running(|fiber| fiber.is_some_and(|fiber| Rc::ptr_eq(fiber.event_loop(), event_loop)))
}

/// Parks until `poll` is ready.
///
/// `poll` is called at once, and again after each wake of the waiter it is given. Wakes may be
/// spurious. This is the seam on which the net layer stands: `poll` starts what there is to start,
/// leaves the waiter where a completion finds it, and says `Pending`. What is ready goes before an
/// interrupt: one that is pending is raised only where the fiber would park.
///
/// # Errors
///
/// The interrupt that ended the wait; `poll` is not called again, and whoever wrote it takes the
/// waiter back from where it was left.
///
/// # Panics
///
/// Outside of a fiber. A fiber that ignores a thousand interrupts after its runtime has begun to end is
/// unwound from here, by a panic that prints nothing; see [`Runtime::run`](crate::Runtime::run).
///
/// # Examples
///
/// ```
/// use std::cell::{Cell, RefCell};
/// use std::rc::Rc;
/// use std::task::Poll;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     // A gate that one fiber opens, and another waits for.
///     let open = Rc::new(Cell::new(false));
///     let waiting = Rc::new(RefCell::new(None));
///     let gate = (open.clone(), waiting.clone());
///     let opener = fibers::spawn(move || {
///         gate.0.set(true);
///         let waiter: Option<Rc<dyn ringspun_runtime::Wake>> = gate.1.take();
///         waiter.unwrap().wake();
///     })
///     .unwrap();
///     fibers::wait(|waiter| match open.get() {
///         true => Poll::Ready(()),
///         false => {
///             waiting.replace(Some(waiter.clone()));
///             Poll::Pending
///         }
///     })
///     .unwrap();
///     assert!(opener.is_finished());
/// })
/// .unwrap();
/// ```
#[inline]
pub fn wait<T>(mut poll: impl FnMut(&Rc<dyn Wake>) -> Poll<T>) -> Result<T, Interrupt> {
    with_current(|fiber| {
        let waiter = fiber.waiter();
        loop {
            if let Poll::Ready(value) = poll(&waiter) {
                return Ok(value);
            }
            may_park(fiber)?;
            park_until(fiber, fiber.deadline(), &waiter);
        }
    })
}

/// The reason why the fiber must not park now, if there is one.
#[inline]
fn may_park(fiber: &Fiber) -> Result<(), Interrupt> {
    if let Some(interrupt) = fiber.take_interrupt() {
        return Err(interrupt);
    }
    if std::thread::panicking() {
        // The count of panics is the thread's: other fibers would see it.
        return Err(Interrupt::Cancelled);
    }
    Ok(())
}

/// Tells the running fiber, if there is one, that a call has failed without waiting; see
/// [`Fiber::count_ignored`]. Unwinds as [`wait`] does.
pub(crate) fn failed_at_once() {
    with_running(|fiber| fiber.map(Fiber::count_ignored));
}

/// Parks until `poll` is ready, whatever happens: for operations that the kernel works on with memory
/// that the fiber lends.
///
/// On an interrupt, `interrupted` is called once, to hurry the operation, and `poll` again after it. The
/// interrupt itself stays pending: the caller raises it with [`check`] if the operation did not succeed,
/// or else the fiber's next [`wait`] does. Both are given `operation`, which is what they share.
///
/// Neither closure may panic while the operation is in flight, as that would unwind past the memory lent.
/// Not for fibers that unwind from a panic: parking then shows the thread's panic to other fibers.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub fn wait_for_completion<S, T>(
    operation: &mut S,
    mut poll: impl FnMut(&mut S, &Rc<dyn Wake>) -> Poll<T>,
    interrupted: impl FnOnce(&mut S),
) -> T {
    let mut interrupted = Some(interrupted);
    with_current(|fiber| {
        let waiter = fiber.waiter();
        loop {
            if let Poll::Ready(value) = poll(operation, &waiter) {
                return value;
            }
            if fiber.interrupt().is_some()
                && let Some(interrupted) = interrupted.take()
            {
                interrupted(operation);
                continue;
            }
            // Once hurried, only the completion counts: an expired timer would wake us for nothing.
            let deadline = fiber.deadline().filter(|_| interrupted.is_some());
            park_until(fiber, deadline, &waiter);
        }
    })
}

/// Raises the interrupt that is pending for the running fiber, if there is one, without waiting: for
/// long computations, and before work that should not begin after a cancel.
///
/// # Errors
///
/// That interrupt. A cancel is over once it has been raised.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`].
#[inline]
pub fn check() -> Result<(), Interrupt> {
    with_current(|fiber| fiber.take_interrupt()).map_or(Ok(()), Err)
}

/// The interrupt that is pending for the running fiber, without raising it.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub fn pending_interrupt() -> Option<Interrupt> {
    with_current(|fiber| fiber.interrupt())
}

#[inline]
fn park_until(fiber: &Fiber, deadline: Option<Instant>, waiter: &Rc<dyn Wake>) {
    match deadline {
        None => fiber.park(),
        Some(deadline) => park_with_timer(fiber, deadline, waiter),
    }
}

#[cold]
fn park_with_timer(fiber: &Fiber, deadline: Instant, waiter: &Rc<dyn Wake>) {
    let event_loop = fiber.event_loop();
    let timer = event_loop.insert_timer(deadline, waiter.clone());
    fiber.park();
    event_loop.remove_timer(timer);
}

/// Parks for `duration` at least; a duration of zero does not park. One beyond the clock's range, such as
/// [`Duration::MAX`], ends by an interrupt only.
///
/// # Errors
///
/// The interrupt that ended the sleep early.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`].
pub fn sleep(duration: Duration) -> Result<(), Interrupt> {
    /// Disarms its timer also where the wait unwinds.
    struct Timer(Rc<EventLoop>, TimerKey);
    impl Drop for Timer {
        fn drop(&mut self) {
            self.0.remove_timer(self.1);
        }
    }
    let event_loop = with_current(|fiber| fiber.event_loop().clone());
    // A sleep beyond the clock's range has no end of its own.
    let until = event_loop.now().checked_add(duration);
    let mut timer = None;
    wait(|waiter| {
        if until.is_some_and(|until| event_loop.now() >= until) {
            return Poll::Ready(());
        }
        if timer.is_none()
            && let Some(until) = until
        {
            timer = Some(Timer(event_loop.clone(), event_loop.insert_timer(until, waiter.clone())));
        }
        Poll::Pending
    })
}

/// Lets every other fiber that is ready run first, and the event loop turn once.
///
/// # Errors
///
/// The interrupt that is pending; no other fiber has run then.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`].
pub fn yield_now() -> Result<(), Interrupt> {
    with_current(|fiber| {
        may_park(fiber)?;
        fiber.give_way();
        Ok(())
    })
}

/// Runs `function` with a deadline: once `duration` has passed, every wait in it that would park ends with
/// [`Interrupt::DeadlineExpired`]. Nested deadlines hold together; the earliest counts. Fibers that the
/// function spawns do not have the deadline.
///
/// The function is not stopped between waits, and its result is returned whether or not the deadline
/// has passed. A duration beyond the clock's range is no deadline.
///
/// # Panics
///
/// Outside of a fiber; and with the panic of `function`, after which the deadline is gone.
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
    struct Restore(Option<Instant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            with_running(|fiber| fiber.map(|fiber| fiber.set_deadline(self.0)));
        }
    }
    let outer = with_current(|fiber| {
        let outer = fiber.deadline();
        // A duration beyond the clock's range is no deadline.
        let own = fiber.event_loop().now().checked_add(duration);
        fiber.set_deadline(match (outer, own) {
            (Some(outer), Some(own)) => Some(outer.min(own)),
            (outer, own) => outer.or(own),
        });
        outer
    });
    let _restore = Restore(outer);
    function()
}
