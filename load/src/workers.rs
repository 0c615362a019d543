//! A run on several threads, each with its own event loop and a share of the connections. The calling thread merges
//! their results.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::thread;

use ringspun_fibers::{self as fibers, SharedChannel};

use crate::error::RunError;
use crate::hooks::{Hooks, Progress};
use crate::interval::Interval;
use crate::merge::{IntervalMerger, ProgressMerger};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::share::Share;

/// A message from a thread.
enum Message {
    Interval(Box<Interval>),
    Progress(Progress),
    Ended(Box<Result<Outcome, RunError>>),
}

/// The sending end of a thread, with its index.
#[derive(Clone)]
struct Reporter {
    worker: usize,
    messages: SharedChannel<(usize, Message)>,
}

impl Reporter {
    fn tell(&self, message: Message) {
        // It is never full. A receiver that is gone has failed, and reports that itself.
        let _ = self.messages.try_give((self.worker, message));
    }

    /// The hooks of the thread's share of the run, which stops early when `stop` is closed.
    fn hooks(self, is_recorded: bool, is_watched: bool, stop: SharedChannel<()>) -> Hooks {
        let mut hooks = Hooks::default();
        if is_recorded {
            let reporter = self.clone();
            hooks.recorder =
                Some(Box::new(move |interval| reporter.tell(Message::Interval(Box::new(interval)))));
        }
        if is_watched {
            hooks.observer = Some(Box::new(move |progress| self.tell(Message::Progress(progress))));
        }
        // Returns when it is closed, or when interrupted at the end of the run.
        hooks.stopper = Some(Box::new(move || {
            let _ = stop.take();
        }));
        hooks
    }
}

/// Reports the outcome of a thread when it is dropped, also where the thread panics.
struct Ending {
    reporter: Reporter,
    outcome: Result<Outcome, RunError>,
}

impl Ending {
    fn new(reporter: Reporter) -> Self {
        let panicked = io::Error::other("a thread of the generator panicked");
        Self { reporter, outcome: Err(RunError::Failed(panicked)) }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let nothing = Err(RunError::Failed(io::ErrorKind::Other.into()));
        let outcome = std::mem::replace(&mut self.outcome, nothing);
        self.reporter.tell(Message::Ended(Box::new(outcome)));
    }
}

/// Stops all threads when it is dropped.
struct StopAll(SharedChannel<()>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What one of the threads gets.
pub(crate) struct Job {
    /// The index of the thread.
    pub(crate) worker: usize,
    pub(crate) share: Share,
    /// Makes the hooks, on the thread.
    pub(crate) hooks: Box<dyn FnOnce() -> Hooks + Send>,
    /// Closed to stop the run early, which the hooks also wait for.
    pub(crate) stop: SharedChannel<()>,
}

/// Runs a plan on several threads, each of which calls `work` with its share. Must be called in a fiber.
pub(crate) fn run(
    plan: &Plan,
    hooks: Hooks,
    work: impl Fn(Job) -> Result<Outcome, RunError> + Clone + Send + 'static,
) -> Result<Outcome, RunError> {
    let Hooks { observer, stopper, recorder } = hooks;
    let (messages, stop) = (SharedChannel::bounded(usize::MAX), SharedChannel::bounded(1));
    // However this ends.
    let _stop_all = StopAll(stop.clone());
    let mut threads = Vec::new();
    let mut intervals = recorder.map(|recorder| IntervalMerger::new(recorder, plan.workers));
    let mut progresses = observer.map(|observer| ProgressMerger::new(observer, plan.workers));
    for (worker, share) in Share::split(plan.workers).into_iter().enumerate() {
        let (reporter, stop) = (Reporter { worker, messages: messages.clone() }, stop.clone());
        let (is_recorded, is_watched) = (intervals.is_some(), progresses.is_some());
        let work = work.clone();
        let work = move || {
            let mut ending = Ending::new(reporter.clone());
            let closed = stop.clone();
            let hooks = Box::new(move || reporter.hooks(is_recorded, is_watched, closed));
            ending.outcome = work(Job { worker, share, hooks, stop });
        };
        let thread = thread::Builder::new().name(format!("load {worker}"));
        threads.push(thread.spawn(work).map_err(RunError::Failed)?);
    }
    let has_ended = Rc::new(Cell::new(false));
    if let Some(stopper) = stopper {
        let (stop, has_ended) = (stop.clone(), has_ended.clone());
        let stopping = move || {
            stopper();
            // It also returns when the runtime ends.
            if !has_ended.get() {
                stop.close();
            }
        };
        fibers::spawn(stopping).map_err(RunError::Failed)?;
    }
    let mut merged = Ok(None);
    let mut running = threads.len();
    while running > 0 {
        let (worker, message) = messages.take().map_err(|error| RunError::Failed(error.into()))?;
        match message {
            Message::Interval(interval) => {
                if let Some(intervals) = &mut intervals {
                    intervals.take(worker, *interval);
                }
            }
            Message::Progress(progress) => {
                if let Some(progresses) = &mut progresses {
                    progresses.take(worker, progress);
                }
            }
            Message::Ended(outcome) => {
                running -= 1;
                intervals.iter_mut().for_each(|intervals| intervals.end(worker));
                progresses.iter_mut().for_each(|progresses| progresses.end(worker));
                merged = merge(merged, *outcome);
                if merged.is_err() {
                    stop.close();
                }
            }
        }
    }
    has_ended.set(true);
    // They end after their last message. A panic was the outcome.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    merged?.ok_or_else(|| RunError::Failed(io::Error::other("no thread of the generator has run")))
}

/// Merges an outcome; the first error wins.
fn merge(
    merged: Result<Option<Outcome>, RunError>,
    outcome: Result<Outcome, RunError>,
) -> Result<Option<Outcome>, RunError> {
    let (merged, outcome) = (merged?, outcome?);
    Ok(Some(match merged {
        Some(mut merged) => {
            merged.add(&outcome);
            merged
        }
        None => outcome,
    }))
}
