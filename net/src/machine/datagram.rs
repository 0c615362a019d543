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
    /// Prepares to receive from `socket`: one datagram of which up to so many bytes are kept, as
    /// `recvfrom(2)` does, or as many as it takes to have exactly so many bytes, or until an empty one.
    pub fn new(socket: Rc<DatagramCore>, amount: Amount) -> Self {
        let (remaining, fill) = match amount {
            Amount::UpTo(count) => (count, false),
            Amount::Exactly(count) => (count, true),
        };
        Self { socket, remaining, fill, received: 0, source: None }
    }

    /// Ready with the count of bytes given to `sink`, and who sent the last of them.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `ECONNREFUSED` where nobody listens at the other end of a
    /// connected socket.
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

    /// Bytes given to the sink so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Gives up. Datagrams that arrive later stay in the socket's queue for the next reader, and so does
    /// what the sink was given and whoever gives up will not use: `put_back`, as one datagram.
    pub fn abandon(self, waiter: &Rc<dyn Wake>, put_back: &[u8]) {
        self.socket.leave_readers(waiter);
        if let Some(source) = self.source.filter(|_| !put_back.is_empty()) {
            self.socket.put_back_bytes(put_back, source);
        }
    }
}

/// Sends one datagram. Those of several fibers are in flight together.
#[derive(Debug)]
pub struct SendTo {
    socket: Rc<DatagramCore>,
    destination: Option<Address>,
    state: State,
    stopping: bool,
}

#[derive(Debug)]
enum State {
    /// To be tried, for the first time or once more.
    Ready,
    Sending(Rc<Sending>),
    /// The kernel had no room for it, and tells when it has.
    Waiting(Rc<Sending>),
    /// The kernel had no room for it, and will not tell.
    Pausing(Pause),
}

impl SendTo {
    /// Prepares to send to `destination`, or to the peer that the socket is connected to.
    pub fn new(socket: Rc<DatagramCore>, destination: Option<Address>) -> Self {
        Self { socket, destination, state: State::Ready, stopping: false }
    }

    /// Ready when the kernel has taken the datagram that `data` gives, which is asked again for each attempt.
    /// An empty one is sent as well. Where there is no room for it, it waits for some.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `EMSGSIZE` for one that is too long.
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
                    // Whatever came of it, the next attempt tells.
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
        self.state = if self.socket.tells_of_room(self.destination) {
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

    /// Ends the send soon: [`poll`](Self::poll) becomes ready when the kernel no longer reads the bytes,
    /// with `ECANCELED` unless it had taken them by then.
    pub fn hurry(&mut self) {
        self.stopping = true;
        if let State::Sending(operation) | State::Waiting(operation) = &self.state {
            operation.hurry();
        }
    }

    /// Gives up. What is in flight, which must not be of lent bytes, is cancelled; if the kernel has taken
    /// it, it is sent all the same.
    pub fn abandon(mut self, waiter: &Rc<dyn Wake>) {
        self.end_pause(waiter);
        if let State::Sending(operation) | State::Waiting(operation) = self.state {
            operation.abandon();
        }
    }
}
