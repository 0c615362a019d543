//! The workload that makes a connection for each request.

use std::io;
use std::time::Instant;

use ringspun_fibers as fibers;
use ringspun_net as net;

use super::{Lost, REOPEN_PAUSE, Request, Worker};
use crate::outcome::ErrorKind;
use crate::transport;

impl Worker {
    /// Connects and closes until the run is over, one connection after the other.
    pub(super) fn churn(&self, index: usize) {
        let clock = self.clock.get();
        let Some(first_turn) = self.wait_for_ramp_up(&clock, index) else { return };
        let mut now = Instant::now();
        for turn in first_turn.. {
            let Some(request) = self.next_request(&clock, index, turn, now) else { return };
            let Some(sent) = self.wait_until_due(request, now) else { return };
            self.note_sent(request);
            let open = match self.destination.open(self.plan.timeout) {
                Ok(open) => open,
                Err(error) => {
                    if !self.note_unopened(&error, request) {
                        return;
                    }
                    now = Instant::now();
                    continue;
                }
            };
            self.tally.opened();
            let connected = Instant::now();
            self.waiting_since[index].set(Some(connected));
            let answer = self.work.perform(&open, index + turn as usize);
            self.waiting_since[index].set(None);
            now = Instant::now();
            drop(open);
            self.tally.closed();
            let waited = now - connected;
            if self.settle(&clock, request, now, now - sent, &answer).is_none() {
                match self.note_failure(answer, request, waited) {
                    None => return,
                    Some(Lost::Connection) if !self.pause_after_failure() => return,
                    Some(_) => now = Instant::now(),
                }
            }
            if waited >= self.plan.timeout {
                // As where connections are kept: an interrupt that came too late must not meet the next.
                let _ = fibers::check();
            }
        }
    }

    /// Counts a connection that was not made; false if the run is being ended.
    #[cold]
    fn note_unopened(&self, error: &io::Error, request: Request) -> bool {
        if net::interrupt_of(error) == Some(fibers::Interrupt::Cancelled) {
            self.withdraw(request);
            return false;
        }
        let kind = transport::connect_error_kind(error);
        self.tally.failed(kind, || transport::describe_connect_error(error));
        self.count(request, |requests| match kind {
            ErrorKind::ConnectTimedOut => requests.timed_out += 1,
            _ => requests.lost += 1,
        });
        self.pause_after_failure()
    }

    /// Lets a closed loop wait before it tries again, which would keep the generator busy with nothing else; in
    /// an open loop, the next attempt has its time. False if the run is being ended.
    fn pause_after_failure(&self) -> bool {
        self.numbers.is_some() || fibers::sleep(REOPEN_PAUSE).is_ok()
    }
}
