//! Simulated sockets: the state and received bytes of each end of a connection.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::disk::OpenFile;
use crate::operation::Address;

/// The index of a socket among all sockets of a simulation; unlike descriptors, never reused.
pub(super) type SocketId = usize;

pub(super) struct Socket {
    /// `None` in a listener's backlog, and after the close.
    pub(super) descriptor: Option<RawFd>,
    pub(super) local: Option<Address>,
    pub(super) remote: Option<Address>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Unconnected,
    /// Connections that wait to be accepted.
    Listener(VecDeque<SocketId>),
    /// Also one end of a pipe.
    Connection(Connection),
    File(OpenFile),
    /// A descriptor of the real kernel that tells of signals.
    Bell(RawFd),
    Closed,
}

impl Socket {
    pub(super) fn new(kind: Kind) -> Self {
        Self { descriptor: None, local: None, remote: None, kind }
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.kind {
            Kind::Connection(connection) => Some(connection),
            _ => None,
        }
    }
}

/// One end of a connection, and the bytes on their way to it.
///
/// ```text
///   send of the peer ──► [ on the wire │ arrived ] ──► receive
///                         └── as many as `capacity` ──┘
/// ```
pub(super) struct Connection {
    pub(super) peer: SocketId,
    input: VecDeque<u8>,
    arrived: usize,
    capacity: usize,
    /// When the last byte sent so far arrives; later ones do not arrive earlier.
    pub(super) last_arrival_ns: u64,
    end_arrived: bool,
    /// Returned once, by the next call.
    error: Option<i32>,
    /// The connection has been reset.
    dead: bool,
    pub(super) read_shut: bool,
    pub(super) write_shut: bool,
    pub(super) resets_at_close: bool,
    /// As on TCP, a receive that does not fill its buffer has emptied the socket. On other sockets, it may not have.
    pub(super) takes_all: bool,
    /// One end of a pipe, which no network resets.
    pub(super) is_pipe: bool,
}

impl Connection {
    pub(super) fn new(peer: SocketId, capacity: usize, takes_all: bool) -> Self {
        Self {
            peer,
            input: VecDeque::new(),
            arrived: 0,
            capacity,
            last_arrival_ns: 0,
            end_arrived: false,
            error: None,
            dead: false,
            read_shut: false,
            write_shut: false,
            resets_at_close: false,
            takes_all,
            is_pipe: false,
        }
    }

    /// One end of a pipe, to read or to write.
    pub(super) fn pipe(peer: SocketId, capacity: usize, reads: bool) -> Self {
        Self { read_shut: !reads, write_shut: reads, is_pipe: true, ..Self::new(peer, capacity, true) }
    }

    /// How many more bytes can be in transit to this end or wait there.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.input.len())
    }

    /// Takes bytes that the peer sends; they arrive later.
    pub(super) fn put_on_wire(&mut self, bytes: &[u8]) {
        if !self.dead {
            self.input.extend(bytes);
        }
    }

    pub(super) fn arrive(&mut self, count: usize) {
        if !self.dead {
            self.arrived = self.input.len().min(self.arrived + count);
        }
    }

    pub(super) fn arrived(&self) -> usize {
        self.arrived
    }

    /// Whether there are unreceived bytes, including those on the wire.
    pub(super) fn has_bytes(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes up to `most` of the bytes that have arrived, in pieces.
    pub(super) fn take(&mut self, most: usize, mut piece: impl FnMut(&[u8])) -> usize {
        let count = most.min(self.arrived);
        let (front, back) = self.input.as_slices();
        let from_front = count.min(front.len());
        piece(&front[..from_front]);
        piece(&back[..count - from_front]);
        self.input.drain(..count);
        self.arrived -= count;
        count
    }

    pub(super) fn end_input(&mut self) {
        self.end_arrived = true;
    }

    /// Handles a reset: bytes on the wire are lost; those that have arrived can be received.
    pub(super) fn reset(&mut self, errno: i32) {
        if !self.dead {
            self.input.truncate(self.arrived);
            self.dead = true;
            self.error = Some(errno);
        }
    }

    /// Loses what has not been received.
    pub(super) fn discard_input(&mut self) {
        self.input.clear();
        self.arrived = 0;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether the end or an error has arrived, so that no more bytes follow.
    pub(super) fn is_over(&self) -> bool {
        self.end_arrived || self.dead || self.read_shut
    }

    pub(super) fn is_readable(&self) -> bool {
        self.arrived > 0 || self.is_over()
    }

    /// The result of a receive that finds no bytes: the error once, then 0, or `EAGAIN` while more may follow.
    pub(super) fn receive_nothing(&mut self) -> Result<usize, i32> {
        match self.error.take() {
            Some(errno) => Err(errno),
            None if self.is_over() => Ok(0),
            None => Err(libc::EAGAIN),
        }
    }

    /// The error of a send, if this end cannot send.
    pub(super) fn refuse_send(&mut self) -> Option<i32> {
        if let Some(errno) = self.error.take() {
            return Some(errno);
        }
        (self.dead || self.write_shut).then_some(libc::EPIPE)
    }

    pub(super) fn cannot_send(&self) -> bool {
        self.dead || self.write_shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(connection: &mut Connection, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        connection.take(most, |piece| bytes.extend_from_slice(piece));
        bytes
    }

    #[test]
    fn bytes_arrive_in_order_and_take_room_until_they_are_received() {
        let mut end = Connection::new(0, 8, true);
        end.put_on_wire(b"abcdef");
        assert_eq!((end.room(), end.is_readable(), end.receive_nothing()), (2, false, Err(libc::EAGAIN)));
        end.arrive(4);
        assert_eq!(received(&mut end, 3), b"abc");
        assert_eq!(end.room(), 5);
        end.put_on_wire(b"ghijk");
        end.arrive(100);
        assert_eq!(received(&mut end, 100), b"defghijk");
        end.end_input();
        assert_eq!(end.receive_nothing(), Ok(0));
    }

    #[test]
    fn a_reset_loses_what_had_not_arrived_and_is_told_once() {
        let mut end = Connection::new(0, 8, true);
        end.put_on_wire(b"abcdef");
        end.arrive(2);
        end.reset(libc::ECONNRESET);
        assert_eq!(received(&mut end, 100), b"ab");
        assert_eq!(end.receive_nothing(), Err(libc::ECONNRESET));
        assert_eq!((end.receive_nothing(), end.refuse_send()), (Ok(0), Some(libc::EPIPE)));
    }
}
