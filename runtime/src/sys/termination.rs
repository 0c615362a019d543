//! Cancels operations in flight before the process ends, so that its sockets close.
//!
//! When a process ends, a kernel worker tears down its ring. Until that worker has cancelled the operations in flight,
//! which takes 1 to 14 ms, the sockets stay open although the process has been waited for: a port accepts connections
//! that nobody serves, datagrams to a port that another process shares are lost, peers see no end of their connections.
//! So all operations are cancelled (`IORING_REGISTER_SYNC_CANCEL` in `io_uring_register(2)`, Linux 6.0) before a signal
//! ends the process by its default action, and in `exit(3)`:
//!
//! ```text
//!   signal ──► handler ──┬──► submits what is queued on the rings of this thread, and cancels
//!                        ├──► signals the other threads that have rings to do the same, and waits for them
//!                        └──► restores the default action and raises the signal again, which ends the process
//! ```
//!
//! Only for signals that have their default action when the first ring is made; a handler that is installed later
//! replaces ours, which does nothing if that one calls it. Everything that the handler calls is async-signal-safe,
//! and otherwise it only returns in a thread that another one, which is exiting, has had cancel. Not for SIGKILL, and
//! not for faults, after which nothing of the process can be relied on.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use crate::process::ProcessMark;

/// Those that end a process by default, and are no faults (`signal(7)`). Realtime signals are, too: see [`signals`].
const SIGNALS: [libc::c_int; 16] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];
/// How long to wait for other threads to cancel on their rings: microseconds, unless they have blocked the signal.
const PATIENCE_MS: usize = 200;
/// The same at an exit, and how long they then do nothing, lest they use their rings again before the process is gone.
/// What has to run at the exit may need a lock that such a thread holds.
const EXIT_PATIENCE_MS: usize = 20;
const EXIT_PAUSE_MS: libc::c_int = 50;
/// How many times to cancel on a ring, as operations may move between the places in the kernel that a cancel searches.
const ROUNDS: usize = 8;

/// A list of the registered rings, which only grows: places are reused.
static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());
/// The ID of the process that a signal is ending. A forked child inherits the value, which is not its own ID.
static ENDING: AtomicI32 = AtomicI32::new(0);

/// The ID of the process that is exiting, the thread that does, and the signal by which it has others cancel.
static EXITING: AtomicI32 = AtomicI32::new(0);
static EXITING_THREAD: AtomicI32 = AtomicI32::new(0);
static EXIT_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether the handlers have been installed.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The place is free.
const FREE: usize = 0;
/// The place is being taken.
const TAKEN: usize = usize::MAX;

/// A place for a ring in the list, which a signal handler may read at any time.
struct Place {
    /// The generation of the ring's process. In a forked child, a place of the parent's generation counts as free.
    generation: AtomicUsize,
    ring: AtomicI32,
    /// The only thread that may use the ring.
    thread: AtomicI32,
    next: *const Place,
}

// SAFETY: `next` points to a leaked, equally shared place, and changes only before this one is listed.
unsafe impl Sync for Place {}

/// Keeps a ring registered until it is dropped, which must be before the ring is closed.
pub(super) struct Registration {
    place: &'static Place,
    process: ProcessMark,
}

