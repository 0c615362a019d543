//! The functions and methods that programs call: thin shims that read their arguments as the VM's own
//! do, so that errors have the same texts, and leave the rest to the bridge.
//!
//! A shim's frame holds plain data only while it calls anything of the VM that may raise. Streams that
//! are not ours (pipes, files, and sockets of kinds that the ring does not serve yet) go to the VM's
//! own function.

use std::ffi::{CStr, c_char};
use std::rc::Rc;
use std::sync::OnceLock;

use evil_janet as janet;
use evil_janet::{Janet, JanetMethod, JanetStream};
use ringspun_net::machine::{Accept, Amount, Connect, ListenerCore, Read, Write, listen_on};
use ringspun_net::{Address, resolve};

use crate::bridge::{Bridge, Socket};
use crate::parked::{Work, start};
use crate::values::{Verdict, nil, string, symbol};

type Function = unsafe extern "C-unwind" fn(i32, *mut Janet) -> Janet;

/// The functions that are replaced in the core environment.
pub(crate) const REPLACEMENTS: [(&CStr, Function); 11] = [
    (c"net/listen", net_listen),
    (c"net/connect", net_connect),
    (c"net/accept", net_accept),
    (c"net/accept-loop", net_accept_loop),
    (c"net/read", net_read),
    (c"net/chunk", net_chunk),
    (c"net/write", net_write),
    (c"ev/read", ev_read),
    (c"ev/chunk", ev_chunk),
    (c"ev/write", ev_write),
    (c"ev/close", ev_close),
];

/// The VM's own functions, by which streams that are not ours are served.
struct Stock {
    listen: Function,
    connect: Function,
    accept: Function,
    accept_loop: Function,
    read: Function,
    chunk: Function,
    write: Function,
    ev_read: Function,
    ev_chunk: Function,
    ev_write: Function,
    ev_close: Function,
    methods: Box<[JanetMethod]>,
}

// SAFETY: function pointers and static names, which never change once they are made.
unsafe impl Send for Stock {}
// SAFETY: as above.
unsafe impl Sync for Stock {}

static STOCK: OnceLock<Stock> = OnceLock::new();

/// Remembers the VM's own functions. The VM must be running on this thread.
///
/// Fails with the name of a function that this VM lacks.
pub(crate) fn remember_stock() -> Result<(), &'static CStr> {
    if STOCK.get().is_some() {
        return Ok(());
    }
    // SAFETY: the VM runs; the table of its functions is alive until the next collection.
    let table = unsafe { janet::janet_core_lookup_table(std::ptr::null_mut()) };
    let find = |name: &'static CStr| -> Result<Function, &'static CStr> {
        // SAFETY: as above; the value is only unwrapped as what it is.
        unsafe {
            let value = janet::janet_table_get(table, symbol(name));
            match janet::janet_checktype(value, janet::JanetType_JANET_CFUNCTION) {
                0 => Err(name),
                _ => janet::janet_unwrap_cfunction(value).ok_or(name),
            }
        }
    };
    let method =
        |name: &'static CStr, function: Function| JanetMethod { name: name.as_ptr(), cfun: Some(function) };
    // In the order of the VM's own, because `keys` of a stream shows it.
    let methods = Box::new([
        method(c"chunk", net_chunk),
        method(c"close", ev_close),
        method(c"read", net_read),
        method(c"write", net_write),
        method(c"flush", find(c"net/flush")?),
        method(c"accept", net_accept),
        method(c"accept-loop", net_accept_loop),
        method(c"send-to", find(c"net/send-to")?),
        method(c"recv-from", find(c"net/recv-from")?),
        method(c"evread", ev_read),
        method(c"evchunk", ev_chunk),
        method(c"evwrite", ev_write),
        method(c"shutdown", find(c"net/shutdown")?),
        method(c"setsockopt", find(c"net/setsockopt")?),
        JanetMethod { name: std::ptr::null(), cfun: None },
    ]);
    let stock = Stock {
        listen: find(c"net/listen")?,
        connect: find(c"net/connect")?,
        accept: find(c"net/accept")?,
        accept_loop: find(c"net/accept-loop")?,
        read: find(c"net/read")?,
        chunk: find(c"net/chunk")?,
        write: find(c"net/write")?,
        ev_read: find(c"ev/read")?,
        ev_chunk: find(c"ev/chunk")?,
        ev_write: find(c"ev/write")?,
        ev_close: find(c"ev/close")?,
        methods,
    };
    let _ = STOCK.set(stock);
    Ok(())
}

