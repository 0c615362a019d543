//! Simulated signals: they arrive while the loop waits, at the watches of the process.

use std::os::fd::RawFd;

use super::calls::Simulation;
use super::socket::{Kind, Socket, SocketId};
use super::world::{Event, World, trace};
use crate::signals::{self, Signal};

impl World {
    /// Takes a descriptor in that tells of signals, and is of the real kernel.
    pub(super) fn adopt(&mut self, descriptor: RawFd) -> Option<SocketId> {
        if !signals::is_bell(descriptor) {
            return None;
        }
        let id = self.sockets.len();
        self.sockets.push(Socket::new(Kind::Bell(descriptor)));
        self.bells.insert(descriptor, id);
        Some(id)
    }

    pub(super) fn signal_arrives(&mut self, signal: Signal) {
        trace!(self, "{signal} arrives");
        *self.arrivals.entry(signal).or_default() += 1;
        signals::note(signal);
        // Not in the order of their numbers, which is not reproducible.
        let mut bells: Vec<_> = self.bells.values().copied().collect();
        bells.sort_unstable();
        bells.into_iter().for_each(|bell| self.attempt_input(bell));
    }
}

/// Signals.
impl Simulation {
    /// Has a signal arrive, soon or later, as by `kill(2)` of another process: at each [`SignalWatch`] that is there
    /// then. If there is none, nothing happens.
    ///
    /// [`SignalWatch`]: crate::SignalWatch
    pub fn raise(&self, signal: Signal) {
        let world = self.world();
        let world = &mut *world.borrow_mut();
        let at_ns = world.now_ns + if world.random.chance(512) { 0 } else { world.delay_ns() };
        world.schedule(at_ns, Event::SignalArrives(signal));
    }

    /// How often a signal has arrived.
    pub fn arrivals(&self, signal: Signal) -> u64 {
        self.world().borrow().arrivals.get(&signal).copied().unwrap_or(0)
    }
}

/// `POLLIN` if there is something to read, otherwise 0.
pub(super) fn is_readable(descriptor: RawFd) -> i16 {
    let mut entry = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents & libc::POLLIN
}
