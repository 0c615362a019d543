//! Receive buffers: one mapping per loop, divided into equal pieces. The backend fills them; a [`Buffer`] lends one
//! to its reader, and returns it to the pool when dropped.
//!
//! Memory grows with the number of active connections, not of open ones.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::socket::SockaddrLike;

use crate::operation::Address;

/// The layout of a datagram in its buffer: that of multishot `recvmsg` (`io_uring_prep_recvmsg_multishot(3)`), which
/// the other backends follow.
///
/// ```text
///   0        4                12      16                          144
///   ├────────┼────────────────┼───────┼───────────────────────────┼─────────────
///   │ address│                │ flags │ source address            │ payload
///   │ length │                │       │ (sockaddr_storage)        │
/// ```
pub(crate) mod datagram {
    /// The offset of the source address.
    pub(crate) const ADDRESS_START: usize = 16;
    /// The room for the source address.
    pub(crate) const ADDRESS_SIZE_BYTES: usize = size_of::<libc::sockaddr_storage>();
    /// The offset of the payload.
    pub(crate) const BYTES_START: usize = ADDRESS_START + ADDRESS_SIZE_BYTES;
    /// The size of a buffer, with room for the longest UDP datagram, also over IPv6.
    pub(crate) const BUFFER_SIZE_BYTES: usize = 66 * 1024;
    /// The offset of the flags of `recvmsg`.
    pub(super) const FLAGS_START: usize = 12;
}

pub(crate) struct BufferPool {
    memory: NonNull<c_void>,
    buffer_size_bytes: usize,
    count: u16,
    /// Free buffers that the backend has not taken yet. A stack, so that the most recently used buffer, still in the
    /// cache, is filled next.
    returned: RefCell<Vec<u16>>,
    lent: Cell<u16>,
}

