//! Two hosts measure a third together: `--start-at`, and their logs merged by `load report`. The hosts are network
//! namespaces, each with a cable (veth) to that of the target.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::measuring::{check_sums, load, number};
use crate::support::namespace;
use crate::support::scratch::scratch_path;

const TEST: &str = "two_hosts_measure_together_and_their_logs_are_merged";
const RATE_PER_S: u64 = 300;
const DURATION_S: u64 = 2;

/// A host with one network interface, which is not up yet: it waits for a line before it does anything.
struct Host {
    process: Child,
    number: usize,
}

impl Host {
    /// Starts `ringspun load` with these arguments on a host with the address 10.0.NUMBER.2, once it is told to.
    fn new(number: usize, arguments: &[&str]) -> Self {
        let script = format!(
            "read line && ip link set lo up && ip address add 10.0.{number}.2/24 dev eth0 && ip link set eth0 up && \
             exec \"$0\" load \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script, env!("CARGO_BIN_EXE_ringspun")]).args(arguments);
        let process =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { process, number }
    }

    /// Lays a cable from this namespace, which has the address 10.0.NUMBER.1.
    fn connect(&self) {
        let (pid, number) = (self.process.id(), self.number);
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        while network(&pid.to_string()) == network("self") {
            thread::sleep(Duration::from_millis(1));
        }
        let script = format!(
            "ip link add host{number} type veth peer name eth0 netns {pid} && \
             ip address add 10.0.{number}.1/24 dev host{number} && ip link set host{number} up"
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    fn go(&mut self) {
        self.process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    fn finish(self) {
        let output = self.process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Echoes to everybody who comes to port 7000, and tells where they come from.
fn echo_server() -> mpsc::Receiver<String> {
    let (sender, peers) = mpsc::channel();
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            sender.send(stream.peer_addr().unwrap().ip().to_string()).unwrap();
            thread::spawn(move || {
                let mut message = [0; 64];
                while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
            });
        }
    });
    peers
}

#[test]
fn two_hosts_measure_together_and_their_logs_are_merged() {
    // Where the kernel has no cables, it ends here.
    let prepare = "ip link add probe type veth peer name other && ip link delete probe";
    let is_done = namespace::in_namespace(&format!("{}::{TEST}", module_path!()), prepare, || {
        let peers = echo_server();
        // Late enough for both to have opened their connections, unless the machine is very slow.
        let start_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 10;
        let (start, rate, duration) =
            (start_at.to_string(), RATE_PER_S.to_string(), format!("{DURATION_S}s"));
        let files = [1, 2]
            .map(|number| (scratch_path(&format!("{number}.hdr")), scratch_path(&format!("{number}.json"))));
        let mut hosts: Vec<Host> = Vec::new();
        for (number, (hdr, json)) in (1..).zip(&files) {
            let target = format!("tcp://10.0.{number}.1:7000");
            let plan = ["--connections", "4", "--rate", &rate, "--duration", &duration, "--start-at", &start];
            let written = ["--hdr", hdr.to_str().unwrap(), "--json", json.to_str().unwrap()];
            hosts.push(Host::new(number, &[&[target.as_str()][..], &plan, &written].concat()));
        }
        hosts.iter().for_each(Host::connect);
        hosts.iter_mut().for_each(Host::go);
        hosts.into_iter().for_each(Host::finish);

        let expected: BTreeSet<String> = ["10.0.1.2", "10.0.2.2"].map(String::from).into();
        assert_eq!(peers.try_iter().collect::<BTreeSet<_>>(), expected);
        let logs: Vec<&str> = files.iter().map(|(hdr, _)| hdr.to_str().unwrap()).collect();
        let output = load(&["report", logs[0], logs[1], "--json", "-"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (mut answered, mut late_max_s) = (0, 0.0_f64);
        for (log, (_, json)) in report["logs"].as_array().unwrap().iter().zip(&files) {
            let run: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
            check_sums(&run);
            assert_eq!(log["answered"], run["requests"]["answered"]);
            assert_eq!(number(&run["requests"]["planned"]), RATE_PER_S * DURATION_S);
            assert_eq!(number(&run["errors"]["total"]), 0);
            answered += number(&run["requests"]["answered"]);
            // It measured from then on, as far as the log's milliseconds tell.
            let (start_s, late_s) =
                (log["start_s"].as_f64().unwrap(), run["generator"]["started_late_s"].as_f64().unwrap());
            late_max_s = late_max_s.max(late_s);
            assert!((start_s - start_at as f64 - late_s).abs() < 0.01, "{log} {late_s}");
        }
        assert_eq!(number(&report["requests"]["answered"]), answered);
        // One that began late, on a slow machine, also ended late.
        let (measured_s, longest_s) =
            (report["measured_s"].as_f64().unwrap(), DURATION_S as f64 + late_max_s);
        assert!(measured_s > 0.0 && measured_s <= longest_s + 0.01, "{report}");
        files
            .iter()
            .for_each(|(hdr, json)| [hdr, json].iter().for_each(|file| fs::remove_file(file).unwrap()));
    });
    if !is_done {
        println!("SKIPPED {TEST}: namespaces, or cables (veth) between them, are not allowed here");
    }
}
