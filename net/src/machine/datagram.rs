//! Receiving and sending datagrams.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{SendData, Wake};

use super::datagrams::{Arrived, DatagramCore};
use super::pause::Pause;
use super::read::Amount;
use super::sending::Sending;
use crate::address::Address;
use crate::error::Closed;

/// Receives from a datagram socket.
#[derive(Debug)]
pub struct ReceiveFrom {
    socket: Rc<DatagramCore>,
    remaining: usize,
    fill: bool,
    received: usize,
    source: Option<Address>,
}

impl ReceiveFrom {
    /// Prepares to receive from `socket`: with [`Amount::UpTo`], one datagram, truncated to that size, as by
    /// `recvfrom(2)`; with [`Amount::Exactly`], datagrams until there are that many bytes, or an empty one arrives.
    pub fn new(socket: Rc<DatagramCore>, amount: Amount) -> Self {
        let (remaining, fill) = match amount {
            Amount::UpTo(count) => (count, false),
            Amount::Exactly(count) => (count, true),
        };
        Self { socket, remaining, fill, received: 0, source: None }
    }

    /// Ready with the number of bytes passed to `sink`, and the sender of the last datagram.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `ECONNREFUSED` if the peer of a connected socket does not exist.
    ///
    /// # Panics
    ///
    /// If the sink receives from the socket or closes it.
    pub fn poll(
        &mut self,
        waiter: &Rc<dyn Wake>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<(usize, Address)>> {
        loop {
            let Some(Arrived { bytes, source }) = self.socket.next_datagram()? else {
                self.socket.wait_for_input(waiter);
                return Poll::Pending;
            };
            let count = bytes.len().min(self.remaining);
            sink(&bytes[..count]);
            self.received += count;
            self.remaining -= count;
            self.source = Some(source);
            if !self.fill || self.remaining == 0 || count == 0 {
                return Poll::Ready(Ok((self.received, source)));
            }
        }
    }

    /// The number of bytes passed to the sink so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Gives up. Datagrams that arrive later are kept for the next reader, as is `put_back`, as one datagram: bytes
    /// that were passed to the sink, but will not be used.
    pub fn abandon(self, waiter: &Rc<dyn Wake>, put_back: &[u8]) {
        self.socket.leave_readers(waiter);
        if let Some(source) = self.source.filter(|_| !put_back.is_empty()) {
            self.socket.put_back_bytes(put_back, source);
        }
    }
}

/// Sends one datagram. Sends of several fibers may be in flight concurrently.
#[derive(Debug)]
pub struct SendTo {
    socket: Rc<DatagramCore>,
    destination: Option<Address>,
    state: State,
    stopping: bool,
}

#[derive(Debug)]
enum State {
    /// To be attempted, for the first time or again.
    Ready,
    Sending(Rc<Sending>),
    /// The kernel had no room; an event will signal some.
    Waiting(Rc<Sending>),
    /// The kernel had no room, and no event will signal some.
    Pausing(Pause),
}

impl SendTo {
    /// Prepares to send to `destination`, or to the peer that the socket is connected to.
    pub fn new(socket: Rc<DatagramCore>, destination: Option<Address>) -> Self {
        Self { socket, destination, state: State::Ready, stopping: false }
    }

    /// Ready when the kernel has taken the datagram, which may be empty. Calls `data` for each attempt, and waits while
    /// there is no room.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `EMSGSIZE` for a datagram that is too long.
    pub fn poll(
        &mut self,
        waiter: &Rc<dyn Wake>,
        data: &mut dyn FnMut() -> SendData,
    ) -> Poll<io::Result<()>> {
        loop {
            match &self.state {
                State::Ready => {
                    self.socket.check_open()?;
                    if self.stopping {
                        return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
                    }
                    self.state = State::Sending(Sending::start(&self.socket, data(), self.destination));
                }
                State::Sending(sending) => {
                    let Some(result) = sending.poll(waiter) else { return Poll::Pending };
                    self.state = State::Ready;
                    match result {
                        Ok(_) => return Poll::Ready(Ok(())),
                        Err(error) => match error.raw_os_error() {
                            Some(libc::EAGAIN) => self.wait_for_room(waiter),
                            Some(libc::ECANCELED) if self.socket.is_closed() => {
                                return Poll::Ready(Err(Closed.into()));
                            }
                            _ => return Poll::Ready(Err(error)),
                        },
                    }
                }
                State::Waiting(waiting) => {
                    if waiting.poll(waiter).is_none() {
                        return Poll::Pending;
                    }
                    // Whatever the result, retry.
                    self.state = State::Ready;
                }
                State::Pausing(pause) => {
                    let over = self.stopping || self.socket.check_open().is_err();
                    if !over && !pause.is_over(self.socket.event_loop()) {
                        return Poll::Pending;
                    }
                    self.end_pause(waiter);
                }
            }
        }
    }

    fn wait_for_room(&mut self, waiter: &Rc<dyn Wake>) {
        if self.stopping || self.socket.check_open().is_err() {
            return;
        }
        self.state = if self.socket.signals_room(self.destination) {
            State::Waiting(Sending::wait_for_room(&self.socket))
        } else {
            self.socket.output.pausing.add(waiter);
            State::Pausing(Pause::begin(self.socket.event_loop(), waiter))
        };
    }

    fn end_pause(&mut self, waiter: &Rc<dyn Wake>) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Pausing(pause) => {
                pause.end(self.socket.event_loop());
                self.socket.output.pausing.remove(waiter);
            }
            other => self.state = other,
        }
    }

    /// Requests cancellation: [`poll`](Self::poll) becomes ready once the kernel no longer reads the bytes, with
    /// `ECANCELED` unless it has taken them.
    pub fn cancel(&mut self) {
        self.stopping = true;
        if let State::Sending(operation) | State::Waiting(operation) = &self.state {
            operation.cancel();
        }
    }

    /// Gives up. The send in flight, which must not be of lent bytes, is cancelled; a datagram that the kernel has
    /// already taken is still sent.
    pub fn abandon(mut self, waiter: &Rc<dyn Wake>) {
        self.end_pause(waiter);
        if let State::Sending(operation) | State::Waiting(operation) = self.state {
            operation.abandon();
        }
    }
}
