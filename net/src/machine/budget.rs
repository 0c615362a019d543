//! Limits the calls on a socket that succeed without waiting, for fairness.

use std::cell::Cell;

use ringspun_runtime::EventLoop;

/// The cost of the calls since the last turn of the loop: a fiber whose calls never wait must not starve the others.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    turn: Cell<u32>,
    spent: Cell<u8>,
}

impl Budget {
    /// What the calls of a stream may cost per turn of the loop.
    pub(crate) const OF_STREAM: u8 = 16;
    /// The same for a socket that serves many peers.
    pub(crate) const OF_SHARED_SOCKET: u8 = 64;
    /// The cost of a receive: that of a few sends, because a peer that sends continuously decides how many receives
    /// there are.
    pub(crate) const RECEIVE: u8 = 4;
    /// The cost of a small message, a connection or a datagram.
    pub(crate) const MESSAGE: u8 = 1;

    /// Spends the cost of a call out of `per_turn`; false if the budget is used up until the next turn.
    #[inline]
    pub(crate) fn spend(&self, event_loop: &EventLoop, cost: u8, per_turn: u8) -> bool {
        let turn = event_loop.turn_count();
        let spent = if self.turn.replace(turn) == turn { self.spent.get() } else { 0 };
        let is_left = spent < per_turn;
        self.spent.set(if is_left { spent.saturating_add(cost) } else { spent });
        is_left
    }

    /// The cost of a send, which grows with its length.
    pub(crate) fn of_send(length_bytes: usize) -> u8 {
        const BYTES_PER_UNIT: usize = 16 * 1024;
        (1 + length_bytes / BYTES_PER_UNIT).min(Self::OF_STREAM.into()) as u8
    }
}
