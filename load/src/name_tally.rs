//! Counts and times per name of listed requests, of a run in progress.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use crate::latencies::Latencies;
use crate::outcome::{NamedOutcome, Requests};
use crate::request_list::{Chosen, RequestList};
use crate::status::StatusCounts;

/// Counts and times per name; empty without a list.
#[derive(Default)]
pub(crate) struct NameTally {
    names: Vec<NameCounts>,
    /// For each request of the list, the index of its name.
    indices: Vec<usize>,
}

struct NameCounts {
    name: String,
    requests: Cell<Requests>,
    statuses: RefCell<StatusCounts>,
    response_times: RefCell<Latencies>,
}

impl NameTally {
    pub(crate) fn of(list: Option<&RequestList>) -> io::Result<Self> {
        let Some(list) = list else { return Ok(Self::default()) };
        let (names, indices) = list.names();
        let names = names.into_iter().map(|name| {
            Ok(NameCounts {
                name,
                requests: Cell::default(),
                statuses: RefCell::default(),
                response_times: RefCell::new(Latencies::new()?),
            })
        });
        Ok(Self { names: names.collect::<io::Result<_>>()?, indices })
    }

    fn of_request(&self, chosen: Chosen) -> Option<&NameCounts> {
        self.indices.get(chosen.entry as usize).map(|index| &self.names[*index])
    }

    /// Updates the counts of a request.
    #[inline]
    pub(crate) fn count(&self, chosen: Chosen, change: impl FnOnce(&mut Requests)) {
        if let Some(counts) = self.of_request(chosen) {
            let mut requests = counts.requests.get();
            change(&mut requests);
            counts.requests.set(requests);
        }
    }

    /// Counts an HTTP response.
    #[inline]
    pub(crate) fn got_status(&self, chosen: Chosen, status: u16) {
        if let Some(counts) = self.of_request(chosen) {
            counts.statuses.borrow_mut().note(status);
        }
    }

    /// Counts an expected response. The response time is computed with a list only.
    #[inline]
    pub(crate) fn answered(
        &self,
        chosen: Chosen,
        response_time: impl FnOnce() -> Duration,
        is_after_end: bool,
    ) {
        if let Some(counts) = self.of_request(chosen) {
            self.count(chosen, |requests| {
                requests.answered += 1;
                requests.answered_after_end += u64::from(is_after_end);
            });
            counts.response_times.borrow_mut().record(response_time());
        }
    }

    /// The name of a request's results.
    pub(crate) fn name(&self, chosen: Chosen) -> Option<&str> {
        self.of_request(chosen).map(|counts| counts.name.as_str())
    }

    /// The results.
    pub(crate) fn outcome(&self) -> Vec<NamedOutcome> {
        let outcome = |counts: &NameCounts| NamedOutcome {
            name: counts.name.clone(),
            requests: counts.requests.get(),
            statuses: counts.statuses.borrow().clone(),
            response_times: counts.response_times.borrow().clone(),
        };
        self.names.iter().map(outcome).collect()
    }
}
