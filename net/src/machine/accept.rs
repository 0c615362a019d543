//! A listening socket: one multishot accept, and the queue of connections that nobody has taken yet.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::{Completion, EventLoop, Operation, OperationKey, OperationKind, Owner, Wake};

use crate::descriptor::Descriptor;
use crate::error::{Closed, errno_of};
use crate::wait_list::WaitList;

/// Accepted connections that nobody has taken, above which accepting pauses. The rest wait in the
/// backlog, where another process on the same socket can get them.
const UNTAKEN_MAX: usize = 64;

/// How long a loop of accepts should wait when [`is_exhausted`], for connections to end.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Whether accepting failed for want of descriptors or memory (`accept(2)`): a later try may succeed.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(errno_of(error), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// The shared part of a listener, which its operation keeps alive.
pub struct ListenerCore {
    event_loop: Rc<EventLoop>,
    descriptor: Descriptor,
    input: Cell<Option<OperationKey>>,
    accepted: RefCell<VecDeque<OwnedFd>>,
    failed: Cell<Option<i32>>,
    acceptors: WaitList,
}

impl ListenerCore {
    /// Wraps a listening socket.
    pub fn new(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Rc<Self> {
        Rc::new(Self {
            event_loop,
            descriptor: Descriptor::new(descriptor),
            input: Cell::new(None),
            accepted: RefCell::default(),
            failed: Cell::new(None),
            acceptors: WaitList::default(),
        })
    }

    /// The loop that this listener belongs to.
    pub fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    /// The descriptor, which is open unless [`is_closed`](Self::is_closed).
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.raw()
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.descriptor.is_closing()
    }

    /// Closes the listener; whoever waits is woken to find it closed, connections that nobody has
    /// taken are closed. Closing again does nothing.
    ///
    /// The accept in flight is cancelled and its end is waited for, so that the port is free when this
    /// returns.
    pub fn close(&self) {
        if !self.descriptor.begin_close() {
            return;
        }
        let ended = self.input.get().is_none_or(|key| self.event_loop.cancel_and_wait(key).is_ok());
        self.accepted.take();
        // If the loop cannot be turned any more, the descriptor stays open: the kernel may still use it.
        if ended {
            self.descriptor.close();
        }
        self.acceptors.wake_all();
    }

    /// Closes the listener if nothing is in flight and nobody waits; true if it did.
    pub fn close_if_idle(&self) -> bool {
        let idle = self.input.get().is_none() && self.acceptors.is_empty();
        if idle {
            self.close();
        }
        idle
    }

    fn arm(self: &Rc<Self>) {
        if self.input.get().is_none() {
            let operation = Operation::Accept { listener: self.descriptor.raw() };
            self.input.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }
}

impl Owner for ListenerCore {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        if !completion.more {
            self.input.set(None);
        }
        match completion.result {
            Ok(descriptor) => {
                // SAFETY: the kernel made this descriptor for this completion; nobody else has it.
                let connection = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
                if self.is_closed() {
                    return;
                }
                let mut accepted = self.accepted.borrow_mut();
                accepted.push_back(connection);
                if accepted.len() > UNTAKEN_MAX
                    && let Some(key) = self.input.get()
                {
                    self.event_loop.cancel(key);
                }
            }
            Err(error) => match error.raw_os_error() {
                // We paused it, or one connection was over before it was accepted: accept(2) says to
                // try again.
                Some(
                    libc::ECANCELED
                    | libc::ECONNABORTED
                    | libc::EINTR
                    | libc::EAGAIN
                    | libc::EPROTO
                    | libc::ENETDOWN
                    | libc::ENOPROTOOPT
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EPERM,
                ) => {
                    // Those who wait while the loop ends are woken, to find that it has.
                    if !self.event_loop.is_shut_down() {
                        if !self.acceptors.is_empty() && !self.is_closed() {
                            self.arm();
                        }
                        return;
                    }
                }
                errno => self.failed.set(Some(errno.unwrap_or(libc::EIO))),
            },
        }
        self.acceptors.wake_all();
    }
}

impl std::fmt::Debug for ListenerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListenerCore {{ descriptor: {}, closed: {} }}", self.descriptor(), self.is_closed())
    }
}

/// Takes connections from a listener.
#[derive(Debug)]
pub struct Accept {
    listener: Rc<ListenerCore>,
}

impl Accept {
    /// Prepares to accept from `listener`.
    pub fn new(listener: Rc<ListenerCore>) -> Self {
        Self { listener }
    }

    /// Ready with the next connection. It can be polled again for the one after it.
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as `EMFILE` when descriptors run out; accepting can go on
    /// after an error.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<OwnedFd>> {
        if self.listener.is_closed() || self.listener.event_loop.is_shut_down() {
            return Poll::Ready(Err(Closed.into()));
        }
        let connection = self.listener.accepted.borrow_mut().pop_front();
        if let Some(connection) = connection {
            return Poll::Ready(Ok(connection));
        }
        if let Some(errno) = self.listener.failed.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        self.listener.acceptors.add(waiter);
        self.listener.arm();
        Poll::Pending
    }

    /// Gives up. Connections that come later stay in the listener's queue.
    pub fn abandon(self, waiter: &Rc<dyn Wake>) {
        self.listener.acceptors.remove(waiter);
    }
}
