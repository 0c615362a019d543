//! The event loop: submits operations, moves their completions to a ready queue, and delivers them to their owners.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, getsockopt, sockopt::AcceptConn};

use crate::blocking::{BlockingCall, BlockingCalls, BlockingKind};
use crate::buffers::{BufferPool, datagram};
use crate::completion::RawCompletion;
use crate::configuration::Configuration;
use crate::operation::{Operation, OperationKey, Owner};
use crate::process::{Gate, ProcessMark};
use crate::ready::ReadyQueue;
use crate::receive_buffers::ReceiveBuffers;
use crate::send_soon::SendSoon;
use crate::slots::Slots;
use crate::spin::{Spin, SpinStatistics};
use crate::sys::{Backend, Buffers};
use crate::timers::{TimerKey, Timers};
use crate::wake::{RemoteWaker, Sweep, Wake};

mod delivery;
mod direct;
mod sweeping;

/// How long a turn may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit, take the completions that are available, and return.
    No,
    /// Until there is a completion, a due timer or a wake-up. It may return earlier, for example on a signal.
    Block,
}

/// Counts of what a loop currently holds; all zero means that nothing leaks.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LoopStatistics {
    /// Operations whose terminal completion has not been delivered, and messages whose batch is not over.
    pub operations_in_flight: usize,
    /// Timers armed.
    pub timers: usize,
    /// Receive buffers that readers hold.
    pub buffers_lent: usize,
    /// Blocking calls that are queued or run, including abandoned ones that still run.
    pub blocking_calls: usize,
}

/// An event loop, which belongs to the thread that made it: it is neither `Send` nor `Sync`.
///
/// The [crate documentation](crate) has an example.
///
/// # Shutting down
///
/// [`shutdown`](Self::shutdown) cancels everything in flight and waits for the terminal completions.
/// Dropping the loop does the same, but an owner of an operation in flight that holds the loop keeps it alive.
///
/// # Forking
///
/// A loop, and the sockets of its operations, belong to the process that made it. In a child of `fork(2)`, no call on
/// it, nor its drop, affects the kernel's state: [`turn`](Self::turn) and [`call_blocking`](Self::call_blocking)
/// fail with an error that says so, the loop counts as shut down ([`is_shut_down`](Self::is_shut_down)), operations
/// end in memory alone, and dropping it closes the child's descriptors, as an exit does. The parent is not affected.
/// A child that needs sockets makes a loop of its own.
///
/// As after any fork, the child has copies of the descriptors: a connection that the parent closes ends for the peer
/// once the child has also closed its copy, ended, or executed another program. A child that shares its parent's
/// memory (`vfork(2)`) may only do the latter two.
///
/// # Ending the process
///
/// The kernel closes a ring's sockets some milliseconds after the process has ended, except as described in
/// [`Configuration::cancel_at_termination`].
pub struct EventLoop {
    backend: RefCell<Backend>,
    spin: RefCell<Spin>,
    ring_refusal: Option<String>,
    slots: RefCell<Slots>,
    ready: RefCell<ReadyQueue>,
    timers: RefCell<Timers>,
    streams: ReceiveBuffers,
    datagrams: ReceiveBuffers,
    spare_sends: RefCell<Vec<Vec<u8>>>,
    /// The results of zero-copy sends whose data the kernel may still use.
    zero_copy: RefCell<HashMap<OperationKey, i32>>,
    soon: RefCell<SendSoon>,
    blocking: Rc<BlockingCalls>,
    waker: RemoteWaker,
    turns: Cell<u32>,
    /// Waiters to wake at the end of the next turn.
    next_turn: RefCell<Vec<Rc<dyn Wake>>>,
    swept: RefCell<Vec<Rc<dyn Sweep>>>,
    /// The turn of the last sweep, and since when the loop has been idle.
    swept_in: Cell<(u32, Option<Instant>)>,
    gate: Gate,
    is_readiness_based: bool,
}

