//! Workloads in a simulation, seed by seed: `scripts/simulate` runs them.

mod chat;
mod context;
mod echo;
mod flow;
mod proxy;
mod trees;

use context::Workload;

const WORKLOADS: [(&str, Workload); 4] =
    [("echo", echo::run), ("proxy", proxy::run), ("chat", chat::run), ("trees", trees::run)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        arguments.iter().position(|a| a == name).map_or(default, |at| arguments[at + 1].parse().unwrap())
    };
    let trace = arguments.iter().any(|a| a == "--trace");
    let start = number("--start", 0);
    for (name, workload) in WORKLOADS {
        let began = std::time::Instant::now();
        let mut sums = std::collections::BTreeMap::<String, u64>::new();
        for seed in start..start + number("--seeds", 2000) {
            match context::run(workload, seed, trace) {
                Ok(summary) => {
                    for (fault, count) in summary.faults {
                        *sums.entry(format!("{fault:?}")).or_default() += count;
                    }
                    for (what, count) in summary.tallies {
                        *sums.entry(what.to_string()).or_default() += count;
                    }
                }
                Err(text) => {
                    println!("{name} seed {seed}: {text}");
                    std::process::exit(1);
                }
            }
        }
        println!("{name}: {:?} {sums:#?}", began.elapsed());
    }
}
