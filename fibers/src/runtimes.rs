//! The runtimes of the process, which any thread may ask for something.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::remote::Remote;

static RUNTIMES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// How often the lock is tried. It is held for a moment only, but in a forked child by nobody, for good, if another
/// thread had it: what runs there is not listed then.
const ATTEMPTS_MAX: u32 = 10_000;

#[derive(Clone)]
struct Entry {
    thread: String,
    /// In a forked child, those of its parent are not there.
    process: u32,
    remote: Remote,
}

fn lock() -> Option<MutexGuard<'static, Vec<Entry>>> {
    for _ in 0..ATTEMPTS_MAX {
        match RUNTIMES.try_lock() {
            Ok(runtimes) => return Some(runtimes),
            Err(TryLockError::Poisoned(poisoned)) => return Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}

/// The name of this thread, or its number.
pub(crate) fn thread_name() -> String {
    let thread = thread::current();
    thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_string)
}

/// Lists a runtime of this thread, until it is dropped.
pub(crate) struct Listed(Remote);

impl Listed {
    pub(crate) fn new(remote: Remote) -> Self {
        if let Some(mut runtimes) = lock() {
            runtimes.push(Entry {
                thread: thread_name(),
                process: std::process::id(),
                remote: remote.clone(),
            });
        }
        Self(remote)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(mut runtimes) = lock() {
            runtimes.retain(|entry| !entry.remote.is_same(&self.0));
        }
    }
}

/// The runtimes of this process that run now, with the names of their threads.
fn running() -> Vec<(String, Remote)> {
    let process = std::process::id();
    let runtimes = lock().map(|runtimes| runtimes.clone()).unwrap_or_default();
    let ours = runtimes.into_iter().filter(|entry| entry.process == process);
    ours.map(|entry| (entry.thread, entry.remote)).collect()
}

/// By which a runtime answers.
pub(crate) struct Reply<T> {
    number: usize,
    answers: Sender<(usize, T)>,
}

impl<T> Reply<T> {
    pub(crate) fn send(self, answer: T) {
        // An error means that nobody waits any more.
        let _ = self.answers.send((self.number, answer));
    }
}

/// Runs `ask` on the thread of each runtime of the process, between two turns of its loop. Blocks until all have
/// replied, or until `patience` is over; returns the answers, and the names of the threads without one.
pub(crate) fn ask_all<T: Send + 'static>(
    patience: Duration,
    ask: impl Fn(Reply<T>) + Clone + Send + 'static,
) -> (Vec<T>, Vec<String>) {
    let (answers, answered) = mpsc::channel();
    let mut silent = Vec::new();
    for (number, (thread, remote)) in running().into_iter().enumerate() {
        let (reply, ask) = (Reply { number, answers: answers.clone() }, ask.clone());
        // An error means that it has just ended.
        if remote.execute(move || ask(reply)).is_ok() {
            silent.push((number, thread));
        }
    }
    drop(answers);
    let (mut replies, end) = (Vec::new(), Instant::now() + patience);
    while !silent.is_empty() {
        match answered.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((number, reply)) => {
                silent.retain(|(of, _)| *of != number);
                replies.push((number, reply));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    replies.sort_by_key(|(number, _)| *number);
    let replies = replies.into_iter().map(|(_, reply)| reply).collect();
    (replies, silent.into_iter().map(|(_, thread)| thread).collect())
}
