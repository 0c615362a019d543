//! Stacks for fibers: cut from a few large mappings, each with a guard below it.
//!
//! ```text
//!   one slot of a mapping, low addresses first:
//!
//!   limit                                                                  base
//!   │ guard, 1 MiB: a touch ends the process │ usable, grows downwards ◄ │
//! ```
//!
//! Rust touches every page of a large frame in order, so that a guard of one page would do. C does not, unless
//! it is compiled with `-fstack-clash-protection`: the guard is as wide as Linux's own gap below the stacks of
//! threads.
//!
//! A mapping for each stack would stop at `vm.max_map_count` (65,530 by default). Guards made by
//! `MADV_GUARD_INSTALL` (Linux 6.13) live in the page tables and split no mapping, so that a million
//! stacks fit; each takes 2 KiB of page tables. Before that kernel, and elsewhere, `mprotect` makes them and
//! that limit holds.
//!
//! # Memory of free stacks
//!
//! The stack that became free last is reused first. Those deeper in the list give their memory back when the event
//! loop is about to block:
//!
//! ```text
//!   ◄─ free longest                                                 free last ─►
//!   │ no memory │ up to HOT_STACKS: the top pages │ up to UNTRIMMED_STACKS: all │
//! ```
//!
//! So the usual case, few fibers at a time, takes next to no system calls.

mod mapping;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use corosensei::stack::{Stack, StackPointer};

use self::mapping::{Layout, Mapping, discard, page_size_bytes};

/// The size of the guard below each stack. Where addresses have 32 bits, there is no room for more.
const GUARD_SIZE_BYTES: usize = if cfg!(target_pointer_width = "64") { 1024 * 1024 } else { 64 * 1024 };
/// The smallest stack that is worth having.
const MINIMUM_STACK_SIZE_BYTES: usize = 8 * 1024;
/// The largest stack that can be asked for, so that sums of sizes cannot overflow.
const MAXIMUM_STACK_SIZE_BYTES: usize = isize::MAX as usize / 4;

/// Stacks in the first mapping of a size; each further mapping has twice as many as the last.
const FIRST_MAPPING_STACKS: usize = 16;
const LARGEST_MAPPING_STACKS: usize = 64 * 1024;
/// The largest mapping (16 GiB where addresses have 64 bits), unless one stack alone is larger.
const MAPPING_MAX_BYTES: usize = 1 << (usize::BITS / 2 + 2);

/// This many free stacks keep all their memory until so many fibers have ended. Trimming a stack takes some 700 ns,
/// more than starting a fiber; spread over that many it is at most 100 ns for each.
const UNTRIMMED_STACKS: usize = 32;
const ENDED_FIBERS_MAX: usize = 256;
/// Free stacks that keep their top pages.
const HOT_STACKS: usize = 256;
/// What most fibers touch.
const TOP_SIZE_BYTES: usize = 8 * 1024;
/// Stacks trimmed between two turns of the event loop, which must not wait long for them: to discard a hundred
/// pages takes some 10 µs.
const TRIMMED_AT_ONCE: usize = 8;

/// What the frames may need that give a stack's memory back, and that the kernel may write to below them.
const RELEASING_FRAMES_BYTES: usize = 4096;

/// Gives the memory of a stack's usable part, which begins at `start`, back to the kernel, up to the frame of the
/// caller. Takes one system call.
///
/// # Safety
///
/// The caller must run on that stack.
#[inline(never)]
pub(crate) unsafe fn release_below_caller(start: usize) {
    let frame = 0_u8;
    let used = std::hint::black_box(&raw const frame) as usize;
    let end = used.saturating_sub(RELEASING_FRAMES_BYTES) / page_size_bytes() * page_size_bytes();
    if end > start {
        // SAFETY: whole pages below everything that this stack holds, as it grows downwards, and above its guard.
        // Frames that are entered from here on fit above `end`, or find zeroed pages, as on a fresh stack.
        unsafe { discard(start, end - start) };
    }
}

/// The stacks of one thread, by size.
pub(crate) struct StackPool {
    page_size_bytes: usize,
    /// Sorted by size.
    classes: RefCell<Vec<Rc<SizeClass>>>,
}

