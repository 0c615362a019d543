//! A server of HTTP/1.1: connections are kept, requests may be pipelined, and every answer says what was asked for, or
//! is a file of a folder. `/busy/20` computes for 20 microseconds first, which all others wait for: what handlers cost.
//!
//! ```sh
//! cargo run --release --example http -- [LISTEN [FOLDER]]    # 127.0.0.1:8080, and no files
//! curl http://127.0.0.1:8080/hello
//! ```
//!
//! The requests are parsed by the crate httparse, which knows nothing of sockets: a fiber reads until it has a whole
//! one. All answers to what came in one read leave in one write. SIGTERM and SIGINT end the server, once it has
//! answered what it has received.

mod answers;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use answers::Answers;
use ringspun::fibers::{self, Signal, Signals};
use ringspun::net::{self, Peer, Stream};

const CONNECTIONS_MAX: usize = 20_000;
/// How long a client may take for a request, idle before it or not, and to take some of an answer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// For the last answers.
const END_MAX: Duration = Duration::from_secs(10);
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Default)]
struct Server {
    folder: Option<PathBuf>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    accepted: Cell<u64>,
    /// Seconds since the start: a clock that costs nothing.
    seconds: Cell<u64>,
}

struct Client {
    stream: Stream,
    /// Since when the rest of a request is to come; the largest number while one is answered.
    owes_since: Cell<u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.len() > 2 {
        let text = "expected at most two arguments: [LISTEN [FOLDER]]";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let place = arguments.first().map_or("127.0.0.1:8080", String::as_str).endpoint()?;
    ringspun::run(move || {
        let signals = Signals::new(&[Signal::TERM, Signal::INT])?;
        let server = Rc::new(Server { folder: arguments.get(1).map(PathBuf::from), ..Server::default() });
        let (accepting, watching) = (server.clone(), server.clone());
        let listener = net::server(place, move |stream| accepting.serve(stream))?;
        println!("listening at {}", listener.localname()?);
        fibers::spawn(move || watching.watch())?;
        signals.wait()?;
        listener.close();
        // Reads no more, and goes on until the last answer.
        server.clients.borrow().values().for_each(|client| drop(client.stream.shutdown(Shutdown::Read)));
        let is_over = || server.clients.borrow().is_empty();
        fibers::with_deadline(END_MAX, || {
            while !is_over() && fibers::sleep(Duration::from_millis(5)).is_ok() {}
        });
        Ok(())
    })?
}

impl Server {
    /// Closes connections whose request does not come.
    fn watch(&self) -> Result<()> {
        let mut ticks = fibers::interval(Duration::from_secs(1));
        loop {
            self.seconds.set(self.seconds.get() + ticks.tick()?);
            let oldest = self.seconds.get().saturating_sub(WAIT_MAX.as_secs());
            let clients = self.clients.borrow();
            clients.values().filter(|it| it.owes_since.get() < oldest).for_each(|it| it.stream.close());
        }
    }

    fn serve(&self, stream: Stream) {
        if self.clients.borrow().len() >= CONNECTIONS_MAX {
            return;
        }
        stream.set_write_timeout(Some(WAIT_MAX));
        let id = self.accepted.replace(self.accepted.get() + 1);
        let client = Rc::new(Client { stream, owes_since: Cell::new(self.seconds.get()) });
        self.clients.borrow_mut().insert(id, client.clone());
        if let Err(error) = self.converse(&client)
            && !net::is_closed(&error)
        {
            eprintln!("http: {error}");
        }
        self.clients.borrow_mut().remove(&id);
    }

    /// Answers requests until the client ends the connection, or a request ends it.
    fn converse(&self, client: &Client) -> Result<()> {
        let stream = &client.stream;
        let (mut pending, mut answers) = (Vec::new(), Answers::new(stream, self.folder.as_deref()));
        while let Some(bytes) = stream.receive()? {
            let owed_since = client.owes_since.replace(u64::MAX);
            pending.extend_from_slice(&bytes);
            let mut used = 0;
            while !answers.is_last
                && let Some(length) = answers.add(&pending[used..])?
            {
                used += length;
            }
            pending.drain(..used);
            answers.send()?;
            if answers.is_last {
                return if pending.is_empty() { Ok(()) } else { linger(stream) };
            }
            client.owes_since.set(if used > 0 { self.seconds.get() } else { owed_since });
        }
        Ok(())
    }
}

/// Ends the answers and then reads on for a moment: a close with unread bytes would take a refusal away from a client
/// that is still sending.
fn linger(stream: &Stream) -> Result<()> {
    stream.shutdown(Shutdown::Write)?;
    fibers::with_deadline(LINGER_MAX, || while matches!(stream.receive(), Ok(Some(_))) {});
    Ok(())
}
