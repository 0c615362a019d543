//! `ringspun serve`: servers that show what the runtime does, and that load generators can be aimed at.

use std::cell::{Cell, RefCell};
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Subcommand;
use ringspun::fibers;
use ringspun::net::{self, Endpoint, Listener, Stream};

use super::stop::StopSignals;
use super::{address, limits, output};

/// The stack of a connection's fiber. An idle one touches a page or two of it; the rest costs nothing.
const CONNECTION_STACK_SIZE_BYTES: usize = 32 * 1024;

/// The built-in servers.
#[derive(Subcommand)]
pub enum Server {
    /// Send every byte back to where it came from
    #[command(after_help = "\
Example:
  ringspun serve echo --tcp 127.0.0.1:0

Prints the address it is bound to; port 0 lets the kernel choose one. Raises the limit on open files
as far as it is allowed to.")]
    Echo {
        /// Listen for TCP connections here; [::1]:PORT for IPv6
        #[arg(long, value_name = "HOST:PORT", value_parser = address::parse_tcp)]
        tcp: Endpoint,
    },
}

thread_local! {
    /// What a signal closes. A task from another thread cannot carry it: listeners stay on their thread.
    static LISTENER: RefCell<Option<Rc<Listener>>> = const { RefCell::new(None) };
}

/// Serves until a signal comes.
pub fn serve(server: Server) -> ExitCode {
    let Server::Echo { tcp } = server;
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    match echo_server(tcp) {
        Ok(connections) => {
            let noun = if connections == 1 { "connection" } else { "connections" };
            output::complain(format_args!("served {connections} {noun}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the echo server, and returns how many connections it served.
fn echo_server(endpoint: Endpoint) -> io::Result<u64> {
    let signals = StopSignals::take(|| {
        if let Some(listener) = LISTENER.take() {
            listener.close();
        }
    })?;
    let runtime = ringspun::Runtime::new().stack_size_bytes(CONNECTION_STACK_SIZE_BYTES);
    let served = runtime.run(move || {
        let listener = Rc::new(net::listen(endpoint)?);
        LISTENER.set(Some(listener.clone()));
        fibers::remote().into_iter().for_each(|remote| signals.reach(remote));
        announce(&listener)?;

        let connections = Rc::new(Cell::new(0));
        let served = connections.clone();
        // Returns when the listener is closed. The end of this fiber then ends the connections.
        listener.accept_loop(move |stream| {
            served.set(served.get() + 1);
            // A connection that breaks concerns its peer, who knows.
            let _ = echo(&stream);
        })?;
        Ok(connections.get())
    })?;
    // After an error it is still there, and must not outlive the thread's other locals.
    LISTENER.take();
    served
}

/// Tells whoever started the server where it listens, and that it does.
fn announce(listener: &Listener) -> io::Result<()> {
    let backend = fibers::event_loop().map_or("no backend", |event_loop| event_loop.backend_name());
    output::print(&format!("listening on {} (tcp, {backend})\n", listener.localname()?))
}

fn echo(stream: &Stream) -> io::Result<()> {
    while let Some(bytes) = stream.receive()? {
        stream.write(&bytes)?;
    }
    Ok(())
}
