//! A Janet fiber parked on one of our machines: started by a function, driven by completions, ended by
//! its result, its timeout, or whatever else resumes the fiber.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::api as janet;
use crate::api::{Janet, JanetFiber, JanetStream};
use ringspun_net::machine::EXHAUSTED_PAUSE;
use ringspun_runtime::{TimerKey, Wake};

use crate::bridge::{Bridge, Waiting};
use crate::values::{Verdict, string};
use crate::work::{Context, Outcome, Step, Work};

/// One parked fiber.
pub(crate) struct Parked {
    bridge: Rc<Bridge>,
    fiber: *mut JanetFiber,
    /// The stream waited on; null while connecting, as there is none yet.
    stream: *mut JanetStream,
    /// The fiber's schedule count when it parked: a higher one means that something else resumes it.
    schedule_id: u32,
    work: RefCell<Option<Work>>,
    /// The loop has the outcome for the fiber, which has not resumed yet.
    delivered: Cell<bool>,
    /// In the bridge's list of those that run soon.
    woken: Cell<bool>,
    index: Cell<usize>,
    deadline: Option<Instant>,
    timer: Cell<Option<TimerKey>>,
}

/// Starts `work` for the running fiber: polls it once and, if it is not ready, parks the fiber. Either
/// way the fiber yields to the loop, as with the VM's own functions.
///
/// # Safety
///
/// Called from a function that the VM called, in a fiber of the loop; `stream` is null or alive.
pub(crate) unsafe fn start(
    bridge: &Rc<Bridge>,
    stream: *mut JanetStream,
    work: Work,
    timeout_s: f64,
) -> Verdict {
    let parked = prepare(bridge, stream, work, timeout_s);
    match parked.poll() {
        Poll::Ready(outcome) => {
            if parked.has_unseen_bytes() {
                parked.clone().park();
            }
            parked.deliver(outcome);
            recycle(parked);
        }
        Poll::Pending => {
            parked.clone().park();
            parked.arm_timer();
        }
    }
    Verdict::Await
}

/// As [`start`], for functions that only wait for a lookup or a connect: an immediate result is returned without a
/// yield, as by the VM's own functions, so that they work where a program cannot yield.
///
/// # Safety
///
/// As [`start`].
pub(crate) unsafe fn start_or_return(bridge: &Rc<Bridge>, work: Work) -> Verdict {
    let parked = prepare(bridge, std::ptr::null_mut(), work, f64::INFINITY);
    match parked.poll() {
        Poll::Ready(Outcome::Value(value)) => Verdict::Return(value),
        Poll::Ready(Outcome::Error(error)) => Verdict::Raise(error),
        Poll::Pending => {
            parked.park();
            Verdict::Await
        }
    }
}

fn prepare(bridge: &Rc<Bridge>, stream: *mut JanetStream, work: Work, timeout_s: f64) -> Rc<Parked> {
    // SAFETY: the VM runs a fiber on this thread, so there is a root fiber.
    let (fiber, schedule_id) = unsafe {
        let fiber = janet::janet_root_fiber();
        if (*fiber).ev_callback.is_some() {
            // C code has called a function that had to wait, has taken that for an error, and went on.
            janet::janet_async_end(fiber);
        }
        (fiber, (*fiber).sched_id)
    };
    let deadline = deadline_after(bridge, timeout_s);
    if let Some(mut spare) = SPARE.with_borrow_mut(Vec::pop)
        && Rc::ptr_eq(&spare.bridge, bridge)
        && let Some(parked) = Rc::get_mut(&mut spare)
    {
        // With many fibers, allocating and freeing takes a twelfth of an echo's instructions.
        (parked.fiber, parked.stream, parked.schedule_id, parked.deadline) =
            (fiber, stream, schedule_id, deadline);
        *parked.work.get_mut() = Some(work);
        parked.delivered.set(false);
        return spare;
    }
    Rc::new(Parked {
        bridge: bridge.clone(),
        fiber,
        stream,
        schedule_id,
        work: RefCell::new(Some(work)),
        delivered: Cell::new(false),
        woken: Cell::new(false),
        index: Cell::new(usize::MAX),
        deadline,
        timer: Cell::new(None),
    })
}

/// How many ended operations are kept so that their memory can be reused.
const SPARE_MAX: usize = 1024;

