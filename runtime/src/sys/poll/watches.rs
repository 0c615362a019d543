//! The descriptors that operations wait on: who waits for what, in order, and what the system has been
//! asked to tell.

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
    /// By descriptor.
    watches: Vec<Watch>,
    /// By the operations' slots.
    waiting: Vec<Option<Waiting>>,
    /// Descriptors of which something was left, with no event to tell of it.
    again: Vec<usize>,
    supplies: Supplies,
    /// The system has been asked for something new since it was last waited for.
    asked: bool,
}

/// An operation that waits for its descriptor.
struct Waiting {
    job: Job,
    /// It has not been tried since it was submitted.
    untried: bool,
    /// The next one of the same descriptor and direction.
    next: u32,
}

/// One descriptor.
#[derive(Clone, Copy)]
struct Watch {
    /// Who waits for input and for output: the first of each list.
    first: [u32; 2],
    /// Its last event led nowhere: something keeps it ready that no operation takes away, such as a queue of
    /// errors (`IP_RECVERR` in `ip(7)`). Being told of it again and again would keep the loop from sleeping.
    fruitless: bool,
    asked: Interests,
}

impl Watch {
    const IDLE: Self = Self {
        first: [NONE; 2],
        fruitless: false,
        asked: Interests { input: false, output: false, only_news: false },
    };
}

impl Watches {
    pub(super) fn new(buffers: Buffers) -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            watches: Vec::new(),
            waiting: Vec::new(),
            again: Vec::new(),
            supplies: Supplies {
                streams: Supply::new(buffers.streams),
                datagrams: Supply::new(buffers.datagrams),
            },
            asked: false,
        })
    }

    pub(super) fn begin_turn(&mut self) {
        self.supplies.streams.begin_turn();
        self.supplies.datagrams.begin_turn();
    }

    /// Whether anything new has been asked of the system since it was last waited for, which may be ready.
    pub(super) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether something was left for this turn.
    pub(super) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Waits for events.
    pub(super) fn wait(&mut self, due: &mut VecDeque<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.asked = false;
        self.readiness.wait(timeout, due)
    }

    /// Has events told of this descriptor, which is no operation's and stays open.
    pub(super) fn watch_own(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.readiness.ask_for_good(descriptor)
    }

    /// After an event of such a descriptor.
    pub(super) fn watch_own_again(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.readiness.ask_for_good_again(descriptor)
    }

    /// Begins an operation: tries it, if it is its turn, and has it wait if there is more to do.
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
        let is_turn = job.only_looks()
            || job.never_waits()
            || self.watches[descriptor].first[job.direction() as usize] == NONE;
        let untried = job.is_multishot() || !is_turn;
        if !untried {
            match job.attempt(&mut self.supplies, true, ready) {
                Attempt::Over => return,
                // Asking for readiness tells of what is there already.
                Attempt::Left | Attempt::Advanced | Attempt::Blocked => {}
            }
        }
        let end = self.end_of_list(descriptor, job.direction());
        *end = job.key.index;
        self.waiting[index] = Some(Waiting { job, untried, next: NONE });
        self.register(descriptor, ready);
    }

    /// Ends an operation that has not ended. One that has not been tried yet is tried first: it was
    /// submitted before the cancel.
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
        // What the cancelled one was told of is for the next.
        if Readiness::EDGES && self.watches[descriptor].first[direction as usize] != NONE {
            self.again.push(descriptor);
        }
        self.register(descriptor, ready);
    }

    /// Follows up an event.
    pub(super) fn serve(&mut self, event: Event, ready: &mut ReadyQueue) {
        let descriptor = event.descriptor as usize;
        let Some(watch) = self.watches.get_mut(descriptor) else { return };
        if self.readiness.is_used_up() {
            // Something has to differ, for it to be asked for again.
            watch.asked.only_news = !watch.asked.only_news;
        }
        let (is_special, waited) = (event.is_special, watch.first);
        let input = event.input && self.attempt_all(descriptor, Direction::Input, is_special, ready);
        let output = event.output && self.attempt_all(descriptor, Direction::Output, is_special, ready);
        let watch = &mut self.watches[descriptor];
        watch.fruitless = !input && !output && !Readiness::EDGES;
        // With edges, what is asked only depends on who waits.
        if !Readiness::EDGES || watch.first != waited {
            self.register(descriptor, ready);
        }
    }

    /// Goes on where something was left.
    pub(super) fn go_on(&mut self, ready: &mut ReadyQueue) {
        for descriptor in std::mem::take(&mut self.again) {
            for direction in [Direction::Input, Direction::Output] {
                self.attempt_all(descriptor, direction, true, ready);
            }
            self.register(descriptor, ready);
        }
    }

    /// Tries those who wait, in order; `is_special` is as in [`Event`], and true where nothing is known. True
    /// if any got anything.
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
            let only_looks = waiting.job.only_looks();
            // Whoever is first has the descriptor until it is over.
            if taken && !only_looks {
                continue;
            }
            waiting.untried = false;
            let attempt = waiting.job.attempt(&mut self.supplies, is_special, ready);
            advanced |= matches!(attempt, Attempt::Over | Attempt::Advanced | Attempt::Left);
            if Readiness::EDGES && attempt == Attempt::Left {
                self.again.push(descriptor);
            }
            match attempt {
                Attempt::Over => drop(self.remove(index)),
                _ => taken |= !only_looks,
            }
        }
        advanced
    }

    fn find(&self, key: OperationKey) -> Option<&Waiting> {
        self.waiting.get(key.index as usize)?.as_ref().filter(|waiting| waiting.job.key == key)
    }

    /// Where the next operation of a list goes.
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

    /// Takes an operation out of its list.
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

    /// Asks the system for what the operations of a descriptor wait for, if that has changed. Where it
    /// refuses, those end: they are tried once more, which also tells the right error for what has no
    /// readiness.
    fn register(&mut self, descriptor: usize, ready: &mut ReadyQueue) {
        if let Err(error) = self.try_register(descriptor) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            for direction in [Direction::Input, Direction::Output] {
                self.attempt_all(descriptor, direction, true, ready);
                while let Some(job) = self.remove(self.watches[descriptor].first[direction as usize]) {
                    job.cut_short(errno, ready);
                }
            }
            // Without anyone who waits, there is nothing left to ask.
            let _ = self.try_register(descriptor);
        }
    }

    fn try_register(&mut self, descriptor: usize) -> io::Result<()> {
        let watch = &mut self.watches[descriptor];
        let [input, output] = watch.first.map(|first| first != NONE);
        watch.fruitless &= input || output;
        let wanted = Interests { input, output, only_news: watch.fruitless };
        let present = std::mem::replace(&mut watch.asked, wanted);
        if wanted == present {
            return Ok(());
        }
        let asked = self.readiness.ask(descriptor as RawFd, present, wanted);
        if wanted.is_none() {
            // A descriptor that was closed all the same is no longer registered either.
            return Ok(());
        }
        self.asked = true;
        asked.inspect_err(|_| self.watches[descriptor].asked = present)
    }
}
