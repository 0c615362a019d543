//! The workload that opens a connection for each request.

use std::io;
use std::time::Instant;

use ringspun_fibers as fibers;
use ringspun_net as net;

use super::{Connection, REOPEN_PAUSE, Request, Wait, Worker};
use crate::transport;

impl Worker {
    /// Connects and closes, one connection after the other, until the run is over.
    pub(super) fn churn(&self, index: usize) {
        let clock = self.clock.get();
        let Some(()) = self.wait_for_ramp_up(index) else { return };
        let mut now = Instant::now();
        for sent_count in 0.. {
            let Some(request) = self.take_request(&clock, now) else { return };
            let sent = match self.wait_until_due(None, request, now) {
                Wait::Due(now) => now,
                Wait::Closed | Wait::Stopped => return,
            };
            self.note_sent(request);
            self.tally.opening();
            let open = match self.destination.open(self.plan.timeout) {
                Ok(open) => open,
                Err(error) => {
                    self.tally.closed();
                    if !self.note_unopened(&error, request) {
                        return;
                    }
                    now = Instant::now();
                    continue;
                }
            };
            self.tally.established();
            self.tally.shook_hands(open.handshake());
            let connected = Instant::now();
            self.waiting_since[index].set(Some(connected));
            let answer = self.work.perform(&open, index + sent_count, request.chosen);
            self.waiting_since[index].set(None);
            now = Instant::now();
            drop(open);
            self.tally.closed();
            let waited = now - connected;
            if self.settle(&clock, request, now, (now - sent, waited), &answer).is_none() {
                match self.note_failure(answer, request, waited) {
                    None => return,
                    Some(Connection::ReopenLater) if !self.pause_after_failure() => return,
                    Some(_) => now = Instant::now(),
                }
            }
            if waited >= self.plan.timeout {
                // A late interrupt by the monitor must not reach the next connection.
                let _ = fibers::check();
            }
        }
    }

    /// Counts a connection that could not be established; false if the run is being stopped.
    #[cold]
    fn note_unopened(&self, error: &io::Error, request: Request) -> bool {
        if net::interrupt_of(error) == Some(fibers::Interrupt::Cancelled) {
            self.withdraw(request);
            return false;
        }
        let kind = transport::connect_error_kind(error);
        self.tally.failed(kind, || transport::describe_connect_error(error));
        self.count_failure(request, kind);
        self.pause_after_failure()
    }

    /// Pauses a closed loop, which would otherwise retry in a busy loop; in an open loop, the schedule paces the
    /// attempts. False if the run is being stopped.
    fn pause_after_failure(&self) -> bool {
        self.numbers.is_some() || fibers::sleep(REOPEN_PAUSE).is_ok()
    }
}
