//! Opening connections: all of them before the run, and others in place of those that were lost.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_fibers as fibers;

use super::{REOPEN_PAUSE, Run, RunError, spawn_connection};
use crate::transport::{self, Transport};
use crate::work::Work;

/// How many connections are being made at a time, so that the target's queue of new ones holds them.
const OPENING_MAX: usize = 128;

impl Run {
    /// Tries to open each connection once. `None` for those that have to be opened later.
    pub(super) fn open_all(self: &Rc<Self>) -> Result<Vec<Option<Transport>>, RunError> {
        let wanted = self.plan.connections;
        if matches!(self.work, Work::Churn(_)) {
            // To connect is what is measured.
            return Ok((0..wanted).map(|_| None).collect());
        }
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
        match first_error.take() {
            Some(error) if opened.is_empty() => Err(RunError::Unreachable(error)),
            _ => {
                opened.resize_with(wanted, || None);
                Ok(opened)
            }
        }
    }

    /// Opens a connection, and counts it or the error.
    pub(super) fn open(&self) -> io::Result<Transport> {
        let opened =
            self.place.open(self.plan.timeout).and_then(|open| self.work.prepare(open, self.plan.timeout));
        match &opened {
            Ok(_) => self.tally.opened(),
            Err(error) => self
                .tally
                .failed(transport::connect_error_kind(error), || transport::describe_connect_error(error)),
        }
        opened
    }

    /// Opens a connection in place of a lost one; `None` if there is no use for it any more.
    pub(super) fn reopen(&self, mut pause: Duration) -> Option<Transport> {
        let lost_at = Instant::now();
        loop {
            fibers::sleep(pause).ok()?;
            let now = Instant::now();
            let clock = self.clock.get();
            let is_given_up = clock.end.is_none() && now - lost_at >= self.plan.timeout + REOPEN_PAUSE;
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
