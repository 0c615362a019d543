//! Stackful fibers on the event loop of Ringspun.
//!
//! A fiber is straight-line code with a stack of its own. Where a thread would block, it *parks*: the
//! thread runs other fibers until what the fiber waits for has happened. The vocabulary is that of Janet's
//! `ev/` module:
//!
//! | to | in Rust | in Janet |
//! | --- | --- | --- |
//! | start a fiber | [`spawn`], [`FiberBuilder`] | `ev/go`, `ev/spawn` |
//! | wait for its result | [`JoinHandle::join`], [`JoinSet`] | |
//! | start fibers that borrow, and end together | [`scope`] | |
//! | keep a value per fiber | [`FiberLocal`] | dynamic bindings |
//! | interrupt its wait | [`JoinHandle::cancel`] | `ev/cancel` |
//! | wait | [`sleep`] | `ev/sleep` |
//! | limit how long a block waits | [`with_deadline`], [`timeout`], [`timeout_at`] | `ev/with-deadline` |
//! | wait for a moment, or for each of many | [`sleep_until`], [`interval`] | |
//! | wait for a signal of the process | [`Signals`] | |
//! | let others run in a long computation | [`yield_now`] | `ev/sleep 0` |
//! | pass values between fibers | [`Channel`] | `ev/chan`, `ev/give`, `ev/take` |
//! | lock, count, notify, meet | [`sync`] | |
//! | wait for the first of several: channels, times, ends, sockets | [`Select`] | `ev/select`, `ev/rselect` |
//! | be told how fibers end | [`FiberBuilder::supervisor`] | `ev/go` |
//! | send the supervisor a message | [`FiberEvent::message`] | `ev/give-supervisor` |
//! | wait for a future | [`block_on`] | |
//! | await what fibers wait for | [`as_future`], [`JoinHandle`], [`WorkerTask`] | |
//! | make a call that blocks | [`blocking`], [`blocking_scoped`] for one that borrows | `ev/thread` |
//! | see what all fibers wait for | [`dump`], [`dump_on_signals`] | |
//! | use every core | [`Workers`], [`Worker::spawn`] | `ev/thread` |
//! | pass values between threads | [`SharedChannel`] | `ev/thread-chan` |
//!
//! ```
//! use std::time::Duration;
//! use ringspun_fibers as fibers;
//!
//! let sum = fibers::run(|| {
//!     let slow = fibers::spawn(|| {
//!         fibers::sleep(Duration::from_millis(5)).unwrap();
//!         40
//!     })
//!     .unwrap();
//!     slow.join().unwrap() + 2
//! })
//! .unwrap();
//! assert_eq!(sum, 42);
//! ```
//!
//! The event loop beneath runs on io_uring where that is allowed (Linux 6.0), and on readiness elsewhere.
//!
//! # Layers
//!
//! Each file uses only those below it:
//!
//! ```text
//!   workers                      a runtime per core
//!   worker_set                   their threads: replacing one that fails, watching
//!   stall    sample              the stack of a fiber that runs, taken from another thread
//!   dump_process                 what the fibers of all runtimes wait for, also on a signal
//!   dump     frames              what the fibers of a runtime wait for; names of functions
//!   future                       fibers that wait for futures, and futures of what fibers wait for
//!   runtime                      Runtime::run, statistics, and what else is asked of the thread's runtime
//!   worker   worker_task         fibers of another thread's runtime, and their results
//!   sync                         locks, and other ways to wait for one another
//!   scope    join_set            fibers that borrow; results in the order of the ends
//!   spawn                        FiberBuilder
//!   runtimes                     those of the process, to be asked by any thread
//!   shared_select                selections with channels between threads
//!   shared_channel               channels between threads, on
//!   remote_waiter shared_queue   wakes of fibers from any thread; who waits for a channel, and whom a change wakes
//!   scheduler                    runs the ready fibers, turns the event loop, ends what is left
//!   remote   join   blocking     tasks of other threads; results of fibers; calls that block
//!            event  select       what supervisors are told; the first of several channel operations
//!                   channel
//!   signals                      signals of the process
//!   operation                    operations on files, and waits for descriptors
//!   time     deadline pollable   sleeps and intervals; limits on waits; what can be waited for
//!   overflow wait    panics      the message of a stack overflow; the only way to park; who has panicked
//!   current  spans               which fiber runs; spans of `tracing`, which a parked fiber leaves
//!   wait_checks                  waits inside of what belongs to the thread, in debug builds
//!   group                        fibers that end together
//!   fiber                        coroutine, state, and the queue that a wake puts a fiber into
//!   inquiry  backtrace           what fibers are asked for a dump, and answer
//!   wait_reason                  what a wait is for, in words
//!   stack    interrupt  locals   memory with guards; why a wait ended early; values of a fiber's own
//!   pulse    affinity            whether a loop turns; on which processors a thread runs
//! ```
//!
//! A wake does nothing but append the fiber to the queue; the scheduler resumes it between two turns of the
//! event loop.
//!
//! # Interrupts
//!
//! A wait ends early when the fiber is cancelled, when a deadline of it has passed, or when its runtime
//! ends: the wait then returns an [`Interrupt`]. Between waits a fiber is never stopped.
//!
//! # Logs and panics
//!
//! Spans of `tracing` that a fiber has entered are its own: while it is parked, they are exited, as by
//! `tracing::Instrument` for a future. A fiber begins in no span, except the main fiber, which has those of the thread
//! around [`run`]; one with a name is in a span `fiber` ([`FiberBuilder::name`]). The code of a subscriber must not
//! wait.
//!
//! A panic in a fiber prints the fiber's number and name before the usual message, by a hook that the first [`run`] of
//! the process puts before the one that is installed then.
//!
//! # Soundness
//!
//! A fiber may lend memory on its stack to the kernel, because it cannot resume, unwind or be freed before the kernel
//! is done: handles are `!Send`, what a fiber runs is `'static` or ends before the [`scope`] that it borrows from, and
//! a parked fiber is never dropped. What a fiber holds may be `!Send`, so fibers never change threads:
//!
//! ```compile_fail
//! fn need_send<T: Send>(_: T) {}
//! ringspun_fibers::run(|| need_send(ringspun_fibers::spawn(|| 1).unwrap())).unwrap();
//! ```
//!
//! ```compile_fail
//! let local = String::new();
//! ringspun_fibers::run(|| ringspun_fibers::spawn(|| local.len())).unwrap();
//! ```
//!
//! ## State of the thread across a wait
//!
//! All fibers of a runtime share one thread, and a wait lets others run. Code that enters something for the
//! *thread*, waits, and leaves it again is written for threads, where scopes end in the reverse order of their
//! beginnings. Fibers end theirs in any order. **Do not wait inside such a scope**, unless its documentation allows
//! it to be suspended. It concerns these kinds of crates:
//!
//! | kind | examples | what a wait inside can do |
//! | --- | --- | --- |
//! | references in thread-local scopes | `scoped_tls`, `scoped-tls-hkt`, `environmental`, home-made ones with `unsafe` | **undefined behaviour**: the end of one fiber's scope restores the reference of another fiber's that has ended; memory that was freed is read, from safe code |
//! | interpreters and C libraries that keep their current call, stack or handler per thread | `mlua`, `rlua`, `pyo3`'s GIL tokens, `jni`'s attachments, libraries that `setjmp` | **undefined behaviour**, where two fibers are inside one at a time and leave it in another order than they entered it |
//! | entered contexts, other than spans of `tracing` | `tracing::subscriber::set_default`, `opentelemetry`'s `Context::attach`, `sentry` scopes, `tokio`'s `Handle::enter` | wrong results: an event goes to another fiber's subscriber, a context is restored that is over |
//! | locks of the standard library and of `parking_lot` (use those of [`sync`]) | a `MutexGuard`, `RwLock` guard or `ReentrantLock` that is held across a wait | a fiber that needs the lock blocks the thread, and so the fiber that would release it: a deadlock; a re-entrant lock lets every fiber of the thread in |
//! | lazy initialisation | `LazyLock`, `OnceLock::get_or_init`, `thread_local!` initialisers that wait | a deadlock, or a panic about re-entrance |
//! | pools that use the thread itself | `rayon` with `use_current_thread` | a deadlock: a fiber takes a job of another fiber and waits in it, and the other one blocks the thread until the job ends |
//! | borrows | a `RefCell` guard, or a thread-local `with` closure, that is held across a wait | a panic in the fiber that borrows next |
//!
//! The remedy is the same for all: do what needs the scope between two waits, or clone what is in it first. A thread
//! runs one fiber at a time between waits, so a scope without a wait inside behaves as on a thread of its own.
//! Where C code itself must be suspended in the middle, give each call a thread: [`blocking`].
//!
//! In debug builds, `RINGSPUN_CHECK_WAITS=1` makes every wait look for such scopes on the stack of its fiber, and
//! prints the place of each that it finds: initialisers, thread-local closures and scopes, interpreters. It cannot find
//! held guards of locks, and makes each wait a millisecond slower. With `RINGSPUN_CHECK_WAITS=abort`, a wait in a
//! thread-local scope of a reference also ends the process, before the other fibers run.
//!
//! Nothing more is checked, and nothing in release builds: a thread-local variable is read and set by a few
//! instructions of the crate's own, of which the runtime learns nothing, and it cannot tell a reference to what has
//! ended from any other. So a program with crates of the first two kinds is sound as long as none of its fibers waits
//! inside of their scopes. The compiler does not check that, and the program needs no `unsafe` of its own to break it.
//! All else here holds for every program in safe Rust.
//!
//! ## Forked children
//!
//! See [`Runtime::run`]: in the child, only the fiber that forked continues.

