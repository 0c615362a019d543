//! Simulated threads for blocking calls: each call waits for a thread, and takes its time.

use super::calls::Simulation;
use super::faults::Fault;
use super::in_flight::{Call, Job};
use super::world::{Event, World, trace};

impl World {
    pub(super) fn begin_call(&mut self, ticket: u64) {
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.has_begun = true;
            let at_ns = self.now_ns + self.call_delay_ns();
            self.schedule(at_ns, Event::CallEnds(ticket));
        }
    }

    pub(super) fn end_call(&mut self, ticket: u64) {
        if let Some(call) = self.calls.remove(&ticket) {
            self.calls_ended.push(call.job);
        }
    }

    fn call_delay_ns(&mut self) -> u64 {
        if self.strikes(Fault::SlowCall) { self.delay_ns() } else { self.random.below(20_000) }
    }
}

/// What the pool of threads does.
impl Simulation {
    /// Has a thread run a job.
    pub(crate) fn call(&self, ticket: u64, job: Job) {
        let world = self.world();
        let world = &mut *world.borrow_mut();
        world.calls.insert(ticket, Call { job, has_begun: false });
        trace!(world, "a blocking call is queued");
        let at_ns = world.now_ns + world.call_delay_ns();
        world.schedule(at_ns, Event::CallBegins(ticket));
    }

    /// Takes a job back that no thread has begun.
    pub(crate) fn withdraw_call(&self, ticket: u64) -> Option<Job> {
        let world = self.world();
        let world = &mut *world.borrow_mut();
        if world.calls.get(&ticket).is_none_or(|call| call.has_begun) {
            return None;
        }
        trace!(world, "a blocking call is withdrawn");
        world.calls.remove(&ticket).map(|call| call.job)
    }

    /// Whether no thread has begun a call.
    pub(crate) fn is_call_queued(&self, ticket: u64) -> bool {
        self.world().borrow().calls.get(&ticket).is_some_and(|call| !call.has_begun)
    }

    /// Runs the jobs that have ended by now; at the end of a loop, all of them.
    pub(crate) fn finish_calls(&self, all: bool) {
        let jobs = {
            let world = self.world();
            let world = &mut *world.borrow_mut();
            let mut jobs = std::mem::take(&mut world.calls_ended);
            if all {
                jobs.extend(std::mem::take(&mut world.calls).into_values().map(|call| call.job));
            }
            jobs
        };
        for job in jobs {
            // On the loop's thread, while it waits: nothing else sees the difference.
            job();
        }
    }
}
