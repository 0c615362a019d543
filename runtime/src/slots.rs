//! The slots of operations in flight: their owners, and the memory that the kernel may still use.

use std::os::fd::RawFd;
use std::rc::Rc;

use slab::Slab;

use crate::operation::{Operation, OperationKey, OperationKind, Owner, SendData};
use crate::prefetch::prefetch;

/// How much of an owner is prefetched before its completion, including the `Rc` counts in front of it.
const OWNER_FRONT_BYTES: usize = 256;
const OWNER_COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// A slab of operations in flight, addressed by index and generation.
#[derive(Default)]
pub(crate) struct Slots {
    slab: Slab<Slot>,
    next_generation: u32,
}

/// Starts on a cache line: with thousands of operations in flight, each line touched is a cache miss.
#[repr(align(64))]
struct Slot {
    generation: u32,
    kind: OperationKind,
    /// Its cancellation has been requested.
    is_cancelled: bool,
    operation: Operation,
    owner: Rc<dyn Owner>,
}

/// The contents of a slot that the last completion needs.
pub(crate) struct Released {
    pub(crate) kind: OperationKind,
    pub(crate) owner: Rc<dyn Owner>,
    /// The send buffer, for reuse.
    pub(crate) data: Option<Vec<u8>>,
}

impl Slots {
    /// Stores an operation until its terminal completion. The operation moves when the slab grows; what the kernel
    /// has pointers to (send data, addresses) is on the heap or with a lender, and does not.
    ///
    /// Returns the stored operation too, for the backend to fill in pointers for the kernel.
    pub(crate) fn insert(
        &mut self,
        operation: Operation,
        owner: Rc<dyn Owner>,
    ) -> (OperationKey, &mut Operation) {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        // More than 2^32 operations in flight do not fit into memory.
        let key = OperationKey { index: entry.key() as u32, generation };
        (
            key,
            &mut entry
                .insert(Slot { generation, kind: operation.kind(), is_cancelled: false, operation, owner })
                .operation,
        )
    }

    /// The operation in flight with this key.
    pub(crate) fn get(&self, key: OperationKey) -> Option<&Operation> {
        self.slab
            .get(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .map(|slot| &slot.operation)
    }

    /// Marks an operation as cancelled; false if it is over.
    pub(crate) fn note_cancel(&mut self, key: OperationKey) -> bool {
        let slot = self.slab.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation);
        slot.map(|slot| slot.is_cancelled = true).is_some()
    }

    /// Whether the cancellation of an operation in flight has been requested.
    pub(crate) fn is_cancelled(&self, key: OperationKey) -> bool {
        let slot = self.slab.get(key.index as usize).filter(|slot| slot.generation == key.generation);
        slot.is_some_and(|slot| slot.is_cancelled)
    }

    /// As [`get`](Self::get), for submitting the operation again.
    pub(crate) fn get_mut(&mut self, key: OperationKey) -> Option<&mut Operation> {
        self.slab
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .map(|slot| &mut slot.operation)
    }

    /// The kind and the owner of an operation in flight.
    #[inline]
    pub(crate) fn owner(&self, key: OperationKey) -> Option<(OperationKind, Rc<dyn Owner>)> {
        let slot = self.slab.get(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        Some((slot.kind, slot.owner.clone()))
    }

    /// Releases the slot of an operation that has ended.
    #[inline]
    pub(crate) fn release(&mut self, key: OperationKey) -> Option<Released> {
        self.get(key)?;
        let slot = self.slab.remove(key.index as usize);
        let data = match slot.operation {
            Operation::Send { data: SendData::Owned(bytes), .. }
            | Operation::SendZeroCopy { data: SendData::Owned(bytes), .. } => Some(bytes),
            Operation::SendTo { datagram, .. } => match datagram.data {
                SendData::Owned(bytes) => Some(bytes),
                SendData::Lent(_) => None,
            },
            _ => None,
        };
        Some(Released { kind: slot.kind, owner: slot.owner, data })
    }

    /// Prefetches the beginning of an operation's owner, including the `Rc` counts.
    pub(crate) fn prefetch(&self, key: OperationKey) {
        if let Some(slot) = self.slab.get(key.index as usize) {
            let owner = Rc::as_ptr(&slot.owner).cast::<u8>();
            prefetch(owner.wrapping_sub(OWNER_COUNTS_BYTES), OWNER_FRONT_BYTES);
        }
    }

    /// Removes all operations, of which the kernel must have none in flight. Their keys match nothing from then on.
    pub(crate) fn take_all(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.slab)
    }

    /// The descriptors of operations other than accepting, which stay open while these are in flight.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let descriptor_of = |slot: &Slot| match &slot.operation {
            Operation::Receive { socket }
            | Operation::PollInput { socket }
            | Operation::Send { socket, .. }
            | Operation::SendZeroCopy { socket, .. }
            | Operation::Connect { socket, .. } => Some(*socket),
            Operation::Poll { descriptor, .. } => Some(*descriptor),
            // Datagrams have no end.
            Operation::Accept { .. } | Operation::ReceiveFrom { .. } | Operation::SendTo { .. } => None,
            Operation::File(_) => None,
        };
        self.slab.iter().filter_map(|(_, slot)| descriptor_of(slot)).collect()
    }

    /// Operations in flight.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The keys of all operations in flight.
    pub(crate) fn keys(&self) -> Vec<OperationKey> {
        self.slab
            .iter()
            .map(|(index, slot)| OperationKey { index: index as u32, generation: slot.generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Completion, Interest};

    struct Nobody;
    impl Owner for Nobody {
        fn complete(self: Rc<Self>, _: OperationKind, _: Completion) {}
    }

    fn poll() -> Operation {
        Operation::Poll { descriptor: 0, interest: Interest::Readable }
    }

    #[test]
    fn a_reused_slot_does_not_answer_to_its_old_key() {
        let mut slots = Slots::default();
        let (old, _) = slots.insert(poll(), Rc::new(Nobody));
        assert!(slots.owner(old).is_some(), "a multishot completion keeps the slot");
        assert!(slots.release(old).is_some());
        let (new, _) = slots.insert(poll(), Rc::new(Nobody));
        assert_eq!(new.index, old.index, "the slot is reused");
        assert!(slots.release(old).is_none(), "a late completion of the old one finds nothing");
        assert!(slots.get(new).is_some());
        assert_eq!(OperationKey::from_user_data(new.to_user_data()), new);
    }

    #[test]
    fn the_owner_lives_until_the_terminal_completion() {
        let mut slots = Slots::default();
        let owner = Rc::new(Nobody);
        let (key, _) = slots.insert(poll(), owner.clone());
        assert_eq!(Rc::strong_count(&owner), 2);
        drop(slots.release(key));
        assert_eq!(Rc::strong_count(&owner), 1);
        assert_eq!(slots.len(), 0);
    }
}
