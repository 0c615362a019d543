//! Small messages that are sent with the loop's next entry into the kernel, without an operation each.
//!
//! ```text
//!   send_soon(data) ──► copy in the current batch ──► an entry of the ring that never waits, and succeeds silently
//!                                                        │ all of the batch has been submitted
//!   owner.complete(unsent) ◄── what the kernel had no room for ◄──┴──► the rest has been sent: the batch is over
//! ```
//!
//! The kernel has read a message, or refused it, when the call that submits it returns: the request has
//! `MSG_DONTWAIT`, so it never waits for room (`send(2)`), and `IOSQE_CQE_SKIP_SUCCESS` (Linux 5.17), so it has a
//! completion only where something is left to do. An echo thus takes one completion and not two.

use std::os::fd::RawFd;
use std::rc::Rc;

use crate::operation::{OperationKey, Owner};

/// The bytes that a batch has room for. Who finds none sends in another way.
const BATCH_MAX_BYTES: usize = 256 * 1024;
/// The bit of an [`OperationKey`]'s index that no slot needs: 2^30 operations in flight do not fit into memory.
const SOON: u32 = 1 << 30;

/// Names the batch that a message goes with.
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

/// The batch that is being collected, and the one that the kernel has.
pub(crate) struct SendSoon {
    current: Messages,
    entered: Messages,
}

impl Default for SendSoon {
    fn default() -> Self {
        Self { current: Messages::new(1), entered: Messages::new(0) }
    }
}

/// What a backend has to submit for a message.
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
            // Pages of it get memory when they are first written.
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
        // Of two batches, the later one has the larger number, unless the numbers have wrapped in between.
        self.entered.list.is_empty() && (self.current.batch.wrapping_sub(batch.0) as i32) > 0
            || (self.entered.batch.wrapping_sub(batch.0) as i32) > 0
    }

    /// Messages whose batch is not over.
    pub(crate) fn len(&self) -> usize {
        self.current.list.len() + self.entered.list.len()
    }

    /// All of the current batch has been submitted; the next one begins.
    #[inline]
    pub(crate) fn enter(&mut self) {
        if !self.current.list.is_empty() {
            debug_assert!(
                self.entered.list.is_empty(),
                "each batch is finished in the turn that has submitted it"
            );
            std::mem::swap(&mut self.current, &mut self.entered);
            self.current.batch = self.entered.batch.wrapping_add(1);
        }
    }

    /// The owner of the message that a completion speaks of, and the bytes behind the first `sent`.
    pub(crate) fn unsent(&self, key: OperationKey, sent: usize) -> Option<(Rc<dyn Owner>, Vec<u8>)> {
        let of_batch = |messages: &&Messages| messages.batch == key.generation;
        let messages = [&self.entered, &self.current].into_iter().find(of_batch)?;
        let message = messages.list.get((key.index & !SOON) as usize)?;
        let (start, length) = (message.start as usize, message.length as usize);
        let rest = messages.bytes[start + sent.min(length)..start + length].to_vec();
        Some((message.owner.clone(), rest))
    }

    /// Ends the batch that has been entered, and gives its messages away, to be dropped and given
    /// [back](Self::keep) where this is not borrowed: their owners may do what they like.
    #[inline]
    pub(crate) fn finish(&mut self) -> Vec<Message> {
        self.entered.used_bytes = 0;
        std::mem::take(&mut self.entered.list)
    }

    /// Keeps the memory of a list that has been cleared.
    #[inline]
    pub(crate) fn keep(&mut self, cleared: Vec<Message>) {
        if self.entered.list.capacity() == 0 {
            self.entered.list = cleared;
        }
    }
}

/// Whether a completion is that of a message, and not that of an operation.
#[inline(always)]
pub(crate) fn is_of_message(key: OperationKey) -> bool {
    key.index & SOON != 0
}
