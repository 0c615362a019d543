//! Workers: threads with a runtime each, to use every core.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::affinity::pin_to;
use crate::pulse::Pulse;
use crate::runtime::{Runtime, remote};
use crate::worker::Worker;
use crate::worker_set::{Set, Settings, TakeOver, WorkerEvent};
use crate::worker_task::WorkerTask;

/// Settings of a set of [`Workers`].
///
/// # Examples
///
/// ```
/// use ringspun_fibers::WorkersBuilder;
///
/// let workers = WorkersBuilder::new().count(2).start().unwrap();
/// let names = workers.broadcast(|| std::thread::current().name().map(String::from));
/// let names: Vec<_> = names.into_iter().map(|name| name.join().unwrap().unwrap()).collect();
/// assert_eq!(names, ["worker 0", "worker 1"]);
/// workers.join().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct WorkersBuilder {
    count: Option<usize>,
    settings: Settings,
}

impl WorkersBuilder {
    /// One worker for each core that this process may use, on the default [`Runtime`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of workers, at least one. By default, it is that of the cores which the process may use: those
    /// of its affinity mask (`sched_setaffinity(2)`), but no more than the CPU quota of its control group
    /// (`cgroups(7)`) allows ([`std::thread::available_parallelism`]).
    pub fn count(mut self, count: usize) -> Self {
        self.count = Some(count);
        self
    }

    /// Whether each worker stays on one core, in turn on those of the affinity mask. Off by default: the scheduler of
    /// the kernel moves a thread from a core that others need. Worth it on machines that nothing else uses.
    ///
    /// Only on Linux and Android; elsewhere, starting fails as `Unsupported`.
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.settings.pinned = pinned;
        self
    }

    /// Sets the settings of the workers' runtimes.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.settings.runtime = runtime;
        self
    }

    /// Whether a new thread takes the place of a worker that fails before its set ends: because its event loop failed,
    /// or because code that the loop calls itself panicked. (A panic in a fiber ends only the fiber.) Off by default.
    ///
    /// The fibers of the failed worker are lost: they have been cancelled, or leaked if its loop could not go on.
    /// [`Worker`] stands for the new thread from then on, and a server of `ringspun_net` serves on it. One that fails
    /// within a second is replaced when that has passed. The thread that called [`run`](Self::run) is not replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::WorkersBuilder;
    ///
    /// let builder = WorkersBuilder::new().count(2).replace_failed(true);
    /// let workers = builder.observer(|event| eprintln!("{event:?}")).start().unwrap();
    /// workers.join().unwrap();
    /// ```
    pub fn replace_failed(mut self, replaces: bool) -> Self {
        self.settings.replaces = replaces;
        self
    }

    /// Has a thread watch the workers, and report each whose loop has not turned for about so long although it has
    /// something to do: a fiber computes, or blocks the thread. Nobody watches by default. Each turn of a loop notes
    /// that in memory of its own; the thread looks four times in that time.
    ///
    /// On Linux, the fiber is told with its stack while it still runs. For that, the stalled thread gets a SIGURG,
    /// whose handler notes the return addresses; a system call that the fiber is in is restarted, or fails with
    /// `Interrupted` if it is none that can be (`signal(7)`). Other arrivals of the signal are passed on to the handler
    /// that was installed before.
    ///
    /// A stalled worker is not replaced, as a thread cannot be ended from outside: its connections wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{WorkerEvent, WorkersBuilder};
    ///
    /// let builder = WorkersBuilder::new().report_stalls(Duration::from_millis(20)).observer(|event| {
    ///     if let WorkerEvent::Stalled { worker, fiber: Some(fiber), .. } = event {
    ///         eprintln!("worker {worker} is kept by {fiber}");
    ///     }
    /// });
    /// builder.start().unwrap().join().unwrap();
    /// ```
    pub fn report_stalls(mut self, after: Duration) -> Self {
        self.settings.stalled_after = Some(after);
        self
    }

    /// Sets a function that is told of workers that fail or stall. Both are also logged by `tracing`. It is called on
    /// the thread of the worker that fails, or on that of the watch, outside of a runtime, and should not take long.
    pub fn observer(mut self, observer: impl Fn(&WorkerEvent) + Send + Sync + 'static) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }

    /// The number of workers that it starts.
    pub(crate) fn number(&self) -> usize {
        let available = || thread::available_parallelism().map_or(1, NonZero::get);
        self.count.unwrap_or_else(available).max(1)
    }

    /// Starts the workers, and returns when all of them run.
    ///
    /// # Errors
    ///
    /// The kernel's, if a thread or its event loop cannot be made; `Unsupported` as for [`pinned`](Self::pinned). No
    /// worker is left then.
    pub fn start(self) -> io::Result<Workers> {
        let set = Set::new(self.settings.clone());
        let workers = set.start(0..self.number())?;
        Workers::new(workers, set)
    }

    /// As [`start`](Self::start), but the calling thread is the first worker: `main` runs in a fiber on it. So one
    /// worker takes one thread. When `main` ends, so do all workers: see [`Workers::end`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`Runtime::run`].
    ///
    /// # Panics
    ///
    /// As [`Runtime::run`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::WorkersBuilder;
    ///
    /// let sum = WorkersBuilder::new().count(3).run(|workers| {
    ///     let tasks: Vec<_> = workers.iter().map(|worker| worker.spawn(|| 14).unwrap()).collect();
    ///     tasks.into_iter().map(|task| task.join().unwrap()).sum::<i32>()
    /// });
    /// assert_eq!(sum.unwrap(), 42);
    /// ```
    pub fn run<T: 'static>(self, main: impl FnOnce(&Workers) -> T + 'static) -> io::Result<T> {
        let set = Set::new(self.settings.clone());
        let others = set.start(1..self.number())?;
        // However this ends, so do the others.
        let _ending = EndOnDrop(set.clone());
        if self.settings.pinned {
            pin_to(0)?;
        }
        let (pulse, in_main) = (Arc::<Pulse>::default(), set.clone());
        set.prepare_thread(&pulse)?;
        let ran = self.settings.runtime.run_watched(Some(pulse.clone()), move || -> io::Result<T> {
            let first = remote().map(|remote| Worker::new(0, remote, in_main.end.clone(), pulse));
            let workers = Workers::new(first.into_iter().chain(others).collect(), in_main)?;
            let result = main(&workers);
            workers.end();
            Ok(result)
        });
        set.end();
        let joined = set.join();
        let value = ran??;
        joined.map(|()| value)
    }
}

