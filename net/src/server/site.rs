//! What a server has on one worker: its sockets, its handlers and the connections that it serves there.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ringspun_fibers::{self as fibers, JoinHandle};
use slab::Slab;

use super::shared::{Accepting, Live, Message, Numbered, Shared};
use crate::datagram::DatagramSocket;
use crate::error::{interrupt_of, is_closed};
use crate::listener::Listener;
use crate::machine::StreamCore;
use crate::stream::Stream;
use crate::waiting::current_loop;

/// What serves at one address, on one worker.
pub(super) enum Handler<S> {
    /// Each connection, in a fiber of its own.
    Connections(Rc<ServeConnection<S>>),
    /// A socket, in one fiber.
    Datagrams(Rc<ServeDatagrams<S>>),
}

/// Makes the handler of one worker, on the thread of that worker.
pub(super) type Delivery<S> = Box<dyn FnOnce() -> Handler<S> + Send>;

type ServeConnection<S> = dyn Fn(Stream, &S);
type ServeDatagrams<S> = dyn Fn(&DatagramSocket, &S);

/// A server's part on one worker.
pub(super) struct Site<S> {
    shared: Arc<Shared>,
    worker: usize,
    state: S,
    handlers: Vec<Handler<S>>,
    connections: RefCell<Slab<Connection>>,
    /// Fibers that accept.
    accepting: RefCell<Vec<JoinHandle<()>>>,
    datagram_sockets: RefCell<Vec<Rc<DatagramSocket>>>,
}

/// A connection that is served.
struct Connection {
    fiber: JoinHandle<()>,
    /// The handler has the stream, and may close it before it ends.
    stream: Weak<StreamCore>,
}