impl EventLoop {
    /// Makes a loop on the backend that [`Configuration::backend`] or the environment selects, or else on the best
    /// available one: io_uring (Linux 6.0), or poll if that is missing, refused or too old.
    ///
    /// # Errors
    ///
    /// `Unsupported` if io_uring was requested and cannot be used, with the cause and the remedy in its text;
    /// `InvalidInput` if a number of receive buffers is not a power of two, if their size is zero, and if
    /// `RINGSPUN_BACKEND`, `RINGSPUN_SPIN` or `RINGSPUN_SPIN_MAX_US` is invalid; the kernel's error if descriptors or
    /// memory run out.
    pub fn new(configuration: &Configuration) -> io::Result<Rc<Self>> {
        let spin = Spin::new(configuration.spin_max, configuration.spin_for)?;
        let waker = RemoteWaker::new()?;
        let buffers = Buffers {
            streams: BufferPool::new(configuration.receive_buffers, configuration.receive_buffer_size_bytes)?,
            datagrams: BufferPool::new(configuration.datagram_buffers, datagram::BUFFER_SIZE_BYTES)?,
        };
        let (backend, ring_refusal) = Backend::new(configuration, buffers.clone(), waker.clone())?;
        tracing::debug!(backend = backend.name(), "event loop made");
        Ok(Rc::new(Self {
            is_readiness_based: backend.is_readiness_based(),
            backend: RefCell::new(backend),
            spin: RefCell::new(spin),
            ring_refusal,
            slots: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            streams: ReceiveBuffers::new(&buffers.streams),
            datagrams: ReceiveBuffers::new(&buffers.datagrams),
            spare_sends: RefCell::default(),
            zero_copy: RefCell::default(),
            soon: RefCell::default(),
            blocking: BlockingCalls::new(waker.clone(), configuration.blocking_calls_max),
            waker,
            turns: Cell::new(0),
            next_turn: RefCell::default(),
            swept: RefCell::default(),
            swept_in: Cell::new((0, None)),
            gate: Gate::new(ProcessMark::new()?),
        }))
    }

