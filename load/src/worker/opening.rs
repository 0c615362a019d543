//! Opening connections: all of them before the run, and others in place of those that were lost.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_fibers as fibers;
use ringspun_net as net;

use super::{Clock, REOPEN_PAUSE, RunError, Worker, spawn_connection};
use crate::transport::{self, Transport};

/// How many connections are being made at a time, so that the target's queue of new ones holds them.
const OPENING_MAX: usize = 128;

impl Worker {
    /// Tries to open each connection once; the first of the run only if the others are to follow by and by.
    /// `None` for those that have to be opened later. The error is the first that there was.
    pub(super) fn open_all(self: &Rc<Self>) -> Result<(Vec<Option<Transport>>, Option<io::Error>), RunError> {
        let wanted = match self.plan.ramp_up {
            // To connect is what is measured.
            _ if self.is_churn() => 0,
            Duration::ZERO => self.connections(),
            _ => usize::from(self.share.is_first()),
        };
        let opened: Rc<RefCell<Vec<Option<Transport>>>> = Rc::default();
        let first_error: Rc<RefCell<Option<io::Error>>> = Rc::default();
        let next = Rc::new(Cell::new(0));
        let begun = Instant::now();
        let openers = (0..wanted.min(OPENING_MAX)).map(|_| {
            let (run, opened, next, first_error) =
                (self.clone(), opened.clone(), next.clone(), first_error.clone());
            spawn_connection(move || {
                while next.get() < wanted {
                    next.set(next.get() + 1);
                    match run.open() {
                        Ok(transport) => opened.borrow_mut().push(Some(transport)),
                        // One timeout is enough to wait for. What is not open by then is opened during
                        // the run, if there is anything to run with.
                        Err(error) => {
                            first_error.borrow_mut().get_or_insert(error);
                            if opened.borrow().is_empty() || begun.elapsed() >= run.plan.timeout {
                                return;
                            }
                        }
                    }
                }
            })
        });
        for opener in openers.collect::<io::Result<Vec<_>>>().map_err(RunError::Failed)? {
            opener.join().map_err(|error| RunError::Failed(error.into()))?;
        }
        let mut opened = opened.take();
        opened.resize_with(self.connections(), || None);
        Ok((opened, first_error.take()))
    }

    /// How long after the start a connection is opened that was not before.
    pub(super) fn first_pause(&self, index: usize) -> Duration {
        match self.plan.ramp_up {
            Duration::ZERO => REOPEN_PAUSE,
            // As many as there may be fit into the number.
            ramp_up => ramp_up * self.share.global_index(index) as u32 / self.plan.connections as u32,
        }
    }

    /// Waits for a connection's time to begin in the ramp-up, if there is one, and returns its first turn; `None`
    /// if the run is ended before.
    pub(super) fn wait_for_ramp_up(&self, clock: &Clock, index: usize) -> Option<u64> {
        if self.plan.ramp_up.is_zero() {
            return Some(0);
        }
        fibers::sleep(self.first_pause(index)).ok()?;
        Some(self.turn_from(clock, index, Instant::now()))
    }

    /// The first turn of a connection that is open from now on. What was due during the ramp-up, and is not
    /// measured, is not made up for: so an open loop's rate rises with the connections.
    pub(super) fn turn_from(&self, clock: &Clock, index: usize, now: Instant) -> u64 {
        let Some(numbers) = self.numbers.as_ref().filter(|_| !self.plan.ramp_up.is_zero()) else { return 0 };
        let missed = numbers.schedule.due_before(now - clock.start).min(numbers.first_measured);
        missed.saturating_sub(self.share.global_index(index) as u64).div_ceil(self.plan.connections as u64)
    }

    /// Opens a connection, and counts it or the error.
    pub(super) fn open(&self) -> io::Result<Transport> {
        let opened = self
            .destination
            .open(self.plan.timeout)
            .and_then(|open| self.work.prepare(open, self.plan.timeout));
        match &opened {
            Ok(_) => self.tally.opened(),
            // Who ends the run interrupts what is being opened.
            Err(error) if self.stopped_at.get().is_some() && net::interrupt_of(error).is_some() => {}
            Err(error) => self
                .tally
                .failed(transport::connect_error_kind(error), || transport::describe_connect_error(error)),
        }
        opened
    }

    /// Opens a connection in place of a lost one; `None` if there is no use for it any more.
    pub(super) fn reopen(&self, mut pause: Duration) -> Option<Transport> {
        let mut begun = None;
        loop {
            fibers::sleep(pause).ok()?;
            let now = Instant::now();
            let clock = self.clock.get();
            let tried_for = now - *begun.get_or_insert(now);
            let is_given_up = clock.end.is_none() && tried_for >= self.plan.timeout;
            if self.is_over(&clock, now) || is_given_up || self.remaining.get() == 0 {
                return None;
            }
            if let Ok(transport) = self.open() {
                return Some(transport);
            }
            pause = REOPEN_PAUSE;
        }
    }
}
