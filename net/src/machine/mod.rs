//! What each network operation means, as state machines over the loop's operations.
//!
//! A machine is polled with a waiter. It does what can be done, submits what has to be submitted, and
//! is either ready or leaves the waiter where the completion will find it. Whoever gives up on a
//! machine before it is ready calls its `abandon`, which takes the waiter back and hurries what is in
//! flight; memory in flight is the loop's, so nothing has to be waited for.

mod accept;
mod budget;
mod chunk;
mod connect;
mod datagram;
mod datagrams;
mod input;
mod listen;
mod listener;
mod output;
mod pause;
mod pieces;
mod read;
mod read_ahead;
mod resolve;
mod sending;
mod socket;
mod stream;
mod write;

pub use accept::{Accept, EXHAUSTED_PAUSE, is_exhausted};
pub use chunk::Chunk;
pub use connect::{Connect, ConnectError, connect_datagram, unbound_socket};
pub use datagram::{ReceiveFrom, SendTo};
pub use datagrams::{Arrival, Arrived, DatagramCore};
pub use listen::{Reuse, listen_on};
pub use listener::ListenerCore;
pub use output::Sent;
pub use read::{Amount, Read};
pub use read_ahead::LeftBehind;
pub use resolve::{Query, Resolve, ResolveError, SocketKind};
pub use stream::StreamCore;
pub use write::Write;
