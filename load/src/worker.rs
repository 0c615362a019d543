//! Runs a plan: a fiber for each connection, and one that oversees them.
//!
//! What a request costs here comes on top of what it costs the target, on the same machine often enough. So
//! its path has no timer, no memory to allocate, no text, and in a closed loop one look at the clock: the
//! end of a request is the beginning of the next. Requests that take too long are found by the overseer,
//! which looks at all connections now and then.

mod churn;
mod monitor;
mod opening;
mod pipeline;
mod results;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use ringspun_fibers::{self as fibers, FiberBuilder, JoinHandle, Runtime};
use ringspun_net as net;
use ringspun_runtime::Configuration;

use crate::error::RunError;
use crate::hooks::WorkerHooks;
use crate::interval::Cutter;
use crate::outcome::{ErrorKind, Outcome, Requests};
use crate::plan::{Length, Pace, Plan, Workload};
use crate::quantity::format_duration;
use crate::reading::Answer;
use crate::schedule::Numbers;
use crate::share::Share;
use crate::step_tally::StepTally;
use crate::tally::Tally;
use crate::target::Target;
use crate::transport::{self, Destination, Transport};
use crate::work::Work;

/// The stack of a connection's fiber. An idle one touches a page or two of it; the rest costs nothing.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;
/// How long a connection that was lost, or could not be made, waits before it is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// A runtime that sleeps whenever it has to wait: how busy the generator is shows how much more it could ask for.
pub(crate) fn runtime() -> Runtime {
    Runtime::new().configuration(Configuration { spin_max: Some(Duration::ZERO), ..Configuration::default() })
}

/// Runs the share of a plan that one thread has.
pub(crate) fn run(
    plan: Plan,
    destination: Destination,
    share: Share,
    hooks: WorkerHooks,
) -> Result<Outcome, RunError> {
    let backend = fibers::event_loop().map_or("none", |event_loop| event_loop.backend_name());
    let is_open_loop = plan.pace != Pace::Closed;
    let tally =
        Tally::new(share.of(plan.connections as u64) as usize, is_open_loop).map_err(RunError::Failed)?;
    let work = Work::of(&plan).map_err(RunError::Failed)?;
    let numbers = Numbers::new(&plan);
    let steps = StepTally::of(&plan, numbers.as_ref()).map_err(RunError::Failed)?;
    let run = Rc::new(Worker::new(plan, share, numbers, work, destination, tally, steps));
    let (opened, first_error) = run.open_all()?;
    let has_opened = run.is_churn() || opened.iter().any(Option::is_some);
    let Some(start) = run.share.meet(has_opened, run.plan.start_at) else {
        let unknown = || io::Error::other("no connection was made");
        return Err(RunError::Unreachable(first_error.unwrap_or_else(unknown)));
    };
    run.start(start);

    let drivers = opened.into_iter().enumerate().map(|(index, transport)| {
        let run = run.clone();
        spawn_connection(move || match &run.work {
            _ if !run.wait_for_start() => {}
            Work::Churn(_) => run.churn(index),
            Work::Exchange(exchange) if run.plan.pipeline > 1 => run.pipeline(exchange, index, transport),
            _ => run.drive(index, transport),
        })
    });
    let drivers: Rc<[_]> = drivers.collect::<io::Result<Vec<_>>>().map_err(RunError::Failed)?.into();
    if let Some(recorder) = hooks.recorder {
        let clock = run.clock.get();
        let step_ends = matches!(run.plan.pace, Pace::Steps(_))
            .then(|| run.steps.edges().map(|edge| clock.start + edge).collect());
        let cutter = Cutter::new(recorder, clock.measure_from, step_ends, &run.tally);
        *run.cutter.borrow_mut() = Some(cutter);
    }
    let (overseen, overseen_drivers) = (run.clone(), drivers.clone());
    fibers::spawn(move || overseen.monitor(&overseen_drivers, hooks.observer)).map_err(RunError::Failed)?;
    if let Some(stopper) = hooks.stopper {
        let (stopped, stopped_drivers) = (run.clone(), drivers.clone());
        let stopping = move || {
            stopper();
            stopped.stop(&stopped_drivers);
        };
        fibers::spawn(stopping).map_err(RunError::Failed)?;
    }
    for driver in drivers.iter() {
        driver.join().map_err(|error| RunError::Failed(error.into()))?;
    }
    let ended_at = run.ended_at().unwrap_or_else(Instant::now);
    // With it the recorder ends, whose other end may wait for that.
    if let Some(cutter) = run.cutter.take() {
        cutter.finish(&run.tally, ended_at);
    }
    Ok(run.outcome(backend, ended_at))
}

