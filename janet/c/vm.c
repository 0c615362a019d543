/*
 * The Janet VM, compiled in one piece with what this crate adds to it.
 *
 * janet.c is the VM's whole source in one file. Three system calls by which it drives its event loop and its
 * streams reach the functions below instead of the C library, by renaming them while it is compiled: the C
 * library's own functions stay as they are for everybody else in the process. What lies behind the #include can
 * also reach the VM's internal state.
 */

#ifndef __OPTIMIZE__
#error "CFLAGS switch optimisation off; without it, the Janet VM runs at half its speed"
#endif

#define epoll_wait(epoll, events, maximum, timeout_ms) ringspun_epoll_wait(epoll, events, maximum, timeout_ms)
#define dup(descriptor) ringspun_dup(descriptor)
#define close(descriptor) ringspun_close(descriptor)

#include "janet.c"

#undef epoll_wait
#undef dup
#undef close

#ifndef JANET_EV_EPOLL
#error "this crate needs a VM whose event loop waits by epoll"
#endif

/* Declared under their other names so far. */
extern int epoll_wait(int epoll, struct epoll_event *events, int maximum, int timeout_ms);
extern int dup(int descriptor);
extern int close(int descriptor);

/* What hooks.rs answers the three calls with; it has the same structure. */
struct ringspun_hooks {
    /* The VM waits for events of its epoll descriptor; one of the constants below, or -1 with errno set. */
    int (*wait)(int epoll);
    /* The VM has duplicated a descriptor. */
    void (*duplicated)(int descriptor, int duplicate);
    /* The VM closes a descriptor; 1 if the callee does it in its place. */
    int (*closes)(int descriptor);
};

/* What `wait` returns: it has waited, and there are no events of the VM or there may be some; or it has not. */
#define RINGSPUN_NO_EVENTS 0
#define RINGSPUN_EVENTS 1
#define RINGSPUN_NOT_WAITED 2

/* Set once, by the first VM of the process whose sockets are ours. */
static const struct ringspun_hooks *installed_hooks;

static const struct ringspun_hooks *hooks(void) {
    return __atomic_load_n(&installed_hooks, __ATOMIC_ACQUIRE);
}

void ringspun_vm_install_hooks(const struct ringspun_hooks *hooks) {
    __atomic_store_n(&installed_hooks, hooks, __ATOMIC_RELEASE);
}

int ringspun_epoll_wait(int epoll, struct epoll_event *events, int maximum, int timeout_ms) {
    if (hooks()) {
        int ready = hooks()->wait(epoll);
        if (ready <= RINGSPUN_NO_EVENTS) return ready;
        if (ready == RINGSPUN_EVENTS) timeout_ms = 0;
    }
    return epoll_wait(epoll, events, maximum, timeout_ms);
}

int ringspun_dup(int descriptor) {
    int duplicate = dup(descriptor);
    if (duplicate >= 0 && hooks()) hooks()->duplicated(descriptor, duplicate);
    return duplicate;
}

int ringspun_close(int descriptor) {
    if (hooks() && hooks()->closes(descriptor)) return 0;
    return close(descriptor);
}

/* The epoll descriptor of the VM on this thread. */
int ringspun_vm_epoll(void) {
    return janet_vm.epoll;
}

/* The VM's release, and the revision of its sources. */
const char *ringspun_vm_version(void) {
    return JANET_VERSION "-" JANET_BUILD;
}

/*
 * What api.rs declares. The same lines stand there, and are checked there against its own declarations; a test
 * compares the two lists. V is the size of a Janet value.
 */
#define V sizeof(Janet)
#define constant(name, value) _Static_assert(name == value, #name " is not what api.rs says")
#define size(type, bytes) _Static_assert(sizeof(type) == bytes, "the size of " #type " is not what api.rs says")
#define field(type, name, offset) \
    _Static_assert(offsetof(type, name) == offset, "the place of " #type "." #name " is not what api.rs says")

constant(JANET_NIL, 1);
constant(JANET_STRING, 4);
constant(JANET_SYMBOL, 5);
constant(JANET_ARRAY, 7);
constant(JANET_TUPLE, 8);
constant(JANET_TABLE, 9);
constant(JANET_STRUCT, 10);
constant(JANET_FUNCTION, 12);
constant(JANET_CFUNCTION, 13);
constant(JANET_ABSTRACT, 14);
constant(JANET_SIGNAL_OK, 0);
constant(JANET_SIGNAL_ERROR, 1);
constant(JANET_STATUS_DEAD, 0);
constant(JANET_ASYNC_EVENT_DEINIT, 2);
constant(JANET_STREAM_CLOSED, 0x1);
constant(JANET_STREAM_SOCKET, 0x2);
constant(JANET_STREAM_READABLE, 0x200);
constant(JANET_STREAM_WRITABLE, 0x400);
constant(JANET_STREAM_ACCEPTABLE, 0x800);
constant(JANET_STREAM_UDPSERVER, 0x1000);
constant(JANET_BUFFER_FLAG_NO_REALLOC, 0x10000);
constant(JANET_SANDBOX_NET_CONNECT, 4);
constant(JANET_SANDBOX_NET_LISTEN, 8);
constant(JANET_FIBER_EV_FLAG_IN_FLIGHT, 0x1);
size(JanetStream, 40);
field(JanetStream, handle, 0);
field(JanetStream, flags, 4);
field(JanetStream, index, 8);
field(JanetStream, read_fiber, 16);
field(JanetStream, write_fiber, 24);
field(JanetStream, methods, 32);
size(JanetFiber, 104 + V);
field(JanetFiber, flags, 16);
field(JanetFiber, env, 40);
field(JanetFiber, last_value, 64);
field(JanetFiber, sched_id, 64 + V);
field(JanetFiber, ev_callback, 72 + V);
field(JanetFiber, ev_stream, 80 + V);
field(JanetFiber, ev_state, 88 + V);
field(JanetFiber, supervisor_channel, 96 + V);
size(JanetArray, 32);
field(JanetArray, count, 16);
field(JanetArray, data, 24);
size(JanetBuffer, 32);
field(JanetBuffer, gc, 0);
field(JanetBuffer, count, 16);
field(JanetBuffer, capacity, 20);
field(JanetBuffer, data, 24);
size(JanetTable, 48);
field(JanetTable, capacity, 20);
field(JanetTable, data, 32);
field(JanetTable, proto, 40);
size(JanetKV, 2 * V);
field(JanetKV, key, 0);
size(JanetGCObject, 16);
field(JanetGCObject, flags, 0);
field(JanetTupleHead, length, 16);
field(JanetAbstractHead, type, 16);
field(JanetAbstractHead, size, 24);
field(JanetFuncDef, min_arity, 100);
field(JanetFunction, def, 16);
size(JanetAbstractType, 120);
field(JanetAbstractType, name, 0);
field(JanetAbstractType, gc, 8);
field(JanetAbstractType, gcmark, 16);
size(JanetMethod, 16);
field(JanetMethod, name, 0);
field(JanetMethod, cfun, 8);
size(JanetRegExt, 40);
field(JanetRegExt, name, 0);
field(JanetRegExt, cfun, 8);
field(JanetRegExt, documentation, 16);
field(JanetRegExt, source_file, 24);
field(JanetRegExt, source_line, 32);
size(JanetByteView, 16);
field(JanetByteView, bytes, 0);
field(JanetByteView, len, 8);
