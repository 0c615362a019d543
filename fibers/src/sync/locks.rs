//! Locks that may be held across a wait, and semaphores.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use super::permits::{Permits, Take};
use crate::interrupt::Interrupt;
use crate::pollable::{Pollable, wait_for};
use crate::wait::wait_telling;
use crate::wait_reason::{WaitReason, short_name};

/// A lock for the fibers of one thread that may be held across a wait, where a lock of the standard library would block
/// the thread. Fibers get it in the order of their calls. It is not poisoned by a panic.
///
/// Between two waits no other fiber runs, so what is changed without a wait needs no lock: a `RefCell` will do.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// use ringspun_fibers::{self as fibers, sync::Mutex};
///
/// fibers::run(|| {
///     let log = Rc::new(Mutex::new(Vec::new()));
///     let writers = [1, 2].map(|number| {
///         let log = log.clone();
///         fibers::spawn(move || {
///             let mut log = log.lock().unwrap();
///             log.push(number);
///             fibers::yield_now().unwrap(); // the other one waits for the lock
///             log.push(number);
///         })
///         .unwrap()
///     });
///     for writer in writers {
///         writer.join().unwrap();
///     }
///     assert_eq!(*log.lock().unwrap(), [1, 1, 2, 2]);
/// })
/// .unwrap();
/// ```
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    permits: MutexPermits,
    value: RefCell<T>,
}

/// One, which whoever holds the lock has.
struct MutexPermits(Permits);

impl Default for MutexPermits {
    fn default() -> Self {
        Self(Permits::new(1))
    }
}

impl<T> Mutex<T> {
    /// A lock that is free.
    pub fn new(value: T) -> Self {
        Self { permits: MutexPermits::default(), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Parks until the lock is free, and takes it.
    ///
    /// # Errors
    ///
    /// The interrupt that ended the wait; the fiber's place in the queue is given up.
    ///
    /// # Panics
    ///
    /// If it has to park outside of a fiber.
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, Interrupt> {
        match self.try_lock() {
            Some(guard) => Ok(guard),
            None => wait_for(self.locking()),
        }
    }

    /// Takes the lock if it is free and nobody waits for it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.permits.0.try_take(1).then(|| self.guard())
    }

    /// The lock, to be waited for in a [`Select`](crate::Select).
    pub fn locking(&self) -> Locking<'_, T> {
        Locking { mutex: self, take: self.permits.0.take(1) }
    }

    /// The value, which nobody else can have now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { value: self.value.borrow_mut(), _permits: Held(&self.permits.0, 1) }
    }
}

/// Gives permits back when dropped.
struct Held<'a>(&'a Permits, usize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.give(self.1);
    }
}

/// A [`Mutex`] that is held, until this is dropped. The value is released before the lock is.
pub struct MutexGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    _permits: Held<'a>,
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// A wait for a [`Mutex`], from [`Mutex::locking`].
pub struct Locking<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    take: Take<'a>,
}

impl<'a, T: ?Sized> Pollable for Locking<'a, T> {
    type Output = MutexGuard<'a, T>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        self.take.poll(waiter).map(|()| self.mutex.guard())
    }

    fn reason(&self) -> WaitReason {
        self.mutex.permits.0.reason("lock of", &format!("Mutex<{}>", short_name::<T>()))
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.try_borrow() {
            Ok(value) => f.debug_tuple("Mutex").field(&&*value).finish(),
            Err(_) => f.write_str("Mutex(<held>)"),
        }
    }
}

/// How many readers a lock can have at once; a writer takes the place of all.
const READERS_MAX: usize = u32::MAX as usize;

/// As [`Mutex`], for any number of readers or one writer. Fibers get it in the order of their calls: who reads after a
/// writer has begun to wait waits for that writer.
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, sync::RwLock};
///
/// fibers::run(|| {
///     let routes = RwLock::new(vec!["/"]);
///     {
///         let (one, another) = (routes.read().unwrap(), routes.read().unwrap());
///         assert_eq!(one.len(), another.len());
///         assert!(routes.try_write().is_none());
///     }
///     routes.write().unwrap().push("/about");
///     assert_eq!(routes.into_inner(), ["/", "/about"]);
/// })
/// .unwrap();
/// ```
pub struct RwLock<T: ?Sized> {
    permits: Permits,
    value: RefCell<T>,
}

