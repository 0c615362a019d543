//! TLS 1.2 and 1.3 over the streams of `ringspun-net`, by [rustls](https://docs.rs/rustls): [`connect`], [`listen`],
//! [`server`], [`accept`], and [`wrap`] for STARTTLS; [`serve`] is a server on every core. A [`TlsStream`] has the
//! methods of a stream, and moves to another thread by [`TlsStream::into_movable`].
//!
//! ```
//! use ringspun_fibers as fibers;
//! use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
//!
//! fibers::run(|| -> std::io::Result<()> {
//!     // With the feature `self-signed`. In earnest, Identity::from_pem_files("chain.pem", "key.pem"), and
//!     // tls::connect("example.org:443").
//!     let identity = Identity::self_signed(&["localhost"])?;
//!     let trusted = Roots::from_pem(identity.certificate_pem().as_bytes())?;
//!     let server = tls::server("localhost:0", &ServerConfig::builder().identity(identity).build()?, |stream| {
//!         let mut buffer = [0; 1024];
//!         while let Ok(count @ 1..) = stream.read(&mut buffer) {
//!             if stream.write(&buffer[..count]).is_err() {
//!                 break;
//!             }
//!         }
//!     })?;
//!     let port = server.localname()?.port().unwrap();
//!     let client = tls::connect_with(("localhost", port), &ClientConfig::builder().roots(trusted).build()?)?;
//!     client.write(b"Echo...")?;
//!     let mut answer = [0; 7];
//!     client.chunk(&mut answer)?;
//!     assert_eq!(&answer, b"Echo...");
//!     Ok(())
//! })
//! .unwrap()
//! .unwrap();
//! ```
//!
//! # Ends
//!
//! A read returns 0 only after the peer's close_notify. A connection that ends without it was cut, by the peer, by the
//! network or by an attacker, and what was read may not be all: that is an error, for which [`is_cut`] is true.
//!
//! # Soundness, and cancels
//!
//! There is no unsafe code here. Records that have been encrypted are sent from memory of the stream below, whatever
//! becomes of the fiber that wrote them, so that a cancel, a deadline or a timeout leaves a stream that can be used.

mod async_stream;
mod client;
mod error;
mod identity;
pub mod machine;
mod server;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stream;
mod version;
mod waiting;

pub use client::{ClientConfig, ClientConfigBuilder, connect, connect_with, wrap};
pub use error::{TlsError, is_cut, tls_error_of};
pub use identity::{Identity, Roots};
pub use rustls;
pub use server::{
    ClientAuth, ServerConfig, ServerConfigBuilder, TlsListener, accept, handler, listen, serve, server,
};
pub use stream::{Movable, MoveError, TlsStream};
pub use version::Versions;
