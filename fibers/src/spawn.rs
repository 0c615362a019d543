//! Starting fibers.

use std::io;
use std::rc::Rc;

use ringspun_runtime::contained;

use crate::channel::Channel;
use crate::current::with_running;
use crate::event::FiberEvent;
use crate::fiber::Fiber;
use crate::group::Member;
use crate::join::{JoinHandle, Packet};
use crate::scheduler::Scheduler;
use crate::spans;
use crate::stack::FiberStack;
use crate::wait::failed_at_once;

/// Settings of a new fiber.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, FiberBuilder};
///
/// fn depth_of(list: &[u8]) -> usize {
///     list.split_first().map_or(0, |(_, rest)| 1 + depth_of(rest))
/// }
///
/// fibers::run(|| {
///     let builder = FiberBuilder::new().name("deep").stack_size_bytes(4 * 1024 * 1024);
///     let deep = builder.spawn(|| depth_of(&[0; 10_000])).unwrap();
///     assert_eq!(deep.join().unwrap(), 10_000);
/// })
/// .unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct FiberBuilder {
    name: Option<Box<str>>,
    stack_size_bytes: Option<usize>,
    supervisor: Option<Channel<FiberEvent>>,
}

impl FiberBuilder {
    /// A fiber without a name, on the runtime's default stack size.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the fiber: for its supervisor, for messages about it such as that of a panic, and for logs. It runs in a
    /// span `fiber` of `tracing`, with its number and its name, of the level `INFO` (without a name, `DEBUG`; the main
    /// fiber has none).
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the fiber's usable stack in bytes: at least 8 KiB, rounded up to whole pages.
    pub fn stack_size_bytes(mut self, stack_size_bytes: usize) -> Self {
        self.stack_size_bytes = Some(stack_size_bytes);
        self
    }

    /// Sends `supervisor` an event when the fiber ends. Without this, the fiber inherits the supervisor of the
    /// fiber that spawns it; the fibers that it spawns inherit this one.
    ///
    /// Sending never parks the ending fiber: the event may exceed the channel's capacity. A closed channel
    /// drops it.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers::{self as fibers, Channel, FiberBuilder, FiberEventKind};
    ///
    /// fibers::run(|| {
    ///     let events = Channel::unbounded();
    ///     let supervised = || FiberBuilder::new().supervisor(&events);
    ///     supervised().spawn(|| 42).unwrap();
    ///     supervised().name("clumsy").spawn(|| panic!("dropped a plate")).unwrap();
    ///
    ///     assert!(matches!(events.take().unwrap().what, FiberEventKind::Returned));
    ///     let event = events.take().unwrap();
    ///     assert_eq!(event.name.as_deref(), Some("clumsy"));
    ///     assert!(matches!(event.what, FiberEventKind::Panicked(text) if text == "dropped a plate"));
    /// })
    /// .unwrap();
    /// ```
    pub fn supervisor(mut self, supervisor: &Channel<FiberEvent>) -> Self {
        self.supervisor = Some(supervisor.clone());
        self
    }

    /// Starts the fiber, which first runs after the caller has parked or ended.
    ///
    /// # Errors
    ///
    /// `Unsupported` if no runtime runs on this thread; `Other` after 100,000 fibers that were started while the
    /// runtime ends; the kernel's error if there is no memory, or no mapping, for the stack.
    pub fn spawn<T: 'static>(self, function: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
        let (scheduler, stack) = self.prepare()?;
        let (packet, supervisor) = (Packet::new(None), self.supervisor.or_else(supervisor));
        let body = body(packet.clone(), supervisor.clone(), None, function);
        let fiber = scheduler.add((scheduler.new_id(), self.name), supervisor, None, stack, body);
        Ok(JoinHandle::new(packet, fiber))
    }

    /// As [`spawn`](Self::spawn), as a member of a group, of a function that may borrow.
    ///
    /// # Safety
    ///
    /// What the function, its result and its panic borrow must live until the fiber has left the group.
    pub(crate) unsafe fn spawn_member<'a, T: 'a>(
        self,
        member: &Member,
        function: impl FnOnce() -> T + 'a,
    ) -> io::Result<JoinHandle<T>> {
        let (scheduler, stack) = self.prepare()?;
        let group = member.group().clone();
        let (packet, supervisor) = (Packet::new(Some(group)), self.supervisor.or_else(supervisor));
        let body: Box<dyn FnOnce() + 'a> =
            Box::new(body(packet.clone(), supervisor.clone(), Some(member.clone()), function));
        // SAFETY: only the lifetime changes. The fiber runs the body, and drops all that is in it, before it leaves the
        // group, until when the caller keeps alive what it borrows; or it never runs again, and leaks it.
        let body: Box<dyn FnOnce()> = unsafe { std::mem::transmute(body) };
        let identity = (scheduler.new_id(), self.name);
        let fiber = scheduler.add(identity, supervisor, Some(member.clone()), stack, body);
        Ok(JoinHandle::new(packet, fiber))
    }

    fn prepare(&self) -> io::Result<(Rc<Scheduler>, FiberStack)> {
        let Some(scheduler) = Scheduler::current() else {
            let text = "no runtime of fibers runs on this thread: start one with ringspun_fibers::run";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        let stack = scheduler.take_stack(self.stack_size_bytes).inspect_err(|_| failed_at_once())?;
        Ok((scheduler, stack))
    }
}

/// All that a fiber does.
fn body<T>(
    result: Rc<Packet<T>>,
    supervisor: Option<Channel<FiberEvent>>,
    member: Option<Member>,
    function: impl FnOnce() -> T,
) -> impl FnOnce() {
    move || {
        let ending = result.run(|| {
            let _span = span().entered();
            function()
        });
        contained(clear_locals);
        if let Some(supervisor) = supervisor {
            supervisor.give_at_once(FiberEvent::of_running(ending));
        }
        // Drops the result here if the handle is gone.
        contained(|| drop(result));
        // Last: from here on, nothing that the function borrowed is used.
        if let Some(member) = member {
            member.leave();
        }
    }
}

fn clear_locals() {
    with_running(|fiber| fiber.map(|fiber| fiber.locals().clear()));
}

/// The span that names the running fiber in logs. It has no parent: what a fiber does is its own, whoever spawned it.
fn span() -> tracing::Span {
    if !spans::may_be_entered() {
        return tracing::Span::none();
    }
    with_running(|fiber| match fiber.map(Fiber::identity) {
        None | Some((0, _)) => tracing::Span::none(),
        Some((id, Some(name))) => tracing::info_span!(parent: None, "fiber", id, name),
        Some((id, None)) => tracing::debug_span!(parent: None, "fiber", id),
    })
}

/// Spawns a fiber with the default [`FiberBuilder`].
///
/// # Errors
///
/// As [`FiberBuilder::spawn`].
pub fn spawn<T: 'static>(function: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
    FiberBuilder::new().spawn(function)
}

/// The supervisor of the running fiber: the channel that it was spawned with, or inherited. `None` without one, and
/// outside of a fiber.
pub fn supervisor() -> Option<Channel<FiberEvent>> {
    with_running(|fiber| Scheduler::current()?.supervisor_of(fiber?))
}
