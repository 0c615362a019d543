//! Ringspun's net code against the VM's own, program by program: the same Janet VM runs each program
//! twice, and what it prints and exits with has to be the same.
//!
//! The programs are in `tests/janet/differential/`, one file per group. Those where the two differ on purpose
//! are in `differences.janet`, with the reason and both outputs; `docs/janet-differences.md` explains
//! them. `RINGSPUN_NET=stock ringspun janet FILE` runs any program on the VM's own net code.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How long a program may take; one that takes longer has failed.
const PROGRAM_MAX: Duration = Duration::from_secs(150);

const PRELUDE: &str = include_str!("differential/prelude.janet");

/// One program of a group, or of the documented differences.
struct Program {
    title: String,
    source: String,
    exit_status: i32,
    /// Of the documented differences: what each is expected to come to.
    expected: Option<[Outcome; 2]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) exit_status: Option<i32>,
    pub(super) output: String,
}

/// What one run of a program came to, and what it wrote to standard error, which is not compared.
pub(super) struct Run {
    pub(super) outcome: Outcome,
    pub(super) errors: String,
}

/// The programs of a file: each starts with a line `### TITLE`, which may end in `[exit status N]`.
fn programs(text: &str) -> Vec<Program> {
    let (_, text) = text.split_once("### ").unwrap();
    text.split("\n### ").map(program).collect()
}

fn program(text: &str) -> Program {
    let (title, text) = text.split_once('\n').unwrap();
    let exit_status = match title.split_once("[exit status ") {
        Some((_, status)) => status.trim_end_matches(']').parse().unwrap(),
        None => 0,
    };
    let (source, expected) = match text.split_once("--- ring") {
        Some((source, expected)) => {
            let (ring, stock) = expected.split_once("--- stock").unwrap();
            (source, Some([ring, stock].map(expected_outcome)))
        }
        None => (text, None),
    };
    Program { title: title.to_string(), source: source.to_string(), exit_status, expected }
}

/// What is expected, from the line that names whose it is on.
fn expected_outcome(text: &str) -> Outcome {
    let (heading, output) = text.split_once('\n').unwrap();
    let exit_status = heading.strip_prefix(", exit status ").map_or(0, |status| status.parse().unwrap());
    let output = match output.trim_end() {
        "" => String::new(),
        output => format!("{output}\n"),
    };
    Outcome { exit_status: Some(exit_status), output }
}

/// A folder of its own for each group, in which its programs run.
fn folder(name: &str) -> PathBuf {
    let groups = format!("janet_differential-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(groups).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The command that runs a Janet file on one of the two, with few enough descriptors that programs can
/// use them up.
fn janet(net: &str, file: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 1024 && exec \"$0\" janet \"$1\"", env!("CARGO_BIN_EXE_ringspun")]);
    command.arg(file).current_dir(file.parent().unwrap());
    command.env("RINGSPUN_NET", net).env_remove("JANET_PATH");
    command
}

/// Runs a command, together with all that it starts, for as long as it may take.
pub(super) fn run(mut command: Command) -> Run {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let output = collect(child.stdout.take().unwrap());
    let errors = collect(child.stderr.take().unwrap());
    let group = Pid::from_raw(child.id().try_into().unwrap());
    let start = Instant::now();
    let in_time = loop {
        // Leaves the process to be waited for, so that its number is nobody else's yet.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(group), look).unwrap() {
            WaitStatus::StillAlive if start.elapsed() > PROGRAM_MAX => break false,
            WaitStatus::StillAlive => thread::sleep(Duration::from_millis(1)),
            _ => break true,
        }
    };
    // What it started must not outlive it, nor hold its output open.
    killpg(group, Signal::SIGKILL).unwrap();
    let status = child.wait().unwrap();
    let mut errors = errors.join().unwrap();
    if !in_time {
        errors.push_str("\n(killed, because it took too long)");
    }
    let output = normalised(&output.join().unwrap());
    Run { outcome: Outcome { exit_status: status.code(), output }, errors }
}

