//! The event loop of Ringspun.
//!
//! An [`EventLoop`] belongs to one thread. Work is handed to it as an [`Operation`]; what becomes of it
//! comes back as one or more [`Completion`]s to the [`Owner`] that submitted it. Timers and the wake-up
//! from other threads live here too. Nothing in this crate knows of fibers, streams or protocols.
//!
//! ```text
//!   submit(operation, owner) ──► slot ──► backend (io_uring) ──► kernel
//!                                 │                                 │
//!   owner.complete(completion) ◄──┴── ready queue ◄── reaping ◄─────┘
//! ```
//!
//! A slot and the memory its operation uses are released at the operation's *terminal* completion and
//! never earlier: cancelling only asks the kernel to hurry.

mod buffers;
mod event_loop;
mod operation;
mod slots;
mod sys;
mod timers;
mod wake;

pub use buffers::Buffer;
pub use event_loop::{Configuration, EventLoop, LoopStatistics, Wait};
pub use operation::{
    Address, Completion, Interest, LentBytes, Operation, OperationKey, OperationKind, Owner, SendData,
};
pub use sys::probe;
pub use timers::TimerKey;
pub use wake::{RemoteWaker, Wake};
