//! Signals of the process as something to wait for.
//!
//! ```text
//!   signal ──► handler ──► for each watch that wants it: notes the signal, makes the watch's descriptor readable
//!                └──► nobody wants it: restores the previous action, and raises the signal again
//! ```
//!
//! A handler, and not `signalfd(2)`: that needs the signal blocked in every thread of the process, including those that
//! other code has started, and children inherit the mask.
//!
//! The handler reads a list of watches that only grows: places are reused, and never lose their descriptors, so that it
//! cannot write to a descriptor that has become another file's. In a forked child no watch counts, and the first signal
//! restores the previous action.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;

use crate::process::ProcessMark;
use crate::wake::signal::Signal as Bell;

/// A signal that a program can wait for.
///
/// ```
/// use ringspun_runtime::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::from_number(libc::SIGUSR1).unwrap(), Signal::USR1);
/// let refused = Signal::from_number(libc::SIGKILL).unwrap_err();
/// assert_eq!(refused.to_string(), "SIGKILL cannot be waited for");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(libc::c_int);

impl Signal {
    /// A request to end: what `kill(1)` and service managers send.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Control-C in the terminal.
    pub const INT: Self = Self(libc::SIGINT);
    /// The terminal is gone; to a server, by convention, a request to read its configuration again.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Control-\ in the terminal.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// For the program's own use.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// For the program's own use.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// A child has ended or stopped.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// The size of the terminal has changed.
    pub const WINCH: Self = Self(libc::SIGWINCH);

    /// The signal with this number.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for numbers that are no signal's, for SIGKILL and SIGSTOP, which no process can handle, and for
    /// those that faults raise (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS), whose default action must not wait.
    pub fn from_number(number: i32) -> io::Result<Self> {
        const NEVER: [libc::c_int; 8] = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGSYS,
        ];
        let signal = Self(number);
        let text = if !(1..=i32::try_from(u64::BITS).unwrap_or(i32::MAX)).contains(&number) {
            format!("{number} is not the number of a signal")
        } else if NEVER.contains(&number) {
            format!("{signal} cannot be waited for")
        } else {
            return Ok(signal);
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    /// Its number, such as `libc::SIGTERM`.
    pub fn number(self) -> i32 {
        self.0
    }

    fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// The signals of a set, in the order of their numbers.
    fn all_in(set: u64) -> impl Iterator<Item = Self> {
        (1..=u64::BITS as libc::c_int).map(Self).filter(move |signal| set & signal.bit() != 0)
    }
}

impl fmt::Display for Signal {
    /// Its name, such as `SIGTERM`, or its number for signals that have none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// A list of the watches, which only grows.
static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());
/// By signal: what was done before ours, to be restored. Null, or one of those kept.
static PREVIOUS: [AtomicPtr<Kept>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];
/// By signal: all that was ever done before ours. Lists that only grow, as a handler may read them at any time.
static KEPT: [AtomicPtr<Kept>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];
/// The generation of the process in which a thread changes actions, or 0.
static CHANGING: AtomicUsize = AtomicUsize::new(0);

/// The place is free.
const FREE: usize = 0;
/// The place is being taken.
const TAKEN: usize = usize::MAX;

/// An action to be restored.
struct Kept {
    action: libc::sigaction,
    next: *const Kept,
}

/// A place for a watch in the list.
struct Place {
    /// The generation of the watch's process. In a forked child, the places of its parent count as free.
    generation: AtomicUsize,
    wanted: AtomicU64,
    pending: AtomicU64,
    bell: Bell,
    /// The process that made the bell, which a child shares with its parent.
    bell_of: ProcessMark,
    next: *const Place,
}

// SAFETY: `next` points to a leaked, equally shared place, and changes only before this one is listed.
unsafe impl Sync for Place {}
// SAFETY: likewise.
unsafe impl Send for Place {}

/// Signals that arrive at this process, for one waiter: each watch sees each of its signals.
///
/// While there is a watch for a signal, arrivals take no other action, neither the default one nor that of a handler
/// which was installed before; when the last watch for it is dropped, the previous action is restored. A handler that
/// other code installs meanwhile replaces the watches, and stays.
///
/// It can be used by any thread. In a forked child, it sees nothing, and signals take their previous actions there.
pub struct SignalWatch {
    place: &'static Place,
    process: ProcessMark,
}

impl SignalWatch {
    /// Begins to watch for signals.
    ///
    /// # Errors
    ///
    /// The kernel's, such as too many open files, or a signal that the C library keeps for itself; it is named then.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let process = ProcessMark::new()?;
        let place = match take_free(&process) {
            Some(place) => place,
            None => add(process)?,
        };
        let wanted = signals.iter().fold(0, |set, signal| set | signal.bit());
        place.pending.store(0, Ordering::Relaxed);
        place.bell.clear();
        place.wanted.store(wanted, Ordering::Relaxed);
        place.generation.store(process.generation(), Ordering::SeqCst);
        // Undone by the drop if it fails.
        let watch = Self { place, process };
        changing_actions(process, || Signal::all_in(wanted).try_for_each(install))?;
        Ok(watch)
    }

