//! The process that a loop belongs to: a child of `fork(2)` gets a copy of everything, and owns none of it.
//!
//! Rings, epoll instances and sockets are shared with the parent: anything that a child did to them would affect the
//! parent. So all code that could touch one first checks a word in memory, which is the generation of the process, and
//! 0 in a new child:
//!
//! ```text
//!   Linux 4.14     the word is in a page that the kernel zeroes in each child (MADV_WIPEONFORK in madvise(2)),
//!                  even if the child was made by clone(2) without the C library
//!   elsewhere      a handler of pthread_atfork(3) zeroes it
//! ```
//!
//! A child that shares its parent's memory, as that of `vfork(2)`, may only call `execve(2)` or `_exit(2)` anyway.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The word that is zeroed in children; null until the first mark is made. Neither this nor the generations use a
/// lock, which another thread could hold during a fork.
static WORD: AtomicPtr<AtomicUsize> = AtomicPtr::new(ptr::null_mut());
/// Inherited by children, so that their generation differs from those of all ancestors.
static LAST_GENERATION: AtomicUsize = AtomicUsize::new(0);
/// The generation of a closed gate, which no process has.
const CLOSED: usize = usize::MAX;

/// Distinguishes the process in which it was made from children forked from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessMark {
    word: &'static AtomicUsize,
    generation: usize,
    process_id: u32,
}

impl ProcessMark {
    /// A mark of this process. Fails if there is no memory.
    pub(crate) fn new() -> io::Result<Self> {
        let word = word()?;
        Ok(Self { word, generation: generation(word), process_id: std::process::id() })
    }

    /// The generation of the process in which it was made.
    pub(crate) fn generation(&self) -> usize {
        self.generation
    }

    /// The generation of this process; 0 if no mark has been made in it. Async-signal-safe.
    pub(crate) fn current_generation() -> usize {
        // SAFETY: null, or from a `'static` reference.
        let word = unsafe { WORD.load(Ordering::Acquire).as_ref() };
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Whether this is the process in which the mark was made: a load and a comparison. Async-signal-safe.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.word.load(Ordering::Relaxed) == self.generation
    }

    /// Fails in any other process, with an error that names this one.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_current() { Ok(()) } else { Err(self.foreign()) }
    }

    #[cold]
    fn foreign(&self) -> io::Error {
        let text = format!(
            "this event loop belongs to process {}; a forked child must make its own",
            self.process_id
        );
        io::Error::other(text)
    }
}

/// Whether a loop accepts work: it has not been shut down, and this is its process. A single comparison checks both.
#[derive(Debug)]
pub(crate) struct Gate {
    process: ProcessMark,
    open_in: Cell<usize>,
}

impl Gate {
    pub(crate) fn new(process: ProcessMark) -> Self {
        Self { process, open_in: Cell::new(process.generation) }
    }

    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.process.word.load(Ordering::Relaxed) == self.open_in.get()
    }

    /// Closes the gate permanently.
    pub(crate) fn close(&self) {
        self.open_in.set(CLOSED);
    }

    pub(crate) fn process(&self) -> &ProcessMark {
        &self.process
    }
}

fn word() -> io::Result<&'static AtomicUsize> {
    let mut present = WORD.load(Ordering::Acquire);
    if present.is_null() {
        let made = ptr::from_ref(make_word()?).cast_mut();
        // If another thread was first, its word is used, and ours, at most a page, is leaked.
        present = match WORD.compare_exchange(present, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(first) => first,
        };
    }
    // SAFETY: from a `'static` reference.
    Ok(unsafe { &*present })
}

/// The generation of this process. In a new child, the first call assigns one.
fn generation(word: &AtomicUsize) -> usize {
    let next = match word.load(Ordering::Acquire) {
        0 => LAST_GENERATION.fetch_add(1, Ordering::AcqRel) + 1,
        present => return present,
    };
    match word.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(first) => first,
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn make_word() -> io::Result<&'static AtomicUsize> {
    wiped_page().map_or_else(word_with_handler, Ok)
}

/// A new page that the kernel zeroes in children; `None` if it does not support that.
#[cfg(all(target_os = "linux", not(miri)))]
fn wiped_page() -> Option<&'static AtomicUsize> {
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

    const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicUsize>()).unwrap();
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
    let page = unsafe { mmap_anonymous(None, LENGTH, protection, MapFlags::MAP_PRIVATE) }.ok()?;
    // SAFETY: affects only our own new page.
    if unsafe { madvise(page, LENGTH.get(), MmapAdvise::MADV_WIPEONFORK) }.is_err() {
        // SAFETY: our own mapping, which has not been shared.
        let _ = unsafe { munmap(page, LENGTH.get()) };
        return None;
    }
    // SAFETY: the page is never unmapped and is sufficiently aligned; zero is a valid value.
    Some(unsafe { page.cast().as_ref() })
}

#[cfg(all(not(target_os = "linux"), not(miri)))]
fn make_word() -> io::Result<&'static AtomicUsize> {
    word_with_handler()
}

/// Miri does not support fork.
#[cfg(miri)]
fn make_word() -> io::Result<&'static AtomicUsize> {
    static UNWIPED: AtomicUsize = AtomicUsize::new(0);
    Ok(&UNWIPED)
}

/// A word that a `pthread_atfork` handler zeroes.
#[cfg(not(miri))]
fn word_with_handler() -> io::Result<&'static AtomicUsize> {
    static WIPED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn wipe() {
        WIPED.store(0, Ordering::Release);
    }
    // SAFETY: the handler only stores a number. If two threads install it, it harmlessly runs twice.
    match unsafe { libc::pthread_atfork(None, None, Some(wipe)) } {
        0 => Ok(&WIPED),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_open_until_it_is_closed() {
        let process = ProcessMark::new().unwrap();
        let gate = Gate::new(process);
        assert!(gate.is_open() && process.is_current() && process.check().is_ok());
        gate.close();
        assert!(!gate.is_open() && process.is_current());
    }

    /// The result of `check` in a forked child.
    #[cfg(not(miri))]
    fn in_a_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child only runs the check and exits.
        match unsafe { libc::fork() } {
            0 => {
                let found = check();
                // SAFETY: ends the process immediately.
                unsafe { libc::_exit(i32::from(found)) }
            }
            child => {
                assert!(child > 0, "{}", io::Error::last_os_error());
                let mut status = 0;
                // SAFETY: the status is ours.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert!(libc::WIFEXITED(status), "{status:#x}");
                libc::WEXITSTATUS(status) == 1
            }
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn a_child_differs_from_its_parent_and_from_its_own_child() {
        let parent = ProcessMark::new().unwrap();
        assert!(in_a_child(|| {
            let is_new = !parent.is_current();
            let child = ProcessMark::new().unwrap();
            let knows_itself = child.is_current() && !parent.is_current();
            is_new && knows_itself && in_a_child(|| !child.is_current() && !parent.is_current())
        }));
        assert!(parent.is_current());
    }

    #[test]
    #[cfg(not(miri))]
    fn a_handler_wipes_the_word_where_no_page_is() {
        let word = word_with_handler().unwrap();
        let generation = generation(word);
        assert!(in_a_child(|| word.load(Ordering::Relaxed) == 0));
        assert_eq!(word.load(Ordering::Relaxed), generation);
    }

    #[test]
    fn the_error_of_another_process_names_both_sides() {
        let text = ProcessMark::new().unwrap().foreign().to_string();
        assert!(text.contains(&format!("belongs to process {}", std::process::id())), "{text}");
        assert!(text.contains("must make its own"), "{text}");
    }
}