impl Registration {
    /// Registers a ring of this thread.
    pub(super) fn new(ring: RawFd, process: ProcessMark) -> Self {
        install();
        let place = take_free(&process).unwrap_or_else(add);
        place.ring.store(ring, Ordering::Relaxed);
        place.thread.store(thread_id(), Ordering::Relaxed);
        place.generation.store(process.generation(), Ordering::Release);
        Self { place, process }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (own, free) = (self.process.generation(), FREE);
        // In a forked child, the place may have been taken for a ring of the child's own.
        let _ = self.place.generation.compare_exchange(own, free, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// All signals that end a process by default, but for SIGKILL and faults.
fn signals() -> impl Iterator<Item = libc::c_int> {
    SIGNALS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: places are leaked boxes, initialized before they are listed.
    let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    // SAFETY: likewise.
    std::iter::successors(first, |place| unsafe { place.next.as_ref() })
}

/// The registered rings of this process; none in a forked child that has made none.
fn registered() -> impl Iterator<Item = &'static Place> {
    let current = ProcessMark::current_generation();
    places().filter(move |place| current != FREE && place.generation.load(Ordering::Acquire) == current)
}

fn take_free(process: &ProcessMark) -> Option<&'static Place> {
    places().find(|place| {
        let present = place.generation.load(Ordering::Relaxed);
        // In a forked child, a place that a thread of the parent was taking stays taken.
        let is_free = present != TAKEN && present != process.generation();
        is_free
            && place.generation.compare_exchange(present, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}

fn add() -> &'static Place {
    let place = Box::leak(Box::new(Place {
        generation: AtomicUsize::new(TAKEN),
        ring: AtomicI32::new(-1),
        thread: AtomicI32::new(0),
        next: ptr::null(),
    }));
    let place = ptr::from_mut(place);
    let mut first = FIRST.load(Ordering::Acquire);
    loop {
        // SAFETY: the place is not shared yet.
        unsafe { (*place).next = first };
        match FIRST.compare_exchange(first, place, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked, and only shared from now on.
            Ok(_) => return unsafe { &*place },
            Err(other) => first = other,
        }
    }
}

/// Installs the handlers once. Does not wait for another thread that is installing them: a child forked meanwhile would
/// wait forever.
fn install() {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the handler only uses memory that is never freed. If it cannot be installed, the kernel's worker remains.
    unsafe { libc::atexit(at_exit) };
    // The first process of a container has no default actions, and survives these signals.
    if std::process::id() != 1 {
        signals().for_each(install_for);
    }
}

/// Installs the handler for a signal whose default action has been restored, if rings are to be cancelled by it.
pub(crate) fn cancel_at_termination_by(signal: libc::c_int) {
    if signals().any(|other| other == signal) && INSTALLED.load(Ordering::Acquire) && std::process::id() != 1
    {
        install_for(signal);
    }
}

fn install_for(signal: libc::c_int) {
    // SAFETY: the structures are valid, and the handler is async-signal-safe. It uses the alternate stack because
    // fibers have small stacks.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        let known = libc::sigaction(signal, ptr::null(), &raw mut present) == 0;
        if !known || present.sa_sigaction != libc::SIG_DFL {
            return;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        for other in signals() {
            libc::sigaddset(&raw mut action.sa_mask, other);
        }
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// Cancels on all rings of the process, which is about to exit.
pub(super) extern "C" fn at_exit() {
    // SAFETY: touches no memory.
    let process = unsafe { libc::getpid() };
    if let Some(signal) = signals().find(|signal| is_ours(*signal)) {
        EXIT_SIGNAL.store(signal, Ordering::Relaxed);
        EXITING_THREAD.store(thread_id(), Ordering::Relaxed);
        EXITING.store(process, Ordering::Release);
        signal_others(process, signal);
    }
    cancel_own();
    wait_for_others(EXIT_PATIENCE_MS);
}

fn is_ours(signal: libc::c_int) -> bool {
    // SAFETY: the structure is valid.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        let known = libc::sigaction(signal, ptr::null(), &raw mut present) == 0;
        known && present.sa_sigaction == on_signal as *const () as usize
    }
}

/// The rings of other threads.
fn others() -> impl Iterator<Item = &'static Place> {
    let own = thread_id();
    registered().filter(move |place| place.thread.load(Ordering::Relaxed) != own)
}

/// Has the other threads that have rings run `on_signal`.
fn signal_others(process: libc::pid_t, signal: libc::c_int) {
    for place in others() {
        let thread = place.thread.load(Ordering::Relaxed);
        // SAFETY: touches no memory. A thread that has ended has no ring.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
}

fn wait_for_others(patience_ms: usize) {
    for _ in 0..patience_ms {
        if others().next().is_none() {
            break;
        }
        sleep(1);
    }
}

fn sleep(time_ms: libc::c_int) {
    // SAFETY: polls no descriptors, so it only sleeps.
    unsafe { libc::poll(ptr::null_mut(), 0, time_ms) };
}

/// Ends the process by this signal once its rings have nothing in flight.
extern "C" fn on_signal(signal: libc::c_int) {
    if !is_ours(signal) {
        // The handler that has replaced this one calls what was there before.
        return;
    }
    // SAFETY: touches no memory.
    let process = unsafe { libc::getpid() };
    if EXITING.load(Ordering::Acquire) == process {
        if !is_sent_by_exit(signal) {
            // What remains of the exit has raised it, such as the last write of a full buffer, or another process.
            cancel_own();
            end_by(signal);
        }
        // SAFETY: errno's location is valid for this thread.
        let errno = unsafe { *libc::__errno_location() };
        cancel_own();
        sleep(EXIT_PAUSE_MS);
        // SAFETY: likewise.
        unsafe { *libc::__errno_location() = errno };
        return;
    }
    if ENDING.swap(process, Ordering::AcqRel) == process {
        // Another thread is ending the process, and may have signalled this one to cancel.
        cancel_own();
        loop {
            // SAFETY: touches no memory.
            unsafe { libc::pause() };
        }
    }
    signal_others(process, signal);
    cancel_own();
    wait_for_others(PATIENCE_MS);
    end_by(signal)
}

fn is_sent_by_exit(signal: libc::c_int) -> bool {
    signal == EXIT_SIGNAL.load(Ordering::Relaxed) && thread_id() != EXITING_THREAD.load(Ordering::Relaxed)
}

/// Ends the process by the default action of a signal.
fn end_by(signal: libc::c_int) -> ! {
    loop {
        // SAFETY: the structures are valid.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut blocked);
            libc::sigaddset(&raw mut blocked, signal);
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const blocked, ptr::null_mut());
        }
    }
}

/// Submits what the rings of this thread have queued, cancels everything in flight, and unregisters them.
fn cancel_own() {
    let own = thread_id();
    for place in registered().filter(|place| place.thread.load(Ordering::Relaxed) == own) {
        let ring = place.ring.load(Ordering::Relaxed);
        submit_all(ring);
        cancel_all(ring);
        // The thread that ends the process waits for this.
        place.generation.store(FREE, Ordering::Release);
    }
}

/// `struct io_uring_sync_cancel_reg` of `io_uring_register(2)`.
#[repr(C)]
struct SyncCancel {
    user_data: u64,
    descriptor: i32,
    flags: u32,
    timeout_seconds: i64,
    timeout_nanoseconds: i64,
    operation_and_padding: [u64; 4],
}

/// Submits the entries of the queue, among them messages of writes that have returned. An entry that the interrupted
/// thread was just adding is not in the queue yet.
fn submit_all(ring: RawFd) {
    let (all, none, no_mask, no_size): (_, libc::c_uint, *const libc::c_void, usize) =
        (libc::c_uint::MAX, 0, ptr::null(), 0);
    // SAFETY: passes no pointers. What the entries of the queue refer to lives until the process ends.
    unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, all, none, none, no_mask, no_size) };
}

