//! Runs whose sessions a program of the caller's makes, such as a script: this crate says when a session begins, and
//! counts what becomes of its steps.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use ringspun_fibers::SharedChannel;

use crate::capacity;
use crate::error::RunError;
use crate::hooks::{Hooks, Observer};
use crate::interval::{Cutter, Recorder};
use crate::latencies::Latencies;
use crate::link::Handshake;
use crate::outcome::{ErrorKind, NamedOutcome, Outcome, Requests, SessionCounts, TargetLoss};
use crate::plan::{Length, Pace, Plan, Workload};
use crate::request_list::{NAMES_MAX, OTHERS};
use crate::schedule::Numbers;
use crate::share::{Arrival, NoStart, Share};
use crate::status::StatusCounts;
use crate::step_tally::StepTally;
use crate::tally::Tally;
use crate::telling::Telling;
use crate::worker;
use crate::workers::{self, Job};

/// A target is lost if connecting failed for at least this long before the end.
const LOSS_MIN: Duration = Duration::from_millis(100);

/// Makes the sessions of one thread of a run; called once on each. It prepares, calls [`Ledger::start`], makes sessions
/// until [`Ledger::next_session`] has none for any of its users, and returns when the last has ended. It blocks the
/// thread, which has no fiber runtime, and calls [`Ledger::tick`] at least ten times a second. The error ends the run.
pub type Driver = Arc<dyn Fn(&Rc<Ledger>) -> Result<(), String> + Send + Sync>;

/// Runs a plan with the workload [`Workload::Driven`], on [`Plan::workers`] threads of their own.
/// [`Plan::connections`] is the number of users, each of which makes one session at a time.
///
/// # Errors
///
/// As [`run`](crate::run()), and what the driver fails with.
///
/// # Panics
///
/// If a fiber runtime is already running on this thread. A panic of the driver is an error.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Instant;
/// use ringspun_load::{Driver, DrivenStep, Hooks, Length, Plan, Workload, run_driven};
///
/// // One user, who computes.
/// let driver: Driver = Arc::new(|ledger| {
///     ledger.start("none")?;
///     while let Some(session) = ledger.next_session() {
///         std::thread::sleep(session.due.saturating_duration_since(Instant::now()));
///         ledger.begin_session(&session, true);
///         let began = Instant::now();
///         let sum: u64 = (0..1000).sum();
///         assert_eq!(sum, 499_500);
///         ledger.step(&DrivenStep { name: "sum", due: session.due, began, status: None, failure: None });
///         ledger.end_session(&session, true);
///         ledger.tick();
///     }
///     Ok(())
/// });
/// let mut plan = Plan::new("tcp://127.0.0.1:7000".parse().unwrap());
/// plan.workload = Workload::Driven { name: "sums".to_string() };
/// plan.length = Length::Count(10);
/// let outcome = run_driven(&plan, Hooks::default(), driver).unwrap();
/// assert_eq!((outcome.named[0].name.as_str(), outcome.requests.answered), ("sum", 10));
/// ```
pub fn run_driven(plan: &Plan, hooks: Hooks, driver: Driver) -> Result<Outcome, RunError> {
    plan.check().map_err(RunError::BadPlan)?;
    if !matches!(plan.workload, Workload::Driven { .. }) {
        let name = plan.workload.name();
        return Err(RunError::BadPlan(format!(
            "the workload {name} has no driver: expected Workload::Driven"
        )));
    }
    capacity::check(plan, 1).map_err(RunError::DoesNotFit)?;
    if plan.target.tls_host().is_some() {
        // Certificates and keys that are none are the same error as in other runs.
        plan.tls.config(&[]).map_err(RunError::Failed)?;
    }
    let plan = plan.clone();
    let run = move || {
        let shared = plan.clone();
        let work = move |job: Job| run_share(shared.clone(), job, &driver);
        workers::run(&plan, hooks, work)
    };
    worker::runtime().run(run).map_err(RunError::Failed)?.map(Outcome::with_planned_requests)
}

fn run_share(plan: Plan, job: Job, driver: &Driver) -> Result<Outcome, RunError> {
    let ledger = Rc::new(Ledger::new(plan, job).map_err(RunError::Failed)?);
    driver(&ledger).map_err(|text| RunError::Failed(io::Error::other(text)))?;
    ledger.finish()
}

/// A session that is to be made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueSession {
    /// Its number in the run, from 0.
    pub number: u64,
    /// When it is due. In a closed loop, now.
    pub due: Instant,
    is_measured: bool,
}

