//! An allocator that ends the process if more is asked for at once than a small input can be worth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write as _};

/// The largest block that anything here needs is a histogram with five digits, of 50 MB.
const BLOCK_MAX_BYTES: usize = 96 * 1024 * 1024;

struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn check(size_bytes: usize) {
    if size_bytes > BLOCK_MAX_BYTES {
        // Unlike `eprintln`, a test does not keep this for later.
        let _ = writeln!(
            io::stderr(),
            "{size_bytes} bytes are asked for at once, expected {BLOCK_MAX_BYTES} at most"
        );
        std::process::abort();
    }
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller vouches for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller vouches for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size_bytes: usize) -> *mut u8 {
        check(size_bytes);
        // SAFETY: as the caller vouches for.
        unsafe { System.realloc(block, layout, size_bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches for.
        unsafe { System.dealloc(block, layout) }
    }
}
