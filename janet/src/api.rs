//! What this crate uses of the VM's C interface, `janet.h`, by the same names; what it means is documented there.
//!
//! The lists of constants, sizes and places at the end stand in `c/vm.c` as well, where the C compiler checks them
//! against `janet.h`.

use std::ffi::{c_char, c_int, c_void};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("ringspun-janet is for Linux on 64-bit processors");

/// A value, where the VM keeps all of it in the bits of one number.
#[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Janet {
    pub(crate) u64: u64,
    pub(crate) number: f64,
    pub(crate) pointer: *mut c_void,
}

/// A value with its type beside it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "riscv64")))]
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Janet {
    value: *mut c_void,
    kind: JanetType,
}

impl Janet {
    /// As `janet_type`.
    #[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
    #[inline]
    pub(crate) fn kind(self) -> JanetType {
        // SAFETY: any bits are valid for either field.
        let (bits, number) = unsafe { (self.u64, self.number) };
        if number.is_nan() { (bits >> 47) as JanetType & 0xF } else { JANET_NUMBER }
    }

    /// What a value that is a pointer points to.
    #[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
    #[inline]
    pub(crate) fn address<T>(self) -> *mut T {
        const PAYLOAD: usize = (1 << 47) - 1;
        // SAFETY: any bits are valid.
        unsafe { self.pointer }.map_addr(|bits| bits & PAYLOAD).cast()
    }

    /// As `janet_type`.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "riscv64")))]
    #[inline]
    pub(crate) fn kind(self) -> JanetType {
        self.kind
    }

    /// What a value that is a pointer points to.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "riscv64")))]
    #[inline]
    pub(crate) fn address<T>(self) -> *mut T {
        self.value.cast()
    }
}

pub(crate) type JanetType = u32;
pub(crate) type JanetSignal = u32;
pub(crate) type JanetAsyncEvent = u32;
pub(crate) type JanetCFunction = unsafe extern "C-unwind" fn(i32, *mut Janet) -> Janet;
pub(crate) type JanetEVCallback = unsafe extern "C" fn(*mut JanetFiber, JanetAsyncEvent);

pub(crate) const JANET_NUMBER: JanetType = 0;
pub(crate) const JANET_NIL: JanetType = 1;
pub(crate) const JANET_BOOLEAN: JanetType = 2;
pub(crate) const JANET_STRING: JanetType = 4;
pub(crate) const JANET_SYMBOL: JanetType = 5;
pub(crate) const JANET_KEYWORD: JanetType = 6;
pub(crate) const JANET_ARRAY: JanetType = 7;
pub(crate) const JANET_TUPLE: JanetType = 8;
pub(crate) const JANET_TABLE: JanetType = 9;
pub(crate) const JANET_STRUCT: JanetType = 10;
pub(crate) const JANET_BUFFER: JanetType = 11;
pub(crate) const JANET_FUNCTION: JanetType = 12;
pub(crate) const JANET_CFUNCTION: JanetType = 13;
pub(crate) const JANET_ABSTRACT: JanetType = 14;

pub(crate) const JANET_SIGNAL_OK: JanetSignal = 0;
pub(crate) const JANET_SIGNAL_ERROR: JanetSignal = 1;
pub(crate) const JANET_STATUS_DEAD: c_int = 0;
pub(crate) const JANET_ASYNC_EVENT_DEINIT: JanetAsyncEvent = 2;

pub(crate) const JANET_STREAM_CLOSED: u32 = 0x1;
pub(crate) const JANET_STREAM_SOCKET: u32 = 0x2;
pub(crate) const JANET_STREAM_READABLE: u32 = 0x200;
pub(crate) const JANET_STREAM_WRITABLE: u32 = 0x400;
pub(crate) const JANET_STREAM_ACCEPTABLE: u32 = 0x800;
pub(crate) const JANET_STREAM_UDPSERVER: u32 = 0x1000;
pub(crate) const JANET_STREAM_NOT_CLOSEABLE: u32 = 0x2000;

pub(crate) const JANET_BUFFER_FLAG_NO_REALLOC: i32 = 0x10000;
pub(crate) const JANET_SANDBOX_NET_CONNECT: u32 = 4;
pub(crate) const JANET_SANDBOX_NET_LISTEN: u32 = 8;

