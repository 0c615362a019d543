//! The input side of a socket: what brings pieces, those that nobody has taken yet, and who waits for more.

use std::cell::{Cell, RefCell};
use std::io;

use ringspun_runtime::OperationKey;

use super::pieces::Pieces;
use super::read_ahead::{LeftBehind, ReadAhead};
use crate::wait_list::WaitList;

/// So many pieces taken one by one prove that a socket is busy.
const BUSY_AFTER: u8 = 16;

/// That number, or the one that a simulation has chosen.
fn busy_after() -> u8 {
    #[cfg(feature = "simulation")]
    if let Some(simulation) = ringspun_runtime::simulation::current() {
        return simulation.busy_after();
    }
    BUSY_AFTER
}

/// Whether there may be something to take from the kernel without waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Nothing until an operation says so.
    Nothing,
    /// Something, and after a piece that was the last one, nothing.
    Some,
    /// Something, until there is nothing.
    UntilNothing,
}

/// How far the input has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    NotYet,
    Reached,
    /// An errno, to be raised once.
    Failed(i32),
}

/// The input side of a socket. `P` is a piece, `D` a piece that can go to another thread.
///
/// A socket is *busy* when pieces have been taken from it again and again. Until then, and where it is shared with
/// other owners, each piece is taken when a reader wants it, so that what nobody waits for stays in the kernel.
#[repr(C)]
pub(crate) struct Input<P, D> {
    pub(crate) announced: Cell<Announced>,
    pub(crate) end: Cell<End>,
    /// Pieces that have yet to be taken one by one, until the socket is busy.
    until_busy: Cell<u8>,
    /// The loop will ask whether the socket is still read ([`Sweep`](ringspun_runtime::Sweep)).
    pub(crate) is_swept: Cell<bool>,
    /// A piece has been taken since the loop asked last.
    pub(crate) was_read: Cell<bool>,
    /// What brings pieces, or tells of them, while it is in flight.
    pub(crate) armed: Cell<Option<OperationKey>>,
    weight: Cell<usize>,
    pub(crate) readers: WaitList,
    pieces: RefCell<Pieces<P>>,
    pub(crate) ahead: ReadAhead<D>,
}

impl<P, D> Input<P, D> {
    pub(crate) fn new(left_behind: Option<LeftBehind<D>>) -> Self {
        Self {
            // A first look costs little, and most often the peer has sent something already.
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

    pub(crate) fn count_taken(&self) {
        self.until_busy.set(self.until_busy.get().saturating_sub(1));
    }

    /// Has the socket prove anew that it is busy.
    pub(crate) fn calm(&self) {
        self.until_busy.set(busy_after());
    }

    /// The weight of the pieces that nobody has taken.
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

    /// Takes all pieces.
    pub(crate) fn drain(&self) -> Pieces<P> {
        self.weight.set(0);
        self.pieces.take()
    }

    /// `Ok(true)` at the end of the input, `Ok(false)` if more may come. An error is raised once; then it is the end,
    /// or things go on, as `is_end` says. A socket that has no peer yet may get one.
    pub(crate) fn ended(&self, is_end: bool) -> io::Result<bool> {
        match self.end.get() {
            End::NotYet => Ok(false),
            End::Reached => Ok(true),
            End::Failed(errno) => {
                let is_over = is_end && errno != libc::ENOTCONN;
                self.end.set(if is_over { End::Reached } else { End::NotYet });
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}
