//! Sockets with the vocabulary of Janet's `net/` module: [`listen`], [`connect`], [`server`], [`address`], and on
//! streams `read`, `chunk`, `write`, `flush`, `shutdown`, `localname`, `peername`, `close`; for datagrams
//! [`listen_datagram`] and [`connect_datagram`], with `recv_from` and `send_to`. Supports IPv4, IPv6 and Unix domain
//! sockets, including abstract names; other fibers run during the lookup of host names.
//!
//! ```
//! use ringspun_fibers as fibers;
//! use ringspun_net as net;
//!
//! fibers::run(|| -> std::io::Result<()> {
//!     let server = net::server("127.0.0.1:0", |stream| {
//!         let mut buffer = [0; 1024];
//!         while let Ok(count @ 1..) = stream.read(&mut buffer) {
//!             if stream.write(&buffer[..count]).is_err() {
//!                 break;
//!             }
//!         }
//!     })?;
//!     let client = net::connect(server.localname()?)?;
//!     client.write(b"Echo...")?;
//!     let mut answer = [0; 7];
//!     client.chunk(&mut answer)?;
//!     assert_eq!(&answer, b"Echo...");
//!     server.close();
//!     Ok(())
//! })
//! .unwrap()
//! .unwrap();
//! ```
//!
//! Calls that wait must run in a fiber, and end early if the fiber is interrupted: by a cancel, or by a deadline of
//! [`with_deadline`](ringspun_fibers::with_deadline). Errors name the operation and the address; [`is_closed`] and
//! [`interrupt_of`] classify them.
//!
//! # Two callers, one implementation
//!
//! Reads, chunks, writes, accepts and connects are implemented once, in [`machine`], as state machines that are polled.
//! A fiber parks between polls; the Janet bridge polls from completions, without a Rust stack.

mod address;
mod connecting;
mod datagram;
mod descriptor;
mod endpoint;
mod error;
mod listener;
pub mod machine;
#[cfg(feature = "mutations")]
mod mutations;
mod options;
mod received;
mod server;
mod stream;
mod system;
mod wait_list;
mod waiting;

pub use address::{Address, local_address, peer_address};
pub use connecting::{connect, connect_from};
pub use datagram::{DatagramSocket, connect_datagram, connect_datagram_from, listen_datagram};
pub use endpoint::{Endpoint, Peer};
pub use error::{Closed, OperationError, WriteInterrupted, errno_of, interrupt_of, is_closed};
pub use listener::{Listener, listen, server};
pub use machine::ResolveError;
pub use options::SocketOption;
pub use received::Received;
pub use server::{Drained, Server, ServerBuilder, ServerHandle, WorkerStatistics, serve};
pub use stream::{Movable, MoveError, Stream};
pub use waiting::{address, addresses};
