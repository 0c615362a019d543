//! The input side of a socket: the operation that receives pieces, the queue of pieces, and the waiting readers.

use std::cell::{Cell, RefCell};
use std::io;

use ringspun_runtime::{OperationKey, WaitList};

use super::pieces::Pieces;
use super::read_ahead::{LeftBehind, ReadAhead};

/// How many pieces must be taken one by one before a socket counts as busy.
const BUSY_AFTER: u8 = 4;
/// The same of a socket that never counts as busy.
const NEVER: u8 = u8::MAX;

/// That number, or the one that the simulation has chosen.
fn busy_after() -> u8 {
    #[cfg(feature = "simulation")]
    if let Some(simulation) = ringspun_runtime::simulation::current() {
        return simulation.busy_after();
    }
    BUSY_AFTER
}

/// Whether the kernel may have input that can be taken without waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// None, until an operation announces it.
    Nothing,
    /// Some, until a piece was the last one.
    Some,
    /// Some, until an attempt finds nothing: the last piece cannot be recognized.
    UntilNothing,
}

/// Whether the input has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    NotYet,
    Reached,
    /// By an errno, which is returned once.
    Failed(i32),
}

/// The input side of a socket. `P` is a piece, `D` a piece that can be sent to another thread.
///
/// A socket is *busy* once pieces have been taken from it repeatedly. Until then, and while it is shared with other
/// owners, a piece is taken only when a reader wants it: data that no reader waits for stays in the kernel.
#[repr(C)]
pub(crate) struct Input<P, D> {
    pub(crate) announced: Cell<Announced>,
    pub(crate) end: Cell<End>,
    /// How many more pieces must be taken one by one before the socket counts as busy.
    until_busy: Cell<u8>,
    /// The loop sweeps this socket ([`Sweep`](ringspun_runtime::Sweep)).
    pub(crate) is_swept: Cell<bool>,
    /// A piece has been taken since the last sweep.
    pub(crate) was_read: Cell<bool>,
    /// The operation in flight that receives or announces input.
    pub(crate) armed: Cell<Option<OperationKey>>,
    weight: Cell<usize>,
    pub(crate) readers: WaitList,
    pieces: RefCell<Pieces<P>>,
    pub(crate) ahead: ReadAhead<D>,
}

impl<P, D> Input<P, D> {
    pub(crate) fn new(left_behind: Option<LeftBehind<D>>) -> Self {
        Self {
            // A first attempt is cheap, and usually the peer has already sent something.
            announced: Cell::new(Announced::Some),
            end: Cell::new(End::NotYet),
            until_busy: Cell::new(busy_after()),
            is_swept: Cell::new(false),
            was_read: Cell::new(false),
            armed: Cell::new(None),
            weight: Cell::new(0),
            readers: WaitList::default(),
            pieces: RefCell::default(),
            ahead: ReadAhead::new(left_behind),
        }
    }

    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.until_busy.get() == 0
    }

    #[inline]
    pub(crate) fn may_become_busy(&self) -> bool {
        self.until_busy.get() != NEVER
    }

    /// Makes the socket receive one piece at a time for good.
    pub(crate) fn never_receive_ahead(&self) {
        self.until_busy.set(NEVER);
        self.ahead.forbid();
    }

    pub(crate) fn count_taken(&self) {
        if self.may_become_busy() {
            self.until_busy.set(self.until_busy.get().saturating_sub(1));
        }
    }

    /// Makes the socket count as not busy.
    pub(crate) fn reset_busy(&self) {
        self.until_busy.set(busy_after());
    }

    /// The weight of the queued pieces.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.weight.get()
    }

    #[inline]
    pub(crate) fn push_back(&self, piece: P, weight: usize) {
        self.weight.set(self.weight.get() + weight);
        self.pieces.borrow_mut().push_back(piece);
    }

    pub(crate) fn push_front(&self, piece: P, weight: usize) {
        self.weight.set(self.weight.get() + weight);
        self.pieces.borrow_mut().push_front(piece);
    }

    #[inline]
    pub(crate) fn pop_front(&self, weight_of: impl FnOnce(&P) -> usize) -> Option<P> {
        if self.weight.get() == 0 {
            return None;
        }
        let piece = self.pieces.borrow_mut().pop_front()?;
        self.weight.set(self.weight.get() - weight_of(&piece));
        self.was_read.set(true);
        Some(piece)
    }

    /// Takes all queued pieces.
    pub(crate) fn drain(&self) -> Pieces<P> {
        self.weight.set(0);
        self.pieces.take()
    }

    /// `Ok(true)` at the end of the input, `Ok(false)` if more may follow. An error is returned once; afterwards, the
    /// input has ended if `error_is_end`. After `ENOTCONN` it has not: the socket may still be connected.
    pub(crate) fn ended(&self, error_is_end: bool) -> io::Result<bool> {
        match self.end.get() {
            End::NotYet => Ok(false),
            End::Reached => Ok(true),
            End::Failed(errno) => {
                let is_over = error_is_end && errno != libc::ENOTCONN;
                self.end.set(if is_over { End::Reached } else { End::NotYet });
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}
