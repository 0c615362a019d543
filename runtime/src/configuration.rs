//! What can be chosen of an event loop.

use std::time::Duration;

use crate::sys::BackendKind;

/// What a loop is made of, and how it waits. `Configuration::default()` suits a server of any number of connections.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What is to serve the loop. `None` leaves it to the environment variable `RINGSPUN_BACKEND` (`uring` or
    /// `poll`), and without that to what the machine allows: io_uring, or else poll.
    pub backend: Option<BackendKind>,
    /// Submissions that one turn can queue before an extra system call is needed. The kernel rounds it up
    /// to a power of two, and down to what it allows (32,768; `io_uring_setup(2)`).
    pub submission_entries: u32,
    /// Completions the kernel can queue before it has to allocate. Rounded likewise; at least as many as
    /// `submission_entries`.
    pub completion_entries: u32,
    /// How many receive buffers the loop shares among all its streams. A power of two, at most 32,768.
    pub receive_buffers: u16,
    /// The size of each receive buffer in bytes: at least 1, less than 4 GiB.
    pub receive_buffer_size_bytes: usize,
    /// How many receive buffers the loop shares among all its datagram sockets. A power of two, at most
    /// 32,768. Each has room for the longest datagram of UDP.
    pub datagram_buffers: u16,
    /// How long at most a turn that blocks looks for completions before the thread goes to sleep, where those before
    /// came as soon as that. Saves the time to sleep and to be woken, for some of the processor's where completions
    /// are just as far apart. A loop that waits for longer sleeps at once; with zero, every loop does. `None` leaves it to
    /// the environment variable `RINGSPUN_SPIN_MAX_US`, in microseconds, and without that it is 50 µs.
    pub spin_max: Option<Duration>,
    /// Whether what is in flight on a ring is cancelled before a SIGTERM, SIGINT or SIGHUP of which the default action
    /// ends the process, and at an `exit(3)` of the loop's thread: see [`EventLoop`](crate::EventLoop#ending-the-process).
    /// Concerns io_uring alone.
    pub cancel_at_termination: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            backend: None,
            submission_entries: 1024,
            completion_entries: 16 * 1024,
            // 8 MiB of address space, of which small messages touch one page each. With pieces of 64 KiB, large
            // ones take four tenths less time than with 16 KiB.
            receive_buffers: 128,
            receive_buffer_size_bytes: 64 * 1024,
            datagram_buffers: 64,
            spin_max: None,
            cancel_at_termination: true,
        }
    }
}
