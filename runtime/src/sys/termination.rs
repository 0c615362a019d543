//! Lets go of the rings' sockets before the process ends.
//!
//! The kernel leaves the ring of a process that ends to a worker of its own. Until that has cancelled what is in
//! flight, which takes 1 to 14 ms, the sockets stay open although the process has been waited for: a port accepts
//! connections that nobody serves, datagrams of a port that another process shares are lost, peers see no end. So
//! whatever is in flight is cancelled (`IORING_REGISTER_SYNC_CANCEL` in `io_uring_register(2)`, Linux 6.0) before
//! SIGTERM, SIGINT or SIGHUP take their default action, and at an `exit(3)`:
//!
//! ```text
//!   signal ──► handler ──┬──► cancels on the rings of this thread
//!                        ├──► has the other threads that have rings do the same, and waits until they have
//!                        └──► default action, signal again: the process ends by it, as if there were no handler
//! ```
//!
//! Only where such a signal has its default action when the first ring is made; a handler that is installed later
//! replaces ours. Everything that the handler calls is async-signal-safe, and it never returns.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use crate::process::ProcessMark;

const SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// How long to wait for other threads to cancel on their rings: microseconds, unless they have blocked the signal.
const PATIENCE_MS: usize = 200;
/// How often a ring is gone through, as what is cancelled at one place may be on its way to another.
const ROUNDS: usize = 8;

/// The registered rings, in a list that only grows: places are taken again.
static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());
/// The process that a signal ends. The child of a fork inherits the number, which is not its own.
static ENDING: AtomicI32 = AtomicI32::new(0);

/// Nobody has the place.
const FREE: usize = 0;
/// The place is being taken.
const TAKEN: usize = usize::MAX;

/// A place for a ring in the list, readable at any instruction.
struct Place {
    /// The generation of the process whose ring it is. In a forked child, that of its parent means that it is free.
    generation: AtomicUsize,
    ring: AtomicI32,
    /// The only one that may use the ring.
    thread: AtomicI32,
    next: *const Place,
}

// SAFETY: what `next` refers to lives for ever and is shared as this is; it changes only before the place is listed.
unsafe impl Sync for Place {}

/// Keeps a ring registered until it is dropped, which has to be before the ring is closed.
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

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: places are leaked boxes, and complete before they are listed.
    let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    // SAFETY: likewise.
    std::iter::successors(first, |place| unsafe { place.next.as_ref() })
}

/// The registered rings of this process, each with its thread. None in a forked child that has made none.
fn registered() -> impl Iterator<Item = &'static Place> {
    let current = ProcessMark::current_generation();
    places().filter(move |place| current != FREE && place.generation.load(Ordering::Acquire) == current)
}

fn take_free(process: &ProcessMark) -> Option<&'static Place> {
    places().find(|place| {
        let present = place.generation.load(Ordering::Relaxed);
        // A thread that was taking one when its process forked has lost it for the child.
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
        // SAFETY: nobody else knows of the place yet.
        unsafe { (*place).next = first };
        match FIRST.compare_exchange(first, place, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked; from now on it is only shared.
            Ok(_) => return unsafe { &*place },
            Err(other) => first = other,
        }
    }
}

/// Installs the handlers, once. Nobody waits until they are: a child that is forked meanwhile would wait for ever.
fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the handler only uses what is never freed. Without memory for it, the kernel's worker has to do.
    unsafe { libc::atexit(at_exit) };
    // The first process of a container has no default action, and survives these signals.
    if std::process::id() != 1 {
        SIGNALS.iter().for_each(|signal| install_for(*signal));
    }
}

fn install_for(signal: libc::c_int) {
    // SAFETY: the structures are valid for the calls, and the handler is async-signal-safe. The alternate stack is for
    // fibers, whose stacks are small.
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
        for other in SIGNALS {
            libc::sigaddset(&raw mut action.sa_mask, other);
        }
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

extern "C" fn at_exit() {
    cancel_own();
}

/// Ends the process by this signal, once nothing is in flight on its rings.
extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: touches no memory.
    let process = unsafe { libc::getpid() };
    if ENDING.swap(process, Ordering::AcqRel) == process {
        // Another thread has the process end, or had this one take part.
        cancel_own();
        loop {
            // SAFETY: touches no memory.
            unsafe { libc::pause() };
        }
    }
    let own = thread_id();
    let others = || registered().filter(|place| place.thread.load(Ordering::Relaxed) != own);
    for place in others() {
        let thread = place.thread.load(Ordering::Relaxed);
        // SAFETY: touches no memory. A thread that is gone has no ring any more.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
    cancel_own();
    for _ in 0..PATIENCE_MS {
        if others().next().is_none() {
            break;
        }
        // SAFETY: looks at no descriptors, and so only waits.
        unsafe { libc::poll(ptr::null_mut(), 0, 1) };
    }
    end_by(signal)
}

/// Has the default action of a signal end the process.
fn end_by(signal: libc::c_int) -> ! {
    loop {
        // SAFETY: the structures are valid for the calls.
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

/// Cancels what is in flight on the rings of this thread, which are of no use from then on.
fn cancel_own() {
    let own = thread_id();
    for place in registered().filter(|place| place.thread.load(Ordering::Relaxed) == own) {
        cancel_all(place.ring.load(Ordering::Relaxed));
        // For those who wait for it.
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

fn cancel_all(ring: RawFd) {
    /// As in Linux's `io_uring.h`, like the two below.
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
        // SAFETY: the request is as long as the kernel takes it. The second call lets what was cancelled end in this
        // thread, and gives the kernel nothing to read.
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
        // There is nothing any more, or the kernel cannot.
        if cancelled < 0 && errno != libc::ETIME && errno != libc::EALREADY {
            return;
        }
    }
}

fn thread_id() -> i32 {
    // SAFETY: touches no memory; the C library may be older than its function for this.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}
