//! Counts the instructions that an echo server takes for each echo, exactly, by stepping through them:
//!
//! ```text
//! count-instructions [--connections N] [--active N] [--rounds N] [--addresses FILE] SERVER [ARGUMENTS]
//! ```
//!
//! The server is any that prints the address it listens on. In each round every connection sends 64 bytes while
//! the server is stopped, so that it always meets all of them at once; then its busiest thread is stepped
//! through one instruction at a time (`PTRACE_SINGLESTEP` in `ptrace(2)`) until all echoes are back and it
//! sleeps. A system call counts as one instruction. Unlike an emulator's, such a count needs no tool, and works
//! with io_uring. It takes some 20 µs per instruction: with `--active`, only so many connections send in each
//! round, others in the next, and the rest is open and idle.
//!
//! Prints one line of JSON, with the instructions of each round and the median of them per echo: a round in which a
//! server collects its garbage is an outlier, which the mean is not free of. `--addresses` writes how often each
//! address of the program was met, as `addr2line` takes them, to find out where the instructions go.

use std::process::ExitCode;

fn main() -> ExitCode {
    match counting::run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(counting::Failure::Usage(text)) => {
            eprintln!("count-instructions: {text}");
            ExitCode::from(2)
        }
        Err(counting::Failure::Failed(text)) => {
            eprintln!("count-instructions: {text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod counting {
    pub enum Failure {
        Usage(String),
        Failed(String),
    }

    pub fn run(_: impl Iterator<Item = std::ffi::OsString>) -> Result<(), Failure> {
        Err(Failure::Failed("only Linux has the ptrace(2) that this takes".to_string()))
    }
}

#[cfg(target_os = "linux")]
mod counting {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fmt::Write as _;
    use std::fs;
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::ptrace;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    const MESSAGE: [u8; 64] = [b'x'; 64];
    /// Rounds before any instruction is counted: caches of the server's own are full, and its lists long enough.
    const WARM_UP_ROUNDS: u64 = 20;
    /// What tells the tracer that a round is over. Its default is to be ignored.
    const ROUND_IS_OVER: Signal = Signal::SIGURG;

    pub enum Failure {
        Usage(String),
        Failed(String),
    }

    impl From<io::Error> for Failure {
        fn from(error: io::Error) -> Self {
            Self::Failed(error.to_string())
        }
    }

    impl From<Errno> for Failure {
        fn from(errno: Errno) -> Self {
            Self::Failed(format!("the server cannot be traced: {errno}"))
        }
    }

    struct Plan {
        connections: u64,
        /// How many of them send in each round; all without it.
        active: Option<u64>,
        rounds: u64,
        addresses: Option<OsString>,
        command: Vec<OsString>,
    }

    impl Plan {
        fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
            let mut plan =
                Self { connections: 64, active: None, rounds: 10, addresses: None, command: Vec::new() };
            while let Some(argument) = arguments.next() {
                let flag = argument.to_string_lossy().into_owned();
                let mut value =
                    || arguments.next().ok_or_else(|| Failure::Usage(format!("{flag}: expected a value")));
                match flag.as_str() {
                    "--connections" => plan.connections = number(&flag, value()?)?,
                    "--active" => plan.active = Some(number(&flag, value()?)?),
                    "--rounds" => plan.rounds = number(&flag, value()?)?,
                    "--addresses" => plan.addresses = Some(value()?),
                    _ => {
                        plan.command = std::iter::once(argument).chain(arguments).collect();
                        return Ok(plan);
                    }
                }
            }
            Err(Failure::Usage(
                "expected a server, such as ringspun serve echo --tcp 127.0.0.1:0".to_string(),
            ))
        }
    }

    fn number(flag: &str, value: OsString) -> Result<u64, Failure> {
        let value = value.to_string_lossy();
        let number = value.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| Failure::Usage(format!("{flag} {value}: expected a positive number")))
    }

    /// A server that is killed when it is dropped.
    struct Server {
        child: Child,
        address: String,
    }

    impl Server {
        fn start(command: &[OsString]) -> Result<Self, Failure> {
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
                Failure::Failed(format!(
                    "{line:?}: expected a line with the address that the server listens on"
                ))
            })?;
            Ok(server)
        }

        /// The time that each thread has taken, in nanoseconds.
        fn times(&self) -> Result<HashMap<i32, u64>, Failure> {
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
        fn busiest_thread(&self, before: &HashMap<i32, u64>) -> Result<Pid, Failure> {
            let taken = |(id, time): &(i32, u64)| time - before.get(id).unwrap_or(&0).min(time);
            let busiest = self.times()?.into_iter().max_by_key(taken);
            let (id, _) = busiest.ok_or_else(|| Failure::Failed("the server has ended".to_string()))?;
            Ok(Pid::from_raw(id))
        }

        fn is_asleep(&self, thread: Pid) -> io::Result<bool> {
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

    fn send<'a>(connections: impl IntoIterator<Item = &'a TcpStream>) -> io::Result<()> {
        connections.into_iter().try_for_each(|mut connection| connection.write_all(&MESSAGE))
    }

    fn receive<'a>(connections: impl IntoIterator<Item = &'a TcpStream>) -> io::Result<()> {
        let mut buffer = [0; MESSAGE.len()];
        connections.into_iter().try_for_each(|mut connection| connection.read_exact(&mut buffer))
    }

    /// Those that send in a round: evenly among all, and others from round to round.
    fn active_in(round: u64, connections: &[TcpStream], active: u64) -> impl Iterator<Item = &TcpStream> {
        let count = connections.len() as u64;
        let distance = count / active;
        (0..active).map(move |number| &connections[((round + number * distance) % count) as usize])
    }

    pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
        let plan = Plan::parse(arguments)?;
        // A connection takes a descriptor here and one of the server, which inherits the limit.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        let server = Server::start(&plan.command)?;
        let connections: Vec<_> =
            (0..plan.connections).map(|_| TcpStream::connect(&server.address)).collect::<io::Result<_>>()?;
        for connection in &connections {
            connection.set_nodelay(true)?;
            // Stepped through, a server is slow; one that does not answer at all is an error.
            connection.set_read_timeout(Some(Duration::from_secs(600)))?;
        }
        let before = server.times()?;
        for _ in 0..WARM_UP_ROUNDS {
            send(&connections)?;
            receive(&connections)?;
        }
        let thread = server.busiest_thread(&before)?;
        let active = plan.active.unwrap_or(plan.connections).min(plan.connections);
        let (mut rounds, met) = step(&server, thread, &connections, active, &plan)?;
        if let Some(path) = &plan.addresses {
            fs::write(path, listing(&server, met)?)?;
        }
        let (count, echoes, each) = (rounds.iter().sum::<u64>(), active * plan.rounds, format!("{rounds:?}"));
        rounds.sort_unstable();
        println!(
            concat!(
                r#"{{"connections":{},"active":{},"echoes":{},"instructions":{},"#,
                r#""instructions_per_echo":{:.1},"median_per_echo":{:.1},"rounds":{}}}"#
            ),
            plan.connections,
            active,
            echoes,
            count,
            count as f64 / echoes as f64,
            (rounds[(rounds.len() - 1) / 2] + rounds[rounds.len() / 2]) as f64 / 2.0 / active as f64,
            each
        );
        Ok(())
    }

    /// Steps through the rounds, and counts the instructions of each, and those at each address if they are asked for.
    fn step(
        server: &Server,
        thread: Pid,
        connections: &[TcpStream],
        active: u64,
        plan: &Plan,
    ) -> Result<(Vec<u64>, HashMap<u64, u64>), Failure> {
        let process = server.child.id() as libc::pid_t;
        ptrace::seize(thread, ptrace::Options::empty())?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        let (mut counts, mut met) = (Vec::new(), HashMap::new());
        thread::scope(|scope| {
            let (begun, rounds) = mpsc::channel();
            let receiver = scope.spawn(move || -> io::Result<()> {
                for round in rounds {
                    let received = receive(active_in(round, connections, active));
                    // Up to where it waits for what comes next.
                    while received.is_ok() && !server.is_asleep(thread)? {
                        thread::sleep(Duration::from_millis(1));
                    }
                    // SAFETY: sends a signal, to a thread that is there for as long as it is traced.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, process, thread.as_raw(), ROUND_IS_OVER as i32)
                    };
                    received?;
                }
                Ok(())
            });
            for round in 0..plan.rounds {
                send(active_in(round, connections, active))?;
                // The other end is gone if a round has failed, which is told below.
                let _ = begun.send(round);
                let mut count = 0;
                loop {
                    ptrace::step(thread, None)?;
                    match waitpid(thread, Some(WaitPidFlag::__WALL))? {
                        WaitStatus::Stopped(_, ROUND_IS_OVER) => break,
                        WaitStatus::Stopped(_, Signal::SIGTRAP) => count += 1,
                        WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => {}
                        ended => return Err(Failure::Failed(format!("the server has ended: {ended:?}"))),
                    }
                    if plan.addresses.is_some() {
                        *met.entry(instruction_pointer(thread)?).or_default() += 1;
                    }
                }
                counts.push(count);
            }
            drop(begun);
            let received = receiver.join();
            received.map_err(|_| Failure::Failed("the receiving thread panicked".to_string()))??;
            Ok((counts, met))
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn instruction_pointer(thread: Pid) -> nix::Result<u64> {
        ptrace::getregs(thread).map(|registers| registers.rip)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn instruction_pointer(_: Pid) -> nix::Result<u64> {
        Err(Errno::ENOSYS)
    }

    /// The addresses as they are in the program's file, most frequent first.
    fn listing(server: &Server, met: HashMap<u64, u64>) -> io::Result<String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", server.child.id()))?;
        let first = maps.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(0);
        let mut met: Vec<_> = met.into_iter().collect();
        met.sort_unstable_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
        let mut text = String::new();
        for (address, count) in met {
            let _ = writeln!(text, "{:#x} {count}", address.wrapping_sub(first));
        }
        Ok(text)
    }
}
