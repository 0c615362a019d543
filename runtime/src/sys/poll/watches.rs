//! The descriptors that operations wait for: the waiting operations, in order, and the requested events.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::attempt::{Attempt, Direction, Job, Supplies, Supply};
use super::readiness::{Event, Interests, Readiness};
use crate::operation::OperationKey;
use crate::ready::ReadyQueue;
use crate::sys::Buffers;

/// The end of a list.
const NONE: u32 = u32::MAX;

pub(super) struct Watches {
    readiness: Readiness,
    /// Indexed by descriptor.
    watches: Vec<Watch>,
    /// Indexed by the operations' slots.
    waiting: Vec<Option<Waiting>>,
    /// Descriptors to retry in the next turn, as no event will signal what was left.
    left: Vec<usize>,
    supplies: Supplies,
    /// The requested events have changed since the last wait.
    changed_interests: bool,
}

/// An operation that waits for its descriptor.
struct Waiting {
    job: Job,
    /// It has not been attempted since it was submitted.
    untried: bool,
    /// The next operation of the same descriptor and direction.
    next: u32,
}

/// One descriptor.
#[derive(Clone, Copy)]
struct Watch {
    /// The first operations that wait for input and for output.
    first: [u32; 2],
    /// No operation made progress at its last event: something that none consumes keeps it ready, such as an error
    /// queue (`IP_RECVERR` in `ip(7)`). Level-triggered events would make the loop spin.
    fruitless: bool,
    requested: Interests,
}

impl Watch {
    const IDLE: Self = Self {
        first: [NONE; 2],
        fruitless: false,
        requested: Interests { input: false, output: false, edge: false },
    };
}

