//! The threads of a set of workers: what they run, who takes the place of one that fails, and who watches them.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ringspun_runtime::{ThreadProgress, contained};

use crate::affinity::pin_to;
use crate::join::panic_text;
use crate::pulse::Pulse;
use crate::runtime::{Runtime, remote};
use crate::shared_channel::SharedChannel;
use crate::spawn::spawn;
use crate::stall::StalledFiber;
use crate::worker::Worker;

/// How long a worker must have lived to be replaced at once. One that fails as soon as it begins would be replaced
/// again and again.
const REPLACED_EVERY: Duration = Duration::from_secs(1);
/// A stall is reported after so many looks that have found the loop in the same turn. They are counted, so that a
/// process that is stopped for a while does not seem to stall.
const LOOKS: u32 = 4;
/// In place of a number of looks.
const TOLD: u32 = u32::MAX;

/// What has happened to a worker: see [`WorkersBuilder::observer`](crate::WorkersBuilder::observer).
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// Its runtime has ended before its set: its event loop has failed, or code that the loop calls has panicked.
    Failed {
        /// The worker's index.
        worker: usize,
        /// The error, or the text of the panic.
        error: String,
        /// Another thread takes its place.
        is_replaced: bool,
    },
    /// Its loop has not turned for some time, although it has something to do: a fiber computes, makes a call that
    /// blocks the thread, or waits for a lock of the standard library. Told once for each stall.
    Stalled {
        /// The worker's index.
        worker: usize,
        /// How long it has not turned, at least.
        stalled_for: Duration,
        /// The fiber that keeps it, with its stack while it still runs. `None` if the stall was over before the thread
        /// could be asked, if code between fibers keeps it, and on other systems than Linux.
        fiber: Option<StalledFiber>,
    },
}

type Observer = dyn Fn(&WorkerEvent) + Send + Sync;
/// Has a worker take over from the failed one with this index: see [`Workers::on_failure`](crate::Workers::on_failure).
pub type TakeOver = dyn Fn(usize, &Worker) + Send + Sync;

/// Settings of the threads.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) pinned: bool,
    pub(crate) runtime: Runtime,
    pub(crate) replaces: bool,
    pub(crate) stalled_after: Option<Duration>,
    pub(crate) observer: Option<Arc<Observer>>,
}

