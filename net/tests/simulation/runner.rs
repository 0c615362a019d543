//! Starts processes that run seeds, and merges their results.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Child, Command, Stdio, exit};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use ringspun_runtime::simulation::Fault;

use crate::SCENES;
use crate::worker::{self, Scene};

/// The end of a failing seed's trace is shown, as it may be long.
const TRACE_LINES: usize = 60;
/// With so many seeds, everything must have happened.
const SEEDS_FOR_ALL: u64 = 1000;

#[derive(Clone)]
pub struct Options {
    scene: Option<String>,
    start: u64,
    seeds: u64,
    jobs: u64,
    pub trace: bool,
    all_mutations: bool,
    mutation: Option<String>,
    /// What this process itself is to run.
    pub range: Option<Range>,
}

/// Some seeds of one workload.
#[derive(Clone)]
pub struct Range {
    pub scene: String,
    pub start: u64,
    pub seeds: u64,
}

impl Options {
    pub fn from_arguments() -> Result<Self, String> {
        let jobs = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let mut options = Self {
            scene: None,
            start: 0,
            seeds: 2000,
            jobs,
            trace: false,
            all_mutations: false,
            mutation: None,
            range: None,
        };
        let mut is_worker = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument}: expected a value"));
            let number = |text: String| {
                text.parse::<u64>().map_err(|_| format!("{argument} {text}: expected a number"))
            };
            match argument.as_str() {
                "--seeds" => options.seeds = number(value()?)?,
                "--start" => options.start = number(value()?)?,
                "--jobs" => options.jobs = number(value()?)?.max(1),
                "--workload" => options.scene = Some(value()?),
                "--mutation" => options.mutation = Some(value()?),
                "--mutations" => options.all_mutations = true,
                "--trace" => options.trace = true,
                "--worker" => is_worker = true,
                // What `cargo test` passes on.
                "--show-output" | "--nocapture" => {}
                _ => {
                    return Err(format!(
                        "{argument}: not known; scripts/check simulation --help shows what is"
                    ));
                }
            }
        }
        let names: Vec<_> = SCENES.iter().map(|scene| scene.name).collect();
        if let Some(name) = options.scene.as_deref().filter(|name| !names.contains(name)) {
            return Err(format!("--workload {name}: expected one of {}", names.join(", ")));
        }
        if let (true, Some(scene)) = (is_worker, options.scene.clone()) {
            options.range = Some(Range { scene, start: options.start, seeds: options.seeds });
        }
        Ok(options)
    }

    /// Activates the requested mutation.
    pub fn activate_mutation(&self) {
        #[cfg(feature = "mutations")]
        if let Some(name) = &self.mutation {
            mutations::named(name).activate();
        }
    }
}

/// Does what the arguments of the program say, and ends it.
pub fn main() -> ! {
    match Options::from_arguments() {
        Err(text) => {
            eprintln!("{text}");
            exit(2);
        }
        Ok(options) => match &options.range {
            Some(range) => {
                worker::work(&options, range);
                exit(0);
            }
            None => exit(run(&options)),
        },
    }
}

/// Runs according to the options, and returns the exit status.
fn run(options: &Options) -> i32 {
    if options.all_mutations {
        return find_mutations(options);
    }
    for scene in SCENES.iter().filter(|scene| options.scene.as_deref().is_none_or(|name| name == scene.name))
    {
        if options.trace {
            return trace(options, scene, options.start, false);
        }
        let began = Instant::now();
        match run_scene(options, scene, options.seeds) {
            Err(failure) => {
                tell_failure(options, scene, &failure);
                return 1;
            }
            Ok(sums) => {
                let seconds = began.elapsed().as_secs_f64();
                println!("{}: {} seeds in {seconds:.1} s: {}", scene.name, options.seeds, shown(&sums));
                let missing = missing(scene, &sums);
                if options.seeds >= SEEDS_FOR_ALL && !missing.is_empty() {
                    println!(
                        "{}: never happened, so that nothing is shown: {}",
                        scene.name,
                        missing.join(", ")
                    );
                    return 1;
                }
            }
        }
    }
    0
}

struct Failure {
    seed: u64,
    text: String,
}

type Sums = BTreeMap<String, u64>;

fn shown(sums: &Sums) -> String {
    let parts: Vec<_> = sums.iter().map(|(name, count)| format!("{count} {name}")).collect();
    parts.join(", ")
}

/// Expected events that have not happened.
fn missing(scene: &Scene, sums: &Sums) -> Vec<String> {
    let faults = Fault::ALL.into_iter().filter(|fault| (scene.faults)(*fault));
    let expected = faults.map(|fault| format!("{fault:?}"));
    let expected = expected.chain(scene.tallies.iter().map(|name| name.to_string()));
    expected.filter(|name| sums.get(name).is_none_or(|count| *count == 0)).collect()
}

/// One line of what a process tells.
enum Told {
    Done {
        count: u64,
    },
    Sum {
        count: u64,
        name: String,
    },
    Failed(Failure),
    Ended,
    /// It is gone, after it was at this seed at least.
    Gone {
        seed: u64,
    },
}

