//! Faults of real peers and of a real network: clients that are killed in the middle of their work, a network that
//! loses and delays packets, and a process that may lock no memory.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use crate::support::namespace;
use crate::support::serving::Server;

const ON_FIBERS: [&str; 4] = ["serve", "echo", "--tcp", "127.0.0.1:0"];
const IN_JANET: [&str; 2] = ["janet", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo.janet")];
const CONNECTIONS: usize = 40;
/// What is waited for happens soon or never.
const PATIENCE: Duration = Duration::from_secs(60);

fn load(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.arg("load").arg(format!("tcp://{}", server.address)).args(arguments);
    command
}

/// Every request is answered, with the bytes that it sent.
fn answers_all(server: &Server, arguments: &[&str]) {
    // What a network loses is sent again after seconds, if it is lost repeatedly.
    let output =
        load(server, arguments).args(["--timeout", "60s", "--fail-if", "errors>0"]).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
}

/// Waits until the number of the server's descriptors is as it should be.
fn wait_for_descriptors(server: &Server, what: &str, is_right: impl Fn(usize) -> bool) {
    let start = Instant::now();
    loop {
        let count = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
        if is_right(count) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{count} descriptors, expected {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills clients under load, some of them while large answers are on their way, and looks at what is left of them.
fn outlives_its_clients(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    // A server in Janet tells of each client that is gone.
    command.args(arguments).stderr(Stdio::null());
    let server = Server::start_command(command);
    answers_all(&server, &["--connections", "1", "--count", "100"]);
    // What the server needs for itself is there now; its last connection may not be closed yet.
    let start = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    for payload in ["64", "65536", "64", "65536"] {
        let mut client = load(&server, &["--connections", &CONNECTIONS.to_string(), "--payload", payload]);
        let mut client =
            client.args(["--duration", "10m"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_descriptors(&server, "those of all connections", |count| count >= start - 1 + CONNECTIONS);
        client.kill().unwrap();
        client.wait().unwrap();
        wait_for_descriptors(&server, "as many as before the clients came", |count| count <= start);
    }
    answers_all(&server, &["--connections", "20", "--count", "2000"]);
}

#[test]
fn a_server_on_fibers_outlives_clients_that_are_killed_under_load() {
    outlives_its_clients(&ON_FIBERS);
}

#[test]
fn a_server_in_janet_outlives_clients_that_are_killed_under_load() {
    outlives_its_clients(&IN_JANET);
}

/// How many segments of TCP have been sent again in this network.
fn segments_sent_again() -> u64 {
    let counts = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = counts.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let position = names.position(|name| name == "RetransSegs").unwrap();
    values.nth(position).unwrap().parse().unwrap()
}

#[test]
fn a_network_that_loses_and_delays_packets_costs_no_byte() {
    let test = "a_network_that_loses_and_delays_packets_costs_no_byte";
    // Not every kernel has the emulation of a bad network; a narrow one loses what its short queue has no room for.
    let emulated =
        "tc qdisc add dev lo root netem delay 4ms 3ms loss 3% duplicate 2% reorder 10% 2>/dev/null";
    let narrow = "tc qdisc add dev lo root tbf rate 20mbit burst 3000 limit 9000";
    let prepare = format!("ip link set lo mtu 1500 && {{ {emulated} || {narrow}; }}");
    let ran = namespace::in_namespace(&format!("{}::{test}", module_path!()), &prepare, || {
        for arguments in [&ON_FIBERS[..], &IN_JANET[..]] {
            let (server, before) = (Server::start(arguments), segments_sent_again());
            answers_all(&server, &["--connections", "20", "--count", "1000"]);
            answers_all(&server, &["--connections", "4", "--count", "40", "--payload", "65536"]);
            let lost = segments_sent_again() - before;
            assert!(lost > 0, "the network lost nothing");
        }
    });
    if !ran {
        println!("SKIPPED {test}: a network of its own that loses packets (tc(8)) cannot be had here");
    }
}

#[test]
fn a_server_that_may_lock_no_memory_serves_on_one_backend_or_the_other() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.args(ON_FIBERS);
    // SAFETY: between fork and exec, only calls that are async-signal-safe are made: one, of setrlimit(2).
    unsafe {
        command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)?));
    }
    let server = Server::start_command(command);
    answers_all(&server, &["--connections", "20", "--count", "2000"]);
}
