//! The memory that stacks are cut from.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// Stacks are mapped ahead of their use: on systems that reserve swap, none is reserved for what is never
/// touched.
#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
const NO_RESERVE: MapFlags = MapFlags::MAP_NORESERVE;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
const NO_RESERVE: MapFlags = MapFlags::empty();

/// How one slot of a mapping is divided, in whole pages: the guard at the low end, the stack above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) guard_size_bytes: usize,
    pub(super) stack_size_bytes: usize,
}

impl Layout {
    pub(super) fn slot_size_bytes(self) -> usize {
        self.guard_size_bytes + self.stack_size_bytes
    }
}

/// A mapping of equal slots, of which the last are used first.
pub(super) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
    layout: Layout,
    /// Slots that were never used.
    fresh: usize,
}

impl Mapping {
    /// Maps so many slots, or fewer where a limit on address space does not allow as many.
    pub(super) fn new(mut slots: usize, layout: Layout) -> io::Result<Self> {
        loop {
            match Self::of_exactly(slots, layout) {
                Err(_) if slots > 1 => slots /= 2,
                mapped => return mapped,
            }
        }
    }

    fn of_exactly(slots: usize, layout: Layout) -> io::Result<Self> {
        let length = slots.checked_mul(layout.slot_size_bytes()).and_then(NonZeroUsize::new);
        let length = length.ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::MAP_PRIVATE | NO_RESERVE;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap_anonymous(None, length, protection, flags)? };
        // One huge page would back 2 MiB for a stack that touches 4 KiB. A kernel without huge pages
        // refuses, which is as good.
        #[cfg(target_os = "linux")]
        // SAFETY: our own mapping; the advice changes no contents.
        let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        Ok(Self { start, length: length.get(), layout, fresh: slots })
    }

    /// The limit (lowest address) of a slot that was never used, with its guard installed; `None` if there is
    /// none left.
    ///
    /// Fails if the kernel has no memory, or no mapping, for the guard.
    pub(super) fn take_fresh(&mut self) -> io::Result<Option<usize>> {
        let Some(index) = self.fresh.checked_sub(1) else { return Ok(None) };
        let limit = self.start.as_ptr() as usize + index * self.layout.slot_size_bytes();
        // SAFETY: the slot lies in this mapping, and nothing uses it yet.
        unsafe { install_guard(limit, self.layout.guard_size_bytes)? };
        self.fresh = index;
        Ok(Some(limit))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole. Every stack in use holds the class that owns this, so none is.
        let unmapped = unsafe { munmap(self.start, self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

/// Makes the range inaccessible.
///
/// # Safety
///
/// The range must be whole pages of a mapping of ours, and nothing may use it.
unsafe fn install_guard(start: usize, size_bytes: usize) -> io::Result<()> {
    let guard = NonNull::new(start as *mut c_void).ok_or(io::ErrorKind::InvalidInput)?;
    #[cfg(target_os = "linux")]
    {
        const MADV_GUARD_INSTALL: i32 = 102;
        // SAFETY: the caller vouches for the range.
        if unsafe { libc::madvise(guard.as_ptr(), size_bytes, MADV_GUARD_INSTALL) } == 0 {
            return Ok(());
        }
    }
    // SAFETY: the caller vouches for the range.
    unsafe { mprotect(guard, size_bytes, ProtFlags::PROT_NONE) }.map_err(|error| {
        let text = format!(
            "the guard of a fiber's stack cannot be made: {error}; on kernels before Linux 6.13 each takes \
             a mapping, so raise sysctl vm.max_map_count"
        );
        io::Error::new(io::Error::from(error).kind(), text)
    })
}

/// Gives the pages of the range back to the kernel; its contents are lost. Does not touch guards.
///
/// # Safety
///
/// The range must be whole pages of a mapping of ours, and nothing may use what is in it.
pub(super) unsafe fn discard(start: usize, size_bytes: usize) {
    if let Some(start) = NonNull::new(start as *mut c_void) {
        // SAFETY: the caller vouches for the range. If the kernel refuses, it keeps the pages.
        let _ = unsafe { madvise(start, size_bytes, MmapAdvise::MADV_DONTNEED) };
    }
}

pub(super) fn page_size_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
