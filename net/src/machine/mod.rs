//! The network operations as state machines on top of the loop's operations.
//!
//! A machine is polled with a waiter. It does what is possible, submits operations, and is either ready or registers
//! the waiter, which the completion wakes. To give up before it is ready, call its `abandon`, which removes the waiter
//! and cancels operations in flight, without waiting for them: the loop owns their memory.

mod accept;
mod budget;
mod chunk;
mod connect;
mod copied;
mod datagram;
mod datagrams;
mod input;
mod listen;
mod listener;
mod moving;
mod outgoing;
mod output;
mod pause;
mod pieces;
mod placement;
mod read;
mod read_ahead;
mod resolve;
mod sending;
mod socket;
mod stream;
mod turn;
mod write;

pub use accept::{Accept, EXHAUSTED_PAUSE, is_exhausted};
pub(crate) use budget::Budget;
pub use chunk::Chunk;
pub use connect::{Connect, ConnectError, connect_datagram, unbound_socket};
pub use datagram::{ReceiveFrom, SendTo};
pub use datagrams::{Arrival, Arrived, DatagramCore};
pub use listen::{BACKLOG, Reuse, bind_for_all, listen_on};
pub use listener::ListenerCore;
pub use moving::Detached;
pub use outgoing::Sent;
pub use placement::{Placement, Term};
pub use read::{Amount, Read};
pub use read_ahead::LeftBehind;
pub use resolve::{Query, Resolve, ResolveError, SocketKind};
pub use socket::{Kind, Socket};
pub use stream::StreamCore;
pub(crate) use turn::Turn;
pub use write::Write;