fn cancel_all(ring: RawFd) {
    /// These values are from Linux's `io_uring.h`.
    const REGISTER_SYNC_CANCEL: libc::c_uint = 24;
    const CANCEL_ALL: u32 = 1 << 0;
    const CANCEL_ANY: u32 = 1 << 2;
    const ENTER_GETEVENTS: libc::c_uint = 1 << 0;
    let request = SyncCancel {
        user_data: 0,
        descriptor: -1,
        flags: CANCEL_ALL | CANCEL_ANY,
        timeout_seconds: 0,
        timeout_nanoseconds: 10_000_000,
        operation_and_padding: [0; 4],
    };
    for _ in 0..ROUNDS {
        // SAFETY: the request has the kernel's layout and size. The second call runs the task work of cancelled
        // operations in this thread, and passes no pointers.
        let (cancelled, errno) = unsafe {
            let count: libc::c_uint = 1;
            let cancelled = libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                REGISTER_SYNC_CANCEL,
                &raw const request,
                count,
            );
            let errno = *libc::__errno_location();
            let (none, no_mask, no_size): (libc::c_uint, *const libc::c_void, usize) = (0, ptr::null(), 0);
            libc::syscall(libc::SYS_io_uring_enter, ring, none, none, ENTER_GETEVENTS, no_mask, no_size);
            (cancelled, errno)
        };
        // Nothing is left, or the kernel does not support it.
        if cancelled < 0 && errno != libc::ETIME && errno != libc::EALREADY {
            return;
        }
    }
}

fn thread_id() -> i32 {
    // SAFETY: touches no memory. Not by `gettid(3)`, which old C libraries lack.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}
