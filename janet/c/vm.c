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

#define epoll_create1(flags) ringspun_epoll_create1(flags)
#define epoll_ctl(epoll, operation, descriptor, event) ringspun_epoll_ctl(epoll, operation, descriptor, event)
#define epoll_wait(epoll, events, maximum, timeout_ms) ringspun_epoll_wait(epoll, events, maximum, timeout_ms)
#define timerfd_settime(timer, flags, time, old) ringspun_timerfd_settime(timer, flags, time, old)
#define dup(descriptor) ringspun_dup(descriptor)
#define close(descriptor) ringspun_close(descriptor)
#define nanosleep(time, rest) ringspun_nanosleep(time, rest)
#define execv(path, arguments) ringspun_execv(path, arguments)
#define execvp(name, arguments) ringspun_execvp(name, arguments)
#define exit(status) ringspun_exit(status)
#define _Exit(status) ringspun_exit_at_once(status)
#define fork ringspun_fork
#define sigaction(signal, action, old) ringspun_sigaction(signal, action, old)
#define dlopen(path, mode) ringspun_dlopen(path, mode)
#define pthread_mutex_lock(mutex) ringspun_mutex_lock(mutex)
#define pthread_mutex_unlock(mutex) ringspun_mutex_unlock(mutex)
#define pthread_rwlock_rdlock(lock) ringspun_rwlock_rdlock(lock)
#define pthread_rwlock_wrlock(lock) ringspun_rwlock_wrlock(lock)
#define fopen(path, mode) ringspun_fopen(path, mode)
#define fread(to, size, count, file) ringspun_fread(to, size, count, file)
#define fgetc(file) ringspun_fgetc(file)
#define fwrite(from, size, count, file) ringspun_fwrite(from, size, count, file)
#define fflush(file) ringspun_fflush(file)

/* As janet.c does, before the first header. */
#define _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L
#define _XOPEN_SOURCE 600
#include <janet.h>

/*
 * The public functions by which C code waits on a stream. native.c defines them, so the VM's own get other symbols.
 */
#define STREAM_FUNCTIONS(X) \
    X(janet_async_start, (JanetStream *stream, JanetAsyncMode mode, JanetEVCallback callback, void *state), \
      (stream, mode, callback, state)) \
    X(janet_async_start_fiber, \
      (JanetFiber *fiber, JanetStream *stream, JanetAsyncMode mode, JanetEVCallback callback, void *state), \
      (fiber, stream, mode, callback, state)) \
    X(janet_ev_write_buffer, (JanetStream *stream, JanetBuffer *buffer), (stream, buffer)) \
    X(janet_ev_write_string, (JanetStream *stream, JanetString string), (stream, string)) \
    X(janet_ev_send_buffer, (JanetStream *stream, JanetBuffer *buffer, int flags), (stream, buffer, flags)) \
    X(janet_ev_send_string, (JanetStream *stream, JanetString string, int flags), (stream, string, flags)) \
    X(janet_ev_sendto_buffer, (JanetStream *stream, JanetBuffer *buffer, void *to, int flags), \
      (stream, buffer, to, flags)) \
    X(janet_ev_sendto_string, (JanetStream *stream, JanetString string, void *to, int flags), \
      (stream, string, to, flags))

/* Those that read, with the flags of the call, and how much they wait for. */
#define READ_FUNCTIONS(X) \
    X(janet_ev_read, (JanetStream *stream, JanetBuffer *buffer, int32_t count), (stream, buffer, count), \
      0, RINGSPUN_READ_SOME) \
    X(janet_ev_readchunk, (JanetStream *stream, JanetBuffer *buffer, int32_t count), (stream, buffer, count), \
      0, RINGSPUN_READ_ALL) \
    X(janet_ev_recv, (JanetStream *stream, JanetBuffer *buffer, int32_t count, int flags), \
      (stream, buffer, count, flags), flags, RINGSPUN_READ_SOME) \
    X(janet_ev_recvchunk, (JanetStream *stream, JanetBuffer *buffer, int32_t count, int flags), \
      (stream, buffer, count, flags), flags, RINGSPUN_READ_ALL) \
    X(janet_ev_recvfrom, (JanetStream *stream, JanetBuffer *buffer, int32_t count, int flags), \
      (stream, buffer, count, flags), flags, RINGSPUN_READ_FROM)

/* Those that are about the stream itself. */
#define STATE_FUNCTIONS(X) \
    X(janet_stream_edge_triggered) \
    X(janet_stream_level_triggered) \
    X(janet_stream_close)

