//! What the Janet module `ringspun` needs besides Janet: the module itself is `serving.janet`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringspun_net::Address;
use ringspun_net::machine::{
    DatagramCore, ListenerCore, Placement, Reuse, SocketKind, StreamCore, Term, bind_for_all, listen_on,
};

use crate::api as janet;
use crate::api::{Janet, JanetStream};
use crate::bridge::Bridge;
use crate::shims::{carry_out, stream_argument, this_bridge};
use crate::socket::Socket;
use crate::stock::{Replacement, replacement};
use crate::values::{Verdict, address_argument, explained, keyword, nil, string};

/// The source text of the module.
pub(crate) const SERVING_SOURCE: &str = include_str!("serving.janet");

/// The functions that only the module has.
pub(crate) const SERVING_FUNCTIONS: [Replacement; 16] = [
    LISTEN,
    OPEN_LISTENER,
    CLOSE_LISTENERS,
    ENTER,
    PLACE,
    HAND_OVER,
    LEAVE,
    LEAVE_WAITING,
    TAKE_HANDED,
    HAND_ON,
    RECOUNT,
    ENDED,
    WRITE_OFF,
    COUNTS,
    FORGET,
    CORES,
];

/// What the workers of a server share, each with a VM of its own.
///
/// A connection on its way from one worker to another is here, as a descriptor: it outlives both.
struct Server {
    placement: Placement,
    kind: SocketKind,
    handed: Mutex<Handed>,
}

struct Handed {
    /// The sockets that workers listen at, until the server stops.
    listeners: Vec<OwnedFd>,
    /// For each worker, the connections that it has not taken yet.
    connections: Vec<Vec<Connection>>,
}

struct Connection {
    descriptor: OwnedFd,
    /// The term of the worker in which the connection counts; `None` for one that counts no more.
    counted: Option<Term>,
}

impl Server {
    fn new(kind: SocketKind, workers: usize, listeners: Vec<OwnedFd>) -> Self {
        let connections = (0..workers).map(|_| Vec::new()).collect();
        let handed = Mutex::new(Handed { listeners, connections });
        Self { placement: Placement::new(workers), kind, handed }
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection to a worker, unless that has failed since the connection was counted. True if it is the
    /// first that the worker has to take.
    fn hand_over(
        &self,
        worker: usize,
        term: Term,
        release: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<bool> {
        let mut handed = self.handed();
        if !self.placement.is_in_term(worker, term) {
            return None;
        }
        let waiting = &mut handed.connections[worker];
        waiting.push(Connection { descriptor: release()?, counted: Some(term) });
        Some(waiting.len() == 1)
    }

    /// Keeps a connection that a worker which has failed has accepted.
    fn leave(&self, worker: usize, descriptor: OwnedFd) {
        // It has been served, but does not count as live.
        let term = self.placement.count(worker);
        self.placement.ended(worker, term);
        self.handed().connections[worker].push(Connection { descriptor, counted: None });
    }

    /// The connections that wait for this worker, which count for it now.
    fn take(&self, worker: usize) -> Vec<OwnedFd> {
        let mut handed = self.handed();
        let taken = std::mem::take(&mut handed.connections[worker]);
        for connection in &taken {
            if !connection.counted.is_some_and(|term| self.placement.is_in_term(worker, term)) {
                self.placement.count_again(worker);
            }
        }
        taken.into_iter().map(|connection| connection.descriptor).collect()
    }

    /// What a worker that has failed was given goes to another, or is closed.
    fn hand_on(&self, failed: usize, heir: Option<usize>) {
        let mut handed = self.handed();
        let moved = std::mem::take(&mut handed.connections[failed]);
        let uncounted = moved.into_iter().map(|connection| Connection { counted: None, ..connection });
        match heir.and_then(|heir| handed.connections.get_mut(heir)) {
            Some(waiting) => waiting.extend(uncounted),
            None => drop(uncounted),
        }
    }

    /// Nothing is given to the worker from now on, and what it has counts no more.
    fn write_off(&self, worker: usize) {
        let mut handed = self.handed();
        self.placement.fail(worker);
        handed.connections[worker].iter_mut().for_each(|connection| connection.counted = None);
    }
}

/// The servers of this process, by number.
static SERVERS: Mutex<Option<HashMap<i32, Arc<Server>>>> = Mutex::new(None);

fn servers() -> MutexGuard<'static, Option<HashMap<i32, Arc<Server>>>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn server(id: i32) -> Option<Arc<Server>> {
    servers().as_ref()?.get(&id).cloned()
}

const LISTEN: Replacement = replacement!(c"listen", listen);

/// `(listen address workers datagram)`: the number of a new server that listens at the address, and the number of its
/// sockets: one for each worker where the address can be shared.
unsafe extern "C-unwind" fn listen(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever it may raise.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_LISTEN);
        janet::janet_fixarity(count, 3);
        let address = address_argument(arguments, 0);
        let workers = janet::janet_getnat(arguments, 1) as usize;
        let is_datagram = janet::janet_getboolean(arguments, 2) != 0;
        let kind = if is_datagram { SocketKind::Datagram } else { SocketKind::Stream };
        carry_out(|| bind(&address, workers, kind))
    }
}

