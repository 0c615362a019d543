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
//! methods of sockets are replaced, before user code is compiled. The loop waits by calling
//! `epoll_wait(2)` and forgets a stream by calling `epoll_ctl(2)`; this crate defines both functions,
//! and answers those calls for threads that use the ring (see `hooks.rs`). All other callers in the
//! process reach the kernel as before.
//!
//! Janet raises errors and parks fibers by `longjmp`. Each function that the VM calls is therefore a
//! thin shim whose frame holds nothing that needs a destructor: it reads its arguments, calls into Rust
//! for a verdict, and only then raises, parks or returns.

#![cfg(target_os = "linux")]

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
pub use vm::{Net, Vm, VmError};

/// Whether the VM's C code was compiled with optimisation (`CFLAGS` with `-O1` or more when this crate
/// was built). Without it, Janet runs at half its speed.
pub const VM_OPTIMISED: bool = cfg!(vm_optimised);
