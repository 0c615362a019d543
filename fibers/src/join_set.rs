//! Fibers whose results come in the order of their ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;
use slab::Slab;

use crate::interrupt::Interrupt;
use crate::join::{JoinError, JoinHandle};
use crate::spawn::{FiberBuilder, spawn};
use crate::wait::wait_telling;
use crate::wait_reason::WaitReason;

/// Fibers that are joined one after the other, in the order in which they end. Dropping the set cancels those that have
/// not ended for good, as the end of a runtime does, without waiting for them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, JoinSet};
///
/// fibers::run(|| {
///     let mut lookups = JoinSet::new();
///     for (name, delay_ms) in [("slow", 50), ("quick", 1)] {
///         lookups
///             .spawn(move || {
///                 fibers::sleep(Duration::from_millis(delay_ms))?;
///                 Ok::<_, fibers::Interrupt>(name)
///             })
///             .unwrap();
///     }
///     // The first that ends; the others are cancelled.
///     let first = lookups.join_next().unwrap().unwrap().unwrap();
///     assert_eq!(first, Ok("quick"));
///     lookups.cancel();
///     while let Some(other) = lookups.join_next().unwrap() {
///         assert!(other.unwrap().is_err());
///     }
/// })
/// .unwrap();
/// ```
pub struct JoinSet<T> {
    handles: Slab<JoinHandle<T>>,
    ended: Rc<Ended>,
}

/// The indices of fibers that have ended, in that order, and who waits for the next.
#[derive(Default)]
struct Ended {
    indices: RefCell<VecDeque<usize>>,
    waiter: RefCell<Option<Rc<dyn Wake>>>,
}

/// Notes the end of one fiber.
struct NoteEnd {
    ended: Rc<Ended>,
    index: usize,
}

impl Wake for NoteEnd {
    fn wake(self: Rc<Self>) {
        self.ended.indices.borrow_mut().push_back(self.index);
        let waiter = self.ended.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T: 'static> JoinSet<T> {
    /// A set without fibers.
    pub fn new() -> Self {
        Self { handles: Slab::new(), ended: Rc::default() }
    }

    /// Starts a fiber in the set.
    ///
    /// # Errors
    ///
    /// As [`FiberBuilder::spawn`].
    pub fn spawn(&mut self, function: impl FnOnce() -> T + 'static) -> io::Result<()> {
        self.add(spawn(function)?);
        Ok(())
    }

    /// As [`spawn`](Self::spawn), with settings of its own.
    ///
    /// # Errors
    ///
    /// As [`FiberBuilder::spawn`].
    pub fn spawn_with(
        &mut self,
        builder: FiberBuilder,
        function: impl FnOnce() -> T + 'static,
    ) -> io::Result<()> {
        self.add(builder.spawn(function)?);
        Ok(())
    }

    /// Adds a fiber that runs already, or has ended.
    pub fn add(&mut self, handle: JoinHandle<T>) {
        let entry = self.handles.vacant_entry();
        handle.wake_at_end(Rc::new(NoteEnd { ended: self.ended.clone(), index: entry.key() }));
        entry.insert(handle);
    }

    /// Parks until a fiber of the set has ended, and returns its result; `None` if the set has no fiber left. Fibers
    /// that end first come first.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait: no result is lost. The result itself is [`JoinError::Panicked`] if the fiber
    /// panicked.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn join_next(&mut self) -> Result<Option<Result<T, JoinError>>, Interrupt> {
        if self.handles.is_empty() {
            return Ok(None);
        }
        let ended = &self.ended;
        let poll = |_: &mut Slab<_>, waiter: &Rc<dyn Wake>| match ended.indices.borrow_mut().pop_front() {
            Some(index) => Poll::Ready(index),
            None => {
                let replaced = ended.waiter.replace(Some(waiter.clone()));
                drop(replaced);
                Poll::Pending
            }
        };
        let waited = wait_telling(&mut self.handles, poll, |handles| {
            WaitReason::new("the end of", format_args!("any of {} fibers of a set", handles.len()))
        });
        let left = ended.waiter.take();
        drop(left);
        let index = waited?;
        Ok(self.handles.try_remove(index).and_then(|handle| handle.try_join()))
    }

    /// Cancels all fibers of the set for good: every wait of theirs is interrupted from now on. Does not wait for their
    /// ends.
    pub fn cancel(&self) {
        self.handles.iter().for_each(|(_, handle)| handle.cancel_for_good());
    }

    /// How many fibers have not been joined.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether all fibers have been joined.
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// Leaves the fibers to themselves: they run on, and their results are dropped.
    pub fn detach(mut self) {
        self.handles.clear();
    }
}

impl<T: 'static> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.handles.iter().for_each(|(_, handle)| handle.cancel_for_good());
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.handles.len()).finish()
    }
}
