//! A proxy between clients and a backend, which send and end independently: it copies in both directions, and forwards
//! each end as a half-close.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, Stream};

use crate::context::{Context, Pace};
use crate::flow::{Flow, write_interrupted};

/// What goes from a client to the backend, and back.
struct Link {
    up: Flow,
    down: Flow,
}

impl Link {
    fn fail(&self) {
        self.up.fail();
        self.down.fail();
    }
}

/// Links by the address of whoever opened a connection: the client, and the proxy for it.
type Links = Rc<RefCell<BTreeMap<String, Rc<Link>>>>;

pub fn run(context: &Rc<Context>) {
    let links = Links::default();
    let (known, serving) = (links.clone(), context.clone());
    let backend = context.server(move |stream| serve(&serving, &known, stream));
    let Some((backend, address)) = backend else { return };
    let (known, passing) = (links.clone(), context.clone());
    let proxy = context.server(move |stream| pass(&passing, &known, stream, address));
    let Some((proxy, address)) = proxy else { return };

    let mut clients = Vec::new();
    for number in 0..context.between(1, 5) as u64 {
        let links = links.clone();
        clients.push(context.spawn("client", move |context| client(context, &links, number, address)));
        context.nap();
    }
    let trouble = context.spawn_trouble();
    clients.iter().for_each(|client| context.join(client));
    context.join(&trouble);
    proxy.close();
    backend.close();
    // The main fiber and this one.
    context.wait_for_all_but(2);
    let mut settled: Vec<*const Link> = Vec::new();
    for link in links.borrow().values().filter(|_| !context.is_ending()) {
        if !settled.contains(&Rc::as_ptr(link)) {
            settled.push(Rc::as_ptr(link));
            link.up.settle(context);
            link.down.settle(context);
        }
    }
}

fn client(context: &Rc<Context>, links: &Links, number: u64, proxy: Address) {
    let Ok(stream) = net::connect(proxy) else { return context.tally("connects that failed", 1) };
    let Ok(local) = stream.localname() else { return };
    let link = Rc::new(Link { up: Flow::new(2 * number), down: Flow::new(2 * number + 1) });
    links.borrow_mut().insert(local.to_string(), link.clone());
    let (up, down): (Direction, Direction) = (|link| &link.up, |link| &link.down);
    converse(context, stream, &link, up, down);
}

/// The link of the connection from this address, once whoever opened it has told.
fn find(context: &Context, links: &Links, stream: &Stream) -> Option<Rc<Link>> {
    let peer = stream.peername().ok()?.to_string();
    for _ in 0..500 {
        if let Some(link) = links.borrow().get(&peer) {
            return Some(link.clone());
        }
        if context.is_ending() {
            break;
        }
        let _ = fibers::sleep(Duration::from_millis(20));
    }
    None
}

fn serve(context: &Rc<Context>, links: &Links, stream: Stream) {
    let Some(link) = find(context, links, &stream) else { return };
    let (up, down): (Direction, Direction) = (|link| &link.up, |link| &link.down);
    converse(context, stream, &link, down, up);
}

type Direction = fn(&Link) -> &Flow;

/// Sends and receives at the same time; each side ends when it has sent all.
fn converse(context: &Rc<Context>, stream: Stream, link: &Rc<Link>, out: Direction, into: Direction) {
    let stream = Rc::new(stream);
    let (sending, on) = (stream.clone(), link.clone());
    let writer = context.spawn_victim("writer", move |context| {
        let flow = out(&on);
        let total = context.amount();
        while flow.sent() < total {
            let count = context.piece(total, flow.sent());
            match flow.write(context, |bytes| sending.write(bytes), count) {
                Err(error) if !context.goes_on(&error) => return on.fail(),
                _ => context.pause(total),
            }
        }
        match sending.shutdown(Shutdown::Write) {
            Ok(()) => flow.finish(),
            Err(_) => on.fail(),
        }
    });
    // What several readers get is in order, too, as each takes what it has got before it waits again.
    let readers: Vec<_> = (0..if context.chance(256) { 2 } else { 1 })
        .map(|_| {
            let (receiving, on) = (stream.clone(), link.clone());
            context.spawn_victim("reader", move |context| read_all(context, &receiving, &on, into(&on)))
        })
        .collect();
    drop(stream);
    context.join(&writer);
    readers.iter().for_each(|reader| context.join(reader));
}

fn read_all(context: &Context, stream: &Stream, link: &Link, flow: &Flow) {
    let mut pace = Pace::default();
    loop {
        match stream.receive() {
            Ok(None) => return flow.end(),
            Ok(Some(bytes)) => {
                flow.take(context, &bytes);
                drop(bytes);
                pace.step(context);
            }
            Err(error) if context.goes_on(&error) => {}
            Err(_) => return link.fail(),
        }
    }
}

/// Copies between a client and the backend, both ways.
fn pass(context: &Rc<Context>, links: &Links, client: Stream, backend: Address) {
    let Some(link) = find(context, links, &client) else { return };
    let Ok(upstream) = net::connect(backend) else { return link.fail() };
    let Ok(local) = upstream.localname() else { return link.fail() };
    links.borrow_mut().insert(local.to_string(), link.clone());
    let (client, upstream) = (Rc::new(client), Rc::new(upstream));
    let ways = [(client.clone(), upstream.clone()), (upstream, client)];
    let copies = ways.map(|(from, to)| {
        let link = link.clone();
        context.spawn_victim("copy", move |context| {
            if copy(context, &from, &to).is_err() {
                // Bytes in transit are lost, and both sides get an error.
                link.fail();
                from.close();
                to.close();
            }
        })
    });
    copies.iter().for_each(|copy| context.join(copy));
}

/// Copies until the end of one side, which the other side gets as well.
fn copy(context: &Context, from: &Stream, to: &Stream) -> io::Result<()> {
    loop {
        let bytes = match from.receive() {
            Ok(None) => return to.shutdown(Shutdown::Write),
            Ok(Some(bytes)) => bytes,
            Err(error) if context.goes_on(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut written = 0;
        while written < bytes.len() {
            match to.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if context.goes_on(&error) => {
                    written += write_interrupted(&error).map_or(0, |interrupted| interrupted.written_bytes);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
