//! The readiness-based backend (`epoll(7)`, `kqueue(2)`, event ports, `poll(2)`), for systems on which io_uring is
//! missing or refused.
//!
//! ```text
//!   submit, cancel ──► requests ──► executed in order in the next wait ─────┬──► ready
//!                                          │ would block                    │
//!                                          ▼                                │
//!                                   watches ◄── readiness events ───────────┘
//! ```
//!
//! It behaves like io_uring, so that callers need not know which backend runs: submissions and cancels of a turn reach
//! the kernel in order, in the next wait. A receive stays registered, so that an echo takes a receive, a send, and a
//! share of one wait.

mod attempt;
mod readiness;
mod system;
mod watches;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use self::attempt::Job;
pub(super) use self::attempt::{try_receive, try_send, try_send_to};
use self::readiness::{Event, Readiness};
use self::watches::Watches;
use super::Buffers;
use crate::operation::{Operation, OperationKey};
use crate::ready::ReadyQueue;
use crate::wake::RemoteWaker;

/// How many events a wait handles before new ones are fetched: with small batches, sockets and received data are still
/// in the cache when they are used. At 1,000 connections, an echo takes 5 % less time with 32 than with 16 at a time
/// and a fetch after every 64.
const EVENTS_PER_TURN: usize = 32;

pub(crate) struct Poll {
    watches: Watches,
    /// Events that were fetched and not handled yet. Meanwhile, their operation may have ended, and the descriptor may
    /// have been reused: events are only hints, and an operation that is not ready finds out when it tries.
    due: VecDeque<Event>,
    /// What to execute in the next wait.
    requests: VecDeque<Request>,
    waker: RemoteWaker,
    /// A wake-up was reaped, and no turn has ended since.
    woken: bool,
    /// The last wait did not fetch events.
    skipped_fetch: bool,
}

enum Request {
    Start(Job),
    Cancel(OperationKey),
}

impl Poll {
    pub(crate) fn new(buffers: Buffers, waker: RemoteWaker) -> io::Result<Self> {
        let mut watches = Watches::new(buffers)?;
        watches.watch_waker(waker.descriptor())?;
        Ok(Self {
            watches,
            requests: VecDeque::new(),
            due: VecDeque::new(),
            waker,
            woken: false,
            skipped_fetch: false,
        })
    }

    pub(crate) fn submit(&mut self, user_data: u64, operation: &mut Operation) {
        let key = OperationKey::from_user_data(user_data);
        self.requests.push_back(Request::Start(Job::new(key, operation)));
    }

    pub(crate) fn cancel(&mut self, user_data: u64) {
        self.requests.push_back(Request::Cancel(OperationKey::from_user_data(user_data)));
    }

    pub(crate) fn end_turn(&mut self) {
        self.woken = false;
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyQueue) -> io::Result<()> {
        self.watches.begin_turn();
        for request in self.requests.drain(..) {
            match request {
                Request::Start(job) => self.watches.start(job, ready),
                Request::Cancel(key) => self.watches.cancel(key, ready),
            }
        }
        self.watches.retry_left(ready);
        if self.due.is_empty() {
            let nothing_new = ready.is_empty() && !self.woken && !self.watches.has_left();
            // Peers usually have not yet answered what was just sent, so that a fetch would find no events, and the
            // next wait would have to fetch again. Every other fetch can be skipped.
            if !nothing_new && !self.skipped_fetch && !self.watches.has_new_interests() {
                self.skipped_fetch = true;
                return Ok(());
            }
            self.fetch(if nothing_new { timeout } else { Some(Duration::ZERO) })?;
        } else if Readiness::EDGES {
            // Level-triggered events must be handled first, as the system would report them again.
            self.fetch(Some(Duration::ZERO))?;
        }
        let batch = self.due.len().min(EVENTS_PER_TURN);
        for event in self.due.drain(..batch) {
            if event.descriptor == self.waker.descriptor() {
                self.waker.acknowledge();
                self.woken = true;
                self.watches.rearm_waker(self.waker.descriptor())?;
            } else {
                self.watches.serve(event, ready);
            }
        }
        Ok(())
    }

    /// Fetches events.
    fn fetch(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.skipped_fetch = false;
        self.watches.wait(&mut self.due, timeout)
    }
}
