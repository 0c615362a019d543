//! Moving a socket from one event loop to another, with what it has received.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringspun_runtime::EventLoop;

use super::input::End;
use super::read_ahead::LeftBehind;
use super::socket::{Kind, Socket};

/// A socket that no loop uses, with what it had received by then. Dropping it closes the socket.
#[derive(Debug)]
pub struct Detached<D> {
    descriptor: OwnedFd,
    /// In the order in which they came.
    received: Vec<D>,
    end: End,
    left_behind: Option<LeftBehind<D>>,
    receives_ahead: bool,
}

impl<D> Detached<D> {
    /// What it has received, in order. The socket is closed.
    pub fn into_received(self) -> Vec<D> {
        self.received
    }

    /// The descriptor alone.
    ///
    /// # Errors
    ///
    /// The socket as it was, if something has been received that would be lost.
    pub fn into_descriptor(self) -> Result<OwnedFd, Self> {
        if self.received.is_empty() && self.left_behind.is_none() { Ok(self.descriptor) } else { Err(self) }
    }
}

impl<K: Kind> Socket<K> {
    /// Takes the socket from its loop: cancels what receives, and waits until the kernel has ended that. The socket is
    /// closed here then, but its descriptor is not.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed); `ResourceBusy` while anybody waits for the socket, or output is in flight, or the
    /// descriptor is another owner's to close; an error of the loop. The socket is as it was then.
    pub fn detach(self: &Rc<Self>) -> io::Result<Detached<K::Detached>> {
        self.check_open()?;
        let busy = |text| Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        if !self.input.readers.is_empty() {
            return busy("the socket cannot be moved while a read waits for it");
        }
        K::check_output(self)?;
        if !K::is_output_idle(self) {
            return busy("the socket cannot be moved while a write waits for it, or is in flight");
        }
        if let Some(key) = self.input.armed.get() {
            self.event_loop().cancel_and_wait(key)?;
        }
        let Some(descriptor) = self.release_descriptor() else {
            return busy("the socket cannot be moved: its descriptor has another owner");
        };
        let left_behind = self.input.ahead.take_over();
        Ok(Detached {
            descriptor,
            received: self.input.drain().into_iter().map(K::detach).collect(),
            end: self.input.end.get(),
            left_behind,
            receives_ahead: self.input.may_become_busy(),
        })
    }

    /// Has `event_loop`, which must be one of this thread, use the socket from now on.
    pub fn attach(event_loop: Rc<EventLoop>, detached: Detached<K::Detached>) -> Rc<Self> {
        let Detached { descriptor, received, end, left_behind, receives_ahead } = detached;
        let socket = Self::with_left_behind(event_loop, descriptor, left_behind);
        if !receives_ahead {
            socket.input.never_receive_ahead();
        }
        for piece in received.into_iter().map(K::attach) {
            let weight = K::weight(&piece);
            socket.input.push_back(piece, weight);
        }
        socket.input.end.set(end);
        socket
    }
}