/// What the threads of a set share.
pub(crate) struct Set {
    settings: Settings,
    /// Closed when the set is to end.
    pub(crate) end: SharedChannel<()>,
    threads: Mutex<VecDeque<thread::JoinHandle<io::Result<()>>>>,
    workers: OnceLock<Vec<Worker>>,
    successions: Mutex<Vec<Weak<TakeOver>>>,
    watch: OnceLock<thread::Thread>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a thread comes to its place.
enum Beginning {
    /// As the first there, which tells that it has begun.
    First(usize, mpsc::SyncSender<Worker>),
    /// In place of one that has failed.
    Replacement(Worker),
}

impl Set {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            end: SharedChannel::bounded(1),
            threads: Mutex::default(),
            workers: OnceLock::new(),
            successions: Mutex::default(),
            watch: OnceLock::new(),
        })
    }

    /// Starts workers with these indices, and returns when they run. If one cannot start, the set ends.
    pub(crate) fn start(self: &Arc<Self>, indices: std::ops::Range<usize>) -> io::Result<Vec<Worker>> {
        let started = self.start_all(indices);
        if started.is_err() {
            self.end();
        }
        started
    }

    fn start_all(self: &Arc<Self>, indices: std::ops::Range<usize>) -> io::Result<Vec<Worker>> {
        let mut starting = Vec::new();
        for index in indices {
            let (tell, told) = mpsc::sync_channel(1);
            let set = self.clone();
            let thread = thread::Builder::new().name(format!("worker {index}"));
            let thread = thread.spawn(move || set.work(Beginning::First(index, tell)))?;
            starting.push((thread, told));
        }
        let mut workers = Vec::new();
        let mut failed = None;
        for (thread, told) in starting {
            match told.recv() {
                Ok(worker) => {
                    workers.push(worker);
                    lock(&self.threads).push_back(thread);
                }
                // It has ended without a word: its result says why.
                Err(mpsc::RecvError) => {
                    let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
                    failed = failed.or(ended.err());
                }
            }
        }
        failed.map_or(Ok(workers), Err)
    }

    /// Notes all workers once they have started, and begins to watch them, if asked.
    pub(crate) fn begin(self: &Arc<Self>, workers: &[Worker]) -> io::Result<()> {
        let _ = self.workers.set(workers.to_vec());
        if let Some(limit) = self.settings.stalled_after {
            let set = self.clone();
            let watch = thread::Builder::new().name("worker watch".to_string());
            let watch = watch.spawn(move || {
                set.watch(limit);
                Ok(())
            })?;
            let _ = self.watch.set(watch.thread().clone());
            lock(&self.threads).push_back(watch);
        }
        Ok(())
    }

    /// Has the workers end.
    pub(crate) fn end(&self) {
        self.end.close();
        if let Some(watch) = self.watch.get() {
            watch.unpark();
        }
    }

    /// Waits until all threads have ended, and gives the first error.
    pub(crate) fn join(&self) -> io::Result<()> {
        let mut joined = Ok(());
        // One that is replaced adds its successor before it ends.
        loop {
            let Some(thread) = lock(&self.threads).pop_front() else { return joined };
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            joined = joined.and(ended);
        }
    }

    /// Has `succeed` be called when a worker has failed, as long as somebody holds it.
    pub(crate) fn on_failure(&self, succeed: &Arc<TakeOver>) {
        let mut successions = lock(&self.successions);
        successions.retain(|known| known.strong_count() > 0);
        successions.push(Arc::downgrade(succeed));
    }

    /// The main function of a worker's thread.
    fn work(self: &Arc<Self>, beginning: Beginning) -> io::Result<()> {
        let began_at = Instant::now();
        let worker: Arc<OnceLock<Worker>> = Arc::default();
        if let Beginning::Replacement(replaced) = &beginning {
            let _ = worker.set(replaced.clone());
        }
        let ran = catch_unwind(AssertUnwindSafe(|| self.run(beginning, worker.clone())));
        let error = match ran {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(payload) => Some(io::Error::other(format!("a panic: {}", panic_text(payload.as_ref())))),
        };
        let Some(worker) = worker.get() else { return error.map_or(Ok(()), Err) };
        worker.note_end();
        match error {
            None => Ok(()),
            Some(error) => self.failed(worker, error, began_at),
        }
    }

    /// Runs the runtime of a worker until the set ends. Fills in the worker, if it is a new one, once it runs.
    fn run(self: &Arc<Self>, beginning: Beginning, worker: Arc<OnceLock<Worker>>) -> io::Result<()> {
        let (index, pulse): (_, Arc<Pulse>) = match &beginning {
            Beginning::First(index, _) => (*index, Arc::default()),
            Beginning::Replacement(worker) => (worker.index(), worker.pulse().clone()),
        };
        if self.settings.pinned {
            pin_to(index)?;
        }
        self.prepare_thread(&pulse)?;
        let (set, beats) = (self.clone(), pulse.clone());
        self.settings.runtime.clone().run_watched(Some(beats), move || {
            let Some(remote) = remote() else { return };
            match beginning {
                Beginning::First(index, tell) => {
                    let first = Worker::new(index, remote, set.end.clone(), pulse);
                    let _ = worker.set(first.clone());
                    let _ = tell.send(first);
                }
                Beginning::Replacement(replaced) => {
                    replaced.replace(remote);
                    set.succeed(replaced.index(), &replaced);
                }
            }
            let _ = set.end.take();
        })
    }

    /// Tells of a worker that has failed, and finds somebody for its place. On the thread that it had.
    fn failed(self: &Arc<Self>, worker: &Worker, error: io::Error, began_at: Instant) -> io::Result<()> {
        let (index, is_replaced) = (worker.index(), self.settings.replaces && !self.end.is_closed());
        tracing::error!(worker = index, %error, is_replaced, "a worker has failed; the others go on");
        self.tell(&WorkerEvent::Failed { worker: index, error: error.to_string(), is_replaced });
        if is_replaced {
            while began_at.elapsed() < REPLACED_EVERY && !self.end.is_closed() {
                thread::sleep(REPLACED_EVERY / 100);
            }
            let (set, worker) = (self.clone(), worker.clone());
            let thread = thread::Builder::new().name(format!("worker {index}"));
            match thread.spawn(move || set.work(Beginning::Replacement(worker))) {
                Ok(thread) => {
                    lock(&self.threads).push_back(thread);
                    return Ok(());
                }
                Err(error) => tracing::error!(worker = index, %error, "no thread for a worker's replacement"),
            }
        }
        let mut others = self.workers.get().into_iter().flatten();
        if let Some(other) = others.rfind(|other| other.index() != index && !other.has_ended()) {
            let (set, successor) = (self.clone(), other.clone());
            // If that one has ended, too, its own successor comes too late for these.
            let _ = other.spawn(move || set.succeed(index, &successor));
        }
        Err(error)
    }

    /// Has `successor`, on whose thread this is, take over what others know of from a worker that has failed.
    fn succeed(&self, failed: usize, successor: &Worker) {
        let successions: Vec<_> = lock(&self.successions).iter().filter_map(Weak::upgrade).collect();
        for succeed in successions {
            let successor = successor.clone();
            // In a fiber of its own, so that a panic is its own.
            if let Err(error) = spawn(move || succeed(failed, &successor)) {
                tracing::error!(worker = failed, %error, "no fiber to take over what a worker had");
            }
        }
    }

    fn tell(&self, event: &WorkerEvent) {
        if let Some(observer) = &self.settings.observer {
            contained(|| observer(event));
        }
    }

    /// Reports workers whose loops do not turn for so long, until the set ends.
    fn watch(&self, limit: Duration) {
        let workers = self.workers.get().map_or(&[][..], Vec::as_slice);
        let mut seen: Vec<(Option<u64>, u32, Option<ThreadProgress>)> = vec![(None, 0, None); workers.len()];
        let every = (limit / LOOKS).max(Duration::from_millis(1));
        while !self.end.is_closed() {
            thread::park_timeout(every);
            for (worker, (turn, looks, progress)) in workers.iter().zip(&mut seen) {
                let now = worker.pulse().busy_turn().filter(|_| !worker.has_ended());
                if now.is_none() || now != *turn {
                    (*turn, *looks) = (now, 0);
                    continue;
                }
                *looks = looks.saturating_add(1);
                if *looks == 1 {
                    *progress = worker.pulse().thread().map(ThreadProgress::of);
                }
                // As long as others have the processors, it is not to blame.
                let is_starved = || progress.is_some_and(|it| it.is_starved(every * (LOOKS - 1)));
                if (LOOKS..TOLD).contains(looks) && !is_starved() {
                    *looks = TOLD;
                    self.tell_stall(worker, now, limit);
                }
            }
        }
    }

    /// Tells of a worker whose loop has been in the same turn for so long, with what it runs.
    fn tell_stall(&self, worker: &Worker, turn: Option<u64>, limit: Duration) {
        let fiber = worker.pulse().thread().and_then(StalledFiber::of_thread);
        // Otherwise it is a fiber of a later turn.
        let fiber = fiber.filter(|_| worker.pulse().busy_turn() == turn);
        let index = worker.index();
        if tracing::enabled!(tracing::Level::WARN) {
            let by =
                fiber.as_ref().map_or_else(|| "code that is no fiber's".to_string(), ToString::to_string);
            tracing::warn!(worker = index, stalled_for = ?limit, "a worker stalls: its loop does not turn, by {by}");
        }
        self.tell(&WorkerEvent::Stalled { worker: index, stalled_for: limit, fiber });
    }

    /// Prepares this thread, which is a worker's, to be asked what it runs, if stalls are told of.
    pub(crate) fn prepare_thread(&self, pulse: &Pulse) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.settings.stalled_after.is_some() {
            pulse.note_thread(crate::sample::prepare_thread()?);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = pulse;
        Ok(())
    }
}
