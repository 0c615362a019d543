//! `ringspun serve`: built-in servers, for demonstration and as targets of load generators.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringspun::fibers::{self, JoinHandle};
use ringspun::net::{self, Address, DatagramSocket, Endpoint, Listener, SocketOption, Stream};

use super::stop::StopSignals;
use super::{address, limits, output};

/// The stack of a connection's fiber. Idle fibers touch a page or two; untouched pages take no memory.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;

/// The period of `--statistics`.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// The built-in servers.
#[derive(Subcommand)]
pub enum Server {
    /// Send all received bytes back
    #[command(after_help = "\
Examples:
  ringspun serve echo --tcp 127.0.0.1:0
  ringspun serve echo --tcp [::1]:7000 --udp [::1]:7000 --unix /run/echo.socket

Prints the bound addresses, one per line; with port 0 the kernel chooses a port. Raises the soft limit on
open files to the hard limit. The path of a Unix socket must not exist yet; it is removed on exit.")]
    Echo(EchoServer),
}

/// The echo server.
#[derive(Args)]
pub struct EchoServer {
    #[command(flatten)]
    places: Places,
    /// Write the resources held by the event loop to standard error every second, as a line of JSON
    #[arg(long)]
    statistics: bool,
}

/// The addresses to listen on, at least one.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Places {
    /// Accept TCP connections on this address; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    tcp: Vec<Endpoint>,
    /// Receive UDP datagrams on this address; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    udp: Vec<Endpoint>,
    /// Accept connections on this Unix socket: a path, or @ and an abstract name
    #[arg(long, value_name = "PATH", value_parser = address::parse_unix)]
    unix: Vec<Address>,
}

