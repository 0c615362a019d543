//! Making sockets for Janet: `net/listen`, `net/connect`, `net/socket`, `net/address`, and options.
//!
//! The fiber parks during the lookup of a name on another thread; everything else is immediate, as in the VM's own
//! functions, and so is a lookup in a fiber that cannot wait, because C code has called the function.

use std::ffi::{CStr, OsStr, c_char};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use ringspun_net::machine::{DatagramCore, Query, Resolve, SocketKind, StreamCore, unbound_socket};
use ringspun_net::{Address, SocketOption};

use crate::api as janet;
use crate::api::Janet;
use crate::parked::start_or_return;
use crate::resolving::Purpose;
use crate::shims::{carry_out, this_bridge};
use crate::socket::Socket;
use crate::stock::{self, Replacement, replacement};
use crate::values::{Verdict, address_argument, error_text, explained, keyword_is, nil, string, strings};
use crate::work::Work;

const DATAGRAM: u32 = janet::JANET_STREAM_UDPSERVER;
const READABLE: u32 = janet::JANET_STREAM_READABLE;
const WRITABLE: u32 = janet::JANET_STREAM_WRITABLE;

/// Which kind of socket a program asks for; `None` for a keyword that is neither.
unsafe fn kind_argument(count: i32, arguments: *mut Janet, index: i32) -> Option<SocketKind> {
    // SAFETY: called by a shim with the VM's own arguments. Raises as the VM's own would for a type that is
    // not a keyword.
    unsafe {
        let kind = janet::janet_optkeyword(arguments, count, index, std::ptr::null());
        if kind.is_null() || janet::janet_cstrcmp(kind, c"stream".as_ptr()) == 0 {
            return Some(SocketKind::Stream);
        }
        (janet::janet_cstrcmp(kind, c"datagram".as_ptr()) == 0).then_some(SocketKind::Datagram)
    }
}

/// An endpoint as a program names it. Plain data, as everything that a shim holds.
#[derive(Clone, Copy)]
struct Place {
    is_unix: bool,
    host: *const c_char,
    /// Null for none.
    service: *const c_char,
}

unsafe fn place_arguments(count: i32, arguments: *mut Janet) -> Place {
    // SAFETY: called by a shim that has checked that there are two arguments.
    unsafe {
        if janet::janet_keyeq(*arguments, c"unix".as_ptr()) != 0 {
            let service = janet::janet_getcstring(arguments, 1);
            return Place { is_unix: true, host: std::ptr::null(), service };
        }
        let host = janet::janet_getcstring(arguments, 0);
        Place { is_unix: false, host, service: service_argument(count, arguments, 1) }
    }
}

/// A port argument as text; null for none.
unsafe fn service_argument(count: i32, arguments: *mut Janet, index: i32) -> *const c_char {
    // SAFETY: called by a shim with the VM's own arguments. An integer's text is terminated like every
    // Janet string.
    unsafe {
        if index < count && janet::janet_checkint(*arguments.add(index as usize)) != 0 {
            return janet::janet_to_string(*arguments.add(index as usize)).cast();
        }
        janet::janet_optcstring(arguments, count, index, std::ptr::null())
    }
}

/// The text behind a pointer of a [`Place`].
///
/// # Safety
///
/// Null, or a terminated string that is alive for as long as the result.
unsafe fn text_at<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: as the caller says.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

unsafe fn query(place: Place, kind: SocketKind, passive: bool) -> Query {
    // SAFETY: the texts are those of arguments, which are alive while the function runs.
    let text = |text| unsafe { text_at(text) }.map(|text| text.to_string_lossy().into_owned());
    Query { host: text(place.host), service: text(place.service), kind, passive }
}

