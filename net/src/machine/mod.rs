//! What each network operation means, as state machines over the loop's operations.
//!
//! A machine is polled with a waiter. It does what can be done, submits what has to be submitted, and
//! is either ready or leaves the waiter where the completion will find it. Whoever gives up on a
//! machine before it is ready calls its `abandon`, which takes the waiter back and hurries what is in
//! flight; memory in flight is the loop's, so nothing has to be waited for.

mod accept;
mod chunk;
mod connect;
mod datagram;
mod datagram_core;
mod listen;
mod read;
mod read_ahead;
mod resolve;
mod stream_core;
mod stream_output;
mod write;

pub use accept::{Accept, EXHAUSTED_PAUSE, ListenerCore, is_exhausted};
pub use chunk::Chunk;
pub use connect::{Connect, ConnectError, connect_datagram, unbound_socket};
pub use datagram::{ReceiveFrom, SendTo};
pub use datagram_core::{Arrival, Arrived, DatagramCore};
pub use listen::listen_on;
pub use read::{Amount, Read};
pub use read_ahead::LeftBehind;
pub use resolve::{Query, Resolve, ResolveError, SocketKind};
pub use stream_core::StreamCore;
pub use write::Write;
