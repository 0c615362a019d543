//! One fiber: its coroutine, and the state that parking and waking turn on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use ringspun_runtime::{Wake, prefetch};

use crate::channel::Channel;
use crate::interrupt::Interrupt;
use crate::overflow::Subject;
use crate::running::Turn;
use crate::scheduler::Scheduler;
use crate::stack::FiberStack;
use crate::supervisor::FiberEvent;

type Body = Coroutine<(), (), (), FiberStack>;

/// How often a fiber may ignore that its runtime ends before its stack is unwound.
const IGNORED_INTERRUPTS: u32 = 1000;

/// How much of a stack is fetched before its fiber resumes: the frames between where it parks and what runs
/// in it next.
const STACK_AHEAD_BYTES: usize = 768;
const STACK_BELOW_BYTES: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In the run queue.
    Ready,
    Running,
    /// Running, and woken meanwhile: the next park returns at once.
    Notified,
    Parked,
    Done,
}

/// What every wake and resume needs comes first, in this order, in as few cache lines as it goes.
#[repr(C)]
pub(crate) struct Fiber {
    state: Cell<State>,
    cancelled: Cell<bool>,
    ignored_interrupts: Cell<u32>,
    scheduler: Rc<Scheduler>,
    /// Where on its stack the fiber has parked last.
    parked_at: Cell<*const u8>,
    deadline: Cell<Option<Instant>>,
    /// The way back to the scheduler; set by the fiber itself when it starts, null until then.
    yielder: Cell<*const Yielder<(), ()>>,
    /// Absent before the first resume has been prepared and after the end.
    body: RefCell<Option<Body>>,
    /// Where the scheduler lists this fiber.
    pub(crate) listed_at: Cell<usize>,
    supervisor: Option<Channel<FiberEvent>>,
    subject: Subject,
}

/// The panic payload that unwinds a fiber which ignores the end of its runtime.
pub(crate) struct Unwound;

impl Fiber {
    pub(crate) fn new(
        scheduler: Rc<Scheduler>,
        id: u64,
        name: Option<Box<str>>,
        supervisor: Option<Channel<FiberEvent>>,
        stack: FiberStack,
        function: impl FnOnce() + 'static,
    ) -> Rc<Self> {
        let subject = Subject { guard: stack.guard(), stack_size_bytes: stack.size_bytes(), id, name };
        let fiber = Rc::new(Self {
            subject,
            scheduler,
            supervisor,
            state: Cell::new(State::Ready),
            body: RefCell::new(None),
            yielder: Cell::new(std::ptr::null()),
            parked_at: Cell::new(std::ptr::null()),
            cancelled: Cell::new(false),
            deadline: Cell::new(None),
            ignored_interrupts: Cell::new(0),
            listed_at: Cell::new(usize::MAX),
        });
        let this = Rc::downgrade(&fiber);
        let body = Coroutine::with_stack(stack, move |yielder, ()| {
            if let Some(fiber) = this.upgrade() {
                fiber.yielder.set(yielder);
            }
            function();
        });
        fiber.body.replace(Some(body));
        fiber
    }

    pub(crate) fn scheduler(&self) -> &Rc<Scheduler> {
        &self.scheduler
    }

    /// Its number and its name.
    pub(crate) fn identity(&self) -> (u64, Option<&str>) {
        (self.subject.id, self.subject.name.as_deref())
    }

    /// What the handler of a stack overflow needs to know of it.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn supervisor(&self) -> Option<&Channel<FiberEvent>> {
        self.supervisor.as_ref()
    }

    /// Runs the fiber until it parks or ends; true at its end.
    pub(crate) fn resume(self: &Rc<Self>) -> bool {
        // The borrow lasts while the fiber runs; nothing else looks at the body, and a fiber cannot
        // resume itself.
        let mut body = self.body.borrow_mut();
        let Some(coroutine) = body.as_mut() else { return true };
        debug_assert_eq!(self.state.get(), State::Ready, "only what is in the run queue runs");
        self.state.set(State::Running);
        let turn = Turn::of(self);
        let result = coroutine.resume(());
        drop(turn);
        match result {
            CoroutineResult::Yield(()) => false,
            CoroutineResult::Return(()) => {
                self.state.set(State::Done);
                // Gives the stack back now, not when the last handle goes.
                *body = None;
                true
            }
        }
    }

    /// Parks the running fiber until the next wake; returns at once if one has come already.
    pub(crate) fn park(&self) {
        if self.state.get() == State::Notified {
            self.state.set(State::Running);
            return;
        }
        debug_assert_eq!(self.state.get(), State::Running, "only the running fiber can park");
        self.state.set(State::Parked);
        let here = 0_u8;
        self.parked_at.set(&raw const here);
        // SAFETY: the fiber set the yielder when it started, on the stack that it still runs on; only
        // code on that stack gets here, because parking goes through the scheduler's current fiber.
        unsafe { &*self.yielder.get() }.suspend(());
    }

    /// Has the processor fetch the fiber, and what it has on its stack, while those before it in the queue run:
    /// with thousands of fibers, no cache holds them all.
    fn prefetch(&self) {
        prefetch(std::ptr::from_ref(self).cast(), size_of::<Self>());
        prefetch(self.parked_at.get().wrapping_sub(STACK_BELOW_BYTES), STACK_AHEAD_BYTES);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// Interrupts the fiber's current wait, or else its next one.
    pub(crate) fn cancel(self: Rc<Self>) {
        self.cancelled.set(true);
        self.wake();
    }

    /// The reason for which a wait has to end now, if there is one.
    #[inline]
    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        if self.cancelled.get() || self.scheduler.is_ending() {
            return Some(Interrupt::Cancelled);
        }
        self.deadline.get().filter(|deadline| self.is_over(*deadline)).map(|_| Interrupt::DeadlineExpired)
    }

    /// Out of line, as most waits have no deadline.
    #[cold]
    fn is_over(&self, deadline: Instant) -> bool {
        self.scheduler.event_loop().now() >= deadline
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
        if interrupt == Interrupt::Cancelled {
            self.cancelled.set(false);
        }
        if self.scheduler.is_ending() && !std::thread::panicking() {
            let ignored = self.ignored_interrupts.get() + 1;
            self.ignored_interrupts.set(ignored);
            if ignored > IGNORED_INTERRUPTS {
                std::panic::resume_unwind(Box::new(Unwound));
            }
        }
    }
}

impl Wake for Fiber {
    fn wake(self: Rc<Self>) {
        match self.state.get() {
            State::Parked => {
                self.state.set(State::Ready);
                self.prefetch();
                let scheduler = self.scheduler.clone();
                scheduler.make_ready(self);
            }
            State::Running => self.state.set(State::Notified),
            State::Ready | State::Notified | State::Done => {}
        }
    }
}
