//! Busy-polls briefly before blocking, where that costs less.
//!
//! What it costs to block and to be woken differs between machines several times over, and so does what polling
//! costs: nothing but the wait itself, unless the peer needs this core. So both ways of waiting are measured while the
//! loop runs. A few waits of either way are timed, each with the turn that follows it, because after a sleep the work
//! is slower, too. The loop waits in the way that has cost less for its work. The other way is tried now and then, less
//! often the worse it is.

use std::io;
use std::time::{Duration, Instant};

use crate::configuration::SpinFor;
use crate::ready::ReadyQueue;
use crate::spin_costs::{Costs, Way};
use crate::sys::Backend;

/// Off, or what is saved.
const VARIABLE: &str = "RINGSPUN_SPIN";
/// The longest poll, in microseconds.
const MAX_VARIABLE: &str = "RINGSPUN_SPIN_MAX_US";
/// About what blocking costs on slow machines.
const MAX: Duration = Duration::from_micros(50);

/// Decides, from what earlier waits have cost, whether to poll before blocking.
#[derive(Debug)]
pub(crate) struct Spin {
    max: Duration,
    saves: SpinFor,
    costs: Costs,
    /// The wait that is being measured, until the next one begins.
    measured: Option<Measured>,
    /// How often the loop has waited, and how often it busy-polled.
    waits: u64,
    polls: u64,
}

#[derive(Debug)]
struct Measured {
    way: Way,
    since: Duration,
    work: usize,
}

/// What a loop knows about the two ways of waiting; see
/// [`EventLoop::spin_statistics`](crate::EventLoop::spin_statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpinStatistics {
    /// Waits for completions.
    pub waits: u64,
    /// Those of them that busy-polled before blocking.
    pub busy_polled: u64,
    /// What a completion, or each 4 KiB of a larger one, costs if the loop blocks, with the turn that follows:
    /// processor time or, to save latency, time. None unless measured.
    pub blocking_cost: Option<Duration>,
    /// The same if the loop busy-polls before it blocks.
    pub busy_polling_cost: Option<Duration>,
}

impl Spin {
    /// In place of an argument that is `None`, the environment decides, or else the default.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a variable has an invalid value.
    pub(crate) fn new(max: Option<Duration>, saves: Option<SpinFor>) -> io::Result<Self> {
        let max = max.map_or_else(max_of_environment, Ok)?;
        let saves = saves.map_or_else(saves_of_environment, |saves| Ok(Some(saves)))?;
        let (max, saves) = saves.map_or((Duration::ZERO, SpinFor::default()), |saves| (max, saves));
        Ok(Self { max, saves, costs: Costs::new(saves), measured: None, waits: 0, polls: 0 })
    }

    pub(crate) fn statistics(&self) -> SpinStatistics {
        SpinStatistics {
            waits: self.waits,
            busy_polled: self.polls,
            blocking_cost: self.costs.of(Way::Block),
            busy_polling_cost: self.costs.of(Way::Spin),
        }
    }

    /// As [`Backend::wait`].
    pub(crate) fn wait(
        &mut self,
        backend: &mut Backend,
        timeout: Option<Duration>,
        ready: &mut ReadyQueue,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) || self.max.is_zero() || backend.is_simulated() {
            return backend.wait(timeout, ready);
        }
        if self.measured.is_some() {
            self.end_measuring();
        }
        let choice = self.costs.choose();
        self.waits += 1;
        self.polls += u64::from(choice.way == Way::Spin);
        let since = choice.is_measured.then(|| self.now()).flatten();
        match choice.way {
            Way::Block => backend.wait(timeout, ready)?,
            Way::Spin => self.poll_and_block(backend, timeout, ready)?,
        }
        if let Some(since) = since {
            self.measured = Some(Measured { way: choice.way, since, work: work_of(ready) });
        }
        Ok(())
    }

    #[cold]
    fn end_measuring(&mut self) {
        if let Some(Measured { way, since, work }) = self.measured.take()
            && let Some(now) = self.now()
        {
            self.costs.record(way, now.saturating_sub(since), work);
        }
    }

    fn poll_and_block(
        &self,
        backend: &mut Backend,
        timeout: Option<Duration>,
        ready: &mut ReadyQueue,
    ) -> io::Result<()> {
        let limit = timeout.map_or(self.max, |timeout| timeout.min(self.max));
        // Submits first: the time of submitting is not part of the wait.
        if poll(backend, ready)? {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            std::hint::spin_loop();
            if poll(backend, ready)? {
                return Ok(());
            }
            let elapsed = start.elapsed();
            if elapsed >= limit {
                return backend.wait(timeout.map(|timeout| timeout.saturating_sub(elapsed)), ready);
            }
        }
    }

    /// The time of the clock that shows what is to be saved.
    #[cold]
    fn now(&self) -> Option<Duration> {
        let clock = match self.saves {
            SpinFor::Cpu => nix::time::ClockId::from_raw(libc::CLOCK_THREAD_CPUTIME_ID),
            SpinFor::Latency => nix::time::ClockId::CLOCK_MONOTONIC,
        };
        clock.now().ok().map(Duration::from)
    }
}

/// The value of an environment variable, read by `parse`; `None` if it is not set.
fn of_environment<T>(name: &str, expected: &str, parse: fn(&str) -> Option<T>) -> io::Result<Option<T>> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(parse) {
        Some(parsed) => Ok(Some(parsed)),
        None => {
            let text = format!("{name}={}: expected {expected}", value.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

fn max_of_environment() -> io::Result<Duration> {
    let micros =
        of_environment(MAX_VARIABLE, "microseconds, such as 50, or 0", |text| text.parse::<u32>().ok())?;
    Ok(micros.map_or(MAX, |micros| Duration::from_micros(micros.into())))
}

/// `None` for off.
fn saves_of_environment() -> io::Result<Option<SpinFor>> {
    let saves = of_environment(VARIABLE, "cpu, latency or off", |text| match text {
        "cpu" => Some(Some(SpinFor::Cpu)),
        "latency" => Some(Some(SpinFor::Latency)),
        "off" => Some(None),
        _ => None,
    })?;
    Ok(saves.unwrap_or(Some(SpinFor::default())))
}

/// How much has been completed: a message is one unit, a large one as many as its pieces of 4 KiB, because the longer
/// the loop waits, the fewer and larger the pieces are.
#[cold]
fn work_of(ready: &ReadyQueue) -> usize {
    const UNIT_BYTES: usize = 4096;
    (0..ready.len())
        .filter_map(|position| ready.get(position))
        .map(|completion| usize::try_from(completion.result).unwrap_or(0).div_ceil(UNIT_BYTES).max(1))
        .sum()
}

fn poll(backend: &mut Backend, ready: &mut ReadyQueue) -> io::Result<bool> {
    backend.wait(Some(Duration::ZERO), ready)?;
    Ok(!ready.is_empty() || backend.is_woken())
}
