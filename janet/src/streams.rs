//! The functions and methods that programs call on sockets. They read their arguments as the VM's own do, so that
//! errors have the same texts. Streams that are not ours (pipes, files) go to the VM's own function.

use std::ffi::{CStr, c_int};
use std::net::Shutdown;
use std::rc::Rc;

use ringspun_net::Address;
use ringspun_net::machine::{Accept, Amount, Read, ReceiveFrom, SendTo, Sent, Write};

use crate::api as janet;
use crate::api::{Janet, JanetBuffer, JanetStream};
use crate::bridge::Bridge;
use crate::parked::start;
use crate::secured::{ServerConfig, machine as tls};
use crate::shims::{carry_out, is_ours, stream_argument, this_bridge};
use crate::socket::{ELSEWHERE, Socket};
use crate::stock::{self, Replacement, replacement};
use crate::values::{Verdict, address_argument, bytes_of, explained, keyword_is, nil, string};
use crate::work::{Target, Work, sent_error, with_bytes};

/// The largest message with TLS that may stay in the process until its stream is read.
const SMALL_MAX_BYTES: usize = 4 * 1024;

/// `read`: the number may be `:all`; the buffer is checked before it.
unsafe fn read(count: i32, arguments: *mut Janet, name: &'static CStr, flags: u32) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever
    // the VM may raise.
    unsafe {
        janet::janet_arity(count, 2, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(name, count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let target = buffer_argument(count, arguments);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        let amount = if janet::janet_keyeq(*arguments.add(1), c"all".as_ptr()) != 0 {
            Amount::Exactly(i32::MAX as usize)
        } else {
            Amount::UpTo(janet::janet_getnat(arguments, 1) as usize)
        };
        carry_out(|| start_read(stream, amount, target, timeout_s))
    }
}

/// `chunk`: the number is checked before the buffer.
unsafe fn chunk(count: i32, arguments: *mut Janet, name: &'static CStr, flags: u32) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 2, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(name, count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let amount = Amount::Exactly(janet::janet_getnat(arguments, 1) as usize);
        let target = buffer_argument(count, arguments);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        carry_out(|| start_read(stream, amount, target, timeout_s))
    }
}

/// The buffer to read into, and whether it is a new one, which the program does not have.
unsafe fn buffer_argument(count: i32, arguments: *mut Janet) -> Target {
    // SAFETY: the index is below the count where the argument is looked at.
    unsafe {
        let is_own = count < 3 || janet::janet_checktype(*arguments.add(2), janet::JANET_NIL) != 0;
        Target { buffer: janet::janet_optbuffer(arguments, count, 2, 10), is_own }
    }
}

unsafe fn start_read(stream: *mut JanetStream, amount: Amount, target: Target, timeout_s: f64) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let work = match bridge.socket_of(stream) {
        Socket::Stream(core) => Work::Read { machine: Read::new(core, amount), target },
        Socket::Datagram(core) => {
            let machine = Box::new(ReceiveFrom::new(core, amount));
            Work::ReceiveFrom { machine, target, tells_source: false }
        }
        Socket::Tls(core) => {
            let machine = Box::new(tls::Read::new(core, amount));
            Work::TlsRead { machine, target }
        }
        Socket::Listener(..) => return Verdict::Raise(string("bad stream, expected readable stream")),
        Socket::Elsewhere(_) => return Verdict::Raise(string(ELSEWHERE)),
    };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, timeout_s) }
}

/// How C code reads, if not just some; the same numbers as in `c/vm.c`.
const ALL: c_int = 1;
const FROM: c_int = 2;

