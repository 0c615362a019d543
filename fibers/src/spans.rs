//! The spans of `tracing` that a fiber has entered: they are left while the fiber is parked, as others run then.
//!
//! A subscriber keeps the entered spans of each *thread*. So what a future does by `tracing::Instrument`, a fiber does
//! at every wait: its spans are exited before it parks, and entered again when it resumes.

use std::sync::atomic::{AtomicBool, Ordering};

use ringspun_runtime::contained;
use tracing::dispatcher::{Dispatch, get_default};
use tracing::level_filters::LevelFilter;
use tracing::span::Id;

/// Spans that have been exited and are to be entered again. Whoever entered them first keeps them alive.
pub(crate) struct LeftSpans {
    dispatch: Dispatch,
    /// The innermost first.
    ids: Vec<Id>,
}

/// A fiber has parked in a span although no subscriber takes those of the level `INFO`.
static ARE_RARE_SPANS_USED: AtomicBool = AtomicBool::new(false);

/// Whether any span may have been entered. To ask the subscriber takes some 90 instructions, so a server that logs only
/// warnings does it only once [`look`] has found a span of that level or above.
#[inline]
pub(crate) fn may_be_entered() -> bool {
    LevelFilter::current() >= LevelFilter::INFO || ARE_RARE_SPANS_USED.load(Ordering::Relaxed)
}

/// Looks, while no fiber runs, whether one has parked in a span, which others are in then. It happens once in a process
/// at most: from then on, spans are left at every wait.
#[cold]
pub(crate) fn look() {
    if LevelFilter::current() != LevelFilter::OFF && !may_be_entered() && leave().is_some() {
        ARE_RARE_SPANS_USED.store(true, Ordering::Relaxed);
    }
}

/// Exits what a fiber that has ended never left: its guard was forgotten, or is elsewhere.
#[inline]
pub(crate) fn leave_for_good() {
    if may_be_entered() {
        drop(leave());
    }
}

/// Exits all spans that have been entered on this thread; `None` if there are none.
#[cold]
pub(crate) fn leave() -> Option<LeftSpans> {
    // A panic of a subscriber must not unwind a fiber whose memory the kernel uses.
    contained(|| {
        // What a subscriber does at an exit may look for the default itself, which it would not find inside of this
        // closure.
        let dispatch = get_default(|dispatch| dispatch.current_span().id().map(|_| dispatch.clone()))?;
        let mut ids = Vec::new();
        while let Some(id) = dispatch.current_span().id().cloned() {
            dispatch.exit(&id);
            ids.push(id);
            // A subscriber that does not forget what is exited.
            if ids.len() == LEFT_MAX {
                break;
            }
        }
        Some(LeftSpans { dispatch, ids })
    })?
}

/// More than any program nests.
const LEFT_MAX: usize = 1000;

impl LeftSpans {
    /// Enters the spans again, in the order in which they were entered first.
    pub(crate) fn enter(&self) {
        contained(|| self.ids.iter().rev().for_each(|id| self.dispatch.enter(id)));
    }

    /// Exits them once more.
    pub(crate) fn exit(&self) {
        contained(|| self.ids.iter().for_each(|id| self.dispatch.exit(id)));
    }
}
