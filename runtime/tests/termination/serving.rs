//! The process to end: one or more loops with waiting sockets.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use ringspun_runtime::{
    Completion, Configuration, EventLoop, Operation, OperationKind, Owner, SendData, Wait, Wake,
};

/// The arguments of the process.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number of loops, each in a thread of its own except the first.
    pub loops: usize,
    /// Whether the first loop is busy, so that a signal interrupts it at any point.
    pub is_busy: bool,
    /// How it ends.
    pub end: End,
    /// The port that it shares.
    pub udp_port: u16,
    /// The directory of its Unix sockets.
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal of the parent.
    Never,
    /// By an exit in the middle of a turn.
    Exit,
    /// By `_exit(2)`, announced before.
    ExitAtOnce,
    /// By a return from `main`, with a leaked loop.
    Return,
    /// By SIGTERM, which something raises that runs at an exit, after the rings have been taken care of.
    SignalAtExit,
}

const ENDS: [(&str, End); 5] = [
    ("never", End::Never),
    ("exit", End::Exit),
    ("exit at once", End::ExitAtOnce),
    ("return", End::Return),
    ("signal at exit", End::SignalAtExit),
];

impl Plan {
    pub fn to_arguments(&self) -> Vec<String> {
        let end = ENDS.iter().find(|(_, end)| *end == self.end).unwrap().0;
        let Self { loops, is_busy, udp_port, path, .. } = self;
        vec![loops.to_string(), is_busy.to_string(), end.to_string(), udp_port.to_string(), path.clone()]
    }

    pub fn from_arguments(arguments: &[String]) -> Self {
        let [loops, is_busy, end, udp_port, path] = arguments else { panic!("arguments: {arguments:?}") };
        Self {
            loops: loops.parse().unwrap(),
            is_busy: is_busy.parse().unwrap(),
            end: ENDS.iter().find(|(name, _)| name == end).unwrap().1,
            udp_port: udp_port.parse().unwrap(),
            path: path.clone(),
        }
    }
}

/// A datagram socket on a shared port.
pub fn shared_udp(port: u16) -> OwnedFd {
    let made = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&made, sockopt::ReusePort, &true).unwrap();
    bind(made.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    made
}

/// Discards all completions.
struct Sink;

impl Owner for Sink {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        if let Err(error) = completion.result {
            panic!("an operation ended with {error}");
        }
    }
}

/// Echoes continuously.
struct Echo {
    event_loop: Rc<EventLoop>,
    socket: UnixStream,
}

impl Echo {
    fn send(self: Rc<Self>, bytes: Vec<u8>) {
        let send = Operation::Send { socket: self.socket.as_raw_fd(), data: SendData::Owned(bytes) };
        self.event_loop.clone().submit(send, self);
    }
}

impl Owner for Echo {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        assert!(completion.result.is_ok(), "an echo ended with {:?}", completion.result);
        if kind == OperationKind::Receive
            && let Some(buffer) = completion.buffer
        {
            self.send(buffer.to_vec());
        }
    }
}

/// Exits in the middle of a turn.
struct Exit {
    is_at_once: bool,
}

impl Wake for Exit {
    fn wake(self: Rc<Self>) {
        if self.is_at_once {
            ringspun_runtime::cancel_before_exit();
            // SAFETY: ends the process.
            unsafe { nix::libc::_exit(8) };
        }
        std::process::exit(7);
    }
}

fn make_busy(event_loop: &Rc<EventLoop>) {
    let (one, other) = UnixStream::pair().unwrap();
    let echo = |socket| Rc::new(Echo { event_loop: event_loop.clone(), socket });
    let echoes = [echo(one), echo(other)];
    for echo in &echoes {
        event_loop.submit(Operation::Receive { socket: echo.socket.as_raw_fd() }, echo.clone());
    }
    let [first, _] = echoes;
    first.send(vec![1; 64]);
}

/// Listens on all kinds of sockets, passes the TCP port to `ready`, and turns the loop.
fn serve(plan: &Plan, number: usize, ready: impl FnOnce(u16)) {
    let event_loop = EventLoop::new(&Configuration::default()).unwrap();
    let tcp = TcpListener::bind((crate::HOST, 0)).unwrap();
    let unix = UnixListener::bind(format!("{}.{number}", plan.path)).unwrap();
    let udp = shared_udp(plan.udp_port);
    let sink = Rc::new(Sink);
    for listener in [tcp.as_raw_fd(), unix.as_raw_fd()] {
        event_loop.submit(Operation::Accept { listener }, sink.clone());
    }
    let socket: RawFd = udp.as_raw_fd();
    event_loop.submit(Operation::ReceiveFrom { socket }, sink);
    if plan.is_busy && number == 0 {
        make_busy(&event_loop);
    }
    event_loop.turn(Wait::No).unwrap();
    ready(tcp.local_addr().unwrap().port());
    match plan.end {
        End::Exit | End::ExitAtOnce | End::SignalAtExit if number == 0 => {
            let exit = Exit { is_at_once: plan.end == End::ExitAtOnce };
            event_loop.insert_timer(event_loop.now() + Duration::from_millis(5), Rc::new(exit));
        }
        End::Return if number == 0 => return std::mem::forget((event_loop, tcp, unix, udp)),
        _ => {}
    }
    loop {
        event_loop.turn(Wait::Block).unwrap();
    }
}

extern "C" fn raise_sigterm() {
    // Ends the process here, or is lost.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM);
}

/// The main function of the process, whose first line of output has the ports.
pub fn run(plan: &Plan) {
    if plan.end == End::SignalAtExit {
        // What is registered first runs last.
        // SAFETY: the function may be called at any time.
        assert_eq!(unsafe { nix::libc::atexit(raise_sigterm) }, 0);
    }
    let (ready, ports) = mpsc::channel();
    for number in 1..plan.loops {
        let (plan, ready) = (plan.clone(), ready.clone());
        std::thread::spawn(move || serve(&plan, number, |port| ready.send(port).unwrap()));
    }
    serve(plan, 0, |port| {
        let all: Vec<String> =
            ports.iter().take(plan.loops - 1).chain([port]).map(|port| port.to_string()).collect();
        println!("{}", all.join(" "));
    });
}
