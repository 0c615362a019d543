//! The scheduler: runs what is ready, then turns the event loop, until the main fiber has ended.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use ringspun_runtime::{Configuration, EventLoop, RemoteWaker, Wait, Wake};
use slab::Slab;

use crate::channel::Channel;
use crate::fiber::Fiber;
use crate::join::{JoinHandle, Packet};
use crate::overflow;
use crate::stack::StackPool;
use crate::supervisor::{FiberEvent, supervisor};

/// The usable stack of a fiber, unless its builder says otherwise. Pages that are never touched cost
/// nothing but address space.
const DEFAULT_STACK_SIZE_BYTES: usize = 128 * 1024;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

type RemoteTask = Box<dyn FnOnce() + Send>;

/// What other threads have asked for.
#[derive(Default)]
struct RemoteQueue {
    tasks: Vec<RemoteTask>,
    ended: bool,
}

pub(crate) struct Scheduler {
    event_loop: Rc<EventLoop>,
    stacks: StackPool,
    ready: RefCell<Vec<Rc<Fiber>>>,
    /// Empty between batches: the memory of the last one, for the next.
    batch: Cell<Vec<Rc<Fiber>>>,
    /// Fibers that yielded: woken once the fibers that are ready now have run.
    yielded: RefCell<Vec<Rc<dyn Wake>>>,
    fibers: RefCell<Slab<Rc<Fiber>>>,
    next_id: Cell<u64>,
    ending: Cell<bool>,
    stack_size_bytes: usize,
    remote: Arc<Mutex<RemoteQueue>>,
}

impl Scheduler {
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Option::clone)
    }

    pub(crate) fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    #[inline(always)]
    pub(crate) fn make_ready(&self, fiber: Rc<Fiber>) {
        self.ready.borrow_mut().push(fiber);
    }

    pub(crate) fn wake_later(&self, waiter: Rc<dyn Wake>) {
        self.yielded.borrow_mut().push(waiter);
    }

    /// Runs the fibers that are ready now; those they make ready wait for the next batch, after a turn
    /// of the loop, so that none can keep the loop from turning.
    fn run_ready(&self) {
        let mut batch = self.batch.take();
        std::mem::swap(&mut batch, &mut self.ready.borrow_mut());
        for fiber in batch.drain(..) {
            if fiber.resume() {
                let listed = self.fibers.borrow_mut().try_remove(fiber.listed_at.get());
                drop(listed);
            }
        }
        self.batch.set(batch);
        for waiter in self.yielded.take() {
            waiter.wake();
        }
    }

    fn run_remote_tasks(&self) {
        let tasks = std::mem::take(&mut self.remote.lock().unwrap_or_else(PoisonError::into_inner).tasks);
        for task in tasks {
            contain_panic(task);
        }
    }

    /// Runs until `done`.
    fn run_until(&self, done: impl Fn() -> bool) -> io::Result<()> {
        loop {
            self.run_ready();
            if done() {
                return Ok(());
            }
            let wait = if self.ready.borrow().is_empty() { Wait::Block } else { Wait::No };
            self.event_loop.turn(wait)?;
            self.run_remote_tasks();
        }
    }

    /// Cancels every fiber and runs them to their ends, then drains the loop.
    fn end(&self) -> io::Result<()> {
        self.ending.set(true);
        let fibers: Vec<_> = self.fibers.borrow().iter().map(|(_, fiber)| fiber.clone()).collect();
        for fiber in fibers {
            fiber.cancel();
        }
        self.run_until(|| self.fibers.borrow().is_empty())?;
        self.event_loop.shutdown()
    }
}

/// Runs what nobody waits for, so that its panic, which the panic hook has told, concerns nobody.
fn contain_panic(function: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(function)) {
        // The payload's own drop may panic. Somebody who does that twice is not listened to.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}

/// Settings of a runtime of fibers on one thread.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, Runtime};
///
/// // A thousand fibers on small stacks.
/// let sum = Runtime::new().stack_size_bytes(16 * 1024).run(|| {
///     let fibers: Vec<_> = (0..1000).map(|n| fibers::spawn(move || n).unwrap()).collect();
///     fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u32>()
/// });
/// assert_eq!(sum.unwrap(), 499_500);
/// ```
#[derive(Clone, Debug)]
pub struct Runtime {
    configuration: Configuration,
    stack_size_bytes: usize,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { configuration: Configuration::default(), stack_size_bytes: DEFAULT_STACK_SIZE_BYTES }
    }
}