    /// The name of this loop's backend: `"io_uring"` or `"poll"`.
    pub fn backend_name(&self) -> &'static str {
        self.backend.borrow().name()
    }

    /// Why this loop fell back to poll, with the remedy; `None` if it runs on io_uring, or if poll was requested.
    pub fn ring_refusal(&self) -> Option<&str> {
        self.ring_refusal.as_deref()
    }

    /// Submits an operation. The loop's next turn passes it to the kernel, together with all others.
    ///
    /// `owner` gets its completions and is kept alive until the terminal one. On a loop that is shutting down, the
    /// operation ends with `ECANCELED`; on one that has shut down, it has no completion, as the loop is not turned.
    pub fn submit(&self, operation: Operation, owner: Rc<dyn Owner>) -> OperationKey {
        let mut slots = self.slots.borrow_mut();
        let (key, operation) = slots.insert(operation, owner);
        let mut ready = self.ready.borrow_mut();
        if !self.gate.is_open() {
            ready.push_back(RawCompletion::failed(key, libc::ECANCELED));
        } else {
            self.backend.borrow_mut().submit(key.to_user_data(), operation, &mut ready);
        }
        key
    }

    /// Whether this loop's backend makes a system call for each send and receive, so that these are best made
    /// directly, by [`try_send`](Self::try_send) and [`try_receive`](Self::try_receive).
    #[inline]
    pub fn is_readiness_based(&self) -> bool {
        self.is_readiness_based
    }

    /// Whether this loop performs operations on files ([`Operation::File`]); otherwise, they are calls that block.
    pub fn performs_files(&self) -> bool {
        self.backend.borrow().performs_files()
    }

    /// Requests the cancellation of an operation. Its owner still gets a terminal completion: `ECANCELED`, or a
    /// success that came first. Does nothing if the operation is over. The loop's next turn passes the request to the
    /// kernel.
    ///
    /// A [zero-copy send](Operation::SendZeroCopy) that has been carried out, but whose data the kernel still uses,
    /// ends by a disconnection: the peer sees a reset, and may lose what it has not acknowledged.
    pub fn cancel(&self, key: OperationKey) {
        let is_in_flight = self.gate.process().is_current() && self.slots.borrow_mut().note_cancel(key);
        if is_in_flight && !self.cancel_starved(key) && !self.cancel_notification(key) {
            self.backend.borrow_mut().cancel(key.to_user_data(), &mut self.ready.borrow_mut());
            #[cfg(feature = "mutations")]
            if crate::mutations::mutated(crate::mutations::Mutation::SlotFreedAtCancel) {
                std::mem::forget(self.slots.borrow_mut().release(key));
            }
        }
    }

    /// Cancels an operation and blocks the thread until its terminal completion, which comes immediately unless the
    /// kernel cannot interrupt the request. Only this operation's completions are delivered; those of others wait for
    /// the next turn. In a forked child, the operation ends in memory alone.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn), except that it does not fail in a forked child.
    pub fn cancel_and_wait(&self, key: OperationKey) -> io::Result<()> {
        self.cancel(key);
        let mut others = ReadyQueue::default();
        let mut reaped = self.ready.take();
        let ended = loop {
            while let Some(raw) = reaped.pop_front() {
                if raw.key == key { self.deliver(raw) } else { others.push_back(raw) }
            }
            if self.slots.borrow().get(key).is_none() {
                break Ok(());
            }
            if !self.gate.process().is_current() {
                self.deliver(RawCompletion::failed(key, libc::ECANCELED));
                break Ok(());
            }
            // Submitting to a full queue, as owners may have done, reaps completions, perhaps the awaited one.
            reaped.append(&mut self.ready.borrow_mut());
            if let Err(error) = self.backend.borrow_mut().wait(None, &mut reaped) {
                break Err(error);
            }
        };
        let mut ready = self.ready.borrow_mut();
        // Completions that the owner caused come after earlier ones.
        others.append(&mut ready);
        *ready = others;
        ended
    }

    /// Runs one turn: submits what is queued, waits as specified by `wait`, delivers completions to their owners, and
    /// then wakes the waiters of [`wake_next_turn`](Self::wake_next_turn), of blocking calls that have ended, and of
    /// due timers.
    ///
    /// # Errors
    ///
    /// Errors that the backend cannot recover from: the ring is unusable, or the kernel lost completions because it
    /// had no memory. Interrupted calls, full queues and the like are handled. In a forked child, the error of
    /// [`check_process`](Self::check_process).
    pub fn turn(&self, wait: Wait) -> io::Result<()> {
        self.gate.process().check()?;
        self.turns.set(self.turns.get().wrapping_add(1));
        let resubmitted = self.resubmit_starved();
        let waiting = self.next_turn.take();
        let timeout = match wait {
            _ if resubmitted || !waiting.is_empty() => Some(Duration::ZERO),
            Wait::No => Some(Duration::ZERO),
            Wait::Block => self.longest_wait(),
        };
        self.reap(timeout)?;
        crate::trace_point!(turn, self.ready.borrow().len());
        let is_idle = wait == Wait::Block && self.ready.borrow().is_empty();
        self.dispatch();
        if !self.swept.borrow().is_empty() {
            self.sweep_if_due(is_idle);
        }
        waiting.into_iter().for_each(Wake::wake);
        self.blocking.wake_ended();
        self.fire_timers();
        Ok(())
    }

    /// The time until the loop has work that no completion brings; `None` if there is none.
    fn longest_wait(&self) -> Option<Duration> {
        let timer = self.timers.borrow().next_deadline();
        let timer = timer.map(|deadline| deadline.saturating_duration_since(self.now()));
        timer.into_iter().chain(self.longest_wait_for_sweep()).min()
    }

    /// The current time of the loop's clock, which is monotonic.
    pub fn now(&self) -> Instant {
        #[cfg(feature = "simulation")]
        if let Some(now) = self.backend.borrow().simulated_now() {
            return now;
        }
        Instant::now()
    }

    /// Arms a timer: `waiter` is woken once, in the first turn that ends at or after `deadline`, for which a blocking
    /// turn wakes up. Takes O(log n) with n timers, as does removing it.
    pub fn insert_timer(&self, deadline: Instant, waiter: Rc<dyn Wake>) -> TimerKey {
        self.timers.borrow_mut().insert(deadline, waiter)
    }

    /// Disarms a timer; does nothing for one that has fired.
    pub fn remove_timer(&self, key: TimerKey) {
        let waiter = self.timers.borrow_mut().remove(key);
        // Dropped with no borrow held, as it may run arbitrary code.
        drop(waiter);
    }

    /// Whether a timer has neither fired nor been removed. Tells a waiter with several wake-up sources whether its
    /// deadline has passed: in a turn, completions are delivered before timers fire, whatever the clock says.
    pub fn is_timer_armed(&self, key: TimerKey) -> bool {
        self.timers.borrow().contains(key)
    }

    /// Calls a blocking `function` on another thread, for files or computations. To cancel the call, drop it.
    ///
    /// The process has at most [`BlockingKind::threads_max`] threads for such calls, started on demand; further calls
    /// queue in order. No more than [`Configuration::blocking_calls_max`] of one loop are among all of these. The
    /// threads block all signals but those that faults raise, so that the program's handlers run on its own threads. A
    /// call may take any time: neither the end of the process nor the shutdown of the loop waits for it. A child of
    /// `fork(2)` has none of the threads: pending calls never end there, and a loop of its own starts new threads.
    ///
    /// # Errors
    ///
    /// The kernel's error if there is no thread for such calls and none can be started; `ECANCELED` on a loop that is
    /// shutting down; in a forked child, the error of [`check_process`](Self::check_process).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    /// use std::task::Poll;
    ///
    /// use ringspun_runtime::{Configuration, EventLoop, Wait, Wake};
    ///
    /// struct Nobody;
    /// impl Wake for Nobody {
    ///     // Nothing to do: the code below polls after each turn.
    ///     fn wake(self: Rc<Self>) {}
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let event_loop = EventLoop::new(&Configuration::default())?;
    /// let waiter: Rc<dyn Wake> = Rc::new(Nobody);
    /// let mut call = event_loop.call_blocking(|| std::fs::read_to_string("/etc/hostname").is_ok())?;
    /// let result = loop {
    ///     if let Poll::Ready(result) = call.poll(&waiter) {
    ///         break result;
    ///     }
    ///     event_loop.turn(Wait::Block)?;
    /// };
    /// assert!(result.is_ok(), "an error would be the payload of a panic");
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_blocking<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        self.call_blocking_of(BlockingKind::Other, function)
    }

    /// As [`call_blocking`](Self::call_blocking), for a call of any kind.
    ///
    /// # Errors
    ///
    /// As [`call_blocking`](Self::call_blocking).
    pub fn call_blocking_of<T: Send + 'static>(
        &self,
        kind: BlockingKind,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<BlockingCall<T>> {
        if !self.gate.is_open() {
            self.gate.process().check()?;
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        self.blocking.call(kind, function)
    }

    /// An empty buffer for [`SendData::Owned`](crate::SendData::Owned): if possible, that of a send that has ended.
    pub fn take_send_buffer(&self) -> Vec<u8> {
        self.spare_sends.borrow_mut().pop().unwrap_or_default()
    }

    /// Wakes `waiter` at the end of the next turn, which does not block. A fiber that has used up its budget of calls
    /// that did not wait yields to the others by this.
    pub fn wake_next_turn(&self, waiter: Rc<dyn Wake>) {
        self.next_turn.borrow_mut().push(waiter);
    }

    /// The number of turns so far, modulo 2³².
    #[inline]
    pub fn turn_count(&self) -> u32 {
        self.turns.get()
    }

    /// A handle that ends a turn of this loop from another thread or from a signal handler.
    pub fn remote_waker(&self) -> RemoteWaker {
        self.waker.clone()
    }

    /// Whether the loop performs no operations: [`shutdown`](Self::shutdown) has begun, or this is a forked child.
    pub fn is_shut_down(&self) -> bool {
        !self.gate.is_open()
    }

    /// Checks that this is the process that the loop belongs to.
    ///
    /// # Errors
    ///
    /// In a forked child, an error that names the loop's process.
    pub fn check_process(&self) -> io::Result<()> {
        self.gate.process().check()
    }

    /// Counts of what the loop currently holds.
    pub fn statistics(&self) -> LoopStatistics {
        LoopStatistics {
            operations_in_flight: self.slots.borrow().len() + self.soon.borrow().len(),
            timers: self.timers.borrow().len(),
            buffers_lent: usize::from(self.streams.pool.lent()) + usize::from(self.datagrams.pool.lent()),
            blocking_calls: self.blocking.outstanding(),
        }
    }

    /// How the loop has waited, and what that has cost.
    ///
    /// ```
    /// use ringspun_runtime::{Configuration, EventLoop, Wait};
    ///
    /// let event_loop = EventLoop::new(&Configuration::default()).unwrap();
    /// event_loop.turn(Wait::No).unwrap();
    /// assert_eq!(event_loop.spin_statistics().waits, 0);
    /// ```
    pub fn spin_statistics(&self) -> SpinStatistics {
        self.spin.borrow().statistics()
    }

    /// Cancels everything in flight and blocks the thread until the last terminal completion. Operations that are
    /// submitted meanwhile end with `ECANCELED`. Timers and the waiters of blocking calls are dropped without being
    /// woken; blocking calls are not waited for, and only polling one shows that it has ended. Shutting down again
    /// does nothing. In a forked child, the owners of operations are dropped without a completion.
    ///
    /// # Errors
    ///
    /// Errors that the backend cannot recover from, as for [`turn`](Self::turn).
    pub fn shutdown(&self) -> io::Result<()> {
        self.gate.close();
        if !self.gate.process().is_current() {
            let abandoned = self.slots.borrow_mut().take_all();
            drop(abandoned);
            self.drop_waiters();
            return Ok(());
        }
        let in_flight = self.slots.borrow().keys();
        for key in in_flight {
            self.cancel(key);
        }
        loop {
            let (in_flight, messages) = (self.slots.borrow().len(), self.soon.borrow().len());
            if in_flight + messages == 0 {
                break;
            }
            self.reap(if in_flight > 0 { None } else { Some(Duration::ZERO) })?;
            self.dispatch();
        }
        self.drop_waiters();
        Ok(())
    }

    /// Shuts down the connections that have an operation in flight (`shutdown(2)`), so that their peers see an end: for
    /// a loop that has failed, and whose memory has to be leaked, sockets and all. Does nothing in a forked child.
    pub fn abandon(&self) {
        if !self.gate.process().is_current() {
            return;
        }
        for descriptor in self.slots.borrow().descriptors() {
            // SAFETY: it stays open as long as its operation is in flight.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            // A listener may have other owners, who go on. What is no socket, or not connected, fails.
            if getsockopt(&descriptor, AcceptConn) == Ok(false) {
                let _ = socket::shutdown(descriptor.as_raw_fd(), socket::Shutdown::Both);
            }
        }
    }

    /// Drops the waiters for anything other than operations.
    fn drop_waiters(&self) {
        drop((self.timers.take(), self.next_turn.take(), self.swept.take()));
        self.blocking.close();
    }

    fn reap(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut ready = self.ready.borrow_mut();
        ready.compact();
        let timeout = if ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        let mut backend = self.backend.borrow_mut();
        let waited = self.spin.borrow_mut().wait(&mut backend, timeout, &mut ready);
        backend.end_turn();
        if backend.has_submitted_all() {
            self.soon.borrow_mut().begin_next();
        }
        waited
    }

    fn fire_timers(&self) {
        if self.timers.borrow().len() == 0 {
            return;
        }
        let now = self.now();
        loop {
            let Some(waiter) = self.timers.borrow_mut().pop_due(now) else { return };
            waiter.wake();
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            // The kernel may still write to memory that the slots hold: it must be leaked.
            tracing::error!(%error, "the event loop could not be drained; its memory is leaked");
            std::mem::forget(std::mem::take(&mut *self.slots.borrow_mut()));
            std::mem::forget((self.streams.pool.clone(), self.datagrams.pool.clone()));
        }
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop")
            .field("backend", &self.backend_name())
            .field("statistics", &self.statistics())
            .finish()
    }
}