fn bind(address: &Address, workers: usize, kind: SocketKind) -> Verdict {
    let alone = if kind == SocketKind::Stream { Reuse::Address } else { Reuse::Nothing };
    let bound = match address.is_unix() || workers < 2 {
        true => listen_on(&[*address], kind, alone).map(|descriptor| vec![descriptor]),
        false => bind_for_all(&[*address], kind, workers, alone),
    };
    let listeners = match bound {
        Ok(listeners) => listeners,
        Err(error) => return Verdict::Raise(explained("could not bind socket", &error)),
    };
    let sockets = listeners.len();
    let mut servers = servers();
    let servers = servers.get_or_insert_default();
    let id = (0..).find(|id| !servers.contains_key(id)).unwrap_or(0);
    servers.insert(id, Arc::new(Server::new(kind, workers, listeners)));
    Verdict::Return(tuple(&[integer(id), integer(sockets as i32)]))
}

fn tuple(values: &[Janet]) -> Janet {
    // SAFETY: copies the values to a tuple of the VM on this thread.
    unsafe { janet::janet_wrap_tuple(janet::janet_tuple_n(values.as_ptr(), values.len() as i32)) }
}

const OPEN_LISTENER: Replacement = replacement!(c"open-listener", open_listener);

/// `(open-listener id number)`: a stream of this thread for the server's socket of this number; nil if the server has
/// stopped.
unsafe extern "C-unwind" fn open_listener(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        let (id, number) = (janet::janet_getnat(arguments, 0), janet::janet_getnat(arguments, 1) as usize);
        carry_out(|| {
            let Some(server) = server(id) else { return Verdict::Return(nil()) };
            let duplicate = server.handed().listeners.get(number).map(OwnedFd::try_clone);
            match duplicate {
                None => Verdict::Return(nil()),
                Some(Err(error)) => Verdict::Raise(explained("could not listen", &error)),
                Some(Ok(descriptor)) => listener_value(descriptor, server.kind),
            }
        })
    }
}

fn listener_value(descriptor: OwnedFd, kind: SocketKind) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let event_loop = bridge.event_loop().clone();
    let (socket, flags) = match kind {
        SocketKind::Stream => {
            let socket = Socket::Listener(ListenerCore::new(event_loop, descriptor), None);
            (socket, janet::JANET_STREAM_ACCEPTABLE)
        }
        SocketKind::Datagram => {
            let socket = Socket::Datagram(DatagramCore::new(event_loop, descriptor));
            (socket, janet::JANET_STREAM_UDPSERVER | janet::JANET_STREAM_READABLE)
        }
    };
    Verdict::Return(bridge.stream_value(socket, flags))
}

const CLOSE_LISTENERS: Replacement = replacement!(c"close-listeners", close_listeners);

/// `(close-listeners id)`: the server stops, once its workers have closed their streams for its sockets.
unsafe extern "C-unwind" fn close_listeners(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let id = janet::janet_getnat(arguments, 0);
        carry_out(|| {
            let closed = server(id).map(|server| std::mem::take(&mut server.handed().listeners));
            drop(closed);
            Verdict::Return(nil())
        })
    }
}

fn integer(value: i32) -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_integer(value) }
}

fn boolean(value: bool) -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_boolean(i32::from(value)) }
}

/// Calls `act` with the server and the worker that the first two arguments name, and returns what it does; nil for
/// a server that has ended.
unsafe fn with_worker(arguments: *mut Janet, act: impl FnOnce(&Server, usize) -> Verdict) -> Janet {
    // SAFETY: called by a shim that has checked that there are two arguments.
    unsafe {
        let (id, worker) = (janet::janet_getnat(arguments, 0), janet::janet_getnat(arguments, 1) as usize);
        carry_out(|| {
            let known = server(id).filter(|server| worker < server.placement.live().len());
            known.map_or_else(|| Verdict::Return(nil()), |server| act(&server, worker))
        })
    }
}

/// As [`with_worker`], with this thread's bridge.
unsafe fn with_bridge(arguments: *mut Janet, act: impl FnOnce(&Server, usize, &Bridge) -> Verdict) -> Janet {
    // SAFETY: as the caller has promised to `with_worker`.
    unsafe {
        with_worker(arguments, |server, worker| match this_bridge() {
            Ok(bridge) => act(server, worker, &bridge),
            Err(verdict) => verdict,
        })
    }
}

