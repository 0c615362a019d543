//! The operations of the simulated kernel: their attempts and ends.

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use super::faults::Fault;
use super::in_flight::{FileTask, InFlight, Outcome, Outgoing, Posted, Request, State, Task};
use super::signals::is_readable;
use super::socket::{Kind, SocketId};
use super::world::{Event, World, trace};
use crate::operation::{Interest, Operation, OperationKey};

/// How long a peer may take to acknowledge bytes.
const NOTIFICATION_MAX_NS: u64 = 30_000_000_000;

/// In place of a descriptor and a socket, of an operation that opens a file.
const NO_DESCRIPTOR: RawFd = -1;
const NO_SOCKET: SocketId = SocketId::MAX;

impl World {
    /// Adds an operation to the submission queue.
    pub(super) fn queue(&mut self, number: u64, user_data: u64, operation: &Operation) {
        let (descriptor, task) = match operation {
            Operation::Accept { listener } => (*listener, Task::Accept),
            Operation::Receive { socket } => (*socket, Task::Receive),
            Operation::Send { socket, data } => (*socket, Task::Send(Outgoing::new(data, false))),
            Operation::SendZeroCopy { socket, data } => {
                (*socket, Task::Send(Outgoing::new(data, !self.is_readiness_based)))
            }
            Operation::Connect { socket, address } => (*socket, Task::Connect(address.clone())),
            Operation::Poll { descriptor, interest } => (*descriptor, Task::Poll(*interest)),
            Operation::PollInput { socket } => (*socket, Task::PollInput),
            Operation::File(operation) => {
                let (descriptor, task) = FileTask::new(operation);
                (descriptor.unwrap_or(NO_DESCRIPTOR), Task::File(task))
            }
            Operation::ReceiveFrom { socket } | Operation::SendTo { socket, .. } => (*socket, Task::Unknown),
        };
        let socket = match descriptor {
            NO_DESCRIPTOR => Some(NO_SOCKET),
            _ => self.socket_of(descriptor).or_else(|| self.adopt(descriptor)),
        };
        let Some(socket) = socket else {
            return self.violate(format!("{operation:?}: no open socket has this descriptor"));
        };
        let (state, attempt_due, giving_up) = (State::Queued, false, false);
        let operation = InFlight { number, socket, task, state, attempt_due, giving_up, posted_ns: 0 };
        trace!(self, "{operation:?} submitted");
        if self.operations.insert(user_data, operation).is_some() {
            self.violate(format!("the user_data {user_data:#x} was used again while it is in flight"));
        }
        self.requests.push_back(Request::Start(user_data));
    }

    /// Executes a submitted request.
    pub(super) fn carry_out(&mut self, request: Request) {
        match request {
            Request::Start(user_data) => self.start(user_data),
            Request::Cancel(user_data) => self.cancel(user_data),
            Request::SendSoon { user_data, socket, bytes } => self.send_message(user_data, socket, &bytes),
        }
    }

    fn start(&mut self, user_data: u64) {
        let Some(operation) = self.operations.get_mut(&user_data) else { return };
        operation.state = State::Armed;
        if let Task::Connect(_) = operation.task {
            let mut at_ns = self.now_ns + self.latency_ns();
            if self.random.chance(64) && self.plan.allows(Fault::ConnectFailed) {
                at_ns += self.random.below(4_000_000_000);
            }
            return self.schedule(at_ns, Event::Connected(user_data));
        }
        if let Task::File(_) = operation.task {
            // The disk takes its time. A cancel stops what has not begun.
            operation.attempt_due = true;
            let at_ns = self.now_ns + if self.random.chance(512) { 0 } else { self.delay_ns() };
            return self.schedule(at_ns, Event::Attempt(user_data));
        }
        // The first attempt is made immediately, or later by a kernel thread.
        match self.random.chance(512) {
            true => self.attempt(user_data),
            false => self.attempt_soon(user_data),
        }
    }