/// C code reads from a stream: gives the running fiber what was received and that nobody has read, and then returns
/// true: the fiber has to wait. Raises nothing.
///
/// # Safety
///
/// Called by the VM for a function of a native module, with live values.
pub(crate) unsafe fn read_received(
    stream: *mut JanetStream,
    buffer: *mut JanetBuffer,
    count: i32,
    how: c_int,
) -> bool {
    if !Bridge::get_or_make().is_ok_and(|bridge| bridge.has_received(stream)) {
        return false;
    }
    let (limit, target) = (count.max(0) as usize, Target { buffer, is_own: false });
    // SAFETY: as the caller says.
    let verdict = unsafe {
        match how {
            // Streams do not have it: the VM's own reads on.
            FROM if (*stream).flags & janet::JANET_STREAM_UDPSERVER == 0 => return false,
            FROM => start_receive(stream, limit, target, f64::INFINITY),
            ALL => start_read(stream, Amount::Exactly(limit), target, f64::INFINITY),
            _ => start_read(stream, Amount::UpTo(limit), target, f64::INFINITY),
        }
    };
    matches!(verdict, Verdict::Await)
}

pub(crate) const NET_READ: Replacement = replacement!(c"net/read", net_read);

unsafe extern "C-unwind" fn net_read(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { read(count, arguments, c"net/read", flags) }
}

pub(crate) const EV_READ: Replacement = replacement!(c"ev/read", ev_read);

unsafe extern "C-unwind" fn ev_read(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { read(count, arguments, c"ev/read", janet::JANET_STREAM_READABLE) }
}

pub(crate) const NET_CHUNK: Replacement = replacement!(c"net/chunk", net_chunk);

unsafe extern "C-unwind" fn net_chunk(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { chunk(count, arguments, c"net/chunk", flags) }
}

pub(crate) const EV_CHUNK: Replacement = replacement!(c"ev/chunk", ev_chunk);

unsafe extern "C-unwind" fn ev_chunk(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { chunk(count, arguments, c"ev/chunk", janet::JANET_STREAM_READABLE) }
}

unsafe fn write(count: i32, arguments: *mut Janet, name: &'static CStr, flags: u32) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 2, 3);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(name, count, arguments);
        }
        janet::janet_stream_flags(stream, flags);
        let timeout_s = janet::janet_optnumber(arguments, count, 2, f64::INFINITY);
        if bytes_of(*arguments.add(1)).is_none() {
            // Raises for values without bytes, so that nothing raises later.
            janet::janet_getbytes(arguments, 1);
        }
        carry_out(|| start_write(stream, *arguments.add(1), timeout_s))
    }
}

/// Sends immediately if that needs no wait; the fiber then continues without a yield.
unsafe fn start_write(stream: *mut JanetStream, data: Janet, timeout_s: f64) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let work = match bridge.socket_of(stream) {
        Socket::Stream(core) => match with_bytes(data, |bytes| core.try_send(bytes, core.is_conversing())) {
            Ok(Sent::All) => return Verdict::Return(nil()),
            Ok(Sent::Part(written)) => Work::Write { machine: Write::after(core, written), data },
            Err(error) => return Verdict::Raise(sent_error(&error, core.is_closed())),
        },
        Socket::Datagram(core) => match with_bytes(data, |bytes| core.try_send_to(bytes, None)) {
            Ok(true) => return Verdict::Return(nil()),
            Ok(false) => Work::SendTo { machine: Box::new(SendTo::new(core, None)), data },
            Err(error) => return Verdict::Raise(sent_error(&error, core.is_closed())),
        },
        Socket::Tls(core) => match with_bytes(data, |bytes| core.try_write(bytes)) {
            Ok(written) if is_written(&core, data, written) => return Verdict::Return(nil()),
            Ok(written) => Work::TlsWrite { machine: Box::new(tls::Write::after(core, written)), data },
            Err(error) => return Verdict::Raise(sent_error(&error, core.stream().is_closed())),
        },
        Socket::Listener(..) => return Verdict::Raise(string("bad stream, expected writable stream")),
        Socket::Elsewhere(_) => return Verdict::Raise(string(ELSEWHERE)),
    };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, timeout_s) }
}

