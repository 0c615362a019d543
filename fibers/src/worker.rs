//! One worker of a set, as other threads see it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::pulse::Pulse;
use crate::remote::{Remote, RuntimeEnded};
use crate::shared_channel::SharedChannel;
use crate::worker_task::WorkerTask;

/// One of a set of [`Workers`](crate::Workers): starts fibers on its thread, from any thread. It may outlive the set.
///
/// Where failed workers are replaced, by [`WorkersBuilder::replace_failed`](crate::WorkersBuilder::replace_failed), it
/// stands for the thread that has the place now.
#[derive(Clone)]
pub struct Worker {
    index: usize,
    place: Arc<Place>,
}

/// A place in a set, which one thread after another may have.
struct Place {
    remote: Mutex<Remote>,
    ended: AtomicBool,
    /// Closed when the set is to end.
    end: SharedChannel<()>,
    pulse: Arc<Pulse>,
}

impl Worker {
    pub(crate) fn new(index: usize, remote: Remote, end: SharedChannel<()>, pulse: Arc<Pulse>) -> Self {
        let place = Place { remote: Mutex::new(remote), ended: AtomicBool::new(false), end, pulse };
        Self { index, place: Arc::new(place) }
    }

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
        self.remote().spawn(function)
    }

    /// The worker's runtime, for tasks that need no fiber. Once the worker has failed, it is not that of its
    /// replacement.
    pub fn remote(&self) -> Remote {
        self.place.remote.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its thread has ended, or is about to: with the set, or because it has failed. It takes none of the
    /// others along. False again once a replacement has begun.
    pub fn has_ended(&self) -> bool {
        self.place.ended.load(Ordering::Acquire)
    }

    /// Whether its set has been told to end.
    pub fn is_to_end(&self) -> bool {
        self.place.end.is_closed()
    }

    /// Has another runtime in its place.
    pub(crate) fn replace(&self, remote: Remote) {
        *self.place.remote.lock().unwrap_or_else(PoisonError::into_inner) = remote;
        self.place.ended.store(false, Ordering::Release);
    }

    pub(crate) fn note_end(&self) {
        self.place.ended.store(true, Ordering::Release);
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.place.pulse
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).field("has_ended", &self.has_ended()).finish()
    }
}