    fn attempt_soon(&mut self, user_data: u64) {
        let at_ns = match self.random.chance(768) {
            true => self.now_ns,
            false => self.now_ns + self.random.below(20_000),
        };
        if let Some(operation) = self.operations.get_mut(&user_data)
            && operation.state == State::Armed
            && !std::mem::replace(&mut operation.attempt_due, true)
        {
            self.schedule(at_ns, Event::Attempt(user_data));
        }
    }

    fn attempt_where(&mut self, id: SocketId, of_kind: impl Fn(&Task) -> bool) {
        let fits = |operation: &InFlight| operation.socket == id && of_kind(&operation.task);
        let found: Vec<_> =
            self.operations.iter().filter(|(_, operation)| fits(operation)).map(|(key, _)| *key).collect();
        found.into_iter().for_each(|user_data| self.attempt_soon(user_data));
    }

    /// Schedules attempts of operations that wait for input.
    pub(super) fn attempt_input(&mut self, id: SocketId) {
        self.attempt_where(id, |task| {
            matches!(task, Task::Accept | Task::Receive | Task::Poll(Interest::Readable) | Task::PollInput)
        });
    }

    /// Schedules attempts of operations that wait for room.
    pub(super) fn attempt_output(&mut self, id: SocketId) {
        self.attempt_where(id, |task| matches!(task, Task::Send(_) | Task::Poll(Interest::Writable)));
    }

    pub(super) fn attempt(&mut self, user_data: u64) {
        self.attempt_for(user_data, false);
    }

    /// Attempts an operation. On the `last` attempt, a multishot operation ends with its result.
    fn attempt_for(&mut self, user_data: u64, last: bool) {
        let Some(mut operation) = self.operations.remove(&user_data) else { return };
        operation.attempt_due = false;
        let mut again = false;
        if operation.state == State::Armed
            && let Some(mut outcome) = self.try_out(&mut operation, &mut again)
        {
            if operation.giving_up && outcome.result.is_ok() {
                self.plan.count(Fault::LateSuccess);
            }
            outcome.more = outcome.more && !last && !self.strikes(Fault::MultishotEnded);
            // A poll completes again only when more arrives.
            again = outcome.more && !matches!(operation.task, Task::PollInput);
            self.post(user_data, &mut operation, outcome);
        }
        self.operations.insert(user_data, operation);
        if again {
            self.attempt_soon(user_data);
        }
    }

    fn try_out(&mut self, operation: &mut InFlight, again: &mut bool) -> Option<Outcome> {
        let id = operation.socket;
        match &mut operation.task {
            Task::Accept => self.try_accept(id),
            Task::Receive => self.try_receive(id),
            Task::Send(outgoing) => self.try_send(id, outgoing, again),
            Task::Poll(interest) => {
                let interest = *interest;
                self.events_of(id, interest).map(|events| Outcome {
                    result: Ok(events),
                    buffer: None,
                    more: false,
                })
            }
            Task::PollInput => self.try_poll_input(id),
            Task::File(task) => self.try_file(id, task),
            Task::Unknown => Outcome::last(Err(libc::EOPNOTSUPP)),
            Task::Connect(_) => None,
        }
    }

    fn try_accept(&mut self, listener: SocketId) -> Option<Outcome> {
        match self.accept(listener) {
            // The receiver of the completion owns it.
            Ok(descriptor) => Outcome::one_of_many(descriptor.into_raw_fd() as usize, None),
            Err(libc::EAGAIN) => None,
            Err(errno) => Outcome::last(Err(errno)),
        }
    }