/// Runs the seeds of one workload in several processes.
fn run_scene(options: &Options, scene: &Scene, seeds: u64) -> Result<Sums, Failure> {
    let jobs = options.jobs.min(seeds.max(1));
    let (sender, receiver) = channel();
    let mut children = Vec::new();
    let mut start = options.start;
    for job in 0..jobs {
        let share = seeds / jobs + u64::from(job < seeds % jobs);
        let range = Range { scene: scene.name.to_string(), start, seeds: share };
        children.push(start_worker(options, &range, sender.clone()));
        start += share;
    }
    drop(sender);
    let result = gather(scene, seeds, jobs, &receiver);
    for mut child in children {
        // Those that are not over have nothing more to say.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn command(options: &Options, range: &Range) -> Command {
    let this = std::env::current_exe().unwrap_or_else(|_| std::env::args().next().unwrap_or_default().into());
    let mut command = Command::new(this);
    command.args(["--worker", "--workload", &range.scene]);
    command.args(["--start", &range.start.to_string(), "--seeds", &range.seeds.to_string()]);
    if let Some(mutation) = &options.mutation {
        command.args(["--mutation", mutation]);
    }
    command
}

fn start_worker(options: &Options, range: &Range, sender: Sender<Told>) -> Child {
    let spawned = command(options, range).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => panic!("this program cannot be started again: {error}"),
    };
    let output = child.stdout.take();
    let start = range.start;
    std::thread::spawn(move || {
        let mut last = start;
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok)
        {
            let mut parts = line.splitn(3, '\t');
            let (kind, number, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
            let number: u64 = number.and_then(|text| text.parse().ok()).unwrap_or(0);
            let told = match kind {
                Some("done") => {
                    last = rest.parse().unwrap_or(last);
                    Told::Done { count: number }
                }
                Some("sum") => Told::Sum { count: number, name: rest.to_string() },
                Some("failed") => Told::Failed(Failure { seed: number, text: rest.to_string() }),
                Some("end") => Told::Ended,
                _ => continue,
            };
            let is_last = matches!(told, Told::Failed(_) | Told::Ended);
            if sender.send(told).is_err() || is_last {
                return;
            }
        }
        let _ = sender.send(Told::Gone { seed: last });
    });
    child
}

fn gather(scene: &Scene, seeds: u64, jobs: u64, receiver: &Receiver<Told>) -> Result<Sums, Failure> {
    let shows_progress = std::io::stderr().is_terminal();
    let (mut sums, mut done, mut ended) = (Sums::new(), 0, 0);
    while ended < jobs {
        match receiver.recv() {
            Ok(Told::Done { count }) => {
                done += count;
                if shows_progress {
                    eprint!("\r{}: {done} of {seeds} seeds ", scene.name);
                }
            }
            Ok(Told::Sum { count, name }) => *sums.entry(name).or_default() += count,
            Ok(Told::Ended) => ended += 1,
            Ok(Told::Failed(failure)) => return Err(failure),
            Ok(Told::Gone { seed }) => {
                let text = "the process is gone, at this seed or one of the hundred after it".to_string();
                return Err(Failure { seed, text });
            }
            Err(_) => return Err(Failure { seed: 0, text: "no process is left".to_string() }),
        }
    }
    if shows_progress {
        eprint!("\r\x1b[K");
    }
    Ok(sums)
}

fn tell_failure(options: &Options, scene: &Scene, failure: &Failure) {
    println!("{}: seed {}: {}", scene.name, failure.seed, failure.text);
    println!("\nThe end of its trace:");
    trace(options, scene, failure.seed, true);
    println!("\nThis repeats it, with the whole trace:");
    let mutation = options.mutation.as_ref().map_or(String::new(), |name| format!(" --mutation {name}"));
    println!(
        "  ./scripts/check simulation --workload {} --start {} --trace{mutation}",
        scene.name, failure.seed
    );
}

/// Runs one seed with its trace, and shows all of it or the end.
fn trace(options: &Options, scene: &Scene, seed: u64, only_end: bool) -> i32 {
    let range = Range { scene: scene.name.to_string(), start: seed, seeds: 1 };
    let mut command = command(options, &range);
    command.arg("--trace");
    if !only_end {
        return command.status().ok().and_then(|status| status.code()).unwrap_or(1);
    }
    let Ok(output) = command.output() else { return 1 };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TRACE_LINES)..].iter().for_each(|line| println!("{line}"));
    output.status.code().unwrap_or(1)
}

#[cfg(not(feature = "mutations"))]
fn find_mutations(_: &Options) -> i32 {
    eprintln!(
        "this program was built without the deliberate bugs; scripts/check simulation --mutations builds it with them"
    );
    2
}

#[cfg(feature = "mutations")]
use mutations::find_mutations;

#[cfg(feature = "mutations")]
mod mutations {
    //! Checks that the simulation finds each mutation.

    use ringspun_runtime::simulation::Mutation;

    use super::{Options, SCENES, run_scene};
    use crate::finder;

    pub fn named(name: &str) -> Mutation {
        let found = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
        found.unwrap_or_else(|| panic!("--mutation {name}: expected one of {:?}", Mutation::ALL))
    }

    /// In so many it has to be found.
    const SEEDS: u64 = 10_000;

    pub fn find_mutations(options: &Options) -> i32 {
        let mut status = 0;
        for mutation in Mutation::ALL {
            let Some((name, signs)) = finder(mutation) else { continue };
            let Some(scene) = SCENES.iter().find(|scene| scene.name == name) else { continue };
            // One process, so that the first seed that finds it is the one that is told.
            let options =
                Options { mutation: Some(format!("{mutation:?}")), jobs: 1, range: None, ..options.clone() };
            match run_scene(&options, scene, SEEDS) {
                Err(found) if signs.iter().any(|sign| found.text.contains(sign)) => {
                    let text = found.text.chars().take(160).collect::<String>();
                    println!("{mutation:?}: found by {name} at seed {}: {text}", found.seed);
                }
                Err(other) => {
                    println!(
                        "{mutation:?}: seed {} of {name} says something else: {}",
                        other.seed, other.text
                    );
                    status = 1;
                }
                Ok(_) => {
                    println!("{mutation:?}: NOT FOUND by {SEEDS} seeds of {name}");
                    status = 1;
                }
            }
        }
        status
    }
}
