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
//! [`with_deadline`](ringspun_fibers::with_deadline).
//!
//! # Errors
//!
//! Errors name the operation and the address, and have the [kind](std::io::Error::kind) of their cause.
//!
//! | what has happened | kind | how to tell |
//! | --- | --- | --- |
//! | the kernel's error | the same as the kernel's | [`errno_of`], or [`OperationError::raw_os_error`] |
//! | the read or write timeout of the socket has passed | `TimedOut` | [`interrupt_of`] is [`TimedOut`](ringspun_fibers::Interrupt::TimedOut) |
//! | the deadline of a scope around the call has passed | `Other` | it is [`DeadlineExpired`](ringspun_fibers::Interrupt::DeadlineExpired) |
//! | the fiber was cancelled, or its runtime ends | `Other` | it is [`Cancelled`](ringspun_fibers::Interrupt::Cancelled) |
//! | this side has closed the socket | `NotConnected` | [`is_closed`] |
//! | a write ended before all was written | as above | [`WriteInterrupted`] among the sources has the count |
//!
//! So a loop that retries what is `TimedOut` ends with its deadline, and no loop retries a cancel.
//!
//! # Every core
//!
//! A socket belongs to the thread that made it. [`serve`] and [`ServerBuilder`] run a worker on each core and give each
//! connection to the one that has the least to do; [`Stream::into_movable`] moves a stream to another thread.
//!
//! # Files and processes
//!
//! What a server needs besides its sockets has the same rules: [`fs`] for files and directories, [`pipe`], [`spawn`]
//! and [`output`] for child processes, [`stdin`], [`stdout`] and [`stderr`]. [`Stream::send_file`] sends a part of a
//! file. Signals are in `ringspun_fibers`, as they need no descriptor.
//!
//! # Two callers, one implementation
//!
//! Reads, chunks, writes, accepts and connects are implemented once, in [`machine`], as state machines that are polled.
//! A fiber parks between polls; the Janet bridge polls from completions, without a Rust stack.

mod address;
mod ancillary;
mod async_stream;
mod building;
mod connecting;
mod conversions;
mod datagram;
mod descriptor;
mod endpoint;
mod error;
pub mod fs;
mod inherited;
mod listener;
pub mod machine;
#[cfg(feature = "mutations")]
mod mutations;
mod options;
mod pipe;
mod process;
mod received;
mod sending_files;
mod server;
mod standard;
mod stream;
mod system;
mod waiting;

pub use address::{Address, local_address, peer_address};
#[cfg(feature = "hyper")]
pub use async_stream::hyper;
pub use async_stream::{AsyncStream, PollStream};
pub use building::{ConnectBuilder, ListenBuilder};
pub use connecting::{connect, connect_from};
pub use datagram::{DatagramSocket, connect_datagram, connect_datagram_from, listen_datagram};
pub use endpoint::{Endpoint, Peer};
pub use error::{Closed, OperationError, WriteInterrupted, errno_of, interrupt_of, is_closed};
pub use inherited::{InheritedSocket, inherited_sockets};
pub use listener::{Accepting, Listener, listen, server};
pub use machine::ResolveError;
pub use options::SocketOption;
pub use pipe::{Pipe, pipe};
pub use process::{Child, Exiting, output, spawn, status};
pub use received::Received;
pub use server::{Drained, Server, ServerBuilder, ServerHandle, WorkerStatistics, serve};
pub use standard::{StandardOutput, Stdin, stderr, stdin, stdout};
pub use stream::{Credentials, Movable, MoveError, ReceivedDescriptors, Receiving, Stream, TransferError};
pub use waiting::{address, addresses};
