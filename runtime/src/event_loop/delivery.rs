//! Delivers completions to their owners, and handles those that are not for owners: missed cancels and `ENOBUFS`.

use std::io;

use super::EventLoop;
use crate::buffers::datagram;
use crate::completion::RawCompletion;
use crate::operation::{Completion, Operation, OperationKey, OperationKind};
use crate::receive_buffers::ReceiveBuffers;
use crate::send_soon::is_of_message;
use crate::slots::Released;

/// How many send buffers are kept for reuse, and the largest that is.
const SPARE_SEND_BUFFERS: usize = 64;
const SPARE_SEND_BUFFER_MAX_BYTES: usize = 64 * 1024;

impl EventLoop {
    /// Delivers the reaped completions. No borrow is held while an owner runs. Completions that owners cause
    /// meanwhile wait for the next turn: in between, woken readers return their buffers.
    pub(super) fn dispatch(&self) {
        let batch = self.ready.borrow().len();
        for _ in 0..batch {
            let raw = {
                let mut ready = self.ready.borrow_mut();
                let Some(raw) = ready.pop_front() else { return };
                // Far enough ahead for the prefetch to finish: at 1,000 connections, an echo takes 1 % less time.
                if let Some(next_but_one) = ready.get(1) {
                    self.slots.borrow().prefetch(next_but_one.key);
                }
                raw
            };
            self.deliver(raw);
        }
        let mut sent = self.soon.borrow_mut().finish();
        sent.clear();
        self.soon.borrow_mut().reuse(sent);
    }

    #[inline(always)]
    pub(super) fn deliver(&self, raw: RawCompletion) {
        if raw.result < 0 {
            return self.deliver_failure(raw);
        }
        if is_of_message(raw.key) {
            return self.message_not_sent(raw);
        }
        self.deliver_result(raw);
    }

    #[cold]
    fn deliver_failure(&self, mut raw: RawCompletion) {
        if self.handle_failure(&mut raw) {
            return;
        }
        match is_of_message(raw.key) {
            true => self.message_not_sent(raw),
            false => self.deliver_result(raw),
        }
    }

    #[inline(always)]
    fn deliver_result(&self, raw: RawCompletion) {
        if !raw.more {
            return self.deliver_last(raw);
        }
        let Some((kind, owner)) = self.slots.borrow().owner(raw.key) else {
            debug_assert!(false, "a completion for an operation that is over: {raw:?}");
            return;
        };
        if kind == OperationKind::SendZeroCopy {
            return self.await_notification(raw);
        }
        owner.complete(kind, self.completion(kind, raw, None));
    }

    #[inline(never)]
    fn deliver_last(&self, mut raw: RawCompletion) {
        let Some(Released { kind, owner, data }) = self.slots.borrow_mut().release(raw.key) else {
            debug_assert!(false, "a completion for an operation that is over: {raw:?}");
            return;
        };
        if kind == OperationKind::SendZeroCopy {
            raw.result = self.zero_copy.borrow_mut().remove(&raw.key).unwrap_or(raw.result);
        }
        let unsent = data.and_then(|bytes| self.recycle_send_buffer(bytes, raw.result.max(0) as u32));
        owner.complete(kind, self.completion(kind, raw, unsent));
    }

    #[inline(always)]
    fn completion(&self, kind: OperationKind, raw: RawCompletion, unsent: Option<Vec<u8>>) -> Completion {
        let count = raw.result.max(0) as u32;
        let (count, buffer) = match raw.buffer {
            None => (count, None),
            Some(id) if kind == OperationKind::ReceiveFrom => {
                // The payload of a datagram follows the header.
                let head = datagram::BYTES_START as u32;
                (count.saturating_sub(head), Some(self.datagrams.pool.lend(id, head, count)))
            }
            Some(id) => (count, Some(self.streams.pool.lend(id, 0, count))),
        };
        let result = match raw.result {
            0.. => Ok(count),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        Completion { result, more: raw.more, buffer, unsent }
    }

    /// Keeps the result of a zero-copy send for its owner until the notification that the kernel no longer uses its
    /// data.
    #[cold]
    fn await_notification(&self, raw: RawCompletion) {
        #[cfg(feature = "mutations")]
        if crate::mutations::mutated(crate::mutations::Mutation::NotificationIgnored) {
            return self.deliver_last(RawCompletion { more: false, ..raw });
        }
        self.zero_copy.borrow_mut().insert(raw.key, raw.result);
        if self.slots.borrow().is_cancelled(raw.key) {
            self.cancel_notification(raw.key);
        }
    }

    /// Ends the wait for the notification of a zero-copy send; true if there is one. Nothing but the peer's
    /// acknowledgement or the end of the connection makes the kernel release the data.
    pub(super) fn cancel_notification(&self, key: OperationKey) -> bool {
        if !self.zero_copy.borrow().contains_key(&key) {
            return false;
        }
        #[cfg(feature = "mutations")]
        if crate::mutations::mutated(crate::mutations::Mutation::NotificationAwaited) {
            return true;
        }
        if let Some(Operation::SendZeroCopy { socket, .. }) = self.slots.borrow().get(key) {
            crate::sys::disconnect(*socket);
        }
        true
    }

    /// Handles failures that are not for the owner; true if this is one. A cancel that missed is repeated; a receive
    /// that got `ENOBUFS` stays in its slot until it is submitted again, unless it has been cancelled.
    fn handle_failure(&self, raw: &mut RawCompletion) -> bool {
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

    /// Tells the owner of a message that the kernel has not taken all of it.
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

    /// Keeps the buffer of a send for reuse; returns it if only a part was sent.
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

    /// Resubmits receives that got `ENOBUFS`; true if there were any.
    pub(super) fn resubmit_starved(&self) -> bool {
        let mut resubmitted = false;
        for buffers in [&self.streams, &self.datagrams] {
            if buffers.has_starved() {
                for _ in 0..buffers.resubmittable() {
                    let Some(key) = buffers.pop_starved() else { break };
                    if let Some(operation) = self.slots.borrow_mut().get_mut(key) {
                        let ready = &mut self.ready.borrow_mut();
                        self.backend.borrow_mut().submit(key.to_user_data(), operation, ready);
                        resubmitted = true;
                    }
                }
            }
        }
        resubmitted
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
