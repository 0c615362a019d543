//! An echo mesh: several servers, and clients that check their echoes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, Stream};
use ringspun_runtime::simulation::Fault;

use crate::context::{Context, Pace};
use crate::flow::Flow;

/// The way to a server and back.
struct Link {
    there: Flow,
    back: Flow,
}

impl Link {
    fn fail(&self) {
        self.there.fail();
        self.back.fail();
    }
}

type Links = Rc<RefCell<BTreeMap<String, Rc<Link>>>>;

pub fn run(context: &Rc<Context>) {
    let links = Links::default();
    let mut servers = Vec::new();
    for _ in 0..context.between(1, 3) {
        let (known, serving) = (links.clone(), context.clone());
        let server = context.server(move |stream| serve(&serving, &known, &stream));
        let Some(server) = server else { return };
        servers.push(server);
    }
    let mut clients = Vec::new();
    for number in 0..context.between(1, 6) as u64 {
        let (_, address) = servers[context.between(0, servers.len() - 1)];
        let links = links.clone();
        clients.push(context.spawn("client", move |context| client(context, &links, number, address)));
        context.nap();
    }
    let trouble = context.spawn_trouble();
    clients.iter().for_each(|client| context.join(client));
    context.join(&trouble);
    servers.iter().for_each(|(server, _)| server.close());
    // The main fiber and this one.
    context.wait_for_all_but(2);
    for link in links.borrow().values().filter(|_| !context.is_ending()) {
        link.there.settle(context);
        link.back.settle(context);
        // An interrupt of a zero-copy write.
        let was_cut = context.simulation.count_of(Fault::Disconnected) > 0;
        // Only these faults end a connection that neither side ends.
        let harmless =
            [Fault::Reset, Fault::ConnectionAborted].map(|fault| !context.simulation.allows(fault));
        context.check(!link.back.has_failed() || was_cut || harmless != [true, true], || {
            "a connection failed although nothing broke it".to_string()
        });
    }
}

fn client(context: &Rc<Context>, links: &Links, number: u64, address: Address) {
    let connected = match context.chance(256) {
        true => fibers::with_deadline(context.duration(), || net::connect(address)),
        false => net::connect(address),
    };
    let stream = match connected {
        Ok(stream) => Rc::new(stream),
        Err(_) => return context.tally("connects that failed", 1),
    };
    stream.set_write_behind(context.chance(512));
    let Ok(local) = stream.localname() else { return };
    let link = Rc::new(Link { there: Flow::new(2 * number), back: Flow::new(2 * number) });
    links.borrow_mut().insert(local.to_string(), link.clone());
    let (sending, on) = (stream.clone(), link.clone());
    let writer = context.spawn_victim("writer", move |context| send(context, &sending, &on));
    let (receiving, on) = (stream.clone(), link.clone());
    let reader = context.spawn_victim("reader", move |context| receive(context, &receiving, &on));
    context.join(&writer);
    context.join(&reader);
}

fn send(context: &Rc<Context>, stream: &Stream, link: &Link) {
    let (total, copies) = (context.amount(), context.chance(512));
    while link.there.sent() < total {
        let count = context.piece(total, link.there.sent());
        stream.set_write_timeout(context.chance(128).then(|| context.duration()));
        let written = match copies {
            true => link.there.write(context, |bytes| stream.write(bytes), count),
            false => write_zero_copy(context, stream, link, count),
        };
        match written {
            Err(error) if !context.goes_on(&error) => return link.fail(),
            _ => context.pause(total),
        }
    }
    match flush(context, stream).and_then(|()| stream.shutdown(Shutdown::Write)) {
        Ok(()) => link.there.finish(),
        Err(_) => link.fail(),
    }
}

/// Writes without a copy. A deadline ends that in time, whenever the peer acknowledges.
fn write_zero_copy(context: &Context, stream: &Stream, link: &Link, count: usize) -> io::Result<()> {
    let before = context.simulation.elapsed();
    let write = || link.there.write(context, |bytes| stream.write_zero_copy(bytes), count);
    let deadline = context.chance(512).then(|| context.duration());
    let written = match deadline {
        Some(deadline) => fibers::with_deadline(deadline, write),
        None => write(),
    };
    context.tally("zero-copy writes", 1);
    if written.as_ref().is_err_and(|error| net::interrupt_of(error).is_some()) {
        context.tally("interrupted zero-copy writes", 1);
    }
    if let Some(deadline) = deadline {
        let late = (context.simulation.elapsed() - before).saturating_sub(deadline);
        context.check(late < context.cancel_max(), || {
            format!("a cancelled zero-copy send took {late:?} to end")
        });
    }
    written
}

fn receive(context: &Rc<Context>, stream: &Stream, link: &Link) {
    let (mut buffer, mut pace) = (context.read_buffer(500), Pace::default());
    loop {
        let is_read = context.chance(512);
        stream.set_read_timeout(context.chance(128).then(|| context.duration()));
        let received = match is_read {
            true => stream.read(&mut buffer).inspect(|count| link.back.take(context, &buffer[..*count])),
            false => stream.receive().map(|received| {
                received.map_or(0, |bytes| {
                    link.back.take(context, &bytes);
                    bytes.len()
                })
            }),
        };
        match received {
            Ok(0) => return link.back.end(),
            Ok(_) => pace.step(context),
            Err(error) if context.goes_on(&error) => {}
            Err(_) => return link.fail(),
        }
    }
}

/// Waits for detached sends if they can fail, as nothing else would report the error; otherwise, the next call waits
/// for them.
fn flush(context: &Context, stream: &Stream) -> io::Result<()> {
    let can_fail = [Fault::Reset, Fault::ConnectionAborted].map(|fault| context.simulation.allows(fault));
    if can_fail == [false, false] && context.chance(512) {
        return Ok(());
    }
    stream.set_write_timeout(None);
    loop {
        match stream.flush() {
            Err(error) if context.goes_on(&error) => {}
            flushed => return flushed,
        }
    }
}

/// Echoes until the end of the stream.
fn serve(context: &Rc<Context>, links: &Links, stream: &Stream) {
    stream.set_write_behind(context.chance(512));
    let Ok(peer) = stream.peername() else { return };
    let mut buffer = context.read_buffer(800);
    let mut link: Option<Rc<Link>> = None;
    loop {
        let received = match context.chance(768) {
            true => stream.read(&mut buffer),
            false => {
                // With a deadline: bytes that arrive before it are kept for the next read.
                let chunk = || stream.chunk(&mut buffer);
                fibers::with_deadline(context.duration() / 256, chunk)
            }
        };
        // The client registers before it sends anything.
        let known = || links.borrow().get(&peer.to_string()).cloned();
        link = link.or_else(known);
        let count = match received {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if context.goes_on(&error) => continue,
            Err(_) => {
                link.inspect(|link| link.fail());
                return;
            }
        };
        let Some(link) = &link else { return context.fail(format!("bytes from nobody: {peer}")) };
        link.there.take(context, &buffer[..count]);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let before = link.back.sent();
            match link.back.account(context, stream.write(rest), rest.len()) {
                Err(error) if !context.goes_on(&error) => return link.fail(),
                _ => rest = &rest[(link.back.sent() - before) as usize..],
            }
        }
    }
    if let Some(link) = link {
        link.there.end();
        match flush(context, stream) {
            Ok(()) => link.back.finish(),
            Err(_) => link.fail(),
        }
    } else if let Some(link) = links.borrow().get(&peer.to_string()) {
        link.there.end();
        link.back.finish();
    }
}
