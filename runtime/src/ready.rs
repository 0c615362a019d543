//! The queue between reaping and delivery.

use crate::completion::RawCompletion;

/// Completions that have been reaped and not yet delivered, in order.
///
/// A list with a read position instead of a ring buffer, as it is soon emptied: with two completions per echo, wrapping
/// would take 2 % of the echo's instructions.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    completions: Vec<RawCompletion>,
    taken: usize,
}

impl ReadyQueue {
    #[inline]
    pub(crate) fn push_back(&mut self, completion: RawCompletion) {
        self.completions.push(completion);
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<RawCompletion> {
        let first = *self.completions.get(self.taken)?;
        self.taken += 1;
        if self.taken == self.completions.len() {
            self.completions.clear();
            self.taken = 0;
        }
        Some(first)
    }

    /// The completion at this position from the front.
    #[inline]
    pub(crate) fn get(&self, position: usize) -> Option<&RawCompletion> {
        self.completions.get(self.taken + position)
    }

    pub(crate) fn len(&self) -> usize {
        self.completions.len() - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all of `others` to the end.
    pub(crate) fn append(&mut self, others: &mut Self) {
        while let Some(completion) = others.pop_front() {
            self.push_back(completion);
        }
    }

    /// Frees the space of taken completions, so that a queue that never becomes empty does not grow.
    pub(crate) fn compact(&mut self) {
        self.completions.drain(..self.taken);
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::OperationKey;

    fn completion(index: u32) -> RawCompletion {
        RawCompletion::failed(OperationKey { index, generation: 0 }, 1)
    }

    fn indices(queue: &mut ReadyQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_front()).map(|completion| completion.key.index).collect()
    }

    #[test]
    fn completions_come_in_order() {
        let (mut queue, mut others) = (ReadyQueue::default(), ReadyQueue::default());
        (0..4).for_each(|index| queue.push_back(completion(index)));
        assert_eq!(queue.pop_front().map(|first| first.key.index), Some(0));
        (4..6).for_each(|index| others.push_back(completion(index)));
        others.append(&mut queue);
        assert!(queue.is_empty());
        assert_eq!(others.get(1).map(|second| second.key.index), Some(5));
        assert_eq!((others.len(), indices(&mut others)), (5, vec![4, 5, 1, 2, 3]));
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut queue = ReadyQueue::default();
        queue.push_back(completion(0));
        for index in 1..1000 {
            queue.push_back(completion(index));
            assert_eq!(queue.pop_front().map(|first| first.key.index), Some(index - 1));
            queue.compact();
        }
        assert_eq!((queue.len(), queue.completions.len()), (1, 1));
    }
}
