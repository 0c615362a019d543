//! What a supervisor is told of a fiber.

use std::any::Any;
use std::fmt;

use crate::current::with_current;
use crate::fiber::Fiber;

/// An event of a fiber, as its supervisor gets it: see [`FiberBuilder::supervisor`](crate::FiberBuilder::supervisor).
#[non_exhaustive]
#[derive(Debug)]
pub struct FiberEvent {
    /// The fiber's number, which no other fiber of its runtime has.
    pub fiber: u64,
    /// The fiber's name, if it has one.
    pub name: Option<Box<str>>,
    /// What has happened.
    pub what: FiberEventKind,
}

/// What has happened to a fiber, or a message of its own.
#[non_exhaustive]
pub enum FiberEventKind {
    /// Its function has returned, possibly because it was cancelled; the joiner gets the result.
    Returned,
    /// It panicked with this message; the joiner gets the payload.
    Panicked(String),
    /// It was unwound, because it kept waiting after its runtime had begun to end.
    Unwound,
    /// It was stopped for good, because it caught the panic that was to unwind it as well. Its stack, and all that is
    /// on it, is leaked.
    Stopped,
    /// A message from the fiber itself: [`FiberEvent::message`].
    Message(Box<dyn Any>),
}

impl FiberEvent {
    /// An event of the running fiber with a value, like those that Janet's `ev/give-supervisor` sends.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, Channel, FiberBuilder, FiberEvent, FiberEventKind};
    ///
    /// fibers::run(|| {
    ///     let events = Channel::unbounded();
    ///     let builder = FiberBuilder::new().name("worker").supervisor(&events);
    ///     builder
    ///         .spawn(|| {
    ///             if let Some(supervisor) = fibers::supervisor() {
    ///                 supervisor.give(FiberEvent::message("half way")).unwrap();
    ///             }
    ///         })
    ///         .unwrap();
    ///     let event = events.take().unwrap();
    ///     assert_eq!(event.name.as_deref(), Some("worker"));
    ///     let FiberEventKind::Message(value) = event.what else { panic!("no message") };
    ///     assert_eq!(value.downcast_ref(), Some(&"half way"));
    /// })
    /// .unwrap();
    /// ```
    pub fn message(value: impl Any) -> Self {
        Self::of_running(FiberEventKind::Message(Box::new(value)))
    }

    pub(crate) fn of_running(what: FiberEventKind) -> Self {
        with_current(|fiber| Self::of(fiber, what))
    }

    pub(crate) fn of(fiber: &Fiber, what: FiberEventKind) -> Self {
        let (id, name) = fiber.identity();
        Self { fiber: id, name: name.map(Box::from), what }
    }
}

impl fmt::Debug for FiberEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("Returned"),
            Self::Panicked(text) => f.debug_tuple("Panicked").field(text).finish(),
            Self::Unwound => f.write_str("Unwound"),
            Self::Stopped => f.write_str("Stopped"),
            Self::Message(_) => f.write_str("Message(..)"),
        }
    }
}