impl fmt::Debug for WorkersBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkersBuilder").field("count", &self.count).finish_non_exhaustive()
    }
}

struct EndOnDrop(Arc<Set>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A set of threads with a [`Runtime`] each, by default one for each core: from [`WorkersBuilder`].
///
/// A fiber stays on the worker that it was started on, and nothing is shared between workers but what they are given:
/// values cross by [`SharedChannel`](crate::SharedChannel)s and as results of [`Worker::spawn`]. Dropping the set ends
/// the workers, as [`end`](Self::end) does.
pub struct Workers {
    workers: Vec<Worker>,
    set: Arc<Set>,
}

impl Workers {
    fn new(workers: Vec<Worker>, set: Arc<Set>) -> io::Result<Self> {
        let workers = Self { workers, set };
        workers.set.begin(&workers.workers)?;
        Ok(workers)
    }

    /// The number of workers.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers, in the order of their indices.
    pub fn iter(&self) -> std::slice::Iter<'_, Worker> {
        self.workers.iter()
    }

    /// The worker with this index, which is below [`len`](Self::len).
    pub fn get(&self, index: usize) -> Option<&Worker> {
        self.workers.get(index)
    }

    /// Runs a clone of `function` in a fiber of each worker. Workers that have ended are left out.
    pub fn broadcast<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + Clone + 'static,
    ) -> Vec<WorkerTask<T>> {
        self.workers.iter().filter_map(|worker| worker.spawn(function.clone()).ok()).collect()
    }

    /// Has the workers end: each cancels its fibers, as the end of [`Runtime::run`] does. Does not wait for them.
    /// Calling it again does nothing.
    pub fn end(&self) {
        self.set.end();
    }

    /// Has `succeed` be called once a worker has failed, in a fiber of the one that takes over from it, with the index
    /// of the failed one: its replacement, which has the same index, or else another one. As long as somebody holds
    /// `succeed`; whoever has something on each worker can so have it there again.
    pub fn on_failure(&self, succeed: &Arc<TakeOver>) {
        self.set.on_failure(succeed);
    }

    /// As [`end`](Self::end), and blocks this thread until all workers have ended. In a fiber, use
    /// [`blocking`](crate::blocking): a worker that waits for a fiber of this thread could not end.
    ///
    /// # Errors
    ///
    /// The first error of a worker that has failed, and was not replaced. All have ended all the same.
    pub fn join(self) -> io::Result<()> {
        self.end();
        self.set.join()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("len", &self.len()).finish()
    }
}
