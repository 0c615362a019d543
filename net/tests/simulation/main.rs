//! Workloads in a simulation, seed by seed: `scripts/check simulation` runs them, and says with `--help` how.
//!
//! The seeds are shared among processes, as the numbers of descriptors are a process's own; this file has what
//! they do, `runner` has who starts them and makes one result of theirs.

mod chat;
mod context;
mod echo;
mod endings;
mod flow;
mod locks;
mod proxy;
mod runner;
mod scopes;
mod trees;

use std::collections::BTreeMap;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};

use context::{Summary, Workload};
use runner::{Options, Range};

/// A workload, and what must have happened in it after a thousand seeds for it to be meaningful.
pub struct Scene {
    name: &'static str,
    workload: Workload,
    tallies: &'static [&'static str],
    /// Whether it has sockets, so that every fault has to happen.
    has_sockets: bool,
}

/// What is counted where every byte is known.
const FLOWS: [&str; 6] = [
    "bytes",
    "cancels",
    "flows that arrived",
    "flows that failed",
    "interrupted accepts",
    "interrupted writes",
];

const SCENES: [Scene; 7] = [
    Scene { name: "echo", workload: echo::run, tallies: &FLOWS, has_sockets: true },
    Scene { name: "proxy", workload: proxy::run, tallies: &FLOWS, has_sockets: true },
    Scene {
        name: "chat",
        workload: chat::run,
        tallies: &["cancels", "members that left", "members thrown out", "messages missed", "messages read"],
        has_sockets: true,
    },
    Scene {
        name: "endings",
        workload: endings::run,
        tallies: &["bytes", "flows that arrived", "flows that failed", "interrupted writes"],
        has_sockets: false,
    },
    Scene {
        name: "trees",
        workload: trees::run,
        tallies: &["cancels", "deadlines", "fibers", "interrupts", "panics", "values given", "values taken"],
        has_sockets: false,
    },
    Scene {
        name: "scopes",
        workload: scopes::run,
        tallies: &["cancels", "fibers", "panics", "scopes"],
        has_sockets: false,
    },
    Scene {
        name: "locks",
        workload: locks::run,
        tallies: &["cancels", "interrupts", "jobs", "locks", "meetings", "values heard"],
        has_sockets: false,
    },
];

/// Each so many seeds, one runs twice, and has to give the same.
const REPEAT_EVERY: u64 = 64;
/// Each so many seeds, those who wait are told.
const TELL_EVERY: u64 = 100;

/// The seed that runs, for the panic hook.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() {
    match Options::from_arguments() {
        Err(text) => {
            eprintln!("{text}");
            exit(2);
        }
        Ok(options) => match &options.range {
            Some(range) => work(&options, range),
            None => exit(runner::run(&options)),
        },
    }
}

/// Runs some seeds of one workload, and tells of each step on standard output.
fn work(options: &Options, range: &Range) {
    let Some(scene) = SCENES.iter().find(|scene| scene.name == range.scene) else { exit(2) };
    // Panics that are part of a workload do not come here.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string().replace('\n', " ");
        failed(SEED.load(Ordering::Relaxed), &text);
    }));
    options.activate_mutation();
    let mut sums = BTreeMap::new();
    for (count, seed) in (range.start..range.start + range.seeds).enumerate() {
        SEED.store(seed, Ordering::Relaxed);
        let summary = run(scene, seed, options.trace);
        if seed % REPEAT_EVERY == 0 && !options.trace && summary.digest != run(scene, seed, false).digest {
            failed(seed, "run twice, the seed did not do the same");
        }
        for (fault, count) in &summary.faults {
            *sums.entry(format!("{fault:?}")).or_insert(0) += count;
        }
        for (name, count) in &summary.tallies {
            *sums.entry(name.to_string()).or_insert(0) += count;
        }
        *sums.entry("milliseconds".to_string()).or_insert(0) += summary.elapsed.as_millis() as u64;
        if (count as u64 + 1).is_multiple_of(TELL_EVERY) {
            println!("done\t{TELL_EVERY}\t{seed}");
        }
    }
    println!("done\t{}\t{}", range.seeds % TELL_EVERY, range.start + range.seeds);
    for (name, count) in sums {
        println!("sum\t{count}\t{name}");
    }
    println!("end\t0\t");
}

fn run(scene: &Scene, seed: u64, trace: bool) -> Summary {
    match context::run(scene.workload, seed, trace) {
        Ok(summary) => summary,
        Err(text) => failed(seed, &text),
    }
}

fn failed(seed: u64, text: &str) -> ! {
    println!("failed\t{seed}\t{text}");
    exit(1);
}
