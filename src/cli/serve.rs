//! `ringspun serve`: built-in servers, for demonstration and as targets of load generators.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringspun::fibers::{self, Signal, Signals, Workers, WorkersBuilder};
use ringspun::net::{
    self as net, Address, Drained, Endpoint, InheritedSocket, Server as Serving, ServerBuilder,
    WorkerStatistics,
};
use ringspun::tls::{Identity, ServerConfig};
use ringspun_load::parse_duration;

use super::dumps::Quit;
use super::echoes::{Counts, Echoes};
use super::load::whole::whole;
use super::{address, inspection, limits, metrics, output, stalls, unix_sockets};

/// The stack of a connection's fiber. Idle fibers touch a page or two; untouched pages take no memory.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;
/// The same with TLS: a handshake needs more.
const TLS_STACK_SIZE_BYTES: usize = 1024 * 1024;

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
  ringspun serve echo --tcp 127.0.0.1:0 --workers 1
  ringspun serve echo --tls 127.0.0.1:7443 --cert chain.pem --key key.pem
  ringspun serve echo --tls 127.0.0.1:7443 --self-signed
  systemd-socket-activate --listen 127.0.0.1:7000 ringspun serve echo --inherited

Prints the bound addresses, one per line; with port 0 the kernel chooses a port. Raises the soft limit on
open files to the hard limit. The path of a Unix socket must not exist yet, except as that of
a server that has ended; it is removed on exit.

SIGTERM or SIGINT drains the server: it accepts no more connections, gives those that it has the time of
--drain to end, closes the rest, and exits with status 0. A second signal exits immediately.")]
    Echo(Box<EchoServer>),
}

/// The echo server.
#[derive(Args)]
pub struct EchoServer {
    #[command(flatten)]
    places: Places,
    /// Certificate chain of the TLS server, in PEM, its own first
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Make a self-signed certificate, for trials: clients must be told not to verify it
    #[arg(long, requires = "tls", conflicts_with = "cert")]
    self_signed: bool,
    /// Number of threads, among which connections are shared evenly [default: the cores that it may use]
    #[arg(long, value_name = "N", value_parser = whole(1..=u16::MAX))]
    workers: Option<u16>,
    /// Let other processes of the same user serve at the same ports, if they have this option, too (SO_REUSEPORT)
    #[arg(long)]
    share_port: bool,
    /// How long connections may go on after SIGTERM or SIGINT, for example 10s or 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    drain: Duration,
    /// Write what each worker has served and what its event loop holds to standard error every second, as a line of
    /// JSON
    #[arg(long)]
    statistics: bool,
    /// Serve counts of connections, fibers, timers and more for Prometheus at http://HOST:PORT/metrics
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    metrics: Option<Endpoint>,
}

/// The addresses to listen on, at least one.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Places {
    /// Accept TCP connections on this address; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    tcp: Vec<Endpoint>,
    /// Accept TLS connections on this address, with --cert and --key or --self-signed
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    tls: Vec<Endpoint>,
    /// Receive UDP datagrams on this address; [::1]:PORT for IPv6
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_host)]
    udp: Vec<Endpoint>,
    /// Serve on the sockets that systemd, or whoever starts it, has opened for it (sd_listen_fds(3))
    #[arg(long)]
    inherited: bool,
    /// Accept connections on this Unix socket: a path, or @ and an abstract name
    #[arg(long, value_name = "PATH", value_parser = address::parse_unix)]
    unix: Vec<Address>,
}

/// Counts of what was served, and how that ended.
struct Served {
    connections: u64,
    datagrams: u64,
    drained: Drained,
}

