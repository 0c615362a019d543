//! Handing completions to their owners, and what concerns no owner: cancels that missed, and a lack of buffers.

use std::io;

use super::EventLoop;
use crate::buffers::datagram;
use crate::completion::RawCompletion;
use crate::operation::{Completion, Operation, OperationKey, OperationKind};
use crate::receive_buffers::ReceiveBuffers;
use crate::send_soon::is_of_message;

/// Spent send buffers kept for reuse, and the largest worth keeping.
const SPARE_SEND_BUFFERS: usize = 64;
const SPARE_SEND_BUFFER_MAX_BYTES: usize = 64 * 1024;

impl EventLoop {
    /// Hands what has been reaped to the owners. No borrow is held while an owner runs. Completions that
    /// owners cause meanwhile are for the next turn: between the two, those who were woken give their
    /// buffers back.
    pub(super) fn dispatch(&self) {
        let batch = self.ready.borrow().len();
        for _ in 0..batch {
            let raw = {
                let mut ready = self.ready.borrow_mut();
                let Some(raw) = ready.pop_front() else { return };
                // By its turn, what it needs is there: at 1,000 connections an echo takes 1 % less time.
                if let Some(next_but_one) = ready.get(1) {
                    self.slots.borrow().prefetch(next_but_one.key);
                }
                raw
            };
            self.deliver(raw);
        }
        let mut sent = self.soon.borrow_mut().finish();
        sent.clear();
        self.soon.borrow_mut().keep(sent);
    }

    #[inline(always)]
    pub(super) fn deliver(&self, mut raw: RawCompletion) {
        if raw.result < 0 && self.deals_with(&mut raw) {
            return;
        }
        if is_of_message(raw.key) {
            return self.message_not_sent(raw);
        }
        let Some(found) = self.slots.borrow_mut().complete(raw.key, !raw.more) else {
            debug_assert!(false, "a completion for an operation that is over: {raw:?}");
            return;
        };
        let count = raw.result.max(0) as u32;
        let unsent = found.spent.and_then(|bytes| self.recycle_send_buffer(bytes, count));
        let (count, buffer) = match raw.buffer {
            None => (count, None),
            Some(id) if found.kind == OperationKind::ReceiveFrom => {
                // A datagram starts after the head that its buffer begins with.
                let head = datagram::BYTES_START as u32;
                (count.saturating_sub(head), Some(self.datagrams.pool.lend(id, head, count)))
            }
            Some(id) => (count, Some(self.streams.pool.lend(id, 0, count))),
        };
        let result = match raw.result {
            0.. => Ok(count),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        found.owner.complete(found.kind, Completion { result, more: raw.more, buffer, unsent });
    }

    /// Deals with failures that do not concern the owner: a cancel that missed, and a lack of buffers, of which the
    /// operation stays in its slot until it is submitted again, unless it has been cancelled.
    #[cold]
    fn deals_with(&self, raw: &mut RawCompletion) -> bool {
        if raw.cancel_missed {
            self.cancel(raw.key);
            return true;
        }
        if raw.result != -libc::ENOBUFS || raw.more || !self.gate.is_open() {
            return false;
        }
        if self.slots.borrow().is_cancelled(raw.key) {
            raw.result = -libc::ECANCELED;
            return false;
        }
        let kind = self.slots.borrow().get(raw.key).map(Operation::kind);
        let buffers = kind.and_then(|kind| self.buffers_for(kind));
        buffers.inspect(|buffers| buffers.starve(raw.key)).is_some()
    }

    /// The kernel has not taken all of a message.
    #[cold]
    fn message_not_sent(&self, raw: RawCompletion) {
        let sent = raw.result.max(0) as u32;
        let Some((owner, rest)) = self.soon.borrow().unsent(raw.key, sent as usize) else {
            debug_assert!(false, "a completion for a message whose batch is over: {raw:?}");
            return;
        };
        let result = match raw.result {
            0.. => Ok(sent),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        let completion = Completion { result, more: false, buffer: None, unsent: Some(rest) };
        owner.complete(OperationKind::SendSoon, completion);
    }

    /// Keeps a buffer for another send, unless it was sent in part.
    #[inline(never)]
    fn recycle_send_buffer(&self, mut bytes: Vec<u8>, sent_bytes: u32) -> Option<Vec<u8>> {
        if sent_bytes > 0 && (sent_bytes as usize) < bytes.len() {
            return Some(bytes);
        }
        let mut spare = self.spare_sends.borrow_mut();
        if spare.len() < SPARE_SEND_BUFFERS && bytes.capacity() <= SPARE_SEND_BUFFER_MAX_BYTES {
            bytes.clear();
            spare.push(bytes);
        }
        None
    }

    fn buffers_for(&self, kind: OperationKind) -> Option<&ReceiveBuffers> {
        match kind {
            OperationKind::Receive => Some(&self.streams),
            OperationKind::ReceiveFrom => Some(&self.datagrams),
            _ => None,
        }
    }

    /// Submits receives again that met a lack of buffers; true if there were any.
    pub(super) fn feed_starved(&self) -> bool {
        let mut fed = false;
        for buffers in [&self.streams, &self.datagrams] {
            if buffers.has_starved() {
                for _ in 0..buffers.feedable() {
                    let Some(key) = buffers.pop_starved() else { break };
                    if let Some(operation) = self.slots.borrow_mut().get_mut(key) {
                        let ready = &mut self.ready.borrow_mut();
                        self.backend.borrow_mut().submit(key.to_user_data(), operation, ready);
                        fed = true;
                    }
                }
            }
        }
        fed
    }

    /// Cancels a receive that waits for buffers; true if it was one.
    pub(super) fn cancel_starved(&self, key: OperationKey) -> bool {
        let is_starved = (self.streams.has_starved() && self.streams.withdraw(key))
            || (self.datagrams.has_starved() && self.datagrams.withdraw(key));
        if is_starved {
            self.ready.borrow_mut().push_back(RawCompletion::failed(key, libc::ECANCELED));
        }
        is_starved
    }
}
