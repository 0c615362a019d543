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
    /// Whether both are of the same runtime.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use ringspun_runtime::{Configuration, EventLoop};

    use super::*;

    /// In a simulation, as Miri knows no other loop.
    fn new_loop() -> Rc<EventLoop> {
        let new = || EventLoop::new(&Configuration::default()).unwrap();
        #[cfg(feature = "simulation")]
        let new = || ringspun_runtime::simulation::Simulation::new(1).unwrap().enter(new);
        new()
    }

    #[test]
    fn each_task_runs_or_is_dropped_and_its_sender_knows_whether_it_was_taken() {
        const TASKS: u32 = if cfg!(miri) { 20 } else { 2000 };
        static RAN: AtomicU32 = AtomicU32::new(0);
        let tasks = RemoteTasks::new(new_loop().remote_waker());
        let held = Arc::new(());
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (remote, held) = (tasks.sender(), held.clone());
                thread::spawn(move || {
                    let sent = (0..TASKS).take_while(|_| {
                        let held = held.clone();
                        remote.execute(move || drop((held, RAN.fetch_add(1, Ordering::Relaxed)))).is_ok()
                    });
                    sent.count() as u32
                })
            })
            .collect();
        while RAN.load(Ordering::Relaxed) < TASKS {
            tasks.take().into_iter().for_each(|task| task());
            thread::yield_now();
        }
        tasks.end();
        let sent: u32 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        let ran = RAN.load(Ordering::Relaxed);
        assert!((TASKS..=sent).contains(&ran) && sent <= 2 * TASKS, "{ran} of {sent}");
        assert!(tasks.take().is_empty());
        assert_eq!(Arc::strong_count(&held), 1, "what did not run has been dropped");
    }
}
