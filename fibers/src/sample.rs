//! The stack of a fiber while it runs, taken from another thread: by a signal whose handler notes return addresses.
//!
//! ```text
//!   watch ──► asks ──► tgkill(2) ──► handler on the thread: claims the question, notes the fiber and its stack
//!     ▲                                                                                       │
//!     └──────────────────────── takes the answer, or gives up ◄───────────────────────────────┘
//! ```
//!
//! The signal is SIGURG: nothing happens if it comes when there is no handler, and the handler passes on those that
//! were sent by others. It allocates nothing and takes no lock; the unwinder takes none on glibc 2.35 and later.

use std::cell::{RefCell, UnsafeCell};
use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_void, siginfo_t};

use crate::backtrace::{FRAMES_MAX, addresses_above};
use crate::current::with_running;

const SIGNAL: c_int = libc::SIGURG;
/// The unwinder and the frame of the signal need some 12 KiB, with large registers; the alternate stacks of the
/// standard library have as little as 8.
const SIGNAL_STACK_SIZE_BYTES: usize = 64 * 1024;
/// How long a thread may take to answer: it may get no processor for a while.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Longer names are cut.
const NAME_MAX_BYTES: usize = 64;

/// What a thread runs: the number and the name of its fiber, and the addresses on its stack, the innermost first.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) fiber: u64,
    name: [u8; NAME_MAX_BYTES],
    name_length: usize,
    addresses: [usize; FRAMES_MAX],
    count: usize,
}

impl Sample {
    pub(crate) fn name(&self) -> Option<Box<str>> {
        let name = String::from_utf8_lossy(&self.name[..self.name_length]);
        (self.name_length > 0).then(|| name.into())
    }

    pub(crate) fn addresses(&self) -> &[usize] {
        &self.addresses[..self.count]
    }
}

/// Nobody asks.
const IDLE: u32 = 0;
/// A thread is asked, and has not begun to answer.
const ASKED: u32 = 1;
/// It answers.
const ANSWERING: u32 = 2;
/// It has answered that it runs no fiber.
const WITHOUT: u32 = 3;
/// It has answered.
const ANSWERED: u32 = 4;

/// The one question at a time, and its answer.
struct Question {
    state: AtomicU32,
    /// The number of the thread that is asked.
    thread: AtomicI32,
    /// Belongs to the handler while it answers, then to who asked.
    answer: UnsafeCell<Sample>,
}

// SAFETY: the state says whose the answer is.
unsafe impl Sync for Question {}

static QUESTION: Question = Question {
    state: AtomicU32::new(IDLE),
    thread: AtomicI32::new(0),
    answer: UnsafeCell::new(Sample {
        fiber: 0,
        name: [0; NAME_MAX_BYTES],
        name_length: 0,
        addresses: [0; FRAMES_MAX],
        count: 0,
    }),
};
/// The action before ours. Null, or leaked, as the handler may read it at any time.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// Prepares this thread to be asked. Returns its number.
pub(crate) fn prepare_thread() -> io::Result<i32> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is async-signal-safe; both structures are valid for the call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            let mut old: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(SIGNAL, &raw const action, &raw mut old) == 0 {
                PREVIOUS.store(Box::into_raw(Box::new(old)), Ordering::Release);
            }
        }
    });
    SIGNAL_STACK.with_borrow_mut(|stack| match stack {
        Some(_) => Ok(()),
        None => SignalStack::install().map(|installed| *stack = Some(installed)),
    })?;
    // SAFETY: no preconditions.
    Ok(unsafe { libc::gettid() })
}

thread_local!(static SIGNAL_STACK: RefCell<Option<SignalStack>> = const { RefCell::new(None) });

/// Memory for the handlers of this thread.
struct SignalStack(Box<[u8]>);

impl SignalStack {
    fn install() -> io::Result<Self> {
        let mut memory = vec![0; SIGNAL_STACK_SIZE_BYTES].into_boxed_slice();
        let stack = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: SIGNAL_STACK_SIZE_BYTES,
        };
        // SAFETY: the structure is valid, and the memory stays until the drop, on the same thread.
        match unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } {
            0 => Ok(Self(memory)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: zeroed is valid; the structures are valid for the calls.
        let is_gone = unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            let is_known = libc::sigaltstack(std::ptr::null(), &raw mut stack) == 0;
            let is_other = is_known && !std::ptr::eq(stack.ss_sp.cast(), self.0.as_ptr());
            stack.ss_flags = libc::SS_DISABLE;
            is_other || (is_known && libc::sigaltstack(&raw const stack, std::ptr::null_mut()) == 0)
        };
        if !is_gone {
            std::mem::forget(std::mem::take(&mut self.0));
        }
    }
}

/// What a thread of this process runs now; `None` if it runs no fiber, or has not answered.
pub(crate) fn take(thread: i32) -> Option<Sample> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    QUESTION.thread.store(thread, Ordering::Relaxed);
    QUESTION.state.store(ASKED, Ordering::Release);
    // SAFETY: a signal that is handled, or ignored; to a thread of this process, or none.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) } == 0;
    let end = Instant::now() + PATIENCE;
    loop {
        match QUESTION.state.load(Ordering::Acquire) {
            // What the handler has claimed, it soon answers.
            ASKED if !sent || Instant::now() > end => {
                let withdrawn =
                    QUESTION.state.compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
                if withdrawn.is_ok() {
                    return None;
                }
            }
            ASKED | ANSWERING => thread::sleep(LOOK_EVERY),
            state => {
                // SAFETY: answered, so that the handler does not touch it any more.
                let answer = (state == ANSWERED).then(|| unsafe { (*QUESTION.answer.get()).clone() });
                QUESTION.state.store(IDLE, Ordering::Relaxed);
                return answer;
            }
        }
    }
}

extern "C" fn on_signal(signal: c_int, information: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: no preconditions.
    let is_asked = QUESTION.thread.load(Ordering::Relaxed) == unsafe { libc::gettid() };
    let claim = || QUESTION.state.compare_exchange(ASKED, ANSWERING, Ordering::Acquire, Ordering::Relaxed);
    if !is_asked || claim().is_err() {
        pass_on(signal, information, context);
        return;
    }
    let errno = nix::errno::Errno::last_raw();
    let state = with_running(|fiber| {
        let Some(fiber) = fiber else { return WITHOUT };
        // SAFETY: claimed.
        let answer = unsafe { &mut *QUESTION.answer.get() };
        let (id, name) = fiber.identity();
        let name = name.unwrap_or_default().as_bytes();
        answer.fiber = id;
        answer.name_length = name.len().min(NAME_MAX_BYTES);
        answer.name[..answer.name_length].copy_from_slice(&name[..answer.name_length]);
        let stack = fiber.guard().end..fiber.guard().end + fiber.stack_size_bytes();
        answer.count = addresses_above(stack, &mut answer.addresses);
        ANSWERED
    });
    QUESTION.state.store(state, Ordering::Release);
    nix::errno::Errno::set_raw(errno);
}

/// Has the action before ours handle a signal that is not for us.
fn pass_on(signal: c_int, information: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: null, or leaked and never changed.
    let Some(previous) = (unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() }) else { return };
    // By default, it is ignored.
    if [libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction) {
        return;
    }
    // SAFETY: a handler of this form, by its flags, which was installed for this signal.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                std::mem::transmute(previous.sa_sigaction);
            handler(signal, information, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(previous.sa_sigaction);
            handler(signal);
        }
    }
}