/// Whether a write is over once so many of its bytes have been encrypted: when the kernel has them or, for a small
/// one, when the next read sends them.
fn is_written(core: &tls::TlsCore, data: Janet, written: usize) -> bool {
    let stream = core.stream();
    let is_small = written <= SMALL_MAX_BYTES && stream.is_conversing();
    written == with_bytes(data, <[u8]>::len) && (is_small || stream.is_free_to_send())
}

pub(crate) const NET_WRITE: Replacement = replacement!(c"net/write", net_write);

unsafe extern "C-unwind" fn net_write(count: i32, arguments: *mut Janet) -> Janet {
    let flags = janet::JANET_STREAM_WRITABLE | janet::JANET_STREAM_SOCKET;
    // SAFETY: the VM's own arguments.
    unsafe { write(count, arguments, c"net/write", flags) }
}

pub(crate) const EV_WRITE: Replacement = replacement!(c"ev/write", ev_write);

unsafe extern "C-unwind" fn ev_write(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: the VM's own arguments.
    unsafe { write(count, arguments, c"ev/write", janet::JANET_STREAM_WRITABLE) }
}

pub(crate) const EV_CLOSE: Replacement = replacement!(c"ev/close", ev_close);

unsafe extern "C-unwind" fn ev_close(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"ev/close", count, arguments);
        }
        if (*stream).flags & janet::JANET_STREAM_CLOSED != 0 {
            return *arguments;
        }
        // C code may raise an error.
        janet::ringspun_vm_end_waits(stream);
        if (*stream).flags & janet::JANET_STREAM_CLOSED != 0 {
            return *arguments;
        }
        carry_out(|| match this_bridge().map(|bridge| bridge.close(stream)) {
            Ok(()) => Verdict::Return(*arguments),
            Err(verdict) => verdict,
        })
    }
}

pub(crate) const NET_ACCEPT: Replacement = replacement!(c"net/accept", net_accept);

unsafe extern "C-unwind" fn net_accept(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 1, 2);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"net/accept", count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_ACCEPTABLE | janet::JANET_STREAM_SOCKET);
        let timeout_s = janet::janet_optnumber(arguments, count, 1, f64::INFINITY);
        carry_out(|| start_accept(stream, timeout_s, |machine, tls| Work::Accept { machine, tls }))
    }
}

pub(crate) const NET_ACCEPT_LOOP: Replacement = replacement!(c"net/accept-loop", net_accept_loop);