impl Runtime {
    /// The default settings: stacks of 128 KiB, and the loop's own defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the usable stack of fibers that do not ask for another, `main` among them, in bytes: at least
    /// 8 KiB, rounded up to whole pages. Pages that are never touched take no memory.
    ///
    /// A fiber that needs more ends the process, with a message that names it. Leave room for the C code
    /// that runs on it, such as `getaddrinfo(3)`, whose need depends on how the system looks names up.
    pub fn stack_size_bytes(mut self, stack_size_bytes: usize) -> Self {
        self.stack_size_bytes = stack_size_bytes;
        self
    }

    /// Sets the sizes of the event loop.
    pub fn configuration(mut self, configuration: Configuration) -> Self {
        self.configuration = configuration;
        self
    }

    /// Runs `main` in a fiber on this thread and returns its result.
    ///
    /// When `main` ends, all other fibers are cancelled: each of their waits, from then on, ends with
    /// [`Interrupt::Cancelled`](crate::Interrupt::Cancelled). A fiber that goes on for a thousand waits
    /// all the same is unwound. The call returns when every fiber has ended and every operation's
    /// terminal completion has come.
    ///
    /// # Errors
    ///
    /// If the event loop cannot be made (see [`EventLoop::new`]), if there is no memory for a stack, or
    /// if the loop fails beyond repair (see [`EventLoop::turn`]); fibers are then leaked, as the kernel may
    /// still use their memory.
    ///
    /// # Panics
    ///
    /// With the panic of `main`, once everything has ended; with that of a task of a [`Remote`], at once,
    /// leaking the fibers; and if a runtime runs on this thread already.
    pub fn run<T: 'static>(self, main: impl FnOnce() -> T + 'static) -> io::Result<T> {
        assert!(Scheduler::current().is_none(), "a runtime of fibers runs on this thread already");
        overflow::install()?;
        let scheduler = Rc::new(Scheduler {
            event_loop: EventLoop::new(&self.configuration)?,
            stacks: StackPool::default(),
            ready: RefCell::default(),
            batch: Cell::default(),
            yielded: RefCell::default(),
            fibers: RefCell::default(),
            next_id: Cell::new(0),
            ending: Cell::new(false),
            stack_size_bytes: self.stack_size_bytes,
            remote: Arc::default(),
        });
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                let scheduler = CURRENT.take();
                if let Some(scheduler) = scheduler {
                    let mut remote = scheduler.remote.lock().unwrap_or_else(PoisonError::into_inner);
                    remote.ended = true;
                    let tasks = std::mem::take(&mut remote.tasks);
                    drop(remote);
                    drop(tasks);
                }
            }
        }
        CURRENT.with_borrow_mut(|current| *current = Some(scheduler.clone()));
        let _leave = Leave;

        let handle = FiberBuilder::new().name("main").spawn(main)?;
        let packet = handle.packet.clone();
        drop(handle);
        let ran = scheduler.run_until(|| packet.is_finished()).and_then(|()| scheduler.end());
        if let Err(error) = ran {
            std::mem::forget(scheduler);
            return Err(error);
        }
        match packet.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => std::panic::resume_unwind(payload),
            None => Err(io::Error::other("the main fiber ended without a result")),
        }
    }
}

/// Runs `main` in a fiber on this thread, with the default [`Runtime`], and returns its result when every
/// fiber has ended.
///
/// # Errors
///
/// As [`Runtime::run`].
///
/// # Panics
///
/// As [`Runtime::run`].
pub fn run<T: 'static>(main: impl FnOnce() -> T + 'static) -> io::Result<T> {
    Runtime::new().run(main)
}