thread_local! {
    static SPARE: RefCell<Vec<Rc<Parked>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the memory of an ended operation for reuse, unless it is still referenced.
#[inline]
fn recycle(parked: Rc<Parked>) {
    if Rc::strong_count(&parked) == 1 && !parked.is_parked() {
        debug_assert!(parked.timer.get().is_none() && !parked.woken.get());
        let work = parked.work.take();
        drop(work);
        // At the end of the thread, there may be nowhere to keep it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(parked);
            }
        });
    }
}

/// Frees the memory that is kept for reuse, as the VM ends.
pub(crate) fn forget_spare() {
    // A VM that is itself a variable of the thread may be dropped after this one.
    let spare = SPARE.try_with(RefCell::take);
    drop(spare);
}

/// Rounded to milliseconds like the VM's own timeouts; those too far in the future never come.
fn deadline_after(bridge: &Bridge, timeout_s: f64) -> Option<Instant> {
    if timeout_s == f64::INFINITY {
        return None;
    }
    let timeout_ms = (timeout_s * 1000.0).round().max(0.0);
    bridge.event_loop().now().checked_add(Duration::from_millis(timeout_ms as u64))
}

impl Parked {
    /// Attaches the operation to the fiber, as the VM's own do, so that resuming the fiber in another way ends
    /// the operation.
    fn park(self: Rc<Self>) {
        let bridge = self.bridge.clone();
        let index = bridge.park(self.clone());
        self.index.set(index);
        // SAFETY: the root fiber of this thread's VM, which has no operation: see `prepare`. The
        // VM marks `ev_stream` and reads two of its fields when the operation ends, so it must be there
        // even while there is no stream yet.
        unsafe {
            (*self.fiber).ev_callback = Some(fiber_event);
            (*self.fiber).ev_stream = if self.stream.is_null() { bridge.anchor() } else { self.stream };
            (*self.fiber).ev_state = std::ptr::without_provenance_mut(index + 1);
            (*self.fiber).flags |= janet::JANET_FIBER_EV_FLAG_IN_FLIGHT;
            janet::janet_ev_inc_refcount();
        }
    }

    /// Detaches the operation from the fiber.
    fn unpark(&self) {
        if self.bridge.unpark(self.index.replace(usize::MAX)).is_some() {
            self.leave_fiber();
        }
    }

    fn leave_fiber(&self) {
        // SAFETY: alive, because it was marked until now.
        unsafe {
            (*self.fiber).ev_callback = None;
            (*self.fiber).ev_stream = std::ptr::null_mut();
            (*self.fiber).ev_state = std::ptr::null_mut();
            (*self.fiber).flags &= !janet::JANET_FIBER_EV_FLAG_IN_FLIGHT;
            janet::janet_ev_dec_refcount();
        }
    }

    /// Whether bytes have been received into a buffer that the program does not have yet.
    fn has_unseen_bytes(&self) -> bool {
        self.work.borrow().as_ref().is_some_and(Work::has_unseen_bytes)
    }

    /// Polls the work again after a pause.
    fn look_again_later(self: &Rc<Self>) {
        let event_loop = self.bridge.event_loop();
        let later = event_loop.now() + EXHAUSTED_PAUSE;
        self.disarm_timer();
        self.timer.set(Some(event_loop.insert_timer(later, self.clone())));
    }

    fn is_parked(&self) -> bool {
        self.index.get() != usize::MAX
    }

    fn arm_timer(self: Rc<Self>) {
        if let Some(deadline) = self.deadline {
            let timer = self.bridge.event_loop().insert_timer(deadline, self.clone());
            self.timer.set(Some(timer));
        }
    }

    /// Depends on the timer, not the clock: completions of the same turn are in time.
    fn is_time_up(&self) -> bool {
        let timer = self.timer.get();
        let has_fired = timer.is_some_and(|timer| !self.bridge.event_loop().is_timer_armed(timer));
        self.deadline.is_some() && has_fired
    }

    fn disarm_timer(&self) {
        if let Some(timer) = self.timer.take() {
            self.bridge.event_loop().remove_timer(timer);
        }
    }

    /// Has the loop resume the fiber. With bytes that only the outcome shows, the operation stays on the
    /// fiber until it resumes: something else may still overtake the outcome, and then they go back.
    fn deliver(&self, outcome: Outcome) {
        self.disarm_timer();
        self.delivered.set(true);
        if !self.has_unseen_bytes() {
            self.unpark();
        }
        let (value, signal) = match outcome {
            Outcome::Value(value) => (value, janet::JANET_SIGNAL_OK),
            Outcome::Error(value) => (value, janet::JANET_SIGNAL_ERROR),
        };
        // SAFETY: a live root fiber of this thread's VM; scheduling neither raises nor collects.
        unsafe { janet::janet_schedule_signal(self.fiber, value, signal) };
    }

