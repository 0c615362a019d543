//! Where fibers and futures meet: a fiber waits for a future, and a task waits for what fibers wait for.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use ringspun_runtime::Wake;

use crate::interrupt::Interrupt;
use crate::join::{JoinError, JoinHandle};
use crate::pollable::Pollable;
use crate::remote_waiter::{Registered, RemoteWaiter};
use crate::wait::{wait_telling, waiter, yield_now};
use crate::wait_reason::{WaitReason, short_name};

/// Parks until a future is ready, which this fiber polls. Its waker may be used from any thread, and may outlive the
/// call and the runtime.
///
/// The future may be `!Send`, and may borrow. In it, calls of fibers that wait, such as [`sleep`](crate::sleep), park
/// the fiber with all that it polls; the other fibers of the thread run. A future that has itself woken while it was
/// polled is polled again after the others have run.
///
/// Futures that need the reactor or the timers of another runtime have to be polled there: start them with, for
/// example, `tokio::runtime::Handle::spawn`, and wait here for the handle that it returns, which is a future, too.
///
/// # Errors
///
/// The interrupt that ended the wait: a cancel, a deadline, or the end of the runtime. The future has been dropped
/// then. One that is ready gives its output all the same: an interrupt is raised only where the fiber would park.
///
/// # Panics
///
/// Outside of a fiber, with the panics of the future, and as [`wait`](crate::wait()).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let slow = fibers::spawn(|| fibers::sleep(Duration::from_millis(2)).map(|()| 40)).unwrap();
///     let sum = fibers::block_on(async { slow.await.unwrap().unwrap() + 2 });
///     assert_eq!(sum, Ok(42));
///
///     // A deadline drops the future.
///     let forever = std::future::pending::<()>();
///     let never = fibers::with_deadline(Duration::from_millis(1), || fibers::block_on(forever));
///     assert_eq!(never, Err(fibers::Interrupt::DeadlineExpired));
/// })
/// .unwrap();
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> Result<F::Output, Interrupt> {
    let mut future = pin!(future.into_future());
    // `None` in a forked child, whose fiber leaves where it parks.
    let registered = Registered::new(waiter());
    let notice = Arc::new(Notice {
        is_given: AtomicBool::new(false),
        fiber: registered.as_ref().map(Registered::waiter),
    });
    let waker = Waker::from(notice.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        notice.is_given.store(false, Ordering::Release);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        if notice.is_given() {
            yield_now()?;
        } else {
            let poll = |_: &mut _, _: &Rc<_>| if notice.is_given() { Poll::Ready(()) } else { Poll::Pending };
            wait_telling(&mut (), poll, |()| WaitReason::new("a future:", short_name::<F::IntoFuture>()))?;
        }
    }
}

/// Tells a fiber in [`block_on`] to poll its future. A flag beside the wake, which a wait inside of the future may have
/// taken for its own.
struct Notice {
    is_given: AtomicBool,
    fiber: Option<RemoteWaiter>,
}

impl Notice {
    fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }
}

impl std::task::Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Only the first since the last poll needs to wake the fiber, which clears the flag before it polls.
        if !self.is_given.swap(true, Ordering::AcqRel)
            && let Some(fiber) = &self.fiber
        {
            fiber.wake();
        }
    }
}

/// The waiter of a task: wakes whichever task has polled last. For what implements [`Future`] on top of operations that
/// take a [`Wake`].
#[derive(Clone, Default)]
pub struct TaskWaiter {
    /// `None` before the first poll.
    slot: Option<Rc<TaskSlot>>,
}

#[derive(Default)]
struct TaskSlot {
    /// Empty only for a moment.
    waker: Cell<Option<Waker>>,
}

impl TaskWaiter {
    /// The waiter, which is the same each time, for the task of this context.
    pub fn for_task(&mut self, context: &Context<'_>) -> Rc<dyn Wake> {
        let slot = self.slot.get_or_insert_default();
        let waker = slot.waker.take().filter(|waker| waker.will_wake(context.waker()));
        slot.waker.set(Some(waker.unwrap_or_else(|| context.waker().clone())));
        slot.clone()
    }

    /// The waiter, if a task has polled.
    pub fn get(&self) -> Option<Rc<dyn Wake>> {
        self.slot.clone().map(|slot| slot as Rc<dyn Wake>)
    }
}

impl Wake for TaskSlot {
    fn wake(self: Rc<Self>) {
        // Not borrowed meanwhile: a waker is code of others, which may poll.
        let Some(waker) = self.waker.take() else { return };
        waker.wake_by_ref();
        let newer = self.waker.take();
        self.waker.set(Some(newer.unwrap_or(waker)));
    }
}

impl fmt::Debug for TaskWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskWaiter")
    }
}

/// What fibers wait for, as a future: moments, ends of fibers, streams, and all else that is [`Pollable`]. It belongs
/// to the thread of its runtime; the task that awaits it may be any that is polled there. Dropping it gives up the
/// wait, as dropping the [`Pollable`] does.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     fibers::block_on(async {
///         fibers::as_future(fibers::after(Duration::from_millis(1))).await;
///     })
///     .unwrap();
/// })
/// .unwrap();
/// ```
pub fn as_future<P: Pollable>(pollable: P) -> PollableFuture<P> {
    PollableFuture { pollable, waiter: TaskWaiter::default() }
}

/// A future from [`as_future`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct PollableFuture<P> {
    pollable: P,
    waiter: TaskWaiter,
}

/// It is never pinned.
impl<P> Unpin for PollableFuture<P> {}

impl<P: Pollable> Future for PollableFuture<P> {
    type Output = P::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<P::Output> {
        let this = &mut *self;
        let waiter = this.waiter.for_task(context);
        this.pollable.poll(&waiter)
    }
}

/// The end of a fiber, and its result, for a task on the same thread: from awaiting a [`JoinHandle`]. Dropping it
/// detaches the fiber.
#[must_use = "futures do nothing unless they are polled"]
pub struct JoinFuture<T> {
    handle: JoinHandle<T>,
    waiter: TaskWaiter,
    is_waiting: bool,
}

impl<T> IntoFuture for JoinHandle<T> {
    /// As from [`JoinHandle::join`], but never interrupted: an interrupt drops the future.
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { handle: self, waiter: TaskWaiter::default(), is_waiting: false }
    }
}

impl<T> Unpin for JoinFuture<T> {}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let waiter = this.waiter.for_task(context);
        if let Some(result) = this.handle.try_join() {
            return Poll::Ready(result);
        }
        if !std::mem::replace(&mut this.is_waiting, true) {
            this.handle.wake_at_end(waiter);
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinFuture")
    }
}