impl BufferPool {
    /// Maps `count` buffers; the kernel allocates pages when they are first written.
    pub(crate) fn new(count: u16, buffer_size_bytes: usize) -> io::Result<Rc<Self>> {
        let length = u32::try_from(buffer_size_bytes)
            .ok()
            .and_then(|_| usize::from(count).checked_mul(buffer_size_bytes).and_then(NonZeroUsize::new));
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        let length = length.ok_or_else(|| {
            invalid(format!(
                "receive buffers: {count} of {buffer_size_bytes} bytes, expected 1 to {} bytes in all",
                usize::MAX
            ))
        })?;
        // Only io_uring requires it, but a valid configuration should be valid on every machine.
        if !count.is_power_of_two() {
            return Err(invalid(format!("receive buffers: {count}, expected a power of two up to 32768")));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE)? };
        let returned = RefCell::new((0..count).rev().collect());
        Ok(Rc::new(Self { memory, buffer_size_bytes, count, returned, lent: Cell::new(0) }))
    }

    pub(crate) fn buffer_size_bytes(&self) -> usize {
        self.buffer_size_bytes
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers that readers hold.
    pub(crate) fn lent(&self) -> u16 {
        self.lent.get()
    }

    /// Buffers that the backend holds.
    #[cfg(target_os = "linux")]
    pub(crate) fn taken(&self) -> u16 {
        self.count - self.lent.get() - self.returned.borrow().len() as u16
    }

    /// Buffers that neither the backend nor a reader holds.
    #[cfg(feature = "simulation")]
    pub(crate) fn free(&self) -> usize {
        self.returned.borrow().len()
    }

    /// The start of buffer `id`.
    pub(crate) fn address(&self, id: u16) -> *mut u8 {
        debug_assert!(id < self.count);
        self.memory.as_ptr().cast::<u8>().wrapping_add(usize::from(id) * self.buffer_size_bytes)
    }

    /// Takes a free buffer for the backend to fill.
    pub(crate) fn take_returned(&self) -> Option<u16> {
        self.returned.borrow_mut().pop()
    }

    /// Returns a buffer that was taken but not filled.
    pub(crate) fn put_back(&self, id: u16) {
        self.returned.borrow_mut().push(id);
    }

    /// Writes the header of a datagram, except the address itself. The buffer must be taken, and of the pool for
    /// datagrams.
    pub(crate) fn write_datagram_head(&self, id: u16, address_length: u32, flags: u32) {
        debug_assert!(self.buffer_size_bytes >= datagram::BYTES_START);
        for (offset, number) in [(0, address_length), (datagram::FLAGS_START, flags)] {
            // SAFETY: within the buffer, which the backend has taken.
            unsafe { self.address(id).add(offset).cast::<u32>().write_unaligned(number) };
        }
    }

    /// Lends a buffer that the backend has taken and filled up to `end` to a reader. The data begins at `start`.
    pub(crate) fn lend(self: &Rc<Self>, id: u16, start: u32, end: u32) -> Buffer {
        self.lent.set(self.lent.get() + 1);
        let end = end.min(self.buffer_size_bytes as u32);
        Buffer { pool: self.clone(), id, start: start.min(end), end }
    }

    /// Fewer than half of the buffers are left.
    fn is_scarce(&self) -> bool {
        self.lent.get() > self.count / 2
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: exactly our own mapping. Every `Buffer` holds a reference to the pool, so no reader is left; the
        // backend ends its receives before it drops the pool.
        let unmapped = unsafe { munmap(self.memory, usize::from(self.count) * self.buffer_size_bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

/// Received bytes, in one of the loop's receive buffers, which is returned when this is dropped.
///
/// All streams of a loop share its [`Configuration::receive_buffers`](crate::Configuration::receive_buffers): to
/// keep bytes for long, copy them and drop the buffer. It may outlive the loop.
pub struct Buffer {
    pool: Rc<BufferPool>,
    id: u16,
    start: u32,
    end: u32,
}

impl Buffer {
    /// Discards the first `count` bytes, or all of them if there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start.saturating_add(count.try_into().unwrap_or(u32::MAX)));
    }

    /// Whether the bytes reach the end of the buffer, so that there may be more to receive.
    pub fn is_full(&self) -> bool {
        self.end as usize == self.pool.buffer_size_bytes
    }

    /// Whether less than half of the loop's buffers of this kind are available. Bytes that are kept for later should
    /// then be copied, so that they cannot starve the active streams.
    pub fn is_scarce(&self) -> bool {
        self.pool.is_scarce()
    }

    /// The source address of the datagram that [`Operation::ReceiveFrom`](crate::Operation::ReceiveFrom) put into
    /// this buffer; `None` if the kernel gave no address, as for an unnamed Unix socket.
    ///
    /// Meaningless for buffers of other operations.
    pub fn source(&self) -> Option<Address> {
        let length = self.number_at(0).min(datagram::ADDRESS_SIZE_BYTES as u32);
        if length == 0 {
            return None;
        }
        let start = self.pool.address(self.id).wrapping_add(datagram::ADDRESS_START);
        // SAFETY: the address lies within the buffer, which is ours until this is dropped; its family is
        // checked, and its bytes are copied.
        unsafe { Address::from_raw(start.cast(), Some(length)) }
    }

    /// Whether the datagram was longer than the buffer and has been truncated (`MSG_TRUNC` in `recv(2)`). UDP
    /// datagrams never are.
    pub fn is_truncated(&self) -> bool {
        self.number_at(datagram::FLAGS_START) & libc::MSG_TRUNC as u32 != 0
    }

    /// A field of the header of a datagram.
    fn number_at(&self, offset: usize) -> u32 {
        if self.pool.buffer_size_bytes < datagram::BYTES_START {
            return 0;
        }
        let start = self.pool.address(self.id).wrapping_add(offset);
        // SAFETY: within the buffer, as just checked, which is ours until this is dropped.
        unsafe { start.cast::<u32>().read_unaligned() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..end` lies within buffer `id`, which the kernel has filled and does not get again before
        // this value is dropped; the pool keeps the mapping alive.
        unsafe {
            std::slice::from_raw_parts(
                self.pool.address(self.id).add(self.start as usize),
                (self.end - self.start) as usize,
            )
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        self.pool.returned.borrow_mut().push(self.id);
        #[cfg(feature = "mutations")]
        if self.start > 0
            && self.start < self.end
            && crate::mutations::mutated(crate::mutations::Mutation::BufferReturnedTwice)
        {
            self.pool.returned.borrow_mut().push(self.id);
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer {{ id: {}, length: {} bytes }}", self.id, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_dropped_and_is_used_next() {
        let pool = BufferPool::new(4, 4096).unwrap();
        let id = pool.take_returned().unwrap();
        let mut buffer = pool.lend(id, 0, 10);
        assert_eq!((buffer.len(), pool.lent()), (10, 1));
        buffer.consume(4);
        assert_eq!(buffer.len(), 6);
        buffer.consume(100);
        assert!(buffer.is_empty());
        drop(buffer);
        assert_eq!((pool.take_returned(), pool.lent()), (Some(id), 0));
    }

    #[test]
    fn no_buffers_is_an_error_that_names_the_values() {
        let error = BufferPool::new(0, 4096).err().unwrap();
        assert!(error.to_string().contains("0 of 4096 bytes"), "{error}");
    }
}
