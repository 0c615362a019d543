//! Waiting for signals of the process.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{Interest, Operation, Signal, SignalWatch, Wake};

use crate::operation::Single;
use crate::pollable::{Pollable, wait_for};
use crate::wait_reason::WaitReason;

/// Signals that arrive at the process, to be waited for: each `Signals` sees each arrival of its own.
///
/// While there is one for a signal, the signal does nothing else in the whole process, such as to end it; after the
/// last one has been dropped, its previous action is restored: see [`SignalWatch`]. Arrivals of the same signal that
/// nobody has taken count as one. It may be made before the runtime, and used by any worker thread; if several fibers
/// wait for the same `Signals`, one of them gets the arrival.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Channel, Select, Signal, Signals};
///
/// # let process = std::process::id().to_string();
/// # let kill = move || std::process::Command::new("kill").args(["-USR1", &process]).status().unwrap();
/// fibers::run(move || {
///     let signals = Signals::new(&[Signal::TERM, Signal::USR1]).unwrap();
///     let work = Channel::<u32>::bounded(1);
/// #   assert!(kill().success());
///     // As `kill -USR1` by a person.
///     let event = Select::new()
///         .take(&work, |job| format!("{job:?}"))
///         .on(signals.next(), |signal| signal.unwrap().to_string())
///         .on(fibers::after(Duration::from_secs(60)), |()| "nothing happens".to_string())
///         .wait();
///     assert_eq!(event.unwrap(), "SIGUSR1");
/// })
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct Signals {
    watch: SignalWatch,
}

impl Signals {
    /// Begins to watch for signals; those that arrive from now on can be waited for.
    ///
    /// # Errors
    ///
    /// The kernel's, such as too many open files.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        Ok(Self { watch: SignalWatch::new(signals)? })
    }

    /// Parks until one of the signals arrives, or takes one that has arrived since.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait: a signal that arrives later is for the next. The error of the event loop if
    /// it cannot wait, as in a forked child.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn wait(&self) -> io::Result<Signal> {
        wait_for(self.next())?
    }

    /// The next arrival, to be waited for in a [`Select`](crate::Select).
    pub fn next(&self) -> NextSignal<'_> {
        NextSignal { signals: self, readiness: None, has_ended: false }
    }

    /// Takes a signal that has arrived, without waiting.
    pub fn try_next(&self) -> Option<Signal> {
        self.watch.take()
    }
}

/// The next arrival of a signal, from [`Signals::next`].
pub struct NextSignal<'a> {
    signals: &'a Signals,
    /// The wait for the watch's descriptor.
    readiness: Option<Rc<Single>>,
    /// The event loop has ended.
    has_ended: bool,
}

impl Pollable for NextSignal<'_> {
    type Output = io::Result<Signal>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        let watch = &self.signals.watch;
        if let Some(signal) = watch.take() {
            return Poll::Ready(Ok(signal));
        }
        if let Err(error) = watch.check_process() {
            return Poll::Ready(Err(error));
        }
        if self.has_ended {
            return Poll::Pending;
        }
        loop {
            let readiness = self.readiness.get_or_insert_with(|| {
                let descriptor = watch.descriptor();
                // It stays open for good.
                Single::submit(Operation::Poll { descriptor, interest: Interest::Readable }, Rc::new(()))
            });
            match readiness.poll(waiter) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => self.readiness = None,
                // A loop that ends refuses operations: the fiber is interrupted where it parks.
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ECANCELED) => {
                    self.has_ended = true;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
            // In this order: what arrives after the look makes the descriptor readable again.
            watch.acknowledge();
            if let Some(signal) = watch.take() {
                return Poll::Ready(Ok(signal));
            }
        }
    }

    fn reason(&self) -> WaitReason {
        WaitReason::new("a signal", "")
    }
}

impl Drop for NextSignal<'_> {
    fn drop(&mut self) {
        if let Some(readiness) = &self.readiness {
            readiness.abandon();
        }
    }
}

impl std::fmt::Debug for NextSignal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextSignal").field("signals", self.signals).finish()
    }
}
