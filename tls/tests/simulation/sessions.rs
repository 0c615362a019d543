//! TLS sessions of several clients with servers that echo. Handshakes, reads and writes are interrupted, connections
//! are cut, and streams move. Every byte is accounted for on both ends, and a cut is never taken for an end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, Stream};
use ringspun_runtime::simulation::Fault;
use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig, TlsStream, Versions};

use crate::context::{Context, Pace};
use crate::flow::Flow;

/// For "localhost", signed by itself, by `openssl req -x509`. With an Ed25519 key, signatures repeat.
const CERTIFICATE: &[u8] = include_bytes!("localhost.pem");
const KEY: &[u8] = include_bytes!("localhost.key");

/// The way to a server and back.
struct Link {
    there: Flow,
    back: Flow,
    /// One of the ends has given up, or has cut the connection.
    is_broken: Cell<bool>,
    is_cut: Cell<bool>,
}

impl Link {
    fn new(number: u64) -> Self {
        let (there, back) = (Flow::new(2 * number), Flow::new(2 * number));
        Self { there, back, is_broken: Cell::new(false), is_cut: Cell::new(false) }
    }

    fn fail(&self) {
        self.there.fail();
        self.back.fail();
    }

    fn give_up(&self) {
        self.is_broken.set(true);
        self.fail();
    }

    /// Closes the stream below a session, which says nothing of that to its peer.
    fn cut(&self, context: &Context, stream: &TlsStream) {
        context.tally("cuts", 1);
        self.is_cut.set(true);
        self.give_up();
        stream.core().stream().close();
    }

    /// A reader has met a close_notify.
    fn end(&self, context: &Context, flow: &Flow) {
        context.check(flow.has_finished() || (flow.has_failed() && !self.is_cut.get()), || {
            "an end that nobody has sent".to_string()
        });
        flow.end();
    }
}

/// What the fibers of a run share.
struct Mesh {
    links: RefCell<BTreeMap<String, Rc<Link>>>,
    /// Clients that a server has given up before they have registered.
    given_up: RefCell<BTreeSet<String>>,
    client: ClientConfig,
    server: ServerConfig,
}

impl Mesh {
    fn new(context: &Context) -> io::Result<Self> {
        tls::simulation::seed(context.below(u64::MAX));
        let versions = [Versions::Tls12, Versions::Tls13][context.between(0, 1)];
        let client = ClientConfig::builder().roots(Roots::from_pem(CERTIFICATE)?).versions(versions);
        let server = ServerConfig::builder().identity(Identity::from_pem(CERTIFICATE, KEY)?);
        Ok(Self {
            links: RefCell::default(),
            given_up: RefCell::default(),
            client: client.resumption(context.chance(512)).build()?,
            server: server.resumption(context.chance(768)).build()?,
        })
    }

    fn link(&self, client: &Address) -> Option<Rc<Link>> {
        self.links.borrow().get(&client.to_string()).cloned()
    }
}

pub fn run(context: &Rc<Context>) {
    let mesh = match Mesh::new(context) {
        Ok(mesh) => Rc::new(mesh),
        Err(error) => return context.fail(format!("no configuration: {error}")),
    };
    let (known, serving) = (mesh.clone(), context.clone());
    let server = context.server(move |stream| serve(&serving, &known, stream));
    let Some((server, address)) = server else { return };
    let mut clients = Vec::new();
    for number in 0..context.between(1, 4) as u64 {
        let mesh = mesh.clone();
        let client = move |context: &Rc<Context>| {
            for session in 0..context.between(1, 2) as u64 {
                connect(context, &mesh, 2 * number + session, address);
            }
        };
        clients.push(context.spawn_victim("client", client));
        context.nap();
    }
    let trouble = context.spawn_trouble();
    clients.iter().for_each(|client| context.join(client));
    context.join(&trouble);
    server.close();
    // The main fiber and this one.
    context.wait_for_all_but(2);
    for link in mesh.links.borrow().values().filter(|_| !context.is_ending()) {
        link.there.settle(context);
        link.back.settle(context);
        // Only these faults end a connection that neither side ends.
        let harmless =
            [Fault::Reset, Fault::ConnectionAborted].map(|fault| !context.simulation.allows(fault));
        let is_explained = !link.back.has_failed() || link.is_broken.get() || harmless != [true, true];
        context.check(is_explained, || "a connection failed although nothing broke it".to_string());
    }
}

/// With a deadline, now and then: one that can expire at any stage of a handshake.
fn with_patience<T>(context: &Context, act: impl FnOnce() -> T) -> T {
    match context.chance(256) {
        true => fibers::with_deadline(context.duration(), act),
        false => act(),
    }
}

/// What comes of a handshake.
fn shaken(context: &Context, link: &Link, shaken: io::Result<TlsStream>) -> Option<TlsStream> {
    match shaken {
        Ok(stream) => {
            context.tally("handshakes", 1);
            context.tally("handshakes resumed", u64::from(stream.is_resumed()));
            stream.set_write_behind(context.chance(512));
            Some(stream)
        }
        Err(error) => {
            link.fail();
            if net::interrupt_of(&error).is_some() {
                context.tally("interrupted handshakes", 1);
                link.give_up();
            }
            None
        }
    }
}

