//! The functions that replace the VM's own, and a new one.

use crate::api as janet;
use crate::api::Janet;
use crate::making::{NET_ADDRESS, NET_ADDRESS_UNPACK, NET_CONNECT, NET_LISTEN, NET_SETSOCKOPT, NET_SOCKET};
use crate::processes::{OS_EXECUTE, OS_SPAWN};
use crate::shims::{carry_out, this_bridge};
use crate::stock::{Replacement, replacement};
use crate::streams::{
    EV_CHUNK, EV_CLOSE, EV_READ, EV_WRITE, NET_ACCEPT, NET_ACCEPT_LOOP, NET_CHUNK, NET_FLUSH, NET_READ,
    NET_RECV_FROM, NET_SEND_TO, NET_SHUTDOWN, NET_WRITE,
};
use crate::values::{Verdict, keyword};

/// The functions that are replaced in the core environment.
pub(crate) const REPLACEMENTS: [Replacement; 21] = [
    NET_ADDRESS,
    NET_ADDRESS_UNPACK,
    NET_LISTEN,
    NET_CONNECT,
    NET_SOCKET,
    NET_ACCEPT,
    NET_ACCEPT_LOOP,
    NET_READ,
    NET_CHUNK,
    NET_WRITE,
    NET_RECV_FROM,
    NET_SEND_TO,
    NET_FLUSH,
    NET_SHUTDOWN,
    NET_SETSOCKOPT,
    EV_READ,
    EV_CHUNK,
    EV_WRITE,
    EV_CLOSE,
    OS_SPAWN,
    OS_EXECUTE,
];

/// `(ringspun/backend)`: the backend of this thread's sockets, as a keyword.
pub(crate) const BACKEND: Replacement = replacement!(c"ringspun/backend", backend);

unsafe extern "C-unwind" fn backend(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 0);
        carry_out(|| match this_bridge() {
            Ok(bridge) => Verdict::Return(keyword(bridge.event_loop().backend_name())),
            Err(verdict) => verdict,
        })
    }
}

/// `(ringspun/backend)` where the VM's own net code is in place.
pub(crate) const STOCK_BACKEND: Replacement = replacement!(c"ringspun/backend", stock_backend);

unsafe extern "C-unwind" fn stock_backend(count: i32, _: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `read`.
    unsafe {
        janet::janet_fixarity(count, 0);
    }
    keyword("stock")
}
