//! What a server has on one worker: its sockets, its handlers and the connections that it serves there.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringspun_fibers::{self as fibers, JoinHandle, SharedChannel, Worker};
use slab::Slab;

use crate::datagram::DatagramSocket;
use crate::error::{interrupt_of, is_closed};
use crate::listener::Listener;
use crate::machine::Placement;
use crate::stream::Stream;
use crate::waiting::current_loop;

/// What serves at one address, on one worker.
pub(super) enum Handler<S> {
    /// Each connection, in a fiber of its own.
    Connections(Rc<ServeConnection<S>>),
    /// A socket, in one fiber.
    Datagrams(Rc<ServeDatagrams<S>>),
}

type ServeConnection<S> = dyn Fn(Stream, &S);
type ServeDatagrams<S> = dyn Fn(&DatagramSocket, &S);

/// What the workers of a server share.
pub(super) struct Shared {
    pub(super) workers: Vec<Worker>,
    pub(super) placement: Placement,
    /// What each worker is sent.
    pub(super) inboxes: Vec<SharedChannel<Message>>,
    /// Listeners that are open, or have connections to hand over.
    pub(super) accepting: AtomicUsize,
    /// Workers that serve.
    pub(super) sites: AtomicUsize,
    pub(super) draining: AtomicBool,
    /// Connections are dropped from now on.
    pub(super) ending: AtomicBool,
    /// Has a value after each change that a drain waits for.
    pub(super) changed: SharedChannel<()>,
    /// Closed when no worker serves any more.
    pub(super) ended: SharedChannel<()>,
}

impl Shared {
    pub(super) fn new(workers: Vec<Worker>) -> Arc<Self> {
        Arc::new(Self {
            placement: Placement::new(workers.len()),
            inboxes: workers.iter().map(|_| SharedChannel::bounded(usize::MAX)).collect(),
            workers,
            accepting: AtomicUsize::new(0),
            sites: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            changed: SharedChannel::bounded(1),
            ended: SharedChannel::bounded(1),
        })
    }

    /// Sends a message to all workers. Those that have ended do not get it.
    pub(super) fn tell_all(&self, make: impl Fn() -> Message) {
        for inbox in &self.inboxes {
            let _ = inbox.try_give(make());
        }
    }

    fn tell_change(&self) {
        // Both are `SeqCst`, as are those of the drain: one of the two sees what the other has done.
        if self.draining.load(Ordering::SeqCst) {
            let _ = self.changed.try_give(());
        }
    }
}

/// A message to a worker.
pub(super) enum Message {
    /// A connection of the listener with this number.
    Connection(usize, OwnedFd, Live),
    /// Accept no more connections; close the datagram sockets.
    StopListening,
    /// Cancel the fibers that are left.
    Cancel,
}

/// A connection that counts as one of a worker, until it is dropped.
pub(super) struct Live {
    shared: Arc<Shared>,
    worker: usize,
}

impl Live {
    /// Chooses the worker for a connection that has landed on `here`.
    fn place(shared: &Arc<Shared>, here: usize) -> Self {
        Self { shared: shared.clone(), worker: shared.placement.place(here) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.placement.ended(self.worker);
        self.shared.tell_change();
    }
}

/// A listener that counts as open, until it is dropped.
struct Accepting(Arc<Shared>);

impl Accepting {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.accepting.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::SeqCst);
        self.0.tell_change();
    }
}

/// A server's part on one worker.
pub(super) struct Site<S> {
    shared: Arc<Shared>,
    worker: usize,
    state: S,
    handlers: Vec<Handler<S>>,
    connections: RefCell<Slab<JoinHandle<()>>>,
    /// Fibers that accept.
    accepting: RefCell<Vec<JoinHandle<()>>>,
    datagram_sockets: RefCell<Vec<Rc<DatagramSocket>>>,
}

