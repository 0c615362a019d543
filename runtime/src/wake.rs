//! Wake-ups: of a waiter on the loop's own thread, and of the loop from any thread.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

#[cfg(all(test, loom))]
use loom::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};

use self::signal::Signal;
use crate::process::ProcessMark;

/// A waiter on the loop's thread: a parked fiber, or an operation of another runtime.
pub trait Wake {
    /// Tells the waiter to check its condition again. Wakes may be spurious and may repeat.
    ///
    /// Called from a turn of the loop, or by the code that made the condition true, possibly in the middle of its
    /// work: it should enqueue and return. It may submit, cancel and arm timers; it must not block or panic.
    fn wake(self: Rc<Self>);
}

/// The holder of a resource that should be released when idle, such as a receive that runs ahead of its reader.
pub trait Sweep {
    /// Called by the loop after [`EventLoop::sweep_later`](crate::EventLoop::sweep_later), once it has been idle for
    /// 50 ms, or has turned 1,024 times and at least once per holder, and again after the same interval while this
    /// returns true. It may submit and cancel; it must not block or panic.
    fn sweep(self: Rc<Self>) -> bool;
}

/// Ends a turn of an event loop from any thread or from a signal handler, through an `eventfd(2)`, or a pipe
/// on systems that have none.
///
/// Wakes between two turns are merged into one. The waker may outlive its loop; waking has no effect then, nor in a
/// child of `fork(2)`. It carries no data and orders no memory accesses: share data with the woken thread through a
/// lock or a channel.
#[derive(Clone, Debug)]
pub struct RemoteWaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    signal: Signal,
    pending: AtomicBool,
    process: ProcessMark,
}

impl RemoteWaker {
    pub(crate) fn new() -> io::Result<Self> {
        let (signal, pending, process) = (Signal::new()?, AtomicBool::new(false), ProcessMark::new()?);
        Ok(Self { shared: Arc::new(Shared { signal, pending, process }) })
    }

    /// Makes the loop's current or next [`turn`](crate::EventLoop::turn) return.
    ///
    /// Does not block, and is async-signal-safe (`signal-safety(7)`). Like `write(2)`, it may change `errno`, which a
    /// signal handler must restore.
    pub fn wake(&self) {
        if self.shared.process.is_current() && !self.shared.pending.swap(true, Ordering::AcqRel) {
            self.shared.signal.set();
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.signal.descriptor()
    }

    /// Takes the wake-up if there is one, for a backend that does not wait on the descriptor.
    #[cfg(feature = "simulation")]
    pub(crate) fn take_pending(&self) -> bool {
        let pending = self.shared.pending.load(Ordering::Acquire);
        if pending {
            self.acknowledge();
        }
        pending
    }

    /// Takes the wake-up, so that the next one writes again. The signal must be cleared before the flag: otherwise, a
    /// wake in between would leave the flag set and the signal clear, and no later wake would write. A wake between
    /// the two steps need not write: the loop is awake.
    pub(crate) fn acknowledge(&self) {
        self.shared.signal.clear();
        // Acquire: makes visible what was written before a wake that merged into this one.
        self.shared.pending.swap(false, Ordering::AcqRel);
    }
}

/// A descriptor that is readable while something is signalled.
#[cfg(all(not(all(test, loom)), any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) mod signal {
    use std::io;
    use std::os::fd::{AsRawFd, RawFd};

    use nix::errno::Errno;
    use nix::sys::eventfd::{EfdFlags, EventFd};

    #[derive(Debug)]
    pub(crate) struct Signal(EventFd);

    impl Signal {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
        }

        pub(crate) fn descriptor(&self) -> RawFd {
            self.0.as_raw_fd()
        }

        pub(crate) fn set(&self) {
            // The only possible error is EAGAIN: the counter is at its maximum, so it is set already.
            let _ = self.0.write(1);
        }

        pub(crate) fn clear(&self) {
            while let Err(Errno::EINTR) = self.0.read() {}
        }
    }
}

