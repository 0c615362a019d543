//! The runtime: its settings, its run, and queries about the runtime of the thread.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringspun_runtime::{Configuration, EventLoop};

use crate::overflow;
use crate::panics;
use crate::pulse::Pulse;
use crate::remote::Remote;
use crate::runtimes::{Listed, ask_all, thread_name};
use crate::scheduler::Scheduler;
use crate::spans::{self, LeftSpans};
use crate::spawn::FiberBuilder;

/// The usable stack of a fiber, unless its builder says otherwise. Pages that are never touched cost
/// nothing but address space, of which there is little where addresses have 32 bits.
const DEFAULT_STACK_SIZE_BYTES: usize = if cfg!(target_pointer_width = "64") { 1024 } else { 128 } * 1024;

/// The environment variable that turns [`Runtime::record_waits`] on.
const RECORD_WAITS: &str = "RINGSPUN_RECORD_WAITS";

/// Settings of a runtime of fibers on one thread.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, Runtime};
///
/// // A thousand fibers on small stacks.
/// let sum = Runtime::new().stack_size_bytes(16 * 1024).run(|| {
///     let fibers: Vec<_> = (0..1000).map(|n| fibers::spawn(move || n).unwrap()).collect();
///     fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u32>()
/// });
/// assert_eq!(sum.unwrap(), 499_500);
/// ```
#[derive(Clone, Debug)]
pub struct Runtime {
    configuration: Configuration,
    stack_size_bytes: usize,
    /// `None` takes the environment variable.
    records_waits: Option<bool>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            configuration: Configuration::default(),
            stack_size_bytes: DEFAULT_STACK_SIZE_BYTES,
            records_waits: None,
        }
    }
}

impl Runtime {
    /// The default settings: stacks of 1 MiB (128 KiB where addresses have 32 bits), and the loop's own
    /// defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the usable stack of fibers that do not ask for another, `main` among them, in bytes: at least
    /// 8 KiB, rounded up to whole pages.
    ///
    /// A stack takes the pages that have been touched, usually two, and address space for the rest and for
    /// the guard below it (1 MiB; 64 KiB where addresses have 32 bits). Its page tables take 2 KiB for each MiB
    /// of both. Where the system counts address space (`ulimit -v`, `vm.overcommit_memory=2`), or where memory is
    /// scarce beside a million fibers, choose a smaller stack. A free stack gives back what it does not need
    /// soon, when the event loop is about to block.
    ///
    /// A fiber that needs more ends the process, with a message that names it; so does C code with a frame of up
    /// to 1 MiB that steps over the end. Leave room for the C code that runs on it, such as `getaddrinfo(3)`,
    /// whose need depends on how the system looks names up.
    pub fn stack_size_bytes(mut self, stack_size_bytes: usize) -> Self {
        self.stack_size_bytes = stack_size_bytes;
        self
    }

    /// Sets how many calls of [`blocking`](crate::blocking) this runtime may have queued or running at a time, at least
    /// 1; the fibers that make more wait for their turn. By default, there is no limit but that of the threads, which
    /// all runtimes of the process share: 32, or as many as
    /// [`BlockingKind::set_threads_max`](ringspun_runtime::BlockingKind::set_threads_max) says. Lower than that, it
    /// keeps one of several [`Workers`](crate::Workers) from taking all threads.
    pub fn blocking_calls_max(mut self, calls_max: usize) -> Self {
        self.configuration.blocking_calls_max = calls_max;
        self
    }

    /// Sets whether a [dump](crate::dump) tells since when each fiber has been waiting. By default the environment
    /// variable `RINGSPUN_RECORD_WAITS` does, by 1 or 0; without it, it is off. It costs some ten instructions each
    /// time a fiber runs.
    pub fn record_waits(mut self, on: bool) -> Self {
        self.records_waits = Some(on);
        self
    }

    /// Sets the sizes of the event loop.
    pub fn configuration(mut self, configuration: Configuration) -> Self {
        self.configuration = configuration;
        self
    }