impl<S: 'static> Site<S> {
    /// Begins to serve, in fibers of this thread's runtime, on the sockets of the handlers with these numbers.
    pub(super) fn start(
        shared: Arc<Shared>,
        worker: usize,
        state: S,
        handlers: Vec<Handler<S>>,
        sockets: Vec<(usize, OwnedFd)>,
    ) -> io::Result<()> {
        shared.placement.enter(worker);
        shared.sites.fetch_add(1, Ordering::SeqCst);
        let site = Rc::new(Self {
            shared,
            worker,
            state,
            handlers,
            connections: RefCell::default(),
            accepting: RefCell::default(),
            datagram_sockets: RefCell::default(),
        });
        for (number, socket) in sockets {
            site.clone().open(number, socket)?;
        }
        fibers::spawn(move || site.follow()).map(drop)
    }

    fn open(self: Rc<Self>, number: usize, socket: OwnedFd) -> io::Result<()> {
        let event_loop = current_loop()?;
        match &self.handlers[number] {
            Handler::Connections(_) => {
                let listener = Listener::from_descriptor(event_loop, socket);
                let (site, open) = (self.clone(), Accepting::new(&self.shared));
                let accepting = fibers::spawn(move || {
                    site.accept(number, &listener);
                    drop(open);
                })?;
                self.accepting.borrow_mut().push(accepting);
            }
            Handler::Datagrams(handler) => {
                let socket = Rc::new(DatagramSocket::from_descriptor(event_loop, socket));
                self.datagram_sockets.borrow_mut().push(socket.clone());
                let (site, handler, open) = (self.clone(), handler.clone(), Accepting::new(&self.shared));
                let serving = fibers::spawn(move || {
                    handler(&socket, &site.state);
                    drop(open);
                })?;
                self.accepting.borrow_mut().push(serving);
            }
        }
        Ok(())
    }

    /// Accepts connections until the server stops listening.
    fn accept(self: Rc<Self>, number: usize, listener: &Listener) {
        let accepted = listener.accept_each(|connection| self.place(number, connection));
        if let Err(error) = accepted
            && interrupt_of(&error).is_none()
            && !is_closed(&error)
        {
            tracing::error!(%error, worker = self.worker, "a server stopped accepting");
        }
        listener.finish(|connection| self.place(number, connection));
    }

    /// Serves a connection on the worker that it is for; false if it had to be dropped.
    fn place(self: &Rc<Self>, number: usize, mut connection: OwnedFd) -> bool {
        // Otherwise, it is dropped.
        while !self.shared.ending.load(Ordering::Acquire) {
            let live = Live::place(&self.shared, self.worker);
            let worker = live.worker;
            if worker == self.worker {
                return self.serve(number, connection, live);
            }
            let inbox = &self.shared.inboxes[worker];
            if self.shared.workers[worker].has_ended() {
                inbox.close();
            }
            let message = Message::Connection(number, connection, live);
            let Err(refused) = inbox.try_give(message) else { return true };
            self.shared.placement.leave(worker);
            match refused.into_value() {
                Message::Connection(_, returned, _) => connection = returned,
                Message::StopListening | Message::Cancel => break,
            }
        }
        true
    }

    /// Serves a connection in a fiber; false if there is no memory for one.
    fn serve(self: &Rc<Self>, number: usize, connection: OwnedFd, live: Live) -> bool {
        let (Handler::Connections(handler), Ok(event_loop)) = (&self.handlers[number], current_loop()) else {
            return false;
        };
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let listed = Listed { site: self.clone(), key: entry.key(), _live: live };
        let handler = handler.clone();
        let spawned = fibers::spawn(move || {
            handler(Stream::from_descriptor(event_loop, connection), &listed.site.state);
        });
        match spawned {
            Ok(fiber) => {
                entry.insert(fiber);
                true
            }
            Err(_) => false,
        }
    }

    /// Does what the worker is told, until the server or the runtime ends.
    fn follow(self: Rc<Self>) {
        let inbox = self.shared.inboxes[self.worker].clone();
        while let Ok(message) = inbox.take() {
            match message {
                Message::Connection(number, connection, live) => {
                    // Without memory, it is dropped.
                    self.serve(number, connection, live);
                }
                Message::StopListening => {
                    self.datagram_sockets.take().iter().for_each(|socket| socket.close());
                    self.accepting.take().iter().for_each(JoinHandle::cancel);
                }
                Message::Cancel => {
                    self.connections.borrow().iter().for_each(|(_, connection)| connection.cancel());
                }
            }
        }
        // What comes from now on is for other workers.
        inbox.close();
        while let Ok(Some(message)) = inbox.try_take() {
            drop(message);
        }
    }
}

impl<S> Drop for Site<S> {
    fn drop(&mut self) {
        self.shared.placement.leave(self.worker);
        if self.shared.sites.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.ended.close();
        }
    }
}

/// A connection in the list of its site, until it is dropped.
struct Listed<S: 'static> {
    site: Rc<Site<S>>,
    key: usize,
    _live: Live,
}

impl<S> Drop for Listed<S> {
    fn drop(&mut self) {
        // While a fiber that could not be started is dropped, its entry is vacant, and the list borrowed.
        if let Ok(mut connections) = self.site.connections.try_borrow_mut() {
            let removed = connections.try_remove(self.key);
            drop(connections);
            drop(removed);
        }
    }
}
