//! Connections to other servers than the target, to which redirects lead.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::link::Link;
use crate::outcome::Outcome;
use crate::transport::{Destination, Transport};

/// The other servers of a run, with the connections that are idle. A request that is led to one takes a connection, and
/// gives it back after the response.
pub(crate) struct Elsewhere {
    servers: Vec<Server>,
    /// How long a connection may take to open.
    timeout: Duration,
    opened: Cell<u64>,
    resumed: Cell<u64>,
    handshake_times: RefCell<Latencies>,
}

struct Server {
    destination: Destination,
    idle: RefCell<Vec<Link>>,
}

impl Elsewhere {
    pub(crate) fn new(destinations: Vec<Destination>, timeout: Duration) -> io::Result<Self> {
        let server = |destination| Server { destination, idle: RefCell::default() };
        Ok(Self {
            servers: destinations.into_iter().map(server).collect(),
            timeout,
            opened: Cell::new(0),
            resumed: Cell::new(0),
            handshake_times: RefCell::new(Latencies::new()?),
        })
    }

    /// A connection to the server of an index, and whether it has been used before.
    pub(crate) fn take(&self, index: usize) -> io::Result<(Link, bool)> {
        let Server { destination, idle } = &self.servers[index];
        // Not within the condition: the list must not be borrowed while another connection is opened.
        let used = idle.borrow_mut().pop();
        if let Some(link) = used {
            return Ok((link, true));
        }
        let Transport::Stream(link) = destination.open(self.timeout)? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // No need to wait for writes: the response confirms them.
        link.set_write_behind(true);
        self.opened.set(self.opened.get() + 1);
        if let Some(handshake) = link.handshake() {
            self.handshake_times.borrow_mut().record(handshake.time);
            self.resumed.set(self.resumed.get() + u64::from(handshake.is_resumed));
        }
        Ok((link, false))
    }

    /// Gives a connection back, which can take another request.
    pub(crate) fn give_back(&self, index: usize, link: Link) {
        self.servers[index].idle.borrow_mut().push(link);
    }

    /// Adds what was counted to the results of a thread.
    pub(crate) fn add_to(&self, outcome: &mut Outcome) {
        outcome.connections.elsewhere += self.opened.get();
        outcome.connections.resumed += self.resumed.get();
        outcome.handshake_times.add(&self.handshake_times.borrow());
    }
}
