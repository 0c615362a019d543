//! The readiness backend (`epoll(7)`, `kqueue(2)`, event ports, `poll(2)`), for systems without io_uring
//! and for where it is refused.
//!
//! ```text
//!   submit, cancel ──► requests ──► carried out in order at the next wait ──┬──► ready
//!                                          │ not ready                      │
//!                                          ▼                                │
//!                                   watches ◄── events of the system ───────┘
//! ```
//!
//! It keeps io_uring's order: what is submitted and cancelled in a turn reaches the kernel at its end, one
//! after the other. And it keeps io_uring's shape, so that whoever submits need not know which backend
//! runs: a receive stays registered, and so an echo takes a receive, a send, and a share of one wait.

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

/// Events that one wait follows up, before it fetches what has come meanwhile: an event that is fetched soon finds
/// its socket in a cache still, and what came in is answered while it is there, too. At 1,000 connections
/// an echo takes 5 % less time with 32 than with 16 at a time and a look after every 64.
const EVENTS_PER_TURN: usize = 32;

pub(crate) struct Poll {
    watches: Watches,
    /// Events that were fetched and not followed up yet. What one speaks of may be over by then, and the
    /// descriptor another's: an operation that is not ready finds out when it tries.
    due: VecDeque<Event>,
    /// What is to be done at the next wait.
    requests: VecDeque<Request>,
    waker: RemoteWaker,
    /// A wake-up was reaped, and no turn has ended since.
    woken: bool,
    /// The last wait did not look for events.
    looked_away: bool,
}

enum Request {
    Start(Job),
    Cancel(OperationKey),
}

impl Poll {
    pub(crate) fn new(buffers: Buffers, waker: RemoteWaker) -> io::Result<Self> {
        let mut watches = Watches::new(buffers)?;
        watches.watch_own(waker.descriptor())?;
        Ok(Self {
            watches,
            requests: VecDeque::new(),
            due: VecDeque::new(),
            waker,
            woken: false,
            looked_away: false,
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
        self.watches.go_on(ready);
        if self.due.is_empty() {
            let nothing_new = ready.is_empty() && !self.woken && !self.watches.has_more();
            // Most often what has just been sent is answered later than now, so that looking for events would
            // find none, and the next wait would have to look again. Doing without every other time is enough.
            if !nothing_new && !self.looked_away && !self.watches.has_asked() {
                self.looked_away = true;
                return Ok(());
            }
            self.look(if nothing_new { timeout } else { Some(Duration::ZERO) })?;
        } else if Readiness::EDGES {
            // Where those that are due are not told again.
            self.look(Some(Duration::ZERO))?;
        }
        let batch = self.due.len().min(EVENTS_PER_TURN);
        for event in self.due.drain(..batch) {
            if event.descriptor == self.waker.descriptor() {
                self.waker.acknowledge();
                self.woken = true;
                self.watches.watch_own_again(self.waker.descriptor())?;
            } else {
                self.watches.serve(event, ready);
            }
        }
        Ok(())
    }

    /// Asks the system for events.
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.looked_away = false;
        self.watches.wait(&mut self.due, timeout)
    }
}
