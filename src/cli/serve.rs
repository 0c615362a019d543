//! `ringspun serve`: servers that show what the runtime does, and that load generators can be aimed at.

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

/// The stack of a connection's fiber. An idle one touches a page or two of it; the rest costs nothing.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;

/// How often `--statistics` tells them.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// The built-in servers.
#[derive(Subcommand)]
pub enum Server {
    /// Send every byte back to where it came from
    #[command(after_help = "\
Examples:
  ringspun serve echo --tcp 127.0.0.1:0
  ringspun serve echo --tcp [::1]:7000 --udp [::1]:7000 --unix /run/echo.socket

Prints the addresses it is bound to, one in a line; port 0 lets the kernel choose one. Raises the limit on
open files as far as it is allowed to. The path of a Unix socket must not exist, and is removed in the end.")]
    Echo(EchoServer),
}

/// The echo server.
#[derive(Args)]
pub struct EchoServer {
    #[command(flatten)]
    places: Places,
    /// Write what the event loop holds to standard error, each second, as a line of JSON
    #[arg(long)]
    statistics: bool,
}

/// Where to listen: at one place, or at several.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Places {
    /// Listen for TCP connections here; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    tcp: Vec<Endpoint>,
    /// Receive UDP datagrams here; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    udp: Vec<Endpoint>,
    /// Listen for connections at this path, or after an @ at this abstract name
    #[arg(long, value_name = "PATH", value_parser = address::parse_unix)]
    unix: Vec<Address>,
}

/// A socket that is served.
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

/// What has been served.
#[derive(Default)]
struct Served {
    connections: Cell<u64>,
    datagrams: Cell<u64>,
}

/// Serves until a signal comes.
pub fn serve(server: Server) -> ExitCode {
    let Server::Echo(EchoServer { places, statistics }) = server;
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    let (paths, has_datagrams) = (unix_paths(&places), !places.udp.is_empty());
    match echo_server(places, statistics) {
        Ok(served) => {
            for path in paths {
                // Ours, as listening there has not failed. If it is gone already, all the better.
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
            // An error is the end of the runtime.
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
        // Each returns when its socket is closed. The end of this fiber then ends the connections.
        for fiber in serving {
            fiber.join().map_err(io::Error::from)??;
        }
        Ok(served)
    })?
}

/// Tells what the loop holds, for as long as it runs: a server that leaks shows it here first.
fn tell_statistics(served: &Served) {
    // An error is the end of the runtime.
    while fibers::sleep(STATISTICS_EVERY).is_ok() {
        let (Some(event_loop), Some(fibers)) = (fibers::event_loop(), fibers::statistics()) else { return };
        let held = event_loop.statistics();
        output::tell(format_args!(
            r#"{{"connections":{},"fibers":{},"operations_in_flight":{},"timers":{},"buffers_lent":{},"blocking_calls":{}}}"#,
            served.connections.get(),
            fibers.alive,
            held.operations_in_flight,
            held.timers,
            held.buffers_lent,
            held.blocking_calls,
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

/// Tells whoever started the server where it listens, and that it does.
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
                // The last part of a long answer must not wait for an acknowledgement of the parts before it. A
                // connection that is gone already finds out below.
                let _ = stream.set_option(SocketOption::NoDelay(true));
            }
            served.connections.set(served.connections.get() + 1);
            // A connection that breaks concerns its peer, who knows.
            let _ = echo(&stream);
        }),
        Socket::Datagrams(socket) => echo_datagrams(&socket, &served),
    }
}

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
        // An answer that cannot be sent is lost, as datagrams are.
        let _ = socket.send_to(&source, &bytes);
    }
}
