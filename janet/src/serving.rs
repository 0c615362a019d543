//! What the Janet module `ringspun` needs besides Janet: the module itself is `serving.janet`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringspun_net::Address;
use ringspun_net::machine::{
    DatagramCore, ListenerCore, Placement, Reuse, SocketKind, StreamCore, Term, bind_for_all, listen_on,
};

use crate::api as janet;
use crate::api::Janet;
use crate::shims::{carry_out, stream_argument, this_bridge};
use crate::socket::Socket;
use crate::stock::{Replacement, replacement};
use crate::values::{Verdict, address_argument, explained, nil, string};

/// The source text of the module.
pub(crate) const SERVING_SOURCE: &str = include_str!("serving.janet");

/// The functions that only the module has.
pub(crate) const SERVING_FUNCTIONS: [Replacement; 11] =
    [LISTEN, TAKE_WAITING, NEW_PLACEMENT, ENTER, PLACE, RECOUNT, ENDED, WRITE_OFF, COUNTS, FORGET, CORES];

/// The placements of the servers of this process, by number: what their workers, each with a VM of its own, share.
static PLACEMENTS: Mutex<Option<HashMap<i32, Arc<Placement>>>> = Mutex::new(None);

fn placements() -> MutexGuard<'static, Option<HashMap<i32, Arc<Placement>>>> {
    PLACEMENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn placement(id: i32) -> Option<Arc<Placement>> {
    placements().as_ref()?.get(&id).cloned()
}

const LISTEN: Replacement = replacement!(c"listen", listen);

/// `(listen address workers datagram)`: listeners at the address, one for each worker where it can be shared.
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
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let alone = if kind == SocketKind::Stream { Reuse::Address } else { Reuse::Nothing };
    let bound = match address.is_unix() || workers < 2 {
        true => listen_on(&[*address], kind, alone).map(|descriptor| vec![descriptor]),
        false => bind_for_all(&[*address], kind, workers, alone),
    };
    let descriptors = match bound {
        Ok(descriptors) => descriptors,
        Err(error) => return Verdict::Raise(explained("could not bind socket", &error)),
    };
    let stream_of = |descriptor| {
        let event_loop = bridge.event_loop().clone();
        match kind {
            SocketKind::Stream => bridge.stream_value(
                Socket::Listener(ListenerCore::new(event_loop, descriptor), None),
                janet::JANET_STREAM_ACCEPTABLE,
            ),
            SocketKind::Datagram => bridge.stream_value(
                Socket::Datagram(DatagramCore::new(event_loop, descriptor)),
                janet::JANET_STREAM_UDPSERVER | janet::JANET_STREAM_READABLE,
            ),
        }
    };
    // SAFETY: the VM runs on this thread, and collects nothing while a function of it does.
    Verdict::Return(unsafe {
        let array = janet::janet_array(0);
        for descriptor in descriptors {
            janet::janet_array_push(array, stream_of(descriptor));
        }
        janet::janet_wrap_array(array)
    })
}

const TAKE_WAITING: Replacement = replacement!(c"take-waiting", take_waiting);

/// `(take-waiting listener)`: connections that wait in the kernel; nil when there are no more.
unsafe extern "C-unwind" fn take_waiting(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let stream = stream_argument(arguments);
        carry_out(|| {
            let bridge = match this_bridge() {
                Ok(bridge) => bridge,
                Err(verdict) => return verdict,
            };
            let Socket::Listener(core, _) = bridge.socket_of(stream) else {
                return Verdict::Raise(string("bad stream, expected server socket"));
            };
            let Some(connections) = core.take_waiting() else { return Verdict::Return(nil()) };
            let array = janet::janet_array(0);
            for connection in connections {
                let socket = Socket::Stream(StreamCore::new(bridge.event_loop().clone(), connection));
                let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
                janet::janet_array_push(array, bridge.stream_value(socket, flags));
            }
            Verdict::Return(janet::janet_wrap_array(array))
        })
    }
}

const NEW_PLACEMENT: Replacement = replacement!(c"new-placement", new_placement);

/// `(new-placement workers)`: the number of a new placement.
unsafe extern "C-unwind" fn new_placement(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let workers = janet::janet_getnat(arguments, 0) as usize;
        carry_out(|| {
            let mut placements = placements();
            let placements = placements.get_or_insert_default();
            let id = (0..).find(|id| !placements.contains_key(id)).unwrap_or(0);
            placements.insert(id, Arc::new(Placement::new(workers)));
            Verdict::Return(integer(id))
        })
    }
}

fn integer(value: i32) -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_integer(value) }
}

/// Calls `act` with the placement and the worker that the first two arguments name, and returns what it does; nil for
/// a server that has ended.
unsafe fn with_worker(arguments: *mut Janet, act: impl FnOnce(&Placement, usize) -> Janet) -> Janet {
    // SAFETY: called by a shim that has checked that there are two arguments.
    unsafe {
        let (id, worker) = (janet::janet_getnat(arguments, 0), janet::janet_getnat(arguments, 1) as usize);
        carry_out(|| {
            let known = placement(id).filter(|placement| worker < placement.live().len());
            Verdict::Return(known.map_or_else(nil, |placement| act(&placement, worker)))
        })
    }
}

const ENTER: Replacement = replacement!(c"enter", enter);

/// `(enter id worker)`: this thread is the worker's. Returns the worker's term, which is that of this VM.
unsafe extern "C-unwind" fn enter(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_worker(arguments, |placement, worker| {
            placement.enter(worker);
            number_of(placement.term(worker))
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
        with_worker(arguments, |placement, worker| {
            let (worker, term) =
                if stays { (worker, placement.count(worker)) } else { placement.place(worker) };
            let placed = [integer(worker as i32), number_of(term)];
            janet::janet_wrap_tuple(janet::janet_tuple_n(placed.as_ptr(), 2))
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
        with_worker(arguments, |placement, worker| {
            placement.count_again(worker);
            nil()
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
        with_worker(arguments, |placement, worker| {
            placement.ended(worker, term);
            nil()
        })
    }
}

const WRITE_OFF: Replacement = replacement!(c"write-off", write_off);

/// `(write-off id worker)`: the worker has failed. It gets no more connections, and those that it has count no more.
unsafe extern "C-unwind" fn write_off(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `listen`.
    unsafe {
        janet::janet_fixarity(count, 2);
        with_worker(arguments, |placement, worker| {
            placement.fail(worker);
            nil()
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
        carry_out(|| Verdict::Return(placement(id).map_or_else(nil, |placement| counts_of(&placement))))
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
            janet::janet_array_push(array, janet::janet_wrap_tuple(janet::janet_tuple_n(row.as_ptr(), 4)));
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
            let forgotten = placements().as_mut().and_then(|placements| placements.remove(&id));
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
