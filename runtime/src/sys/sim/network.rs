//! The network between simulated sockets: bytes arrive later and in order, or are lost with a reset.

use std::net::Shutdown;

use super::faults::Fault;
use super::socket::{Connection, Kind, Socket, SocketId};
use super::world::{Event, Segment, World, trace};
use crate::operation::Address;

impl World {
    pub(super) fn connection(&mut self, id: SocketId) -> Option<&mut Connection> {
        self.sockets[id].connection()
    }

    /// Sends as many bytes as there is room for, possibly fewer; `EAGAIN` if there is none.
    pub(super) fn send(&mut self, from: SocketId, bytes: &[u8]) -> Result<usize, i32> {
        let Some(connection) = self.connection(from) else { return Err(libc::ENOTCONN) };
        if let Some(errno) = connection.refuse_send() {
            return Err(errno);
        }
        let (to, is_pipe) = (connection.peer, connection.is_pipe);
        if !is_pipe && self.strikes(Fault::Reset) {
            trace!(self, "connection of sockets {from} and {to} reset");
            for id in [from, to] {
                let at_ns = self.now_ns + self.latency_ns();
                self.schedule(at_ns, Event::Arrival(id, Segment::Reset(libc::ECONNRESET)));
            }
        }
        if is_pipe && self.connection(to).is_none() {
            return Err(libc::EPIPE);
        }
        let Some(peer) = self.connection(to) else {
            // The peer has been closed: the bytes are lost, and a reset follows.
            let at_ns = self.now_ns + self.latency_ns();
            self.schedule(at_ns, Event::Arrival(from, Segment::Reset(libc::ECONNRESET)));
            return Ok(bytes.len());
        };
        let room = peer.room().min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(libc::EAGAIN);
        }
        let count = match room > 1 && self.strikes(Fault::ShortSend) {
            true => self.random.between(1, room - 1),
            false => room,
        };
        if let Some(peer) = self.connection(to) {
            peer.put_on_wire(&bytes[..count]);
        }
        for chunk in bytes[..count].chunks(size_of::<u64>()) {
            let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.add_to_digest(word);
        }
        self.dispatch(to, Segment::Bytes(count));
        Ok(count)
    }

    /// Schedules the arrival of a segment, after earlier ones.
    fn dispatch(&mut self, to: SocketId, segment: Segment) {
        let soonest_ns = self.now_ns + self.latency_ns();
        let Some(connection) = self.connection(to) else { return };
        let at_ns = soonest_ns.max(connection.last_arrival_ns);
        connection.last_arrival_ns = at_ns;
        self.schedule(at_ns, Event::Arrival(to, segment));
    }

    pub(super) fn arrive(&mut self, id: SocketId, segment: Segment) {
        let Some(connection) = self.connection(id) else { return };
        match segment {
            Segment::Bytes(count) => connection.arrive(count),
            Segment::End => connection.end_input(),
            Segment::Reset(errno) => connection.reset(errno),
        }
        trace!(self, "socket {id}: {segment:?} arrived");
        self.attempt_input(id);
        if let Segment::Reset(_) = segment {
            self.attempt_output(id);
            self.notify_all(id);
        }
    }

    /// Ends a connection immediately: what is unread here is lost, what is on its way to the peer may be.
    pub(super) fn disconnect(&mut self, id: SocketId) {
        let Some(connection) = self.connection(id).filter(|connection| !connection.is_dead()) else { return };
        let peer = connection.peer;
        connection.discard_input();
        connection.reset(libc::ECONNRESET);
        self.plan.count(Fault::Disconnected);
        trace!(self, "socket {id} disconnected");
        let at_ns = self.now_ns + self.latency_ns();
        self.schedule(at_ns, Event::Arrival(peer, Segment::Reset(libc::ECONNRESET)));
        self.attempt_input(id);
        self.attempt_output(id);
        self.notify_all(id);
    }

    /// Receives up to `most` bytes, or returns why there are none.
    pub(super) fn receive(
        &mut self,
        id: SocketId,
        most: usize,
        may_be_short: bool,
        piece: impl FnMut(&[u8]),
    ) -> Result<usize, i32> {
        let Some(connection) = self.connection(id) else { return Err(libc::ENOTCONN) };
        let available = connection.arrived().min(most);
        if available == 0 {
            return connection.receive_nothing();
        }
        let may_be_short = may_be_short || !connection.takes_all;
        let most = match may_be_short && available > 1 && self.strikes(Fault::ShortReceive) {
            true => self.random.between(1, available - 1),
            false => available,
        };
        let Some(connection) = self.connection(id) else { return Err(libc::ENOTCONN) };
        let peer = connection.peer;
        let count = connection.take(most, piece);
        self.attempt_output(peer);
        Ok(count)
    }

    pub(super) fn shut_down(&mut self, id: SocketId, how: Shutdown) -> Result<(), i32> {
        let Some(connection) = self.connection(id).filter(|connection| !connection.is_dead()) else {
            return Err(libc::ENOTCONN);
        };
        let peer = connection.peer;
        let ends = how != Shutdown::Read && !connection.write_shut;
        connection.read_shut |= how != Shutdown::Write;
        connection.write_shut |= ends;
        trace!(self, "socket {id}: shutdown of {how:?}");
        if ends {
            self.dispatch(peer, Segment::End);
        }
        self.attempt_input(id);
        self.attempt_output(id);
        Ok(())
    }

    /// Ends or resets a connection whose local end has been closed.
    pub(super) fn hang_up(&mut self, connection: Connection) {
        if connection.is_dead() {
            return;
        }
        if !connection.is_pipe && (connection.has_bytes() || connection.resets_at_close) {
            // Bytes are lost, so the peer gets a reset.
            self.plan.count(Fault::ResetByClose);
            self.dispatch(connection.peer, Segment::Reset(libc::ECONNRESET));
        } else if !connection.write_shut {
            self.dispatch(connection.peer, Segment::End);
        }
        // Sends that wait for room complete.
        self.attempt_output(connection.peer);
    }

    /// Resets a connection that has not been accepted.
    pub(super) fn abort(&mut self, waiting: SocketId) {
        if let Kind::Connection(connection) = std::mem::replace(&mut self.sockets[waiting].kind, Kind::Closed)
        {
            self.dispatch(connection.peer, Segment::Reset(libc::ECONNRESET));
        }
    }

    /// The open listener at an address.
    pub(super) fn listener_at(&self, address: &Address) -> Option<SocketId> {
        let found = |socket: &Socket| {
            matches!(socket.kind, Kind::Listener(_)) && socket.local.as_ref() == Some(address)
        };
        self.sockets.iter().position(found)
    }

    /// Connects a client to a listener, in whose backlog the connection waits.
    pub(super) fn establish(&mut self, client: SocketId, listener: SocketId) {
        let server = self.sockets.len();
        let capacity =
            |world: &mut Self| world.random.between(world.capacity_bytes.div_ceil(4), world.capacity_bytes);
        let takes_all = self.random.chance(700);
        let (at_client, at_server) = (capacity(self), capacity(self));
        let mut accepted = Socket::new(Kind::Connection(Connection::new(client, at_server, takes_all)));
        if self.sockets[client].local.is_none() {
            self.sockets[client].local = Some(self.free_address());
        }
        accepted.local = self.sockets[listener].local;
        accepted.remote = self.sockets[client].local;
        self.sockets[client].remote = accepted.local;
        self.sockets[client].kind = Kind::Connection(Connection::new(server, at_client, takes_all));
        self.sockets.push(accepted);
        trace!(self, "socket {client} connected; socket {server} waits at listener {listener}");
        if let Kind::Listener(backlog) = &mut self.sockets[listener].kind {
            backlog.push_back(server);
        }
        self.attempt_input(listener);
    }

    /// An address that no socket has had before.
    pub(super) fn free_address(&mut self) -> Address {
        self.next_port += 1;
        std::net::SocketAddr::from(([127, 0, 0, 1], self.next_port)).into()
    }
}
