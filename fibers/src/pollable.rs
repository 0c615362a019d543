//! What can be waited for: by itself, or as one of several in a selection.

use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use crate::interrupt::Interrupt;
use crate::wait::wait_telling;
use crate::wait_reason::{WaitReason, short_name};

/// Something to wait for: with [`wait_for`], or with [`Select::on`](crate::Select::on) as the first of several.
///
/// It registers the waiter when it is polled first, and removes it when it is dropped, so that a wait can be given up
/// at any time. What it has not returned by then is lost to nobody.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::task::Poll;
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Pollable};
/// use ringspun_runtime::Wake;
///
/// /// Ready once a counter has reached a number, which somebody looks at each millisecond.
/// struct Reached {
///     counter: Rc<Cell<u32>>,
///     number: u32,
///     look: fibers::Timer,
/// }
///
/// impl Pollable for Reached {
///     type Output = ();
///
///     fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<()> {
///         while self.counter.get() < self.number {
///             if self.look.poll(waiter).is_pending() {
///                 return Poll::Pending;
///             }
///             self.look = fibers::after(Duration::from_millis(1));
///         }
///         Poll::Ready(())
///     }
/// }
///
/// fibers::run(|| {
///     let counter = Rc::new(Cell::new(0));
///     let reached = Reached { counter: counter.clone(), number: 3, look: fibers::after(Duration::ZERO) };
///     let waiting = fibers::spawn(move || fibers::wait_for(reached)).unwrap();
///     while !waiting.is_finished() {
///         counter.set(counter.get() + 1);
///         fibers::yield_now().unwrap();
///     }
///     assert!(counter.get() >= 3);
/// })
/// .unwrap();
/// ```
pub trait Pollable {
    /// What it gives.
    type Output;

    /// Ready with the output, once; not polled after that. Until then, wakes `waiter` when it should be polled again,
    /// which is always the same. Never waits.
    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output>;

    /// What it is, for a [dump](crate::dump) of the fibers that wait for it. Never waits.
    fn reason(&self) -> WaitReason {
        WaitReason::new("something of the type", short_name::<Self>())
    }
}

/// Parks until `pollable` is ready.
///
/// # Errors
///
/// The interrupt that ended the wait; what was waited for has been given up.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`](crate::wait).
pub fn wait_for<P: Pollable>(mut pollable: P) -> Result<P::Output, Interrupt> {
    wait_telling(&mut pollable, P::poll, P::reason)
}
