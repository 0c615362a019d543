//! Faults that a simulation injects: their kinds, rates and counts.

use super::random::Random;

/// A behaviour within the kernel's contract that is rare outside of a simulation.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A send took fewer bytes than there was room for.
    ShortSend,
    /// A send ended after a part of its bytes.
    SendCutShort,
    /// A non-blocking send failed with `EAGAIN` although there was room.
    SendWouldBlock,
    /// A receive returned fewer bytes than were available.
    ShortReceive,
    /// A completion was delayed.
    LateCompletion,
    /// A completion overtook those of other operations.
    Reordered,
    /// An enter returned only some of the available completions.
    FewPerEnter,
    /// A multishot operation ended together with a result.
    MultishotEnded,
    /// A receive ended with `ENOBUFS`.
    NoBuffers,
    /// The kernel temporarily took no submissions (`EAGAIN`, `EBUSY`).
    EnterRefused,
    /// A wait ended without completions, as by a signal (`EINTR`).
    EnterInterrupted,
    /// The submission queue was full, so that completions were reaped in the middle of a turn.
    QueueFull,
    /// A cancel missed an operation in flight (`ENOENT`).
    CancelMissed,
    /// A cancel could not stop its operation immediately (`EALREADY`).
    CancelTooLate,
    /// An operation succeeded, fully or partly, although it was cancelled.
    LateSuccess,
    /// There was no descriptor (`EMFILE`, `ENFILE`) or no memory for a connection.
    AcceptExhausted,
    /// A connection ended before it was accepted (`ECONNABORTED`).
    ConnectionAborted,
    /// A connect was refused or timed out.
    ConnectFailed,
    /// A connection was reset by the network.
    Reset,
    /// A socket was reported readable with nothing to read.
    SpuriousReadiness,
    /// A wait exceeded its timeout.
    LateTimer,
    /// The thread did not run for a while.
    Stall,
    /// A new socket got the descriptor number of a closed one.
    DescriptorReused,
    /// An operation had no buffer because all were in use.
    BuffersExhausted,
    /// A connection was reset because its peer closed it with unread bytes.
    ResetByClose,
    /// The notification of a zero-copy send came long after its result.
    LateNotification,
    /// A zero-copy send was cancelled before its notification, which disconnects.
    Disconnected,
    /// A read of a file or a pipe returned fewer bytes than there were.
    ShortRead,
    /// A write to a file took fewer bytes.
    ShortWrite,
    /// A call on a file or a pipe ended with `EINTR`.
    FileInterrupted,
    /// A call on a file failed (`EIO`, `ENOSPC`), or could not open it (`EMFILE`, `ENFILE`, `ENOMEM`).
    FileFailed,
    /// A blocking call waited for a thread, or took its time.
    SlowCall,
}

const FAULTS: usize = Fault::SlowCall as usize + 1;

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
        Self::LateNotification,
        Self::Disconnected,
        Self::ShortRead,
        Self::ShortWrite,
        Self::FileInterrupted,
        Self::FileFailed,
        Self::SlowCall,
    ];

    /// The maximum rate, in 1,024 opportunities.
    fn rate_max(self) -> u32 {
        match self {
            // Frequent ends of connections or long stalls would leave little to test.
            Self::Reset | Self::Stall => 8,
            Self::ConnectFailed | Self::ConnectionAborted | Self::AcceptExhausted => 128,
            Self::FileInterrupted | Self::FileFailed => 64,
            Self::SendCutShort => 256,
            // Each takes its time.
            Self::LateNotification => 192,
            // These happen by themselves.
            Self::DescriptorReused | Self::BuffersExhausted | Self::ResetByClose | Self::Disconnected => 0,
            _ => 512,
        }
    }
}

/// The rate of each fault, and how many times it has happened.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    rates: [u32; FAULTS],
    counts: [u64; FAULTS],
}

impl Plan {
    /// A seed has some faults often, some rarely and some never: if all were frequent, no run would get far.
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

    /// Disables a fault.
    pub(super) fn forbid(&mut self, fault: Fault) {
        self.rates[fault as usize] = 0;
    }

    pub(super) fn allows(&self, fault: Fault) -> bool {
        self.rates[fault as usize] > 0
    }

    /// Decides whether a fault happens now, and counts it.
    pub(super) fn strikes(&mut self, random: &mut Random, fault: Fault) -> bool {
        let strikes = self.would_strike(random, fault);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// As [`strikes`](Self::strikes), for a fault that is only counted if it has an effect.
    pub(super) fn would_strike(&self, random: &mut Random, fault: Fault) -> bool {
        random.chance(self.rates[fault as usize])
    }

    /// Counts a fault that has happened.
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