/// Of the VM's own `fiber.h`: the fiber's `ev_state` belongs to an operation of the kernel. Without it, a VM that
/// ends frees `ev_state`.
pub(crate) const JANET_FIBER_EV_FLAG_IN_FLIGHT: i32 = 0x1;

/// Likewise: the loop counts the fiber among those that will be resumed.
pub(crate) const JANET_FIBER_EV_FLAG_SUSPENDED: i32 = 0x20000;

#[repr(C)]
pub(crate) struct JanetGCObject {
    pub(crate) flags: i32,
    data: *mut c_void,
}

#[repr(C)]
pub(crate) struct JanetStream {
    pub(crate) handle: c_int,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) read_fiber: *mut JanetFiber,
    pub(crate) write_fiber: *mut JanetFiber,
    pub(crate) methods: *const c_void,
}

#[repr(C)]
pub(crate) struct JanetFiber {
    pub(crate) gc: JanetGCObject,
    pub(crate) flags: i32,
    stack: [i32; 5],
    pub(crate) env: *mut JanetTable,
    data: *mut Janet,
    pub(crate) child: *mut JanetFiber,
    pub(crate) last_value: Janet,
    pub(crate) sched_id: u32,
    pub(crate) ev_callback: Option<JanetEVCallback>,
    pub(crate) ev_stream: *mut JanetStream,
    pub(crate) ev_state: *mut c_void,
    pub(crate) supervisor_channel: *mut c_void,
}

#[repr(C)]
pub(crate) struct JanetArray {
    gc: JanetGCObject,
    pub(crate) count: i32,
    capacity: i32,
    pub(crate) data: *mut Janet,
}

#[repr(C)]
pub(crate) struct JanetBuffer {
    pub(crate) gc: JanetGCObject,
    pub(crate) count: i32,
    pub(crate) capacity: i32,
    pub(crate) data: *mut u8,
}

#[repr(C)]
pub(crate) struct JanetTable {
    gc: JanetGCObject,
    count: i32,
    pub(crate) capacity: i32,
    deleted: i32,
    pub(crate) data: *mut JanetKV,
    pub(crate) proto: *mut JanetTable,
}

#[repr(C)]
pub(crate) struct JanetKV {
    pub(crate) key: Janet,
    value: Janet,
}

#[repr(C)]
pub(crate) struct JanetTupleHead {
    gc: JanetGCObject,
    pub(crate) length: i32,
}

/// What lies in front of the bytes of a string, a symbol or a keyword.
#[repr(C)]
pub(crate) struct JanetStringHead {
    gc: JanetGCObject,
    pub(crate) length: i32,
    hash: i32,
    data: [u8; 0],
}

#[repr(C)]
pub(crate) struct JanetAbstractHead {
    gc: JanetGCObject,
    pub(crate) r#type: *const JanetAbstractType,
    pub(crate) size: usize,
}

#[repr(C)]
pub(crate) struct JanetFuncDef {
    gc: JanetGCObject,
    pointers: [*const c_void; 9],
    numbers: [i32; 3],
    pub(crate) min_arity: i32,
}

#[repr(C)]
pub(crate) struct JanetFunction {
    gc: JanetGCObject,
    pub(crate) def: *mut JanetFuncDef,
}

#[repr(C)]
pub(crate) struct JanetAbstractType {
    pub(crate) name: *const c_char,
    pub(crate) gc: Option<unsafe extern "C" fn(*mut c_void, usize) -> c_int>,
    pub(crate) gcmark: Option<unsafe extern "C" fn(*mut c_void, usize) -> c_int>,
    /// The others, of which this crate defines none.
    pub(crate) others: [Option<unsafe extern "C" fn()>; 12],
}

#[repr(C)]
pub(crate) struct JanetMethod {
    pub(crate) name: *const c_char,
    pub(crate) cfun: Option<JanetCFunction>,
}

#[repr(C)]
pub(crate) struct JanetRegExt {
    pub(crate) name: *const c_char,
    pub(crate) cfun: Option<JanetCFunction>,
    pub(crate) documentation: *const c_char,
    pub(crate) source_file: *const c_char,
    pub(crate) source_line: i32,
}

#[repr(C)]
pub(crate) struct JanetByteView {
    pub(crate) bytes: *const u8,
    pub(crate) len: i32,
}

