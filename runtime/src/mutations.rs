//! Deliberate bugs, of the kinds that such a runtime must not have: a simulation that does not find them is not
//! worth running. `scripts/check simulation --mutations` has it find each.

use std::cell::Cell;

/// One deliberate bug.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The slot of an operation is free as soon as that is cancelled.
    SlotFreedAtCancel,
    /// A byte of what came last before a receive ended is lost, if nobody waited for it.
    LateByteDropped,
    /// A writer that is done does not wake the next one.
    WakeLost,
    /// A receive buffer of which a part has been read is given back twice.
    BufferReturnedTwice,
    /// A connection that is accepted after its listener was closed stays open.
    LateAcceptLeaked,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::SlotFreedAtCancel,
        Self::LateByteDropped,
        Self::WakeLost,
        Self::BufferReturnedTwice,
        Self::LateAcceptLeaked,
    ];

    /// Has this bug be there on this thread, from now on.
    pub fn activate(self) {
        ACTIVE.set(Some(self));
    }
}

/// Whether this bug is there on this thread.
pub fn mutated(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}