/// A step that has ended.
#[derive(Clone, Debug)]
pub struct DrivenStep<'a> {
    /// What its results are called. Beyond a hundred names, the others have theirs in common.
    pub name: &'a str,
    /// When it was due: the first one of a session with [`DueSession::due`], a later one when it began.
    pub due: Instant,
    /// When it began.
    pub began: Instant,
    /// Its HTTP status, if it has one.
    pub status: Option<u16>,
    /// What it failed with, if it did.
    pub failure: Option<(ErrorKind, String)>,
}

/// When a step ended.
struct Ending {
    response_time: Duration,
    service_time: Duration,
    /// Since the start of the run.
    elapsed: Duration,
    /// Whether the measurement was over.
    is_after_end: bool,
}

/// What one thread of a driven run has to do, and its results.
pub struct Ledger {
    plan: Plan,
    share: Share,
    numbers: Option<Numbers>,
    tally: Tally,
    steps: StepTally,
    named: RefCell<Vec<NamedOutcome>>,
    /// How many sessions this thread has taken.
    taken: Cell<u64>,
    /// Sessions that a closed loop may still begin.
    remaining: Cell<u64>,
    begun: Cell<u64>,
    completed: Cell<u64>,
    clock: Cell<Option<Clock>>,
    backend: Cell<&'static str>,
    recorder: Cell<Option<Recorder>>,
    cutter: RefCell<Option<Cutter>>,
    /// Until the run begins, and has `telling`.
    observer: Cell<Option<Observer>>,
    telling: RefCell<Option<Telling>>,
    /// Closed to stop the run early.
    stop: SharedChannel<()>,
    stopped_at: Cell<Option<Instant>>,
    started_late: Cell<Duration>,
    cpu_begin: Cell<Option<Duration>>,
    cpu_end: Cell<Option<Duration>>,
}

#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    measure_from: Instant,
    /// Absent in a run limited by count.
    end: Option<Instant>,
}