/// The calls that `c/vm.c` hands over, as its structure of this name has them.
#[repr(C)]
pub(crate) struct Hooks {
    pub(crate) wait: extern "C" fn() -> c_int,
    pub(crate) duplicated: extern "C" fn(descriptor: c_int, duplicate: c_int),
    pub(crate) closes: extern "C" fn(descriptor: c_int) -> c_int,
    pub(crate) flush: extern "C" fn(),
    pub(crate) end: extern "C" fn(),
    pub(crate) flush_writes: extern "C" fn(),
    pub(crate) forked: extern "C" fn(),
    pub(crate) lend: extern "C" fn(stream: *mut JanetStream) -> c_int,
    pub(crate) read_received:
        extern "C" fn(stream: *mut JanetStream, buffer: *mut JanetBuffer, count: i32, how: c_int) -> c_int,
    pub(crate) close: extern "C" fn(stream: *mut JanetStream) -> c_int,
    pub(crate) collected: extern "C" fn(stream: *mut JanetStream),
    pub(crate) share_streams: extern "C" fn(),
    pub(crate) methods: *const JanetMethod,
}

unsafe extern "C" {
    pub(crate) fn ringspun_vm_install_hooks(hooks: *const Hooks);
    pub(crate) fn ringspun_vm_check_process() -> c_int;
    pub(crate) fn ringspun_vm_arguments(fiber: *mut JanetFiber) -> Janet;
    pub(crate) fn ringspun_vm_epoll() -> c_int;
    pub(crate) fn ringspun_vm_post(vm: *mut c_void, call: extern "C" fn(i32), number: i32);
    pub(crate) fn ringspun_vm_tasks() -> i32;
    pub(crate) fn ringspun_vm_can_wait() -> c_int;
    pub(crate) fn ringspun_vm_look_errno() -> c_int;
    pub(crate) fn ringspun_vm_run(
        vm: *const c_void,
        fiber: *mut *mut JanetFiber,
        schedule: *mut u32,
    ) -> c_int;
    pub(crate) fn ringspun_vm_stack(vm: *const c_void, to: *mut c_char, size: usize) -> usize;
    pub(crate) fn janet_local_vm() -> *mut c_void;
    pub(crate) fn ringspun_vm_take_back(descriptor: c_int);
    pub(crate) fn ringspun_install_getline(getline: JanetCFunction);
    pub(crate) fn ringspun_vm_version() -> *const c_char;
}

