//! Workloads in a simulation, seed by seed: `scripts/check simulation` runs them, and says with `--help` how.
//!
//! The seeds are shared among processes, as the numbers of descriptors are a process's own: `worker` has what they do,
//! `runner` has who starts them and makes one result of theirs. `tls/tests/simulation` uses these, too.

mod chat;
mod context;
mod echo;
mod endings;
mod files;
mod flow;
mod locks;
mod pipes;
mod proxy;
mod runner;
mod scopes;
mod signals;
mod trees;
mod worker;

#[cfg(feature = "mutations")]
use ringspun_runtime::simulation::Mutation;
use worker::{Scene, of_files, of_pipes, of_sockets, of_time, with_zero_copy};

/// What is counted where every byte is known.
const FLOWS: [&str; 6] = [
    "bytes",
    "cancels",
    "flows that arrived",
    "flows that failed",
    "interrupted accepts",
    "interrupted writes",
];

/// The same, and what goes without a copy.
const ECHOES: [&str; 8] = [
    "bytes",
    "cancels",
    "flows that arrived",
    "flows that failed",
    "interrupted accepts",
    "interrupted writes",
    "zero-copy writes",
    "interrupted zero-copy writes",
];

const SCENES: [Scene; 10] = [
    Scene { name: "echo", workload: echo::run, tallies: &ECHOES, faults: with_zero_copy },
    Scene { name: "proxy", workload: proxy::run, tallies: &FLOWS, faults: of_sockets },
    Scene {
        name: "chat",
        workload: chat::run,
        tallies: &["cancels", "members that left", "members thrown out", "messages missed", "messages read"],
        faults: of_sockets,
    },
    Scene {
        name: "endings",
        workload: endings::run,
        tallies: &["bytes", "flows that arrived", "flows that failed", "interrupted writes"],
        faults: of_time,
    },
    Scene {
        name: "trees",
        workload: trees::run,
        tallies: &["cancels", "deadlines", "fibers", "interrupts", "panics", "values given", "values taken"],
        faults: of_time,
    },
    Scene {
        name: "scopes",
        workload: scopes::run,
        tallies: &["cancels", "fibers", "panics", "scopes"],
        faults: of_time,
    },
    Scene {
        name: "locks",
        workload: locks::run,
        tallies: &["cancels", "interrupts", "jobs", "locks", "meetings", "values heard"],
        faults: of_time,
    },
    Scene {
        name: "files",
        workload: files::run,
        tallies: &[
            "bytes read",
            "bytes written",
            "cancels",
            "failed calls",
            "interrupted calls",
            "opens",
            "synchronizations",
        ],
        faults: of_files,
    },
    Scene {
        name: "pipes",
        workload: pipes::run,
        tallies: &[
            "bytes",
            "cancels",
            "flows that arrived",
            "flows that failed",
            "interrupted reads",
            "interrupted writes",
        ],
        faults: of_pipes,
    },
    Scene {
        name: "signals",
        workload: signals::run,
        tallies: &["cancels", "interrupts", "signals raised", "signals taken"],
        faults: of_time,
    },
];

/// The workload that is to find a deliberate bug, and what it then says: not any failure counts.
#[cfg(feature = "mutations")]
fn finder(mutation: Mutation) -> Option<(&'static str, &'static [&'static str])> {
    Some(match mutation {
        Mutation::SlotFreedAtCancel => ("echo", &["a completion for an operation that is over"]),
        Mutation::LateByteDropped => ("proxy", &["expected 0x"]),
        // Where another fiber looks at the time again and again meanwhile, the run has no end.
        Mutation::WakeLost => ("chat", &["a waiter was forgotten", "no end after"]),
        Mutation::BufferReturnedTwice => ("chat", &["receive buffer"]),
        Mutation::LateAcceptLeaked => ("echo", &["descriptors were left open"]),
        Mutation::PermitForgotten => ("locks", &["a waiter was forgotten"]),
        Mutation::ScopeLeft => ("scopes", &["a scope was left while"]),
        Mutation::NotificationIgnored => {
            ("echo", &["changed before", "a completion for an operation that is over"])
        }
        Mutation::NotificationAwaited => ("echo", &["a cancelled zero-copy send took"]),
        Mutation::LateOpenLeaked => ("files", &["descriptors were left open"]),
        Mutation::ShortWriteTrusted => ("files", &["not what was written", "not those that were written"]),
        Mutation::PipeBytesUntold => ("pipes", &["expected 0x", "bytes arrived, and only"]),
        Mutation::SignalsSwallowed => ("signals", &["was lost"]),
        // By tls/tests/simulation.
        Mutation::DecryptedBytesLost => return None,
        unknown => panic!("{unknown:?}: no workload is known to find it"),
    })
}

fn main() {
    runner::main();
}