unsafe extern "C-unwind" fn net_accept_loop(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`. A function has a definition for as long as it lives.
    unsafe {
        janet::janet_fixarity(count, 2);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"net/accept-loop", count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_ACCEPTABLE | janet::JANET_STREAM_SOCKET);
        let handler = janet::janet_getfunction(arguments, 1);
        if (*(*handler).def).min_arity < 1 {
            return carry_out(|| Verdict::Raise(string("handler function must take at least 1 argument")));
        }
        let work = |machine, tls| Work::AcceptLoop { machine, handler, tls };
        carry_out(|| start_accept(stream, f64::INFINITY, work))
    }
}

unsafe fn start_accept(
    stream: *mut JanetStream,
    timeout_s: f64,
    work: impl FnOnce(Accept, Option<Rc<ServerConfig>>) -> Work,
) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let (core, tls) = match bridge.socket_of(stream) {
        Socket::Listener(core, tls) => (core, tls),
        Socket::Elsewhere(_) => return Verdict::Raise(string(ELSEWHERE)),
        _ => return Verdict::Raise(string("bad stream, expected server socket")),
    };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work(Accept::new(core), tls), timeout_s) }
}

pub(crate) const NET_RECV_FROM: Replacement = replacement!(c"net/recv-from", net_recv_from);

unsafe extern "C-unwind" fn net_recv_from(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 3, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"net/recv-from", count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_UDPSERVER | janet::JANET_STREAM_SOCKET);
        let limit = janet::janet_getnat(arguments, 1) as usize;
        let buffer = janet::janet_getbuffer(arguments, 2);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        carry_out(|| start_receive(stream, limit, Target { buffer, is_own: false }, timeout_s))
    }
}

unsafe fn start_receive(stream: *mut JanetStream, limit: usize, target: Target, timeout_s: f64) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let Socket::Datagram(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected datagram server"));
    };
    let machine = Box::new(ReceiveFrom::new(core, Amount::UpTo(limit)));
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, Work::ReceiveFrom { machine, target, tells_source: true }, timeout_s) }
}

pub(crate) const NET_SEND_TO: Replacement = replacement!(c"net/send-to", net_send_to);

unsafe extern "C-unwind" fn net_send_to(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 3, 4);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"net/send-to", count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_UDPSERVER | janet::JANET_STREAM_SOCKET);
        let destination = address_argument(arguments, 1);
        let timeout_s = janet::janet_optnumber(arguments, count, 3, f64::INFINITY);
        // Raises for values without bytes, so that nothing raises later.
        janet::janet_getbytes(arguments, 2);
        carry_out(|| start_send(stream, destination, *arguments.add(2), timeout_s))
    }
}

unsafe fn start_send(stream: *mut JanetStream, to: Address, data: Janet, timeout_s: f64) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let Socket::Datagram(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected datagram server"));
    };
    match with_bytes(data, |bytes| core.try_send_to(bytes, Some(to))) {
        Ok(true) => return Verdict::Return(nil()),
        Ok(false) => {}
        Err(error) => return Verdict::Raise(sent_error(&error, core.is_closed())),
    }
    let work = Work::SendTo { machine: Box::new(SendTo::new(core, Some(to))), data };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, timeout_s) }
}

pub(crate) const NET_FLUSH: Replacement = replacement!(c"net/flush", net_flush);

unsafe extern "C-unwind" fn net_flush(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let stream = stream_argument(arguments);
        if !is_ours(stream) {
            return stock::call(c"net/flush", count, arguments);
        }
        janet::janet_stream_flags(stream, janet::JANET_STREAM_WRITABLE | janet::JANET_STREAM_SOCKET);
        carry_out(|| flush(stream, *arguments))
    }
}

unsafe fn flush(stream: *mut JanetStream, value: Janet) -> Verdict {
    match this_bridge().map(|bridge| bridge.socket_of(stream)) {
        Ok(Socket::Stream(core)) => {
            // On a socket that is not TCP nothing is held back; the VM's own ignores the error, too.
            let _ = core.flush();
            Verdict::Return(value)
        }
        Ok(Socket::Tls(core)) => {
            let _ = core.stream().flush();
            Verdict::Return(value)
        }
        Ok(_) => Verdict::Return(value),
        Err(verdict) => verdict,
    }
}

pub(crate) const NET_SHUTDOWN: Replacement = replacement!(c"net/shutdown", net_shutdown);

unsafe extern "C-unwind" fn net_shutdown(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_arity(count, 1, 2);
        let stream = stream_argument(arguments);
        janet::janet_stream_flags(stream, janet::JANET_STREAM_SOCKET);
        let is = |mode| keyword_is(*arguments.add(1), mode);
        let how = match count {
            1 => Some(Shutdown::Both),
            _ if is(c"rw") => Some(Shutdown::Both),
            _ if is(c"r") => Some(Shutdown::Read),
            _ if is(c"w") => Some(Shutdown::Write),
            _ => None,
        };
        match how {
            // What a write has left behind is sent before.
            Some(how) if is_ours(stream) => carry_out(|| shut_down(stream, how, *arguments)),
            _ => stock::call(c"net/shutdown", count, arguments),
        }
    }
}

unsafe fn shut_down(stream: *mut JanetStream, how: Shutdown, value: Janet) -> Verdict {
    let socket = match this_bridge() {
        Ok(bridge) => bridge.socket_of(stream),
        Err(verdict) => return verdict,
    };
    match socket.shutdown(how) {
        Ok(()) => Verdict::Return(value),
        Err(error) => Verdict::Raise(explained("could not shutdown socket", &error)),
    }
}
