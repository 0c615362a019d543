//! TLS in a simulation, seed by seed: `scripts/check simulation` runs it beside the workloads of
//! `net/tests/simulation`, and with what those have in common.

#[allow(dead_code, reason = "the workloads of ringspun-net use more of it")]
#[path = "../../../net/tests/simulation/context.rs"]
mod context;
#[path = "../../../net/tests/simulation/flow.rs"]
mod flow;
#[path = "../../../net/tests/simulation/runner.rs"]
mod runner;
mod sessions;
#[path = "../../../net/tests/simulation/worker.rs"]
mod worker;

#[cfg(feature = "mutations")]
use ringspun_runtime::simulation::Mutation;
use worker::{Scene, of_sockets};

const SCENES: [Scene; 1] = [Scene {
    name: "tls",
    workload: sessions::run,
    tallies: &[
        "bytes",
        "cancels",
        "cuts",
        "flows that arrived",
        "flows that failed",
        "handshakes",
        "handshakes resumed",
        "interrupted accepts",
        "interrupted handshakes",
        "interrupted writes",
        "moves",
    ],
    faults: of_sockets,
}];

/// The workload that is to find a deliberate bug, and what it then says. The others are for `net/tests/simulation`.
#[cfg(feature = "mutations")]
fn finder(mutation: Mutation) -> Option<(&'static str, &'static [&'static str])> {
    (mutation == Mutation::DecryptedBytesLost).then_some(("tls", &["expected 0x"]))
}

fn main() {
    runner::main();
}
