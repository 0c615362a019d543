//! A fiber on another thread's runtime, and its result.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringspun_runtime::Wake;

use crate::channel::ChannelError;
use crate::join::{JoinError, JoinHandle};
use crate::remote::{Remote, RuntimeEnded};
use crate::remote_waiter::{Registered, RemoteWaiter};
use crate::shared_channel::SharedChannel;
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
        match self.outcome.take() {
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

impl<T> fmt::Debug for WorkerTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerTask")
    }
}
