//! A pause before something is tried again, where nothing tells when that would make sense.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_runtime::{EventLoop, TimerKey, Wake};

/// How long a pause is.
const LENGTH: Duration = Duration::from_millis(5);

/// A pause that has begun, after which its waiter is woken.
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

    /// Ends the pause, whether or not it is over.
    pub(crate) fn end(self, event_loop: &EventLoop) {
        event_loop.remove_timer(self.timer);
    }
}