impl<T> RwLock<T> {
    /// A lock that is free.
    pub fn new(value: T) -> Self {
        Self { permits: Permits::new(READERS_MAX), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Parks until nobody writes, and begins to read.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`].
    pub fn read(&self) -> Result<ReadGuard<'_, T>, Interrupt> {
        if !self.permits.try_take(1) {
            self.wait_for_lock(1, "lock to read of")?;
        }
        Ok(self.read_guard())
    }

    /// Parks until nobody reads or writes, and begins to write.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`].
    pub fn write(&self) -> Result<WriteGuard<'_, T>, Interrupt> {
        if !self.permits.try_take(READERS_MAX) {
            self.wait_for_lock(READERS_MAX, "lock to write of")?;
        }
        Ok(self.write_guard())
    }

    fn wait_for_lock(&self, permits: usize, operation: &'static str) -> Result<(), Interrupt> {
        wait_telling(&mut self.permits.take(permits), Take::poll, |_| {
            self.permits.reason(operation, &format!("RwLock<{}>", short_name::<T>()))
        })
    }

    /// Begins to read if nobody writes or waits.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        self.permits.try_take(1).then(|| self.read_guard())
    }

    /// Begins to write if nobody reads, writes or waits.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.permits.try_take(READERS_MAX).then(|| self.write_guard())
    }

    /// The value, which nobody else can have now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn read_guard(&self) -> ReadGuard<'_, T> {
        ReadGuard { value: self.value.borrow(), _permits: Held(&self.permits, 1) }
    }

    fn write_guard(&self) -> WriteGuard<'_, T> {
        WriteGuard { value: self.value.borrow_mut(), _permits: Held(&self.permits, READERS_MAX) }
    }
}

/// A [`RwLock`] that is read, until this is dropped.
pub struct ReadGuard<'a, T: ?Sized> {
    value: Ref<'a, T>,
    _permits: Held<'a>,
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A [`RwLock`] that is written, until this is dropped.
pub struct WriteGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    _permits: Held<'a>,
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.try_borrow() {
            Ok(value) => f.debug_tuple("RwLock").field(&&*value).finish(),
            Err(_) => f.write_str("RwLock(<written>)"),
        }
    }
}

/// A number of permits, which fibers take and give back: to limit how many do something at once. They are given in the
/// order of the calls, so that who wants many is not starved by those who want few.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// use ringspun_fibers::{self as fibers, sync::Semaphore};
///
/// fibers::run(|| {
///     // At most two at a time.
///     let slots = Rc::new(Semaphore::new(2));
///     let jobs: Vec<_> = (0..6)
///         .map(|_| {
///             let slots = slots.clone();
///             fibers::spawn(move || {
///                 let _slot = slots.acquire(1).unwrap();
///                 let others = slots.available();
///                 fibers::yield_now().unwrap();
///                 others
///             })
///             .unwrap()
///         })
///         .collect();
///     assert!(jobs.into_iter().all(|job| job.join().unwrap() < 2));
///     assert_eq!(slots.available(), 2);
/// })
/// .unwrap();
/// ```
pub struct Semaphore {
    permits: Permits,
}

impl Semaphore {
    /// A semaphore with this number of permits.
    pub fn new(permits: usize) -> Self {
        Self { permits: Permits::new(permits) }
    }

    /// Parks until there are `count` permits, and takes them. More than the semaphore ever has are waited for until an
    /// interrupt.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`].
    pub fn acquire(&self, count: usize) -> Result<Permit<'_>, Interrupt> {
        if !self.permits.try_take(count) {
            wait_for(self.permits.take(count))?;
        }
        Ok(Permit(Held(&self.permits, count)))
    }

    /// Takes `count` permits if there are so many, and nobody waits.
    pub fn try_acquire(&self, count: usize) -> Option<Permit<'_>> {
        self.permits.try_take(count).then(|| Permit(Held(&self.permits, count)))
    }

    /// Adds permits.
    pub fn add(&self, count: usize) {
        self.permits.give(count);
    }

    /// How many permits nobody has.
    pub fn available(&self) -> usize {
        self.permits.available()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish()
    }
}

/// Permits of a [`Semaphore`], which are given back when this is dropped.
pub struct Permit<'a>(Held<'a>);

impl Permit<'_> {
    /// Takes the permits away from the semaphore for good.
    pub fn forget(self) {
        std::mem::forget(self.0);
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.0.1).finish()
    }
}
