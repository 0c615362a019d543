//! A listening socket: one multishot accept, and the queue of connections that nobody has taken yet.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_runtime::{
    Completion, EventLoop, Interest, Operation, OperationKey, OperationKind, Owner, Wake,
};

use super::read_ahead::{LeftBehind, ReadAhead};
use crate::descriptor::Descriptor;
use crate::error::{closed, errno_of};
use crate::system::accept_now;
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
    ahead: ReadAhead<OwnedFd>,
    failed: Cell<Option<i32>>,
    acceptors: WaitList,
}

impl ListenerCore {
    /// Wraps a listening socket, which does not block.
    pub fn new(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Rc<Self> {
        Self::with_left_behind(event_loop, descriptor, None)
    }

    /// Wraps a listening socket that was handed over, with what it had accepted until then.
    pub fn with_left_behind(
        event_loop: Rc<EventLoop>,
        descriptor: OwnedFd,
        left_behind: Option<LeftBehind<OwnedFd>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            event_loop,
            descriptor: Descriptor::new(descriptor),
            input: Cell::new(None),
            accepted: RefCell::default(),
            ahead: ReadAhead::new(left_behind),
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

    /// The descriptor for a call of the system, such as that for an option.
    pub(crate) fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        self.descriptor.borrow()
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.descriptor.is_closing()
    }

    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.is_closed() || self.event_loop.is_shut_down() {
            Err(closed(&self.event_loop))
        } else {
            Ok(())
        }
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
        self.ahead.end();
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

    /// Prepares for another descriptor of the socket to be used in another thread: stops accepting ahead, and
    /// gives what that descriptor's [`with_left_behind`](Self::with_left_behind) needs.
    pub fn share(&self) -> LeftBehind<OwnedFd> {
        let left_behind = self.ahead.share();
        self.stop_accepting_ahead();
        self.ahead.leave(self.accepted.take());
        left_behind
    }

    /// Prepares for another process to use the socket: stops accepting ahead, for good. What has been
    /// accepted is for those who accept here.
    pub fn share_with_process(&self) {
        self.ahead.forbid();
        self.stop_accepting_ahead();
    }

    fn stop_accepting_ahead(&self) {
        if let Some(key) = self.input.get() {
            // If the loop cannot be turned any more, nothing is accepted either.
            let _ = self.event_loop.cancel_and_wait(key);
        }
    }

    /// Accepts a connection for somebody who waits, where none may be accepted ahead.
    fn accept_on_demand(&self) -> Option<OwnedFd> {
        if self.ahead.is_allowed() {
            return None;
        }
        self.ahead.take().or_else(|| match accept_now(self.descriptor()) {
            Ok(connection) => Some(connection),
            Err(error) => {
                self.note(&error);
                None
            }
        })
    }

    /// Keeps an error that does not pass by itself, for somebody who waits.
    fn note(&self, error: &io::Error) {
        match error.raw_os_error() {
            Some(errno) if passes(errno) => {}
            errno => self.failed.set(Some(errno.unwrap_or(libc::EIO))),
        }
    }

    fn arm(self: &Rc<Self>) {
        if self.input.get().is_none() {
            let listener = self.descriptor.raw();
            let operation = match self.ahead.is_allowed() {
                true => Operation::Accept { listener },
                false => Operation::Poll { descriptor: listener, interest: Interest::Readable },
            };
            self.input.set(Some(self.event_loop.submit(operation, self.clone())));
        }
    }
}

/// Whether an error says that we paused, or that one connection was over before it was accepted: accept(2)
/// says to try again.
fn passes(errno: i32) -> bool {
    matches!(
        errno,
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
            | libc::EPERM
    )
}

impl Owner for ListenerCore {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        if !completion.more {
            self.input.set(None);
        }
        match completion.result {
            // There may be a connection to accept on demand.
            Ok(_) if kind == OperationKind::Poll => {}
            Ok(descriptor) => {
                // SAFETY: the kernel made this descriptor for this completion; nobody else has it.
                let connection = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
                if self.is_closed() {
                    #[cfg(feature = "mutations")]
                    crate::mutations::leak_late_accept(connection);
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
            Err(error) => {
                // Those who wait while the loop ends are woken, to find that it has.
                if error.raw_os_error().is_some_and(passes) && !self.event_loop.is_shut_down() {
                    if !self.acceptors.is_empty() && !self.is_closed() {
                        self.arm();
                    }
                    return;
                }
                self.note(&error);
            }
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
    /// [`Closed`](crate::Closed), or the kernel's, such as `EMFILE` when descriptors run out; accepting can go on
    /// after an error.
    pub fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<OwnedFd>> {
        self.listener.check_open()?;
        let connection = self.listener.accepted.borrow_mut().pop_front();
        let connection = connection.or_else(|| self.listener.accept_on_demand());
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
