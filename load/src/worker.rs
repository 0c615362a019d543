//! One thread's share of a run: a fiber per connection, and one that monitors them.
//!
//! The generator often shares the machine with the target, so that its own cost per request matters. The path of
//! a request has no timer, no allocation, no formatting, and in a closed loop one reading of the clock, as the end
//! of a request is the beginning of the next. The monitor looks for requests that exceed the timeout.
//!
//! In an open loop, a free connection takes the next request of the schedule and waits until it is due. So no
//! request waits for a connection that is busy while another one is free.

mod churn;
mod driving;
mod monitor;
#[cfg(feature = "http2")]
mod multiplexed;
mod opening;
mod pipeline;
mod results;
mod settling;
mod taking;
mod visits;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use ringspun_fibers::{self as fibers, FiberBuilder, JoinHandle, Runtime};
use ringspun_runtime::Configuration;

use crate::error::RunError;
use crate::hooks::Hooks;
use crate::interval::Cutter;
use crate::name_tally::NameTally;
use crate::outcome::{Outcome, Requests};
use crate::plan::{Length, Pace, Plan, Workload};
use crate::request_list::Chosen;
use crate::schedule::Numbers;
use crate::share::{Arrival, NoStart, Share};
use crate::status::StatusSet;
use crate::step_tally::StepTally;
use crate::tally::Tally;
use crate::transport::{Destination, LARGE_STACK_SIZE_BYTES, Transport};
use crate::work::Work;
use visits::VisitTally;

/// The stack of a connection's fiber. Idle fibers touch a page or two; untouched pages take no memory.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;
/// The pause before a connection that was lost, or could not be opened, is retried.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// A connection that is idle for at least this long is watched for being closed by the target. It costs more than
/// a plain sleep.
const IDLE_WATCH_MIN: Duration = Duration::from_millis(250);

/// A runtime that blocks instead of busy-polling, so that its CPU utilization shows how much capacity is left.
pub(crate) fn runtime() -> Runtime {
    Runtime::new().configuration(Configuration { spin_max: Some(Duration::ZERO), ..Configuration::default() })
}

/// Runs one thread's share of a plan.
pub(crate) fn run(
    plan: Plan,
    destination: Destination,
    share: Share,
    hooks: Hooks,
) -> Result<Outcome, RunError> {
    let backend = fibers::event_loop().map_or("none", |event_loop| event_loop.backend_name());
    let is_open_loop = plan.pace != Pace::Closed;
    let tally =
        Tally::new(share.of(plan.connections as u64) as usize, is_open_loop).map_err(RunError::Failed)?;
    let work = Work::of(&plan, destination.others.clone()).map_err(RunError::Failed)?;
    let numbers = Numbers::new(&plan);
    let steps = StepTally::of(&plan, numbers.as_ref()).map_err(RunError::Failed)?;
    let names = NameTally::of(plan.requests.as_ref()).map_err(RunError::Failed)?;
    let run = Rc::new(Worker::new(plan, share, numbers, work, destination, (tally, steps, names)));
    if let Some(stopper) = hooks.stopper {
        let stopped = run.clone();
        let stopping = move || {
            stopper();
            stopped.stop();
        };
        fibers::spawn(stopping).map_err(RunError::Failed)?;
    }
    let (opened, first_error) = run.open_all()?;
    // A run that was stopped has results, although it is over.
    let has_opened = run.is_churn() || opened.iter().any(Option::is_some) || run.is_stopped();
    let refusal = fibers::event_loop().and_then(|event_loop| event_loop.ring_refusal().map(str::to_string));
    let start = match run.share.meet(Arrival { has_opened, backend, refusal }, run.plan.start_at) {
        Ok(start) => start,
        Err(NoStart::MixedBackends(text)) => return Err(RunError::DoesNotFit(text)),
        Err(NoStart::Unreachable) => {
            let unknown = || io::Error::other("no connection was established");
            return Err(RunError::Unreachable(first_error.unwrap_or_else(unknown)));
        }
    };
    run.start(start);

    let drivers: Rc<[_]> = run.spawn_drivers(opened).map_err(RunError::Failed)?.into();
    *run.fibers.borrow_mut() = drivers.clone();
    if let Some(recorder) = hooks.recorder {
        let clock = run.clock.get();
        let step_ends = matches!(run.plan.pace, Pace::Steps(_))
            .then(|| run.steps.edges().map(|edge| clock.start + edge).collect());
        let cutter = Cutter::new(recorder, clock.measure_from, step_ends, &run.tally);
        *run.cutter.borrow_mut() = Some(cutter);
    }
    let (overseen, overseen_drivers) = (run.clone(), drivers.clone());
    fibers::spawn(move || overseen.monitor(&overseen_drivers, hooks.observer)).map_err(RunError::Failed)?;
    for driver in drivers.iter() {
        driver.join().map_err(|error| RunError::Failed(error.into()))?;
    }
    run.give_up_resending();
    let ended_at = run.ended_at().unwrap_or_else(Instant::now);
    // Drops the recorder; its receiver may be waiting for that.
    if let Some(cutter) = run.cutter.take() {
        cutter.finish(&run.tally, ended_at);
    }
    Ok(run.outcome(backend, ended_at))
}