/// The descriptor of an accepted connection that nobody has used here; its stream is closed then. `None` if it cannot
/// be had.
fn released(bridge: &Bridge, stream: *mut JanetStream) -> Option<OwnedFd> {
    let Socket::Stream(core) = bridge.socket_of(stream) else { return None };
    let descriptor = core.detach().ok()?.into_descriptor().ok();
    bridge.close(stream);
    descriptor
}

const HAND_OVER: Replacement = replacement!(c"hand-over", hand_over);

/// `(hand-over id worker term connection)`: gives a connection that is counted for a worker in this term to that.
/// `:first` if nothing else waits for it, which is to be told then, `:further` otherwise; nil if the worker has failed,
/// and the connection is still here.
unsafe extern "C-unwind" fn hand_over(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 4);
        let term = Term::numbered(janet::janet_getnat(arguments, 2) as u32);
        let stream = stream_argument(arguments.add(3));
        with_bridge(arguments, |server, worker, bridge| {
            let handed = server.hand_over(worker, term, || released(bridge, stream));
            Verdict::Return(handed.map_or_else(nil, |first| keyword(if first { "first" } else { "further" })))
        })
    }
}

const LEAVE: Replacement = replacement!(c"leave", leave);

/// `(leave id worker connection)`: keeps a connection that the worker, which has failed, has accepted, for the one that
/// goes on in its place.
unsafe extern "C-unwind" fn leave(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let stream = stream_argument(arguments.add(2));
        with_bridge(arguments, |server, worker, bridge| {
            if let Some(descriptor) = released(bridge, stream) {
                server.leave(worker, descriptor);
            }
            Verdict::Return(nil())
        })
    }
}

const LEAVE_WAITING: Replacement = replacement!(c"leave-waiting", leave_waiting);

/// `(leave-waiting id worker listener)`: the same for connections that nobody has accepted. True if there may be more.
unsafe extern "C-unwind" fn leave_waiting(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let stream = stream_argument(arguments.add(2));
        with_bridge(arguments, |server, worker, bridge| {
            let Socket::Listener(core, _) = bridge.socket_of(stream) else {
                return Verdict::Raise(string("bad stream, expected server socket"));
            };
            let waiting = core.take_waiting();
            let may_have_more = waiting.is_some();
            waiting.into_iter().flatten().for_each(|descriptor| server.leave(worker, descriptor));
            Verdict::Return(boolean(may_have_more))
        })
    }
}

const TAKE_HANDED: Replacement = replacement!(c"take-handed", take_handed);

/// `(take-handed id worker)`: the connections that have been handed over to the worker, which count for it.
unsafe extern "C-unwind" fn take_handed(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_bridge(arguments, |server, worker, bridge| {
            let array = janet::janet_array(0);
            for descriptor in server.take(worker) {
                let socket = Socket::Stream(StreamCore::new(bridge.event_loop().clone(), descriptor));
                let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
                janet::janet_array_push(array, bridge.stream_value(socket, flags));
            }
            Verdict::Return(janet::janet_wrap_array(array))
        })
    }
}

const HAND_ON: Replacement = replacement!(c"hand-on", hand_on);

/// `(hand-on id failed heir)`: what waits for a worker that has failed goes to another, or is closed if `heir` is nil.
unsafe extern "C-unwind" fn hand_on(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let is_none = janet::janet_checktype(*arguments.add(2), janet::JANET_NIL) != 0;
        let heir = (!is_none).then(|| janet::janet_getnat(arguments, 2) as usize);
        with_worker(arguments, |server, failed| {
            server.hand_on(failed, heir);
            Verdict::Return(nil())
        })
    }
}

const ENTER: Replacement = replacement!(c"enter", enter);

/// `(enter id worker)`: this thread is the worker's. Returns the worker's term, which is that of this VM.
unsafe extern "C-unwind" fn enter(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_worker(arguments, |server, worker| {
            server.placement.enter(worker);
            Verdict::Return(number_of(server.placement.term(worker)))
        })
    }
}

const PLACE: Replacement = replacement!(c"place", place);

/// `(place id worker here)`: the worker for a connection that has landed on this one, where it stays if `here` is true,
/// and the term of that worker in which it counts.
unsafe extern "C-unwind" fn place(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let stays = janet::janet_getboolean(arguments, 2) != 0;
        with_worker(arguments, |server, worker| {
            let placement = &server.placement;
            let (worker, term) =
                if stays { (worker, placement.count(worker)) } else { placement.place(worker) };
            Verdict::Return(tuple(&[integer(worker as i32), number_of(term)]))
        })
    }
}