/// Whether any VM of this process has our functions, so that streams of ours can turn up in every other.
pub(crate) fn is_in_use() -> bool {
    STOCK.get().is_some()
}

fn stock() -> &'static Stock {
    match STOCK.get() {
        Some(stock) => stock,
        // The functions of this file are only reachable through an environment that was made after it.
        None => unreachable!("a function of ours is called before the VM's own are known"),
    }
}

/// The method table of our streams, by which they are told from others.
pub(crate) fn methods() -> *const JanetMethod {
    stock().methods.as_ptr()
}

/// The first argument as a stream, or the VM's error about it.
unsafe fn stream_argument(arguments: *mut Janet) -> *mut JanetStream {
    // SAFETY: the caller has checked that there is a first argument.
    unsafe { janet::janet_getabstract(arguments, 0, &raw const janet::janet_stream_type).cast() }
}

/// Whether a stream is one of ours.
unsafe fn is_ours(stream: *mut JanetStream) -> bool {
    // SAFETY: the caller has a live stream.
    unsafe { (*stream).methods == methods().cast() }
}

/// Does what the verdict says. Nothing with a destructor may be alive in the caller.
unsafe fn carry_out(verdict: Verdict) -> Janet {
    match verdict {
        Verdict::Return(value) => value,
        // SAFETY: unwinds the VM's stack over frames that hold plain data.
        Verdict::Raise(error) => unsafe { janet::janet_panicv(error) },
        // SAFETY: as above.
        Verdict::Await => unsafe { janet::janet_await() },
    }
}

/// This thread's bridge, or the verdict that says why there is none.
fn bridge() -> Result<Rc<Bridge>, Verdict> {
    Bridge::get_or_make().map_err(|error| Verdict::Raise(string(&error.to_string())))
}

/// `read`: the number may be `:all`, and the buffer is looked at before it.
unsafe fn read(count: i32, arguments: *mut Janet, stock: Function, flags: u32) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever
    // the VM may raise.
    unsafe {
        janet::janet_arity(count, 2, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock(count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let buffer = buffer_argument(count, arguments);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        let amount = if janet::janet_keyeq(*arguments.add(1), c"all".as_ptr()) != 0 {
            Amount::Exactly(i32::MAX as usize)
        } else {
            Amount::UpTo(janet::janet_getnat(arguments, 1) as usize)
        };
        carry_out(start_read(stream, amount, buffer, timeout_s))
    }
}

/// `chunk`: the number is looked at before the buffer.
unsafe fn chunk(count: i32, arguments: *mut Janet, stock: Function, flags: u32) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 2, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock(count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let amount = Amount::Exactly(janet::janet_getnat(arguments, 1) as usize);
        let buffer = buffer_argument(count, arguments);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        carry_out(start_read(stream, amount, buffer, timeout_s))
    }
}

/// The buffer to read into, and whether it is a new one, which the program does not have.
unsafe fn buffer_argument(count: i32, arguments: *mut Janet) -> (*mut janet::JanetBuffer, bool) {
    // SAFETY: the index is below the count where the argument is looked at.
    unsafe {
        let own = count < 3 || janet::janet_checktype(*arguments.add(2), janet::JanetType_JANET_NIL) != 0;
        (janet::janet_optbuffer(arguments, count, 2, 10), own)
    }
}

unsafe fn start_read(
    stream: *mut JanetStream,
    amount: Amount,
    (buffer, own_buffer): (*mut janet::JanetBuffer, bool),
    timeout_s: f64,
) -> Verdict {
    let bridge = match bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let Socket::Stream(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected readable stream"));
    };
    let work = Work::Read { machine: Read::new(core, amount), buffer, own_buffer };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, timeout_s) }
}

unsafe extern "C-unwind" fn net_read(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { read(count, arguments, stock().read, flags) }
}

unsafe extern "C-unwind" fn ev_read(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { read(count, arguments, stock().ev_read, janet::JANET_STREAM_READABLE) }
}