/* Those that Janet code can call, and the methods that they are. */
#define STREAM_METHODS(X) \
    X(janet_cfun_stream_close, "close") \
    X(janet_cfun_stream_read, "evread") \
    X(janet_cfun_stream_chunk, "evchunk") \
    X(janet_cfun_stream_write, "evwrite")

#define RENAME(name, ...) extern __typeof__(name) name __asm__("ringspun_vm_own_" #name);
STREAM_FUNCTIONS(RENAME)
READ_FUNCTIONS(RENAME)
STATE_FUNCTIONS(RENAME)
STREAM_METHODS(RENAME)

/* The same for the function that makes the core environment, see below. */
RENAME(janet_core_env)

/*
 * What the collector calls with a stream that it frees. This renames the VM's own; the table of the stream type names
 * the function without parentheses, and gets the one in native.c.
 */
static int janet_stream_gc(void *memory, size_t size_bytes);
#define janet_stream_gc(memory, size_bytes) ringspun_vm_own_stream_gc(memory, size_bytes)

/* Those that give to channels, see channels.c, are renamed likewise. */
Janet cfun_channel_push(int32_t argc, Janet *argv);
Janet cfun_channel_choice(int32_t argc, Janet *argv);
Janet cfun_channel_rchoice(int32_t argc, Janet *argv);
#define cfun_channel_push(argc, argv) ringspun_vm_own_cfun_channel_push(argc, argv)
#define cfun_channel_choice(argc, argv) ringspun_vm_own_cfun_channel_choice(argc, argv)
#define cfun_channel_rchoice(argc, argv) ringspun_vm_own_cfun_channel_rchoice(argc, argv)

/* The same for what ends a wait for a channel between threads, see channels.c. */
static void janet_thread_chan_cb(JanetEVGenericMessage message);
#define janet_thread_chan_cb(message) ringspun_vm_own_thread_chan_cb(message)

/* And for what the collector calls with such a channel when a VM gives it up. */
static int janet_chanat_gcperthread(void *memory, size_t size_bytes);
#define janet_chanat_gcperthread(memory, size_bytes) ringspun_vm_own_chanat_gcperthread(memory, size_bytes)

#include "janet.c"

#undef janet_chanat_gcperthread
#undef janet_thread_chan_cb
#undef cfun_channel_push
#undef cfun_channel_choice
#undef cfun_channel_rchoice
#undef janet_stream_gc
#undef epoll_create1
#undef epoll_ctl
#undef epoll_wait
#undef timerfd_settime
#undef dup
#undef close
#undef nanosleep
#undef execv
#undef execvp
#undef exit
#undef _Exit
#undef fork
#undef sigaction
#undef dlopen
#undef pthread_mutex_lock
#undef pthread_mutex_unlock
#undef pthread_rwlock_rdlock
#undef pthread_rwlock_wrlock
#undef fopen
#undef fread
#undef fgetc
#undef fwrite
#undef fflush

#ifndef JANET_EV_EPOLL
#error "this crate needs a VM whose event loop waits by epoll"
#endif

/* Declared under their other names so far. */
extern int epoll_create1(int flags);
extern int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event);
extern int epoll_wait(int epoll, struct epoll_event *events, int maximum, int timeout_ms);
extern int timerfd_settime(int timer, int flags, const struct itimerspec *time, struct itimerspec *old);
extern int dup(int descriptor);
extern int close(int descriptor);
extern int nanosleep(const struct timespec *time, struct timespec *rest);
extern int execv(const char *path, char *const arguments[]);
extern int execvp(const char *name, char *const arguments[]);
extern void exit(int status) __attribute__((noreturn));
extern void _Exit(int status) __attribute__((noreturn));
extern int pthread_mutex_lock(pthread_mutex_t *mutex);
extern int pthread_mutex_unlock(pthread_mutex_t *mutex);
extern int pthread_rwlock_rdlock(pthread_rwlock_t *lock);
extern int pthread_rwlock_wrlock(pthread_rwlock_t *lock);
extern FILE *fopen(const char *path, const char *mode);
extern size_t fread(void *to, size_t size, size_t count, FILE *file);
extern int fgetc(FILE *file);
extern size_t fwrite(const void *from, size_t size, size_t count, FILE *file);
extern int fflush(FILE *file);
extern pid_t fork(void);
extern int sigaction(int signal, const struct sigaction *action, struct sigaction *old);
extern void *dlopen(const char *path, int mode);