impl Default for StackPool {
    fn default() -> Self {
        Self { page_size_bytes: page_size_bytes(), classes: RefCell::default() }
    }
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
        let size_bytes = size_bytes.next_multiple_of(self.page_size_bytes);
        let mut classes = self.classes.borrow_mut();
        let index = match classes.binary_search_by_key(&size_bytes, |class| class.layout.stack_size_bytes) {
            Ok(index) => index,
            Err(index) => {
                classes.insert(index, SizeClass::new(size_bytes, self.page_size_bytes));
                index
            }
        };
        classes[index].take()
    }

    /// Stacks that are taken.
    pub(crate) fn in_use(&self) -> usize {
        // Each holds its class.
        self.classes.borrow().iter().map(|class| Rc::strong_count(class) - 1).sum()
    }

    /// Gives back memory of some free stacks that is not likely to be needed soon; true once there is nothing left
    /// to do.
    pub(crate) fn trim(&self) -> bool {
        self.classes.borrow().iter().all(|class| class.trim())
    }
}

/// All stacks of one size.
struct SizeClass {
    layout: Layout,
    /// What a trimmed stack keeps at its top.
    top_size_bytes: usize,
    free: RefCell<FreeStacks>,
    mappings: RefCell<Vec<Mapping>>,
}

/// Free stacks by their limit, the one that became free last at the end.
#[derive(Default)]
struct FreeStacks {
    limits: Vec<usize>,
    /// The first so many have no memory.
    cold: usize,
    /// The first so many, the cold ones among them, have no memory but that of their top pages.
    trimmed: usize,
    /// Fibers that have ended since all were trimmed.
    ended: usize,
}

impl FreeStacks {
    fn take(&mut self) -> Option<usize> {
        let limit = self.limits.pop()?;
        self.trimmed = self.trimmed.min(self.limits.len());
        self.cold = self.cold.min(self.limits.len());
        Some(limit)
    }

    fn give_back(&mut self, limit: usize) {
        self.limits.push(limit);
        self.ended += 1;
    }

    /// The next stack to trim, and whether it keeps its top pages.
    fn next_to_trim(&mut self) -> Option<(usize, bool)> {
        if self.cold < self.limits.len().saturating_sub(HOT_STACKS) {
            self.cold += 1;
            self.trimmed = self.trimmed.max(self.cold);
            return Some((self.limits[self.cold - 1], false));
        }
        let untrimmed = self.limits.len() - self.trimmed;
        if untrimmed > UNTRIMMED_STACKS || (untrimmed > 0 && self.ended >= ENDED_FIBERS_MAX) {
            self.trimmed += 1;
            return Some((self.limits[self.trimmed - 1], true));
        }
        if untrimmed == 0 {
            self.ended = 0;
        }
        None
    }
}

impl SizeClass {
    fn new(size_bytes: usize, page_size_bytes: usize) -> Rc<Self> {
        let guard_size_bytes = GUARD_SIZE_BYTES.next_multiple_of(page_size_bytes);
        Rc::new(Self {
            layout: Layout { guard_size_bytes, stack_size_bytes: size_bytes },
            top_size_bytes: TOP_SIZE_BYTES.next_multiple_of(page_size_bytes).min(size_bytes),
            free: RefCell::default(),
            mappings: RefCell::default(),
        })
    }

    fn take(self: &Rc<Self>) -> io::Result<FiberStack> {
        let reused = self.free.borrow_mut().take();
        let limit = match reused {
            Some(limit) => limit,
            None => self.take_fresh()?,
        };
        let base = StackPointer::MIN.saturating_add(limit + self.layout.slot_size_bytes() - 1);
        Ok(FiberStack { class: self.clone(), limit, base })
    }

    fn take_fresh(&self) -> io::Result<usize> {
        let mut mappings = self.mappings.borrow_mut();
        if let Some(newest) = mappings.last_mut()
            && let Some(limit) = newest.take_fresh()?
        {
            return Ok(limit);
        }
        let slots = (FIRST_MAPPING_STACKS << mappings.len().min(16)).min(LARGEST_MAPPING_STACKS);
        // Large stacks are mapped in smaller numbers, for systems that count address space.
        let slots = slots.min((MAPPING_MAX_BYTES / self.layout.slot_size_bytes()).max(1));
        let mut mapping = Mapping::new(slots, self.layout)?;
        let limit = mapping.take_fresh()?.ok_or(io::ErrorKind::OutOfMemory)?;
        mappings.push(mapping);
        Ok(limit)
    }

    /// As [`StackPool::trim`].
    fn trim(&self) -> bool {
        let mut free = self.free.borrow_mut();
        for _ in 0..TRIMMED_AT_ONCE {
            let Some((limit, keeps_top)) = free.next_to_trim() else { return true };
            let kept = if keeps_top { self.top_size_bytes } else { 0 };
            let start = limit + self.layout.guard_size_bytes;
            // SAFETY: the usable part of a slot whose fiber has ended, or the lower part of it.
            unsafe { discard(start, self.layout.stack_size_bytes - kept) };
        }
        false
    }
}

