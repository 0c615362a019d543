//! The `ringspun` command and the examples, as processes that are looked at from outside: what they print and serve, what
//! they take of memory and system calls, and how they outlive faults.

mod cli;
mod examples;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod slow_readers;
#[path = "../support/mod.rs"]
mod support;
mod system_calls;
