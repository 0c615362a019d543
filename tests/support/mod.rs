//! What several of the test programs use.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[cfg(feature = "cli")]
pub mod answering;
pub mod backend;
pub mod closing;
#[cfg(feature = "cli")]
pub mod measuring;
pub mod namespace;
pub mod pem;
pub mod prometheus;
pub mod scratch;
pub mod serving;
#[cfg(feature = "cli")]
pub mod terminal;
