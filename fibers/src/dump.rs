//! Dumps: each fiber of a runtime, what it waits for and since when, and its stack.
//!
//! Nothing is recorded for this. A dump wakes the parked fibers in turn, a batch at a time: as after any spurious
//! wake, each looks again whether what it waits for has happened. If not, it tells what that is before it parks again.

use std::backtrace::Backtrace;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::current::with_current;
use crate::fiber::{Fiber, State};
use crate::frames::frames;
use crate::inquiry::Wait;
use crate::runtimes::thread_name;
use crate::scheduler::Scheduler;
use crate::wait::give_way;
use crate::wait_reason::WaitReason;

/// Fibers asked between two turns of the event loop, which must not wait long for them.
const ASKED_AT_ONCE: usize = 256;
/// Fibers of a group that are printed one by one.
const LISTED_MAX: usize = 10;

/// The fibers of a runtime at a time, from [`dump`]. Printed, it groups those that wait in the same place.
///
/// It may be printed on another thread: the names of functions are looked up then, which takes a second for a large
/// program with debug information. Without that, a stack has names only, and in a stripped program none.
pub struct Dump {
    thread: String,
    backend: &'static str,
    fibers: Vec<FiberReport>,
    stacks: Vec<Arc<Backtrace>>,
}

/// A fiber in a [`Dump`].
#[derive(Clone)]
pub struct FiberReport {
    id: u64,
    name: Option<Box<str>>,
    state: FiberState,
    reason: Option<WaitReason>,
    resumed_before: Option<Duration>,
    /// Which of the dump's stacks is its.
    pub(crate) stack: Option<usize>,
}

/// What a fiber does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FiberState {
    /// It has called [`dump`].
    Dumping,
    /// It is about to run, and has not parked since it was asked.
    Ready,
    /// It has not run yet.
    New,
    /// It waits.
    Parked,
}

impl Dump {
    /// The fibers that have not ended, in the order in which they were started.
    pub fn fibers(&self) -> &[FiberReport] {
        &self.fibers
    }

    /// The name of the thread.
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The backend of the event loop.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// The functions on the stack of a fiber of this dump, the innermost first, each with its place in the source if it
    /// is known. Empty if the stack could not be looked at.
    pub fn stack_of(&self, fiber: &FiberReport) -> Vec<String> {
        fiber.stack.map(|stack| frames(&self.stacks[stack])).unwrap_or_default()
    }
}

impl FiberReport {
    /// The fiber's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The fiber's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the fiber does.
    pub fn state(&self) -> FiberState {
        self.state
    }

    /// What it waits for; `None` unless it is parked.
    pub fn reason(&self) -> Option<&WaitReason> {
        self.reason.as_ref()
    }

    /// Since when it waits, or rather since when it has not run: `None` unless the runtime
    /// [records that](crate::Runtime::record_waits).
    pub fn waiting_for(&self) -> Option<Duration> {
        self.resumed_before
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread '{}' ({}): {}", self.thread, self.backend, counted(self.fibers.len()))?;
        for (group, fibers) in grouped(&self.fibers) {
            self.write_group(f, group, &fibers)?;
        }
        Ok(())
    }
}

impl Dump {
    fn write_group(&self, f: &mut fmt::Formatter<'_>, group: Group, fibers: &[&FiberReport]) -> fmt::Result {
        let (state, stack, _) = group;
        write!(f, "\n\n{}", counted(fibers.len()))?;
        f.write_str(match state {
            FiberState::Dumping => ", which takes this dump:",
            FiberState::Ready => ", ready to run:",
            FiberState::New => " that has not run yet:",
            FiberState::Parked => ", parked:",
        })?;
        for fiber in &fibers[..fibers.len().min(LISTED_MAX)] {
            write!(f, "\n    {fiber}")?;
        }
        if fibers.len() > LISTED_MAX {
            write!(f, "\n    and {} more", fibers.len() - LISTED_MAX)?;
        }
        let frames = stack.map(|stack| frames(&self.stacks[stack]));
        match frames {
            Some(frames) => frames.iter().try_for_each(|frame| write!(f, "\n        {frame}")),
            None if state == FiberState::Parked => write!(f, "\n        no room on its stack to look at it"),
            None => Ok(()),
        }
    }
}

fn counted(fibers: usize) -> String {
    format!("{fibers} fiber{}", if fibers == 1 { "" } else { "s" })
}

impl fmt::Display for FiberReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fiber {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " '{name}'")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " waits for: {reason}")?;
        }
        match self.resumed_before {
            Some(since) => write!(f, ", for {since:.3?}"),
            None => Ok(()),
        }
    }
}

