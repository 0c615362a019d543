//! The sockets of a process that is ended by the default action of a signal, or by an exit, are closed once it has
//! been waited for: no port accepts, and no datagram to a port that it shared is lost.
//!
//! This binary is both the test and, with arguments, the process to end.

mod dispositions;
mod serving;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use ringspun_runtime::{BackendKind, probe};

use self::serving::{End, Plan, shared_udp};

const ROUNDS: usize = 20;
/// So many that both sockets of a port get some.
const DATAGRAMS: usize = 64;
/// Much longer than loopback takes on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    process: Child,
    plan: Plan,
    tcp_ports: Vec<u16>,
    /// Another socket on the shared port.
    udp: UdpSocket,
}

impl Server {
    fn start(backend: &str, loops: usize, is_busy: bool, end: End) -> Self {
        let udp = UdpSocket::from(shared_udp(0));
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let folder = std::env::temp_dir();
        let path = format!("{}/ringspun-termination-{}", folder.display(), std::process::id());
        let plan = Plan { loops, is_busy, end, udp_port: udp.local_addr().unwrap().port(), path };
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--serve"].map(String::from).into_iter().chain(plan.to_arguments()))
            .env("RINGSPUN_BACKEND", backend)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let tcp_ports = line.split_whitespace().map(|port| port.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(tcp_ports.len(), loops, "{line:?}");
        Self { process, plan, tcp_ports, udp }
    }

    /// Connects to all listeners until they are closed.
    fn check_that_it_serves(&self) {
        for port in &self.tcp_ports {
            TcpStream::connect((HOST, *port)).unwrap();
        }
        for number in 0..self.plan.loops {
            UnixStream::connect(self.path(number)).unwrap();
        }
    }

    fn path(&self, number: usize) -> String {
        format!("{}.{number}", self.plan.path)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the process, and checks that its sockets are closed.
    fn ended(mut self) -> ExitStatus {
        let status = self.process.wait().unwrap();
        for port in &self.tcp_ports {
            let connected = TcpStream::connect((HOST, *port));
            assert_eq!(connected.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused), "TCP");
        }
        for number in 0..self.plan.loops {
            let connected = UnixStream::connect(self.path(number));
            assert_eq!(connected.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused), "Unix");
            std::fs::remove_file(self.path(number)).unwrap();
        }
        for number in 0..DATAGRAMS {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(&[number as u8], ("127.0.0.1", self.plan.udp_port)).unwrap();
        }
        for count in 0..DATAGRAMS {
            let received = self.udp.recv(&mut [0; 8]);
            assert!(received.is_ok(), "{count} of {DATAGRAMS} datagrams have come: {received:?}");
        }
        status
    }
}

/// Where the ports are that are let go: on 127.0.0.1, some would be other tests' at once.
const HOST: &str = if cfg!(target_os = "linux") { "127.77.0.1" } else { "127.0.0.1" };
/// Those of which some rounds are run.
const COMMON: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
/// The others that end a process by default, but for faults, SIGKILL and SIGPIPE, which Rust programs ignore.
const OTHERS: [Signal; 12] = [
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];

fn signals_end_it(backend: &str) {
    let rounds = COMMON.map(|signal| (signal, ROUNDS)).into_iter().chain(OTHERS.map(|signal| (signal, 1)));
    for (signal, rounds) in rounds {
        for round in 0..rounds {
            let loops = if round % 4 == 3 { 3 } else { 1 };
            let server = Server::start(backend, loops, round % 2 == 0, End::Never);
            if round == 0 {
                server.check_that_it_serves();
            }
            server.signal(signal);
            if round % 5 == 4 {
                // While the process is ending.
                server.signal(Signal::SIGTERM);
            }
            let status = server.ended();
            let expected = [Some(signal as i32), (round % 5 == 4).then_some(Signal::SIGTERM as i32)];
            assert!(status.signal().is_some() && expected.contains(&status.signal()), "{signal}: {status:?}");
        }
    }
}

fn realtime_signals_end_it(backend: &str) {
    for number in [libc::SIGRTMIN(), libc::SIGRTMIN() + 3, libc::SIGRTMAX()] {
        let server = Server::start(backend, 1, false, End::Never);
        // SAFETY: the process has not been waited for.
        assert_eq!(unsafe { libc::kill(server.process.id().try_into().unwrap(), number) }, 0);
        assert_eq!(server.ended().signal(), Some(number));
    }
}

fn signals_at_an_exit_end_it(backend: &str) {
    for round in 0..ROUNDS {
        let status = Server::start(backend, 1, round % 2 == 0, End::SignalAtExit).ended();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status:?}");
    }
}

fn exits_end_it(backend: &str, end: End, code: i32) {
    for round in 0..ROUNDS {
        let loops = if round % 4 == 3 { 3 } else { 1 };
        let status = Server::start(backend, loops, round % 2 == 0, end).ended();
        assert_eq!(status.code(), Some(code), "{end:?}: {status:?}");
    }
}

fn actions_are_as_expected(backend: &str) {
    for cancels in ["true", "false"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--dispositions", backend, cancels]).stderr(Stdio::inherit()).output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(output.trim(), dispositions::AS_EXPECTED, "cancel_at_termination: {cancels}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, plan @ ..] = arguments.as_slice()
        && first == "--serve"
    {
        return serving::run(&Plan::from_arguments(plan));
    }
    if let [first, backend, cancels] = arguments.as_slice()
        && first == "--dispositions"
    {
        let kind = if backend == "poll" { BackendKind::Poll } else { BackendKind::Uring };
        return dispositions::check(kind, cancels == "true");
    }
    // Who starts tests in the background, or lets them survive the end of a session, has them ignore these.
    for ignored in COMMON.into_iter().chain(OTHERS) {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(ignored, SigHandler::SigDfl) }.unwrap();
    }
    let refusal = probe::ring_report().refusal;
    let (mut passed, mut failed) = (0, 0);
    for backend in ["uring", "poll"] {
        if let (Some(refusal), "uring") = (&refusal, backend) {
            println!("only on poll: {refusal}");
            continue;
        }
        for (name, test) in [
            ("actions_of_signals_are_as_expected", &(|| actions_are_as_expected(backend)) as &dyn Fn()),
            ("after_signals_nothing_is_left", &|| signals_end_it(backend)),
            ("after_realtime_signals_nothing_is_left", &|| realtime_signals_end_it(backend)),
            ("signals_at_an_exit_are_not_lost", &|| signals_at_an_exit_end_it(backend)),
            ("after_an_exit_nothing_is_left", &|| exits_end_it(backend, End::Exit, 7)),
            ("after_an_exit_at_once_nothing_is_left", &|| exits_end_it(backend, End::ExitAtOnce, 8)),
            ("after_a_return_nothing_is_left", &|| exits_end_it(backend, End::Return, 0)),
        ] {
            let is_ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
            *if is_ok { &mut passed } else { &mut failed } += 1;
            println!("test {backend}::{name} ... {}", if is_ok { "ok" } else { "FAILED" });
        }
    }
    // In the words of the standard harness, for scripts that count.
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed");
    if failed > 0 {
        std::process::exit(101);
    }
}
