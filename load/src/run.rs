//! Runs a plan: checks that it fits this machine, then runs it on this thread or on several.

use std::rc::Rc;

use ringspun_fibers::{self as fibers, SharedChannel};

use crate::capacity;
use crate::error::RunError;
use crate::hooks::Hooks;
use crate::outcome::Outcome;
use crate::plan::{Plan, Workload};
use crate::share::Share;
use crate::transport::Destination;
use crate::worker;
use crate::workers::{self, Job};

/// Runs a plan on this thread, with its own event loop, or on several threads ([`Plan::workers`]). Blocks until
/// the run ends, and returns its results.
///
/// First all connections are opened, as far as possible within the timeout; then requests are sent. Connections
/// that are lost or could not be opened are retried every 100 ms until the run ends. In a run limited by count,
/// a connection that cannot be opened for the length of the timeout is given up.
///
/// # Errors
///
/// [`RunError`]. Errors of individual requests and connections are part of the outcome.
///
/// # Panics
///
/// If a fiber runtime is already running on this thread. A panic in a hook ends only the hook.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpListener;
///
/// use ringspun_load::{Hooks, Length, Plan};
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
/// let outcome = ringspun_load::run(&plan, Hooks::default()).unwrap();
/// assert_eq!(outcome.requests.answered, 100);
/// assert_eq!(outcome.errors.total(), 0);
/// ```
pub fn run(plan: &Plan, hooks: Hooks) -> Result<Outcome, RunError> {
    plan.check().map_err(RunError::BadPlan)?;
    if matches!(plan.workload, Workload::Driven { .. }) {
        return Err(RunError::BadPlan("a driven run has no driver: expected run_driven".to_string()));
    }
    let plan = plan.clone();
    worker::runtime().run(move || run_in_fiber(plan, hooks)).map_err(RunError::Failed)?
}

fn run_in_fiber(plan: Plan, mut hooks: Hooks) -> Result<Outcome, RunError> {
    let Some(destination) = resolve(&plan, &mut hooks)? else {
        // Opens nothing, and ends at once, with results as of any run that is stopped before its first request.
        let plan = Plan { workers: 1, ..plan };
        return worker::run(plan, Destination::nowhere(), Share::whole(), hooks);
    };
    capacity::check(&plan, destination.address_count()).map_err(RunError::DoesNotFit)?;
    let outcome = match plan.workers {
        1 => worker::run(plan, destination, Share::whole(), hooks),
        _ => workers::run(&plan, hooks, of_share(plan.clone(), destination)),
    };
    outcome.map(Outcome::with_planned_requests)
}

/// What each of several threads does.
fn of_share(
    plan: Plan,
    destination: Destination,
) -> impl Fn(Job) -> Result<Outcome, RunError> + Clone + Send + 'static {
    move |job| {
        let (plan, destination) = (plan.clone(), destination.clone().starting_with_source(job.worker));
        let run = move || worker::run(plan, destination, job.share, (job.hooks)());
        worker::runtime().run(run).unwrap_or_else(|error| Err(RunError::Failed(error)))
    }
}

/// Looks the target up; `None` if the run is stopped meanwhile. From here on, its stopper runs.
fn resolve(plan: &Plan, hooks: &mut Hooks) -> Result<Option<Destination>, RunError> {
    let Some(stopper) = hooks.stopper.take() else {
        return Destination::resolve(plan).map(Some).map_err(RunError::Unreachable);
    };
    let looked_up = plan.clone();
    let lookup = Rc::new(fibers::spawn(move || Destination::resolve(&looked_up)).map_err(RunError::Failed)?);
    let stop = SharedChannel::<()>::bounded(1);
    let (stopping, stopped) = (lookup.clone(), stop.clone());
    let run_stopper = move || {
        stopper();
        stopped.close();
        stopping.cancel();
    };
    fibers::spawn(run_stopper).map_err(RunError::Failed)?;
    let waiting = stop.clone();
    // Returns when it is closed, or when interrupted at the end of the run.
    hooks.stopper = Some(Box::new(move || {
        let _ = waiting.take();
    }));
    match lookup.join() {
        Ok(Ok(destination)) => Ok(Some(destination)),
        _ if stop.is_closed() => Ok(None),
        Ok(Err(error)) => Err(RunError::Unreachable(error)),
        Err(error) => Err(RunError::Failed(error.into())),
    }
}