impl Worker {
    /// Starts a fiber for each connection, which sends its requests; with HTTP/2, one for each stream.
    fn spawn_drivers(self: &Rc<Self>, opened: Vec<Option<Transport>>) -> io::Result<Vec<JoinHandle<()>>> {
        #[cfg(feature = "http2")]
        if matches!(self.work, Work::Http2(_)) {
            return self.spawn_streams(opened);
        }
        let drivers = opened.into_iter().enumerate().map(|(index, mut transport)| {
            let run = self.clone();
            self.spawn_connection(move || match &run.work {
                _ if !run.wait_for_start(&mut transport) => {}
                Work::Churn(_) => run.churn(index),
                Work::Exchange(exchange) if run.plan.pipeline > 1 => run.pipeline(exchange, index, transport),
                _ => run.drive(index, transport),
            })
        });
        drivers.collect()
    }

    fn spawn_connection<T: 'static>(
        &self,
        function: impl FnOnce() -> T + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let is_large = self.plan.speaks_tls() || self.plan.http2 || self.plan.speaks_websocket();
        let stack = if is_large { LARGE_STACK_SIZE_BYTES } else { CONNECTION_STACK_SIZE_BYTES };
        FiberBuilder::new().stack_size_bytes(stack).spawn(function)
    }
}

/// The instants that delimit a run.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    measure_from: Instant,
    /// Absent in a run limited by count.
    end: Option<Instant>,
}

/// CPU times at the beginning and the end of the measurement.
#[derive(Clone, Copy, Default)]
struct CpuTimes {
    begin: Option<Duration>,
    end: Option<Duration>,
}

/// A request that a connection has taken.
#[derive(Clone, Copy)]
struct Request {
    due: Instant,
    /// Its number in the run; with sessions, that of its session.
    number: u64,
    is_measured: bool,
    /// The step in which it is due, if there are steps.
    step: Option<usize>,
    turn: Turn,
    /// Which one of a list it is.
    chosen: Chosen,
    /// It was on its way when its connection ended, and is to be sent again.
    was_sent: bool,
}

/// Where in a session a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// In none.
    Single,
    /// The first: any connection can send it.
    First,
    /// A later one, which belongs to the connection that runs the session.
    Later,
}

/// How the wait for a request's due time ended.
enum Wait {
    /// It is due: the time.
    Due(Instant),
    /// The target closed the idle connection, or it became unusable.
    Closed,
    /// The run is being stopped.
    Stopped,
}

/// The state that the fibers of a run share.
struct Worker {
    plan: Plan,
    share: Share,
    work: Work,
    /// The HTTP statuses that count as success, without a list.
    expected: StatusSet,
    destination: Destination,
    tally: Tally,
    steps: StepTally,
    names: NameTally,
    visits: VisitTally,
    /// Absent without a recorder.
    cutter: RefCell<Option<Cutter>>,
    /// Absent in a closed loop.
    numbers: Option<Numbers>,
    /// How many requests, or sessions, this thread has taken.
    taken: Cell<u64>,
    /// The fraction of a request that the ramp-up has still to skip, as a part of the open connections.
    skip_remainder: Cell<usize>,
    /// Requests that were taken by connections that were closed before they could send them, or before a response.
    returned: RefCell<VecDeque<Request>>,
    /// Requests that a closed loop may still send.
    remaining: Cell<u64>,
    clock: Cell<Clock>,
    /// How much later than the planned time the run started.
    started_late: Cell<Duration>,
    /// When the run was stopped early.
    stopped_at: Cell<Option<Instant>>,
    /// Those that open the connections; then those of the connections, by their index.
    fibers: RefCell<Rc<[JoinHandle<()>]>>,
    /// When the first connection was being opened.
    opening_since: Instant,
    cpu: Cell<CpuTimes>,
    /// Since when each connection, or each stream, has been waiting for a response; for the monitor.
    waiting_since: Vec<Cell<Option<Instant>>>,
}