    /// Accepts the first connection of a listener's backlog, unless a fault happens.
    pub(super) fn accept(&mut self, listener: SocketId) -> Result<OwnedFd, i32> {
        let Kind::Listener(backlog) = &self.sockets[listener].kind else { return Err(libc::EINVAL) };
        if backlog.is_empty() {
            return Err(libc::EAGAIN);
        }
        if self.strikes(Fault::AcceptExhausted) {
            return Err(*self.random.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS]));
        }
        let connection = match &mut self.sockets[listener].kind {
            Kind::Listener(backlog) => backlog.pop_front().ok_or(libc::EAGAIN)?,
            _ => return Err(libc::EINVAL),
        };
        if self.strikes(Fault::ConnectionAborted) {
            self.abort(connection);
            return Err(libc::ECONNABORTED);
        }
        let descriptor =
            self.open(connection).map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
        trace!(self, "socket {connection} accepted");
        Ok(descriptor)
    }

    fn try_receive(&mut self, id: SocketId) -> Option<Outcome> {
        let Some(connection) = self.connection(id) else { return Outcome::last(Err(libc::ENOTCONN)) };
        if connection.arrived() == 0 {
            return match connection.receive_nothing() {
                Err(libc::EAGAIN) => None,
                end => Outcome::last(end),
            };
        }
        if self.strikes(Fault::NoBuffers) {
            return Outcome::last(Err(libc::ENOBUFS));
        }
        let Some(pool) = self.pool.clone() else { return Outcome::last(Err(libc::ENOBUFS)) };
        let buffer = if self.is_readiness_based { pool.take_returned() } else { self.provided.pop() };
        let Some(buffer) = buffer else {
            self.plan.count(Fault::BuffersExhausted);
            return Outcome::last(Err(libc::ENOBUFS));
        };
        let start = pool.address(buffer);
        let mut filled = 0;
        let received = self.receive(id, pool.buffer_size_bytes(), true, |piece| {
            // SAFETY: the pieces together fit into the buffer, which is exclusively the kernel's while it is taken.
            unsafe { start.add(filled).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            filled += piece.len();
        });
        match received {
            Ok(count) => Outcome::one_of_many(count, Some(buffer)),
            Err(errno) => {
                self.violate(format!("bytes that had arrived at socket {id} were gone: errno {errno}"));
                Outcome::last(Err(errno))
            }
        }
    }

    fn try_send(&mut self, id: SocketId, outgoing: &mut Outgoing, again: &mut bool) -> Option<Outcome> {
        if !outgoing.is_unchanged() {
            self.violate(format!("bytes that socket {id} sends changed before the terminal completion"));
        }
        if outgoing.is_zero_copy && self.connection(id).is_some_and(|connection| !connection.takes_all) {
            // As on Unix sockets.
            return Outcome::last(Err(libc::EOPNOTSUPP));
        }
        let total = outgoing.bytes.len();
        match self.send(id, &outgoing.bytes[outgoing.sent..]) {
            Ok(count) => outgoing.sent += count,
            Err(libc::EAGAIN) => return None,
            // A partial send is reported before the error.
            Err(_) if outgoing.sent > 0 => return Outcome::last(Ok(outgoing.sent)),
            Err(errno) => return Outcome::last(Err(errno)),
        }
        trace!(self, "socket {id} has sent {} of {total} bytes", outgoing.sent);
        if outgoing.sent == total || (outgoing.sent > 0 && self.strikes(Fault::SendCutShort)) {
            return Outcome::last(Ok(outgoing.sent));
        }
        *again = true;
        None
    }

    fn try_poll_input(&mut self, id: SocketId) -> Option<Outcome> {
        let events = match self.events_of(id, Interest::Readable) {
            Some(events) => events,
            None if self.strikes(Fault::SpuriousReadiness) => libc::POLLIN as usize,
            None => return None,
        };
        Outcome::one_of_many(events, None)
    }

    /// The current events of a socket; `None` if there are none.
    fn events_of(&mut self, id: SocketId, interest: Interest) -> Option<usize> {
        let events = match (&mut self.sockets[id].kind, interest) {
            (Kind::Listener(backlog), _) => {
                if backlog.is_empty() {
                    0
                } else {
                    libc::POLLIN
                }
            }
            (Kind::Connection(connection), Interest::Readable) => match connection.is_readable() {
                false => 0,
                true if connection.is_over() => libc::POLLIN | libc::POLLHUP,
                true if !connection.takes_all => libc::POLLIN | libc::POLLHUP,
                true => libc::POLLIN,
            },
            (Kind::Connection(connection), Interest::Writable) => {
                let peer = connection.peer;
                let cannot_send = connection.cannot_send();
                let room = self.connection(peer).is_none_or(|peer| peer.room() > 0);
                if cannot_send || room { libc::POLLOUT } else { 0 }
            }
            (Kind::Bell(descriptor), _) => is_readable(*descriptor),
            (Kind::Unconnected | Kind::File(_) | Kind::Closed, _) => libc::POLLHUP,
        };
        (events != 0).then_some(events as usize)
    }

    /// Posts a completion, possibly delayed.
    fn post(&mut self, user_data: u64, operation: &mut InFlight, outcome: Outcome) {
        let result = match outcome.result {
            Ok(count) => count as i32,
            Err(errno) => -errno,
        };
        let delay_ns = if self.strikes(Fault::LateCompletion) { self.delay_ns() } else { 0 };
        let at_ns = operation.posted_ns.max(self.now_ns + delay_ns);
        operation.posted_ns = at_ns;
        let notifies = !outcome.more && self.notifies(user_data, operation, result);
        let more = outcome.more || notifies;
        trace!(self, "{operation:?} {} {result}", if more { "gives" } else { "ends with" });
        if !more {
            operation.state = State::Over;
            if operation.task.outgoing().is_some_and(|outgoing| !outgoing.is_unchanged()) {
                self.violate(format!("{operation:?}: its bytes changed before its terminal completion"));
            }
        }
        let buffer = outcome.buffer;
        self.completions.push(Posted { user_data, at_ns, result, more, buffer, cancel_missed: false });
    }

    fn cancel(&mut self, user_data: u64) {
        let armed = self.operations.get(&user_data).filter(|operation| operation.state == State::Armed);
        let misses = match armed {
            None => true,
            Some(_) => !self.is_readiness_based && self.strikes(Fault::CancelMissed),
        };
        if misses {
            if !self.is_readiness_based {
                // An operation that is over completes before a kernel has answered many cancels.
                let over = self.operations.get(&user_data).filter(|operation| operation.state == State::Over);
                let completes_in_ns = over.map_or(0, |it| it.posted_ns.saturating_sub(self.now_ns));
                let late_ns =
                    if self.strikes(Fault::LateCompletion) { self.random.below(100_000) } else { 0 };
                let at_ns = self.now_ns + self.random.below(completes_in_ns + 1) + late_ns;
                let (result, more, buffer) = (-libc::ENOENT, false, None);
                self.completions.push(Posted { user_data, at_ns, result, more, buffer, cancel_missed: true });
            }
            return;
        }
        if self.strikes(Fault::CancelTooLate) {
            let at_ns = self.now_ns + self.delay_ns();
            if let Some(operation) = self.operations.get_mut(&user_data) {
                operation.giving_up = true;
            }
            return self.schedule(at_ns, Event::GiveUp(user_data));
        }
        if self.plan.would_strike(&mut self.random, Fault::LateSuccess) {
            // If it can succeed, it does.
            if let Some(operation) = self.operations.get_mut(&user_data) {
                operation.giving_up = true;
            }
            self.attempt_for(user_data, true);
        }
        self.give_up(user_data);
    }

    /// Ends a cancelled operation, unless it is over.
    pub(super) fn give_up(&mut self, user_data: u64) {
        let Some(mut operation) = self.operations.remove(&user_data) else { return };
        if operation.state == State::Armed {
            let result = match &operation.task {
                Task::Send(outgoing) if outgoing.sent > 0 => Ok(outgoing.sent),
                _ => Err(libc::ECANCELED),
            };
            self.post(user_data, &mut operation, Outcome { result, buffer: None, more: false });
        }
        self.operations.insert(user_data, operation);
    }

    /// Completes a connect.
    pub(super) fn finish_connect(&mut self, user_data: u64) {
        let Some(mut operation) = self.operations.remove(&user_data) else { return };
        if operation.state == State::Armed
            && let Task::Connect(address) = &operation.task
        {
            let listener = self.listener_at(address);
            let result = match listener {
                _ if self.strikes(Fault::ConnectFailed) => {
                    Err(*self.random.pick(&[libc::ECONNREFUSED, libc::ETIMEDOUT, libc::ENETUNREACH]))
                }
                None => Err(libc::ECONNREFUSED),
                Some(listener) => {
                    self.establish(operation.socket, listener);
                    Ok(0)
                }
            };
            if operation.giving_up && result.is_ok() {
                self.plan.count(Fault::LateSuccess);
            }
            self.post(user_data, &mut operation, Outcome { result, buffer: None, more: false });
        }
        self.operations.insert(user_data, operation);
    }

    pub(super) fn add_to_digest(&mut self, fact: u64) {
        self.digest = (self.digest ^ fact).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    /// Whether a notification follows the result of an operation, and schedules it: when the peer has acknowledged the
    /// bytes, or long after.
    fn notifies(&mut self, user_data: u64, operation: &mut InFlight, result: i32) -> bool {
        let Task::Send(outgoing) = &operation.task else { return false };
        // The kernel also notifies after most failures.
        let may_notify = outgoing.is_zero_copy && result != -libc::EOPNOTSUPP;
        let begun = may_notify && (result > 0 || self.random.chance(512));
        if !begun || operation.state == State::Notifying {
            return false;
        }
        operation.state = State::Notifying;
        let connection = self.connection(operation.socket).filter(|connection| !connection.is_dead());
        let peer = connection.map(|connection| connection.peer).filter(|_| result > 0);
        let mut at_ns = operation.posted_ns;
        if let Some(peer) = peer {
            let arrival_ns = self.connection(peer).map_or(0, |peer| peer.last_arrival_ns);
            at_ns = at_ns.max(arrival_ns) + self.latency_ns();
            if self.strikes(Fault::LateNotification) {
                at_ns += self.random.below(NOTIFICATION_MAX_NS);
            }
        }
        self.schedule(at_ns, Event::Notified(user_data));
        true
    }

    /// Posts the notification of a zero-copy send, unless it has come already.
    pub(super) fn notify(&mut self, user_data: u64) {
        let Some(mut operation) = self.operations.remove(&user_data) else { return };
        if operation.state == State::Notifying {
            self.post(user_data, &mut operation, Outcome { result: Ok(0), buffer: None, more: false });
        }
        self.operations.insert(user_data, operation);
    }

    /// Notifies of all zero-copy sends of a socket whose connection is over.
    pub(super) fn notify_all(&mut self, id: SocketId) {
        let waits = |operation: &InFlight| operation.socket == id && operation.state == State::Notifying;
        let found: Vec<_> =
            self.operations.iter().filter(|(_, operation)| waits(operation)).map(|(key, _)| *key).collect();
        found.into_iter().for_each(|user_data| self.schedule(self.now_ns, Event::Notified(user_data)));
    }

    /// Adds a reaped completion to the digest, removes an operation that is over, and returns its key.
    pub(super) fn reaped(&mut self, posted: &Posted) -> OperationKey {
        let number = self.operations.get(&posted.user_data).map_or(0, |operation| operation.number);
        let facts = [number, self.now_ns, posted.result as u32 as u64, u64::from(posted.more)];
        let operation = self.operations.get(&posted.user_data);
        let gives_descriptor = operation.is_some_and(|it| posted.result >= 0 && it.task.gives_descriptor());
        for (at, fact) in facts.into_iter().enumerate() {
            self.add_to_digest(if gives_descriptor && at == 2 { 0 } else { fact });
        }
        if !posted.more && !posted.cancel_missed {
            self.operations.remove(&posted.user_data);
        }
        OperationKey::from_user_data(posted.user_data)
    }
}
