//! A fiber on another thread's runtime, and its result.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringspun_runtime::Wake;

use crate::channel::ChannelError;
use crate::join::{JoinError, JoinHandle};
use crate::remote::{Remote, RuntimeEnded};
use crate::remote_waiter::{Registered, RemoteWaiter};
use crate::shared_channel::{SharedChannel, Waiter};
use crate::shared_queue::Ticket;
use crate::spawn::FiberBuilder;

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// A handle to a fiber that [`Worker::spawn`](crate::Worker::spawn) or [`Remote::spawn`] has started on the runtime of
/// any thread. Dropping it detaches the fiber.
pub struct WorkerTask<T> {
    outcome: SharedChannel<Outcome<T>>,
    progress: Arc<Mutex<Progress>>,
}

/// How far a task has come, for cancels.
enum Progress {
    /// Its runtime has not taken it yet.
    Sent,
    /// The same, and it has been cancelled.
    Cancelled,
    /// Waking this cancels the fiber.
    Running(RemoteWaiter),
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cancels a fiber of this thread when it is woken.
struct CancelOnWake(JoinHandle<()>);

impl Wake for CancelOnWake {
    fn wake(self: Rc<Self>) {
        self.0.cancel();
    }
}

/// Closes the channel however the task ends, also where it is dropped without having run.
struct Reply<T: Send>(SharedChannel<Outcome<T>>);

impl<T: Send> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Remote {
    /// Runs `function` in a fiber of the runtime, and returns a handle to its result.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`]; the function is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    ///
    /// fibers::run(|| {
    ///     let remote = fibers::remote().unwrap();
    ///     let thread = std::thread::spawn(move || {
    ///         let task = remote.spawn(|| fibers::is_fiber()).unwrap();
    ///         assert!(task.join().unwrap()); // blocks this thread, which runs no runtime
    ///     });
    ///     fibers::blocking(move || thread.join().unwrap()).unwrap();
    /// })
    /// .unwrap();
    /// ```
    pub fn spawn<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Result<WorkerTask<T>, RuntimeEnded> {
        let outcome = SharedChannel::bounded(1);
        let (reply, progress) = (Reply(outcome.clone()), Arc::new(Mutex::new(Progress::Sent)));
        let task = WorkerTask { outcome, progress: progress.clone() };
        self.execute(move || start(function, reply, &progress))?;
        Ok(task)
    }
}

/// Starts the fiber of a task, on its runtime's thread.
fn start<T: Send + 'static>(
    function: impl FnOnce() -> T + 'static,
    reply: Reply<T>,
    progress: &Arc<Mutex<Progress>>,
) {
    let registered: Rc<std::cell::OnceCell<Registered>> = Rc::default();
    let of_fiber = registered.clone();
    let spawned = FiberBuilder::new().spawn(move || {
        // Unwind safe: a panic ends the fiber, and the joiner gets the panic.
        let outcome = catch_unwind(AssertUnwindSafe(function));
        // Nobody else gives to this channel. It is closed if the handle has been dropped.
        if let Err(unwanted) = reply.0.try_give(outcome) {
            drop(unwanted);
        }
        drop(of_fiber);
    });
    let fiber = match spawned {
        Ok(fiber) => fiber,
        Err(error) => {
            // The joiner learns that it never ran.
            tracing::error!(%error, "no fiber for a task of another thread");
            return;
        }
    };
    let mut progress = lock(progress);
    if matches!(*progress, Progress::Cancelled) {
        fiber.cancel();
    }
    if let Some(cancel) = Registered::new(Rc::new(CancelOnWake(fiber))) {
        *progress = Progress::Running(cancel.waiter());
        // As long as the fiber runs.
        let _ = registered.set(cancel);
    }
}

impl<T: Send> WorkerTask<T> {
    /// Waits until the fiber has ended and returns its result, which can be taken once. In a fiber it parks; on a
    /// thread that runs no runtime it blocks.
    ///
    /// # Errors
    ///
    /// [`JoinError::Panicked`] with the payload if the fiber panicked; [`JoinError::Interrupted`] if the *waiting*
    /// fiber was cancelled or its deadline passed, after which it can join again; [`JoinError::Lost`] if the task's
    /// runtime ended before it ran, or had no memory for its fiber; [`JoinError::Taken`] if an earlier join has
    /// returned the result or the payload.
    ///
    /// # Panics
    ///
    /// On the thread of a runtime outside of a fiber.
    pub fn join(&self) -> Result<T, JoinError> {
        self.result_of(self.outcome.take())
    }