fn spawn_connection<T: 'static>(function: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
    FiberBuilder::new().stack_size_bytes(CONNECTION_STACK_SIZE_BYTES).spawn(function)
}

/// The instants of a run.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    measure_from: Instant,
    /// Absent in a run by count.
    end: Option<Instant>,
}

/// Processor time at the two ends of the measured part.
#[derive(Clone, Copy, Default)]
struct CpuTimes {
    begin: Option<Duration>,
    end: Option<Duration>,
}

/// A request that is next on its connection.
#[derive(Clone, Copy)]
struct Request {
    due: Instant,
    is_measured: bool,
    /// The step in which it is due, if there are steps.
    step: Option<usize>,
}

/// What all fibers of a run share.
struct Worker {
    plan: Plan,
    share: Share,
    work: Work,
    destination: Destination,
    tally: Tally,
    steps: StepTally,
    /// Absent where nobody asked for intervals.
    cutter: RefCell<Option<Cutter>>,
    /// Absent in a closed loop.
    numbers: Option<Numbers>,
    /// Requests that a closed loop may still send.
    remaining: Cell<u64>,
    clock: Cell<Clock>,
    /// How much after the time that the plan asked for.
    started_late: Cell<Duration>,
    /// When the run was ended early.
    stopped_at: Cell<Option<Instant>>,
    cpu: Cell<CpuTimes>,
    /// Since when each connection waits for an answer. The overseer reads it.
    waiting_since: Vec<Cell<Option<Instant>>>,
}

impl Worker {
    fn new(
        plan: Plan,
        share: Share,
        numbers: Option<Numbers>,
        work: Work,
        destination: Destination,
        tally: Tally,
        steps: StepTally,
    ) -> Self {
        let remaining = match plan.length {
            Length::Duration(_) => u64::MAX,
            Length::Count(count) => share.of(count),
        };
        let now = Instant::now();
        Self {
            work,
            numbers,
            remaining: Cell::new(remaining),
            clock: Cell::new(Clock { start: now, measure_from: now, end: None }),
            started_late: Cell::default(),
            stopped_at: Cell::new(None),
            cpu: Cell::default(),
            waiting_since: (0..tally.wanted()).map(|_| Cell::new(None)).collect(),
            plan,
            share,
            destination,
            tally,
            steps,
            cutter: RefCell::default(),
        }
    }

    /// No request is sent any more.
    #[inline]
    fn is_over(&self, clock: &Clock, now: Instant) -> bool {
        clock.end.is_some_and(|end| now >= end) || self.stopped_at.get().is_some()
    }

    /// When the measured part is, or was, over; `None` in a run by count that nobody stopped.
    fn ended_at(&self) -> Option<Instant> {
        self.stopped_at.get().or(self.clock.get().end)
    }

    /// Ends the run early.
    fn stop(&self, drivers: &[JoinHandle<()>]) {
        self.stopped_at.set(Some(Instant::now()));
        for (waiting_since, driver) in self.waiting_since.iter().zip(drivers) {
            // The others end with their answers.
            if waiting_since.get().is_none() {
                driver.cancel();
            }
        }
    }

    /// Connections are what is measured.
    fn is_churn(&self) -> bool {
        matches!(self.work, Work::Churn(_))
    }

    /// How many connections this thread has.
    fn connections(&self) -> usize {
        self.waiting_since.len()
    }

    /// Sets when the run begins.
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

    /// Parks until the run begins; false if it is ended before.
    fn wait_for_start(&self) -> bool {
        let wait = self.clock.get().start.saturating_duration_since(Instant::now());
        (wait.is_zero() || fibers::sleep(wait).is_ok()) && self.stopped_at.get().is_none()
    }