/// Looks up the addresses of an endpoint, and continues with them.
unsafe fn resolve(place: Place, kind: SocketKind, passive: bool, purpose: Purpose) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    let machine = if place.is_unix {
        // SAFETY: the text is that of an argument.
        let name = unsafe { text_at(place.service) }.unwrap_or_default();
        match Address::unix(OsStr::from_bytes(name.to_bytes())) {
            Ok(address) => Resolve::known(address),
            Err(error) => return Verdict::Raise(string(&error_text(&error))),
        }
    } else {
        // SAFETY: as above.
        let query = unsafe { query(place, kind, passive) };
        // SAFETY: only looks at the VM of this thread, which calls us.
        match unsafe { janet::ringspun_vm_can_wait() } {
            0 => {
                // As in the VM's own functions.
                bridge.flush();
                Resolve::blocking(&query)
            }
            _ => Resolve::new(bridge.event_loop(), query),
        }
    };
    // SAFETY: called by a shim.
    unsafe { start_or_return(&bridge, Work::Resolve { machine, purpose: Box::new(purpose) }) }
}

pub(crate) const NET_ADDRESS: Replacement = replacement!(c"net/address", net_address);

unsafe extern "C-unwind" fn net_address(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM
    // may raise.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_CONNECT);
        janet::janet_arity(count, 2, 4);
        let Some(kind) = kind_argument(count, arguments, 2) else {
            return stock::call(c"net/address", count, arguments);
        };
        let all = count >= 4 && janet::janet_truthy(*arguments.add(3)) != 0;
        let place = place_arguments(count, arguments);
        carry_out(|| resolve(place, kind, false, Purpose::Address { all }))
    }
}

pub(crate) const NET_ADDRESS_UNPACK: Replacement = replacement!(c"net/address-unpack", net_address_unpack);

unsafe extern "C-unwind" fn net_address_unpack(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `net_address`.
    unsafe {
        janet::janet_fixarity(count, 1);
        match unpack_unix(&address_argument(arguments, 0)) {
            Some(name) => name,
            None => stock::call(c"net/address-unpack", count, arguments),
        }
    }
}

/// The name of a Unix socket, in a tuple. The VM's own code reads beyond the end of a short one.
fn unpack_unix(address: &Address) -> Option<Janet> {
    if !address.is_unix() {
        return None;
    }
    // Shown as `unix:NAME`; without a name, the VM's own shows that of an empty abstract one.
    let shown = address.to_string();
    let name = shown.strip_prefix("unix:").unwrap_or_default();
    Some(strings(&[if name.is_empty() { "@" } else { name }]))
}

pub(crate) const NET_LISTEN: Replacement = replacement!(c"net/listen", net_listen);

unsafe extern "C-unwind" fn net_listen(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `net_address`.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_LISTEN);
        janet::janet_arity(count, 2, 4);
        let Some(kind) = kind_argument(count, arguments, 2) else {
            return stock::call(c"net/listen", count, arguments);
        };
        let place = place_arguments(count, arguments);
        let reuse = !(count >= 4 && janet::janet_truthy(*arguments.add(3)) != 0);
        carry_out(|| resolve(place, kind, true, Purpose::Listen { kind, reuse }))
    }
}

pub(crate) const NET_CONNECT: Replacement = replacement!(c"net/connect", net_connect);

unsafe extern "C-unwind" fn net_connect(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `net_address`.
    unsafe {
        janet::janet_sandbox_assert(janet::JANET_SANDBOX_NET_CONNECT);
        janet::janet_arity(count, 2, 5);
        let Some(kind) = kind_argument(count, arguments, 2) else {
            return stock::call(c"net/connect", count, arguments);
        };
        let source_host = janet::janet_optcstring(arguments, count, 3, std::ptr::null());
        let source_service = service_argument(count, arguments, 4);
        let place = place_arguments(count, arguments);
        let source = Place { is_unix: false, host: source_host, service: source_service };
        carry_out(|| start_connect(place, source, kind))
    }
}

unsafe fn start_connect(place: Place, source: Place, kind: SocketKind) -> Verdict {
    if place.is_unix && !source.host.is_null() {
        return Verdict::Raise(string("bindhost not supported for unix domain sockets"));
    }
    // SAFETY: called by a shim with its own arguments.
    unsafe {
        let source = (!source.host.is_null()).then(|| query(source, kind, false));
        resolve(place, kind, false, Purpose::Connect { kind, source })
    }
}

pub(crate) const NET_SOCKET: Replacement = replacement!(c"net/socket", net_socket);

