//! Counts what an echo server does for each echo, exactly, by stepping through its instructions:
//!
//! ```text
//! count-instructions [--connections N] [--active N] [--rounds N] [--addresses FILE] [--lines FILE] [--tls]
//!     SERVER [ARGUMENTS]
//! ```
//!
//! The server is any that prints the address it listens on. In each round every connection sends 64 bytes while
//! the server is stopped, so that it always meets all of them at once; then its busiest thread is stepped
//! through one instruction at a time (`PTRACE_SINGLESTEP` in `ptrace(2)`) until all echoes are back and it
//! sleeps. A system call counts as one instruction. Unlike an emulator's, such a count needs no tool, and works
//! with io_uring. It takes some 20 µs per instruction: with `--active`, only so many connections send in each
//! round, others in the next, and the rest is open and idle.
//!
//! With `--tls`, the connections speak TLS, and accept any certificate of the server.
//!
//! Prints one line of JSON, with the instructions of each round and the median of them per echo: a round in which a
//! server collects its garbage is an outlier, which the mean is not free of. `--addresses` writes how often each
//! address of the program was met, as `addr2line` takes them, to find out where the instructions go.
//!
//! `--lines` also counts the distinct cache lines (64 bytes) of data that the instructions of a round read or write,
//! and writes to the file in which mapping they are and which address of the program touched them first (x86-64
//! only; slower). With more connections than a cache holds, each is a cache miss per echo. What the kernel touches is
//! not counted.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod counting;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod lines;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match counting::run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(plan::Failure::Usage(text)) => {
            eprintln!("count-instructions: {text}");
            ExitCode::from(2)
        }
        Err(plan::Failure::Failed(text)) => {
            eprintln!("count-instructions: {text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("count-instructions: only Linux has the ptrace(2) that this takes");
    ExitCode::FAILURE
}