/* What hooks.rs answers the VM's calls with; it has the same structure. */
struct ringspun_hooks {
    /* The VM waits for events of its epoll descriptor; one of the constants below, or -1 with errno set. */
    int (*wait)(void);
    /* The VM has duplicated a descriptor. */
    void (*duplicated)(int descriptor, int duplicate);
    /* The VM closes a descriptor; 1 if the callee does it in its place. */
    int (*closes)(int descriptor);
    /* The VM blocks or ends: what is to be sent has to be sent before. */
    void (*flush)(void);
    /* The VM ends the process without handlers of exits. */
    void (*end)(void);
    /* The VM may block: writes that have returned have to be in the kernel before. */
    void (*flush_writes)(void);
    /* This is a forked child; what the thread had belongs to its parent. */
    void (*forked)(void);
    /* C code is about to wait on a stream that is not the VM's; 0, or -1 with errno set. */
    int (*lend)(JanetStream *stream);
    /* C code reads from such a stream. 1 if bytes or datagrams have been received that nobody has read: the running
     * fiber then gets them, and has to wait. `how` is one of the constants below. */
    int (*read_received)(JanetStream *stream, JanetBuffer *buffer, int32_t count, int how);
    /* C code closes such a stream; 1 if the callee has done it. */
    int (*close)(JanetStream *stream);
    /* The collector frees such a stream. */
    void (*collected)(JanetStream *stream);
    /* From now on, C code may use the descriptors of all streams. */
    void (*share_streams)(void);
    /* The methods of streams that are not the VM's. */
    const JanetMethod *methods;
};

/* What `wait` returns: it has waited, and there are no events of the VM or there may be some; or it has not. */
#define RINGSPUN_NO_EVENTS 0
#define RINGSPUN_EVENTS 1
#define RINGSPUN_NOT_WAITED 2

/* How `read_received` reads. */
#define RINGSPUN_READ_SOME 0
#define RINGSPUN_READ_ALL 1
#define RINGSPUN_READ_FROM 2

/*
 * Bits of the index of a stream that is not the VM's, a field that a VM which waits by epoll does not use: it is
 * registered with the VM's epoll instance; it is to be level-triggered there. What is above them is hooks.rs's.
 */
#define RINGSPUN_LENT 1u
#define RINGSPUN_LEVEL 2u

/* Set once, by the first VM of the process whose sockets are ours. */
static const struct ringspun_hooks *installed_hooks;

static const struct ringspun_hooks *hooks(void) {
    return __atomic_load_n(&installed_hooks, __ATOMIC_ACQUIRE);
}

/*
 * Forked children. A child shares its parent's epoll instance, timer and self-pipe: what its VM did to them would
 * happen to the parent, up to events that refer to memory of the child. So a VM that finds itself in a child gets
 * new ones.
 */

/* How many forks lie between the first process and this one. */
static unsigned forks;
/* As many when the epoll descriptor of this thread's VM was made. */
static JANET_THREAD_LOCAL unsigned forks_of_vm;
/* It is another one now: what the VM waits for may have been its parent's. */
static JANET_THREAD_LOCAL int has_changed;

static void count_fork(void) {
    forks++;
}

/* Whether a stream is not the VM's own. */
static int is_ours(const JanetStream *stream) {
    return hooks() && stream->methods == hooks()->methods;
}

/* What the VM waits for on a stream. */
static struct epoll_event events_of(JanetStream *stream) {
    struct epoll_event event = {.events = EPOLLET, .data.ptr = stream};
    if (is_ours(stream) && (stream->index & RINGSPUN_LEVEL)) event.events = 0;
    if (stream->flags & (JANET_STREAM_READABLE | JANET_STREAM_ACCEPTABLE)) event.events |= EPOLLIN;
    if (stream->flags & JANET_STREAM_WRITABLE) event.events |= EPOLLOUT;
    return event;
}

/* Registers the VM's own streams anew, such as pipes. */
static void register_streams(void) {
    for (JanetGCObject *object = janet_vm.blocks; object; object = object->data.next) {
        JanetAbstractHead *head = (JanetAbstractHead *) object;
        if ((object->flags & JANET_MEM_TYPEBITS) != JANET_MEMORY_ABSTRACT || head->type != &janet_stream_type) continue;
        JanetStream *stream = (JanetStream *) head->data;
        if (stream->handle == -1) continue;
        /* Of those that are not the VM's, it has only what C code waits on. */
        if (is_ours(stream) && !stream->read_fiber && !stream->write_fiber) continue;
        if (stream->flags & (JANET_STREAM_CLOSED | JANET_STREAM_UNREGISTERED)) continue;
        struct epoll_event event = events_of(stream);
        /* One that cannot be registered here could not be in the parent. */
        epoll_ctl(janet_vm.epoll, EPOLL_CTL_ADD, stream->handle, &event);
    }
}