unsafe extern "C-unwind" fn net_chunk(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { chunk(count, arguments, stock().chunk, flags) }
}

unsafe extern "C-unwind" fn ev_chunk(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { chunk(count, arguments, stock().ev_chunk, janet::JANET_STREAM_READABLE) }
}

unsafe fn write(count: i32, arguments: *mut Janet, stock: Function, flags: u32) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 2, 3);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock(count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let timeout_s = janet::janet_optnumber(arguments, count, 2, f64::INFINITY);
        // Raises for values without bytes, so that nothing raises later.
        janet::janet_getbytes(arguments, 1);
        carry_out(start_write(stream, *arguments.add(1), timeout_s))
    }
}

unsafe fn start_write(stream: *mut JanetStream, data: Janet, timeout_s: f64) -> Verdict {
    let bridge = match bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let Socket::Stream(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected writable stream"));
    };
    let work = Work::Write { machine: Write::new(core), data };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, timeout_s) }
}

unsafe extern "C-unwind" fn net_write(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_WRITABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { write(count, arguments, stock().write, flags) }
}

unsafe extern "C-unwind" fn ev_write(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { write(count, arguments, stock().ev_write, janet::JANET_STREAM_WRITABLE) }
}

unsafe extern "C-unwind" fn ev_close(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return (stock().ev_close)(count, arguments);
        }
        if (*stream).flags & janet::JANET_STREAM_CLOSED == 0
            && let Err(verdict) = bridge().map(|bridge| bridge.close(stream))
        {
            return carry_out(verdict);
        }
        *arguments
    }
}

unsafe extern "C-unwind" fn net_accept(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 1, 2);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return (stock().accept)(count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_ACCEPTABLE | janet::JANET_STREAM_SOCKET);
        let timeout_s = janet::janet_optnumber(arguments, count, 1, f64::INFINITY);
        carry_out(start_accept(stream, timeout_s, |machine| Work::Accept { machine }))
    }
}