    /// The number of a connection's request in an open loop, whose connections take turns.
    #[inline]
    fn number(&self, index: usize, turn: u64) -> u64 {
        turn * self.plan.connections as u64 + self.share.global_index(index) as u64
    }

    /// No request is left for a connection in an open loop; `turn` counts those of this connection.
    fn has_sent_all(&self, index: usize, turn: u64) -> bool {
        self.numbers.as_ref().is_some_and(|numbers| self.number(index, turn) >= numbers.end)
    }

    /// The request that is next on a connection; `turn` counts those of this connection. `None` at the end.
    #[inline]
    fn next_request(&self, clock: &Clock, index: usize, turn: u64, now: Instant) -> Option<Request> {
        if self.is_over(clock, now) {
            return None;
        }
        let Some(numbers) = &self.numbers else {
            let is_measured = now >= clock.measure_from;
            if is_measured {
                self.remaining.set(self.remaining.get().checked_sub(1)?);
            }
            return Some(Request { due: now, is_measured, step: None });
        };
        let number = self.number(index, turn);
        let due = clock.start + numbers.schedule.due_after(number);
        (number < numbers.end).then(|| Request {
            due,
            is_measured: number >= numbers.first_measured,
            step: numbers.step_of(number),
        })
    }

    /// Counts a request of which `change` knows something new, if it belongs to the measured part.
    #[inline]
    fn count(&self, request: Request, change: impl Fn(&mut Requests)) {
        if request.is_measured {
            self.tally.count(&change);
            if let Some(step) = request.step {
                self.steps.count(step, &change);
            }
        }
    }

    /// Waits until a request is due whose connection is free, and returns when it is sent; `None` at the end.
    #[inline(always)]
    fn wait_until_due(&self, request: Request, now: Instant) -> Option<Instant> {
        if request.due <= now { Some(now) } else { self.sleep_until_due(request, now) }
    }

    fn sleep_until_due(&self, request: Request, now: Instant) -> Option<Instant> {
        if fibers::sleep(request.due - now).is_err() || self.stopped_at.get().is_some() {
            return None;
        }
        let now = Instant::now();
        if request.is_measured {
            self.tally.sent_late(now - request.due);
        }
        Some(now)
    }

    /// Counts a request as sent.
    #[inline]
    fn note_sent(&self, request: Request) {
        self.count(request, |requests| requests.sent += 1);
    }

    /// Takes a request back that was sent, and that there was no answer to wait for.
    #[cold]
    fn withdraw(&self, request: Request) {
        if request.is_measured {
            self.count(request, |requests| requests.sent -= 1);
            self.remaining.set(self.remaining.get().saturating_add(1));
        }
    }

    /// Sends requests over one connection, each when the one before it is answered, until the run is over.
    /// `transport` is absent if it could not be opened at first.
    fn drive(&self, index: usize, mut transport: Option<Transport>) {
        let clock = self.clock.get();
        let mut now = Instant::now();
        let mut pause = self.first_pause(index);
        let (mut turn, mut first_turn) = (0, 0);
        loop {
            let open = match transport.take() {
                Some(open) => open,
                // No connection is made that has nothing to do.
                None if self.has_sent_all(index, turn) => return,
                None => {
                    let Some(open) = self.reopen(pause) else { return };
                    now = Instant::now();
                    turn = turn.max(self.turn_from(&clock, index, now));
                    first_turn = turn;
                    open
                }
            };
            let Some(request) = self.next_request(&clock, index, turn, now) else { return };
            let Some(sent) = self.wait_until_due(request, now) else { return };
            self.note_sent(request);
            self.waiting_since[index].set(Some(sent));
            // Neighbouring connections have different messages, too.
            let answer = self.work.perform(&open, index + turn as usize);
            self.waiting_since[index].set(None);
            now = Instant::now();
            let service_time = now - sent;
            let lost = match self.settle(&clock, request, now, service_time, &answer) {
                Some(lost) => lost,
                None if turn > first_turn && self.ends_well(&answer) => {
                    self.withdraw(request);
                    Lost::Step
                }
                None => {
                    let Some(lost) = self.note_failure(answer, request, service_time) else { return };
                    lost
                }
            };
            match lost {
                Lost::Nothing => transport = Some(open),
                Lost::Step => pause = Duration::ZERO,
                Lost::Connection => pause = REOPEN_PAUSE,
            }
            if transport.is_none() {
                self.tally.closed();
            }
            if service_time >= self.plan.timeout {
                // The overseer may have interrupted this fiber when the answer was there already; the
                // next request must not meet that.
                let _ = fibers::check();
            }
            turn += 1;
        }
    }

