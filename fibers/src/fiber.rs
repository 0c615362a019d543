//! One fiber: its coroutine, the state that parking and waking turn on, and the queue that a wake puts it into.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use ringspun_runtime::{EventLoop, Wake, prefetch};

use crate::inquiry::Inquiry;
use crate::interrupt::{Deadline, Interrupt};
use crate::locals::Locals;
use crate::stack::{FiberStack, discard_below, release_below_caller};
use crate::wait_reason::WaitReason;

type Body = Coroutine<(), (), (), FiberStack>;

/// How many interrupts a fiber may ignore while its runtime ends before its stack is unwound, and how often it may
/// catch that before it is stopped for good.
const IGNORED_INTERRUPTS_MAX: u32 = 1000;
const CAUGHT_UNWINDS_MAX: u32 = 100;
/// A fiber that unwinds already cannot be unwound. It may have many values to drop, each of which tries to wait.
const IGNORED_WHILE_PANICKING_MAX: u32 = 100_000;

/// Each so many interrupts, a fiber lets others run.
const GIVE_WAY_EVERY: u32 = 16;

/// The largest function that is moved onto its fiber's stack, where there is room for 1 KiB. Others are boxed.
const MOVED_MAX_BYTES: usize = 512;

/// More than a switch to another stack puts below the frame that it is called from.
const SWITCH_SIZE_BYTES: usize = 4096;

/// How much of a stack is prefetched before its fiber resumes: the frames around where it parked.
const STACK_ABOVE_BYTES: usize = 640;
const STACK_BELOW_BYTES: usize = 128;

/// What the fibers of one runtime share, and all that they know of it.
pub(crate) struct RunQueue {
    event_loop: Rc<EventLoop>,
    ready: RefCell<Vec<Rc<Fiber>>>,
    ending: Cell<bool>,
    /// Fibers that have been stopped, and that the scheduler does not know of yet.
    stopped: RefCell<Vec<Rc<Fiber>>>,
    inquiry: Inquiry,
}

impl RunQueue {
    pub(crate) fn new(event_loop: Rc<EventLoop>) -> Rc<Self> {
        Rc::new(Self {
            event_loop,
            ready: RefCell::default(),
            ending: Cell::new(false),
            stopped: RefCell::default(),
            inquiry: Inquiry::default(),
        })
    }

