//! The simulated backend: an in-memory kernel with its own clock, controlled by a seed.
//!
//! ```text
//!   submit, cancel ──► requests ──► executed in order in the next wait
//!                                          │
//!                     events, by time ◄──► operations ──► completions, by time ──► ready
//!                     (arrivals, attempts) │
//!                                   sockets and the network
//! ```
//!
//! It guarantees what the kernel does and no more: completions are late and reordered, an enter returns only some of
//! them, multishot operations end at any time, cancels miss, are too late or find a success, buffers run out,
//! connections break. When a turn would block, the clock advances to the next event; if there is none, a waiter has
//! been forgotten, and the wait fails.

mod calls;
mod disk;
mod faults;
mod files;
mod in_flight;
mod network;
mod operations;
mod pipes;
mod random;
mod signals;
mod socket;
mod threads;
mod world;

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use self::calls::{Simulation, current};
pub use self::faults::Fault;
use self::in_flight::Request;
pub use self::random::Random;
use self::socket::SocketId;
use self::world::{World, trace};
use super::Buffers;
use crate::completion::RawCompletion;
use crate::operation::{Operation, OperationKey};
use crate::ready::ReadyQueue;
use crate::wake::RemoteWaker;

/// The backend of a loop in a simulation.
pub(crate) struct Sim {
    world: Rc<RefCell<World>>,
    waker: RemoteWaker,
    /// A wake-up was taken, and no turn has ended since.
    woken: bool,
    submitted: u64,
}

