//! Waiting for the clock: sleeps and intervals.

use std::fmt;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ringspun_runtime::{EventLoop, TimerKey, Wake};

use crate::current::with_current;
use crate::interrupt::Interrupt;
use crate::pollable::{Pollable, wait_for};
use crate::wait_reason::WaitReason;

/// A moment to wait for, from [`after`] or [`at`]: with [`wait_for`], or in a [`Select`](crate::Select).
pub struct Timer {
    event_loop: Rc<EventLoop>,
    /// `None` beyond the clock's range.
    until: Option<Instant>,
    armed: Option<TimerKey>,
}

impl Pollable for Timer {
    type Output = ();

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        if self.event_loop.now() >= until {
            return Poll::Ready(());
        }
        if self.armed.is_none() {
            self.armed = Some(self.event_loop.insert_timer(until, waiter.clone()));
        }
        Poll::Pending
    }

    fn reason(&self) -> WaitReason {
        let left = self.until.map(|until| until.saturating_duration_since(self.event_loop.now()));
        match left {
            Some(left) => WaitReason::new("a time", format_args!("that comes in {left:.3?}")),
            None => WaitReason::new("a time", "that never comes"),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.armed {
            self.event_loop.remove_timer(key);
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("until", &self.until).finish()
    }
}

/// The moment after `duration`; one beyond the clock's range never comes.
///
/// # Panics
///
/// Outside of a fiber.
pub fn after(duration: Duration) -> Timer {
    let event_loop = with_current(|fiber| fiber.event_loop().clone());
    let until = event_loop.now().checked_add(duration);
    Timer { event_loop, until, armed: None }
}

/// The moment by the clock of [`now`]; one that has passed has come.
///
/// # Panics
///
/// Outside of a fiber.
pub fn at(moment: Instant) -> Timer {
    let event_loop = with_current(|fiber| fiber.event_loop().clone());
    Timer { event_loop, until: Some(moment), armed: None }
}

/// The time by the clock of the running fiber's event loop, which every wait goes by: that of [`Instant`], except in a
/// simulation.
///
/// # Panics
///
/// Outside of a fiber.
pub fn now() -> Instant {
    with_current(|fiber| fiber.event_loop().now())
}

/// Parks for at least `duration`; zero does not park. A duration beyond the clock's range, such as
/// [`Duration::MAX`], ends only by an interrupt.
///
/// # Errors
///
/// The interrupt that ended the sleep early.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`](crate::wait).
pub fn sleep(duration: Duration) -> Result<(), Interrupt> {
    wait_for(after(duration))
}

/// Parks until a moment by the clock of [`now`]; does not park if it has passed.
///
/// # Errors
///
/// The interrupt that ended the sleep early.
///
/// # Panics
///
/// Outside of a fiber, and as [`wait`](crate::wait).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     // Both wait for the same moment, however long it takes to start them.
///     let start = fibers::now() + Duration::from_millis(2);
///     let waiting = [1, 2].map(|_| fibers::spawn(move || fibers::sleep_until(start)).unwrap());
///     for fiber in waiting {
///         fiber.join().unwrap().unwrap();
///     }
///     assert!(fibers::now() >= start);
/// })
/// .unwrap();
/// ```
pub fn sleep_until(moment: Instant) -> Result<(), Interrupt> {
    wait_for(at(moment))
}

/// Moments at equal distances, from [`interval`].
#[derive(Clone, Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
}

/// An interval whose first tick is one period from now.
///
/// Ticks do not drift: each is due a whole number of periods after the first, however late the fiber came to wait for
/// those before it.
///
/// # Panics
///
/// Outside of a fiber, if `period` is zero, and if it goes beyond the clock's range.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let mut ticks = fibers::interval(Duration::from_millis(2));
///     let start = ticks.next_due();
///     let mut periods = 0;
///     while periods < 10 {
///         // More than one if the fiber was late.
///         periods += ticks.tick().unwrap();
///     }
///     assert!(fibers::now() >= start + 9 * Duration::from_millis(2));
/// })
/// .unwrap();
/// ```
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    Interval { next: now() + period, period }
}

impl Interval {
    /// Parks until the next tick is due, and returns how many periods have ended since the last one: more than 1 if the
    /// fiber was late. Ticks that were missed do not come later.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait: the tick is still to come.
    ///
    /// # Panics
    ///
    /// Outside of a fiber, and as [`wait`](crate::wait).
    pub fn tick(&mut self) -> Result<u64, Interrupt> {
        sleep_until(self.next)?;
        let now = now();
        let late = now.saturating_duration_since(self.next).as_nanos();
        let period = self.period.as_nanos();
        self.next = now + (self.period - duration_of(late % period));
        Ok(u64::try_from(late / period).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// When the next tick is due, by the clock of [`now`].
    pub fn next_due(&self) -> Instant {
        self.next
    }

    /// Has the next tick be due one period from now.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn reset(&mut self) {
        self.next = now() + self.period;
    }
}

fn duration_of(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    Duration::new((nanos / PER_SECOND) as u64, (nanos % PER_SECOND) as u32)
}
