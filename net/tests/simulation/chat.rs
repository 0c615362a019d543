//! A chat: each message goes to all other members, written by many fibers to each stream; some members read slowly,
//! and are disconnected if they are too slow.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Address, Stream};

use crate::context::Context;
use crate::flow::write_interrupted;

/// The header of a message: its sender, number and length.
const HEAD_BYTES: usize = 6;

/// The state of a member, shared by the server and the client.
#[derive(Default)]
struct Account {
    /// Messages that the server has completely written to it.
    delivered: Cell<u64>,
    /// Messages that it has read.
    read: Cell<u64>,
    /// Something has ended the connection early.
    failed: Cell<bool>,
    /// It has read the end.
    ended: Cell<bool>,
    /// The server has written the end.
    finished: Cell<bool>,
}

struct Member {
    stream: Stream,
    account: Rc<Account>,
    /// Fibers that are writing to it.
    writing: Cell<usize>,
}

#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<String, Rc<Member>>>,
    accounts: RefCell<BTreeMap<String, Rc<Account>>>,
}

pub fn run(context: &Rc<Context>) {
    let room = Rc::new(Room::default());
    let (in_room, serving) = (room.clone(), context.clone());
    let patience = context.chance(512).then(|| context.duration());
    let server = context.server(move |stream| serve(&serving, &in_room, stream, patience));
    let Some((server, address)) = server else { return };
    let mut clients = Vec::new();
    for number in 0..context.between(2, 6) as u8 {
        let room = room.clone();
        clients.push(context.spawn("client", move |context| client(context, &room, number, address)));
        context.nap();
    }
    let trouble = context.spawn_trouble();
    clients.iter().for_each(|client| context.join(client));
    context.join(&trouble);
    server.close();
    // The main fiber and this one.
    context.wait_for_all_but(2);
    for account in room.accounts.borrow().values().filter(|_| !context.is_ending()) {
        let (delivered, read) = (account.delivered.get(), account.read.get());
        context.tally("messages delivered", delivered);
        if account.failed.get() {
            context.tally("members that failed", 1);
            continue;
        }
        let (ended, finished) = (account.ended.get(), account.finished.get());
        context.check(delivered == read && ended && finished, || {
            format!("a member read {read} of {delivered} messages; ended: {ended}, finished: {finished}")
        });
        context.tally("members that left", 1);
    }
}

fn message(from: u8, number: u16, length: usize) -> Vec<u8> {
    let mut bytes = vec![from];
    bytes.extend(number.to_le_bytes());
    bytes.extend((length as u16).to_le_bytes());
    bytes.push(0xA5);
    bytes.extend((0..length).map(|at| (at as u8).wrapping_mul(31) ^ from ^ number as u8));
    bytes
}

/// Reads a whole message, however often that is interrupted; `None` at the end of the stream.
fn read_message(context: &Context, stream: &Stream) -> io::Result<Option<Vec<u8>>> {
    let fill = |buffer: &mut [u8]| loop {
        match stream.chunk(buffer) {
            // Received bytes are kept for the next attempt.
            Err(error) if context.goes_on(&error) => {}
            read => return read,
        }
    };
    let mut head = [0; HEAD_BYTES];
    match fill(&mut head)? {
        0 => return Ok(None),
        HEAD_BYTES => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let (from, number) = (head[0], u16::from_le_bytes([head[1], head[2]]));
    let length = usize::from(u16::from_le_bytes([head[3], head[4]]));
    let expected = message(from, number, length);
    let mut body = vec![0; length];
    if fill(&mut body)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let whole = [&head[..], &body].concat();
    context.check(whole == expected, || format!("message {number} of member {from} is not what was sent"));
    Ok(Some(whole))
}

fn client(context: &Rc<Context>, room: &Rc<Room>, number: u8, address: Address) {
    let Ok(stream) = net::connect(address) else { return context.tally("connects that failed", 1) };
    let Ok(local) = stream.localname() else { return };
    let (stream, account) = (Rc::new(stream), Rc::new(Account::default()));
    room.accounts.borrow_mut().insert(local.to_string(), account.clone());
    let leaves_early = context.chance(128);
    let (saying, own) = (stream.clone(), account.clone());
    let writer = context.spawn("writer", move |context| {
        for said in 0..context.between(0, 20) as u16 {
            let bytes = message(number, said, context.between(0, 300));
            if saying.write(&bytes).is_err() {
                return own.failed.set(true);
            }
            context.nap();
        }
        if leaves_early {
            own.failed.set(true);
            return saying.close();
        }
        if saying.shutdown(Shutdown::Write).is_err() {
            own.failed.set(true);
        }
    });
    let is_slow = context.chance(512);
    let reader = context.spawn_victim("reader", move |context| {
        let mut last = BTreeMap::new();
        loop {
            match read_message(context, &stream) {
                Ok(None) => return account.ended.set(true),
                Ok(Some(bytes)) => {
                    let (from, said) = (bytes[0], u16::from_le_bytes([bytes[1], bytes[2]]));
                    let before = last.insert(from, said);
                    context.check(before.is_none_or(|before| before < said), || {
                        format!("member {number} read message {said} of {from} after {before:?}")
                    });
                    account.read.set(account.read.get() + 1);
                    context.tally("messages read", 1);
                }
                Err(_) => return account.failed.set(true),
            }
            if is_slow {
                let _ = fibers::sleep(context.duration());
            }
        }
    });
    context.join(&writer);
    context.join(&reader);
}

/// The server's fiber of a member: forwards its messages to the others.
fn serve(context: &Rc<Context>, room: &Rc<Room>, stream: Stream, patience: Option<Duration>) {
    let Ok(name) = stream.peername().map(|address| address.to_string()) else { return };
    // The client registers before its first message.
    let first = read_message(context, &stream);
    let Some(account) = room.accounts.borrow().get(&name).cloned() else { return };
    stream.set_write_timeout(patience);
    let member = Rc::new(Member { stream, account, writing: Cell::new(0) });
    room.members.borrow_mut().insert(name.clone(), member.clone());
    let mut heard = first;
    loop {
        match heard {
            Ok(Some(bytes)) => tell_others(context, room, &member, &bytes),
            Ok(None) => break,
            Err(_) => {
                member.account.failed.set(true);
                break;
            }
        }
        heard = read_message(context, &member.stream);
    }
    room.members.borrow_mut().remove(&name);
    while member.writing.get() > 0 && !context.is_ending() {
        let _ = fibers::sleep(Duration::from_millis(1));
    }
    match member.stream.shutdown(Shutdown::Write) {
        Ok(()) => member.account.finished.set(true),
        Err(_) => member.account.failed.set(true),
    }
    // The stream is closed when all references are dropped; not before the member has read all bytes in transit.
}

fn tell_others(context: &Context, room: &Room, from: &Rc<Member>, bytes: &[u8]) {
    let others: Vec<_> = room.members.borrow().values().cloned().collect();
    for member in others.into_iter().filter(|member| !Rc::ptr_eq(member, from)) {
        if member.account.finished.get() || context.is_ending() {
            continue;
        }
        member.writing.set(member.writing.get() + 1);
        match member.stream.write(bytes) {
            Ok(_) => member.account.delivered.set(member.account.delivered.get() + 1),
            Err(error) => match write_interrupted(&error) {
                // Nothing of the message was sent, so the member only misses this one.
                Some(interrupted) if interrupted.written_bytes == 0 => context.tally("messages missed", 1),
                _ => {
                    context.tally("members thrown out", 1);
                    member.account.failed.set(true);
                    member.stream.close();
                }
            },
        }
        member.writing.set(member.writing.get() - 1);
    }
}
