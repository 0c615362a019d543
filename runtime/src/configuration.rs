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
    /// Whether the sockets of a ring are let go of before the process ends by a signal or an exit.
    ///
    /// A process with a ring that ends leaves it to a thread of the kernel. For 1 to 14 ms its sockets stay open, although
    /// the process has been waited for: a port accepts connections that nobody serves, and datagrams of a port that another
    /// process shares are lost. That does not happen where the loop has been shut down, on poll, and, unless this is
    /// false, in these cases (Linux 6.0):
    ///
    /// - The process is ended by SIGTERM, SIGINT or SIGHUP, with the default action. Where a signal has that when the first
    ///   ring is made, a handler takes its place that cancels what is in flight, on the rings of all threads that have not
    ///   blocked the signal, and then has the default action end the process: whoever waits for it sees that it was the
    ///   signal. A handler that the program installs later replaces it, and should have the loop shut down. The first
    ///   process of a container, which has no default action, gets no handler.
    /// - The loop's thread calls `exit(3)`, or returns from `main`. Loops of other threads have to be shut down before.
    ///
    /// SIGKILL, a crash, `_exit(2)` and `abort(3)` leave no time for it.
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