/// How a fiber is to be made.
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

    /// Names the fiber, for its supervisor and for the message of a stack overflow.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the fiber's usable stack in bytes: at least 8 KiB, rounded up to whole pages.
    pub fn stack_size_bytes(mut self, stack_size_bytes: usize) -> Self {
        self.stack_size_bytes = Some(stack_size_bytes);
        self
    }

    /// Has `supervisor` hear how the fiber ends, instead of the supervisor of the spawning fiber, which it
    /// inherits otherwise. The fibers that it spawns inherit this one.
    ///
    /// The event never parks the fiber that ends: where there is no room, it goes beyond the channel's
    /// capacity. A closed channel drops it.
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

    /// Makes the fiber, which first runs after the caller has parked or ended.
    ///
    /// # Errors
    ///
    /// `Unsupported` if no runtime runs on this thread; the kernel's error if there is no memory, or no
    /// mapping, for the stack.
    pub fn spawn<T: 'static>(self, function: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
        let Some(scheduler) = Scheduler::current() else {
            let text = "no runtime of fibers runs on this thread: start one with ringspun_fibers::run";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        let stack = scheduler.stacks.take(self.stack_size_bytes.unwrap_or(scheduler.stack_size_bytes))?;
        let id = scheduler.next_id.get();
        scheduler.next_id.set(id + 1);
        let packet = Packet::new();
        let result = packet.clone();
        let supervisor = self.supervisor.or_else(supervisor);
        let hears = supervisor.clone();
        let body = move || {
            let ending = result.run(function);
            if let Some(hears) = hears {
                hears.give_at_once(FiberEvent::of_running(ending));
            }
            // A result that nobody waits for any more is dropped here.
            contain_panic(|| drop(result));
        };
        let fiber = Fiber::new(scheduler.clone(), id, self.name, supervisor, stack, body);
        fiber.listed_at.set(scheduler.fibers.borrow_mut().insert(fiber.clone()));
        scheduler.make_ready(fiber.clone());
        Ok(JoinHandle { packet, fiber })
    }
}

/// Spawns a fiber with the default [`FiberBuilder`].
///
/// # Errors
///
/// As [`FiberBuilder::spawn`].
pub fn spawn<T: 'static>(function: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
    FiberBuilder::new().spawn(function)
}

/// Reaches the fibers of one thread from any other. It may outlive the runtime.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
///
/// thread_local! {
///     static MESSAGES: Cell<u32> = const { Cell::new(0) };
/// }
///
/// fibers::run(|| {
///     let remote = fibers::remote().unwrap();
///     let thread = std::thread::spawn(move || {
///         // Runs on the first thread, so it sees that thread's messages.
///         remote.execute(|| MESSAGES.set(MESSAGES.get() + 1)).unwrap();
///     });
///     while MESSAGES.get() == 0 {
///         fibers::sleep(Duration::from_millis(1)).unwrap();
///     }
///     thread.join().unwrap();
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Remote {
    queue: Arc<Mutex<RemoteQueue>>,
    waker: RemoteWaker,
}

impl Remote {
    /// Has `task` run on the runtime's thread, between two turns, in the order of the calls. It runs
    /// outside of any fiber, so it may spawn and cancel but not wait. A task that comes while the runtime
    /// ends may be dropped without being run, on the runtime's thread.
    ///
    /// Is not for signal handlers, as it takes a lock and memory. A panic of the task ends only the task.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`]; the task is dropped.
    pub fn execute(&self, task: impl FnOnce() + Send + 'static) -> Result<(), RuntimeEnded> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.ended {
            return Err(RuntimeEnded);
        }
        queue.tasks.push(Box::new(task));
        drop(queue);
        self.waker.wake();
        Ok(())
    }
}

/// The runtime that a [`Remote`] reached has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeEnded;

impl std::fmt::Display for RuntimeEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the runtime has ended")
    }
}

impl std::error::Error for RuntimeEnded {}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

/// A handle by which other threads reach the runtime of this thread; `None` if none runs.
pub fn remote() -> Option<Remote> {
    let scheduler = Scheduler::current()?;
    Some(Remote { queue: scheduler.remote.clone(), waker: scheduler.event_loop.remote_waker() })
}

/// The event loop of this thread's runtime, if one runs. The runtime turns it, and nobody else should.
pub fn event_loop() -> Option<Rc<EventLoop>> {
    Scheduler::current().map(|scheduler| scheduler.event_loop.clone())
}

/// Counts of this thread's fibers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiberStatistics {
    /// Fibers that have not ended, the caller included.
    pub alive: usize,
    /// Stacks that they have.
    pub stacks: usize,
}

/// Counts of this thread's fibers; `None` if no runtime runs on it.
pub fn statistics() -> Option<FiberStatistics> {
    let scheduler = Scheduler::current()?;
    let alive = scheduler.fibers.borrow().len();
    Some(FiberStatistics { alive, stacks: scheduler.stacks.in_use() })
}