mod affinity;
mod backtrace;
mod blocking;
mod channel;
mod current;
mod deadline;
mod dump;
mod dump_process;
mod event;
mod fiber;
mod frames;
mod future;
mod group;
mod inquiry;
mod interrupt;
mod join;
mod join_set;
mod locals;
mod operation;
mod overflow;
mod panics;
mod pollable;
mod pulse;
mod remote;
mod remote_waiter;
mod runtime;
mod runtimes;
#[cfg(target_os = "linux")]
mod sample;
mod scheduler;
mod scope;
mod select;
mod shared_channel;
mod shared_queue;
mod shared_select;
mod signals;
mod spans;
mod spawn;
mod stack;
mod stall;
pub mod sync;
mod time;
mod wait;
#[cfg(debug_assertions)]
mod wait_checks;
mod wait_reason;
mod worker;
mod worker_set;
mod worker_task;
mod workers;

pub use blocking::{BlockingError, blocking, blocking_of, blocking_scoped};
pub use channel::{Channel, ChannelError, Closed, GiveError};
pub use current::{current_id, current_name, release_stack};
pub use deadline::{Elapsed, timeout, timeout_at, with_deadline, with_time_limit};
pub use dump::{Dump, FiberReport, FiberState, dump};
pub use dump_process::{DumpOnSignals, ProcessDump, dump_on_signals, dump_process};
pub use event::{FiberEvent, FiberEventKind};
pub use future::{JoinFuture, PollableFuture, TaskWaiter, as_future, block_on};
pub use interrupt::Interrupt;
pub use join::{JoinError, JoinHandle, Joining};
pub use join_set::JoinSet;
pub use locals::FiberLocal;
pub use operation::{Ready, perform, ready, wait_until_ready};
pub use pollable::{Pollable, wait_for};
pub use remote::{Remote, RuntimeEnded};
pub use ringspun_runtime::Signal;
pub use runtime::{
    FiberStatistics, Runtime, RuntimeStatistics, event_loop, remote, run, statistics, statistics_of_process,
};
pub use scope::{Scope, scope};
pub use select::Select;
pub use shared_channel::{SharedChannel, TryGiveError};
pub use signals::{NextSignal, Signals};
pub use spawn::{FiberBuilder, spawn, supervisor};
pub use stall::StalledFiber;
pub use time::{Interval, Timer, after, at, interval, now, sleep, sleep_until};
pub use wait::{
    check, is_fiber, pending_interrupt, runs_on, wait, wait_for_completion, wait_telling, waiter, yield_now,
};
pub use wait_reason::WaitReason;
pub use worker::Worker;
pub use worker_set::{TakeOver, WorkerEvent};
pub use worker_task::{WorkerTask, WorkerTaskFuture};
pub use workers::{Workers, WorkersBuilder};
