//! A queue of input pieces.

use std::collections::VecDeque;

/// A queue that allocates no memory for the common case of at most one piece.
pub(crate) struct Pieces<P> {
    /// `None` if the queue is empty.
    first: Option<P>,
    #[expect(clippy::box_collection, reason = "rarely needed, and each socket has a queue")]
    rest: Option<Box<VecDeque<P>>>,
}

impl<P> Default for Pieces<P> {
    fn default() -> Self {
        Self { first: None, rest: None }
    }
}

impl<P> Pieces<P> {
    #[inline]
    pub(crate) fn push_back(&mut self, piece: P) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.rest().push_back(piece),
        }
    }

    #[cold]
    fn rest(&mut self) -> &mut VecDeque<P> {
        self.rest.get_or_insert_default()
    }

    pub(crate) fn push_front(&mut self, piece: P) {
        if let Some(second) = self.first.replace(piece) {
            self.rest().push_front(second);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<P> {
        match &mut self.rest {
            None => self.first.take(),
            Some(rest) => std::mem::replace(&mut self.first, rest.pop_front()),
        }
    }
}

impl<P> IntoIterator for Pieces<P> {
    type Item = P;
    type IntoIter = std::iter::Chain<std::option::IntoIter<P>, std::collections::vec_deque::IntoIter<P>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest.map_or(VecDeque::new(), |rest| *rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_from_either_end() {
        let mut pieces = Pieces::default();
        assert!(pieces.pop_front().is_none());
        (2..5).for_each(|piece| pieces.push_back(piece));
        pieces.push_front(1);
        assert_eq!(pieces.pop_front(), Some(1));
        pieces.push_back(5);
        assert!(std::mem::take(&mut pieces).into_iter().eq(2..6));
        pieces.push_front(6);
        assert!(pieces.into_iter().eq([6]));
    }
}