// Most of these raise errors, which leaves the Rust frames in between behind.
unsafe extern "C-unwind" {
    /// Calls functions of native modules.
    pub(crate) fn ringspun_vm_end_waits(stream: *mut JanetStream);

    pub(crate) static janet_stream_type: JanetAbstractType;
    /// Not in `janet.h`: the type of what `net/address` returns, the bytes of a `sockaddr`.
    pub(crate) static janet_address_type: JanetAbstractType;
    pub(crate) static janet_type_names: [*const c_char; 16];

    pub(crate) fn janet_init() -> c_int;
    pub(crate) fn janet_deinit();
    pub(crate) fn janet_loop();
    pub(crate) fn janet_loop_fiber(fiber: *mut JanetFiber) -> c_int;
    pub(crate) fn janet_dobytes(
        env: *mut JanetTable,
        bytes: *const u8,
        length: i32,
        source: *const c_char,
        out: *mut Janet,
    ) -> c_int;
    pub(crate) fn janet_core_env(replacements: *mut JanetTable) -> *mut JanetTable;
    pub(crate) fn janet_core_lookup_table(replacements: *mut JanetTable) -> *mut JanetTable;
    pub(crate) fn janet_cfuns_ext(env: *mut JanetTable, prefix: *const c_char, functions: *const JanetRegExt);
    pub(crate) fn janet_resolve(env: *mut JanetTable, symbol: *const u8, out: *mut Janet) -> c_int;
    pub(crate) fn janet_dynfile(name: *const c_char, default: *mut libc::FILE) -> *mut libc::FILE;
    pub(crate) fn janet_sandbox_assert(forbidden: u32);

    pub(crate) fn janet_await() -> !;
    pub(crate) fn janet_panic(message: *const c_char) -> !;
    pub(crate) fn janet_panicv(message: Janet) -> !;
    pub(crate) fn janet_fiber(
        callee: *mut JanetFunction,
        capacity: i32,
        count: i32,
        arguments: *const Janet,
    ) -> *mut JanetFiber;
    pub(crate) fn janet_root_fiber() -> *mut JanetFiber;
    pub(crate) fn janet_schedule(fiber: *mut JanetFiber, value: Janet);
    pub(crate) fn janet_schedule_signal(fiber: *mut JanetFiber, value: Janet, signal: JanetSignal);
    pub(crate) fn janet_ev_inc_refcount();
    pub(crate) fn janet_ev_dec_refcount();
    pub(crate) fn janet_async_end(fiber: *mut JanetFiber);
    pub(crate) fn janet_stream_flags(stream: *mut JanetStream, flags: u32);

    pub(crate) fn janet_gcroot(root: Janet);
    pub(crate) fn janet_gcunroot(root: Janet) -> c_int;
    pub(crate) fn janet_mark(value: Janet);

    pub(crate) fn janet_arity(count: i32, minimum: i32, maximum: i32);
    pub(crate) fn janet_fixarity(count: i32, expected: i32);
    pub(crate) fn janet_getabstract(
        arguments: *const Janet,
        index: i32,
        kind: *const JanetAbstractType,
    ) -> *mut c_void;
    pub(crate) fn janet_getboolean(arguments: *const Janet, index: i32) -> c_int;
    pub(crate) fn janet_getbuffer(arguments: *const Janet, index: i32) -> *mut JanetBuffer;
    pub(crate) fn janet_getbytes(arguments: *const Janet, index: i32) -> JanetByteView;
    pub(crate) fn janet_getcstring(arguments: *const Janet, index: i32) -> *const c_char;
    pub(crate) fn janet_getfunction(arguments: *const Janet, index: i32) -> *mut JanetFunction;
    pub(crate) fn janet_getinteger(arguments: *const Janet, index: i32) -> i32;
    pub(crate) fn janet_getkeyword(arguments: *const Janet, index: i32) -> *const u8;
    pub(crate) fn janet_getnat(arguments: *const Janet, index: i32) -> i32;
    pub(crate) fn janet_getfiber(arguments: *const Janet, n: i32) -> *mut JanetFiber;
    pub(crate) fn janet_getstring(arguments: *const Janet, index: i32) -> *const u8;
    pub(crate) fn janet_gettable(arguments: *const Janet, index: i32) -> *mut JanetTable;
    pub(crate) fn janet_optbuffer(
        arguments: *const Janet,
        count: i32,
        index: i32,
        default_length: i32,
    ) -> *mut JanetBuffer;
    pub(crate) fn janet_optcstring(
        arguments: *const Janet,
        count: i32,
        index: i32,
        default: *const c_char,
    ) -> *const c_char;
    pub(crate) fn janet_optkeyword(
        arguments: *const Janet,
        count: i32,
        index: i32,
        default: *const u8,
    ) -> *const u8;
    pub(crate) fn janet_optnumber(arguments: *const Janet, count: i32, index: i32, default: f64) -> f64;

    pub(crate) fn janet_abstract(kind: *const JanetAbstractType, size: usize) -> *mut c_void;
    pub(crate) fn janet_abstract_head(value: *const c_void) -> *mut JanetAbstractHead;
    pub(crate) fn janet_array(capacity: i32) -> *mut JanetArray;
    pub(crate) fn janet_array_push(array: *mut JanetArray, value: Janet);
    pub(crate) fn janet_buffer(capacity: i32) -> *mut JanetBuffer;
    pub(crate) fn janet_buffer_push_bytes(buffer: *mut JanetBuffer, bytes: *const u8, length: i32);
    pub(crate) fn janet_buffer_push_u8(buffer: *mut JanetBuffer, byte: u8);
    pub(crate) fn janet_csymbol(name: *const c_char) -> *const u8;
    pub(crate) fn janet_cstrcmp(text: *const u8, other: *const c_char) -> c_int;
    pub(crate) fn janet_dictionary_next(
        entries: *const JanetKV,
        capacity: i32,
        entry: *const JanetKV,
    ) -> *const JanetKV;
    pub(crate) fn janet_get(structure: Janet, key: Janet) -> Janet;
    pub(crate) fn janet_keyeq(value: Janet, keyword: *const c_char) -> c_int;
    pub(crate) fn janet_string(bytes: *const u8, length: i32) -> *const u8;
    pub(crate) fn janet_symbol(bytes: *const u8, length: i32) -> *const u8;
    pub(crate) fn janet_table(capacity: i32) -> *mut JanetTable;
    pub(crate) fn janet_table_get(table: *mut JanetTable, key: Janet) -> Janet;
    pub(crate) fn janet_table_put(table: *mut JanetTable, key: Janet, value: Janet);
    pub(crate) fn janet_to_string(value: Janet) -> *const u8;
    pub(crate) fn janet_tuple_head(tuple: *const Janet) -> *mut JanetTupleHead;
    pub(crate) fn janet_tuple_n(values: *const Janet, count: i32) -> *const Janet;

    pub(crate) fn janet_checkabstract(value: Janet, kind: *const JanetAbstractType) -> *mut c_void;
    pub(crate) fn janet_checkint(value: Janet) -> c_int;
    pub(crate) fn janet_checktype(value: Janet, kind: JanetType) -> c_int;
    pub(crate) fn janet_truthy(value: Janet) -> c_int;
    pub(crate) fn janet_type(value: Janet) -> JanetType;
    pub(crate) fn janet_unwrap_abstract(value: Janet) -> *mut c_void;
    pub(crate) fn janet_unwrap_array(value: Janet) -> *mut JanetArray;
    pub(crate) fn janet_unwrap_cfunction(value: Janet) -> Option<JanetCFunction>;
    pub(crate) fn janet_unwrap_function(value: Janet) -> *mut JanetFunction;
    pub(crate) fn janet_unwrap_number(value: Janet) -> f64;
    pub(crate) fn janet_unwrap_table(value: Janet) -> *mut JanetTable;
    pub(crate) fn janet_unwrap_tuple(value: Janet) -> *const Janet;
    pub(crate) fn janet_wrap_abstract(value: *mut c_void) -> Janet;
    pub(crate) fn janet_wrap_array(value: *mut JanetArray) -> Janet;
    pub(crate) fn janet_wrap_buffer(value: *mut JanetBuffer) -> Janet;
    pub(crate) fn janet_wrap_cfunction(value: Option<JanetCFunction>) -> Janet;
    pub(crate) fn janet_wrap_fiber(value: *mut JanetFiber) -> Janet;
    pub(crate) fn janet_wrap_function(value: *mut JanetFunction) -> Janet;
    pub(crate) fn janet_wrap_keyword(value: *const u8) -> Janet;
    pub(crate) fn janet_wrap_nil() -> Janet;
    pub(crate) fn janet_wrap_integer(value: i32) -> Janet;
    pub(crate) fn janet_wrap_boolean(value: c_int) -> Janet;
    pub(crate) fn janet_wrap_number(value: f64) -> Janet;
    pub(crate) fn janet_wrap_table(value: *mut JanetTable) -> Janet;
    pub(crate) fn janet_wrap_string(value: *const u8) -> Janet;
    pub(crate) fn janet_wrap_symbol(value: *const u8) -> Janet;
    pub(crate) fn janet_wrap_tuple(value: *const Janet) -> Janet;
}

