//! The functions that take the place of the VM's own, and the one that is new.

use std::ffi::CStr;

use crate::api as janet;
use crate::api::Janet;
use crate::making::{net_address, net_address_unpack, net_connect, net_listen, net_setsockopt, net_socket};
use crate::processes::{os_execute, os_spawn};
use crate::shims::{carry_out, this_bridge};
use crate::stock::Function;
use crate::streams::{
    ev_chunk, ev_close, ev_read, ev_write, net_accept, net_accept_loop, net_chunk, net_flush, net_read,
    net_recv_from, net_send_to, net_write,
};
use crate::values::{Verdict, keyword};

/// The functions that are replaced in the core environment.
pub(crate) const REPLACEMENTS: [(&CStr, Function); 20] = [
    (c"net/address", net_address),
    (c"net/address-unpack", net_address_unpack),
    (c"net/listen", net_listen),
    (c"net/connect", net_connect),
    (c"net/socket", net_socket),
    (c"net/accept", net_accept),
    (c"net/accept-loop", net_accept_loop),
    (c"net/read", net_read),
    (c"net/chunk", net_chunk),
    (c"net/write", net_write),
    (c"net/recv-from", net_recv_from),
    (c"net/send-to", net_send_to),
    (c"net/flush", net_flush),
    (c"net/setsockopt", net_setsockopt),
    (c"ev/read", ev_read),
    (c"ev/chunk", ev_chunk),
    (c"ev/write", ev_write),
    (c"ev/close", ev_close),
    (c"os/spawn", os_spawn),
    (c"os/execute", os_execute),
];

/// `(ringspun/backend)`: which backend serves this thread's sockets, as a keyword.
pub(crate) unsafe extern "C-unwind" fn backend(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 0);
        let verdict = match this_bridge() {
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