/// What the VM's own network code makes of a program. It is not what is tested here, so that one that did not
/// end is asked once more: while other tests fill the loopback device's queue, a datagram may be dropped.
fn reference(file: &Path) -> Run {
    let first = run(janet("stock", file));
    match first.outcome.exit_status {
        Some(_) => first,
        None => run(janet("stock", file)),
    }
}

/// Runs a program on both, side by side. One with datagrams runs alone: where the stock VM has the kernel choose
/// a port for datagrams, it allows that to be a port that another process shares, and then gets some of what
/// is for the other.
fn run_both(program: &Program, file: &Path) -> [Run; 2] {
    static DATAGRAMS: Mutex<()> = Mutex::new(());
    if program.source.contains("datagram") {
        let _alone = DATAGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        return [run(janet("ring", file)), reference(file)];
    }
    thread::scope(|scope| {
        let ring = scope.spawn(|| run(janet("ring", file)));
        let stock = scope.spawn(|| reference(file));
        [ring.join().unwrap(), stock.join().unwrap()]
    })
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What a program printed, without what no two runs have in common: the number of a descriptor is `N`
/// where a stream is shown (`[fd=7]`), and so is the address of a value (`<table 0x55D0C0FFEE>`). Programs
/// do not print ports that the kernel chose.
fn normalised(output: &str) -> String {
    let mut text = String::with_capacity(output.len());
    let mut rest = output;
    while let Some(position) = ["fd=", "0x"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        let is_descriptor = rest[position..].starts_with("fd=");
        let (before, number) = rest.split_at(position + if is_descriptor { 3 } else { 2 });
        let is_digit = |c: char| if is_descriptor { c.is_ascii_digit() } else { c.is_ascii_hexdigit() };
        text.push_str(before);
        rest = number.trim_start_matches(is_digit);
        if rest.len() < number.len() {
            text.push('N');
        }
    }
    text + rest
}

/// Runs the programs of a group on both; panics with all that is not as it should be.
fn compare(group: &str, text: &str) {
    let folder = folder(group);
    let mut failures = String::new();
    let programs = programs(text);
    for (index, program) in programs.iter().enumerate() {
        let file = folder.join(format!("{index}.janet"));
        fs::write(&file, format!("{PRELUDE}{}", program.source)).unwrap();
        let [ring, stock] = run_both(program, &file);
        for reason in stock.outcome.output.lines().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
            println!("SKIPPED {group}, {}: {reason}", program.title);
        }
        let as_expected = match &program.expected {
            Some(expected) => [&ring.outcome, &stock.outcome] == expected.each_ref(),
            None => ring.outcome == stock.outcome && ring.outcome.exit_status == Some(program.exit_status),
        };
        if !as_expected {
            let _ = write!(failures, "\n### {}\n{}", program.title, program.source);
            for (name, run) in [("ring", &ring), ("stock", &stock)] {
                let Outcome { exit_status, output } = &run.outcome;
                let _ = write!(failures, "--- {name}: {exit_status:?}\n{output}\n{}\n", run.errors);
            }
            let _ =
                writeln!(failures, "--- to run it: [RINGSPUN_NET=stock] ringspun janet {}", file.display());
        }
    }
    assert!(failures.is_empty(), "of the {} programs of {group}:\n{failures}", programs.len());
}

#[test]
fn streams_end_alike() {
    compare("end_of_stream", include_str!("differential/end_of_stream.janet"));
}

#[test]
fn streams_are_closed_alike() {
    compare("closing", include_str!("differential/closing.janet"));
}

#[test]
fn connections_are_made_alike() {
    compare("connecting", include_str!("differential/connecting.janet"));
}

#[test]
fn arguments_are_checked_alike() {
    compare("arguments", include_str!("differential/arguments.janet"));
}

#[test]
fn streams_and_functions_can_do_and_show_the_same() {
    compare("capabilities", include_str!("differential/capabilities.janet"));
}

