//! Values that each fiber has for itself.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

const DROPPED_MAX: u32 = 10_000;

/// The values of one fiber, by the addresses of their keys.
#[derive(Default)]
pub(crate) struct Locals(RefCell<Vec<(*const (), Rc<dyn Any>)>>);

impl Locals {
    /// The value of a key, which `init` makes if there is none.
    pub(crate) fn get<T: 'static>(&self, key: *const (), init: fn() -> T) -> Rc<T> {
        if let Some(value) = self.find(key) {
            return value;
        }
        // May itself use fiber-locals.
        let value = Rc::new(init());
        self.find(key).unwrap_or_else(|| {
            self.0.borrow_mut().push((key, value.clone()));
            value
        })
    }

    fn find<T: 'static>(&self, key: *const ()) -> Option<Rc<T>> {
        let values = self.0.borrow();
        let (_, value) = values.iter().find(|(known, _)| *known == key)?;
        value.clone().downcast().ok()
    }

    /// Drops the values, the last one that was made first. What their destructors make again and again is leaked.
    pub(crate) fn clear(&self) {
        for _ in 0..DROPPED_MAX {
            let value = self.0.borrow_mut().pop();
            if value.is_none() {
                return;
            }
        }
        std::mem::forget(self.0.take());
    }
}

/// A value that each fiber has for itself, made when the fiber first uses it. Where `thread_local!` would be shared by
/// all fibers of a thread, this is not.
///
/// The values are dropped at the end of the fiber, by the fiber itself: their destructors may wait. They are not
/// inherited by fibers that the fiber spawns.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
///
/// use ringspun_fibers::{self as fibers, FiberLocal};
///
/// static REQUEST: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(0));
///
/// fibers::run(|| {
///     let fibers = [1, 2].map(|number| {
///         fibers::spawn(move || {
///             REQUEST.with(|request| request.set(number));
///             fibers::yield_now().unwrap(); // the other one sets its own
///             REQUEST.with(Cell::get)
///         })
///         .unwrap()
///     });
///     assert_eq!(fibers.map(|fiber| fiber.join().unwrap()), [1, 2]);
///     assert_eq!(REQUEST.with(Cell::get), 0);
/// })
/// .unwrap();
/// ```
pub struct FiberLocal<T: 'static> {
    init: fn() -> T,
}

// SAFETY: the key itself holds no value, only a function, and the values never leave the thread of their fiber.
unsafe impl<T: 'static> Sync for FiberLocal<T> {}

impl<T: 'static> FiberLocal<T> {
    /// A key for a `static`. `init` makes the value of each fiber that uses it.
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    pub(crate) fn init(&self) -> fn() -> T {
        self.init
    }

    pub(crate) fn key(&'static self) -> *const () {
        std::ptr::from_ref(self).cast()
    }
}

impl<T> fmt::Debug for FiberLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FiberLocal")
    }
}