    fn result_of(&self, taken: Result<Outcome<T>, ChannelError>) -> Result<T, JoinError> {
        match taken {
            Ok(outcome) => outcome.map_err(JoinError::Panicked),
            Err(ChannelError::Interrupted(interrupt)) => Err(JoinError::Interrupted(interrupt)),
            Err(ChannelError::Closed) if matches!(*lock(&self.progress), Progress::Running(_)) => {
                Err(JoinError::Taken)
            }
            Err(ChannelError::Closed) => Err(JoinError::Lost),
        }
    }

    /// Interrupts the fiber's current wait, or else its next one, as [`JoinHandle::cancel`] does. Does not wait. A
    /// fiber that has ended is not affected.
    pub fn cancel(&self) {
        let mut progress = lock(&self.progress);
        let running = match &*progress {
            Progress::Running(waiter) => Some(waiter.clone()),
            Progress::Sent | Progress::Cancelled => None,
        };
        match running {
            Some(waiter) => {
                drop(progress);
                waiter.wake();
            }
            None => *progress = Progress::Cancelled,
        }
    }

    /// Whether the fiber has ended: [`join`](Self::join) does not wait then.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_closed()
    }
}

/// Awaits the end of the fiber on any thread and under any runtime, such as tokio.
///
/// # Examples
///
/// ```
/// use std::future::IntoFuture;
/// use std::task::{Context, Poll, Waker};
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let remote = fibers::remote().unwrap();
///     // Stands for a thread on which a runtime for futures runs.
///     let thread = std::thread::spawn(move || {
///         let mut answer = remote.spawn(|| 42).unwrap().into_future();
///         loop {
///             let polled = std::pin::Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop()));
///             match polled {
///                 Poll::Ready(answer) => break answer.unwrap(),
///                 Poll::Pending => std::thread::yield_now(),
///             }
///         }
///     });
///     assert_eq!(fibers::blocking(move || thread.join().unwrap()).unwrap(), 42);
/// })
/// .unwrap();
/// ```
impl<T: Send> IntoFuture for WorkerTask<T> {
    /// As from [`WorkerTask::join`], and never [`JoinError::Interrupted`].
    type Output = Result<T, JoinError>;
    type IntoFuture = WorkerTaskFuture<T>;

    fn into_future(self) -> WorkerTaskFuture<T> {
        WorkerTaskFuture { task: self, ticket: None, waker: None }
    }
}

/// The result of a fiber of any thread, from awaiting a [`WorkerTask`]. Dropping it detaches the fiber.
#[must_use = "futures do nothing unless they are polled"]
pub struct WorkerTaskFuture<T: Send> {
    task: WorkerTask<T>,
    ticket: Ticket,
    /// That of the ticket.
    waker: Option<Waker>,
}

impl<T: Send> Unpin for WorkerTaskFuture<T> {}

impl<T: Send> Future for WorkerTaskFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let queue = this.task.outcome.queue();
        if this.waker.as_ref().is_some_and(|waker| !waker.will_wake(context.waker())) {
            // The future has moved to another task.
            queue.leave_takers(&mut this.ticket);
        }
        let waker = this.waker.insert(context.waker().clone());
        match queue.take(&mut this.ticket, || Some(Waiter::Task(waker.clone()))) {
            Some(taken) => Poll::Ready(this.task.result_of(taken.map_err(ChannelError::from))),
            None => Poll::Pending,
        }
    }
}

impl<T: Send> Drop for WorkerTaskFuture<T> {
    fn drop(&mut self) {
        self.task.outcome.queue().leave_takers(&mut self.ticket);
    }
}

impl<T: Send> fmt::Debug for WorkerTaskFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerTaskFuture")
    }
}

impl<T> fmt::Debug for WorkerTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerTask")
    }
}
