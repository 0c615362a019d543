//! Stackful fibers on the event loop of Ringspun.
//!
//! A fiber is straight-line code with a stack of its own. Where a thread would block, it *parks*: the
//! thread runs other fibers until what the fiber waits for has happened. The vocabulary is that of Janet's
//! `ev/` module:
//!
//! | to | in Rust | in Janet |
//! | --- | --- | --- |
//! | start a fiber | [`spawn`], [`FiberBuilder`] | `ev/go`, `ev/spawn` |
//! | wait for its result | [`JoinHandle::join`] | |
//! | interrupt its wait | [`JoinHandle::cancel`] | `ev/cancel` |
//! | wait | [`sleep`] | `ev/sleep` |
//! | limit how long a block waits | [`with_deadline`] | `ev/with-deadline` |
//! | pass values between fibers | [`Channel`] | `ev/chan`, `ev/give`, `ev/take` |
//! | wait for the first of several | [`Select`] | `ev/select`, `ev/rselect` |
//! | be told how fibers end | [`FiberBuilder::supervisor`] | `ev/go` |
//! | send the supervisor a message | [`FiberEvent::message`] | `ev/give-supervisor` |
//! | make a call that blocks | [`blocking`] | `ev/thread` |
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
//!   runtime                      Runtime::run, statistics, and what else is asked of the thread's runtime
//!   worker_task                  fibers of another thread's runtime, and their results
//!   spawn                        FiberBuilder
//!   shared_select                selections with channels between threads
//!   shared_channel               channels between threads, on
//!   remote_waiter shared_queue   wakes of fibers from any thread; who waits for a channel, and whom a change wakes
//!   scheduler                    runs the ready fibers, turns the event loop, ends what is left
//!   remote   join   blocking     tasks of other threads; results of fibers; calls that block
//!            event  select       what supervisors are told; the first of several channel operations
//!                   channel
//!   overflow wait                the message of a stack overflow; the only way to park
//!   current                      which fiber runs
//!   fiber                        coroutine, state, and the queue that a wake puts a fiber into
//!   stack    interrupt           memory with guards; why a wait ended early
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
//! # Soundness
//!
//! A fiber may lend memory on its stack to the kernel, because it cannot resume, unwind or be freed
//! before the kernel is done: handles are `!Send`, what a fiber runs is `'static`, and a parked fiber is never
//! dropped. What a fiber holds may be `!Send`, so fibers never change threads:
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
//! | entered contexts | `tracing`'s `Span::enter`, `opentelemetry`'s `Context::attach`, `sentry` scopes, `tokio`'s `Handle::enter` | wrong results: an event stands in another fiber's span, a context is restored that is over |
//! | locks of the standard library and of `parking_lot` | a `MutexGuard`, `RwLock` guard or `ReentrantLock` that is held across a wait | a fiber that needs the lock blocks the thread, and so the fiber that would release it: a deadlock; a re-entrant lock lets every fiber of the thread in |
//! | lazy initialisation | `LazyLock`, `OnceLock::get_or_init`, `thread_local!` initialisers that wait | a deadlock, or a panic about re-entrance |
//! | borrows | a `RefCell` guard, or a thread-local `with` closure, that is held across a wait | a panic in the fiber that borrows next |
//!
//! The remedy is the same for all: do what needs the scope between two waits, or clone what is in it first. A thread
//! runs one fiber at a time between waits, so a scope without a wait inside behaves as on a thread of its own.
//! Where C code itself must be suspended in the middle, give each call a thread: [`blocking`].
//!
//! ## Forked children
//!
//! See [`Runtime::run`]: in the child, only the fiber that forked continues.

mod affinity;
mod blocking;
mod channel;
mod current;
mod event;
mod fiber;
mod interrupt;
mod join;
mod overflow;
mod remote;
mod remote_waiter;
mod runtime;
mod scheduler;
mod select;
mod shared_channel;
mod shared_queue;
mod shared_select;
mod spawn;
mod stack;
mod wait;
mod worker_task;
mod workers;

pub use blocking::{BlockingError, blocking};
pub use channel::{Channel, ChannelError, Closed, GiveError};
pub use event::{FiberEvent, FiberEventKind};
pub use interrupt::Interrupt;
pub use join::{JoinError, JoinHandle};
pub use remote::{Remote, RuntimeEnded};
pub use runtime::{FiberStatistics, Runtime, event_loop, remote, run, statistics};
pub use select::Select;
pub use shared_channel::{SharedChannel, TryGiveError};
pub use spawn::{FiberBuilder, spawn, supervisor};
pub use wait::{
    check, is_fiber, pending_interrupt, runs_on, sleep, wait, wait_for_completion, waiter, with_deadline,
    yield_now,
};
pub use worker_task::WorkerTask;
pub use workers::{Worker, Workers, WorkersBuilder};
