//! Counts and times of a run in progress.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use crate::latencies::Latencies;
use crate::link::Handshake;
use crate::outcome::{Connections, ErrorKind, Errors, Outcome, Requests, Traffic};
use crate::status::StatusCounts;

/// Counts and times of one thread's share of a run.
pub(crate) struct Tally {
    wanted: usize,
    opened: Cell<u64>,
    open: Cell<usize>,
    open_max: Cell<usize>,
    closed_idle: Cell<u64>,
    unreachable: RefCell<Option<Unreachable>>,
    /// Expected responses, including the warm-up.
    answered_ever: Cell<u64>,
    requests: Cell<Requests>,
    traffic: Cell<Traffic>,
    errors: RefCell<Errors>,
    /// Responses by HTTP status.
    statuses: RefCell<StatusCounts>,
    /// Times of requests that failed, from when they were due.
    failure_times: RefCell<Latencies>,
    service_times: RefCell<Times>,
    /// Absent in a closed loop, where they equal the service times.
    response_times: Option<RefCell<Times>>,
    /// How much later than due requests were sent although their connection was free.
    send_delays: RefCell<Latencies>,
    handshake_times: RefCell<Latencies>,
    resumed: Cell<u64>,
    streams_allowed: Cell<Option<usize>>,
}

/// A failure to connect.
struct Unreachable {
    since: Instant,
    /// How many requests had been answered by then.
    answered_ever: u64,
    error: String,
}

/// Times of one kind. Each is recorded into one histogram; they are added up on demand.
struct Times {
    /// Of the current interval.
    current: Latencies,
    /// Of earlier intervals.
    past: Latencies,
    /// After the end of the measurement.
    after_end: Latencies,
}

impl Times {
    fn new() -> io::Result<Self> {
        Ok(Self { current: Latencies::new()?, past: Latencies::new()?, after_end: Latencies::new()? })
    }

    #[inline]
    fn record(&mut self, time: Duration, is_after_end: bool) {
        let times = if is_after_end { &mut self.after_end } else { &mut self.current };
        times.record(time);
    }

    fn take_current(&mut self) -> Latencies {
        self.past.add(&self.current);
        self.current.take()
    }

    fn all(&self) -> Latencies {
        let mut all = self.past.clone();
        all.add(&self.current);
        all.add(&self.after_end);
        all
    }
}

impl Tally {
    pub(crate) fn new(wanted: usize, is_open_loop: bool) -> io::Result<Self> {
        let response_times = match is_open_loop {
            true => Some(RefCell::new(Times::new()?)),
            false => None,
        };
        Ok(Self {
            wanted,
            opened: Cell::new(0),
            open: Cell::new(0),
            open_max: Cell::new(0),
            closed_idle: Cell::new(0),
            unreachable: RefCell::default(),
            answered_ever: Cell::new(0),
            requests: Cell::default(),
            traffic: Cell::default(),
            errors: RefCell::default(),
            statuses: RefCell::default(),
            failure_times: RefCell::new(Latencies::new()?),
            service_times: RefCell::new(Times::new()?),
            response_times,
            send_delays: RefCell::new(Latencies::new()?),
            handshake_times: RefCell::new(Latencies::new()?),
            resumed: Cell::new(0),
            streams_allowed: Cell::new(None),
        })
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(crate) fn opened(&self) {
        self.established();
        self.opening();
    }

    /// Counts a connection as open, which is not established yet.
    pub(crate) fn opening(&self) {
        self.open.set(self.open.get() + 1);
        self.open_max.set(self.open_max.get().max(self.open.get()));
    }

    /// Counts a connection as established, which counts as open already.
    pub(crate) fn established(&self) {
        self.unreachable.take();
        self.opened.set(self.opened.get() + 1);
    }

    /// Records the handshake of a connection, with TLS.
    pub(crate) fn shook_hands(&self, handshake: Option<Handshake>) {
        if let Some(Handshake { time, is_resumed }) = handshake {
            self.handshake_times.borrow_mut().record(time);
            self.resumed.set(self.resumed.get() + u64::from(is_resumed));
        }
    }

    /// Notes that a target allows fewer streams than planned.
    pub(crate) fn allowed_streams(&self, count: usize) {
        self.streams_allowed.set(Some(self.streams_allowed.get().map_or(count, |least| least.min(count))));
    }

    pub(crate) fn handshake_times(&self) -> Latencies {
        self.handshake_times.borrow().clone()
    }

    pub(crate) fn closed(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// Counts a connection that the target closed while it was idle.
    pub(crate) fn closed_idle(&self) {
        self.closed_idle.set(self.closed_idle.get() + 1);
    }

    /// Updates the counts of measured requests.
    #[inline]
    pub(crate) fn count(&self, change: impl FnOnce(&mut Requests)) {
        let mut requests = self.requests.get();
        change(&mut requests);
        self.requests.set(requests);
    }

    /// Counts an expected response during the warm-up.
    #[inline]
    pub(crate) fn answered_unmeasured(&self) {
        self.answered_ever.set(self.answered_ever.get() + 1);
    }

    /// Counts an expected response to a measured request. The response time is computed in an open loop only.
    #[inline]
    pub(crate) fn answered(
        &self,
        service_time: Duration,
        response_time: impl FnOnce() -> Duration,
        is_after_end: bool,
        bytes: Traffic,
    ) {
        self.answered_ever.set(self.answered_ever.get() + 1);
        self.count(|requests| {
            requests.answered += 1;
            requests.answered_after_end += u64::from(is_after_end);
        });
        if !is_after_end {
            let Traffic { sent_bytes, received_bytes } = self.traffic.get();
            self.traffic.set(Traffic {
                sent_bytes: sent_bytes + bytes.sent_bytes,
                received_bytes: received_bytes + bytes.received_bytes,
            });
        }
        self.service_times.borrow_mut().record(service_time, is_after_end);
        if let Some(response_times) = &self.response_times {
            response_times.borrow_mut().record(response_time(), is_after_end);
        }
    }

    /// Counts an HTTP response.
    #[inline]
    pub(crate) fn got_status(&self, status: u16) {
        self.statuses.borrow_mut().note(status);
    }

    pub(crate) fn statuses(&self) -> StatusCounts {
        self.statuses.borrow().clone()
    }

    /// Records the time of a measured request that failed.
    pub(crate) fn failed_after(&self, time: Duration) {
        self.failure_times.borrow_mut().record(time);
    }

    pub(crate) fn failure_times(&self) -> Latencies {
        self.failure_times.borrow().clone()
    }

    #[inline]
    pub(crate) fn sent_late(&self, delay: Duration) {
        self.send_delays.borrow_mut().record(delay);
    }

    pub(crate) fn send_delays(&self) -> Latencies {
        self.send_delays.borrow().clone()
    }

    /// The results of a thread, as far as they are counted here.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            backend: "none",
            measured: Duration::ZERO,
            was_stopped: false,
            target_loss: None,
            workers: 1,
            cpu_time: Duration::ZERO,
            busiest_cpu_time: Duration::ZERO,
            started_late: Duration::ZERO,
            connections: self.connections(),
            requests: self.requests(),
            sessions: None,
            traffic: self.traffic(),
            errors: self.errors(),
            statuses: self.statuses(),
            response_times: self.response_times(),
            service_times: self.service_times(),
            failure_times: self.failure_times(),
            handshake_times: self.handshake_times(),
            send_delays: self.send_delays(),
            named: Vec::new(),
            steps: Vec::new(),
        }
    }

