//! What the fibers of a runtime are asked for a dump: what each waits for, and its stack.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::backtrace::return_addresses;
use crate::wait_reason::WaitReason;

/// The answers so far, while fibers are asked.
#[derive(Default)]
pub(crate) struct Inquiry(RefCell<Option<Answers>>);

#[derive(Default)]
pub(crate) struct Answers {
    /// By the number of the fiber.
    pub(crate) waits: HashMap<u64, Wait>,
    /// One of each kind of stack.
    pub(crate) stacks: Vec<Arc<Backtrace>>,
    known: HashMap<Box<[usize]>, usize>,
}

/// A wait of a fiber.
pub(crate) struct Wait {
    pub(crate) reason: WaitReason,
    /// Which of the stacks is the fiber's; `None` if it had no room to look at.
    pub(crate) stack: Option<usize>,
}

impl Inquiry {
    /// Begins to collect answers; false if somebody does so already.
    pub(crate) fn begin(&self) -> bool {
        let mut answers = self.0.borrow_mut();
        let is_free = answers.is_none();
        if is_free {
            *answers = Some(Answers::default());
        }
        is_free
    }

    /// The answers; later ones are of no interest.
    pub(crate) fn end(&self) -> Answers {
        self.0.take().unwrap_or_default()
    }

    /// Answers for the running fiber.
    #[cold]
    pub(crate) fn answer(&self, fiber: u64, stack: Range<usize>, reason: &dyn Fn() -> WaitReason) {
        if self.0.borrow().is_none() {
            return;
        }
        // Code of others, so nothing is borrowed.
        let reason = reason();
        let addresses = return_addresses(stack);
        if let Some(answers) = &mut *self.0.borrow_mut() {
            let stack = addresses.map(|addresses| answers.stack_of(addresses));
            answers.waits.insert(fiber, Wait { reason, stack });
        }
    }
}

impl Answers {
    fn stack_of(&mut self, addresses: Box<[usize]>) -> usize {
        *self.known.entry(addresses).or_insert_with(|| {
            // Its functions get their names only where it is printed.
            self.stacks.push(Arc::new(Backtrace::force_capture()));
            self.stacks.len() - 1
        })
    }
}
