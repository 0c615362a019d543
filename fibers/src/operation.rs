//! Operations of the event loop that have one completion: on files, and waits for descriptors.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::{
    Completion, EventLoop, FileOperation, Interest, Operation, OperationKey, OperationKind, Owner, Wake,
};

use crate::current::with_current;
use crate::interrupt::Interrupt;
use crate::pollable::Pollable;
use crate::wait::{check, wait_for_completion};
use crate::wait_reason::WaitReason;

/// An operation in flight that has one completion, and its waiter.
pub(crate) struct Single {
    event_loop: Rc<EventLoop>,
    key: Cell<Option<OperationKey>>,
    waiter: RefCell<Option<Rc<dyn Wake>>>,
    /// Present once the operation is over.
    result: Cell<Option<io::Result<u32>>>,
    /// What the operation uses, such as its descriptor.
    _used: Rc<dyn Any>,
}

impl Owner for Single {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.key.set(None);
        self.result.set(Some(completion.result));
        let waiter = self.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl Single {
    /// Submits an operation that has one completion to the loop of the running fiber. `used` is kept until then.
    pub(crate) fn submit(operation: Operation, used: Rc<dyn Any>) -> Rc<Self> {
        let event_loop = with_current(|fiber| fiber.event_loop().clone());
        let (key, waiter, result) = (Cell::new(None), RefCell::new(None), Cell::new(None));
        let single = Rc::new(Self { event_loop, key, waiter, result, _used: used });
        single.key.set(Some(single.event_loop.submit(operation, single.clone())));
        single
    }

    /// The result, once; until then, the completion wakes the waiter.
    pub(crate) fn poll(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<u32>> {
        let result = self.result.take();
        let waiting = result.is_none().then(|| waiter.clone());
        drop(self.waiter.replace(waiting));
        result.map_or(Poll::Pending, Poll::Ready)
    }

    fn cancel(&self) {
        if let Some(key) = self.key.get() {
            self.event_loop.cancel(key);
        }
    }

    /// Gives up: nobody is woken any more, and the operation is cancelled.
    pub(crate) fn abandon(&self) {
        drop(self.waiter.take());
        self.cancel();
    }
}

/// Has the event loop perform an operation on a file, and parks until it is over, also after an interrupt: what it uses
/// may be borrowed from the fiber's stack. An interrupt cancels it; one that has been carried out all the same is a
/// success, and the interrupt stays pending.
///
/// This is for layers that know files; they call it only on loops that
/// [perform these](EventLoop::performs_files).
///
/// # Errors
///
/// The kernel's, such as `EINVAL` for an offset beyond [`i64::MAX`]; `EOPNOTSUPP` on other loops; the interrupt that
/// ended it.
///
/// # Panics
///
/// Outside of a fiber.
pub fn perform(operation: FileOperation) -> io::Result<u32> {
    if let FileOperation::Read { offset, .. } | FileOperation::Write { offset, .. } = &operation
        && i64::try_from(*offset).is_err()
    {
        // Of these, io_uring takes one for the position of the open file.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    complete(Operation::File(Box::new(operation)))
}

/// Parks until a descriptor that can be polled is readable or writable, or at its end.
///
/// # Errors
///
/// The kernel's; the interrupt that ended the wait.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// use ringspun_fibers as fibers;
/// use ringspun_runtime::Interest;
///
/// fibers::run(|| {
///     let (mut reader, mut writer) = std::io::pipe().unwrap();
///     fibers::spawn(move || writer.write_all(b"x").unwrap()).unwrap();
///     fibers::wait_until_ready(&reader, Interest::Readable).unwrap();
///     assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
/// })
/// .unwrap();
/// ```
pub fn wait_until_ready(descriptor: impl AsFd, interest: Interest) -> io::Result<()> {
    // Borrowed until the operation is over.
    let descriptor = descriptor.as_fd().as_raw_fd();
    complete(Operation::Poll { descriptor, interest }).map(drop)
}

/// Parks until the operation is over, also after an interrupt, which cancels it.
fn complete(operation: Operation) -> io::Result<u32> {
    if std::thread::panicking() {
        // Parking now would show the thread's panic to other fibers.
        return Err(Interrupt::Cancelled.into());
    }
    check()?;
    with_current(|fiber| fiber.event_loop().check_process())?;
    let kind = operation.kind();
    let mut single = Single::submit(operation, Rc::new(()));
    let result = wait_for_completion(
        &mut single,
        |single, waiter| single.poll(waiter),
        |single| single.cancel(),
        |_| reason(kind),
    );
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::ECANCELED) => check().err().map_or(error, io::Error::from),
        _ => error,
    })
}

fn reason(kind: OperationKind) -> WaitReason {
    match kind {
        OperationKind::File => WaitReason::new("a file", ""),
        OperationKind::Poll => WaitReason::new("something to read from", "a descriptor"),
        OperationKind::PollOutput => WaitReason::new("room to write to", "a descriptor"),
        _ => WaitReason::new("the kernel", ""),
    }
}

/// A descriptor that is waited for, from [`ready`].
pub struct Ready<D> {
    descriptor: Rc<D>,
    raw: RawFd,
    interest: Interest,
    operation: Option<Rc<Single>>,
}

/// The moment when a descriptor that can be polled is readable or writable, or at its end, to be waited for in a
/// [`Select`](crate::Select). The descriptor stays open until the kernel no longer waits for it.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, Select};
/// use ringspun_runtime::Interest;
///
/// fibers::run(|| {
///     let (reader, _writer) = std::io::pipe().unwrap();
///     let event = Select::new()
///         .on(fibers::ready(Rc::new(reader), Interest::Readable), |_| "readable")
///         .on(fibers::after(Duration::from_millis(1)), |()| "late")
///         .wait();
///     assert_eq!(event, Ok("late"));
/// })
/// .unwrap();
/// ```
pub fn ready<D: AsFd + 'static>(descriptor: Rc<D>, interest: Interest) -> Ready<D> {
    let raw = descriptor.as_fd().as_raw_fd();
    Ready { descriptor, raw, interest, operation: None }
}

impl<D: 'static> Pollable for Ready<D> {
    type Output = io::Result<()>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        with_current(|fiber| fiber.event_loop().check_process())?;
        let operation = self.operation.get_or_insert_with(|| {
            let operation = Operation::Poll { descriptor: self.raw, interest: self.interest };
            Single::submit(operation, self.descriptor.clone())
        });
        operation.poll(waiter).map_ok(drop)
    }

    fn reason(&self) -> WaitReason {
        let operation = match self.interest {
            Interest::Readable => "something to read from",
            Interest::Writable => "room to write to",
        };
        WaitReason::new(operation, format_args!("descriptor {}", self.raw))
    }
}

impl<D> Drop for Ready<D> {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            operation.abandon();
        }
    }
}

impl<D> std::fmt::Debug for Ready<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ready {{ descriptor: {}, {:?} }}", self.raw, self.interest)
    }
}
