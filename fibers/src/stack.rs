//! Stacks for fibers: cut from a few large mappings, each with a guard below it.
//!
//! ```text
//!   one slot of a mapping, low addresses first:
//!
//!   limit                                                        base
//!   │ guard: a touch ends the process │ usable, grows downwards ◄ │
//! ```
//!
//! A mapping for each stack would stop at `vm.max_map_count` (65,530 by default). Guards made by
//! `MADV_GUARD_INSTALL` (Linux 6.13) live in the page tables and split no mapping, so that a million
//! stacks fit; before that kernel, and elsewhere, `mprotect` makes them and that limit holds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::rc::Rc;

use corosensei::stack::{Stack, StackPointer};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// The size of the guard below each stack. Rust probes every page of a large frame; C does not, so the
/// guard is wider than one page.
pub(crate) const GUARD_SIZE_BYTES: usize = 16 * 1024;
/// The smallest stack that is worth having.
pub(crate) const MINIMUM_STACK_SIZE_BYTES: usize = 8 * 1024;

/// Stacks in the first mapping of a size; each further mapping has twice as many as the last.
const FIRST_MAPPING_STACKS: usize = 64;
const LARGEST_MAPPING_STACKS: usize = 64 * 1024;
/// The largest mapping (16 GiB where addresses have 64 bits), unless one stack alone is larger.
const MAPPING_MAX_BYTES: usize = 1 << (usize::BITS / 2 + 2);
/// The largest stack that can be asked for, so that sums of sizes cannot overflow.
const MAXIMUM_STACK_SIZE_BYTES: usize = isize::MAX as usize / 4;
/// Free stacks that keep their pages; those beyond give them back.
const HOT_STACKS: usize = 1024;
/// Stacks are mapped ahead of their use: no swap is set aside for what is never touched, on systems that
/// would.
#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
const NO_RESERVE: MapFlags = MapFlags::MAP_NORESERVE;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
const NO_RESERVE: MapFlags = MapFlags::empty();

/// The stacks of one thread, by size.
#[derive(Default)]
pub(crate) struct StackPool {
    classes: RefCell<HashMap<usize, Rc<SizeClass>>>,
}

impl StackPool {
    /// Takes a stack with at least `size_bytes` usable.
    ///
    /// Fails with the kernel's error when address space or mappings run out.
    pub(crate) fn take(&self, size_bytes: usize) -> io::Result<FiberStack> {
        let size_bytes = size_bytes.max(MINIMUM_STACK_SIZE_BYTES);
        if size_bytes > MAXIMUM_STACK_SIZE_BYTES {
            let text = format!("stack of {size_bytes} bytes: expected at most {MAXIMUM_STACK_SIZE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let size_bytes = size_bytes.next_multiple_of(page_size_bytes());
        let class =
            self.classes.borrow_mut().entry(size_bytes).or_insert_with(|| SizeClass::new(size_bytes)).clone();
        class.take()
    }

    /// Stacks that are taken.
    pub(crate) fn in_use(&self) -> usize {
        // Each holds its class.
        self.classes.borrow().values().map(|class| Rc::strong_count(class) - 1).sum()
    }
}

/// All stacks of one size.
struct SizeClass {
    size_bytes: usize,
    /// Free stacks by their limit; last in, first out, so that a warm stack is used next.
    hot: RefCell<Vec<usize>>,
    /// Free stacks without pages.
    cold: RefCell<Vec<usize>>,
    mappings: RefCell<Vec<Mapping>>,
    /// Slots of the newest mapping that were never used.
    fresh: Cell<usize>,
}

struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl SizeClass {
    fn new(size_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            size_bytes,
            hot: RefCell::default(),
            cold: RefCell::default(),
            mappings: RefCell::default(),
            fresh: Cell::new(0),
        })
    }

    fn slot_size_bytes(&self) -> usize {
        GUARD_SIZE_BYTES + self.size_bytes
    }

    fn take(self: Rc<Self>) -> io::Result<FiberStack> {
        let reused = self.hot.borrow_mut().pop().or_else(|| self.cold.borrow_mut().pop());
        let limit = match reused {
            Some(limit) => limit,
            None => self.take_fresh()?,
        };
        let base = limit + self.slot_size_bytes();
        Ok(FiberStack { class: self, limit, base })
    }

    fn take_fresh(&self) -> io::Result<usize> {
        if self.fresh.get() == 0 {
            self.map_more()?;
        }
        let mappings = self.mappings.borrow();
        let newest = mappings.last().ok_or(io::ErrorKind::OutOfMemory)?;
        let limit = newest.start.as_ptr() as usize + (self.fresh.get() - 1) * self.slot_size_bytes();
        // SAFETY: the slot lies in our newest mapping and no fiber uses it yet.
        unsafe { install_guard(limit)? };
        self.fresh.set(self.fresh.get() - 1);
        Ok(limit)
    }