/* The same descriptors as in janet_ev_init. */
static void make_event_loop(void) {
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.ptr = &janet_vm.timerfd};
    struct epoll_event selfpipe = {.events = EPOLLIN | EPOLLET, .data.ptr = janet_vm.selfpipe};
    janet_ev_setup_selfpipe();
    janet_vm.epoll = epoll_create1(EPOLL_CLOEXEC);
    janet_vm.timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    janet_vm.timer_enabled = 0;
    if (janet_vm.epoll == -1 || janet_vm.timerfd == -1
            || epoll_ctl(janet_vm.epoll, EPOLL_CTL_ADD, janet_vm.timerfd, &timer)
            || epoll_ctl(janet_vm.epoll, EPOLL_CTL_ADD, janet_vm.selfpipe[0], &selfpipe)) {
        JANET_EXIT("failed to initialize event loop in a forked process");
    }
}

/* Has the VM on this thread let go of what it shares with a parent; 1 if there was something. */
int ringspun_vm_check_process(void) {
    if (forks_of_vm == forks || !hooks()) return 0;
    forks_of_vm = forks;
    hooks()->forked();
    close(janet_vm.epoll);
    close(janet_vm.timerfd);
    janet_ev_cleanup_selfpipe();
    make_event_loop();
    register_streams();
    has_changed = 1;
    return 1;
}

/*
 * The child lets go before it goes on: a thread that it starts is told which self-pipe to write to, and would wake its
 * parent, which knows nothing of that thread.
 */
pid_t ringspun_fork(void) {
    pid_t child = fork();
    if (child == 0) ringspun_vm_check_process();
    return child;
}

/* To be called once. */
void ringspun_vm_install_hooks(const struct ringspun_hooks *hooks) {
    if (pthread_atfork(NULL, NULL, count_fork)) JANET_OUT_OF_MEMORY;
    __atomic_store_n(&installed_hooks, hooks, __ATOMIC_RELEASE);
}

/* The VM's calls. Its descriptors are read anew, as they may just have changed. */

int ringspun_epoll_create1(int flags) {
    forks_of_vm = forks;
    return epoll_create1(flags);
}

int ringspun_epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    /* A stream that is being made has been registered with the others. */
    if (ringspun_vm_check_process() && operation == EPOLL_CTL_ADD) operation = EPOLL_CTL_MOD;
    return epoll_ctl(janet_vm.epoll, operation, descriptor, event);
}

int ringspun_timerfd_settime(int timer, int flags, const struct itimerspec *time, struct itimerspec *old) {
    ringspun_vm_check_process();
    return timerfd_settime(janet_vm.timerfd, flags, time, old);
}

int ringspun_epoll_wait(int epoll, struct epoll_event *events, int maximum, int timeout_ms) {
    ringspun_vm_check_process();
    if (has_changed) {
        has_changed = 0;
        return 0;
    }
    if (hooks()) {
        int ready = hooks()->wait();
        if (ready <= RINGSPUN_NO_EVENTS) return ready;
        if (ready == RINGSPUN_EVENTS) timeout_ms = 0;
    }
    return epoll_wait(janet_vm.epoll, events, maximum, timeout_ms);
}

/* Ends the registration of a descriptor with the VM's epoll instance, if there is one. */
void ringspun_vm_take_back(int descriptor) {
    struct epoll_event none = {0};
    ringspun_epoll_ctl(janet_vm.epoll, EPOLL_CTL_DEL, descriptor, &none);
}

int ringspun_dup(int descriptor) {
    int duplicate = dup(descriptor);
    if (duplicate >= 0 && hooks()) hooks()->duplicated(descriptor, duplicate);
    return duplicate;
}

int ringspun_close(int descriptor) {
    if (hooks()) {
        if (hooks()->closes(descriptor)) return 0;
        /* The registration refers to the stream, and outlives this descriptor where there is another of the same file:
         * in another thread, in a file, or in the parent of a forked child. */
        ringspun_vm_take_back(descriptor);
    }
    return close(descriptor);
}

static void flush(void) {
    if (hooks()) hooks()->flush();
}

int ringspun_nanosleep(const struct timespec *time, struct timespec *rest) {
    flush();
    return nanosleep(time, rest);
}

int ringspun_execv(const char *path, char *const arguments[]) {
    flush();
    return execv(path, arguments);
}

int ringspun_execvp(const char *name, char *const arguments[]) {
    flush();
    return execvp(name, arguments);
}

void ringspun_exit(int status) {
    flush();
    exit(status);
}

void ringspun_exit_at_once(int status) {
    if (hooks()) hooks()->end();
    _Exit(status);
}

