//! Tasks that other threads send to a runtime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringspun_runtime::RemoteWaker;

type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    tasks: Vec<Task>,
    ended: bool,
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime's end of the queue.
pub(crate) struct RemoteTasks(Remote);

impl RemoteTasks {
    pub(crate) fn new(waker: RemoteWaker) -> Self {
        Self(Remote { queue: Arc::default(), waker })
    }

    pub(crate) fn sender(&self) -> Remote {
        self.0.clone()
    }

    /// Whether `remote` sends to this runtime.
    pub(crate) fn is_of(&self, remote: &Remote) -> bool {
        Arc::ptr_eq(&self.0.queue, &remote.queue)
    }

    pub(crate) fn take(&self) -> Vec<Task> {
        std::mem::take(&mut lock(&self.0.queue).tasks)
    }

    /// Refuses further tasks, and drops those that are left.
    pub(crate) fn end(&self) {
        let mut queue = lock(&self.0.queue);
        queue.ended = true;
        let tasks = std::mem::take(&mut queue.tasks);
        drop(queue);
        drop(tasks);
    }
}

/// Sends tasks from any thread to a runtime's thread. It may outlive the runtime.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// thread_local! {
///     static MESSAGES: Cell<u32> = const { Cell::new(0) };
/// }
///
/// fibers::run(|| {
///     let remote = fibers::remote().unwrap();
///     let thread = std::thread::spawn(move || {
///         // Runs on the first thread, so it sees that thread's messages.
///         remote.execute(|| MESSAGES.set(MESSAGES.get() + 1)).unwrap();
///     });
///     while MESSAGES.get() == 0 {
///         fibers::sleep(Duration::from_millis(1)).unwrap();
///     }
///     thread.join().unwrap();
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Remote {
    queue: Arc<Mutex<Queue>>,
    waker: RemoteWaker,
}

impl Remote {
    /// Runs `task` on the runtime's thread, between two turns of the event loop. Tasks run in the order of the
    /// calls, outside of any fiber: they may spawn and cancel but not wait. A task that is sent while the runtime
    /// ends may be dropped there without having run.
    ///
    /// Not for signal handlers, as it locks and allocates. A panic in the task ends only the task.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`]; the task is dropped.
    pub fn execute(&self, task: impl FnOnce() + Send + 'static) -> Result<(), RuntimeEnded> {
        let mut queue = lock(&self.queue);
        if queue.ended {
            return Err(RuntimeEnded);
        }
        queue.tasks.push(Box::new(task));
        drop(queue);
        self.waker.wake();
        Ok(())
    }
}

/// The runtime of a [`Remote`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeEnded;

impl std::fmt::Display for RuntimeEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the runtime has ended")
    }
}

impl std::error::Error for RuntimeEnded {}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}