unsafe extern "C-unwind" fn net_accept_loop(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`. A function has a definition for as long as it lives.
    unsafe {
        janet::janet_fixarity(count, 2);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return (stock().accept_loop)(count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_ACCEPTABLE | janet::JANET_STREAM_SOCKET);
        let handler = janet::janet_getfunction(arguments, 1);
        if (*(*handler).def).min_arity < 1 {
            return carry_out(Verdict::Raise(string("handler function must take at least 1 argument")));
        }
        let work = |machine| Work::AcceptLoop { machine, handler };
        carry_out(start_accept(stream, f64::INFINITY, work))
    }
}

unsafe fn start_accept(
    stream: *mut JanetStream,
    timeout_s: f64,
    work: impl FnOnce(Accept) -> Work,
) -> Verdict {
    let bridge = match bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let Socket::Listener(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected server socket"));
    };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work(Accept::new(core)), timeout_s) }
}

/// Whether the arguments ask for what the ring does not serve yet: Unix sockets and datagrams.
unsafe fn is_left_to_stock(count: i32, arguments: *mut Janet, type_index: i32) -> bool {
    // SAFETY: the caller has checked that there are two arguments at least. Raises as the VM's own
    // would for a type that is not a keyword.
    unsafe {
        let kind = janet::janet_optkeyword(arguments, count, type_index, std::ptr::null());
        let stream = kind.is_null() || janet::janet_cstrcmp(kind, c"stream".as_ptr()) == 0;
        !stream || janet::janet_keyeq(*arguments, c"unix".as_ptr()) != 0
    }
}

/// The port argument as text; null for none.
unsafe fn port_argument(count: i32, arguments: *mut Janet, index: i32) -> *const c_char {
    // SAFETY: the caller has checked that the argument is there, or that it is optional. An integer's
    // text is terminated like every Janet string.
    unsafe {
        if index < count && janet::janet_checkint(*arguments.add(index as usize)) != 0 {
            return janet::janet_to_string(*arguments.add(index as usize)).cast();
        }
        janet::janet_optcstring(arguments, count, index, std::ptr::null())
    }
}

/// What `getaddrinfo` finds for Janet's host and port, or its error in the VM's words.
unsafe fn addresses(
    host: *const c_char,
    port: *const c_char,
    passive: bool,
    failure: &str,
) -> Result<Vec<Address>, Verdict> {
    // SAFETY: terminated strings of arguments that are alive, or null.
    let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let port = (!port.is_null()).then(|| text(port));
    resolve(&text(host), port.as_deref(), passive)
        .map_err(|error| Verdict::Raise(string(&format!("{failure}: {error}"))))
}

unsafe extern "C-unwind" fn net_listen(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_LISTEN);
        janet::janet_arity(count, 2, 4);
        if is_left_to_stock(count, arguments, 2) {
            return (stock().listen)(count, arguments);
        }
        let host = janet::janet_getcstring(arguments, 0);
        let port = port_argument(count, arguments, 1);
        let reuse = !(count >= 4 && janet::janet_truthy(*arguments.add(3)) != 0);
        carry_out(listen(host, port, reuse))
    }
}

unsafe fn listen(host: *const c_char, port: *const c_char, reuse: bool) -> Verdict {
    let listening = || -> Result<Verdict, Verdict> {
        // SAFETY: the shim's own arguments.
        let addresses = unsafe { addresses(host, port, true, "could not get address info") }?;
        let bridge = bridge()?;
        let descriptor = listen_on(&addresses, reuse)
            .map_err(|_| Verdict::Raise(string("could not bind to any sockets")))?;
        let core = ListenerCore::new(bridge.event_loop().clone(), descriptor);
        let stream = bridge.adopt(Socket::Listener(core), janet::JANET_STREAM_ACCEPTABLE);
        // SAFETY: a stream that was just made.
        Ok(Verdict::Return(unsafe { janet::janet_wrap_abstract(stream.cast()) }))
    };
    listening().unwrap_or_else(|verdict| verdict)
}

unsafe extern "C-unwind" fn net_connect(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_CONNECT);
        janet::janet_arity(count, 2, 5);
        if is_left_to_stock(count, arguments, 2) {
            return (stock().connect)(count, arguments);
        }
        let bind_host = janet::janet_optcstring(arguments, count, 3, std::ptr::null());
        let bind_port = port_argument(count, arguments, 4);
        let host = janet::janet_getcstring(arguments, 0);
        let port = port_argument(count, arguments, 1);
        carry_out(connect((host, port), (bind_host, bind_port)))
    }
}

type HostAndPort = (*const c_char, *const c_char);

unsafe fn connect((host, port): HostAndPort, (bind_host, bind_port): HostAndPort) -> Verdict {
    let connecting = || -> Result<Verdict, Verdict> {
        // SAFETY: the shim's own arguments.
        let targets = unsafe { addresses(host, port, false, "could not get address info") }?;
        let sources = if bind_host.is_null() {
            Vec::new()
        } else {
            let failure = "could not get address info for bindhost";
            // SAFETY: the shim's own arguments.
            unsafe { addresses(bind_host, bind_port, false, failure) }?
        };
        let bridge = bridge()?;
        let machine = Connect::new(bridge.event_loop().clone(), targets, sources);
        // SAFETY: called by a shim; there is no stream yet.
        Ok(unsafe { start(&bridge, std::ptr::null_mut(), Work::Connect { machine }, f64::INFINITY) })
    };
    connecting().unwrap_or_else(|verdict| verdict)
}

/// `(ringspun/backend)`: which backend serves this thread's sockets, as a keyword.
pub(crate) unsafe extern "C-unwind" fn backend(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 0);
        let verdict = match bridge() {
            Ok(bridge) => Verdict::Return(keyword(bridge.event_loop().backend_name())),
            Err(verdict) => verdict,
        };
        carry_out(verdict)
    }
}

/// `(ringspun/backend)` where the VM's own net code is in place.
pub(crate) unsafe extern "C-unwind" fn stock_backend(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 0);
    }
    keyword("stock")
}

fn keyword(name: &str) -> Janet {
    let Ok(length) = i32::try_from(name.len()) else { return nil() };
    // SAFETY: copies `length` bytes, all of which are in `name`.
    unsafe { janet::janet_wrap_keyword(janet::janet_symbol(name.as_ptr(), length)) }
}
