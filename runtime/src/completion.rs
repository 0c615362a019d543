//! A completion as a backend reports it, before the loop turns it into a [`Completion`](crate::Completion).

use crate::operation::OperationKey;

/// A completion in the terms of `io_uring_enter(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawCompletion {
    pub(crate) key: OperationKey,
    /// A count, or a negated errno. For a datagram, the count includes the header in the buffer.
    pub(crate) result: i32,
    pub(crate) more: bool,
    /// The receive buffer that the backend has filled and no longer uses.
    pub(crate) buffer: Option<u16>,
    /// This is the completion of a cancel that did not find its operation. If the operation is not over, it was moving
    /// between two queues of the kernel, and must be cancelled again.
    pub(crate) cancel_missed: bool,
}

impl RawCompletion {
    pub(crate) fn failed(key: OperationKey, errno: i32) -> Self {
        Self { key, result: -errno, more: false, buffer: None, cancel_missed: false }
    }
}