fn connect(context: &Rc<Context>, mesh: &Rc<Mesh>, number: u64, address: Address) {
    let Ok(stream) = with_patience(context, || net::connect(address)) else {
        return context.tally("connects that failed", 1);
    };
    let Ok(local) = stream.localname() else { return };
    let link = Rc::new(Link::new(number));
    if mesh.given_up.borrow().contains(&local.to_string()) {
        link.give_up();
    }
    mesh.links.borrow_mut().insert(local.to_string(), link.clone());
    let wrapped = with_patience(context, || tls::wrap(stream, "localhost", &mesh.client));
    let Some(stream) = shaken(context, &link, wrapped).map(Rc::new) else { return };
    let (sending, on) = (stream.clone(), link.clone());
    let writer = context.spawn_victim("writer", move |context| send(context, &sending, &on));
    let reader = context.spawn_victim("reader", move |context| receive(context, &stream, &link));
    context.join(&writer);
    context.join(&reader);
}

fn send(context: &Rc<Context>, stream: &TlsStream, link: &Link) {
    let total = context.amount();
    while link.there.sent() < total {
        if context.chance(4) {
            return link.cut(context, stream);
        }
        let count = context.piece(total, link.there.sent());
        stream.set_write_timeout(context.chance(128).then(|| context.duration()));
        match link.there.write(context, |bytes| stream.write(bytes), count) {
            Err(error) if !context.goes_on(&error) => return link.fail(),
            _ => context.pause(total),
        }
    }
    match flush(context, stream).and_then(|()| stream.shutdown(Shutdown::Write)) {
        Ok(()) => link.there.finish(),
        Err(_) => link.fail(),
    }
}

fn receive(context: &Rc<Context>, stream: &TlsStream, link: &Link) {
    let (mut buffer, mut pace) = (context.read_buffer(500), Pace::default());
    loop {
        stream.set_read_timeout(context.chance(128).then(|| context.duration()));
        match read(context, stream, &mut buffer, &mut |bytes| link.back.take(context, bytes)) {
            Ok(0) => return link.end(context, &link.back),
            Ok(_) => pace.step(context),
            Err(error) if context.goes_on(&error) => {}
            Err(_) => return link.fail(),
        }
    }
}

/// Reads in one of several ways.
fn read(
    context: &Context,
    stream: &TlsStream,
    buffer: &mut [u8],
    take: &mut dyn FnMut(&[u8]),
) -> io::Result<usize> {
    let count = match context.below(3) {
        0 => stream.read(buffer)?,
        // Bytes that arrive before the deadline are kept for the next read.
        1 => fibers::with_deadline(context.duration() / 256, || stream.chunk(buffer))?,
        _ => {
            let received = stream.receive()?.unwrap_or_default();
            take(&received);
            return Ok(received.len());
        }
    };
    take(&buffer[..count]);
    Ok(count)
}

/// Waits for writes that may have stayed behind, as nothing else would report their errors.
fn flush(context: &Context, stream: &TlsStream) -> io::Result<()> {
    stream.set_write_timeout(None);
    loop {
        match stream.flush() {
            Err(error) if context.goes_on(&error) => {}
            flushed => return flushed,
        }
    }
}

/// Echoes until the end of the stream.
fn serve(context: &Rc<Context>, mesh: &Mesh, stream: Stream) {
    let Ok(peer) = stream.peername() else { return };
    let accepted = with_patience(context, || tls::accept(stream, &mesh.server));
    // The client registers before it sends anything.
    let Some(link) = mesh.link(&peer) else {
        mesh.given_up.borrow_mut().insert(peer.to_string());
        return context.check(accepted.is_err(), || format!("a handshake with nobody: {peer}"));
    };
    let Some(mut stream) = shaken(context, &link, accepted) else { return };
    let mut buffer = context.read_buffer(800);
    loop {
        if context.chance(4) {
            return link.cut(context, &stream);
        }
        if context.chance(64) {
            stream = match moved(context, stream) {
                Ok(stream) => stream,
                Err(_) => return link.fail(),
            };
        }
        let mut received = Vec::new();
        match read(context, &stream, &mut buffer, &mut |bytes| received.extend_from_slice(bytes)) {
            Ok(0) => break,
            Ok(_) => link.there.take(context, &received),
            Err(error) if context.goes_on(&error) => continue,
            Err(_) => return link.fail(),
        }
        let mut rest = &received[..];
        while !rest.is_empty() {
            let before = link.back.sent();
            match link.back.account(context, stream.write(rest), rest.len()) {
                Err(error) if !context.goes_on(&error) => return link.fail(),
                _ => rest = &rest[(link.back.sent() - before) as usize..],
            }
        }
    }
    link.end(context, &link.there);
    match flush(context, &stream) {
        // Its close_notify follows when it is dropped.
        Ok(()) => link.back.finish(),
        Err(_) => link.fail(),
    }
}

/// Takes the stream off the loop and puts it back, with a deadline now and then.
fn moved(context: &Context, stream: TlsStream) -> io::Result<TlsStream> {
    context.tally("moves", 1);
    match with_patience(context, || stream.into_movable()) {
        Ok(movable) => movable.into_stream(),
        Err(refused) if context.goes_on(&refused.error) => Ok(*refused.stream),
        Err(refused) => Err(refused.error),
    }
}