/// A listening socket.
#[derive(Clone)]
enum Socket {
    Connections(&'static str, Rc<Listener>),
    Datagrams(Rc<DatagramSocket>),
}

impl Socket {
    fn close(&self) {
        match self {
            Self::Connections(_, listener) => listener.close(),
            Self::Datagrams(socket) => socket.close(),
        }
    }
}

/// Counts of what was served.
#[derive(Default)]
struct Served {
    connections: Cell<u64>,
    datagrams: Cell<u64>,
}

/// Serves until a signal arrives.
pub fn serve(server: Server) -> ExitCode {
    let Server::Echo(EchoServer { places, statistics }) = server;
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    let (paths, has_datagrams) = (unix_paths(&places), !places.udp.is_empty());
    match echo_server(places, statistics) {
        Ok(served) => {
            for path in paths {
                // Created by us, as listening on it succeeded. It may be gone already.
                let _ = std::fs::remove_file(path);
            }
            let connections = counted(served.connections.get(), "connection");
            let datagrams = counted(served.datagrams.get(), "datagram");
            match has_datagrams {
                true => output::complain(format_args!("served {connections} and {datagrams}")),
                false => output::complain(format_args!("served {connections}")),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn unix_paths(places: &Places) -> Vec<PathBuf> {
    places.unix.iter().filter_map(|address| address.as_path().map(PathBuf::from)).collect()
}

/// Runs the echo server until it is stopped.
fn echo_server(places: Places, statistics: bool) -> io::Result<Rc<Served>> {
    let runtime = ringspun::Runtime::new().stack_size_bytes(CONNECTION_STACK_SIZE_BYTES);
    runtime.run(move || {
        let sockets = listen(&places)?;
        let (signals, stopping) = (StopSignals::take()?, sockets.clone());
        fibers::spawn(move || {
            // An error means that the runtime is ending.
            if signals.wait().is_ok() {
                stopping.iter().for_each(Socket::close);
            }
        })?;
        announce(&sockets)?;
        let served = Rc::new(Served::default());
        if statistics {
            let served = served.clone();
            fibers::spawn(move || tell_statistics(&served))?;
        }
        let serving: Vec<JoinHandle<io::Result<()>>> = sockets
            .into_iter()
            .map(|socket| {
                let served = served.clone();
                fibers::spawn(move || serve_socket(socket, served))
            })
            .collect::<io::Result<_>>()?;
        // Each returns when its socket is closed; when this fiber ends, the runtime ends all connections.
        for fiber in serving {
            fiber.join().map_err(io::Error::from)??;
        }
        Ok(served)
    })?
}

/// Reports the resources of the event loop while it runs, which reveals leaks early.
fn tell_statistics(served: &Served) {
    // An error means that the runtime is ending.
    while fibers::sleep(STATISTICS_EVERY).is_ok() {
        let (Some(event_loop), Some(fibers)) = (fibers::event_loop(), fibers::statistics()) else { return };
        let (held, spin) = (event_loop.statistics(), event_loop.spin_statistics());
        let nanoseconds =
            |cost: Option<Duration>| cost.map_or("null".into(), |cost| cost.as_nanos().to_string());
        output::tell(format_args!(
            "{{\"connections\":{},\"fibers\":{},\"operations_in_flight\":{},\"timers\":{},\
             \"buffers_lent\":{},\"blocking_calls\":{},\"waits\":{},\"busy_polled\":{},\
             \"blocking_cost_ns\":{},\"busy_polling_cost_ns\":{}}}",
            served.connections.get(),
            fibers.alive,
            held.operations_in_flight,
            held.timers,
            held.buffers_lent,
            held.blocking_calls,
            spin.waits,
            spin.busy_polled,
            nanoseconds(spin.blocking_cost),
            nanoseconds(spin.busy_polling_cost),
        ));
    }
}

fn listen(places: &Places) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for endpoint in &places.tcp {
        sockets.push(Socket::Connections("tcp", Rc::new(net::listen(endpoint)?)));
    }
    for endpoint in &places.udp {
        sockets.push(Socket::Datagrams(Rc::new(net::listen_datagram(endpoint)?)));
    }
    for address in &places.unix {
        sockets.push(Socket::Connections("unix", Rc::new(net::listen(*address)?)));
    }
    Ok(sockets)
}

/// Reports the bound addresses once the server is listening.
fn announce(sockets: &[Socket]) -> io::Result<()> {
    let backend = fibers::event_loop().map_or("no backend", |event_loop| event_loop.backend_name());
    for socket in sockets {
        let (kind, address) = match socket {
            Socket::Connections(kind, listener) => (*kind, listener.localname()?),
            Socket::Datagrams(socket) => ("udp", socket.localname()?),
        };
        output::print(&format!("listening on {address} ({kind}, {backend})\n"))?;
    }
    Ok(())
}

/// Serves one socket until it is closed.
fn serve_socket(socket: Socket, served: Rc<Served>) -> io::Result<()> {
    match socket {
        Socket::Connections(kind, listener) => listener.accept_loop(move |stream| {
            if kind == "tcp" {
                // Without it, the end of a long response would wait for the acknowledgement of its beginning. If
                // this fails, so does the echo below.
                let _ = stream.set_option(SocketOption::NoDelay(true));
            }
            served.connections.set(served.connections.get() + 1);
            // A broken connection is only of interest to its peer.
            let _ = echo(&stream);
        }),
        Socket::Datagrams(socket) => echo_datagrams(&socket, &served),
    }
}

/// Has a small frame of its own: with many connections, each cache line of a parked fiber's stack is a cache miss.
#[inline(never)]
fn echo(stream: &Stream) -> io::Result<()> {
    stream.set_write_behind(true);
    while let Some(bytes) = stream.receive()? {
        stream.write(&bytes)?;
    }
    Ok(())
}

fn echo_datagrams(socket: &DatagramSocket, served: &Served) -> io::Result<()> {
    loop {
        let (bytes, source) = match socket.receive() {
            Ok(received) => received,
            Err(error) if net::is_closed(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        served.datagrams.set(served.datagrams.get() + 1);
        // Datagrams may be lost; so may this response.
        let _ = socket.send_to(&source, &bytes);
    }
}
