//! Workers: threads with a runtime each, to use every core.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::affinity::pin_to;
use crate::join::panic_text;
use crate::remote::{Remote, RuntimeEnded};
use crate::runtime::{Runtime, remote};
use crate::shared_channel::SharedChannel;
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
#[derive(Clone, Debug, Default)]
pub struct WorkersBuilder {
    count: Option<usize>,
    pinned: bool,
    runtime: Runtime,
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
        self.pinned = pinned;
        self
    }

    /// Sets the settings of the workers' runtimes.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
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
        let threads = Threads::start(&self, 0)?;
        Ok(threads.into_workers(Vec::new()))
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
        let threads = Threads::start(&self, 1)?;
        if self.pinned {
            pin_to(0)?;
        }
        let (end, started) = (threads.end.clone(), SharedChannel::bounded(1));
        let joining = started.clone();
        let ran = self.runtime.run(move || {
            let ended = Arc::new(AtomicBool::new(false));
            let first = remote().map(|remote| Worker { index: 0, remote, ended });
            let workers = threads.into_workers(first.into_iter().collect());
            let result = main(&workers);
            workers.end();
            let _ = joining.try_give(workers);
            result
        });
        end.close();
        // Without it, `main` has panicked, and the threads end on their own.
        let joined = match started.try_take() {
            Ok(Some(workers)) => workers.join(),
            _ => Ok(()),
        };
        let value = ran?;
        joined.map(|()| value)
    }
}

/// A set of threads with a [`Runtime`] each, by default one for each core: from [`WorkersBuilder`].
///
/// A fiber stays on the worker that it was started on, and nothing is shared between workers but what they are given:
/// values cross by [`SharedChannel`]s and as results of [`Worker::spawn`]. Dropping the set ends the workers, as
/// [`end`](Self::end) does.
pub struct Workers {
    workers: Vec<Worker>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
    end: SharedChannel<()>,
}

/// The threads of a set that is being started. If that fails, dropping it ends them.
struct Threads {
    workers: Vec<Worker>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
    end: SharedChannel<()>,
}

impl Threads {
    /// Starts all workers from the `first` on.
    fn start(builder: &WorkersBuilder, first: usize) -> io::Result<Self> {
        let mut started = Self { workers: Vec::new(), threads: Vec::new(), end: SharedChannel::bounded(1) };
        let mut starting = Vec::new();
        for index in first..builder.number() {
            let (tell, told) = mpsc::sync_channel(1);
            let ended = Arc::new(AtomicBool::new(false));
            let worker = (index, builder.clone(), started.end.clone(), tell, ended.clone());
            let thread = thread::Builder::new().name(format!("worker {index}"));
            started.threads.push(thread.spawn(move || work(worker))?);
            starting.push((told, ended));
        }
        for (number, (told, ended)) in starting.into_iter().enumerate() {
            match told.recv() {
                Ok(remote) => started.workers.push(Worker { index: first + number, remote, ended }),
                // It has ended without a word: its result says why.
                Err(mpsc::RecvError) => {
                    started.end.close();
                    let thread = started.threads.swap_remove(number);
                    let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
                    return Err(ended.err().unwrap_or_else(|| io::Error::other("a worker did not start")));
                }
            }
        }
        Ok(started)
    }

    fn into_workers(mut self, mut first: Vec<Worker>) -> Workers {
        first.append(&mut self.workers);
        Workers { workers: first, threads: std::mem::take(&mut self.threads), end: self.end.clone() }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Unless they have become workers.
        if !self.threads.is_empty() {
            self.end.close();
        }
    }
}

type Starting = (usize, WorkersBuilder, SharedChannel<()>, mpsc::SyncSender<Remote>, Arc<AtomicBool>);

/// The main function of a worker's thread.
fn work((index, builder, end, tell, ended): Starting) -> io::Result<()> {
    let ran = catch_unwind(AssertUnwindSafe(move || {
        if builder.pinned {
            pin_to(index)?;
        }
        builder.runtime.run(move || {
            if let Some(remote) = remote() {
                let _ = tell.send(remote);
            }
            // Until the set ends.
            let _ = end.take();
        })
    }));
    ended.store(true, Ordering::Release);
    let ran = ran.unwrap_or_else(|payload| {
        Err(io::Error::other(format!("worker {index} panicked: {}", panic_text(payload.as_ref()))))
    });
    ran.inspect_err(|error| tracing::error!(index, %error, "a worker has ended; the others go on"))
}

impl Workers {
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
        self.end.close();
    }

    /// As [`end`](Self::end), and blocks this thread until all workers have ended. In a fiber, use
    /// [`blocking`](crate::blocking): a worker that waits for a fiber of this thread could not end.
    ///
    /// # Errors
    ///
    /// The first error of a worker's event loop, or a panic that ended one. All have ended all the same.
    pub fn join(mut self) -> io::Result<()> {
        self.end();
        let mut joined = Ok(());
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            joined = joined.and(ended);
        }
        joined
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

/// One of a set of [`Workers`]: starts fibers on its thread, from any thread. It may outlive the set.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    remote: Remote,
    ended: Arc<AtomicBool>,
}

impl Worker {
    /// Its number in the set, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs `function` in a fiber of the worker, and returns a handle to its result.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`] once the worker has ended; the function is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{JoinError, WorkersBuilder};
    ///
    /// let workers = WorkersBuilder::new().count(2).start().unwrap();
    /// let worker = workers.get(1).unwrap();
    /// assert_eq!(worker.spawn(|| 40 + 2).unwrap().join().unwrap(), 42);
    ///
    /// // A panic ends only the fiber.
    /// let panics = worker.spawn(|| panic!("at the disco")).unwrap();
    /// assert!(matches!(panics.join(), Err(JoinError::Panicked(_))));
    /// assert_eq!(worker.spawn(|| "still here").unwrap().join().unwrap(), "still here");
    /// ```
    pub fn spawn<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Result<WorkerTask<T>, RuntimeEnded> {
        self.remote.spawn(function)
    }

    /// The worker's runtime, for tasks that need no fiber.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Whether its thread has ended, or is about to: with the set, or because its event loop failed. It takes none of
    /// the others along.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}
