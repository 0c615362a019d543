//! Prefetching.

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// Prefetches memory: with thousands of operations in flight, their state does not fit into the cache. A hint without
/// visible effect; the memory need not be valid. Does nothing on processors other than x86-64.
#[inline(always)]
pub fn prefetch(start: *const u8, size_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_bytes).step_by(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction faults on no address, and changes no state but the cache's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, size_bytes);
}
