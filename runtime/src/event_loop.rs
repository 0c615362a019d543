//! The event loop: submits operations, moves their completions to a ready queue, and hands them to
//! their owners.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::blocking::{BlockingCall, BlockingCalls};
use crate::buffers::{BufferPool, datagram};
use crate::completion::RawCompletion;
use crate::configuration::Configuration;
use crate::operation::{Operation, OperationKey, Owner};
use crate::process::{Gate, ProcessMark};
use crate::ready::ReadyQueue;
use crate::receive_buffers::ReceiveBuffers;
use crate::send_soon::SendSoon;
use crate::slots::Slots;
use crate::spin::Spin;
use crate::sys::{Backend, Buffers};
use crate::timers::{TimerKey, Timers};
use crate::wake::{RemoteWaker, Sweep, Wake};

mod delivery;
mod direct;
mod sweeping;

/// How long a turn may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit, take what is there, and return.
    No,
    /// Until there is a completion, a due timer or a wake-up. It may return earlier, as when a signal
    /// comes.
    Block,
}

/// Counts of what a loop holds at the moment; all of them are zero when nothing is left behind.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LoopStatistics {
    /// Operations whose terminal completion has not been handed to its owner, and messages whose batch is not over.
    pub operations_in_flight: usize,
    /// Timers armed.
    pub timers: usize,
    /// Receive buffers that readers hold.
    pub buffers_lent: usize,
    /// Blocking calls that wait or run, abandoned ones that still run among them.
    pub blocking_calls: usize,
}

/// An event loop, which belongs to the thread that made it: it is neither `Send` nor `Sync`.
///
/// The crate's [front page](crate) shows one at work.
///
/// # Shutting down
///
/// [`shutdown`](Self::shutdown) cancels whatever is in flight and waits for the terminal completions.
/// Dropping the loop does the same; but a loop is not dropped while the owner of an operation in flight
/// holds it.
///
/// # Forking
///
/// A loop, and the sockets that its operations are for, stay those of the process that made it. In a child of
/// `fork(2)` nothing that is called on it, nor its drop, reaches the kernel: [`turn`](Self::turn) and
/// [`call_blocking`](Self::call_blocking) fail with an error that says so, the loop counts as shut down
/// ([`is_shut_down`](Self::is_shut_down)), operations end in memory alone, and dropping it closes the child's
/// descriptors, as an exit does. The parent goes on as if there were no child. A child that wants sockets makes a
/// loop of its own, which works as any.
///
/// What the child has, as after any fork, are its copies of the descriptors: a connection that the parent closes ends
/// for the peer once the child has closed its copy, too, or has ended, or executed another program. A child that
/// shares its parent's memory (`vfork(2)`) may do nothing but the latter two.
///
/// # Ending the process
///
/// A process that ends lets go of a ring's sockets a little later than of others, except as
/// [`Configuration::cancel_at_termination`] tells.
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
    soon: RefCell<SendSoon>,
    blocking: Rc<BlockingCalls>,
    waker: RemoteWaker,
    turns: Cell<u32>,
    /// To be woken at the end of the next turn.
    next_turn: RefCell<Vec<Rc<dyn Wake>>>,
    swept: RefCell<Vec<Rc<dyn Sweep>>>,
    /// The turn in which that was done last, or begun, and since when the loop has been idle.
    swept_in: Cell<(u32, Option<Instant>)>,
    gate: Gate,
    is_readiness_based: bool,
}

