//! What a process does that runs some seeds of one workload: it tells of each step on standard output.

use std::collections::BTreeMap;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};

use ringspun_runtime::simulation::Fault;

use crate::SCENES;
use crate::context::{self, Summary, Workload};
use crate::runner::{Options, Range};

/// A workload, and what must have happened in it after a thousand seeds for it to be meaningful.
pub struct Scene {
    pub name: &'static str,
    pub workload: Workload,
    pub tallies: &'static [&'static str],
    /// The faults that must have happened, too.
    pub faults: fn(Fault) -> bool,
}

/// What happens to a loop without sockets.
#[allow(dead_code, reason = "sessions of TLS have sockets")]
pub fn of_time(fault: Fault) -> bool {
    matches!(fault, Fault::EnterInterrupted | Fault::LateTimer | Fault::Stall)
}

/// What happens to pipes.
#[allow(dead_code, reason = "sessions of TLS have sockets")]
pub fn of_pipes(fault: Fault) -> bool {
    of_time(fault) || matches!(fault, Fault::ShortRead | Fault::ShortSend | Fault::FileInterrupted)
}

/// What happens to files.
#[allow(dead_code, reason = "sessions of TLS have sockets")]
pub fn of_files(fault: Fault) -> bool {
    of_time(fault) || is_of_files(fault) || matches!(fault, Fault::LateSuccess | Fault::CancelTooLate)
}

fn is_of_files(fault: Fault) -> bool {
    use Fault::{FileFailed, FileInterrupted, ShortRead, ShortWrite, SlowCall};
    matches!(fault, FileFailed | FileInterrupted | ShortRead | ShortWrite | SlowCall)
}

/// What happens to sockets.
pub fn of_sockets(fault: Fault) -> bool {
    !is_of_files(fault) && !matches!(fault, Fault::LateNotification | Fault::Disconnected)
}

/// The same, where data is sent without a copy.
#[allow(dead_code, reason = "sessions of TLS copy")]
pub fn with_zero_copy(fault: Fault) -> bool {
    of_sockets(fault) || matches!(fault, Fault::LateNotification | Fault::Disconnected)
}

/// Each so many seeds, one runs twice, and has to give the same.
const REPEAT_EVERY: u64 = 64;
/// Each so many seeds, those who wait are told.
const TELL_EVERY: u64 = 100;

/// The seed that runs, for the panic hook.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Runs them.
pub fn work(options: &Options, range: &Range) {
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