impl Worker {
    fn new(
        plan: Plan,
        share: Share,
        numbers: Option<Numbers>,
        work: Work,
        destination: Destination,
        (tally, steps, names): (Tally, StepTally, NameTally),
    ) -> Self {
        let remaining = match plan.length {
            Length::Duration(_) => u64::MAX,
            Length::Count(count) => share.of(count),
        };
        let now = Instant::now();
        let expected = match &plan.workload {
            Workload::Http(request) => request.expected.clone(),
            _ => StatusSet::default(),
        };
        Self {
            work,
            expected,
            numbers,
            taken: Cell::new(0),
            skip_remainder: Cell::new(0),
            returned: RefCell::default(),
            remaining: Cell::new(remaining),
            clock: Cell::new(Clock { start: now, measure_from: now, end: None }),
            started_late: Cell::default(),
            stopped_at: Cell::new(None),
            fibers: RefCell::new(Rc::new([])),
            opening_since: now,
            cpu: Cell::default(),
            waiting_since: (0..tally.wanted() * plan.streams).map(|_| Cell::new(None)).collect(),
            plan,
            share,
            destination,
            tally,
            steps,
            names,
            visits: VisitTally::default(),
            cutter: RefCell::default(),
        }
    }

    /// Whether no further request may be sent.
    #[inline]
    fn is_over(&self, clock: &Clock, now: Instant) -> bool {
        clock.end.is_some_and(|end| now >= end) || self.is_stopped()
    }

    /// The end of the measurement; `None` in a run limited by count that was not stopped.
    fn ended_at(&self) -> Option<Instant> {
        self.stopped_at.get().or(self.clock.get().end)
    }

    /// Stops the run early.
    fn stop(&self) {
        self.stopped_at.set(Some(Instant::now()));
        let fibers = self.fibers.borrow().clone();
        for (waiting_since, fiber) in self.waiting_since.iter().zip(fibers.iter()) {
            // Those that wait for a response end with it.
            if waiting_since.get().is_none() {
                fiber.cancel();
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped_at.get().is_some()
    }

    /// Whether each request is a connection.
    fn is_churn(&self) -> bool {
        matches!(self.work, Work::Churn(_))
    }

    /// The number of connections of this thread.
    fn connections(&self) -> usize {
        self.tally.wanted()
    }

    /// Sets the start of the run.
    fn start(&self, start: Instant) {
        if let Some(start_at) = self.plan.start_at {
            let begins = SystemTime::now() + start.saturating_duration_since(Instant::now());
            self.started_late.set(begins.duration_since(start_at).unwrap_or_default());
        }
        let measure_from = start + self.plan.lead();
        let end = match self.plan.length {
            Length::Duration(duration) => Some(measure_from + duration),
            Length::Count(_) => None,
        };
        self.clock.set(Clock { start, measure_from, end });
        self.cpu.set(CpuTimes { begin: Some(self.cpu_time()), end: None });
    }

    /// Updates the counts of a request, if it is measured.
    #[inline]
    fn count(&self, request: Request, change: impl Fn(&mut Requests)) {
        if request.is_measured {
            self.tally.count(&change);
            if let Some(step) = request.step {
                self.steps.count(step, &change);
            }
            self.names.count(request.chosen, &change);
        }
    }

    /// Counts a request as sent.
    #[inline]
    fn note_sent(&self, request: Request) {
        self.count(request, |requests| requests.sent += 1);
        if request.was_sent {
            self.count(request, |requests| requests.resent += 1);
        }
    }

    /// Uncounts a request that was sent but interrupted by the end of the run.
    #[cold]
    fn withdraw(&self, request: Request) {
        if request.is_measured {
            self.count(request, |requests| requests.sent -= 1);
            self.remaining.set(self.remaining.get().saturating_add(1));
        }
    }
}

/// What to do with a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// Use it for the next request.
    Keep,
    /// Replace it at once: it ended as agreed, or its responses would not match its requests any more.
    Reopen,
    /// Replace it after a pause: it broke.
    ReopenLater,
}
