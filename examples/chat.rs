//! A chat: everybody says a name first, and each further line goes to all the others.
//!
//! ```sh
//! cargo run --release --example chat -- [HOST:PORT]    # and, in some terminals: nc 127.0.0.1 8000
//! ```
//!
//! One fiber, the hub, knows all clients and takes what happens from a channel. Each client has a channel of
//! its own, which a fiber empties into the stream: nobody waits for a slow reader, and whoever lets that
//! channel fill up is cut off.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::process::ExitCode;
use std::rc::Rc;

use ringspun::fibers::{self, Channel};
use ringspun::net::{self, Stream};

/// How many lines a client may leave unread, beyond what the kernel holds.
const QUEUE_MAX: usize = 256;
const LINE_MAX_BYTES: u64 = 8192;

struct Client {
    name: String,
    stream: Rc<Stream>,
    lines: Channel<String>,
}

/// What the hub hears of a client, by the client's number.
enum Event {
    Came(u64, Client),
    Said(u64, String),
    Left(u64),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or("127.0.0.1:8000".to_string());
    if arguments.next().is_some() {
        return Err(Error::new(ErrorKind::InvalidInput, "expected at most one argument: HOST:PORT"));
    }
    ringspun::run(move || {
        let listener = net::listen(place)?;
        println!("listening at {}", listener.localname()?);
        // Bounded, so that a client who talks faster than the hub works has to wait.
        let events = Channel::bounded(QUEUE_MAX);
        let happening = events.clone();
        fibers::spawn(move || hub(&happening))?;
        let next = Cell::new(0);
        listener.accept_loop(move |stream| {
            let number = next.replace(next.get() + 1);
            let _ = serve(number, stream, &events);
        })
    })?
}

/// Tells the hub of a client, and of each of its lines. A connection that breaks is a way to leave, too.
fn serve(number: u64, stream: Stream, events: &Channel<Event>) -> Result<()> {
    let (stream, lines) = (Rc::new(stream), Channel::bounded(QUEUE_MAX));
    let mut reader = BufReader::new(&*stream);
    stream.write(b"* what is your name?\n")?;
    let Some(name) = read_line(&mut reader)? else { return Ok(()) };
    let (queue, sink) = (lines.clone(), stream.clone());
    fibers::spawn(
        move || while queue.take().is_ok_and(|line: String| sink.write(line.as_bytes()).is_ok()) {},
    )?;
    events.give(Event::Came(number, Client { name, stream: stream.clone(), lines: lines.clone() }))?;
    while let Ok(Some(line)) = read_line(&mut reader) {
        events.give(Event::Said(number, line))?;
    }
    lines.close();
    Ok(events.give(Event::Left(number))?)
}

/// A line of a client; `None` at the end of the stream, and for a line that is too long.
fn read_line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    reader.take(LINE_MAX_BYTES).read_line(&mut line)?;
    Ok(line.ends_with('\n').then(|| line.trim().to_string()))
}

fn hub(events: &Channel<Event>) {
    let mut clients = BTreeMap::new();
    while let Ok(event) = events.take() {
        match event {
            Event::Came(number, client) => {
                let names: Vec<&str> = clients.values().map(|client: &Client| client.name.as_str()).collect();
                tell(&client, &format!("* welcome; with you: {}", names.join(", ")));
                tell_others(&clients, number, &format!("* {} has come", client.name));
                clients.insert(number, client);
            }
            Event::Said(number, line) => {
                tell_others(&clients, number, &format!("{}: {line}", clients[&number].name));
            }
            Event::Left(number) => {
                if let Some(client) = clients.remove(&number) {
                    tell_others(&clients, number, &format!("* {} has left", client.name));
                }
            }
        }
    }
}

fn tell_others(clients: &BTreeMap<u64, Client>, speaker: u64, line: &str) {
    clients.iter().filter(|(number, _)| **number != speaker).for_each(|(_, client)| tell(client, line));
}

/// Puts a line into a client's queue, which never parks.
fn tell(client: &Client, line: &str) {
    if client.lines.is_full() || client.lines.give(format!("{line}\n")).is_err() {
        // Ends the reads of `serve`, which tells that the client has left.
        client.stream.close();
    }
}
