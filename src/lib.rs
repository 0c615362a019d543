//! Ringspun: an io_uring event-loop runtime with stackful fibers, and a network layer modelled on Janet's
//! `net/` module.
//!
//! This crate is the facade: [`run`] starts fibers on a thread, which use [`fibers`] and [`net`]. Each layer is
//! a crate of its own.
//!
//! ```
//! use ringspun::net;
//!
//! ringspun::run(|| -> std::io::Result<()> {
//!     let server = net::server("127.0.0.1:0", |stream| {
//!         while let Ok(Some(bytes)) = stream.receive() {
//!             if stream.write(&bytes).is_err() {
//!                 break;
//!             }
//!         }
//!     })?;
//!     let client = net::connect(server.localname()?)?;
//!     client.write(b"hello")?;
//!     assert_eq!(&*client.receive()?.unwrap(), b"hello");
//!     Ok(())
//! })
//! .unwrap()
//! .unwrap();
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `tls` (on by default) | TLS, by rustls |
//! | `janet` (on by default) | the Janet VM |
//! | `cli` (on by default) | what the `ringspun` command needs |
//! | `futures-io`, `tokio`, `hyper` | streams with the traits of these crates ([`net::AsyncStream`]); with `hyper`, also its timers and tasks |

// The programs of the tutorial run as examples.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../docs/tutorial-rust.md")]
mod tutorial {}

mod metrics;

pub use metrics::{MetricKind, Metrics, Summary, metrics};
pub use ringspun_fibers as fibers;
pub use ringspun_fibers::{Runtime, run};
#[cfg(feature = "janet")]
pub use ringspun_janet as janet;
pub use ringspun_net as net;
pub use ringspun_runtime as runtime;
#[cfg(feature = "tls")]
pub use ringspun_tls as tls;
