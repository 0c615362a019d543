//! Counts of what was interrupted by what, and random choices.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net as net;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Connect,
    Accept,
    AcceptLoop,
    Read,
    Chunk,
    Receive,
    Write,
    LargeWrite,
    ZeroCopyWrite,
    ReceiveFrom,
    SendTo,
    LookUp,
    Join,
    Sleep,
    File,
    Pipe,
    Child,
    Signal,
}

pub const OPERATIONS: [Operation; 18] = {
    use Operation::*;
    [
        Connect,
        Accept,
        AcceptLoop,
        Read,
        Chunk,
        Receive,
        Write,
        LargeWrite,
        ZeroCopyWrite,
        ReceiveFrom,
        SendTo,
        LookUp,
        Join,
        Sleep,
        File,
        Pipe,
        Child,
        Signal,
    ]
};

/// What ended an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    Cancel,
    Deadline,
    Timeout,
    Close,
    Reset,
    End,
}

pub const MEANS: [Means; 6] =
    [Means::Cancel, Means::Deadline, Means::Timeout, Means::Close, Means::Reset, Means::End];

/// xorshift: enough to choose, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    pub fn fork(&mut self) -> Self {
        Self(self.next() | 1)
    }

    pub fn moment(&mut self) -> Duration {
        Duration::from_micros(match self.below(4) {
            0 => 0,
            1 | 2 => self.below(200),
            _ => self.below(1000),
        })
    }
}

/// What ends an operation from within its own fiber.
#[derive(Clone, Copy)]
pub enum Limit {
    None,
    Deadline(Duration),
    Timeout(Duration),
}

impl Limit {
    pub fn random(random: &mut Random) -> Self {
        match random.below(3) {
            0 => Self::None,
            1 => Self::Deadline(random.moment()),
            _ => Self::Timeout(random.moment()),
        }
    }

    /// For operations without a timeout of their own, and that nobody else might end.
    pub fn deadline(random: &mut Random) -> Self {
        Self::Deadline(random.moment())
    }

    pub fn timeout(self) -> Option<Duration> {
        if let Self::Timeout(timeout) = self { Some(timeout) } else { None }
    }

    pub fn hold<T>(self, operation: impl FnOnce() -> T) -> T {
        match self {
            Self::Deadline(duration) => fibers::with_deadline(duration, operation),
            _ => operation(),
        }
    }
}

/// How an operation failed.
pub enum Failure {
    Interrupted,
    /// Closed by this side or by the peer: nothing more can be done.
    Over,
}

/// What the fibers of a storm share.
pub struct Storm {
    pub hits: [[Cell<usize>; MEANS.len()]; OPERATIONS.len()],
    pub ending: Cell<bool>,
    /// Where connecting takes for ever.
    pub full: SocketAddr,
}

impl Storm {
    pub fn new(full: SocketAddr) -> Rc<Self> {
        Rc::new(Self { hits: Default::default(), ending: Cell::new(false), full })
    }

    pub fn hit(&self, operation: Operation, means: Means) {
        let cell = &self.hits[operation as usize][means as usize];
        cell.set(cell.get() + 1);
    }

    pub fn interrupted(&self, operation: Operation, limit: Limit, interrupt: Interrupt) {
        let means = match (interrupt, limit) {
            (Interrupt::Cancelled, _) if self.ending.get() => Means::End,
            (Interrupt::Cancelled, _) => Means::Cancel,
            (_, Limit::Timeout(_)) => Means::Timeout,
            _ => Means::Deadline,
        };
        self.hit(operation, means);
    }

    pub fn failed(&self, operation: Operation, limit: Limit, error: &io::Error) -> Failure {
        if let Some(interrupt) = net::interrupt_of(error) {
            self.interrupted(operation, limit, interrupt);
            return Failure::Interrupted;
        }
        match error.kind() {
            _ if net::is_closed(error) => self.hit(operation, Means::Close),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.hit(operation, Means::Reset),
            ErrorKind::ConnectionRefused
                if matches!(operation, Operation::Connect | Operation::SendTo | Operation::LookUp) => {}
            _ => panic!("{operation:?} failed: {error}"),
        }
        Failure::Over
    }

    pub fn sleep(&self, random: &mut Random) {
        if let Err(interrupt) = fibers::sleep(random.moment()) {
            self.interrupted(Operation::Sleep, Limit::None, interrupt);
        }
    }

    pub fn total(&self) -> usize {
        self.hits.iter().flatten().map(Cell::get).sum()
    }

    pub fn print(&self) {
        println!("{:12}{}", "", MEANS.map(|means| format!("{:>10}", format!("{means:?}"))).concat());
        for (operation, hits) in OPERATIONS.iter().zip(&self.hits) {
            let row: String = hits.iter().map(|hits| format!("{:>10}", hits.get())).collect();
            println!("{:12}{row}", format!("{operation:?}"));
        }
        println!("{} cancellations hit", self.total());
    }
}
