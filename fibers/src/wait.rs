//! Waiting: the only way for a fiber to park, and what is built on it.

use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use ringspun_runtime::{EventLoop, Wake};

use crate::current::{self, with_current, with_running};
use crate::fiber::Fiber;
use crate::interrupt::Interrupt;
use crate::spans;
use crate::wait_reason::WaitReason;

/// Wakes the running fiber: the same waiter that [`wait`] passes to `poll`.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub fn waiter() -> Rc<dyn Wake> {
    with_current(|fiber| Rc::clone(&fiber.waiter()))
}

/// Whether the caller runs in a fiber and may wait. Tasks of a [`Remote`](crate::Remote) do not run in one.
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
/// `poll` is called at once, and again after each wake of the waiter that it is passed. Wakes may be
/// spurious. The net layer is built on this: `poll` starts the operation, stores the waiter for its
/// completion, and returns `Pending`. A result has priority over an interrupt: a pending interrupt is raised only
/// where the fiber would park.
///
/// # Errors
///
/// The interrupt that ended the wait. `poll` is not called again: the caller removes the waiter from where
/// `poll` stored it.
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
    wait_telling(&mut (), |(), waiter| poll(waiter), |()| WaitReason::unknown())
}

/// As [`wait`], and says in a [dump](crate::dump) what the fiber waits for. `poll` and `reason` are passed `state`,
/// which they share. `reason` is only called for a dump, and must not wait.
///
/// # Errors
///
/// As [`wait`].
///
/// # Panics
///
/// As [`wait`].
///
/// # Examples
///
/// ```
/// use std::task::Poll;
///
/// use ringspun_fibers::{self as fibers, WaitReason};
///
/// fibers::run(|| {
///     let gate = fibers::FiberBuilder::new()
///         .spawn(|| {
///             fibers::wait_telling(&mut "the gate", |_, _| Poll::<()>::Pending, |gate| {
///                 WaitReason::new("opening of", gate)
///             })
///         })
///         .unwrap();
///     let dump = fibers::dump();
///     let reason = dump.fibers()[1].reason().unwrap();
///     assert_eq!(reason.to_string(), "opening of the gate");
///     gate.cancel();
/// })
/// .unwrap();
/// ```
#[inline]
pub fn wait_telling<S, T>(
    state: &mut S,
    mut poll: impl FnMut(&mut S, &Rc<dyn Wake>) -> Poll<T>,
    reason: impl Fn(&S) -> WaitReason,
) -> Result<T, Interrupt> {
    with_current(|fiber| {
        let waiter = fiber.waiter();
        loop {
            if let Poll::Ready(value) = poll(state, &waiter) {
                return Ok(value);
            }
            may_park(fiber, || reason(state))?;
            park_until(fiber, fiber.deadline(), &waiter);
        }
    })
}

/// The reason why the fiber must not park now, if there is one.
#[inline]
fn may_park(fiber: &Fiber, reason: impl Fn() -> WaitReason) -> Result<(), Interrupt> {
    if fiber.has_flags() {
        fiber.tell(&reason);
    }
    raise_interrupt(fiber)?;
    if std::thread::panicking() {
        // The panic count belongs to the thread: other fibers would see it.
        return Err(Interrupt::Cancelled);
    }
    Ok(())
}

#[inline]
fn raise_interrupt(fiber: &Fiber) -> Result<(), Interrupt> {
    match fiber.take_interrupt() {
        None => Ok(()),
        Some(interrupt) => Err(raised(fiber, interrupt)),
    }
}

#[cold]
fn raised(fiber: &Fiber, interrupt: Interrupt) -> Interrupt {
    if fiber.should_give_way() {
        outside_of_spans(|| fiber.give_way());
    }
    interrupt
}

/// Tells the running fiber, if there is one, that a call has failed without waiting; see
/// [`Fiber::count_ignored`]. Unwinds as [`wait`] does.
pub(crate) fn failed_at_once() {
    with_running(|fiber| fiber.map(Fiber::count_ignored));
}

/// Parks until `poll` is ready, also after an interrupt: for operations during which the kernel uses memory
/// that the fiber lends.
///
/// On an interrupt, `interrupted` is called once, to cancel the operation, and then `poll` again. The
/// interrupt stays pending: the caller raises it with [`check`] if the operation did not succeed;
/// otherwise the fiber's next [`wait`] does. The closures are passed `operation`, the state that they share. `reason`
/// says in a [dump](crate::dump) what the fiber waits for.
///
/// No closure may panic while the operation is in flight, as that would unwind past the lent memory.
/// Not for fibers that unwind from a panic: other fibers would see the thread's panic.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub fn wait_for_completion<S, T>(
    operation: &mut S,
    mut poll: impl FnMut(&mut S, &Rc<dyn Wake>) -> Poll<T>,
    interrupted: impl FnOnce(&mut S),
    reason: impl Fn(&S) -> WaitReason,
) -> T {
    let mut interrupted = Some(interrupted);
    with_current(|fiber| {
        let waiter = fiber.waiter();
        loop {
            if let Poll::Ready(value) = poll(operation, &waiter) {
                return value;
            }
            if fiber.has_flags() {
                fiber.tell(&|| reason(operation));
            }
            if fiber.interrupt().is_some()
                && let Some(interrupted) = interrupted.take()
            {
                interrupted(operation);
                continue;
            }
            // Once cancelled, only the completion counts: a deadline would only cause a spurious wake.
            let deadline = fiber.deadline().filter(|_| interrupted.is_some());
            park_until(fiber, deadline, &waiter);
        }
    })
}

/// Raises the running fiber's pending interrupt, if there is one, without waiting: for long computations,
/// and before work that should not begin after a cancel.
///
/// A fiber that goes on whatever interrupts it lets others run with every 16th interrupt, here as in every wait.
///
/// # Errors
///
/// That interrupt. A cancel is raised once.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`].
#[inline]
pub fn check() -> Result<(), Interrupt> {
    with_current(raise_interrupt)
}

/// The running fiber's pending interrupt, which stays pending.
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
    #[cfg(debug_assertions)]
    crate::wait_checks::check(fiber);
    match deadline {
        None => outside_of_spans(|| fiber.park()),
        Some(deadline) => park_with_timer(fiber, deadline, waiter),
    }
}

#[cold]
fn park_with_timer(fiber: &Fiber, deadline: Instant, waiter: &Rc<dyn Wake>) {
    let event_loop = fiber.event_loop();
    let timer = event_loop.insert_timer(deadline, waiter.clone());
    outside_of_spans(|| fiber.park());
    event_loop.remove_timer(timer);
}

/// Suspends the running fiber, whose spans of `tracing` others must not see.
#[inline]
fn outside_of_spans(suspend: impl FnOnce()) {
    if spans::may_be_entered() { outside_of_entered_spans(suspend) } else { suspend() }
}

#[cold]
fn outside_of_entered_spans(suspend: impl FnOnce()) {
    // The subscriber's code cannot wait here: it would consume the wake that the fiber is about to park for.
    let left = current::outside_of_fiber(spans::leave);
    suspend();
    if let Some(left) = left {
        current::outside_of_fiber(|| left.enter());
    }
}

/// As [`yield_now`], whatever is pending.
pub(crate) fn give_way() {
    with_current(|fiber| outside_of_spans(|| fiber.give_way()));
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
        may_park(fiber, || WaitReason::new("its turn", ""))?;
        outside_of_spans(|| fiber.give_way());
        Ok(())
    })
}
