//! Runs a plan: checks that it fits this machine, then runs it on this thread or on several.

use crate::companions::Companions;
use crate::error::RunError;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::room;
use crate::share::Share;
use crate::transport::Place;
use crate::worker;
use crate::workers;

/// Runs a plan on this thread, on an event loop of its own, or on several ([`Plan::workers`]), and returns what
/// it found out. Blocks the thread until then.
///
/// All connections are made first, as far as they can be within the timeout; then requests are sent. A
/// connection that is lost is made again, as one is that could not be made: after 100 ms, and again until the
/// run ends. In a run by count, a connection that cannot be made for as long as the timeout is given up.
///
/// # Errors
///
/// [`RunError`]. Errors of single requests and connections are in the outcome.
///
/// # Panics
///
/// If a runtime of fibers runs on this thread already. A panic of a companion ends only that.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpListener;
///
/// use ringspun_load::{Companions, Length, Plan};
///
/// let server = TcpListener::bind("127.0.0.1:0").unwrap();
/// let address = server.local_addr().unwrap();
/// std::thread::spawn(move || {
///     let mut connection = server.accept().unwrap().0;
///     let mut buffer = [0; 64];
///     while connection.read_exact(&mut buffer).is_ok() {
///         connection.write_all(&buffer).unwrap();
///     }
/// });
///
/// let mut plan = Plan::new(format!("tcp://{address}").parse().unwrap());
/// plan.length = Length::Count(100);
/// let outcome = ringspun_load::run(&plan, Companions::default()).unwrap();
/// assert_eq!(outcome.requests.answered, 100);
/// assert_eq!(outcome.errors.total(), 0);
/// ```
pub fn run(plan: &Plan, companions: Companions) -> Result<Outcome, RunError> {
    plan.check().map_err(RunError::BadPlan)?;
    let plan = plan.clone();
    worker::runtime().run(move || run_in_fiber(plan, companions)).map_err(RunError::Failed)?
}

fn run_in_fiber(plan: Plan, companions: Companions) -> Result<Outcome, RunError> {
    let place = Place::look_up(&plan).map_err(RunError::Unreachable)?;
    room::check(&plan, place.address_count()).map_err(RunError::DoesNotFit)?;
    match plan.workers {
        1 => worker::run(plan, place, Share::whole(), companions.into()),
        _ => workers::run(&plan, &place, companions),
    }
}
