//! The scheduler: runs what is ready, then turns the event loop, until the main fiber has ended.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use ringspun_runtime::{EventLoop, Wait, contained, trace_point};
use slab::Slab;

use crate::channel::Channel;
use crate::current;
use crate::event::{FiberEvent, FiberEventKind};
use crate::fiber::{AfterPanic, Fiber, RunQueue};
use crate::group::Member;
use crate::pulse::Pulse;
use crate::remote::RemoteTasks;
use crate::spans;
use crate::stack::{FiberStack, StackPool};

/// How many fibers may be started while a runtime ends. Fibers that first run then may start others, but fibers
/// that start their own successors must not keep the runtime from ending.
const STARTED_WHILE_ENDING_MAX: u32 = 100_000;
/// How many panics of code that runs between fibers the end of a runtime survives.
const PANICS_WHILE_ENDING_MAX: u32 = 100;
/// Each so many batches of fibers.
const LOOK_AT_SPANS_EVERY: u32 = 16;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
    /// A fiber was stopped while it unwound: the thread has counted as panicking since.
    static PANICS_FOR_GOOD: Cell<bool> = const { Cell::new(false) };
}

pub(crate) struct Scheduler {
    queue: Rc<RunQueue>,
    /// Empty between batches: the memory of the last one, for the next.
    batch: Cell<Vec<Rc<Fiber>>>,
    batches: Cell<u32>,
    fibers: RefCell<Slab<Listed>>,
    next_id: Cell<u64>,
    started_while_ending: Cell<u32>,
    stacks: StackPool,
    stack_size_bytes: usize,
    /// Notes when each fiber runs.
    records_waits: bool,
    remote: RemoteTasks,
    /// For those who watch whether the loop turns.
    pulse: Option<Arc<Pulse>>,
}

/// A fiber that has not ended, its supervisor and its group.
struct Listed {
    fiber: Rc<Fiber>,
    supervisor: Option<Channel<FiberEvent>>,
    member: Option<Member>,
}

/// Has a scheduler be the thread's until it is dropped.
pub(crate) struct Entered {
    /// That of another process, if this one was forked in a fiber.
    outer: Option<Rc<Scheduler>>,
    _fiber: current::Hidden,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(scheduler) = CURRENT.replace(self.outer.take())
            && scheduler.is_ours()
        {
            // Not in a forked child, where the lock may be held by a thread that is not there.
            scheduler.remote.end();
        }
    }
}

/// In one place, whatever functions fibers are made of: tracers also find those that the linker has left out.
#[inline(never)]
fn note_start(id: u64) {
    trace_point!(fiber_start, id);
}

impl Scheduler {
    /// A scheduler for this thread, which must not have one.
    ///
    /// Fails on a thread on which a fiber had to be stopped while it unwound, and while the thread's own variables are
    /// destroyed.
    pub(crate) fn new(
        event_loop: Rc<EventLoop>,
        stack_size_bytes: usize,
        records_waits: bool,
        pulse: Option<Arc<Pulse>>,
    ) -> io::Result<Rc<Self>> {
        if CURRENT.try_with(|_| ()).is_err() {
            let text = "the thread ends: its variables are being destroyed, and no runtime can start on it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if PANICS_FOR_GOOD.get() {
            let text = "a fiber of an earlier runtime on this thread had to be stopped while it panicked, so that no \
                        fiber of the thread can wait any more: start this runtime on another thread";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(Rc::new(Self {
            remote: RemoteTasks::new(event_loop.remote_waker()),
            queue: RunQueue::new(event_loop),
            batch: Cell::default(),
            batches: Cell::new(0),
            fibers: RefCell::default(),
            next_id: Cell::new(0),
            started_while_ending: Cell::new(0),
            stacks: StackPool::default(),
            stack_size_bytes,
            records_waits,
            pulse,
        }))
    }

    /// The scheduler of this thread, if one has been entered, and not before this process was forked. None while the
    /// thread's own variables are destroyed at its end, whose destructors may ask.
    pub(crate) fn current() -> Option<Rc<Self>> {
        let of_thread = CURRENT
            .try_with(|current| current.borrow().as_ref().filter(|current| current.is_ours()).cloned());
        of_thread.ok().flatten()
    }

    /// Makes this the scheduler of the thread, as long as the result lives.
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        Entered { outer: CURRENT.replace(Some(self.clone())), _fiber: current::hide() }
    }

