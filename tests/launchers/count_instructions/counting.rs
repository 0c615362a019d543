//! Runs the rounds, and steps through them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use ringspun::tls::ClientConfig;

use crate::connection::Connection;
#[cfg(target_arch = "x86_64")]
use crate::lines::Lines;
use crate::plan::{Failure, Plan};
use crate::server::Server;

const MESSAGE: [u8; 64] = [b'x'; 64];
/// Rounds before any instruction is counted: caches of the server's own are full, and its lists long enough.
const WARM_UP_ROUNDS: u64 = 20;
/// What tells the tracer that a round is over. Its default is to be ignored.
const ROUND_IS_OVER: Signal = Signal::SIGURG;

fn send<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> io::Result<()> {
    connections.into_iter().try_for_each(|connection| connection.send(&MESSAGE))
}

fn receive<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> io::Result<()> {
    let mut buffer = [0; MESSAGE.len()];
    connections.into_iter().try_for_each(|connection| connection.receive(&mut buffer))
}

fn warm_up(connections: &[Connection]) -> io::Result<()> {
    for _ in 0..WARM_UP_ROUNDS {
        send(connections)?;
        receive(connections)?;
    }
    Ok(())
}

/// Those that send in a round: evenly among all, and others from round to round.
fn active_in(round: u64, connections: &[Connection], active: u64) -> impl Iterator<Item = &Connection> {
    let count = connections.len() as u64;
    let distance = count / active;
    (0..active).map(move |number| &connections[((round + number * distance) % count) as usize])
}

pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let plan = Plan::parse(arguments)?;
    // A connection takes a descriptor here and one of the server, which inherits the limit.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let server = Server::start(&plan.command)?;
    let tls = plan.with_tls.then(|| ClientConfig::builder().dangerous_accept_any_certificate().build());
    let tls = tls.transpose()?;
    let connect = |_| Connection::connect(&server.address, tls.as_ref());
    let connections: Vec<_> = (0..plan.connections).map(connect).collect::<io::Result<_>>()?;
    let before = server.times()?;
    warm_up(&connections)?;
    let thread = server.busiest_thread(&before)?;
    let active = plan.active.unwrap_or(plan.connections).min(plan.connections);
    let mut observer = Observer::new(&server, &plan)?;
    ptrace::seize(thread, ptrace::Options::empty())?;
    // Once more, right before it is stopped: a server may forget what is busy when it has been idle for a while.
    warm_up(&connections)?;
    let mut rounds = step(&server, thread, &connections, active, plan.rounds, &mut observer)?;
    let echoes = active * plan.rounds;
    let lines = observer.finish(&server, &plan)?;
    let lines = lines
        .map_or(String::new(), |lines| format!(r#""lines_per_echo":{:.1},"#, lines as f64 / echoes as f64));
    let (count, each) = (rounds.iter().sum::<u64>(), format!("{rounds:?}"));
    rounds.sort_unstable();
    println!(
        concat!(
            r#"{{"connections":{},"active":{},"echoes":{},"instructions":{},"#,
            r#""instructions_per_echo":{:.1},"median_per_echo":{:.1},{}"rounds":{}}}"#
        ),
        plan.connections,
        active,
        echoes,
        count,
        count as f64 / echoes as f64,
        (rounds[(rounds.len() - 1) / 2] + rounds[rounds.len() / 2]) as f64 / 2.0 / active as f64,
        lines,
        each
    );
    Ok(())
}

/// Steps through the rounds, and counts the instructions of each. The thread is seized.
fn step(
    server: &Server,
    thread: Pid,
    connections: &[Connection],
    active: u64,
    rounds: u64,
    observer: &mut Observer,
) -> Result<Vec<u64>, Failure> {
    ptrace::interrupt(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    let mut counts = Vec::new();
    thread::scope(|scope| {
        let (begun, rounds_begun) = mpsc::channel();
        let receiver = scope.spawn(move || -> io::Result<()> {
            for round in rounds_begun {
                let received = receive(active_in(round, connections, active));
                // Up to where it waits for what comes next.
                while received.is_ok() && !server.is_asleep(thread)? {
                    thread::sleep(Duration::from_millis(1));
                }
                let (process, signal) = (server.process().as_raw(), ROUND_IS_OVER as i32);
                // SAFETY: sends a signal, to a thread that is there for as long as it is traced.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread.as_raw(), signal) };
                received?;
            }
            Ok(())
        });
        for round in 0..rounds {
            send(active_in(round, connections, active))?;
            // The other end is gone if a round has failed, which is told below.
            let _ = begun.send(round);
            let mut count = 0;
            loop {
                observer.observe(thread)?;
                ptrace::step(thread, None)?;
                match waitpid(thread, Some(WaitPidFlag::__WALL))? {
                    WaitStatus::Stopped(_, ROUND_IS_OVER) => break,
                    WaitStatus::Stopped(_, Signal::SIGTRAP) => count += 1,
                    WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => {}
                    ended => return Err(Failure::Failed(format!("the server has ended: {ended:?}"))),
                }
            }
            observer.end_round();
            counts.push(count);
        }
        drop(begun);
        let received = receiver.join();
        received.map_err(|_| Failure::Failed("the receiving thread panicked".to_string()))??;
        Ok(counts)
    })
}

/// What is looked at before each step: nothing, unless it was asked for.
#[cfg(target_arch = "x86_64")]
struct Observer {
    met: Option<HashMap<u64, u64>>,
    lines: Option<Lines>,
}

#[cfg(target_arch = "x86_64")]
impl Observer {
    fn new(server: &Server, plan: &Plan) -> Result<Self, Failure> {
        let lines = plan.lines.as_ref().map(|_| Lines::of(server.process())).transpose()?;
        Ok(Self { met: plan.addresses.as_ref().map(|_| HashMap::new()), lines })
    }

    fn observe(&mut self, thread: Pid) -> Result<(), Failure> {
        if self.met.is_none() && self.lines.is_none() {
            return Ok(());
        }
        let registers = ptrace::getregs(thread)?;
        if let Some(met) = &mut self.met {
            *met.entry(registers.rip).or_default() += 1;
        }
        self.lines.as_mut().map_or(Ok(()), |lines| Ok(lines.touch(&registers)?))
    }

    fn end_round(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.end_round();
        }
    }

    /// Writes the files, and returns the number of lines of all rounds.
    fn finish(self, server: &Server, plan: &Plan) -> io::Result<Option<u64>> {
        let mappings = server.mappings()?;
        if let (Some(path), Some(met)) = (&plan.addresses, self.met) {
            fs::write(path, listing(&mappings, met))?;
        }
        if let (Some(path), Some(lines)) = (&plan.lines, &self.lines) {
            fs::write(path, lines.listing(&mappings))?;
        }
        Ok(self.lines.map(|lines| lines.count()))
    }
}

#[cfg(not(target_arch = "x86_64"))]
struct Observer;

#[cfg(not(target_arch = "x86_64"))]
impl Observer {
    fn new(_: &Server, plan: &Plan) -> Result<Self, Failure> {
        if plan.addresses.is_some() || plan.lines.is_some() {
            return Err(Failure::Usage("--addresses and --lines: only on x86-64".to_string()));
        }
        Ok(Self)
    }

    fn observe(&mut self, _: Pid) -> Result<(), Failure> {
        Ok(())
    }

    fn end_round(&mut self) {}

    fn finish(self, _: &Server, _: &Plan) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// The addresses as they are in the program's file, most frequent first.
#[cfg(target_arch = "x86_64")]
fn listing(mappings: &str, met: HashMap<u64, u64>) -> String {
    let first = mappings.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(0);
    let mut met: Vec<_> = met.into_iter().collect();
    met.sort_unstable_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
    let mut text = String::new();
    for (address, count) in met {
        let _ = writeln!(text, "{:#x} {count}", address.wrapping_sub(first));
    }
    text
}