impl EventLoop {
    /// Makes a loop on the backend that [`Configuration::backend`] or the environment names, and otherwise on
    /// the best that this machine allows: io_uring (Linux 6.0), or poll where that is missing, refused or
    /// too old.
    ///
    /// # Errors
    ///
    /// `Unsupported` if io_uring was asked for and cannot be used, with the cause and the remedy in its text;
    /// `InvalidInput` for a number of receive buffers that is not a power of two, for buffers of no bytes,
    /// and for another value of `RINGSPUN_BACKEND` or `RINGSPUN_SPIN_MAX_US`; the kernel's error if descriptors or
    /// memory run out.
    pub fn new(configuration: &Configuration) -> io::Result<Rc<Self>> {
        let spin = Spin::new(configuration.spin_max)?;
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
            soon: RefCell::default(),
            blocking: BlockingCalls::new(waker.clone()),
            waker,
            turns: Cell::new(0),
            next_turn: RefCell::default(),
            swept: RefCell::default(),
            swept_in: Cell::new((0, None)),
            gate: Gate::new(ProcessMark::new()?),
        }))
    }

    /// The name of the backend that serves this loop: `"io_uring"` or `"poll"`.
    pub fn backend_name(&self) -> &'static str {
        self.backend.borrow().name()
    }

    /// Why io_uring does not serve this loop, with the remedy, where it would have been the choice; `None` if
    /// it does, and where poll was asked for.
    pub fn ring_refusal(&self) -> Option<&str> {
        self.ring_refusal.as_deref()
    }

    /// Submits an operation. It reaches the kernel with the loop's next turn, together with all others.
    ///
    /// `owner` takes its completions and is kept alive until the terminal one. On a loop that is
    /// shutting down the operation ends with `ECANCELED`; after that, nobody turns the loop, and it stays
    /// where it is.
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

    /// Asks for an operation to end soon. Its owner still gets a terminal completion: `ECANCELED`, or a
    /// success that was faster. A key whose operation is over matches nothing. The request reaches the
    /// kernel with the loop's next turn.
    pub fn cancel(&self, key: OperationKey) {
        let is_in_flight = self.gate.process().is_current() && self.slots.borrow_mut().note_cancel(key);
        if is_in_flight && !self.cancel_starved(key) {
            self.backend.borrow_mut().cancel(key.to_user_data(), &mut self.ready.borrow_mut());
            #[cfg(feature = "mutations")]
            if crate::mutations::mutated(crate::mutations::Mutation::SlotFreedAtCancel) {
                std::mem::forget(self.slots.borrow_mut().complete(key, true));
            }
        }
    }

    /// Cancels an operation and blocks the thread until its terminal completion, which comes at once for
    /// anything but a request that the kernel cannot interrupt. Only this operation's completions go to
    /// their owner; those of others that come meanwhile wait for the next turn.
    /// In a forked child it ends there, in memory alone.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn), except that a forked child is no error.
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
            // What was submitted meanwhile may have met a full queue, which reaped what is waited for.
            reaped.append(&mut self.ready.borrow_mut());
            if let Err(error) = self.backend.borrow_mut().wait(None, &mut reaped) {
                break Err(error);
            }
        };
        let mut ready = self.ready.borrow_mut();
        // What the owner caused comes after what was there before.
        others.append(&mut ready);
        *ready = others;
        ended
    }

    /// One turn: submits what is queued, waits as `wait` says, hands completions to their owners, then wakes those who
    /// asked for it ([`wake_next_turn`](Self::wake_next_turn)) and the waiters of blocking calls that have ended and of
    /// due timers.
    ///
    /// # Errors
    ///
    /// What the backend cannot recover from: the ring is gone, or the kernel lost completions for want
    /// of memory. Interrupted calls, a full queue and the like are dealt with.
    /// [`check_process`](Self::check_process)'s in a forked child.
    pub fn turn(&self, wait: Wait) -> io::Result<()> {
        self.gate.process().check()?;
        self.turns.set(self.turns.get().wrapping_add(1));
        let fed = self.feed_starved();
        let waiting = self.next_turn.take();
        let timeout = match wait {
            _ if fed || !waiting.is_empty() => Some(Duration::ZERO),
            Wait::No => Some(Duration::ZERO),
            Wait::Block => self.longest_wait(),
        };
        self.reap(timeout)?;
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

    /// How long it takes until the loop has something to do by itself.
    fn longest_wait(&self) -> Option<Duration> {
        let timer = self.timers.borrow().next_deadline();
        let timer = timer.map(|deadline| deadline.saturating_duration_since(self.now()));
        timer.into_iter().chain(self.longest_wait_for_sweep()).min()
    }

    /// The loop's clock, which is monotonic, read now.
    pub fn now(&self) -> Instant {
        #[cfg(feature = "simulation")]
        if let Some(now) = self.backend.borrow().simulated_now() {
            return now;
        }
        Instant::now()
    }

    /// Arms a timer: `waiter` is woken once, in the first turn that ends at or after `deadline`. A turn
    /// that blocks wakes up for it. Takes O(log n) of n timers, as removing it does.
    pub fn insert_timer(&self, deadline: Instant, waiter: Rc<dyn Wake>) -> TimerKey {
        self.timers.borrow_mut().insert(deadline, waiter)
    }

    /// Disarms a timer; does nothing for one that has fired.
    pub fn remove_timer(&self, key: TimerKey) {
        let waiter = self.timers.borrow_mut().remove(key);
        // Dropped here, where it may do what it likes.
        drop(waiter);
    }

    /// Whether a timer has neither fired nor been removed. A waiter that is woken for several reasons tells by it
    /// whether its time is up: completions of the same turn come before timers, whatever the clock says.
    pub fn is_timer_armed(&self, key: TimerKey) -> bool {
        self.timers.borrow().contains(key)
    }

    /// Has another thread call `function`, for what would block this one: name lookups, files.
    ///
    /// The process has at most 32 threads for all such calls, made when they are needed; beyond that,
    /// calls wait in a queue, first come, first served. They start with all signals blocked but those that
    /// faults raise, so that a program's handlers run on threads of its own. A call may take as long as it
    /// likes: the process can end meanwhile, and shutting the loop down does not wait for it. The child of a
    /// `fork(2)` has none of the threads: calls that were under way never end there, and a loop of its own makes new
    /// ones.
    ///
    /// # Errors
    ///
    /// The kernel's error if there is no thread for such calls and none can be made; `ECANCELED` on a
    /// loop that is shutting down; [`check_process`](Self::check_process)'s in a forked child.
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
    ///     // Nothing to do here: below, whoever turns the loop looks by itself.
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
        if !self.gate.is_open() {
            self.gate.process().check()?;
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        self.blocking.call(function)
    }

    /// An empty buffer for [`SendData::Owned`](crate::SendData::Owned), reused where possible: that of a
    /// send that has ended.
    pub fn take_send_buffer(&self) -> Vec<u8> {
        self.spare_sends.borrow_mut().pop().unwrap_or_default()
    }

    /// Wakes `waiter` at the end of the next turn, which does not block: for a fiber that has had its share of calls
    /// that did not wait, and would keep the others from running.
    pub fn wake_next_turn(&self, waiter: Rc<dyn Wake>) {
        self.next_turn.borrow_mut().push(waiter);
    }

    /// How many turns there have been, modulo 2³²: two calls that see the same number had no turn in between.
    #[inline]
    pub fn turn_count(&self) -> u32 {
        self.turns.get()
    }

    /// A handle that ends this loop's turn from another thread or from a signal handler.
    pub fn remote_waker(&self) -> RemoteWaker {
        self.waker.clone()
    }

    /// Whether [`shutdown`](Self::shutdown) has begun, or this is a forked child: nothing is carried out any more.
    pub fn is_shut_down(&self) -> bool {
        !self.gate.is_open()
    }

    /// Whether this is the process that the loop belongs to, and not one that was forked from it.
    ///
    /// # Errors
    ///
    /// In another process, one that names the loop's.
    pub fn check_process(&self) -> io::Result<()> {
        self.gate.process().check()
    }

    /// What the loop holds at the moment.
    pub fn statistics(&self) -> LoopStatistics {
        LoopStatistics {
            operations_in_flight: self.slots.borrow().len() + self.soon.borrow().len(),
            timers: self.timers.borrow().len(),
            buffers_lent: usize::from(self.streams.pool.lent()) + usize::from(self.datagrams.pool.lent()),
            blocking_calls: self.blocking.outstanding(),
        }
    }

    /// Cancels everything in flight and blocks the thread until the last terminal completion. Operations
    /// submitted from then on end with `ECANCELED`. Timers are dropped without waking anybody, and so are
    /// the waiters of blocking calls, which nobody waits for: as the loop is not turned again, only a poll
    /// shows that one has ended. Shutting down again does nothing. In a forked child, the owners of operations are let
    /// go without a completion.
    ///
    /// # Errors
    ///
    /// What the backend cannot recover from, as for [`turn`](Self::turn).
    pub fn shutdown(&self) -> io::Result<()> {
        self.gate.close();
        if !self.gate.process().is_current() {
            let abandoned = self.slots.borrow_mut().take_all();
            drop(abandoned);
            self.let_go();
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
        self.let_go();
        Ok(())
    }

    /// Drops whoever waits for something other than an operation.
    fn let_go(&self) {
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
            self.soon.borrow_mut().enter();
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
            // The kernel may still write to what the slots hold: leaking it is the only safe end.
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
