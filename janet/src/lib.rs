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
//!
//! # Layers
//!
//! Each file uses only those above it:
//!
//! | file | what it is |
//! | --- | --- |
//! | `api` | what is used of the VM's C interface |
//! | `values`, `stock` | values from and for Rust; the VM's own functions by name |
//! | `secured` | TLS, or that there is none in this build |
//! | `stalls` | who keeps the loop of a VM, seen from outside |
//! | `socket` | the socket behind a Janet stream |
//! | `bridge` | what one thread's VM has on the ring: streams, parked operations, the turn of the loop |
//! | `resolving`, `work` | what a fiber waits for, and how it continues |
//! | `parked` | a fiber that waits for work |
//! | `shims` | what the functions that the VM calls have in common |
//! | `streams`, `making`, `processes`, `tls` | these functions; `replacements` lists them |
//! | `modules` | the modules that are part of the program |
//! | `embedded` | functions of the embedder |
//! | `inquiry` | what other threads ask a VM |
//! | `dump` | the module `ringspun/dump`, with `dump.janet`: what each fiber of a VM waits for |
//! | `serving` | the module `ringspun` for Janet programs, with `serving.janet` |
//! | `hooks`, `lines` | the VM's system calls; lines that users type |
//! | `vm` | a VM for embedders |
//! | `c_api` | header and library, for C programs |

#![cfg(target_os = "linux")]

mod api;
mod bridge;
pub mod c_api;
mod dump;
mod embedded;
mod hooks;
mod inquiry;
mod lines;
mod making;
mod modules;
mod parked;
mod processes;
mod replacements;
mod resolving;
mod secured;
mod serving;
mod shims;
mod socket;
mod stalls;
mod stock;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod values;
mod vm;
mod work;

pub use embedded::Value;
pub use inquiry::{Inquirer, VmLoopStatistics, VmStatistics};
pub use lines::{Environment, Line, LineEditor};
pub use stalls::{StallWatch, StalledVm};
pub use vm::{Net, Vm, VmError, vm_version};