/// A descriptor that is readable while something is signalled.
#[cfg(not(any(all(test, loom), target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) mod signal {
    use std::io::{self, PipeReader, PipeWriter, Read, Write};
    use std::os::fd::{AsRawFd, RawFd};

    #[derive(Debug)]
    pub(crate) struct Signal {
        reader: PipeReader,
        writer: PipeWriter,
    }

    impl Signal {
        pub(crate) fn new() -> io::Result<Self> {
            let (reader, writer) = io::pipe()?;
            for descriptor in [reader.as_raw_fd(), writer.as_raw_fd()] {
                // SAFETY: sets a flag of our own new descriptor.
                if unsafe { libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(Self { reader, writer })
        }

        pub(crate) fn descriptor(&self) -> RawFd {
            self.reader.as_raw_fd()
        }

        pub(crate) fn set(&self) {
            // A single `write(2)`, which is async-signal-safe. On an almost empty pipe, the only possible error is
            // EINTR.
            while let Err(error) = (&self.writer).write(&[1]) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return;
                }
            }
        }

        pub(crate) fn clear(&self) {
            // More than can be in the pipe: the flag above admits one byte at a time.
            let mut bytes = [0; 8];
            while let Err(error) = (&self.reader).read(&mut bytes) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return;
                }
            }
        }
    }
}

/// A model of the descriptor for loom, which does not know the kernel.
#[cfg(all(test, loom))]
pub(crate) mod signal {
    use std::io;
    use std::os::fd::RawFd;

    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(crate) struct Signal {
        readable: Mutex<bool>,
        changed: Condvar,
    }

    impl Signal {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self { readable: Mutex::new(false), changed: Condvar::new() })
        }

        pub(crate) fn descriptor(&self) -> RawFd {
            unreachable!("loom models wake-ups without a loop")
        }

        pub(crate) fn set(&self) {
            *self.readable.lock().unwrap() = true;
            self.changed.notify_one();
        }

        pub(crate) fn clear(&self) {
            *self.readable.lock().unwrap() = false;
        }

        /// Blocks as a turn of the loop does.
        pub(crate) fn wait(&self) {
            let mut readable = self.readable.lock().unwrap();
            while !*readable {
                readable = self.changed.wait(readable).unwrap();
            }
        }
    }
}

/// Exhaustive interleavings, run by `scripts/check loom`.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::Mutex;
    use loom::thread;

    use super::*;

    /// Each thread hands over a number of items, as `Remote::execute` of the fibers does, to a loop that blocks when
    /// its queue is empty. A lost wake leaves it blocked, which loom reports as a deadlock.
    fn hand_over(threads: &'static [usize], acknowledge: fn(&RemoteWaker)) {
        let mut model = loom::model::Builder::new();
        // Loom's documentation calls two or three sufficient; without a bound, two threads take over seven minutes.
        model.preemption_bound = Some(3);
        model.check(move || {
            let waker = RemoteWaker::new().unwrap();
            let queue = Arc::new(Mutex::new(0));
            let hand_over = |count: &usize| {
                let (count, waker, queue) = (*count, waker.clone(), queue.clone());
                thread::spawn(move || {
                    for _ in 0..count {
                        *queue.lock().unwrap() += 1;
                        waker.wake();
                    }
                })
            };
            let handles: Vec<_> = threads.iter().map(hand_over).collect();
            let mut missing: usize = threads.iter().sum();
            while missing > 0 {
                waker.shared.signal.wait();
                acknowledge(&waker);
                missing -= std::mem::take(&mut *queue.lock().unwrap());
            }
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        });
    }

    #[test]
    fn no_wake_of_one_thread_is_lost() {
        hand_over(&[4], RemoteWaker::acknowledge);
    }

    #[test]
    fn no_wake_of_two_threads_is_lost() {
        hand_over(&[2, 1], RemoteWaker::acknowledge);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn loom_finds_the_wake_that_is_lost_where_the_flag_falls_first() {
        hand_over(&[4], |waker| {
            waker.shared.pending.swap(false, Ordering::AcqRel);
            waker.shared.signal.clear();
        });
    }
}