impl Watches {
    pub(super) fn new(buffers: Buffers) -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            watches: Vec::new(),
            waiting: Vec::new(),
            left: Vec::new(),
            supplies: Supplies {
                streams: Supply::new(buffers.streams),
                datagrams: Supply::new(buffers.datagrams),
            },
            changed_interests: false,
        })
    }

    pub(super) fn begin_turn(&mut self) {
        self.supplies.streams.begin_turn();
        self.supplies.datagrams.begin_turn();
    }

    /// Whether the requested events have changed since the last wait; new ones may be ready.
    pub(super) fn has_new_interests(&self) -> bool {
        self.changed_interests
    }

    /// Whether descriptors are left to retry in the next turn.
    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Waits for events.
    pub(super) fn wait(&mut self, due: &mut VecDeque<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.changed_interests = false;
        self.readiness.wait(timeout, due)
    }

    /// Requests events of the waker's descriptor, which stays open.
    pub(super) fn watch_waker(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.readiness.add_persistent(descriptor)
    }

    /// Renews that request after an event.
    pub(super) fn rearm_waker(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.readiness.rearm_persistent(descriptor)
    }

    /// Starts an operation: attempts it if no other is ahead of it, and queues it unless it is over.
    pub(super) fn start(&mut self, mut job: Job, ready: &mut ReadyQueue) {
        let Ok(descriptor) = usize::try_from(job.descriptor) else {
            job.cut_short(libc::EBADF, ready);
            return;
        };
        if self.watches.len() <= descriptor {
            self.watches.resize(descriptor + 1, Watch::IDLE);
        }
        let index = job.key.index as usize;
        if self.waiting.len() <= index {
            self.waiting.resize_with(index + 1, || None);
        }
        let is_first = job.only_polls()
            || job.never_waits()
            || self.watches[descriptor].first[job.direction() as usize] == NONE;
        let untried = job.is_multishot() || !is_first;
        if !untried {
            match job.attempt(&mut self.supplies, true, ready) {
                Attempt::Over => return,
                // A new request for events reports existing readiness.
                Attempt::Left | Attempt::Advanced | Attempt::Blocked => {}
            }
        }
        let end = self.end_of_list(descriptor, job.direction());
        *end = job.key.index;
        self.waiting[index] = Some(Waiting { job, untried, next: NONE });
        self.register(descriptor, ready);
    }

    /// Ends an operation. One that has not been attempted yet is attempted first, as it was submitted before the
    /// cancel.
    pub(super) fn cancel(&mut self, key: OperationKey, ready: &mut ReadyQueue) {
        let Some(waiting) = self.find(key) else { return };
        let descriptor = waiting.job.descriptor as usize;
        let direction = waiting.job.direction();
        if waiting.untried && self.watches[descriptor].first[direction as usize] == key.index {
            self.attempt_all(descriptor, direction, true, ready);
        }
        if self.find(key).is_some()
            && let Some(job) = self.remove(key.index)
        {
            job.cut_short(libc::ECANCELED, ready);
        }
        // The next operation must use the edge that was reported to the cancelled one.
        if Readiness::EDGES && self.watches[descriptor].first[direction as usize] != NONE {
            self.left.push(descriptor);
        }
        self.register(descriptor, ready);
    }

    /// Handles an event.
    pub(super) fn serve(&mut self, event: Event, ready: &mut ReadyQueue) {
        let descriptor = event.descriptor as usize;
        let Some(watch) = self.watches.get_mut(descriptor) else { return };
        if self.readiness.is_oneshot() {
            // Makes the requested events differ, so that they are requested again.
            watch.requested.edge = !watch.requested.edge;
        }
        let (is_special, waited) = (event.is_special, watch.first);
        let input = event.input && self.attempt_all(descriptor, Direction::Input, is_special, ready);
        let output = event.output && self.attempt_all(descriptor, Direction::Output, is_special, ready);
        let watch = &mut self.watches[descriptor];
        watch.fruitless = !input && !output && !Readiness::EDGES;
        // With edges, the requested events depend only on the waiting operations.
        if !Readiness::EDGES || watch.first != waited {
            self.register(descriptor, ready);
        }
    }

    /// Retries the descriptors that were left in the last turn.
    pub(super) fn retry_left(&mut self, ready: &mut ReadyQueue) {
        for descriptor in std::mem::take(&mut self.left) {
            for direction in [Direction::Input, Direction::Output] {
                self.attempt_all(descriptor, direction, true, ready);
            }
            self.register(descriptor, ready);
        }
    }

    /// Attempts the waiting operations in order; true if any made progress. `is_special` is as in [`Event`], and true
    /// without an event.
    fn attempt_all(
        &mut self,
        descriptor: usize,
        direction: Direction,
        is_special: bool,
        ready: &mut ReadyQueue,
    ) -> bool {
        let (mut advanced, mut taken) = (false, false);
        let mut next = self.watches[descriptor].first[direction as usize];
        while let Some(waiting) = self.waiting.get_mut(next as usize).and_then(Option::as_mut) {
            let index = next;
            next = waiting.next;
            let only_polls = waiting.job.only_polls();
            // The first operation has the descriptor until it is over.
            if taken && !only_polls {
                continue;
            }
            waiting.untried = false;
            let attempt = waiting.job.attempt(&mut self.supplies, is_special, ready);
            advanced |= matches!(attempt, Attempt::Over | Attempt::Advanced | Attempt::Left);
            if Readiness::EDGES && attempt == Attempt::Left {
                self.left.push(descriptor);
            }
            match attempt {
                Attempt::Over => drop(self.remove(index)),
                _ => taken |= !only_polls,
            }
        }
        advanced
    }

    fn find(&self, key: OperationKey) -> Option<&Waiting> {
        self.waiting.get(key.index as usize)?.as_ref().filter(|waiting| waiting.job.key == key)
    }

    /// The end of a list, where the next operation is linked.
    fn end_of_list(&mut self, descriptor: usize, direction: Direction) -> &mut u32 {
        let mut last = NONE;
        let mut next = self.watches[descriptor].first[direction as usize];
        while let Some(waiting) = self.waiting.get(next as usize).and_then(Option::as_ref) {
            last = next;
            next = waiting.next;
        }
        match self.waiting.get_mut(last as usize).and_then(Option::as_mut) {
            Some(waiting) => &mut waiting.next,
            None => &mut self.watches[descriptor].first[direction as usize],
        }
    }

    /// Removes an operation from its list.
    fn remove(&mut self, index: u32) -> Option<Job> {
        let Waiting { job, next, .. } = self.waiting.get_mut(index as usize)?.take()?;
        let first = &mut self.watches[job.descriptor as usize].first[job.direction() as usize];
        if *first == index {
            *first = next;
            return Some(job);
        }
        let mut before = *first;
        while let Some(waiting) = self.waiting.get_mut(before as usize).and_then(Option::as_mut) {
            if waiting.next == index {
                waiting.next = next;
                break;
            }
            before = waiting.next;
        }
        Some(job)
    }

    /// Updates the requested events of a descriptor. If the system refuses, its operations end: they are attempted
    /// once more, which also yields the right error for descriptors that cannot be polled.
    fn register(&mut self, descriptor: usize, ready: &mut ReadyQueue) {
        if let Err(error) = self.try_register(descriptor) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            for direction in [Direction::Input, Direction::Output] {
                self.attempt_all(descriptor, direction, true, ready);
                while let Some(job) = self.remove(self.watches[descriptor].first[direction as usize]) {
                    job.cut_short(errno, ready);
                }
            }
            // No operation is left, so this can only end the request.
            let _ = self.try_register(descriptor);
        }
    }

    fn try_register(&mut self, descriptor: usize) -> io::Result<()> {
        let watch = &mut self.watches[descriptor];
        let [input, output] = watch.first.map(|first| first != NONE);
        watch.fruitless &= input || output;
        let wanted = Interests { input, output, edge: watch.fruitless };
        let present = std::mem::replace(&mut watch.requested, wanted);
        if wanted == present {
            return Ok(());
        }
        let changed = self.readiness.request(descriptor as RawFd, present, wanted);
        if wanted.is_none() {
            // Fails only if the descriptor was closed too early, which ended the request as well.
            return Ok(());
        }
        self.changed_interests = true;
        changed.inspect_err(|_| self.watches[descriptor].requested = present)
    }
}
