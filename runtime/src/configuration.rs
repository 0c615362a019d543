//! The configuration of an event loop.

use std::time::Duration;

use crate::sys::BackendKind;

/// The configuration of an event loop. The default suits servers with any number of connections.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The backend. `None` takes that of the environment variable `RINGSPUN_BACKEND` (`uring` or `poll`), or else the
    /// best that the machine allows: io_uring, or poll.
    pub backend: Option<BackendKind>,
    /// How many submissions a turn can queue before it needs an extra system call. The kernel rounds it up to a power
    /// of two, and limits it to 32,768 (`io_uring_setup(2)`).
    pub submission_entries: u32,
    /// How many completions the kernel can queue before it has to allocate memory. Rounded likewise; at least
    /// `submission_entries`.
    pub completion_entries: u32,
    /// The number of receive buffers that all streams of the loop share: a power of two, at most 32,768.
    pub receive_buffers: u16,
    /// The size of each receive buffer in bytes: at least 1, less than 4 GiB.
    pub receive_buffer_size_bytes: usize,
    /// The number of receive buffers that all datagram sockets of the loop share: a power of two, at most 32,768. Each
    /// has room for the longest UDP datagram.
    pub datagram_buffers: u16,
    /// How many calls that block ([`EventLoop::call_blocking`](crate::EventLoop::call_blocking)) the loop may have
    /// queued or running at a time, at least 1; others wait in the loop. The threads for them are shared by all loops
    /// of the process, and limited by [`BlockingKind::set_threads_max`](crate::BlockingKind::set_threads_max): with a
    /// limit below that, a loop that makes many calls leaves threads for the others. Lookups of names are not limited
    /// by this. By default, there is no limit.
    pub blocking_calls_max: usize,
    /// What a loop saves by busy-polling briefly before it blocks. It measures what both cost, and polls only where
    /// that has paid. `None` takes the environment variable `RINGSPUN_SPIN` (`cpu`,
    /// `latency`, or `off` for a loop that never polls), or else [`SpinFor::Cpu`].
    pub spin_for: Option<SpinFor>,
    /// The longest that a wait busy-polls; zero for never. `None` takes the environment variable
    /// `RINGSPUN_SPIN_MAX_US`, in microseconds, or else 50 µs.
    pub spin_max: Option<Duration>,
    /// Whether operations of a ring are cancelled before a signal or an exit ends the process, so that its sockets
    /// close.
    ///
    /// The kernel tears down the ring of a process that has ended in a thread of its own. The sockets stay open for
    /// 1 to 14 ms after the process has been waited for: a port accepts connections that nobody serves, and datagrams
    /// to a port that another process shares are lost. That does not happen if the loop has been shut down, on poll,
    /// and, unless this is false, in these cases (Linux 6.0):
    ///
    /// - The default action of a signal ends the process, such as that of SIGTERM; not that of SIGKILL, of a fault
    ///   such as SIGSEGV, or of a realtime signal. If the signal has its default action when the first ring is made, a
    ///   handler is installed. It cancels the operations in flight on the rings of all threads that have not blocked
    ///   the signal, and then lets the default action end the process, so that the parent sees the signal. A handler
    ///   that the program installs later replaces it, may call it, which does nothing, and should shut the loop down.
    ///   The first process of a container, which has no default actions, gets no handler.
    /// - A thread calls `exit(3)`, or returns from `main`. Loops of other threads are reached by one of these signals,
    ///   if its handler is still there and they have not blocked it; otherwise, shut them down before.
    ///
    /// SIGKILL, a fault and `_exit(2)` leave no time for it, the last without
    /// [`cancel_before_exit`](crate::cancel_before_exit).
    pub cancel_at_termination: bool,
}

/// What busy-polling is to save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpinFor {
    /// Processor time: the loop polls where that takes at most 3 % more of it than to block and to be woken, as
    /// completions are then noticed sooner.
    #[default]
    Cpu,
    /// Time: the loop polls where that makes its work at least 3 % faster, whatever it costs in processor time.
    Latency,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            backend: None,
            submission_entries: 1024,
            completion_entries: 16 * 1024,
            // 8 MiB of address space, of which small messages touch one page each. Large messages take 40 % less time
            // in buffers of 64 KiB than of 16 KiB.
            receive_buffers: 128,
            receive_buffer_size_bytes: 64 * 1024,
            datagram_buffers: 64,
            blocking_calls_max: usize::MAX,
            spin_for: None,
            spin_max: None,
            cancel_at_termination: true,
        }
    }
}
