//! Hints to the processor's cache.

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// Has the processor fetch memory that is used soon, while it goes on: with thousands of operations in flight, no
/// cache holds what they all need. A hint, which accesses nothing that the program could notice; the memory may
/// even be gone. Does nothing on processors other than x86-64.
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
