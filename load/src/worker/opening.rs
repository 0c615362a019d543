//! Opens connections: all of them before the run, and replacements of lost ones during it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_fibers as fibers;
use ringspun_net as net;

use super::{IDLE_WATCH_MIN, REOPEN_PAUSE, Request, RunError, Turn, Wait, Worker};
use crate::transport::{self, Transport};
use crate::work::Work;

/// How many connections are opened concurrently, which should fit into the target's accept queue.
const OPENING_MAX: usize = 128;
/// How long to look whether the target has closed a connection, at least.
const LOOK: Duration = Duration::from_millis(1);

impl Worker {
    /// Tries to open each connection once, or with a ramp-up only the first one of the run. Returns `None` for those
    /// that have to be opened later, and the first error.
    pub(super) fn open_all(self: &Rc<Self>) -> Result<(Vec<Option<Transport>>, Option<io::Error>), RunError> {
        let wanted = match self.plan.ramp_up {
            // Connecting is what is measured.
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
            self.spawn_connection(move || {
                while next.get() < wanted && !run.is_stopped() {
                    next.set(next.get() + 1);
                    match run.open() {
                        Ok(transport) => opened.borrow_mut().push(Some(transport)),
                        // Waits for one timeout at most. The rest is opened during the run, unless no
                        // connection could be opened at all.
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
        let openers: Rc<[_]> = openers.collect::<io::Result<Vec<_>>>().map_err(RunError::Failed)?.into();
        *self.fibers.borrow_mut() = openers.clone();
        for opener in openers.iter() {
            opener.join().map_err(|error| RunError::Failed(error.into()))?;
        }
        let mut opened = opened.take();
        opened.resize_with(self.connections(), || None);
        Ok((opened, first_error.take()))
    }

    /// Parks until the run starts; false if it is stopped before. Connections may have been idle for long by then,
    /// while others were opened or before the plan's start: one that the target has closed meanwhile is replaced.
    pub(super) fn wait_for_start(&self, transport: &mut Option<Transport>) -> bool {
        let start = self.clock.get().start;
        let wait = start.saturating_duration_since(Instant::now());
        let may_be_closed = start.saturating_duration_since(self.opening_since) >= IDLE_WATCH_MIN;
        let waited = match transport {
            _ if self.is_stopped() => Wait::Stopped,
            // What arrives before a request is what it waits for.
            Some(Transport::Stream(stream)) if may_be_closed && !matches!(self.work, Work::Receive(_)) => {
                self.watch_idle(stream, wait.max(LOOK))
            }
            _ if wait.is_zero() || fibers::sleep(wait).is_ok() => Wait::Due(start),
            _ => Wait::Stopped,
        };
        if let Wait::Closed = waited {
            self.tally.closed();
            *transport = None;
            if fibers::sleep(start.saturating_duration_since(Instant::now())).is_ok() && !self.is_stopped() {
                *transport = self.open().ok();
            }
        }
        !matches!(waited, Wait::Stopped) && !self.is_stopped()
    }

    /// How long after the start a connection is opened that was not opened before.
    pub(super) fn first_pause(&self, index: usize) -> Duration {
        match self.plan.ramp_up {
            Duration::ZERO => REOPEN_PAUSE,
            // Cannot truncate: CONNECTIONS_MAX fits into 32 bits.
            ramp_up => ramp_up * self.share.global_index(index) as u32 / self.plan.connections as u32,
        }
    }

    /// Waits for a connection's turn in the ramp-up, if there is one; `None` if the run is stopped before.
    pub(super) fn wait_for_ramp_up(&self, index: usize) -> Option<()> {
        if self.plan.ramp_up.is_zero() {
            return Some(());
        }
        fibers::sleep(self.first_pause(index)).ok()
    }

    /// Opens a connection, and counts it or the error.
    pub(super) fn open(&self) -> io::Result<Transport> {
        let opened = self
            .destination
            .open(self.plan.timeout)
            .and_then(|open| self.work.prepare(open, self.plan.timeout));
        match &opened {
            Ok(transport) => {
                self.tally.opened();
                self.tally.shook_hands(transport.handshake());
                if let Some(allowed) =
                    transport.streams_allowed().filter(|allowed| *allowed < self.plan.streams)
                {
                    self.tally.allowed_streams(allowed);
                }
            }
            // Interrupted because the run was stopped.
            Err(error) if self.is_stopped() && net::interrupt_of(error).is_some() => {}
            Err(error) => self
                .tally
                .failed(transport::connect_error_kind(error), || transport::describe_connect_error(error)),
        }
        opened
    }

    /// Opens a replacement of a lost connection; `None` if there is no use for one any more, or if it is given up.
    /// A request that is held for the connection is returned to the others if the first attempt fails, unless it is one
    /// of a session that has begun.
    pub(super) fn reopen(&self, mut pause: Duration, held: &mut Option<Request>) -> Option<Transport> {
        let mut begun = None;
        loop {
            let is_needed = held.is_some() || self.has_requests_left();
            if !is_needed || fibers::sleep(pause).is_err() {
                break;
            }
            let now = Instant::now();
            let clock = self.clock.get();
            let tried_for = now - *begun.get_or_insert(now);
            let is_given_up = clock.end.is_none() && tried_for >= self.plan.timeout;
            if self.is_over(&clock, now) || is_given_up {
                break;
            }
            if let Ok(transport) = self.open() {
                return Some(transport);
            }
            if let Some(request) = held.take_if(|request| request.turn != Turn::Later) {
                self.return_request(request);
            }
            pause = REOPEN_PAUSE;
        }
        if let Some(request) = held.take() {
            self.return_request(request);
        }
        None
    }
}
