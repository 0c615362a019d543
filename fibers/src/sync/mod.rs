//! Locks, and other ways for the fibers of one thread to wait for one another.
//!
//! A lock of the standard library blocks the thread, and with it the fiber that would release the lock. These park the
//! fiber. A wait can be interrupted at any time, which loses nothing: a permit, a notification or a value that was
//! meant for the fiber goes to the next. Who comes first is served first.
//!
//! | to | there is | in `tokio::sync` |
//! | --- | --- | --- |
//! | change something in several steps, with waits between | [`Mutex`], [`RwLock`] | `Mutex`, `RwLock` |
//! | limit how many do something at once | [`Semaphore`] | `Semaphore` |
//! | tell one or all that something has happened | [`Notify`] | `Notify` |
//! | go on together | [`Barrier`] | `Barrier` |
//! | make a value once, with waits | [`OnceCell`] | `OnceCell` |
//! | send one value to one fiber | [`one_shot`] | `oneshot` |
//! | let many have the newest value | [`watch`] | `watch` |
//! | send every value to many | [`broadcast`] | `broadcast` |
//! | send every value to one of many | [`Channel`](crate::Channel) | `mpsc` |
//!
//! All of them can be clauses of a [`Select`](crate::Select). They stay on their thread; between threads there are
//! channels of the standard library in a [`blocking`](crate::blocking) call, and [`Remote`](crate::Remote).

mod locks;
mod meeting;
mod permits;
mod values;

pub use locks::{Locking, Mutex, MutexGuard, Permit, ReadGuard, RwLock, Semaphore, WriteGuard};
pub use meeting::{Barrier, Notified, Notify, OnceCell};
pub use values::{
    BroadcastError, BroadcastReceiver, BroadcastSender, OneShotReceiver, OneShotSender, WatchReceiver,
    WatchSender, broadcast, one_shot, watch,
};