impl Sim {
    /// The backend for a loop on this thread; `None` if no simulation has been entered.
    ///
    /// # Errors
    ///
    /// `Unsupported` while another loop uses the simulation.
    pub(super) fn new(buffers: &Buffers, waker: &RemoteWaker) -> io::Result<Option<Self>> {
        let Some(simulation) = current() else { return Ok(None) };
        let world = simulation.world();
        let mut borrowed = world.borrow_mut();
        if borrowed.pool.is_some() {
            let text = "a simulation serves one event loop at a time, and another one uses it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        borrowed.pool = Some(buffers.streams.clone());
        drop(borrowed);
        Ok(Some(Self { world, waker: waker.clone(), woken: false, submitted: 0 }))
    }

    pub(super) fn now(&self) -> Instant {
        self.world.borrow().now()
    }

    pub(super) fn is_readiness_based(&self) -> bool {
        self.world.borrow().is_readiness_based
    }

    pub(super) fn submit(&mut self, user_data: u64, operation: &Operation, ready: &mut ReadyQueue) {
        self.submitted += 1;
        let world = &mut *self.world.borrow_mut();
        world.make_room(ready);
        world.queue(self.submitted, user_data, operation);
    }

    pub(super) fn cancel(&mut self, user_data: u64, ready: &mut ReadyQueue) {
        let world = &mut *self.world.borrow_mut();
        world.make_room(ready);
        trace!(world, "cancel of {:?}", world.operations.get(&user_data));
        world.requests.push_back(Request::Cancel(user_data));
    }

    pub(super) fn send_soon(&mut self, request: &super::Request, ready: &mut ReadyQueue) {
        let world = &mut *self.world.borrow_mut();
        world.make_room(ready);
        // SAFETY: the bytes are valid until the batch is over.
        let bytes = unsafe { std::slice::from_raw_parts(request.start, request.length as usize) };
        world.queue_message(request.user_data, request.socket, bytes);
    }

    pub(super) fn has_submitted_all(&self) -> bool {
        self.world.borrow().requests.is_empty()
    }

    pub(super) fn try_send(&self, socket: RawFd, data: &[u8]) -> io::Result<usize> {
        let sent = self.world.borrow_mut().send_now(socket, data);
        sent.map_err(io::Error::from_raw_os_error)
    }

    /// # Safety
    ///
    /// `start` must be valid for writes of `size_bytes` bytes, which no other code uses during the call.
    pub(super) unsafe fn try_receive(
        &self,
        socket: RawFd,
        start: *mut u8,
        size_bytes: usize,
    ) -> io::Result<u32> {
        let mut filled = 0;
        let received = self.world.borrow_mut().receive_now(socket, size_bytes, |piece| {
            // SAFETY: the pieces together have at most `size_bytes` bytes, which the caller guarantees to be valid.
            unsafe { start.add(filled).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            filled += piece.len();
        });
        received.map_err(io::Error::from_raw_os_error)
    }

    pub(super) fn end_turn(&mut self) {
        self.woken = false;
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyQueue) -> io::Result<()> {
        if self.waker.take_pending() {
            self.woken = true;
        }
        let world = &mut *self.world.borrow_mut();
        world.pass_turn();
        world.sweep_now_and_then();
        world.catch_up();
        let taken = world.enter();
        world.reap(ready);
        if ready.is_empty()
            && world.calls_ended.is_empty()
            && !self.woken
            && taken
            && timeout != Some(Duration::ZERO)
        {
            world.block(timeout, ready);
        }
        match world.violation() {
            None => Ok(()),
            Some(text) => Err(io::Error::other(format!("simulation: {text}"))),
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.borrow_mut().detach();
    }
}

impl World {
    /// Takes submissions and returned buffers; false if it took no submissions.
    fn enter(&mut self) -> bool {
        self.take_buffers();
        if !self.requests.is_empty() && self.strikes(Fault::EnterRefused) {
            trace!(self, "no submissions taken");
            return false;
        }
        while let Some(request) = self.requests.pop_front() {
            self.carry_out(request);
        }
        true
    }

    /// Takes returned buffers, as io_uring does; on poll, each receive takes one.
    fn take_buffers(&mut self) {
        let Some(pool) = self.pool.clone().filter(|_| !self.is_readiness_based) else { return };
        while let Some(buffer) = pool.take_returned() {
            if self.provided.contains(&buffer) {
                self.violate(format!("receive buffer {buffer} was given back twice"));
                return;
            }
            self.provided.push(buffer);
        }
    }

    /// The submission queue may be full in the middle of a turn: its entries are then submitted first.
    fn make_room(&mut self, ready: &mut ReadyQueue) {
        if !self.is_readiness_based && self.strikes(Fault::QueueFull) {
            trace!(self, "the submission queue is full");
            self.sweep();
            self.now_ns += self.random.below(20_000);
            self.catch_up();
            self.enter();
            self.reap(ready);
        }
    }

    /// Queues a message that is sent on submission.
    fn queue_message(&mut self, user_data: u64, descriptor: RawFd, bytes: &[u8]) {
        let Some(socket) = self.socket_of(descriptor) else {
            return self.violate(format!("a message for descriptor {descriptor}, which no open socket has"));
        };
        self.requests.push_back(Request::SendSoon { user_data, socket, bytes: bytes.into() });
    }

    /// Sends a message, and completes it immediately if bytes are left, as a real kernel does before the call returns.
    fn send_message(&mut self, user_data: u64, socket: SocketId, bytes: &[u8]) {
        let sent = match self.strikes(Fault::SendWouldBlock) {
            true => Err(libc::EAGAIN),
            false => self.send(socket, bytes),
        };
        trace!(self, "socket {socket} sends a message of {} bytes: {sent:?}", bytes.len());
        let result = match sent {
            Ok(count) if count == bytes.len() => return,
            Ok(count) => count as i32,
            Err(errno) => -errno,
        };
        let key = OperationKey::from_user_data(user_data);
        self.unsent.push(RawCompletion { result, ..RawCompletion::failed(key, 0) });
    }

    /// Moves due completions to `ready`, not always all of them.
    fn reap(&mut self, ready: &mut ReadyQueue) {
        self.unsent.drain(..).for_each(|completion| ready.push_back(completion));
        let due = self.completions.iter().filter(|posted| posted.at_ns <= self.now_ns).count();
        if due == 0 {
            return;
        }
        let few = 1 + self.random.below(3) as usize;
        let limit = if due > few && self.strikes(Fault::FewPerEnter) { few } else { due };
        for _ in 0..limit {
            let Some(first) = self.completions.iter().position(|posted| posted.at_ns <= self.now_ns) else {
                return;
            };
            let chosen = self.overtaking(first);
            let posted = self.completions.remove(chosen);
            ready.push_back(RawCompletion {
                key: self.reaped(&posted),
                result: posted.result,
                more: posted.more,
                buffer: posted.buffer,
                cancel_missed: posted.cancel_missed,
            });
        }
    }

    /// The index of the completion to reap first, which may overtake those of other operations.
    fn overtaking(&mut self, first: usize) -> usize {
        if !self.strikes(Fault::Reordered) {
            return first;
        }
        let chosen = self.random.between(first, self.completions.len() - 1);
        let of = (self.completions[chosen].user_data, self.completions[chosen].cancel_missed);
        let earliest = self
            .completions
            .iter()
            .position(|posted| (posted.user_data, posted.cancel_missed) == of)
            .unwrap_or(first);
        if self.completions[earliest].at_ns <= self.now_ns { earliest } else { first }
    }

    /// Advances the clock until there is a completion, or the timeout has passed.
    fn block(&mut self, timeout: Option<Duration>, ready: &mut ReadyQueue) {
        self.sweep();
        let nanoseconds = |timeout: Duration| timeout.as_nanos().min(u128::from(u64::MAX / 4)) as u64;
        let limit_ns = timeout.map(|timeout| self.now_ns + nanoseconds(timeout));
        while ready.is_empty() && self.calls_ended.is_empty() && self.violation().is_none() {
            match (self.next_event_ns(), limit_ns) {
                (None, None) => {
                    let waiting: Vec<_> =
                        self.operations.values().map(|waiting| format!("{waiting:?}")).collect();
                    let text = format!(
                        "a waiter was forgotten: the loop blocks, and nothing can happen any more; in flight: {}",
                        if waiting.is_empty() { "nothing".to_string() } else { waiting.join(", ") }
                    );
                    return self.violate(text);
                }
                (Some(at_ns), limit_ns) if limit_ns.is_none_or(|limit_ns| at_ns <= limit_ns) => {
                    self.now_ns = self.now_ns.max(at_ns);
                }
                (_, Some(limit_ns)) => {
                    if self.strikes(Fault::EnterInterrupted) {
                        self.now_ns += self.random.below(limit_ns - self.now_ns);
                        return;
                    }
                    self.now_ns = limit_ns;
                    if self.strikes(Fault::LateTimer) {
                        self.now_ns += self.delay_ns();
                    }
                    self.catch_up();
                    return self.reap(ready);
                }
                (Some(at_ns), None) => self.now_ns = self.now_ns.max(at_ns),
            }
            self.catch_up();
            if self.strikes(Fault::EnterInterrupted) {
                trace!(self, "the wait was interrupted");
                return;
            }
            self.reap(ready);
        }
    }

    /// Checks that the loop, which has ended, leaves nothing behind.
    fn detach(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let everywhere = self.provided.len() + pool.free() + usize::from(pool.lent());
        if everywhere != usize::from(pool.count()) {
            let count = pool.count();
            self.violate(format!("{everywhere} receive buffers are accounted for, of {count}"));
        }
        self.provided.clear();
        if let Some(operation) = self.operations.values().next() {
            let text = format!("the loop ended without the terminal completion of {operation:?}");
            self.violate(text);
        }
    }

    fn send_now(&mut self, descriptor: RawFd, bytes: &[u8]) -> Result<usize, i32> {
        let Some(id) = self.socket_of(descriptor) else { return Err(libc::EBADF) };
        if self.strikes(Fault::SendWouldBlock) {
            return Err(libc::EAGAIN);
        }
        let sent = self.send(id, bytes);
        trace!(self, "socket {id} sends {} bytes directly: {sent:?}", bytes.len());
        sent
    }

    fn receive_now(&mut self, descriptor: RawFd, most: usize, piece: impl FnMut(&[u8])) -> Result<u32, i32> {
        let Some(id) = self.socket_of(descriptor) else { return Err(libc::EBADF) };
        let received = self.receive(id, most, false, piece);
        trace!(self, "socket {id} receives directly: {received:?}");
        received.map(|count| count as u32)
    }
}
