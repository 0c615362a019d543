//! What the tests of waiting share: runs on small stacks, seeded chance, and a ledger of values.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use ringspun_fibers::{self as fibers, JoinHandle, Runtime};

/// Runs a test in a fiber, first on the default stack, then on one of 16 KiB.
pub fn on_both_stacks(test: fn()) {
    fibers::run(test).unwrap();
    Runtime::new().stack_size_bytes(16 * 1024).run(test).unwrap();
}

/// Lets every fiber run until it parks on something other than its turn.
pub fn settle() {
    for _ in 0..10 {
        fibers::yield_now().unwrap();
    }
}

pub fn spawn<T: 'static>(function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    fibers::spawn(function).unwrap()
}

/// How many mappings a process may have; each guard takes one where the kernel has no other guards.
pub fn mappings_max() -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The same numbers for the same seed.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

/// Follows each value from where it is made to where it ends up.
#[derive(Clone, Default)]
pub struct Ledger(Rc<RefCell<Entries>>);

#[derive(Default)]
struct Entries {
    made: u32,
    given_back: BTreeSet<u32>,
    taken: BTreeSet<u32>,
}

impl Ledger {
    pub fn make(&self) -> u32 {
        let mut entries = self.0.borrow_mut();
        entries.made += 1;
        entries.made
    }

    pub fn given_back(&self, value: u32) {
        assert!(self.0.borrow_mut().given_back.insert(value), "{value} was given back twice");
    }

    pub fn taken(&self, value: u32) {
        assert!(self.0.borrow_mut().taken.insert(value), "{value} was taken twice");
    }

    /// Each value was either taken or given back, and none was lost. Returns how many were which.
    pub fn settle(&self) -> (usize, usize) {
        let entries = self.0.borrow();
        let both: Vec<_> = entries.taken.intersection(&entries.given_back).collect();
        assert!(both.is_empty(), "taken and given back: {both:?}");
        let known = |value: &u32| entries.taken.contains(value) || entries.given_back.contains(value);
        let lost: Vec<_> = (1..=entries.made).filter(|value| !known(value)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        (entries.taken.len(), entries.given_back.len())
    }
}