    /// Whether this is the process that the fibers belong to. In a forked child only the fiber that forked continues,
    /// until it parks or ends.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.event_loop().check_process().is_ok()
    }

    pub(crate) fn event_loop(&self) -> &Rc<EventLoop> {
        self.queue.event_loop()
    }

    pub(crate) fn queue(&self) -> &RunQueue {
        &self.queue
    }

    /// The fibers that have not ended.
    pub(crate) fn fibers(&self) -> Vec<Rc<Fiber>> {
        self.fibers.borrow().iter().map(|(_, listed)| listed.fiber.clone()).collect()
    }

    pub(crate) fn remote(&self) -> &RemoteTasks {
        &self.remote
    }

    pub(crate) fn stacks(&self) -> &StackPool {
        &self.stacks
    }

    /// Takes a stack for a new fiber, of the default size if none is given.
    ///
    /// Fails if a runtime that ends has started too many, and as [`StackPool::take`].
    pub(crate) fn take_stack(&self, size_bytes: Option<usize>) -> io::Result<FiberStack> {
        if self.queue.is_ending() {
            let started = self.started_while_ending.get();
            if started == STARTED_WHILE_ENDING_MAX {
                let text = format!(
                    "the runtime is ending, and has started {started} fibers since: it starts no more"
                );
                return Err(io::Error::other(text));
            }
            self.started_while_ending.set(started + 1);
        }
        self.stacks.take(size_bytes.unwrap_or(self.stack_size_bytes))
    }

    /// A number for a new fiber.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// Makes a fiber that is ready to run `function`, which must not unwind.
    pub(crate) fn add(
        &self,
        identity: (u64, Option<Box<str>>),
        supervisor: Option<Channel<FiberEvent>>,
        member: Option<Member>,
        stack: FiberStack,
        function: impl FnOnce() + 'static,
    ) -> Rc<Fiber> {
        let mut fibers = self.fibers.borrow_mut();
        let entry = fibers.vacant_entry();
        note_start(identity.0);
        let fiber = Fiber::new(self.queue.clone(), identity, entry.key(), stack, function);
        if let Some(member) = &member {
            member.join(&fiber);
        }
        entry.insert(Listed { fiber: fiber.clone(), supervisor, member });
        self.queue.push(fiber.clone());
        fiber
    }

    /// How many fibers have not ended.
    pub(crate) fn alive(&self) -> usize {
        self.fibers.borrow().len()
    }

    pub(crate) fn supervisor_of(&self, fiber: &Fiber) -> Option<Channel<FiberEvent>> {
        self.fibers.borrow().get(fiber.listed_at)?.supervisor.clone()
    }

    /// Runs the fibers that are ready now; those they make ready wait for the next batch, after a turn
    /// of the loop, so that none can keep the loop from turning.
    fn run_ready(&self) {
        let mut batch = self.queue.take(self.batch.take());
        if self.records_waits {
            let now = self.event_loop().now();
            batch.iter().for_each(|fiber| fiber.note_resumed(now));
        }
        let event_loop: &EventLoop = self.event_loop();
        for fiber in batch.drain(..) {
            if current::run(&fiber) {
                trace_point!(fiber_end, fiber.identity().0);
                spans::leave_for_good();
                drop(self.remove(&fiber));
            }
            // In a forked child the others must not run.
            if event_loop.check_process().is_err() {
                break;
            }
        }
        self.batch.set(batch);
        let batches = self.batches.get().wrapping_add(1);
        self.batches.set(batches);
        if batches.is_multiple_of(LOOK_AT_SPANS_EVERY) {
            spans::look();
        }
    }

    fn remove(&self, fiber: &Fiber) -> Option<Listed> {
        self.fibers.borrow_mut().try_remove(fiber.listed_at)
    }

    /// Leaks the fibers that have been stopped, and reports each.
    fn leak_stopped(&self) {
        for fiber in self.queue.take_stopped() {
            // It will not come back to those that it has entered.
            drop(spans::leave());
            PANICS_FOR_GOOD.set(PANICS_FOR_GOOD.get() || std::thread::panicking());
            report_stopped(&fiber);
            if let Some(Listed { supervisor, member, .. }) = self.remove(&fiber) {
                if let Some(supervisor) = supervisor {
                    supervisor.give_at_once(FiberEvent::of(&fiber, FiberEventKind::Stopped));
                }
                // What it borrows may go away: it never runs again.
                if let Some(member) = member {
                    member.leave();
                }
            }
            std::mem::forget(fiber);
        }
    }

    /// Runs until `done`.
    pub(crate) fn run_until(&self, done: impl Fn() -> bool) -> io::Result<()> {
        loop {
            self.run_ready();
            self.leak_stopped();
            if done() {
                return Ok(());
            }
            // Trims stacks only when the loop has nothing else to do.
            let wait = if self.queue.is_empty() && self.stacks.trim() { Wait::Block } else { Wait::No };
            self.turn(wait)?;
            for task in self.remote.take() {
                contained(task);
            }
        }
    }

    fn turn(&self, wait: Wait) -> io::Result<()> {
        let Some(pulse) = &self.pulse else { return self.event_loop().turn(wait) };
        if wait == Wait::Block {
            pulse.note_wait();
        }
        let turned = self.event_loop().turn(wait);
        pulse.note_turn();
        turned
    }

    /// As [`run_until`](Self::run_until), but once that has panicked, ends everything first: parked fibers cannot be
    /// dropped, as the kernel may use their stacks. What panics is code of others that runs between fibers: a
    /// [`Wake`](ringspun_runtime::Wake), or what a fiber's end drops.
    ///
    /// Fails with the panic, and whether everything has ended.
    pub(crate) fn try_run_until(
        &self,
        done: impl Fn() -> bool,
    ) -> Result<io::Result<()>, (Box<dyn Any + Send>, bool)> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_until(done)));
        let Err(payload) = ran else { return Ok(ran.unwrap_or(Ok(()))) };
        for _ in 0..PANICS_WHILE_ENDING_MAX {
            self.recover_queue();
            match catch_unwind(AssertUnwindSafe(|| self.end())) {
                Ok(ended) => return Err((payload, ended.is_ok())),
                Err(another) => std::mem::forget(another),
            }
        }
        Err((payload, false))
    }

    /// Has those run again that a panic has thrown out of the run queue.
    fn recover_queue(&self) {
        drop(self.queue.take(Vec::new()));
        let fibers: Vec<_> = self.fibers.borrow().iter().map(|(_, listed)| listed.fiber.clone()).collect();
        for fiber in fibers {
            match fiber.after_panic() {
                AfterPanic::Ready => self.queue.push(fiber),
                AfterPanic::Parked => {}
                AfterPanic::Over => drop(self.remove(&fiber)),
            }
        }
    }

    /// Cancels every fiber and runs them to their ends, then drains the loop.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.queue.end();
        for fiber in self.fibers() {
            fiber.cancel();
        }
        self.run_until(|| self.alive() == 0)?;
        self.event_loop().shutdown()
    }
}

/// Logs it, or prints it where no subscriber takes the log.
fn report_stopped(fiber: &Fiber) {
    let (id, name) = fiber.identity();
    let name = name.map(|name| format!(" '{name}'")).unwrap_or_default();
    let text = format!(
        "fiber {id}{name} had to be stopped: it kept running after its runtime had begun to end, or its group had been \
         cancelled, and caught the panic that was to unwind it; its stack is leaked"
    );
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "ringspun: {text}");
    }
}
