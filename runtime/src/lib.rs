//! The event loop of Ringspun.
//!
//! An [`EventLoop`] belongs to one thread. It performs [`Operation`]s, and delivers one or more [`Completion`]s of
//! each to the [`Owner`] that submitted it. Timers, wake-ups from other threads, and the thread pool for blocking
//! calls are here too. Nothing in this crate knows of fibers, streams or protocols.
//!
//! ```text
//!   submit(operation, owner) ──► slot ──► backend (io_uring, poll) ──► kernel
//!                                 │                                      │
//!   owner.complete(completion) ◄──┴── ready queue ◄── reaping ◄──────────┘
//! ```
//!
//! A slot and the memory that its operation uses are released at the operation's *terminal* completion, never earlier:
//! a cancel is only a request.
//!
//! Two backends behave alike, so that the layers above need not know which one runs: io_uring, on Linux 6.0 or later,
//! and poll, which is based on readiness, if io_uring is missing or refused ([`Configuration::backend`]).
//!
//! ```
//! use std::cell::RefCell;
//! use std::io::Write;
//! use std::os::fd::AsRawFd;
//! use std::os::unix::net::UnixStream;
//! use std::rc::Rc;
//!
//! use ringspun_runtime::{Completion, Configuration, EventLoop, Operation, OperationKind, Owner, Wait};
//!
//! /// Collects received bytes, and whether its operation is over.
//! #[derive(Default)]
//! struct Receiver {
//!     received: RefCell<Vec<u8>>,
//!     ended: RefCell<bool>,
//! }
//!
//! impl Owner for Receiver {
//!     fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
//!         if let Some(buffer) = completion.buffer {
//!             self.received.borrow_mut().extend_from_slice(&buffer);
//!         }
//!         self.ended.replace(!completion.more);
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let event_loop = EventLoop::new(&Configuration::default())?;
//! let (mut sender, socket) = UnixStream::pair()?;
//! let receiver = Rc::new(Receiver::default());
//! // The socket stays open until the terminal completion: the loop does not own it.
//! event_loop.submit(Operation::Receive { socket: socket.as_raw_fd() }, receiver.clone());
//! sender.write_all(b"hello")?;
//! drop(sender);
//! while !*receiver.ended.borrow() {
//!     event_loop.turn(Wait::Block)?;
//! }
//! assert_eq!(*receiver.received.borrow(), b"hello");
//! # Ok(())
//! # }
//! ```

// All modules are for Unix only, so that this is the only error elsewhere.
#[cfg(not(unix))]
compile_error!(
    "Ringspun is for Unix: Linux, macOS, FreeBSD, NetBSD, illumos and their kin; on Windows, use it in WSL 2"
);

#[cfg(unix)]
mod blocking;
#[cfg(unix)]
mod buffers;
#[cfg(unix)]
mod completion;
#[cfg(unix)]
mod configuration;
mod contained;
#[cfg(unix)]
mod event_loop;
#[cfg(feature = "mutations")]
mod mutations;
#[cfg(unix)]
mod operation;
#[cfg(unix)]
mod prefetch;
#[cfg(unix)]
mod process;
mod ready;
#[cfg(unix)]
mod receive_buffers;
#[cfg(unix)]
mod send_soon;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod slots;
#[cfg(unix)]
mod spin;
#[cfg(unix)]
mod spin_costs;
#[cfg(unix)]
mod sys;
#[cfg(unix)]
mod thread_progress;
mod timers;
#[doc(hidden)]
pub mod trace_points;
#[cfg(unix)]
mod wait_list;
#[cfg(unix)]
mod wake;

#[cfg(unix)]
pub use blocking::{BlockingCall, BlockingKind};
#[cfg(unix)]
pub use buffers::Buffer;
#[cfg(unix)]
pub use configuration::{Configuration, SpinFor};
pub use contained::contained;
#[cfg(unix)]
pub use event_loop::{EventLoop, LoopStatistics, Wait};
#[cfg(unix)]
pub use operation::{
    Address, Completion, Datagram, FileOperation, Interest, LentBuffer, LentBytes, Operation, OperationKey,
    OperationKind, Owner, SendData,
};
#[cfg(unix)]
pub use prefetch::prefetch;
#[cfg(unix)]
pub use send_soon::Batch;
#[cfg(unix)]
pub use signals::{Signal, SignalWatch};
#[cfg(unix)]
pub use spin::SpinStatistics;
#[cfg(unix)]
pub use sys::{BackendKind, cancel_before_exit, probe};
#[cfg(unix)]
pub use thread_progress::ThreadProgress;
pub use timers::TimerKey;
#[cfg(unix)]
pub use wait_list::WaitList;
#[cfg(unix)]
pub use wake::{RemoteWaker, Sweep, Wake};

/// A simulated kernel for tests: see [`Simulation`](simulation::Simulation).
#[cfg(feature = "simulation")]
pub mod simulation {
    #[cfg(feature = "mutations")]
    pub use crate::mutations::{Mutation, mutated};
    pub use crate::sys::sim::{Fault, Random, Simulation, current};
}