    fn map_more(&self) -> io::Result<()> {
        let mut mappings = self.mappings.borrow_mut();
        let stacks = (FIRST_MAPPING_STACKS << mappings.len().min(16)).min(LARGEST_MAPPING_STACKS);
        // Large stacks are mapped in smaller numbers, for systems that count address space.
        let stacks = stacks.min((MAPPING_MAX_BYTES / self.slot_size_bytes()).max(1));
        let length = stacks * self.slot_size_bytes();
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | NO_RESERVE;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap_anonymous(None, length, protection, flags)? };
        mappings.push(Mapping { start, length: length.get() });
        self.fresh.set(stacks);
        // One huge page would back 2 MiB for a stack that touches 4 KiB. A kernel without huge pages
        // refuses, which is as good.
        #[cfg(target_os = "linux")]
        // SAFETY: our own mapping; the advice changes no contents.
        let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        Ok(())
    }

    /// Takes a stack back; beyond the hot ones, its pages go back to the kernel.
    fn give_back(&self, limit: usize) {
        if self.hot.borrow().len() < HOT_STACKS {
            self.hot.borrow_mut().push(limit);
            return;
        }
        if let Some(usable) = NonNull::new((limit + GUARD_SIZE_BYTES) as *mut c_void) {
            // SAFETY: the usable part of a slot whose fiber is over. On failure it keeps its pages.
            let _ = unsafe { madvise(usable, self.size_bytes, MmapAdvise::MADV_DONTNEED) };
        }
        self.cold.borrow_mut().push(limit);
    }
}

impl Drop for SizeClass {
    fn drop(&mut self) {
        for mapping in self.mappings.get_mut().drain(..) {
            // SAFETY: our own mapping, whole. Every stack in use holds this class, so none is.
            let unmapped = unsafe { munmap(mapping.start, mapping.length) };
            debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
        }
    }
}

/// Makes the guard of the slot at `limit`.
///
/// # Safety
///
/// The slot must lie in a mapping of ours, and nothing may use its guard's range.
unsafe fn install_guard(limit: usize) -> io::Result<()> {
    let guard = NonNull::new(limit as *mut c_void).ok_or(io::ErrorKind::InvalidInput)?;
    #[cfg(target_os = "linux")]
    {
        const MADV_GUARD_INSTALL: i32 = 102;
        // SAFETY: the caller vouches for the range.
        if unsafe { libc::madvise(guard.as_ptr(), GUARD_SIZE_BYTES, MADV_GUARD_INSTALL) } == 0 {
            return Ok(());
        }
    }
    // SAFETY: the caller vouches for the range.
    unsafe { mprotect(guard, GUARD_SIZE_BYTES, ProtFlags::PROT_NONE) }.map_err(|error| {
        let text = format!(
            "the guard of a fiber's stack cannot be made: {error}; on kernels before Linux 6.13 each takes \
             a mapping, so raise sysctl vm.max_map_count"
        );
        io::Error::new(io::Error::from(error).kind(), text)
    })
}

fn page_size_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// A stack in use by one fiber; dropping it gives it back to its pool.
pub(crate) struct FiberStack {
    class: Rc<SizeClass>,
    limit: usize,
    /// Every resume asks for it.
    base: usize,
}

impl FiberStack {
    /// The addresses of the guard.
    pub(crate) fn guard(&self) -> std::ops::Range<usize> {
        self.limit..self.limit + GUARD_SIZE_BYTES
    }

    /// The usable size.
    pub(crate) fn size_bytes(&self) -> usize {
        self.class.size_bytes
    }
}

// SAFETY: the memory from limit to base is mapped, writable above the guard, at least
// `MINIMUM_STACK_SIZE_BYTES` long, page-aligned at both ends, and ours alone until the drop.
unsafe impl Stack for FiberStack {
    fn base(&self) -> StackPointer {
        StackPointer::MIN.saturating_add(self.base - 1)
    }

    fn limit(&self) -> StackPointer {
        StackPointer::MIN.saturating_add(self.limit - 1)
    }
}

impl Drop for FiberStack {
    fn drop(&mut self) {
        self.class.give_back(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_comes_back_warm_and_is_aligned() {
        let pool = StackPool::default();
        let first = pool.take(10_000).unwrap();
        assert_eq!(first.size_bytes() % page_size_bytes(), 0);
        assert!(first.size_bytes() >= 10_000);
        assert_eq!(first.base().get() - first.limit().get(), GUARD_SIZE_BYTES + first.size_bytes());
        assert_eq!(first.base().get() % 4096, 0);
        let limit = first.limit();
        drop(first);
        assert_eq!(pool.take(10_000).unwrap().limit(), limit);
    }

    #[test]
    fn stacks_do_not_overlap() {
        let pool = StackPool::default();
        let stacks: Vec<_> = (0..1000).map(|_| pool.take(16 * 1024).unwrap()).collect();
        let mut bounds: Vec<_> = stacks.iter().map(|s| (s.limit().get(), s.base().get())).collect();
        bounds.sort_unstable();
        assert!(bounds.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