/// Which fibers are printed together: those with the same stack that wait for the same operation.
type Group = (FiberState, Option<usize>, Option<&'static str>);

/// The groups, the largest first, with the fibers of each, those that wait longest first.
fn grouped(fibers: &[FiberReport]) -> Vec<(Group, Vec<&FiberReport>)> {
    let mut groups: HashMap<Group, Vec<&FiberReport>> = HashMap::new();
    for fiber in fibers {
        let group = (fiber.state, fiber.stack, fiber.reason.as_ref().map(WaitReason::operation));
        groups.entry(group).or_default().push(fiber);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    for (_, fibers) in &mut groups {
        fibers.sort_by_key(|fiber| (Reverse(fiber.resumed_before), fiber.id));
    }
    groups.sort_by_key(|(_, fibers)| (Reverse(fibers.len()), fibers[0].id));
    groups
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("thread", &self.thread).field("fibers", &self.fibers).finish()
    }
}

impl fmt::Debug for FiberReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = format_args!("{:?}, {:?}", self.state, self.reason);
        write!(f, "fiber {} {:?}: {state}", self.id, self.name)
    }
}

/// Tells what each fiber of this thread's runtime waits for, and its stack.
///
/// Wakes all parked fibers once, 256 between two turns of the event loop, so that other fibers run meanwhile. One whose
/// event has come goes on. A fiber with less than 12 KiB left on its stack is told without its stack. A fiber that
/// never lets others run keeps this from running, too.
///
/// Pending interrupts of the caller are left to its next wait.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, Channel, FiberBuilder};
///
/// fibers::run(|| {
///     let jobs = Channel::<u32>::bounded(4);
///     let taken = jobs.clone();
///     let worker = FiberBuilder::new().name("worker").spawn(move || taken.take()).unwrap();
///     let dump = fibers::dump();
///     let worker_waits = dump.fibers().iter().find(|fiber| fiber.name() == Some("worker")).unwrap();
///     assert_eq!(worker_waits.reason().unwrap().operation(), "take from");
///     assert!(dump.to_string().contains("Channel<u32>"));
///     worker.cancel();
/// })
/// .unwrap();
/// ```
pub fn dump() -> Dump {
    let scheduler = with_current(|_| Scheduler::current());
    let Some(scheduler) = scheduler else { unreachable!("a fiber has a scheduler") };
    let queue = scheduler.queue();
    while !queue.inquiry().begin() {
        // Another fiber takes one, which ends soon.
        give_way();
    }
    let now = scheduler.event_loop().now();
    let fibers = scheduler.fibers();
    let caller = with_current(|fiber| fiber.identity().0);
    let since: Vec<_> =
        fibers.iter().map(|fiber| Some(now.saturating_duration_since(fiber.resumed_at()?))).collect();
    for batch in fibers.chunks(ASKED_AT_ONCE) {
        for fiber in batch.iter().filter(|fiber| fiber.identity().0 != caller && fiber.state() != State::Done)
        {
            fiber.clone().ask();
        }
        // Those that were woken run before this one does again.
        give_way();
        for fiber in batch {
            if fiber.stop_asking() {
                fiber.trim_stack();
            }
        }
    }
    let mut answers = queue.inquiry().end();
    let report = |(fiber, since): (&Rc<Fiber>, Option<Duration>)| {
        let wait = answers.waits.remove(&fiber.identity().0);
        report(fiber, caller, wait, since)
    };
    let mut fibers: Vec<_> = fibers.iter().zip(since).filter_map(report).collect();
    fibers.sort_by_key(|fiber| fiber.id);
    Dump {
        thread: thread_name(),
        backend: scheduler.event_loop().backend_name(),
        fibers,
        stacks: answers.stacks,
    }
}

/// `None` if the fiber has ended meanwhile.
fn report(fiber: &Fiber, caller: u64, wait: Option<Wait>, since: Option<Duration>) -> Option<FiberReport> {
    let (id, name) = fiber.identity();
    let state = match fiber.state() {
        _ if id == caller => FiberState::Dumping,
        State::Done => return None,
        _ if !fiber.has_begun() => FiberState::New,
        State::Parked if wait.is_some() => FiberState::Parked,
        _ => FiberState::Ready,
    };
    let wait = wait.filter(|_| state == FiberState::Parked);
    let since = since.filter(|_| state == FiberState::Parked);
    let stack = wait.as_ref().and_then(|wait| wait.stack);
    let reason = wait.map(|wait| wait.reason);
    Some(FiberReport { id, name: name.map(Box::from), state, reason, resumed_before: since, stack })
}