    /// Counts a request if it was answered rightly; `None` if something else became of it.
    #[inline(always)]
    fn settle(
        &self,
        clock: &Clock,
        request: Request,
        now: Instant,
        service_time: Duration,
        answer: &io::Result<Answer>,
    ) -> Option<Lost> {
        let (traffic, closes) = match answer {
            Ok(Answer::Correct(traffic)) => (*traffic, false),
            Ok(Answer::Response(response, traffic)) => {
                if request.is_measured {
                    self.tally.got_status(response.status);
                }
                if !response.is_success() {
                    return None;
                }
                (*traffic, response.closes)
            }
            _ => return None,
        };
        if request.is_measured {
            let is_after_end = self.is_over(clock, now);
            self.tally.answered(service_time, || now - request.due, is_after_end, traffic);
            if let Some(step) = request.step {
                let times = (now - request.due, service_time);
                self.steps.answered(step, times, now - clock.start, is_after_end);
            }
        } else {
            self.tally.answered_unmeasured();
        }
        Some(if closes { Lost::Step } else { Lost::Nothing })
    }

    /// Whether this is the end of a connection that only brought bytes. How many, nobody can know before.
    fn ends_well(&self, answer: &io::Result<Answer>) -> bool {
        matches!((&self.work, answer), (Work::Receive(_), Ok(Answer::Ended(_))))
    }

    /// Counts what became of a request that was not answered rightly; `None` if the run is being ended.
    #[cold]
    fn note_failure(
        &self,
        answer: io::Result<Answer>,
        request: Request,
        service_time: Duration,
    ) -> Option<Lost> {
        let timeout = self.plan.timeout;
        let (kind, text, lost) = match answer {
            Ok(Answer::Correct(_)) => return Some(Lost::Nothing),
            Ok(Answer::Wrong { text, in_sync }) => {
                (ErrorKind::Wrong, text, if in_sync { Lost::Nothing } else { Lost::Step })
            }
            Ok(Answer::Response(response, _)) => {
                let lost = if response.closes { Lost::Step } else { Lost::Nothing };
                (ErrorKind::Status, self.describe_status(response.status), lost)
            }
            Ok(Answer::Ended(text)) => (ErrorKind::Closed, text, Lost::Connection),
            Err(error) if net::interrupt_of(&error).is_some() => {
                if service_time < timeout {
                    self.withdraw(request);
                    return None;
                }
                (ErrorKind::TimedOut, format!("no answer within {}", format_duration(timeout)), Lost::Step)
            }
            Err(error) => (transport::request_error_kind(&error), error.to_string(), Lost::Connection),
        };
        self.tally.failed(kind, || text);
        self.count(request, |requests| match kind {
            ErrorKind::Wrong => requests.wrong += 1,
            ErrorKind::Status => requests.bad_status += 1,
            ErrorKind::TimedOut => requests.timed_out += 1,
            _ => requests.lost += 1,
        });
        Some(lost)
    }

    fn describe_status(&self, status: u16) -> String {
        match (&self.plan.workload, &self.plan.target) {
            (Workload::Http(request), Target::Http(target)) => {
                format!("HTTP {status} for {} {}", request.method, target.path())
            }
            _ => format!("HTTP {status}"),
        }
    }
}

/// What a request that failed has taken with it.
enum Lost {
    /// The connection goes on.
    Nothing,
    /// The connection's answers would not fit its requests any more, or there are no more.
    Step,
    /// The connection broke.
    Connection,
}