    /// Gives up, because something else resumes the fiber.
    fn abandon(self: &Rc<Self>) {
        self.disarm_timer();
        let waiter: Rc<dyn Wake> = self.clone();
        if let Some(work) = self.work.take() {
            work.abandon(&waiter);
        }
    }

    fn poll(self: &Rc<Self>) -> Poll<Outcome> {
        let waiter: Rc<dyn Wake> = self.clone();
        let mut work = self.work.borrow_mut();
        let Some(work) = work.as_mut() else { return Poll::Pending };
        let context = Context { bridge: &self.bridge, fiber: self.fiber, stream: self.stream };
        match work.poll(&context, &waiter) {
            Step::Ready(outcome) => Poll::Ready(outcome),
            Step::Pending => Poll::Pending,
            Step::Paused => {
                self.look_again_later();
                Poll::Pending
            }
        }
    }
}

impl Wake for Parked {
    fn wake(self: Rc<Self>) {
        if !self.woken.replace(true) {
            self.bridge.clone().enqueue(self);
        }
    }
}

impl Waiting for Parked {
    /// After a completion, the timer, or a close.
    fn run(self: Rc<Self>) {
        self.woken.set(false);
        if !self.is_parked() || self.delivered.get() || self.bridge.is_detached() {
            return;
        }
        // SAFETY: alive, because it is marked while it is parked.
        if unsafe { (*self.fiber).sched_id } != self.schedule_id {
            // Something else resumes the fiber: bytes that are here now are for the next reader.
            return;
        }
        let outcome = match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                if !self.is_time_up() {
                    return;
                }
                self.abandon();
                Outcome::Error(string("timeout"))
            }
        };
        self.deliver(outcome);
        recycle(self);
    }

    fn resumed(self: Rc<Self>) {
        // SAFETY: alive: the VM resumes it.
        let resumed_by = unsafe { (*self.fiber).sched_id };
        let overtaken = resumed_by != self.schedule_id.wrapping_add(1);
        if overtaken || !self.delivered.get() {
            self.abandon();
        }
        self.bridge.unpark(self.index.replace(usize::MAX));
        let bridge = self.bridge.clone();
        recycle(self);
        bridge.run_woken();
    }

    fn mark(&self, mark: &dyn Fn(Janet)) {
        // SAFETY: these were alive when the fiber parked, and have been marked ever since.
        unsafe {
            mark(janet::janet_wrap_fiber(self.fiber));
            if !self.stream.is_null() {
                mark(janet::janet_wrap_abstract(self.stream.cast()));
            }
        }
        if let Some(work) = &*self.work.borrow() {
            work.mark(mark);
        }
    }

    fn leave_to_parent(&self) {
        self.leave_fiber();
        // SAFETY: alive, because it was marked until now.
        let flags = unsafe { &mut (*self.fiber).gc.flags };
        if !self.delivered.get() && *flags & janet::JANET_FIBER_EV_FLAG_SUSPENDED != 0 {
            // The VM's loop may end without it.
            *flags &= !janet::JANET_FIBER_EV_FLAG_SUSPENDED;
            // SAFETY: takes back what the VM counted when the fiber was suspended.
            unsafe { janet::janet_ev_dec_refcount() };
        }
    }

    fn forget(&self) {
        self.disarm_timer();
        let work = self.work.take();
        drop(work);
    }
}

/// Called by the VM when the fiber resumes, by our outcome or by anything else.
unsafe extern "C" fn fiber_event(fiber: *mut JanetFiber, event: janet::JanetAsyncEvent) {
    if event != janet::JANET_ASYNC_EVENT_DEINIT {
        return;
    }
    // SAFETY: the VM passes a live fiber whose callback this is, so `ev_state` is ours: an index plus
    // one. It must be null when we return, or the VM would free it; without the flag, the VM counts the
    // operation as ended.
    let index = unsafe {
        let index = (*fiber).ev_state.addr();
        (*fiber).ev_state = std::ptr::null_mut();
        (*fiber).flags &= !janet::JANET_FIBER_EV_FLAG_IN_FLIGHT;
        index.wrapping_sub(1)
    };
    let Some(bridge) = Bridge::current() else { return };
    if let Some(parked) = bridge.parked(index) {
        // SAFETY: the VM is about to take one root of this stream back, which its own operations add
        // when they start and ours do not.
        unsafe { janet::janet_gcroot(janet::janet_wrap_abstract((*fiber).ev_stream.cast())) };
        parked.resumed();
    }
}