impl Ledger {
    fn new(plan: Plan, job: Job) -> io::Result<Self> {
        let Job { share, hooks, stop, .. } = job;
        let hooks = hooks();
        let numbers = Numbers::new(&plan);
        Ok(Self {
            steps: StepTally::of(&plan, numbers.as_ref())?,
            numbers,
            tally: Tally::new(share.of(plan.connections as u64) as usize, plan.pace != Pace::Closed)?,
            named: RefCell::default(),
            taken: Cell::new(0),
            remaining: Cell::new(match plan.length {
                Length::Duration(_) => u64::MAX,
                Length::Count(count) => share.of(count),
            }),
            begun: Cell::new(0),
            completed: Cell::new(0),
            clock: Cell::new(None),
            backend: Cell::new("none"),
            recorder: Cell::new(hooks.recorder),
            cutter: RefCell::default(),
            observer: Cell::new(hooks.observer),
            telling: RefCell::default(),
            stop,
            stopped_at: Cell::new(None),
            started_late: Cell::default(),
            cpu_begin: Cell::new(None),
            cpu_end: Cell::new(None),
            plan,
            share,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of users on this thread.
    pub fn users(&self) -> usize {
        self.tally.wanted()
    }

    /// Blocks until all threads are ready to start, and until [`Plan::start_at`]. `backend` is that of the event loop
    /// which this thread's sessions use.
    ///
    /// # Errors
    ///
    /// Threads with different backends.
    pub fn start(&self, backend: &'static str) -> Result<(), String> {
        self.backend.set(backend);
        let arrival = Arrival { has_opened: true, backend, refusal: None };
        let start = match self.share.meet(arrival, self.plan.start_at) {
            Ok(start) => start,
            Err(NoStart::MixedBackends(text)) => return Err(text),
            Err(NoStart::Unreachable) => return Err("another thread could not start".to_string()),
        };
        while !self.stop.is_closed() && Instant::now() < start {
            let pause = start.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            std::thread::sleep(pause);
        }
        if let Some(start_at) = self.plan.start_at {
            self.started_late.set(SystemTime::now().duration_since(start_at).unwrap_or_default());
        }
        let measure_from = start + self.plan.lead();
        let end = match self.plan.length {
            Length::Duration(duration) => Some(measure_from + duration),
            Length::Count(_) => None,
        };
        self.clock.set(Some(Clock { start, measure_from, end }));
        self.cpu_begin.set(Some(cpu_time()));
        let telling = self.observer.take().map(|observer| Telling::new(observer, start, measure_from));
        *self.telling.borrow_mut() = telling;
        if let Some(recorder) = self.recorder.take() {
            let step_ends = matches!(self.plan.pace, Pace::Steps(_))
                .then(|| self.steps.edges().map(|edge| start + edge).collect());
            *self.cutter.borrow_mut() = Some(Cutter::new(recorder, measure_from, step_ends, &self.tally));
        }
        Ok(())
    }

    /// The end of the measurement; `None` in a run limited by count that was not stopped.
    fn ended_at(&self) -> Option<Instant> {
        self.stopped_at.get().or(self.clock.get().and_then(|clock| clock.end))
    }

    /// Whether no session and no step may begin any more.
    pub fn is_over(&self) -> bool {
        let now = Instant::now();
        if self.stopped_at.get().is_none() && self.stop.is_closed() {
            self.stopped_at.set(Some(now));
        }
        self.ended_at().is_some_and(|end| now >= end)
    }

    /// The next session, for a user that is free; `None` at the end, and before the start. The user waits until it is
    /// due.
    pub fn next_session(&self) -> Option<DueSession> {
        let clock = self.clock.get().filter(|_| !self.is_over())?;
        let number = self.share.global_number(self.taken.get());
        let session = match &self.numbers {
            None => {
                let now = Instant::now();
                let is_measured = now >= clock.measure_from;
                if is_measured {
                    self.remaining.set(self.remaining.get().checked_sub(1)?);
                }
                DueSession { number, due: now, is_measured }
            }
            Some(numbers) if number >= numbers.end => return None,
            Some(numbers) => DueSession {
                number,
                due: clock.start + numbers.schedule.due_after(number),
                is_measured: number >= numbers.first_measured,
            },
        };
        self.taken.set(self.taken.get() + 1);
        Some(session)
    }

    /// Counts a session as begun; `has_waited` if its user was free before it was due.
    pub fn begin_session(&self, session: &DueSession, has_waited: bool) {
        if session.is_measured {
            self.begun.set(self.begun.get() + 1);
            self.step_of(session.due).into_iter().for_each(|step| self.steps.began_session(step));
            if has_waited && self.numbers.is_some() {
                self.tally.sent_late(session.due.elapsed());
            }
        }
    }

    /// Counts a session as ended; `is_completed` if nothing cut it off.
    pub fn end_session(&self, session: &DueSession, is_completed: bool) {
        if session.is_measured && is_completed {
            self.completed.set(self.completed.get() + 1);
            self.step_of(session.due).into_iter().for_each(|step| self.steps.completed_session(step));
        }
    }

    /// The step of the rate in which something was due; `None` without such steps.
    fn step_of(&self, due: Instant) -> Option<usize> {
        self.steps.at(due.saturating_duration_since(self.clock.get()?.start))
    }

    /// Counts an error that is not one of a step.
    pub fn fail(&self, kind: ErrorKind, text: String) {
        self.tally.failed(kind, || text);
    }

    /// Counts a connection as opened.
    pub fn opened(&self) {
        self.tally.opened();
    }

    /// Records how long the TLS handshake of a connection took, and whether it resumed an earlier session.
    pub fn secured(&self, time: Duration, is_resumed: bool) {
        self.tally.shook_hands(Some(Handshake { time, is_resumed }));
    }

    /// Counts a connection as closed.
    pub fn closed(&self) {
        self.tally.closed();
    }

    /// Counts a step that has just ended.
    pub fn step(&self, step: &DrivenStep<'_>) {
        let (now, Some(clock)) = (Instant::now(), self.clock.get()) else { return };
        if let Some((kind, text)) = &step.failure {
            self.tally.failed(*kind, || format!("{}: {text}", step.name));
        }
        if step.due < clock.measure_from {
            if step.failure.is_none() {
                self.tally.answered_unmeasured();
            }
            return;
        }
        // In a closed loop, a step is due when it begins.
        let due = if self.numbers.is_some() { step.due } else { step.began };
        let ending = Ending {
            response_time: now.saturating_duration_since(due),
            service_time: now.saturating_duration_since(step.began),
            elapsed: now.saturating_duration_since(clock.start),
            is_after_end: self.ended_at().is_some_and(|end| now >= end),
        };
        self.tally.count(|requests| requests.sent += 1);
        if let Some(status) = step.status {
            self.tally.got_status(status);
        }
        match &step.failure {
            None => self.tally.answered(
                ending.service_time,
                || ending.response_time,
                ending.is_after_end,
                crate::Traffic::default(),
            ),
            Some((kind, _)) => {
                self.tally.count(|requests| count_failure(requests, *kind));
                self.tally.failed_after(ending.response_time);
            }
        }
        if let Some(of_rate) = self.step_of(due) {
            self.count_by_rate(step, of_rate, &ending);
        }
        self.count_by_name(step, ending.response_time, ending.is_after_end);
    }

    /// Counts a step as one that was due in a step of the rate.
    fn count_by_rate(&self, step: &DrivenStep<'_>, of_rate: usize, ending: &Ending) {
        let Ending { response_time, service_time, elapsed, is_after_end } = *ending;
        self.steps.count(of_rate, |requests| requests.sent += 1);
        step.status.into_iter().for_each(|status| self.steps.got_status(of_rate, status));
        match &step.failure {
            None => self.steps.answered(of_rate, (response_time, service_time), elapsed, is_after_end),
            Some((kind, _)) => self.steps.count(of_rate, |requests| count_failure(requests, *kind)),
        }
    }

    fn count_by_name(&self, step: &DrivenStep<'_>, response_time: Duration, is_after_end: bool) {
        let mut all = self.named.borrow_mut();
        let is_full = all.len() >= NAMES_MAX && !all.iter().any(|named| named.name == step.name);
        let name = if is_full { OTHERS } else { step.name };
        let index = match all.iter().position(|named| named.name == name) {
            Some(index) => index,
            None => {
                // The others of the run have been allocated.
                let Ok(response_times) = Latencies::new() else { return };
                let (requests, statuses) = (Requests::default(), StatusCounts::default());
                all.push(NamedOutcome { name: name.to_string(), requests, statuses, response_times });
                all.len() - 1
            }
        };
        let named = &mut all[index];
        named.requests.sent += 1;
        step.status.into_iter().for_each(|status| named.statuses.note(status));
        match &step.failure {
            Some((kind, _)) => count_failure(&mut named.requests, *kind),
            None => {
                named.requests.answered += 1;
                named.requests.answered_after_end += u64::from(is_after_end);
                named.response_times.record(response_time);
            }
        }
    }

    /// Does what is due from time to time: ends intervals, and reports progress. Returns [`Ledger::is_over`].
    pub fn tick(&self) -> bool {
        let (is_over, now) = (self.is_over(), Instant::now());
        let Some(clock) = self.clock.get() else { return is_over };
        if let Some(cutter) = &mut *self.cutter.borrow_mut() {
            cutter.look(&self.tally, self.ended_at().map_or(now, |end| end.min(now)));
        }
        if now < clock.measure_from {
            self.cpu_begin.set(Some(cpu_time()));
        }
        if is_over && self.cpu_end.get().is_none() {
            self.cpu_end.set(Some(cpu_time()));
        }
        if let Some(telling) = &mut *self.telling.borrow_mut() {
            telling.look(&self.tally, now);
        }
        is_over
    }

    fn finish(&self) -> Result<Outcome, RunError> {
        let Some(clock) = self.clock.get() else {
            return Err(RunError::Failed(io::Error::other("the driver of a thread did not start")));
        };
        self.tick();
        let ended_at = self.ended_at().unwrap_or_else(Instant::now);
        if let Some(cutter) = self.cutter.take() {
            cutter.finish(&self.tally, ended_at);
        }
        let was_stopped = self.stopped_at.get().is_some();
        let planned = match (&self.numbers, self.plan.length) {
            _ if was_stopped => None,
            (_, Length::Count(count)) => Some(count),
            (Some(numbers), Length::Duration(_)) => Some(numbers.end - numbers.first_measured),
            (None, Length::Duration(_)) => None,
        };
        let cpu_end = self.cpu_end.get().unwrap_or_else(cpu_time);
        let cpu_time = cpu_end.saturating_sub(self.cpu_begin.get().unwrap_or_default());
        let target_loss = self.tally.unreachable().and_then(|(since, error)| {
            let before_end = ended_at.saturating_duration_since(since);
            (before_end >= LOSS_MIN).then_some(TargetLoss { before_end, error })
        });
        Ok(Outcome {
            backend: self.backend.get(),
            measured: ended_at.saturating_duration_since(clock.measure_from),
            was_stopped,
            target_loss,
            cpu_time,
            busiest_cpu_time: cpu_time,
            started_late: self.started_late.get(),
            sessions: Some(SessionCounts {
                planned,
                begun: self.begun.get(),
                completed: self.completed.get(),
            }),
            named: self.named.borrow().clone(),
            steps: self.steps.outcome(ended_at.saturating_duration_since(clock.start), was_stopped),
            ..self.tally.outcome()
        })
    }
}

fn count_failure(requests: &mut Requests, kind: ErrorKind) {
    match kind {
        ErrorKind::TimedOut => requests.timed_out += 1,
        ErrorKind::Status => requests.bad_status += 1,
        ErrorKind::ConnectFailed | ErrorKind::HandshakeFailed => requests.lost += 1,
        _ => requests.wrong += 1,
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    // Never fails on supported kernels.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