unsafe extern "C-unwind" fn net_socket(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `net_address`.
    unsafe {
        janet::janet_arity(count, 0, 2);
        let kind = kind_argument(count, arguments, 0);
        // Unix sockets are refused by the VM's own, in its words.
        let (Some(kind), false) = (kind, count > 1 && keyword_is(*arguments.add(1), c"unix")) else {
            return stock::call(c"net/socket", count, arguments);
        };
        let is_family = |name| count > 1 && keyword_is(*arguments.add(1), name);
        carry_out(|| unbound(kind, is_family(c"ipv4"), is_family(c"ipv6")))
    }
}

fn unbound(kind: SocketKind, ipv4: bool, ipv6: bool) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    // Asks for no name, so nothing waits: which families there are, in which order.
    let query = Query { host: None, service: None, kind, passive: false };
    let addresses = match query.ask() {
        Ok(addresses) => addresses,
        Err(error) => return Verdict::Raise(string(&format!("could not get address info: {error}"))),
    };
    let fits = |address: &&Address| match address.as_socket_addr() {
        Some(address) => !(ipv4 && address.is_ipv6() || ipv6 && address.is_ipv4()),
        None => false,
    };
    let descriptor = match unbound_socket(addresses.iter().filter(fits), kind) {
        Ok(descriptor) => descriptor,
        Err(error) => return Verdict::Raise(explained("could not create socket", &error)),
    };
    let event_loop = bridge.event_loop().clone();
    let (socket, flags) = match kind {
        SocketKind::Stream => (Socket::Stream(StreamCore::new(event_loop, descriptor)), 0),
        SocketKind::Datagram => (Socket::Datagram(DatagramCore::new(event_loop, descriptor)), DATAGRAM),
    };
    Verdict::Return(bridge.stream_value(socket, flags | READABLE | WRITABLE))
}

/// Options beyond those of the VM's own, by name.
#[derive(Clone, Copy)]
enum Extra {
    Flag(fn(bool) -> SocketOption),
    Number(fn(i32) -> SocketOption),
}

const EXTRA_OPTIONS: [(&CStr, Extra); 4] = [
    (c"tcp-nodelay", Extra::Flag(SocketOption::NoDelay)),
    (c"so-reuseport", Extra::Flag(SocketOption::ReusePort)),
    (c"so-rcvbuf", Extra::Number(SocketOption::ReceiveBufferBytes)),
    (c"so-sndbuf", Extra::Number(SocketOption::SendBufferBytes)),
];

/// What they add to the documentation of `net/setsockopt`.
pub(crate) const EXTRA_OPTIONS_DOC: &str = "\
- :tcp-nodelay boolean\n\
- :so-reuseport boolean\n\
- :so-rcvbuf number of bytes\n\
- :so-sndbuf number of bytes\n";

pub(crate) const NET_SETSOCKOPT: Replacement = replacement!(c"net/setsockopt", net_setsockopt);

unsafe extern "C-unwind" fn net_setsockopt(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `net_address`.
    unsafe {
        janet::janet_arity(count, 3, 3);
        let stream: *mut janet::JanetStream =
            janet::janet_getabstract(arguments, 0, &raw const janet::janet_stream_type).cast();
        janet::janet_stream_flags(stream, janet::JANET_STREAM_SOCKET);
        let name = janet::janet_getkeyword(arguments, 1);
        for (known, extra) in EXTRA_OPTIONS {
            if janet::janet_cstrcmp(name, known.as_ptr()) == 0 {
                let option = match extra {
                    Extra::Flag(option) => option(janet::janet_getboolean(arguments, 2) != 0),
                    Extra::Number(option) => option(janet::janet_getinteger(arguments, 2)),
                };
                // The VM has just checked that the stream is open.
                let socket = BorrowedFd::borrow_raw((*stream).handle);
                return carry_out(|| set_option(socket, known, option));
            }
        }
        stock::call(c"net/setsockopt", count, arguments)
    }
}

fn set_option(socket: BorrowedFd, name: &CStr, option: SocketOption) -> Verdict {
    match option.set(socket) {
        Ok(()) => Verdict::Return(nil()),
        Err(error) => {
            let name = name.to_string_lossy();
            Verdict::Raise(string(&format!("setsockopt(:{name}): {}", error_text(&error))))
        }
    }
}