impl Connection {
    fn end_input(&self) {
        if let Some(stream) = self.stream.upgrade() {
            // Fails if the connection is at its end already.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

impl<S: 'static> Site<S> {
    /// Begins to serve, in fibers of this thread's runtime, on the sockets of the handlers with these numbers.
    pub(super) fn start(
        shared: Arc<Shared>,
        worker: usize,
        state: S,
        handlers: Vec<Handler<S>>,
        sockets: Vec<Numbered>,
    ) -> io::Result<()> {
        shared.enter(worker);
        let site = Rc::new(Self {
            shared,
            worker,
            state,
            handlers,
            connections: RefCell::default(),
            accepting: RefCell::default(),
            datagram_sockets: RefCell::default(),
        });
        site.open_all(sockets)?;
        fibers::spawn(move || site.follow()).map(drop)
    }

    fn open_all(self: &Rc<Self>, sockets: Vec<Numbered>) -> io::Result<()> {
        sockets.into_iter().try_for_each(|(number, socket)| self.clone().open(number, socket))
    }

    fn open(self: Rc<Self>, number: usize, socket: OwnedFd) -> io::Result<()> {
        let event_loop = current_loop()?;
        self.shared.keep_socket(self.worker, (number, socket.try_clone()?));
        match &self.handlers[number] {
            Handler::Connections(_) => {
                let listener = Listener::from_descriptor(event_loop, socket);
                let (site, open) = (self.clone(), Accepting::new(&self.shared, self.worker));
                let accepting = fibers::spawn(move || {
                    site.accept(number, &listener);
                    drop(open);
                })?;
                self.accepting.borrow_mut().push(accepting);
            }
            Handler::Datagrams(handler) => {
                let socket = Rc::new(DatagramSocket::from_descriptor(event_loop, socket));
                self.datagram_sockets.borrow_mut().push(socket.clone());
                let (site, handler, open) =
                    (self.clone(), handler.clone(), Accepting::new(&self.shared, self.worker));
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
        if self.is_at_end() {
            listener.finish(|connection| self.place(number, connection));
        } else {
            self.leave_accepted(number, listener);
        }
    }

    /// Leaves the connections that a failed worker has accepted, and not placed yet, for the one who takes over.
    fn leave_accepted(&self, number: usize, listener: &Listener) {
        let Ok(detached) = listener.core.detach() else { return };
        for connection in detached.into_received() {
            self.leave_connection(number, connection, Live::count(&self.shared, self.worker));
        }
    }

    fn leave_connection(&self, number: usize, connection: OwnedFd, live: Live) {
        drop(self.shared.inbox(self.worker).try_give(Message::Connection(number, connection, live)));
    }

    /// Serves a connection on the worker that it is for; false if it had to be dropped.
    fn place(self: &Rc<Self>, number: usize, mut connection: OwnedFd) -> bool {
        // Otherwise, it is dropped.
        while !self.shared.is_ending()
            && let Some(live) = Live::place(&self.shared, self.worker)
        {
            let worker = live.worker;
            if worker == self.worker {
                return self.serve(number, connection, live);
            }
            if self.shared.workers[worker].has_ended() {
                self.shared.placement.leave(worker);
                continue;
            }
            let message = Message::Connection(number, connection, live);
            let Err(refused) = self.shared.inbox(worker).try_give(message) else { return true };
            self.shared.placement.leave(worker);
            let Message::Connection(_, returned, _) = refused.into_value() else { break };
            connection = returned;
        }
        true
    }

    /// Serves a connection in a fiber; false if there is no memory for one.
    fn serve(self: &Rc<Self>, number: usize, connection: OwnedFd, live: Live) -> bool {
        if self.has_failed() {
            self.leave_connection(number, connection, live);
            return true;
        }
        let (Handler::Connections(handler), Ok(event_loop)) = (&self.handlers[number], current_loop()) else {
            return false;
        };
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let listed = Listed { site: self.clone(), key: entry.key(), _live: live };
        let (handler, stream) = (handler.clone(), Stream::from_descriptor(event_loop, connection));
        let core = Rc::downgrade(stream.core());
        match fibers::spawn(move || handler(stream, &listed.site.state)) {
            Ok(fiber) => {
                let connection = entry.insert(Connection { fiber, stream: core });
                if self.shared.has_ended_input() {
                    connection.end_input();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Does what the worker is told, until the server or the runtime ends.
    fn follow(self: Rc<Self>) {
        let inbox = self.shared.inbox(self.worker);
        while !self.has_failed()
            && let Ok(message) = inbox.take()
        {
            match message {
                Message::Connection(number, connection, live) => {
                    // Without memory, it is dropped.
                    self.serve(number, connection, live.arrive(self.worker));
                }
                Message::Sockets(sockets) => {
                    if let Err(error) = self.open_all(sockets) {
                        tracing::error!(%error, worker = self.worker, "sockets of a failed worker are closed");
                    }
                }
                Message::StopListening => {
                    self.shared.forget_sockets(self.worker);
                    self.datagram_sockets.take().iter().for_each(|socket| socket.close());
                    self.accepting.take().iter().for_each(JoinHandle::cancel);
                }
                Message::EndInput => {
                    self.connections.borrow().iter().for_each(|(_, connection)| connection.end_input());
                }
                Message::Cancel => {
                    self.connections.borrow().iter().for_each(|(_, connection)| connection.fiber.cancel());
                }
            }
        }
        if !self.is_at_end() {
            // What is left is for the one who takes over.
            return;
        }
        // What comes from now on is for other workers.
        inbox.close();
        while let Ok(Some(message)) = inbox.try_take() {
            drop(message);
        }
    }
}

impl<S> Site<S> {
    /// Whether the runtime ends, and nobody has told it to. In a fiber that nobody else cancels.
    fn has_failed(&self) -> bool {
        fibers::pending_interrupt().is_some() && !self.is_at_end()
    }

    /// Whether the server or its workers are to end; otherwise, a worker that ends has failed.
    fn is_at_end(&self) -> bool {
        self.shared.is_over() || self.shared.workers[self.worker].is_to_end()
    }
}

impl<S> Drop for Site<S> {
    fn drop(&mut self) {
        if self.is_at_end() {
            self.shared.leave(self.worker);
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