/// A stack in use by one fiber; dropping it gives it back to its pool.
pub(crate) struct FiberStack {
    class: Rc<SizeClass>,
    limit: usize,
    /// Here as well, since every resume reads it.
    base: StackPointer,
}

impl FiberStack {
    /// The addresses of the guard.
    pub(crate) fn guard(&self) -> std::ops::Range<usize> {
        self.limit..self.limit + self.class.layout.guard_size_bytes
    }

    /// The usable size.
    pub(crate) fn size_bytes(&self) -> usize {
        self.class.layout.stack_size_bytes
    }
}

/// Gives back the memory of a stack in use from `start`, where its guard ends, up to the page with the address `used`.
///
/// # Safety
///
/// Both must be of the same stack, and nothing below `used` may be in use.
pub(crate) unsafe fn discard_below(start: usize, used: usize) {
    let end = used - used % page_size_bytes();
    if end > start {
        // SAFETY: whole pages of the usable part, as guards end at pages; the caller vouches for the rest.
        unsafe { discard(start, end - start) };
    }
}

// SAFETY: the memory from limit to base is mapped, writable above the guard, at least
// `MINIMUM_STACK_SIZE_BYTES` long, page-aligned at both ends, and ours alone until the drop.
unsafe impl Stack for FiberStack {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        StackPointer::MIN.saturating_add(self.limit - 1)
    }
}

impl Drop for FiberStack {
    fn drop(&mut self) {
        self.class.free.borrow_mut().give_back(self.limit);
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
        assert_eq!(first.base().get() - first.limit().get(), first.guard().len() + first.size_bytes());
        assert_eq!(first.base().get() % page_size_bytes(), 0);
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

    #[test]
    fn sizes_are_multiples_of_any_page_size() {
        for page_size_bytes in [4096, 16 * 1024, 64 * 1024, 2 << 20] {
            let pool = StackPool { page_size_bytes, classes: RefCell::default() };
            for size_bytes in [1, 8 * 1024, 100_000, 1 << 20] {
                let stack = pool.take(size_bytes).unwrap();
                assert!(stack.size_bytes() >= size_bytes && stack.guard().len() >= GUARD_SIZE_BYTES);
                for part in [stack.size_bytes(), stack.guard().len(), stack.class.top_size_bytes] {
                    assert_eq!(part % page_size_bytes, 0, "pages of {page_size_bytes} bytes");
                }
            }
        }
    }

    /// Trims until nothing is left to do; the limits of the stacks that kept their top pages, and of those that
    /// did not.
    fn trim_all(free: &mut FreeStacks) -> (Vec<usize>, Vec<usize>) {
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        while let Some((limit, keeps_top)) = free.next_to_trim() {
            if keeps_top { kept.push(limit) } else { lost.push(limit) }
        }
        (kept, lost)
    }

    #[test]
    fn few_stacks_that_take_turns_are_not_trimmed_each_time() {
        let mut free = FreeStacks::default();
        (1..=UNTRIMMED_STACKS).for_each(|limit| free.give_back(limit));
        let mut trimmed = 0;
        const ROUNDS: usize = 10 * ENDED_FIBERS_MAX;
        for _ in 0..ROUNDS {
            let limit = free.take().unwrap();
            free.give_back(limit);
            let (kept, lost) = trim_all(&mut free);
            assert!(lost.is_empty(), "{lost:?}");
            trimmed += kept.len();
        }
        assert!(trimmed > 0, "even those that are used all the time give back what they needed once");
        assert!(trimmed <= ROUNDS / ENDED_FIBERS_MAX * UNTRIMMED_STACKS, "{trimmed} in {ROUNDS} rounds");
    }

    #[test]
    fn of_many_free_stacks_each_is_trimmed_once_and_the_last_keep_their_tops() {
        let mut free = FreeStacks::default();
        (1..=1000).for_each(|limit| free.give_back(limit));
        let (kept, lost) = trim_all(&mut free);
        assert_eq!(lost, Vec::from_iter(1..=1000 - HOT_STACKS));
        assert_eq!(kept, Vec::from_iter(1001 - HOT_STACKS..=1000));
        assert_eq!(trim_all(&mut free), (vec![], vec![]));
        // Those that are used again are trimmed again, and no others.
        let again: Vec<_> = (0..100).map(|_| free.take().unwrap()).collect();
        again.iter().rev().for_each(|&limit| free.give_back(limit));
        assert_eq!(trim_all(&mut free).0.len(), 100 - UNTRIMMED_STACKS);
        // More free stacks push those deeper in the list out of the hot ones.
        (1001..=1100).for_each(|limit| free.give_back(limit));
        assert_eq!(trim_all(&mut free).1.len(), 100);
    }
}