    /// A descriptor that is readable when a signal may have arrived. It stays open, but is another watch's after this
    /// one has been dropped.
    pub fn descriptor(&self) -> RawFd {
        self.place.bell.descriptor()
    }

    /// Makes the descriptor unreadable until the next arrival, for one who looks for signals now.
    pub fn acknowledge(&self) {
        if self.process.is_current() {
            self.place.bell.clear();
        }
    }

    /// Takes a signal that has arrived; of several, that with the lowest number. Arrivals of the same signal that
    /// nobody has taken count as one, as in the kernel. If others are left, makes the descriptor readable.
    pub fn take(&self) -> Option<Signal> {
        if !self.process.is_current() {
            return None;
        }
        let pending = &self.place.pending;
        let signal = Signal::all_in(pending.load(Ordering::SeqCst)).next()?;
        let taken = signal.bit();
        #[cfg(feature = "mutations")]
        let taken = match crate::mutations::mutated(crate::mutations::Mutation::SignalsSwallowed) {
            true => u64::MAX,
            false => taken,
        };
        let before = pending.fetch_and(!taken, Ordering::SeqCst);
        if before & !signal.bit() != 0 {
            self.place.bell.set();
        }
        // If another thread has taken it, its turn comes with the next arrival.
        (before & signal.bit() != 0).then_some(signal)
    }

    /// Checks that this is the process that watches.
    ///
    /// # Errors
    ///
    /// In a forked child, an error that names the process.
    pub fn check_process(&self) -> io::Result<()> {
        self.process.check()
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        if !self.process.is_current() {
            return;
        }
        let wanted = self.place.wanted.swap(0, Ordering::SeqCst);
        changing_actions(self.process, || {
            Signal::all_in(wanted).filter(|signal| !is_wanted(*signal)).for_each(uninstall);
        });
        self.place.generation.store(FREE, Ordering::Release);
    }
}

impl fmt::Debug for SignalWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = Signal::all_in(self.place.wanted.load(Ordering::Relaxed));
        f.debug_set().entries(wanted.map(|signal| signal.to_string())).finish()
    }
}

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: places are leaked boxes, initialized before they are listed.
    let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    // SAFETY: likewise.
    std::iter::successors(first, |place| unsafe { place.next.as_ref() })
}

/// The watches of this process for a signal.
fn watches_for(signal: Signal) -> impl Iterator<Item = &'static Place> {
    let current = ProcessMark::current_generation();
    places().filter(move |place| {
        let is_watch = current != FREE && place.generation.load(Ordering::SeqCst) == current;
        is_watch && place.wanted.load(Ordering::SeqCst) & signal.bit() != 0
    })
}

fn is_wanted(signal: Signal) -> bool {
    watches_for(signal).next().is_some()
}

fn take_free(process: &ProcessMark) -> Option<&'static Place> {
    places().filter(|place| place.bell_of.is_current()).find(|place| {
        let present = place.generation.load(Ordering::Relaxed);
        let is_free = present != TAKEN && present != process.generation();
        is_free
            && place.generation.compare_exchange(present, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}

fn add(process: ProcessMark) -> io::Result<&'static Place> {
    let place = Place {
        generation: AtomicUsize::new(TAKEN),
        wanted: AtomicU64::new(0),
        pending: AtomicU64::new(0),
        bell: Bell::new()?,
        bell_of: process,
        next: ptr::null(),
    };
    let place = ptr::from_mut(Box::leak(Box::new(place)));
    let mut first = FIRST.load(Ordering::Acquire);
    loop {
        // SAFETY: the place is not shared yet.
        unsafe { (*place).next = first };
        match FIRST.compare_exchange(first, place, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked, and only shared from now on.
            Ok(_) => return Ok(unsafe { &*place }),
            Err(other) => first = other,
        }
    }
}

/// Runs `change` while no other thread of this process changes actions. A thread of a parent that was doing so during
/// the fork is not waited for: a child does not have it.
fn changing_actions<T>(process: ProcessMark, change: impl FnOnce() -> T) -> T {
    let own = process.generation();
    loop {
        let present = CHANGING.load(Ordering::Relaxed);
        if present != own
            && CHANGING.compare_exchange(present, own, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            break;
        }
        // A few system calls of another thread.
        thread::yield_now();
    }
    let changed = change();
    CHANGING.store(FREE, Ordering::Release);
    changed
}

fn previous_of(signal: Signal) -> &'static AtomicPtr<Kept> {
    &PREVIOUS[signal.0 as usize - 1]
}

/// All actions that have been kept for a signal.
fn kept_for(signal: Signal) -> impl Iterator<Item = &'static Kept> {
    // SAFETY: leaked boxes, which never change.
    let first = unsafe { KEPT[signal.0 as usize - 1].load(Ordering::Acquire).as_ref() };
    // SAFETY: likewise.
    std::iter::successors(first, |kept| unsafe { kept.next.as_ref() })
}

