//! A run on several threads, each with its own event loop and a share of the connections. The calling thread merges
//! their results.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use ringspun_fibers as fibers;
use ringspun_net::Stream;

use crate::error::RunError;
use crate::hooks::{Hooks, Snapshot, WorkerHooks};
use crate::interval::Interval;
use crate::merge::{IntervalMerger, SnapshotMerger};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::share::Share;
use crate::transport::Destination;
use crate::worker;

/// A message from a thread.
enum Message {
    Interval(Interval),
    Snapshot(Snapshot),
    Ended(Box<Result<Outcome, RunError>>),
}

/// The sending end of a thread, with its index.
#[derive(Clone)]
struct Reporter {
    worker: usize,
    sender: Sender<(usize, Message)>,
}

impl Reporter {
    fn tell(&self, message: Message) {
        // A receiver that is gone has failed, and reports that itself.
        let _ = self.sender.send((self.worker, message));
    }

    /// The hooks of the thread's share of the run, which stops early when the other end of `stopped` is shut down or
    /// closed.
    fn hooks(self, is_recorded: bool, is_watched: bool, stopped: UnixStream) -> WorkerHooks {
        let mut hooks = WorkerHooks { observer: None, stopper: None, recorder: None };
        if is_recorded {
            let reporter = self.clone();
            hooks.recorder = Some(Box::new(move |interval| reporter.tell(Message::Interval(interval))));
        }
        if is_watched {
            hooks.observer = Some(Box::new(move |snapshot| self.tell(Message::Snapshot(snapshot))));
        }
        hooks.stopper = Some(Box::new(move || {
            if let Some(event_loop) = fibers::event_loop() {
                // Returns at end-of-file, or when interrupted at the end of the run.
                let _ = Stream::from_descriptor(event_loop, stopped.into()).read(&mut [0]);
            }
        }));
        hooks
    }
}

/// Runs a plan on several threads. Must be called in a fiber.
pub(crate) fn run(plan: &Plan, destination: &Destination, hooks: Hooks) -> Result<Outcome, RunError> {
    let Hooks { observer, stopper, recorder } = hooks;
    let (sender, messages) = mpsc::channel();
    let mut stops = Vec::new();
    let mut threads = Vec::new();
    let mut intervals = recorder.map(|recorder| IntervalMerger::new(recorder, plan.workers));
    let mut snapshots = observer.map(|observer| SnapshotMerger::new(observer, plan.workers));
    for (worker, share) in Share::split(plan.workers).into_iter().enumerate() {
        let (stop, stopped) = UnixStream::pair().map_err(RunError::Failed)?;
        stops.push(stop);
        let (plan, destination) = (plan.clone(), destination.clone().starting_with_source(worker));
        let reporter = Reporter { worker, sender: sender.clone() };
        let (is_recorded, is_watched) = (intervals.is_some(), snapshots.is_some());
        let work = move || {
            let ended = reporter.clone();
            let watch = move || reporter.hooks(is_recorded, is_watched, stopped);
            let outcome = worker::runtime().run(move || worker::run(plan, destination, share, watch()));
            let outcome = outcome.unwrap_or_else(|error| Err(RunError::Failed(error)));
            ended.tell(Message::Ended(Box::new(outcome)));
        };
        let thread = thread::Builder::new().name(format!("load {worker}"));
        threads.push(thread.spawn(work).map_err(RunError::Failed)?);
    }
    drop(sender);
    let stops: Rc<[UnixStream]> = stops.into();
    let has_ended = Rc::new(Cell::new(false));
    if let Some(stopper) = stopper {
        let (stops, has_ended) = (stops.clone(), has_ended.clone());
        let stopping = move || {
            stopper();
            // It also returns when the runtime ends.
            if !has_ended.get() {
                stop_all(&stops);
            }
        };
        fibers::spawn(stopping).map_err(RunError::Failed)?;
    }
    let mut merged = Ok(None);
    let mut messages = messages;
    // Until all threads have ended and their messages are processed.
    while let (returned, Some((worker, message))) = receive(messages)? {
        messages = returned;
        match message {
            Message::Interval(interval) => {
                if let Some(intervals) = &mut intervals {
                    intervals.take(worker, interval);
                }
            }
            Message::Snapshot(snapshot) => {
                if let Some(snapshots) = &mut snapshots {
                    snapshots.take(worker, snapshot);
                }
            }
            Message::Ended(outcome) => {
                intervals.iter_mut().for_each(|intervals| intervals.end(worker));
                snapshots.iter_mut().for_each(|snapshots| snapshots.end(worker));
                merged = merge(merged, *outcome);
                if merged.is_err() {
                    stop_all(&stops);
                }
            }
        }
    }
    has_ended.set(true);
    let panicked = threads.into_iter().map(thread::JoinHandle::join).any(|joined| joined.is_err());
    match merged? {
        Some(outcome) if !panicked => Ok(outcome),
        _ => Err(RunError::Failed(io::Error::other("a thread of the generator panicked"))),
    }
}

/// Stops all threads.
fn stop_all(stops: &[UnixStream]) {
    for stop in stops {
        // Fails if the thread has ended already.
        let _ = stop.shutdown(Shutdown::Both);
    }
}

/// Waits for a message, on a thread for blocking calls, and returns the receiver as well. `None` when all threads
/// have ended.
fn receive(messages: Messages) -> Result<(Messages, Option<(usize, Message)>), RunError> {
    fibers::blocking(move || {
        let message = messages.recv().ok();
        (messages, message)
    })
    .map_err(|error| RunError::Failed(io::Error::other(error.to_string())))
}

type Messages = Receiver<(usize, Message)>;

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
