//! Receiving and sending datagrams.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{SendData, Wake};

use super::datagram_core::{Arrived, DatagramCore, Sending};
use super::read::Amount;
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
            let Some(Arrived { bytes, source }) = self.socket.take()? else {
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
        self.socket.readers().remove(waiter);
        if let Some(source) = self.source.filter(|_| !put_back.is_empty()) {
            self.socket.put_back(put_back, source);
        }
    }
}

/// Sends one datagram. Those of several fibers are in flight together.
#[derive(Debug)]
pub struct SendTo {
    socket: Rc<DatagramCore>,
    destination: Option<Address>,
    sending: Option<Rc<Sending>>,
    stopping: bool,
}

impl SendTo {
    /// Prepares to send to `destination`, or to the peer that the socket is connected to.
    pub fn new(socket: Rc<DatagramCore>, destination: Option<Address>) -> Self {
        Self { socket, destination, sending: None, stopping: false }
    }

    /// Ready when the kernel has taken the datagram that `data` gives. An empty one is sent as well.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `EMSGSIZE` for one that is too long.
    pub fn poll(
        &mut self,
        waiter: &Rc<dyn Wake>,
        data: &mut dyn FnMut() -> SendData,
    ) -> Poll<io::Result<()>> {
        if self.sending.is_none() {
            self.socket.check_open()?;
            if self.stopping {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
        }
        let start = || Sending::start(&self.socket, data(), self.destination);
        match self.sending.get_or_insert_with(start).poll(waiter) {
            None => Poll::Pending,
            Some(result) => {
                self.sending = None;
                let canceled = |error: &io::Error| error.raw_os_error() == Some(libc::ECANCELED);
                Poll::Ready(match result {
                    Err(error) if canceled(&error) && self.socket.is_closed() => Err(Closed.into()),
                    result => result.map(|_| ()),
                })
            }
        }
    }

    /// Ends the send soon: [`poll`](Self::poll) becomes ready when the kernel no longer reads the bytes,
    /// with `ECANCELED` unless it had taken them by then.
    pub fn hurry(&mut self) {
        self.stopping = true;
        if let Some(sending) = &self.sending {
            sending.hurry();
        }
    }

    /// Gives up. What is in flight, which must not be of lent bytes, is cancelled; if the kernel has taken
    /// it, it is sent all the same.
    pub fn abandon(self) {
        if let Some(sending) = self.sending {
            sending.abandon();
        }
    }
}
