//! A pause before a retry, if no event signals when to retry.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_runtime::{EventLoop, TimerKey, Wake};

/// The length of a pause.
const LENGTH: Duration = Duration::from_millis(5);

/// A pause in progress, whose timer wakes the waiter.
#[derive(Debug)]
pub(crate) struct Pause {
    until: Instant,
    timer: TimerKey,
}

impl Pause {
    pub(crate) fn begin(event_loop: &EventLoop, waiter: &Rc<dyn Wake>) -> Self {
        let until = event_loop.now() + LENGTH;
        Self { until, timer: event_loop.insert_timer(until, waiter.clone()) }
    }

    pub(crate) fn is_over(&self, event_loop: &EventLoop) -> bool {
        event_loop.now() >= self.until
    }

    /// Removes the timer.
    pub(crate) fn end(self, event_loop: &EventLoop) {
        event_loop.remove_timer(self.timer);
    }
}
