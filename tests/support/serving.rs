//! A server in a process of its own, which is looked at from outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A server that is killed when it is dropped.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// Starts `ringspun` with these arguments, and waits for the line with its address.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(arguments);
        Self::start_command(command)
    }

    /// The same with a command that has more to it.
    pub fn start_command(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let is_address = |word: &&str| word.parse::<std::net::SocketAddr>().is_ok();
        let address =
            line.split_whitespace().find(is_address).expect("the server prints its address").to_string();
        Self { process, address }
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has ended by itself, and panics if that takes longer.
    #[allow(dead_code, reason = "not every program that has this module ends its servers")]
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < at_most, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// All pages that are there, counted one by one; the sums in `status` and `statm` are not exact.
    pub fn resident_bytes(&self) -> usize {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