#[test]
fn timeouts_and_deadlines_expire_alike() {
    compare("timeouts", include_str!("differential/timeouts.janet"));
}

#[test]
fn bytes_are_carried_alike() {
    compare("transfers", include_str!("differential/transfers.janet"));
}

#[test]
fn fibers_wait_and_are_cancelled_alike() {
    compare("fibers", include_str!("differential/fibers.janet"));
}

#[test]
fn memory_and_descriptors_are_given_back_alike() {
    compare("resources", include_str!("differential/resources.janet"));
}

#[test]
fn what_the_ring_does_not_serve_works_beside_it_alike() {
    compare("neighbours", include_str!("differential/neighbours.janet"));
}

#[test]
fn datagrams_are_sent_and_received_alike() {
    compare("datagrams", include_str!("differential/datagrams.janet"));
}

#[test]
fn datagram_sockets_are_waited_for_and_closed_alike() {
    compare("datagram_sockets", include_str!("differential/datagram_sockets.janet"));
}

#[test]
fn unix_sockets_work_alike() {
    compare("unix", include_str!("differential/unix.janet"));
}

#[test]
fn addresses_are_looked_up_alike() {
    compare("addresses", include_str!("differential/addresses.janet"));
}

#[test]
fn options_are_set_alike() {
    compare("options", include_str!("differential/options.janet"));
}

#[test]
fn streams_are_values_alike() {
    compare("values", include_str!("differential/values.janet"));
}

#[test]
fn what_the_manual_says_holds_alike() {
    compare("manual", include_str!("differential/manual.janet"));
}

#[test]
fn busy_streams_behave_alike() {
    compare("busy", include_str!("differential/busy.janet"));
}

#[test]
fn documented_differences_are_as_documented() {
    compare("differences", include_str!("differential/differences.janet"));
}

/// A documented difference too, which needs a name with two addresses: the program runs where the hosts
/// file is one of our own.
#[test]
fn a_name_with_several_addresses_is_tried_address_by_address() {
    const PROGRAM: &str = r#"
        (with [listener (net/listen "127.0.0.1" "0")]
          (def [_ port] (net/localname listener))
          (show (map |(first (net/address-unpack $)) (net/address "both.test" port :stream true)))
          (show (first (net/peername (net/connect "both.test" port)))))
    "#;
    const MOUNT: &str = "mount --bind hosts /etc/hosts";
    let folder = folder("several_addresses");
    fs::write(folder.join("hosts"), "::1 both.test\n127.0.0.1 both.test\n").unwrap();
    let file = folder.join("program.janet");
    fs::write(&file, format!("{PRELUDE}{PROGRAM}")).unwrap();
    let with_hosts = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c", &format!("{MOUNT} && {command}")]);
        unshare.current_dir(&folder).stderr(Stdio::null());
        unshare
    };
    if !with_hosts("true").status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: a hosts file of our own cannot be mounted here");
        return;
    }
    let outcome = |net| {
        let mut command = with_hosts("exec \"$0\" janet \"$1\"");
        command.arg(env!("CARGO_BIN_EXE_ringspun")).arg(&file).env("RINGSPUN_NET", net);
        run(command).outcome
    };
    let addresses = "(map (short-fn (first (net/address-unpack $))) \
                     (net/address \"both.test\" port :stream true)) => @[\"::1\" \"127.0.0.1\"]\n";
    let connected = "(first (net/peername (net/connect \"both.test\" port)))";
    let expected =
        |result: &str| Outcome { exit_status: Some(0), output: format!("{addresses}{connected} {result}\n") };
    let stock = outcome("stock");
    if !stock.output.starts_with(addresses) {
        println!("SKIPPED: this machine's resolver does not give both addresses: {}", stock.output);
        return;
    }
    assert_eq!(stock, expected("!! \"Connection refused\""));
    assert_eq!(outcome("ring"), expected("=> \"127.0.0.1\""));
}
