//! What a simulation does to the program that runs in it, how often, and how often it has done so.

use super::random::Random;

/// Something within the kernel's contract that seldom happens outside of a simulation.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A send took fewer bytes than there was room for.
    ShortSend,
    /// A send ended with a part of its bytes.
    SendCutShort,
    /// A send at once had to wait although there was room.
    SendWouldBlock,
    /// A receive gave fewer bytes than were there.
    ShortReceive,
    /// A completion came later than it could have.
    LateCompletion,
    /// A completion overtook those of other operations.
    Reordered,
    /// A look at the completions gave only some of those that were there.
    FewPerEnter,
    /// A multishot operation ended, with what it gave.
    MultishotEnded,
    /// A receive ended with `ENOBUFS`.
    NoBuffers,
    /// The kernel took no submissions just now (`EAGAIN`, `EBUSY`).
    EnterRefused,
    /// A wait ended with nothing, as by a signal (`EINTR`).
    EnterInterrupted,
    /// The queue of submissions was full, so that completions were reaped in the middle of a turn.
    QueueFull,
    /// A cancel missed an operation that was in flight (`ENOENT`).
    CancelMissed,
    /// A cancel could not stop its operation at once (`EALREADY`).
    CancelTooLate,
    /// An operation succeeded, in all or in part, although it was cancelled.
    LateSuccess,
    /// There was no descriptor left for a connection (`EMFILE`, `ENFILE`), or no memory.
    AcceptExhausted,
    /// A connection was over before it was accepted (`ECONNABORTED`).
    ConnectionAborted,
    /// A connection was refused, or nobody answered.
    ConnectFailed,
    /// A connection was reset by something between its ends.
    Reset,
    /// A socket was told to be readable, and there was nothing to read.
    SpuriousReadiness,
    /// A wait took longer than it was to.
    LateTimer,
    /// The thread did not run for a while.
    Stall,
    /// A new socket got the number of one that was closed before.
    DescriptorReused,
    /// An operation had no buffer because all were in use.
    BuffersExhausted,
    /// A connection ended by a reset, as its peer closed it with bytes unread.
    ResetByClose,
}

const FAULTS: usize = Fault::ResetByClose as usize + 1;

impl Fault {
    /// All of them.
    pub const ALL: [Self; FAULTS] = [
        Self::ShortSend,
        Self::SendCutShort,
        Self::SendWouldBlock,
        Self::ShortReceive,
        Self::LateCompletion,
        Self::Reordered,
        Self::FewPerEnter,
        Self::MultishotEnded,
        Self::NoBuffers,
        Self::EnterRefused,
        Self::EnterInterrupted,
        Self::QueueFull,
        Self::CancelMissed,
        Self::CancelTooLate,
        Self::LateSuccess,
        Self::AcceptExhausted,
        Self::ConnectionAborted,
        Self::ConnectFailed,
        Self::Reset,
        Self::SpuriousReadiness,
        Self::LateTimer,
        Self::Stall,
        Self::DescriptorReused,
        Self::BuffersExhausted,
        Self::ResetByClose,
    ];

    /// The most often that it happens, in 1,024 times where it could.
    fn rate_max(self) -> u32 {
        match self {
            // What ends connections or takes long would leave little to look at.
            Self::Reset | Self::Stall => 8,
            Self::ConnectFailed | Self::ConnectionAborted | Self::AcceptExhausted => 128,
            Self::SendCutShort => 256,
            // These happen by themselves.
            Self::DescriptorReused | Self::BuffersExhausted | Self::ResetByClose => 0,
            _ => 512,
        }
    }
}

/// How often each fault is to happen, and how often it did.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    rates: [u32; FAULTS],
    counts: [u64; FAULTS],
}

impl Plan {
    /// A seed has some faults often, some seldom and some never: where everything happens all the time,
    /// nothing happens for long enough.
    pub(super) fn new(random: &mut Random) -> Self {
        let rates = Fault::ALL.map(|fault| match random.below(3) {
            0 => 0,
            1 => fault.rate_max() / 16,
            _ => 1 + random.below(u64::from(fault.rate_max())) as u32,
        });
        let by_itself = |fault: Fault| fault.rate_max() == 0;
        let rates = std::array::from_fn(|at| if by_itself(Fault::ALL[at]) { 0 } else { rates[at] });
        Self { rates, counts: [0; FAULTS] }
    }

    /// Never has this fault happen.
    pub(super) fn forbid(&mut self, fault: Fault) {
        self.rates[fault as usize] = 0;
    }

    pub(super) fn allows(&self, fault: Fault) -> bool {
        self.rates[fault as usize] > 0
    }

    /// Whether it is to happen now, where it can.
    pub(super) fn strikes(&mut self, random: &mut Random, fault: Fault) -> bool {
        let strikes = self.would_strike(random, fault);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// The same for one that is counted only if something comes of it.
    pub(super) fn would_strike(&self, random: &mut Random, fault: Fault) -> bool {
        random.chance(self.rates[fault as usize])
    }

    /// Counts one that has happened.
    pub(super) fn count(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }

    pub(super) fn count_of(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_stands_where_its_number_says_and_some_seed_has_it() {
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, at);
            let with = (0..100).filter(|seed| Plan::new(&mut Random::new(*seed)).allows(fault)).count();
            assert_eq!(with == 0, fault.rate_max() == 0, "{fault:?}: {with} of 100 seeds");
            assert!(with < 100, "{fault:?} should be absent now and then");
        }
    }
}
