//! What the workers of a server share: who serves, whom connections count for, and what each is sent.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ringspun_fibers::{SharedChannel, TakeOver, Worker};

use crate::machine::{Placement, Term};

/// A socket, and the number of its address.
pub(super) type Numbered = (usize, OwnedFd);

/// What the workers of a server share.
pub(super) struct Shared {
    pub(super) workers: Vec<Worker>,
    pub(super) placement: Placement,
    connections_max: usize,
    parts: Box<[Part]>,
    pub(super) draining: AtomicBool,
    /// Connections are dropped from now on.
    ending: AtomicBool,
    /// Nothing more is received from now on.
    input_ended: AtomicBool,
    /// Has a value after each change that a drain waits for.
    pub(super) changed: SharedChannel<()>,
    /// Closed when no worker serves any more.
    pub(super) ended: SharedChannel<()>,
    /// Called when a worker has failed.
    pub(super) take_over: OnceLock<Arc<TakeOver>>,
}

/// What others know of a worker's part.
struct Part {
    /// What it is sent.
    inbox: Mutex<SharedChannel<Message>>,
    serves: AtomicBool,
    /// Its listeners that are open, or have connections to hand over, and its sockets for datagrams.
    accepting: AtomicUsize,
    /// Duplicates of its sockets, for the one who takes over if it fails: what waits in the kernel is not lost then.
    sockets: Mutex<Vec<Numbered>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message to a worker.
pub(super) enum Message {
    /// A connection of the listener with this number.
    Connection(usize, OwnedFd, Live),
    /// Sockets of a worker that has failed, to be served from now on.
    Sockets(Vec<Numbered>),
    /// Accept no more connections; close the datagram sockets.
    StopListening,
    /// Receive nothing more from the connections.
    EndInput,
    /// Cancel the fibers that are left.
    Cancel,
}

impl Shared {
    pub(super) fn new(workers: Vec<Worker>, connections_max: usize) -> Arc<Self> {
        let part = |_: &Worker| Part {
            inbox: Mutex::new(SharedChannel::bounded(usize::MAX)),
            serves: AtomicBool::new(false),
            accepting: AtomicUsize::new(0),
            sockets: Mutex::default(),
        };
        Arc::new(Self {
            placement: Placement::new(workers.len()),
            connections_max,
            parts: workers.iter().map(part).collect(),
            workers,
            draining: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            input_ended: AtomicBool::new(false),
            changed: SharedChannel::bounded(1),
            ended: SharedChannel::bounded(1),
            take_over: OnceLock::new(),
        })
    }

    pub(super) fn inbox(&self, worker: usize) -> SharedChannel<Message> {
        lock(&self.parts[worker].inbox).clone()
    }

    /// Sends a message to all workers. Those that have ended do not get it.
    pub(super) fn tell_all(&self, make: impl Fn() -> Message) {
        for worker in 0..self.parts.len() {
            let _ = self.inbox(worker).try_give(make());
        }
    }

    pub(super) fn close_inboxes(&self) {
        self.parts.iter().for_each(|part| lock(&part.inbox).close());
    }

    /// Ends the server at once.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.tell_all(|| Message::StopListening);
        self.tell_all(|| Message::Cancel);
        self.close_inboxes();
    }

    /// Ends the input of all connections, also of those to come.
    pub(super) fn end_input(&self) {
        self.input_ended.store(true, Ordering::SeqCst);
        self.tell_all(|| Message::EndInput);
    }

    pub(super) fn has_ended_input(&self) -> bool {
        self.input_ended.load(Ordering::SeqCst)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Whether the server has been told to end, in whatever way.
    pub(super) fn is_over(&self) -> bool {
        self.is_ending() || self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn tell_change(&self) {
        // Both are `SeqCst`, as are those of the drain: one of the two sees what the other has done.
        if self.draining.load(Ordering::SeqCst) {
            let _ = self.changed.try_give(());
        }
    }

    /// How many listeners are open or have connections to hand over.
    pub(super) fn accepting(&self) -> usize {
        self.parts.iter().map(|part| part.accepting.load(Ordering::SeqCst)).sum()
    }

    /// A worker serves from now on: the calling thread.
    pub(super) fn enter(&self, worker: usize) {
        self.placement.enter(worker);
        self.parts[worker].serves.store(true, Ordering::SeqCst);
    }

    /// A worker serves no more, and nobody takes over from it.
    pub(super) fn leave(&self, worker: usize) {
        self.placement.leave(worker);
        self.forget_sockets(worker);
        let serves = |part: &Part| part.serves.load(Ordering::SeqCst);
        if self.parts[worker].serves.swap(false, Ordering::SeqCst) && !self.parts.iter().any(serves) {
            self.ended.close();
        }
    }

    /// Keeps a duplicate of a worker's socket.
    pub(super) fn keep_socket(&self, worker: usize, socket: Numbered) {
        lock(&self.parts[worker].sockets).push(socket);
    }

    /// Closes the duplicates, so that the ports are free when the worker has closed its sockets.
    pub(super) fn forget_sockets(&self, worker: usize) {
        let forgotten = std::mem::take(&mut *lock(&self.parts[worker].sockets));
        drop(forgotten);
    }

    /// Writes off what a failed worker had, and gives its sockets and the messages that it has not taken.
    pub(super) fn write_off(&self, worker: usize) -> (Vec<Numbered>, Vec<Message>) {
        self.placement.fail(worker);
        let part = &self.parts[worker];
        part.accepting.store(0, Ordering::SeqCst);
        let inbox = std::mem::replace(&mut *lock(&part.inbox), SharedChannel::bounded(usize::MAX));
        inbox.close();
        let mut messages = Vec::new();
        while let Ok(Some(message)) = inbox.try_take() {
            messages.push(message);
        }
        self.tell_change();
        (std::mem::take(&mut *lock(&part.sockets)), messages)
    }
}

/// A connection that counts as one of a worker, until it is dropped.
pub(super) struct Live {
    shared: Arc<Shared>,
    pub(super) worker: usize,
    term: Term,
}

impl Live {
    /// Chooses the worker for a connection that has landed on `here`; `None` if there are as many as there may be.
    pub(super) fn place(shared: &Arc<Shared>, here: usize) -> Option<Self> {
        let (worker, term) = shared.placement.place_within(here, shared.connections_max)?;
        Some(Self { shared: shared.clone(), worker, term })
    }

    /// Counts a connection as one of this worker.
    pub(super) fn count(shared: &Arc<Shared>, worker: usize) -> Self {
        Self { shared: shared.clone(), worker, term: shared.placement.count(worker) }
    }

    /// Counts it for the worker that has got it, which may not be the one that it was for.
    pub(super) fn arrive(self, here: usize) -> Self {
        if self.worker == here && self.shared.placement.is_in_term(here, self.term) {
            return self;
        }
        let term = self.shared.placement.count_again(here);
        Self { shared: self.shared.clone(), worker: here, term }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.placement.ended(self.worker, self.term);
        self.shared.tell_change();
    }
}

/// A socket that a worker has open, until it is dropped.
pub(super) struct Accepting {
    shared: Arc<Shared>,
    worker: usize,
}

impl Accepting {
    pub(super) fn new(shared: &Arc<Shared>, worker: usize) -> Self {
        shared.parts[worker].accepting.fetch_add(1, Ordering::SeqCst);
        Self { shared: shared.clone(), worker }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.shared.parts[self.worker].accepting.fetch_sub(1, Ordering::SeqCst);
        self.shared.tell_change();
    }
}
