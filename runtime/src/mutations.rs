//! Deliberate bugs of the kinds that a runtime must not have. `scripts/check simulation --mutations` checks that the
//! simulation finds each.

use std::cell::Cell;

/// One deliberate bug.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The slot of an operation is freed when the operation is cancelled.
    SlotFreedAtCancel,
    /// A receive that ends loses the last byte if no reader waits for it.
    LateByteDropped,
    /// A writer that is done does not wake the next one.
    WakeLost,
    /// A partly read receive buffer is returned twice.
    BufferReturnedTwice,
    /// A connection that is accepted after its listener was closed stays open.
    LateAcceptLeaked,
    /// A lock that is released wakes nobody who waits for it.
    PermitForgotten,
    /// A scope whose fiber is interrupted is left before its fibers have ended.
    ScopeLeft,
    /// The decrypted bytes that an interrupted read has put back are lost.
    DecryptedBytesLost,
    /// A zero-copy send is over with its result, though the kernel still uses the data.
    NotificationIgnored,
    /// The cancel of a zero-copy send that waits for its notification does not disconnect.
    NotificationAwaited,
    /// A file that is opened after its open was cancelled stays open.
    LateOpenLeaked,
    /// A write to a file that took a part of the bytes counts as whole.
    ShortWriteTrusted,
    /// What an interrupted write has put into a pipe is not told.
    PipeBytesUntold,
    /// Who takes a signal takes others along that have arrived.
    SignalsSwallowed,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::SlotFreedAtCancel,
        Self::LateByteDropped,
        Self::WakeLost,
        Self::BufferReturnedTwice,
        Self::LateAcceptLeaked,
        Self::PermitForgotten,
        Self::ScopeLeft,
        Self::DecryptedBytesLost,
        Self::NotificationIgnored,
        Self::NotificationAwaited,
        Self::LateOpenLeaked,
        Self::ShortWriteTrusted,
        Self::PipeBytesUntold,
        Self::SignalsSwallowed,
    ];

    /// Activates this bug on this thread.
    pub fn activate(self) {
        ACTIVE.set(Some(self));
    }
}

/// Whether this bug is active on this thread.
pub fn mutated(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}