/// Exact, as terms have 32 bits.
fn number_of(term: Term) -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_number(f64::from(term.number())) }
}

const RECOUNT: Replacement = replacement!(c"recount", recount);

/// `(recount id worker)`: the worker has a connection that has been counted as served before.
unsafe extern "C-unwind" fn recount(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_worker(arguments, |server, worker| {
            server.placement.count_again(worker);
            Verdict::Return(nil())
        })
    }
}

const ENDED: Replacement = replacement!(c"ended", ended);

/// `(ended id worker term)`: a connection of the worker has ended that was counted in this term.
unsafe extern "C-unwind" fn ended(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let term = Term::numbered(janet::janet_getnat(arguments, 2) as u32);
        with_worker(arguments, |server, worker| {
            server.placement.ended(worker, term);
            Verdict::Return(nil())
        })
    }
}

const WRITE_OFF: Replacement = replacement!(c"write-off", write_off);

/// `(write-off id worker)`: the worker has failed. It gets no more connections, and those that it has count no more.
unsafe extern "C-unwind" fn write_off(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_worker(arguments, |server, worker| {
            server.write_off(worker);
            Verdict::Return(nil())
        })
    }
}

const COUNTS: Replacement = replacement!(c"counts", counts);

/// `(counts id)`: for each worker its live connections, those served, those handed over, and its processor time in
/// seconds.
unsafe extern "C-unwind" fn counts(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let id = janet::janet_getnat(arguments, 0);
        carry_out(|| Verdict::Return(server(id).map_or_else(nil, |server| counts_of(&server.placement))))
    }
}

fn counts_of(placement: &Placement) -> Janet {
    // SAFETY: makes values of the VM on this thread, which collects nothing while a function of it runs.
    unsafe {
        let array = janet::janet_array(0);
        for (live, served, handed_over, processor_time) in placement.counts() {
            let number = |value: f64| janet::janet_wrap_number(value);
            let seconds = processor_time.map_or_else(nil, |time| number(time.as_secs_f64()));
            let row = [number(live as f64), number(served as f64), number(handed_over as f64), seconds];
            janet::janet_array_push(array, tuple(&row));
        }
        janet::janet_wrap_array(array)
    }
}

const FORGET: Replacement = replacement!(c"forget", forget);

/// `(forget id)`: the server has ended.
unsafe extern "C-unwind" fn forget(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let id = janet::janet_getnat(arguments, 0);
        carry_out(|| {
            let forgotten = servers().as_mut().and_then(|servers| servers.remove(&id));
            drop(forgotten);
            Verdict::Return(nil())
        })
    }
}

const CORES: Replacement = replacement!(c"cores", cores);

/// `(cores)`: how many cores this process may use.
unsafe extern "C-unwind" fn cores(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 0);
        carry_out(|| {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Verdict::Return(integer(i32::try_from(cores).unwrap_or(i32::MAX)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> OwnedFd {
        std::os::unix::net::UnixStream::pair().unwrap().0.into()
    }

    fn server_of_two() -> Server {
        let server = Server::new(SocketKind::Stream, 2, Vec::new());
        (0..2).for_each(|worker| server.placement.enter(worker));
        server
    }

    #[test]
    fn what_a_failed_worker_has_not_taken_is_its_successors() {
        let server = server_of_two();
        let term = server.placement.count(1);
        assert_eq!(server.hand_over(1, term, || Some(connection())), Some(true));
        server.write_off(1);
        assert_eq!(server.placement.live(), [0, 0]);
        // Whoever has placed one there before keeps it.
        assert_eq!(server.hand_over(1, term, || panic!("it stays")), None);
        server.leave(1, connection());
        server.placement.enter(1);
        assert_eq!((server.take(1).len(), server.placement.live()), (2, vec![0, 2]));
        assert_eq!(server.placement.counts().nth(1).unwrap().1, 2);
    }

    #[test]
    fn without_a_successor_it_is_anothers() {
        let server = server_of_two();
        let (term, others) = (server.placement.count(1), server.placement.count(0));
        assert_eq!(server.hand_over(1, term, || Some(connection())), Some(true));
        assert_eq!(server.hand_over(0, others, || Some(connection())), Some(true));
        server.write_off(1);
        server.hand_on(1, Some(0));
        assert_eq!((server.take(1).len(), server.take(0).len()), (0, 2));
        assert_eq!(server.placement.live(), [2, 0]);
    }

    #[test]
    fn what_cannot_be_released_stays() {
        let server = server_of_two();
        let term = server.placement.count(1);
        assert_eq!(server.hand_over(1, term, || None), None);
        assert!(server.take(1).is_empty());
    }
}
