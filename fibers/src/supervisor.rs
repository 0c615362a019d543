//! Supervisors: channels that hear how fibers end.

use std::any::Any;
use std::fmt;

use crate::channel::Channel;
use crate::running::{with_current_fiber, with_running};

/// What a supervisor hears of a fiber: see [`FiberBuilder::supervisor`](crate::FiberBuilder::supervisor).
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

/// What has happened to a fiber, or what it says.
#[non_exhaustive]
pub enum FiberEventKind {
    /// Its function has returned. A fiber that was cancelled and returned because of it is among these: its
    /// result is with whoever joins it.
    Returned,
    /// It panicked, with this text; the payload is with whoever joins it.
    Panicked(String),
    /// It was unwound, because it went on waiting after its runtime had begun to end.
    Unwound,
    /// What the fiber itself had to say: [`FiberEvent::message`].
    Message(Box<dyn Any>),
}

impl FiberEvent {
    /// An event of the running fiber, with a value of its own, as Janet's `ev/give-supervisor` sends.
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
        with_current_fiber(|fiber| {
            let (id, name) = fiber.identity();
            Self { fiber: id, name: name.map(Box::from), what }
        })
    }
}

impl fmt::Debug for FiberEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("Returned"),
            Self::Panicked(text) => f.debug_tuple("Panicked").field(text).finish(),
            Self::Unwound => f.write_str("Unwound"),
            Self::Message(_) => f.write_str("Message(..)"),
        }
    }
}

/// The supervisor of the running fiber: the channel that it was spawned with, or that its spawner had. `None`
/// without one, and outside of a fiber.
pub fn supervisor() -> Option<Channel<FiberEvent>> {
    with_running(|fiber| fiber?.supervisor().cloned())
}