/// Replaces the action of a signal; null for `new` leaves it as it is. Async-signal-safe.
fn exchange_action(signal: Signal, new: *const libc::sigaction) -> Result<libc::sigaction, Errno> {
    // SAFETY: the structures are valid, and the handler is async-signal-safe.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        match libc::sigaction(signal.0, new, &raw mut present) {
            0 => Ok(present),
            _ => Err(Errno::last()),
        }
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

fn our_action() -> libc::sigaction {
    // SAFETY: zeroed is valid, and then filled in. The alternate stack, because fibers have small stacks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        action
    }
}

/// Installs our handler for a signal, unless it is.
fn install(signal: Signal) -> io::Result<()> {
    let refused = |errno: Errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{signal} cannot be waited for: {error}"))
    };
    let present = exchange_action(signal, ptr::null()).map_err(refused)?;
    if is_ours(&present) {
        return Ok(());
    }
    keep_previous(signal, present);
    exchange_action(signal, &our_action()).map_err(refused).map(drop)
}

/// Keeps an action to be restored. A program has few different ones.
fn keep_previous(signal: Signal, action: libc::sigaction) {
    let is_same = |kept: &&Kept| {
        let kept = &kept.action;
        kept.sa_sigaction == action.sa_sigaction
            && kept.sa_flags == action.sa_flags
            && same_mask(kept, &action)
    };
    let kept = match kept_for(signal).find(is_same) {
        Some(known) => ptr::from_ref(known).cast_mut(),
        None => {
            let list = &KEPT[signal.0 as usize - 1];
            let added = Box::into_raw(Box::new(Kept { action, next: list.load(Ordering::Acquire) }));
            list.store(added, Ordering::Release);
            added
        }
    };
    previous_of(signal).store(kept, Ordering::Release);
}

fn same_mask(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    Signal::all_in(u64::MAX).all(|signal| {
        // SAFETY: valid sets; a number that is no signal's is in neither.
        unsafe {
            libc::sigismember(&raw const one.sa_mask, signal.0)
                == libc::sigismember(&raw const other.sa_mask, signal.0)
        }
    })
}

/// Restores the previous action of a signal, unless other code has replaced ours.
fn uninstall(signal: Signal) {
    let is_restored = restore(signal);
    #[cfg(target_os = "linux")]
    if is_restored {
        // Rings that were made meanwhile found our handler, and did not install theirs.
        crate::sys::cancel_at_termination_by(signal.0);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = is_restored;
}

/// As [`uninstall`], async-signal-safe; true if it has restored one.
fn restore(signal: Signal) -> bool {
    // SAFETY: null, or a leaked box, which never changes.
    let previous = unsafe { previous_of(signal).load(Ordering::Acquire).as_ref() };
    let is_installed = exchange_action(signal, ptr::null()).is_ok_and(|present| is_ours(&present));
    previous.is_some_and(|kept| is_installed && exchange_action(signal, &kept.action).is_ok())
}

extern "C" fn on_signal(number: libc::c_int) {
    let errno = Errno::last_raw();
    let signal = Signal(number);
    if !note(signal) {
        // The last watch has just been dropped, or this is a forked child.
        restore(signal);
        if note(signal) {
            // A watch that was made meanwhile may have found our handler still installed.
            let _ = exchange_action(signal, &our_action());
        } else {
            // SAFETY: touches no memory. The signal is blocked until the handler returns, and then takes its action.
            unsafe { libc::raise(number) };
        }
    }
    Errno::set_raw(errno);
}

/// Whether this is the descriptor of a watch, there now or before.
#[cfg(feature = "simulation")]
pub(crate) fn is_bell(descriptor: RawFd) -> bool {
    places().any(|place| place.bell.descriptor() == descriptor)
}

/// Notes a signal for each watch that wants it; false if none does.
pub(crate) fn note(signal: Signal) -> bool {
    let mut is_wanted = false;
    for place in watches_for(signal) {
        is_wanted = true;
        place.pending.fetch_or(signal.bit(), Ordering::SeqCst);
        place.bell.set();
    }
    is_wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_that_take_turns_are_kept_once_each() {
        // Is ignored by default, and nobody else here uses it.
        let signal = Signal::from_number(libc::SIGURG).unwrap();
        let (mut ignored, mut default) = (our_action(), our_action());
        (ignored.sa_sigaction, default.sa_sigaction) = (libc::SIG_IGN, libc::SIG_DFL);
        for round in 0..100 {
            let before = if round % 2 == 0 { ignored } else { default };
            exchange_action(signal, &before).unwrap();
            drop(SignalWatch::new(&[signal]).unwrap());
            let restored = exchange_action(signal, ptr::null()).unwrap();
            assert_eq!(restored.sa_sigaction, before.sa_sigaction, "round {round}");
        }
        assert_eq!(kept_for(signal).count(), 2);
    }
}
