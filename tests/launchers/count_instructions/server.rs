//! The server that is stepped through.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::plan::Failure;

/// A server that is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(command: &[OsString]) -> Result<Self, Failure> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| Failure::Usage("expected a server".to_string()))?;
        let mut child =
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().map_err(|error| {
                Failure::Failed(format!("{} cannot be run: {error}", program.to_string_lossy()))
            })?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut words = line.split_whitespace();
        let address = words.find(|word| word.parse::<std::net::SocketAddr>().is_ok()).map(str::to_string);
        let mut server = Self { child, address: String::new() };
        server.address = address.ok_or_else(|| {
            Failure::Failed(format!("{line:?}: expected a line with the address that the server listens on"))
        })?;
        Ok(server)
    }

    pub(crate) fn process(&self) -> Pid {
        Pid::from_raw(self.child.id() as libc::pid_t)
    }

    /// The mappings of its memory, as in `/proc/pid/maps`.
    pub(crate) fn mappings(&self) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/maps", self.child.id()))
    }

    /// The time that each thread has taken, in nanoseconds.
    pub(crate) fn times(&self) -> Result<HashMap<i32, u64>, Failure> {
        let mut times = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let schedule = fs::read_to_string(format!("/proc/{}/task/{id}/schedstat", self.child.id()))?;
            let time = schedule.split(' ').next().and_then(|time| time.parse().ok());
            times.insert(id, time.unwrap_or(0));
        }
        Ok(times)
    }

    /// The thread that has taken the most time since.
    pub(crate) fn busiest_thread(&self, before: &HashMap<i32, u64>) -> Result<Pid, Failure> {
        let taken = |(id, time): &(i32, u64)| time - before.get(id).unwrap_or(&0).min(time);
        let busiest = self.times()?.into_iter().max_by_key(taken);
        let (id, _) = busiest.ok_or_else(|| Failure::Failed("the server has ended".to_string()))?;
        Ok(Pid::from_raw(id))
    }

    pub(crate) fn is_asleep(&self, thread: Pid) -> io::Result<bool> {
        let text = fs::read_to_string(format!("/proc/{}/task/{thread}/stat", self.child.id()))?;
        // The name before it may have any characters in it.
        Ok(text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S')))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        // A traced thread is waited for on its own, and the process ends only when that has been done.
        while waitpid(None, Some(WaitPidFlag::__WALL)).is_ok() {}
    }
}