/// Serves until a signal arrives.
pub fn serve(server: Server) -> ExitCode {
    let Server::Echo(server) = server;
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    let (paths, has_datagrams) = (unix_paths(&server.places), !server.places.udp.is_empty());
    match echo_server(*server) {
        Ok(served) => {
            for path in paths {
                // Created by us, as listening on it succeeded. It may be gone already.
                let _ = std::fs::remove_file(path);
            }
            output::complain(describe(&served, has_datagrams));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

/// What was served, in words.
fn describe(served: &Served, has_datagrams: bool) -> String {
    let mut text = format!("served {}", counted(served.connections, "connection"));
    if has_datagrams {
        text += &format!(" and {}", counted(served.datagrams, "datagram"));
    }
    // Those that are left ignore their cancellation, and end with the process.
    match served.drained.cancelled + served.drained.left {
        0 => text,
        closed => text + &format!("; closed {} that had not ended", counted(closed as u64, "connection")),
    }
}

/// The configuration of the TLS server, if there is to be one.
fn tls_config(server: &EchoServer) -> io::Result<Option<ServerConfig>> {
    let identity = match (&server.cert, &server.key) {
        (Some(cert), Some(key)) => Identity::from_pem_files(cert, key)?,
        _ if server.self_signed => {
            let hosts: Vec<String> = server.places.tls.iter().filter_map(Endpoint::host).collect();
            let names = ["localhost", "127.0.0.1", "::1"].into_iter().chain(hosts.iter().map(String::as_str));
            Identity::self_signed(&names.collect::<Vec<_>>())?
        }
        _ if server.places.tls.is_empty() => return Ok(None),
        _ => {
            let text = "--tls needs a certificate: expected --cert FILE and --key FILE, or --self-signed";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    ServerConfig::builder().identity(identity).build().map(Some)
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn unix_paths(places: &Places) -> Vec<PathBuf> {
    places.unix.iter().filter_map(|address| address.as_path().map(PathBuf::from)).collect()
}

/// Has the allocator of glibc keep some freed memory. By default it gives back to the kernel what is above 128 KiB, and
/// takes it again for the next large message: with TLS, that took a quarter of the time of 64 KiB. Freeing a block that
/// had a mapping of its own raises that limit to twice its size (`M_MMAP_THRESHOLD` in `mallopt(3)`); setting the limit
/// itself would end the allocator's own adjustments. Elsewhere, it does nothing.
fn keep_freed_memory() {
    const KEPT_BYTES: usize = 2 * 1024 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES / 2)));
}

/// Runs the echo server until it is stopped. This thread is the first worker.
fn echo_server(server: EchoServer) -> io::Result<Served> {
    keep_freed_memory();
    let tls = tls_config(&server)?;
    let inherited = inherited_sockets(server.places.inherited)?;
    let EchoServer { places, workers, share_port, drain, statistics, metrics, .. } = server;
    let stack = if tls.is_some() { TLS_STACK_SIZE_BYTES } else { CONNECTION_STACK_SIZE_BYTES };
    let runtime = ringspun::Runtime::new().stack_size_bytes(stack);
    let mut builder = WorkersBuilder::new().runtime(runtime);
    if let Some(workers) = workers {
        builder = builder.count(workers.into());
    }
    if let Some(limit) = stalls::limit().map_err(io::Error::other)? {
        builder = builder.report_stalls(limit);
    }
    let (quit, inspected) = (Quit::take(), inspection::start());
    let served = builder.run(move |workers| {
        let counts: Arc<[Counts]> = workers.iter().map(|_| Counts::default()).collect();
        let (of_workers, counts_bytes) = (counts.clone(), metrics.is_some());
        let echoes = move |worker| Echoes::new(of_workers.clone(), worker, counts_bytes);
        let kinds = kinds(&places, &inherited);
        let builder = server_at(&places, inherited, tls.as_ref(), echoes)?;
        let claims = unix_sockets::claim(&unix_paths(&places))?;
        let server = builder.shares_port(share_port).start_on(workers)?;
        drop(claims);
        let signals = Signals::new(&[Signal::INT, Signal::TERM])?;
        let _dumps = quit.dump();
        let (handle, of_server) = (server.handle(), counts.clone());
        let source = metrics::Source::new(move |metrics| {
            metrics::add_workers(metrics, &handle, &of_server, counts_bytes);
        });
        let metrics = metrics.map(|endpoint| metrics::serve(&endpoint, source.clone()));
        inspected.set_counts(source);
        announce(&kinds, &server, metrics.transpose()?)?;
        compare_backends(workers);
        if statistics {
            tell_statistics(&server, &counts, workers);
        }
        let signal = signals.wait()?;
        // Another one ends the process.
        drop(signals);
        let drained = end(&server, signal, drain)?;
        let connections = server.statistics().iter().map(|worker| worker.served).sum();
        Ok(Served { connections, datagrams: counts.iter().map(|it| it.datagrams.get()).sum(), drained })
    });
    served.map_err(|error| io::Error::new(error.kind(), format!("the workers cannot be started: {error}")))?
}

/// Drains the server after a signal. Another signal ends the process meanwhile.
fn end(server: &Serving, signal: Signal, within: Duration) -> io::Result<Drained> {
    let live: usize = server.statistics().iter().map(|worker| worker.connections).sum();
    if live > 0 && !within.is_zero() {
        let connections = counted(live as u64, "connection");
        output::complain(format_args!(
            "{signal}: waiting up to {within:?} for {connections} to end; another signal exits immediately"
        ));
    }
    server.drain(within)
}

/// The sockets that this process was started with, if they are to be served.
fn inherited_sockets(wanted: bool) -> io::Result<Vec<InheritedSocket>> {
    let sockets = if wanted { net::inherited_sockets()? } else { Vec::new() };
    if wanted && sockets.is_empty() {
        let text = "--inherited: no sockets were passed to this process, expected LISTEN_PID and LISTEN_FDS in its \
                    environment (sd_listen_fds(3))";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(sockets)
}

/// A server at the places, in the order in which they are announced.
fn server_at(
    places: &Places,
    inherited: Vec<InheritedSocket>,
    tls: Option<&ServerConfig>,
    echoes: impl Fn(usize) -> Echoes + Send + Sync + 'static,
) -> io::Result<ServerBuilder<Echoes>> {
    let mut builder = ServerBuilder::with_state(echoes);
    for endpoint in &places.tcp {
        builder = builder.serve_with(endpoint, |stream, echoes: &Echoes| echoes.tcp(&stream));
    }
    for (endpoint, config) in places.tls.iter().zip(tls.into_iter().cycle()) {
        let config = config.clone();
        builder = builder.serve_with(endpoint, move |stream, echoes| echoes.tls(stream, &config));
    }
    for endpoint in &places.udp {
        builder = builder.serve_datagrams_with(endpoint, |socket, echoes: &Echoes| echoes.datagrams(socket));
    }
    for address in &places.unix {
        builder = builder.serve_with(*address, |stream, echoes: &Echoes| echoes.stream(&stream));
    }
    for socket in inherited {
        builder = match (socket.is_listener(), socket.localname()?.is_unix()) {
            (true, true) => builder.serve_on(socket, |stream, echoes: &Echoes| echoes.stream(&stream)),
            (true, false) => builder.serve_on(socket, |stream, echoes: &Echoes| echoes.tcp(&stream)),
            (false, _) => {
                builder.serve_datagrams_on(socket, |socket, echoes: &Echoes| echoes.datagrams(socket))
            }
        };
    }
    Ok(builder)
}

/// Reports what each worker has served and holds while it runs, which reveals leaks early.
fn tell_statistics(server: &Serving, counts: &Arc<[Counts]>, workers: &Workers) {
    for worker in workers.iter() {
        let (server, of_workers, index) = (server.handle(), counts.clone(), worker.index());
        let telling = worker.spawn(move || {
            // An error means that the runtime is ending.
            while fibers::sleep(STATISTICS_EVERY).is_ok() {
                let counts = server.statistics()[index];
                tell_worker(index, &counts, of_workers[index].datagrams.get());
            }
        });
        if telling.is_err() {
            output::complain(format_args!("worker {index} has ended"));
        }
    }
}

/// Reports of the worker that this thread is.
fn tell_worker(index: usize, counts: &WorkerStatistics, datagrams: u64) {
    let (Some(event_loop), Some(fibers)) = (fibers::event_loop(), fibers::statistics()) else { return };
    let (held, spin) = (event_loop.statistics(), event_loop.spin_statistics());
    let nanoseconds = |cost: Option<Duration>| cost.map_or("null".into(), |cost| cost.as_nanos().to_string());
    output::tell(format_args!(
        "{{\"worker\":{index},\"connections\":{},\"live\":{},\"handed_over\":{},\"datagrams\":{datagrams},\
         \"processor_time_ns\":{},\"fibers\":{},\"operations_in_flight\":{},\"timers\":{},\
         \"buffers_lent\":{},\"blocking_calls\":{},\"waits\":{},\"busy_polled\":{},\
         \"blocking_cost_ns\":{},\"busy_polling_cost_ns\":{}}}",
        counts.served,
        counts.connections,
        counts.handed_over,
        nanoseconds(counts.processor_time),
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

/// Reports workers on another backend than the one that is announced.
fn compare_backends(workers: &Workers) {
    let backend_of = || fibers::event_loop().map_or("no backend", |event_loop| event_loop.backend_name());
    let backend = backend_of();
    for (index, task) in workers.broadcast(backend_of).iter().enumerate() {
        match task.join() {
            Ok(other) if other != backend => output::complain(format_args!(
                "worker {index} runs on {other}, not on {backend}: `ringspun doctor` tells what limits there are"
            )),
            // An error means that the runtime is ending.
            _ => {}
        }
    }
}

/// What is served at each address, in the order in which the server has them.
fn kinds(places: &Places, inherited: &[InheritedSocket]) -> Vec<&'static str> {
    let counts = [
        ("tcp", places.tcp.len()),
        ("tls", places.tls.len()),
        ("udp", places.udp.len()),
        ("unix", places.unix.len()),
    ];
    let kind_of = |socket: &InheritedSocket| {
        let is_unix = socket.localname().is_ok_and(|address| address.is_unix());
        match (socket.is_listener(), is_unix) {
            (true, true) => "unix",
            (true, false) => "tcp",
            (false, true) => "unix datagrams",
            (false, false) => "udp",
        }
    };
    let bound = counts.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
    bound.chain(inherited.iter().map(kind_of)).collect()
}

/// Reports the bound addresses once the server is listening.
fn announce(kinds: &[&str], server: &Serving, metrics: Option<Address>) -> io::Result<()> {
    let backend = fibers::event_loop().map_or("no backend", |event_loop| event_loop.backend_name());
    for (address, kind) in server.addresses().iter().zip(kinds) {
        output::print(&format!("listening on {address} ({kind}, {backend})\n"))?;
    }
    if let Some(reason) = fibers::event_loop().as_ref().and_then(|event_loop| event_loop.ring_refusal()) {
        tracing::info!(reason, "io_uring cannot be used here, so poll serves");
    }
    if let Some(address) = metrics {
        output::print(&format!("metrics at http://{address}/metrics\n"))?;
    }
    Ok(())
}
