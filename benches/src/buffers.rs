//! Provided receive buffers for the bare io_uring loops in `bin/`.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// How many buffers there are.
pub const COUNT: u16 = 256;

/// Buffers and the ring of group 0 that hands them to the kernel.
///
/// Declare it before the ring that it is registered with, so that it is dropped after it: the kernel writes into
/// the buffers for as long as the ring lives.
pub struct Buffers {
    /// Page-aligned, as the kernel wants it.
    entries: Box<Page>,
    memory: Vec<u8>,
    size_bytes: usize,
    tail: u16,
}

#[repr(align(4096))]
struct Page([u8; COUNT as usize * size_of::<BufRingEntry>()]);

impl Buffers {
    /// [`COUNT`] buffers of `size_bytes` each, not yet known to a ring.
    pub fn new(size_bytes: usize) -> Self {
        let memory = vec![0; usize::from(COUNT) * size_bytes];
        let entries = Box::new(Page([0; COUNT as usize * size_of::<BufRingEntry>()]));
        Self { entries, memory, size_bytes, tail: 0 }
    }

    /// Provides all of them to a ring. Linux 5.19 or later.
    ///
    /// # Errors
    ///
    /// The kernel's, such as `EINVAL` if it is older.
    pub fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        let address = self.entries.0.as_mut_ptr() as u64;
        // SAFETY: the page holds that many entries and outlives the ring, as the type's documentation asks.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, COUNT, 0, 0)? };
        (0..COUNT).for_each(|buffer| self.give_back(buffer));
        self.publish();
        Ok(())
    }

    /// Where the bytes of a buffer begin.
    pub fn address(&self, buffer: u16) -> *const u8 {
        self.memory[usize::from(buffer) * self.size_bytes..].as_ptr()
    }

    /// Puts a buffer back into the ring. The kernel sees it after [`Buffers::publish`].
    pub fn give_back(&mut self, buffer: u16) {
        let address = &mut self.memory[usize::from(buffer) * self.size_bytes];
        let entries = self.entries.0.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below the number of entries; the kernel does not read above the tail.
        let entry = unsafe { &mut *entries.add(usize::from(self.tail % COUNT)) };
        entry.set_addr(address as *mut u8 as u64);
        entry.set_len(self.size_bytes as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back.
    pub fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, aligned; only this thread writes it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.0.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