/*
 * What may block for as long as another thread, a process or a user likes. The peer of a socket may be whom they wait
 * for.
 */
static void flush_writes(void) {
    if (hooks()) hooks()->flush_writes();
}

int ringspun_rwlock_rdlock(pthread_rwlock_t *lock) {
    int result = pthread_rwlock_tryrdlock(lock);
    if (result != EBUSY) return result;
    flush_writes();
    return pthread_rwlock_rdlock(lock);
}

int ringspun_rwlock_wrlock(pthread_rwlock_t *lock) {
    int result = pthread_rwlock_trywrlock(lock);
    if (result != EBUSY) return result;
    flush_writes();
    return pthread_rwlock_wrlock(lock);
}

FILE *ringspun_fopen(const char *path, const char *mode) {
    flush_writes();
    return fopen(path, mode);
}

size_t ringspun_fread(void *to, size_t size, size_t count, FILE *file) {
    flush_writes();
    return fread(to, size, count, file);
}

int ringspun_fgetc(FILE *file) {
    flush_writes();
    return fgetc(file);
}

size_t ringspun_fwrite(const void *from, size_t size, size_t count, FILE *file) {
    flush_writes();
    return fwrite(from, size, count, file);
}

int ringspun_fflush(FILE *file) {
    flush_writes();
    return fflush(file);
}

#include "channels.c"
#include "signals.c"
#include "native.c"
#include "inquiry.c"
#include "look.c"
#include "waits.c"

/*
 * Where modules are by default. The image of the core environment names a folder of the machine on which it was made.
 */
#define MODULES "/usr/local/lib/janet"

JANET_API JanetTable *ringspun_public_janet_core_env(JanetTable *replacements) __asm__("janet_core_env");
JanetTable *ringspun_public_janet_core_env(JanetTable *replacements) {
    int is_new = !janet_vm.core_env;
    JanetTable *environment = janet_core_env(replacements);
    if (is_new) janet_table_put(environment, janet_ckeywordv("syspath"), janet_cstringv(MODULES));
    return environment;
}

/* What a parked fiber has called a C function with, as a tuple; nil if it is in none. For dumps. */
Janet ringspun_vm_arguments(JanetFiber *fiber) {
    if (fiber->frame <= 0 || janet_fiber_frame(fiber)->func) return janet_wrap_nil();
    int32_t count = fiber->stackstart - JANET_FRAME_SIZE - fiber->frame;
    return janet_wrap_tuple(janet_tuple_n(fiber->data + fiber->frame, count));
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
#ifdef JANET_NANBOX_64
_Static_assert(janet_nanbox_tag(JANET_BUFFER) >> 47 == (0x1FFF0 | 11), "values are not made as api.rs says");
_Static_assert(JANET_NANBOX_PAYLOADBITS == (1ull << 47) - 1, "values are not made as api.rs says");
#endif
#define constant(name, value) _Static_assert(name == value, #name " is not what api.rs says")
#define size(type, bytes) _Static_assert(sizeof(type) == bytes, "the size of " #type " is not what api.rs says")
#define field(type, name, offset) \
    _Static_assert(offsetof(type, name) == offset, "the place of " #type "." #name " is not what api.rs says")

constant(JANET_NUMBER, 0);
constant(JANET_NIL, 1);
constant(JANET_BOOLEAN, 2);
constant(JANET_STRING, 4);
constant(JANET_SYMBOL, 5);
constant(JANET_KEYWORD, 6);
constant(JANET_ARRAY, 7);
constant(JANET_TUPLE, 8);
constant(JANET_TABLE, 9);
constant(JANET_STRUCT, 10);
constant(JANET_BUFFER, 11);
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
constant(JANET_STREAM_NOT_CLOSEABLE, 0x2000);
constant(JANET_BUFFER_FLAG_NO_REALLOC, 0x10000);
constant(JANET_SANDBOX_NET_CONNECT, 4);
constant(JANET_SANDBOX_NET_LISTEN, 8);
constant(JANET_FIBER_EV_FLAG_IN_FLIGHT, 0x1);
constant(JANET_FIBER_EV_FLAG_SUSPENDED, 0x20000);
size(JanetStream, 40);
field(JanetStream, handle, 0);
field(JanetStream, flags, 4);
field(JanetStream, index, 8);
field(JanetStream, read_fiber, 16);
field(JanetStream, write_fiber, 24);
field(JanetStream, methods, 32);
size(JanetFiber, 104 + V);
field(JanetFiber, gc, 0);
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
field(JanetStringHead, length, 16);
field(JanetStringHead, data, 24);
size(JanetStringHead, 24);
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