/// The same as at the end of `c/vm.c`.
mod layout {
    use super::*;

    /// The size of a Janet value.
    const V: usize = size_of::<Janet>();

    macro_rules! constant {
        ($name:ident, $value:expr) => {
            const _: () = assert!($name == $value);
        };
    }
    macro_rules! size {
        ($name:ident, $bytes:expr) => {
            const _: () = assert!(size_of::<$name>() == $bytes);
        };
    }
    macro_rules! field {
        ($name:ident, $field:ident, $offset:expr) => {
            const _: () = assert!(std::mem::offset_of!($name, $field) == $offset);
        };
    }

    constant!(JANET_NUMBER, 0);
    constant!(JANET_NIL, 1);
    constant!(JANET_BOOLEAN, 2);
    constant!(JANET_STRING, 4);
    constant!(JANET_SYMBOL, 5);
    constant!(JANET_KEYWORD, 6);
    constant!(JANET_ARRAY, 7);
    constant!(JANET_TUPLE, 8);
    constant!(JANET_TABLE, 9);
    constant!(JANET_STRUCT, 10);
    constant!(JANET_BUFFER, 11);
    constant!(JANET_FUNCTION, 12);
    constant!(JANET_CFUNCTION, 13);
    constant!(JANET_ABSTRACT, 14);
    constant!(JANET_SIGNAL_OK, 0);
    constant!(JANET_SIGNAL_ERROR, 1);
    constant!(JANET_STATUS_DEAD, 0);
    constant!(JANET_ASYNC_EVENT_DEINIT, 2);
    constant!(JANET_STREAM_CLOSED, 0x1);
    constant!(JANET_STREAM_SOCKET, 0x2);
    constant!(JANET_STREAM_READABLE, 0x200);
    constant!(JANET_STREAM_WRITABLE, 0x400);
    constant!(JANET_STREAM_ACCEPTABLE, 0x800);
    constant!(JANET_STREAM_UDPSERVER, 0x1000);
    constant!(JANET_STREAM_NOT_CLOSEABLE, 0x2000);
    constant!(JANET_BUFFER_FLAG_NO_REALLOC, 0x10000);
    constant!(JANET_SANDBOX_NET_CONNECT, 4);
    constant!(JANET_SANDBOX_NET_LISTEN, 8);
    constant!(JANET_FIBER_EV_FLAG_IN_FLIGHT, 0x1);
    constant!(JANET_FIBER_EV_FLAG_SUSPENDED, 0x20000);
    size!(JanetStream, 40);
    field!(JanetStream, handle, 0);
    field!(JanetStream, flags, 4);
    field!(JanetStream, index, 8);
    field!(JanetStream, read_fiber, 16);
    field!(JanetStream, write_fiber, 24);
    field!(JanetStream, methods, 32);
    size!(JanetFiber, 104 + V);
    field!(JanetFiber, gc, 0);
    field!(JanetFiber, flags, 16);
    field!(JanetFiber, env, 40);
    field!(JanetFiber, last_value, 64);
    field!(JanetFiber, sched_id, 64 + V);
    field!(JanetFiber, ev_callback, 72 + V);
    field!(JanetFiber, ev_stream, 80 + V);
    field!(JanetFiber, ev_state, 88 + V);
    field!(JanetFiber, supervisor_channel, 96 + V);
    size!(JanetArray, 32);
    field!(JanetArray, count, 16);
    field!(JanetArray, data, 24);
    size!(JanetBuffer, 32);
    field!(JanetBuffer, gc, 0);
    field!(JanetBuffer, count, 16);
    field!(JanetBuffer, capacity, 20);
    field!(JanetBuffer, data, 24);
    size!(JanetTable, 48);
    field!(JanetTable, capacity, 20);
    field!(JanetTable, data, 32);
    field!(JanetTable, proto, 40);
    size!(JanetKV, 2 * V);
    field!(JanetKV, key, 0);
    size!(JanetGCObject, 16);
    field!(JanetGCObject, flags, 0);
    field!(JanetTupleHead, length, 16);
    field!(JanetStringHead, length, 16);
    field!(JanetStringHead, data, 24);
    size!(JanetStringHead, 24);
    field!(JanetAbstractHead, r#type, 16);
    field!(JanetAbstractHead, size, 24);
    field!(JanetFuncDef, min_arity, 100);
    field!(JanetFunction, def, 16);
    size!(JanetAbstractType, 120);
    field!(JanetAbstractType, name, 0);
    field!(JanetAbstractType, gc, 8);
    field!(JanetAbstractType, gcmark, 16);
    size!(JanetMethod, 16);
    field!(JanetMethod, name, 0);
    field!(JanetMethod, cfun, 8);
    size!(JanetRegExt, 40);
    field!(JanetRegExt, name, 0);
    field!(JanetRegExt, cfun, 8);
    field!(JanetRegExt, documentation, 16);
    field!(JanetRegExt, source_file, 24);
    field!(JanetRegExt, source_line, 32);
    size!(JanetByteView, 16);
    field!(JanetByteView, bytes, 0);
    field!(JanetByteView, len, 8);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The lines of a source text that begin with one of the words of the list.
    fn layout(source: &str) -> BTreeSet<String> {
        let line = |line: &str| line.trim().replacen("!(", "(", 1).replace("r#", "");
        let is_entry = |line: &String| {
            line.ends_with(");") && ["constant(", "size(", "field("].iter().any(|word| line.starts_with(word))
        };
        source.lines().map(line).filter(is_entry).collect()
    }

    #[test]
    fn c_and_rust_check_the_same_layout() {
        let (rust, c) = (layout(include_str!("api.rs")), layout(include_str!("../c/vm.c")));
        assert_eq!(rust, c);
        assert!(rust.len() > 50, "{} lines: how are they told from others now?", rust.len());
    }
}