    /// Runs `main` in a fiber on this thread and returns its result.
    ///
    /// When `main` ends, all other fibers are cancelled: each of their waits, from then on, ends with
    /// [`Interrupt::Cancelled`](crate::Interrupt::Cancelled). The call returns when every fiber has ended and
    /// every operation's terminal completion has come.
    ///
    /// A fiber that ignores a thousand interrupts is unwound. One that catches that as well, a hundred times, is
    /// stopped for good: it never runs again, and its stack is leaked with all that is on it, sockets, locks and
    /// the event loop's memory among them. A fiber whose destructors go on waiting while it unwinds is stopped after
    /// 100,000 waits; its thread counts as panicking from then on, and can have no further runtime. Each is
    /// logged by `tracing` as an error that names it, or printed on standard error where no subscriber takes
    /// that, and its supervisor is told. A fiber that computes without end, or calls only what succeeds at
    /// once, cannot be stopped.
    ///
    /// # Forking
    ///
    /// If a fiber calls `fork(2)`, only that fiber continues in the child. It cannot wait there, and no runtime
    /// counts as running, so it may start one. When it waits or ends, the child's copy of this call returns: the
    /// result of `main` if `main` has ended, an error otherwise. The other fibers are leaked. The parent is not
    /// affected. A child of a process with several threads is best ended by `_exit(2)` or `exec`:
    /// [`std::process::exit`] waits forever if another thread was starting or ending during the fork.
    ///
    /// # Errors
    ///
    /// If the event loop cannot be made (see [`EventLoop::new`]), if there is no memory for a stack, or if the loop
    /// fails beyond repair (see [`EventLoop::turn`]); fibers are then leaked, as the kernel may still use their memory,
    /// and connections that they wait for are shut down ([`EventLoop::abandon`]). In a forked child, as above.
    /// `Unsupported` on a thread on which a fiber had to be stopped while it unwound, and in destructors of the
    /// thread's own variables. `InvalidInput` if an environment
    /// variable that counts has an invalid value.
    ///
    /// # Panics
    ///
    /// With the panic of `main`, once everything has ended; and if a runtime runs on this thread already. A panic of
    /// code that the event loop calls itself, such as a [`Wake`](ringspun_runtime::Wake) of the program's, ends
    /// everything as the end of `main` does, and is passed on then; if that does not succeed, the fibers are leaked.
    pub fn run<T: 'static>(self, main: impl FnOnce() -> T + 'static) -> io::Result<T> {
        self.run_watched(None, main)
    }

    /// As [`run`](Self::run), with a pulse that other threads may feel.
    pub(crate) fn run_watched<T: 'static>(
        self,
        pulse: Option<Arc<Pulse>>,
        main: impl FnOnce() -> T + 'static,
    ) -> io::Result<T> {
        assert!(Scheduler::current().is_none(), "a runtime of fibers runs on this thread already");
        overflow::install()?;
        panics::install_hook();
        let spans = SpansOfThread::leave();
        let in_main = spans.0.clone();
        let main = move || {
            let _entered = in_main.as_deref().map(Reentered::new);
            main()
        };
        let records_waits = self.records_waits.map_or_else(records_waits_by_environment, Ok)?;
        let event_loop = EventLoop::new(&self.configuration)?;
        let scheduler = Scheduler::new(event_loop, self.stack_size_bytes, records_waits, pulse)?;
        let _entered = scheduler.enter();
        let _listed = Listed::new(scheduler.remote().sender());
        let packet = FiberBuilder::new().name("main").spawn(main)?.into_packet();
        let ran = match scheduler.try_run_until(|| packet.is_finished()) {
            Ok(ran) => ran,
            Err((payload, has_ended)) => {
                if !has_ended {
                    scheduler.event_loop().abandon();
                    std::mem::forget(scheduler);
                }
                std::panic::resume_unwind(payload)
            }
        };
        let is_ours = scheduler.is_ours();
        let ended = ran.and_then(|()| if is_ours { scheduler.end() } else { Ok(()) });
        if ended.is_err() || !is_ours {
            // There are parked fibers, which must not be dropped. Nothing of that in a forked child.
            scheduler.event_loop().abandon();
            std::mem::forget(scheduler);
        }
        ended?;
        match packet.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => std::panic::resume_unwind(payload),
            None => Err(io::Error::other("the main fiber ended without a result")),
        }
    }
}