    pub(crate) fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.borrow().is_empty()
    }

    #[inline(always)]
    pub(crate) fn push(&self, fiber: Rc<Fiber>) {
        self.ready.borrow_mut().push(fiber);
    }

    /// Takes what is ready now, and leaves the empty `batch` in its place.
    pub(crate) fn take(&self, batch: Vec<Rc<Fiber>>) -> Vec<Rc<Fiber>> {
        self.ready.replace(batch)
    }

    /// From now on every wait is interrupted.
    pub(crate) fn end(&self) {
        self.ending.set(true);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    pub(crate) fn inquiry(&self) -> &Inquiry {
        &self.inquiry
    }

    /// The fibers that have been stopped since the last call.
    pub(crate) fn take_stopped(&self) -> Vec<Rc<Fiber>> {
        self.stopped.take()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In the run queue.
    Ready,
    Running,
    /// Running, and woken meanwhile: the next park returns at once.
    Notified,
    Parked,
    /// It has ended, or has been stopped.
    Done,
}

/// A fiber, once its scheduler has panicked.
pub(crate) enum AfterPanic {
    Ready,
    Parked,
    /// It cannot run again.
    Over,
}

/// Somebody has cancelled the fiber, or its runtime is ending.
const CANCELLED: u8 = 1;
/// A dump asks what the fiber waits for.
const ASKED: u8 = 2;

/// What every wake and resume needs comes first, in as few cache lines as possible.
#[repr(C)]
pub(crate) struct Fiber {
    state: Cell<State>,
    /// `CANCELLED` and `ASKED`: what a fiber has to look at before it parks.
    flags: Cell<u8>,
    ignored_interrupts: Cell<u32>,
    queue: Rc<RunQueue>,
    /// Where on its stack the fiber parked last.
    parked_at: Cell<*const u8>,
    deadline: Cell<Option<Instant>>,
    /// The way back to the scheduler; set by the fiber itself when it starts, null until then.
    yielder: Cell<*const Yielder<(), ()>>,
    /// `None` only while the fiber is made, and after its end.
    body: RefCell<Option<Body>>,
    /// The scheduler's index of this fiber.
    pub(crate) listed_at: usize,
    guard: Range<usize>,
    stack_size_bytes: usize,
    /// How a wait ends at the deadline, and the number of the scope that set it.
    at_deadline: Cell<(Interrupt, u32)>,
    /// How many interrupts the fiber has met.
    raised: Cell<u32>,
    /// The scope whose deadline has ended a wait last; zero if none has.
    expired_scope: Cell<u32>,
    last_scope: Cell<u32>,
    /// Its group has been cancelled: as if the runtime ended.
    is_doomed: Cell<bool>,
    resumed_at: Cell<Option<Instant>>,
    locals: Locals,
    id: u64,
    name: Option<Box<str>>,
}

/// The panic payload that unwinds a fiber which ignores the end of its runtime.
pub(crate) struct Unwound;

impl Fiber {
    /// A fiber that is ready to run `function`, which must not unwind; the caller pushes it into the queue.
    pub(crate) fn new(
        queue: Rc<RunQueue>,
        (id, name): (u64, Option<Box<str>>),
        listed_at: usize,
        stack: FiberStack,
        function: impl FnOnce() + 'static,
    ) -> Rc<Self> {
        let fiber = Rc::new(Self {
            state: Cell::new(State::Ready),
            flags: Cell::new(if queue.is_ending() { CANCELLED } else { 0 }),
            ignored_interrupts: Cell::new(0),
            queue,
            parked_at: Cell::new(std::ptr::null()),
            deadline: Cell::new(None),
            yielder: Cell::new(std::ptr::null()),
            body: RefCell::new(None),
            listed_at,
            guard: stack.guard(),
            stack_size_bytes: stack.size_bytes(),
            at_deadline: Cell::new((Interrupt::DeadlineExpired, 0)),
            raised: Cell::new(0),
            expired_scope: Cell::new(0),
            last_scope: Cell::new(0),
            is_doomed: Cell::new(false),
            resumed_at: Cell::new(None),
            locals: Locals::default(),
            id,
            name,
        });
        fiber.body.replace(Some(match size_of_val(&function) {
            0..=MOVED_MAX_BYTES => fiber.coroutine(stack, function),
            _ => fiber.coroutine(stack, Box::new(function)),
        }));
        fiber
    }

    fn coroutine(self: &Rc<Self>, stack: FiberStack, function: impl FnOnce() + 'static) -> Body {
        let this = Rc::downgrade(self);
        Coroutine::with_stack(stack, move |yielder, ()| {
            if let Some(fiber) = this.upgrade() {
                fiber.yielder.set(yielder);
            }
            function();
        })
    }

    /// Gives the memory of the stack back that lies below the caller's frame, if that is on it.
    pub(crate) fn release_stack(&self) {
        let frame = 0_u8;
        let here = std::hint::black_box(&raw const frame) as usize;
        let usable = self.guard.end..self.guard.end + self.stack_size_bytes;
        if usable.contains(&here) {
            // SAFETY: this runs on the fiber's stack, whose usable part begins above its guard.
            unsafe { release_below_caller(usable.start) };
        }
    }

    /// Its number and its name.
    pub(crate) fn identity(&self) -> (u64, Option<&str>) {
        (self.id, self.name.as_deref())
    }

    pub(crate) fn locals(&self) -> &Locals {
        &self.locals
    }

    /// The addresses of its stack's guard.
    pub(crate) fn guard(&self) -> &Range<usize> {
        &self.guard
    }

    pub(crate) fn stack_size_bytes(&self) -> usize {
        self.stack_size_bytes
    }

    pub(crate) fn event_loop(&self) -> &Rc<EventLoop> {
        self.queue.event_loop()
    }

    /// Runs the fiber until it parks or ends; true once it has ended. Only for [`current::run`](crate::current::run).
    #[inline]
    pub(crate) fn resume(&self) -> bool {
        // The borrow lasts while the fiber runs; nothing else looks at the body, and a fiber cannot
        // resume itself.
        let mut body = self.body.borrow_mut();
        let Some(coroutine) = body.as_mut() else { return true };
        debug_assert_eq!(self.state.get(), State::Ready, "only what is in the run queue runs");
        self.state.set(State::Running);
        match coroutine.resume(()) {
            CoroutineResult::Yield(()) => false,
            CoroutineResult::Return(()) => {
                self.state.set(State::Done);
                // Gives the stack back now, not when the last handle goes.
                *body = None;
                true
            }
        }
    }

    /// What is to become of the fiber, after a panic has left the scheduler.
    pub(crate) fn after_panic(&self) -> AfterPanic {
        match self.state.get() {
            State::Ready => AfterPanic::Ready,
            State::Parked => AfterPanic::Parked,
            // The panic came from it, or passed through: its stack has been unwound.
            State::Running | State::Notified | State::Done => {
                self.state.set(State::Done);
                AfterPanic::Over
            }
        }
    }

    /// Parks the running fiber until the next wake; returns at once if one has come already.
    #[inline]
    pub(crate) fn park(&self) {
        if self.state.get() == State::Notified {
            self.state.set(State::Running);
            return;
        }
        debug_assert_eq!(self.state.get(), State::Running, "only the running fiber can park");
        self.state.set(State::Parked);
        self.suspend();
    }

    /// Lets the other fibers that are ready run before the running one, and the loop turn.
    pub(crate) fn give_way(&self) {
        self.state.set(State::Ready);
        self.queue.push(Rc::clone(&self.borrowed()));
        self.suspend();
    }

    #[inline]
    fn suspend(&self) {
        let here = 0_u8;
        self.parked_at.set(&raw const here);
        // SAFETY: the fiber set the yielder when it started, on the stack that it still runs on; only
        // code on that stack gets here, because every caller has the fiber from `current`.
        unsafe { &*self.yielder.get() }.suspend(());
    }

    /// This fiber as what wakes it, without a count of its own: a clone is only made where a waiter is left.
    #[inline]
    pub(crate) fn waiter(&self) -> ManuallyDrop<Rc<dyn Wake>> {
        let fiber: Rc<Self> = ManuallyDrop::into_inner(self.borrowed());
        ManuallyDrop::new(fiber)
    }

    #[inline]
    fn borrowed(&self) -> ManuallyDrop<Rc<Self>> {
        // SAFETY: every fiber lives in an `Rc`, as `new` gives out nothing else, and the result is never dropped,
        // so that the count stays right. The callers use it only while the fiber runs, and so exists.
        ManuallyDrop::new(unsafe { Rc::from_raw(self) })
    }

    /// Prefetches the fiber and the top of its stack while those before it in the queue run: with thousands of
    /// fibers, no cache holds them all.
    #[inline]
    fn prefetch(&self) {
        prefetch(std::ptr::from_ref(self).cast(), std::mem::offset_of!(Self, listed_at));
        prefetch(self.parked_at.get().wrapping_sub(STACK_BELOW_BYTES), STACK_BELOW_BYTES + STACK_ABOVE_BYTES);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// The deadline with all that belongs to it.
    pub(crate) fn whole_deadline(&self) -> Option<Deadline> {
        let (interrupt, scope) = self.at_deadline.get();
        self.deadline.get().map(|at| Deadline { at, interrupt, scope })
    }

    /// A number for a scope with a deadline, which is not zero.
    pub(crate) fn new_scope(&self) -> u32 {
        let scope = self.last_scope.get().wrapping_add(1).max(1);
        self.last_scope.set(scope);
        if self.expired_scope.get() == scope {
            self.expired_scope.set(0);
        }
        scope
    }

    /// The scope whose deadline has ended a wait last; zero if none has.
    pub(crate) fn expired_scope(&self) -> u32 {
        self.expired_scope.get()
    }

    pub(crate) fn set_deadline(&self, deadline: Option<Deadline>) {
        self.deadline.set(deadline.map(|deadline| deadline.at));
        if let Some(Deadline { interrupt, scope, .. }) = deadline {
            self.at_deadline.set((interrupt, scope));
        }
    }

    /// Interrupts the fiber's current wait, or else its next one.
    pub(crate) fn cancel(self: Rc<Self>) {
        self.flags.set(self.flags.get() | CANCELLED);
        self.wake();
    }

    /// Has the fiber tell what it waits for, when it parks next: now, if it is parked. Wakes may be spurious.
    pub(crate) fn ask(self: Rc<Self>) {
        self.flags.set(self.flags.get() | ASKED);
        self.wake();
    }

    /// Whether [`tell`](Self::tell) is due, or a cancel is pending.
    #[inline]
    pub(crate) fn has_flags(&self) -> bool {
        self.flags.get() != 0
    }

    /// Tells what the running fiber, which is about to park, waits for, if it has been asked.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell(&self, reason: &dyn Fn() -> WaitReason) {
        let flags = self.flags.get();
        if flags & ASKED != 0 {
            self.flags.set(flags & !ASKED);
            let stack = self.guard.end..self.guard.end + self.stack_size_bytes;
            self.queue.inquiry().answer(self.id, stack, reason);
        }
    }

    /// Takes a question back; true if it has been answered.
    pub(crate) fn stop_asking(&self) -> bool {
        let flags = self.flags.replace(self.flags.get() & !ASKED);
        flags & ASKED == 0
    }

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Whether it has run at all.
    pub(crate) fn has_begun(&self) -> bool {
        !self.yielder.get().is_null()
    }

    /// When it ran last; `None` unless that is recorded.
    pub(crate) fn resumed_at(&self) -> Option<Instant> {
        self.resumed_at.get()
    }

    /// Notes when the fiber, which is ready, runs. A wake by a dump does not count.
    pub(crate) fn note_resumed(&self, now: Instant) {
        if self.flags.get() & ASKED == 0 {
            self.resumed_at.set(Some(now));
        }
    }

    /// Gives back the memory below the frames of a parked fiber.
    pub(crate) fn trim_stack(&self) {
        if self.state.get() == State::Parked {
            let used = self.parked_at.get().addr().saturating_sub(SWITCH_SIZE_BYTES);
            // SAFETY: the fiber is parked, so that nothing below the frames of its switch is in use.
            unsafe { discard_below(self.guard.end, used) };
        }
    }

    /// Interrupts the fiber's current wait and all later ones.
    pub(crate) fn cancel_for_good(self: Rc<Self>) {
        self.is_doomed.set(true);
        self.cancel();
    }

    /// Whether every wait is interrupted from now on.
    fn is_to_end(&self) -> bool {
        self.queue.is_ending() || self.is_doomed.get()
    }

    /// The reason for which a wait has to end now, if there is one.
    #[inline]
    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        if self.flags.get() & CANCELLED != 0 {
            return Some(Interrupt::Cancelled);
        }
        self.deadline.get().filter(|deadline| self.is_over(*deadline)).map(|_| self.at_deadline.get().0)
    }

    /// Out of line, as most waits have no deadline.
    #[cold]
    fn is_over(&self, deadline: Instant) -> bool {
        self.event_loop().now() >= deadline
    }

    /// As [`interrupt`](Self::interrupt), and counts it as raised.
    #[inline]
    pub(crate) fn take_interrupt(&self) -> Option<Interrupt> {
        let interrupt = self.interrupt()?;
        self.raise(interrupt);
        Some(interrupt)
    }

    #[cold]
    fn raise(&self, interrupt: Interrupt) {
        self.raised.set(self.raised.get().wrapping_add(1));
        if interrupt == Interrupt::Cancelled {
            let others = self.flags.get() & !CANCELLED;
            self.flags.set(if self.is_to_end() { others | CANCELLED } else { others });
        } else {
            self.expired_scope.set(self.at_deadline.get().1);
        }
        self.count_ignored();
    }

    /// Whether the fiber should let others run before it gets its interrupt: it may be one that tries again and again,
    /// and never parks. Not while the runtime ends, when such a fiber is stopped.
    pub(crate) fn should_give_way(&self) -> bool {
        let is_due = self.raised.get().is_multiple_of(GIVE_WAY_EVERY);
        is_due && !self.queue.is_ending() && !std::thread::panicking()
    }

    /// Counts a call that failed at once, with an interrupt or otherwise: a fiber that makes it again and again
    /// would keep its runtime from ending.
    #[cold]
    pub(crate) fn count_ignored(&self) {
        if !self.is_to_end() {
            return;
        }
        let ignored = self.ignored_interrupts.get() + 1;
        self.ignored_interrupts.set(ignored);
        if std::thread::panicking() {
            if ignored > IGNORED_WHILE_PANICKING_MAX {
                self.stop();
            }
        } else if ignored > IGNORED_INTERRUPTS_MAX + CAUGHT_UNWINDS_MAX {
            self.stop();
        } else if ignored > IGNORED_INTERRUPTS_MAX {
            std::panic::resume_unwind(Box::new(Unwound));
        }
    }

    /// Parks the running fiber for good. The scheduler must leak it, as others may still refer to its stack.
    fn stop(&self) -> ! {
        self.state.set(State::Done);
        self.queue.stopped.borrow_mut().push(Rc::clone(&self.borrowed()));
        self.suspend();
        // Nobody resumes what is not in the run queue, and no wake puts it there.
        std::process::abort()
    }
}

impl Wake for Fiber {
    #[inline]
    fn wake(self: Rc<Self>) {
        if self.state.get() == State::Parked {
            self.state.set(State::Ready);
            self.prefetch();
            // SAFETY: the queue outlives the call: the fiber, which holds it, is in it from then on.
            let queue = unsafe { &*Rc::as_ptr(&self.queue) };
            queue.push(self);
        } else if self.state.get() == State::Running {
            self.state.set(State::Notified);
        }
    }
}
