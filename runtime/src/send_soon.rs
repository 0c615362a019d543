//! Small messages that are sent with the loop's next submission to the kernel, without an operation each.
//!
//! ```text
//!   send_soon(data) ──► copy into the current batch ──► submission entry: does not wait, no completion on success
//!                                                         │ the whole batch has been submitted
//!   owner.complete(unsent) ◄── unsent bytes, if any ◄─────┴──► all else has been sent: the batch is over
//! ```
//!
//! When the submitting call returns, the kernel has either read or refused each message: the request has
//! `MSG_DONTWAIT`, so it never waits for room (`send(2)`), and `IOSQE_CQE_SKIP_SUCCESS` (Linux 5.17), so it has a
//! completion only if bytes are left. An echo thus takes one completion instead of two.

use std::os::fd::RawFd;
use std::rc::Rc;

use crate::operation::{OperationKey, Owner};

/// The size of a batch. Without room in it, callers fall back to another way of sending.
const BATCH_MAX_BYTES: usize = 256 * 1024;
/// Marks the key of a message: a bit of the index that no slot needs, as 2^30 operations do not fit into memory.
const SOON: u32 = 1 << 30;

/// Identifies the batch of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(u32);

/// A message in a batch.
pub(crate) struct Message {
    owner: Rc<dyn Owner>,
    start: u32,
    length: u32,
}

/// Messages and their bytes, which do not move until the batch is over.
struct Messages {
    batch: u32,
    list: Vec<Message>,
    bytes: Box<[u8]>,
    used_bytes: usize,
}

impl Messages {
    fn new(batch: u32) -> Self {
        Self { batch, list: Vec::new(), bytes: Box::default(), used_bytes: 0 }
    }
}

/// The batch that is being collected, and the one that has been submitted.
pub(crate) struct SendSoon {
    current: Messages,
    submitted: Messages,
}

impl Default for SendSoon {
    fn default() -> Self {
        Self { current: Messages::new(1), submitted: Messages::new(0) }
    }
}

/// The request for a backend to submit.
#[cfg_attr(
    not(any(target_os = "linux", feature = "simulation")),
    expect(dead_code, reason = "only rings and the simulation have batches")
)]
pub(crate) struct Request {
    pub(crate) user_data: u64,
    pub(crate) socket: RawFd,
    pub(crate) start: *const u8,
    pub(crate) length: u32,
}

impl SendSoon {
    /// Copies a message into the current batch; `None` if there is no room.
    #[inline]
    pub(crate) fn push(
        &mut self,
        socket: RawFd,
        data: &[u8],
        owner: Rc<dyn Owner>,
    ) -> Option<(Batch, Request)> {
        let current = &mut self.current;
        let end = current.used_bytes + data.len();
        if end > current.bytes.len() {
            if end > BATCH_MAX_BYTES || !current.list.is_empty() {
                return None;
            }
            // The kernel allocates its pages when they are first written.
            current.bytes = vec![0; BATCH_MAX_BYTES].into_boxed_slice();
        }
        let (start, length) = (current.used_bytes as u32, data.len() as u32);
        let place = &mut current.bytes[current.used_bytes..end];
        place.copy_from_slice(data);
        let key = OperationKey { index: current.list.len() as u32 | SOON, generation: current.batch };
        let request = Request { user_data: key.to_user_data(), socket, start: place.as_ptr(), length };
        current.used_bytes = end;
        current.list.push(Message { owner, start, length });
        Some((Batch(current.batch), request))
    }

    /// Whether every message of a batch has been sent, or has had its completion.
    #[inline]
    pub(crate) fn is_over(&self, batch: Batch) -> bool {
        // Modulo 2³², a later batch has a larger number.
        self.submitted.list.is_empty() && (self.current.batch.wrapping_sub(batch.0) as i32) > 0
            || (self.submitted.batch.wrapping_sub(batch.0) as i32) > 0
    }

    /// Messages whose batch is not over.
    pub(crate) fn len(&self) -> usize {
        self.current.list.len() + self.submitted.list.len()
    }

    /// Begins the next batch, once the whole current one has been submitted.
    #[inline]
    pub(crate) fn begin_next(&mut self) {
        if !self.current.list.is_empty() {
            debug_assert!(
                self.submitted.list.is_empty(),
                "each batch is finished in the turn that submitted it"
            );
            std::mem::swap(&mut self.current, &mut self.submitted);
            self.current.batch = self.submitted.batch.wrapping_add(1);
        }
    }

    /// The owner of the message of this completion, and its bytes after the first `sent`.
    pub(crate) fn unsent(&self, key: OperationKey, sent: usize) -> Option<(Rc<dyn Owner>, Vec<u8>)> {
        let of_batch = |messages: &&Messages| messages.batch == key.generation;
        let messages = [&self.submitted, &self.current].into_iter().find(of_batch)?;
        let message = messages.list.get((key.index & !SOON) as usize)?;
        let (start, length) = (message.start as usize, message.length as usize);
        let rest = messages.bytes[start + sent.min(length)..start + length].to_vec();
        Some((message.owner.clone(), rest))
    }

    /// Ends the submitted batch. The caller clears the returned list with no borrow held, as dropping owners may run
    /// arbitrary code, and passes it to [`reuse`](Self::reuse).
    #[inline]
    pub(crate) fn finish(&mut self) -> Vec<Message> {
        self.submitted.used_bytes = 0;
        std::mem::take(&mut self.submitted.list)
    }

    /// Reuses the memory of a cleared list.
    #[inline]
    pub(crate) fn reuse(&mut self, cleared: Vec<Message>) {
        if self.submitted.list.capacity() == 0 {
            self.submitted.list = cleared;
        }
    }
}

/// Whether a completion belongs to a message, not to an operation.
#[inline(always)]
pub(crate) fn is_of_message(key: OperationKey) -> bool {
    key.index & SOON != 0
}