fn records_waits_by_environment() -> io::Result<bool> {
    match std::env::var_os(RECORD_WAITS) {
        Some(value) if value == "1" => Ok(true),
        Some(value) if !value.is_empty() && value != "0" => {
            let text = format!("{RECORD_WAITS}={}: expected 1 or 0", value.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        _ => Ok(false),
    }
}

/// The spans of `tracing` that the caller of a runtime is in. They are the main fiber's while the runtime runs.
struct SpansOfThread(Option<Rc<LeftSpans>>);

impl SpansOfThread {
    fn leave() -> Self {
        Self(if spans::may_be_entered() { spans::leave().map(Rc::new) } else { None })
    }
}

impl Drop for SpansOfThread {
    fn drop(&mut self) {
        if let Some(spans) = &self.0 {
            spans.enter();
        }
    }
}

/// The same, entered in the main fiber.
struct Reentered<'a>(&'a LeftSpans);

impl<'a> Reentered<'a> {
    fn new(spans: &'a LeftSpans) -> Self {
        spans.enter();
        Self(spans)
    }
}

impl Drop for Reentered<'_> {
    fn drop(&mut self) {
        self.0.exit();
    }
}

/// Runs `main` in a fiber on this thread, with the default [`Runtime`], and returns its result when every
/// fiber has ended.
///
/// # Errors
///
/// As [`Runtime::run`].
///
/// # Panics
///
/// As [`Runtime::run`].
pub fn run<T: 'static>(main: impl FnOnce() -> T + 'static) -> io::Result<T> {
    Runtime::new().run(main)
}

/// A handle by which other threads reach the runtime of this thread; `None` if none runs.
pub fn remote() -> Option<Remote> {
    Some(Scheduler::current()?.remote().sender())
}

/// The event loop of this thread's runtime, if one runs. Only the runtime may turn it.
pub fn event_loop() -> Option<Rc<EventLoop>> {
    Scheduler::current().map(|scheduler| scheduler.event_loop().clone())
}

/// Counts of this thread's fibers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiberStatistics {
    /// Fibers that have not ended, including the caller.
    pub alive: usize,
    /// Stacks in use.
    pub stacks: usize,
}

/// Counts of a runtime of the process, from [`statistics_of_process`].
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct RuntimeStatistics {
    /// The name of its thread.
    pub thread: String,
    /// The backend of its event loop.
    pub backend: &'static str,
    /// Its fibers.
    pub fibers: FiberStatistics,
    /// What its event loop holds.
    pub event_loop: ringspun_runtime::LoopStatistics,
    /// How its event loop has waited.
    pub waits: ringspun_runtime::SpinStatistics,
    /// How long the thread took to come to this question: about what everything that happens at this moment waits, such
    /// as the end of an operation.
    pub queue_time: Duration,
}

/// Counts of each runtime of the process. Blocks the thread until all have answered, or until `patience` is over, so it
/// is not for the thread of a runtime: use [`blocking`](crate::blocking). A runtime that is kept busy by a fiber is
/// missing.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let counts = fibers::blocking(|| fibers::statistics_of_process(Duration::from_secs(60))).unwrap();
///     assert_eq!(counts[0].fibers.alive, 1);
/// })
/// .unwrap();
/// ```
pub fn statistics_of_process(patience: Duration) -> Vec<RuntimeStatistics> {
    let asked = Instant::now();
    let (statistics, _) = ask_all(patience, move |reply| {
        if let (Some(fibers), Some(event_loop)) = (statistics(), event_loop()) {
            reply.send(RuntimeStatistics {
                thread: thread_name(),
                backend: event_loop.backend_name(),
                fibers,
                event_loop: event_loop.statistics(),
                waits: event_loop.spin_statistics(),
                queue_time: asked.elapsed(),
            });
        }
    });
    statistics
}

/// Counts of this thread's fibers; `None` if no runtime runs on it.
pub fn statistics() -> Option<FiberStatistics> {
    let scheduler = Scheduler::current()?;
    Some(FiberStatistics { alive: scheduler.alive(), stacks: scheduler.stacks().in_use() })
}
