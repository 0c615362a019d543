//! The Janet VM on Ringspun's event loop: a small API to embed it, and Janet's `net/` module on the
//! ring.
//!
//! ```
//! use ringspun_janet::Vm;
//!
//! let mut vm = Vm::new().unwrap();
//! let value = vm
//!     .run_string(
//!         "(def server (net/server \"127.0.0.1\" \"0\" (fn [conn] (net/write conn \"hello\") (:close conn))))
//!          (def [host port] (net/localname server))
//!          (def answer (with [conn (net/connect host port)] (net/read conn 100)))
//!          (:close server)
//!          (string answer)",
//!     )
//!     .unwrap();
//! assert_eq!(value, "hello");
//! ```
//!
//! # How it fits into the VM
//!
//! The VM keeps its event loop, with channels, timers, subprocesses and threads; only the functions and
//! methods of sockets are replaced, before user code is compiled. The VM is compiled by this crate, through
//! `c/vm.c`, which hands over the calls by which it waits for events, and by which it closes and duplicates
//! descriptors (see `hooks.rs`). Nothing changes for other callers of those functions in the process.
//!
//! Janet raises errors and parks fibers by `longjmp`. Each function that the VM calls is therefore a
//! thin shim whose frame holds nothing that needs a destructor: it reads its arguments, calls into Rust
//! for a verdict, and only then raises, parks or returns.

#![cfg(target_os = "linux")]

mod api;
mod bridge;
mod functions;
mod hooks;
mod lines;
mod parked;
mod processes;
mod socket;
mod sockets;
mod stock;
mod values;
mod vm;
mod work;

pub use lines::{Environment, Line, LineEditor};
pub use vm::{Net, Vm, VmError, vm_version};