    pub(crate) fn failed(&self, kind: ErrorKind, example: impl FnOnce() -> String) {
        let text = example();
        if matches!(
            kind,
            ErrorKind::Refused
                | ErrorKind::ConnectTimedOut
                | ErrorKind::ConnectFailed
                | ErrorKind::HandshakeFailed
        ) {
            self.note_unreachable(&text);
        }
        self.errors.borrow_mut().note(kind, || text);
    }

    /// Notes that connecting failed, unless it had failed before and nothing was answered since.
    #[cold]
    fn note_unreachable(&self, error: &str) {
        let mut unreachable = self.unreachable.borrow_mut();
        let answered_ever = self.answered_ever.get();
        if unreachable.as_ref().is_none_or(|earlier| earlier.answered_ever != answered_ever) {
            *unreachable =
                Some(Unreachable { since: Instant::now(), answered_ever, error: error.to_string() });
        }
    }

    /// Whether connecting failed, and neither succeeded nor was anything answered since: the time and the error.
    pub(crate) fn unreachable(&self) -> Option<(Instant, String)> {
        let unreachable = self.unreachable.borrow();
        let current = unreachable.as_ref().filter(|found| found.answered_ever == self.answered_ever.get())?;
        Some((current.since, current.error.clone()))
    }

    pub(crate) fn open_now(&self) -> usize {
        self.open.get()
    }

    pub(crate) fn answered_ever(&self) -> u64 {
        self.answered_ever.get()
    }

    pub(crate) fn requests(&self) -> Requests {
        self.requests.get()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    pub(crate) fn errors(&self) -> Errors {
        self.errors.borrow().clone()
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.borrow().total()
    }

    pub(crate) fn connections(&self) -> Connections {
        Connections {
            wanted: self.wanted,
            opened: self.opened.get(),
            open_max: self.open_max.get(),
            closed_idle: self.closed_idle.get(),
            elsewhere: 0,
            resumed: self.resumed.get(),
            streams_allowed: self.streams_allowed.get(),
        }
    }

    pub(crate) fn service_times(&self) -> Latencies {
        self.service_times.borrow().all()
    }

    /// In a closed loop these are the service times, as requests are due when they are sent.
    pub(crate) fn response_times(&self) -> Latencies {
        self.response_times.as_ref().unwrap_or(&self.service_times).borrow().all()
    }

    /// Takes the response times (if separate) and service times since the last call, without those after the end.
    pub(crate) fn take_times(&self) -> (Option<Latencies>, Latencies) {
        let response_times = self.response_times.as_ref().map(|times| times.borrow_mut().take_current());
        (response_times, self.service_times.borrow_mut().take_current())
    }

    pub(crate) fn has_current_times(&self) -> bool {
        self.service_times.borrow().current.count() > 0
    }

    /// Response times (if separate) and service times after the end.
    pub(crate) fn times_after_end(&self) -> (Option<Latencies>, Latencies) {
        let response_times = self.response_times.as_ref().map(|times| times.borrow().after_end.clone());
        (response_times, self.service_times.borrow().after_end.clone())
    }
}
