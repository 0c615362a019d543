/*
 * Every public function by which C code takes part in the event loop, as a function of Janet, and what C code does that
 * uses the descriptor of a stream itself.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <janet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static JanetStream *stream_argument(const Janet *argv, int32_t index) {
    return janet_getabstract(argv, index, &janet_stream_type);
}

static JanetBuffer *buffer_argument(Janet *argv, int32_t argc, int32_t index) {
    return janet_optbuffer(argv, argc, index, 10);
}

static Janet error_name(int number) {
    return janet_ckeywordv(number == EAGAIN ? "again" : strerror(number));
}

/* Reads and writes by the VM's state machines. */

#define READER(name, call) \
    static Janet name(int32_t argc, Janet *argv) { \
        janet_arity(argc, 2, 3); \
        JanetStream *stream = stream_argument(argv, 0); \
        int32_t count = janet_getinteger(argv, 1); \
        JanetBuffer *buffer = buffer_argument(argv, argc, 2); \
        call; \
    }
READER(events_read, janet_ev_read(stream, buffer, count))
READER(events_readchunk, janet_ev_readchunk(stream, buffer, count))
READER(events_recv, janet_ev_recv(stream, buffer, count, MSG_NOSIGNAL))
READER(events_recvchunk, janet_ev_recvchunk(stream, buffer, count, MSG_NOSIGNAL))
READER(events_recvfrom, janet_ev_recvfrom(stream, buffer, count, MSG_NOSIGNAL))
READER(events_peek, janet_ev_recv(stream, buffer, count, MSG_PEEK))

#define WRITER(name, type, get, call) \
    static Janet name(int32_t argc, Janet *argv) { \
        janet_fixarity(argc, 2); \
        JanetStream *stream = stream_argument(argv, 0); \
        type data = get(argv, 1); \
        call; \
    }
WRITER(events_write_buffer, JanetBuffer *, janet_getbuffer, janet_ev_write_buffer(stream, data))
WRITER(events_write_string, JanetString, janet_getstring, janet_ev_write_string(stream, data))
WRITER(events_send_buffer, JanetBuffer *, janet_getbuffer, janet_ev_send_buffer(stream, data, MSG_NOSIGNAL))
WRITER(events_send_string, JanetString, janet_getstring, janet_ev_send_string(stream, data, MSG_NOSIGNAL))

/* (f stream address data): an address is what net/address gives. */
#define SENDER(name, type, get, call) \
    static Janet name(int32_t argc, Janet *argv) { \
        janet_fixarity(argc, 3); \
        JanetStream *stream = stream_argument(argv, 0); \
        if (!janet_checktype(argv[1], JANET_ABSTRACT)) janet_panic("expected an address"); \
        void *address = janet_unwrap_abstract(argv[1]); \
        type data = get(argv, 2); \
        call; \
    }
SENDER(events_sendto_buffer, JanetBuffer *, janet_getbuffer, \
       janet_ev_sendto_buffer(stream, data, address, MSG_NOSIGNAL))
SENDER(events_sendto_string, JanetString, janet_getstring, \
       janet_ev_sendto_string(stream, data, address, MSG_NOSIGNAL))

/* State machines of our own. */

typedef struct {
    JanetBuffer *data;
    int32_t done;
    int32_t limit;
    int takes_connections;
    /* For each connection, instead of the first as the result; ends after `limit` of them. */
    JanetFunction *handler;
    /* Closes the stream in the middle of a call by the loop. */
    int closes;
} Wait;

static Wait *new_wait(JanetBuffer *data, int32_t limit) {
    Wait *wait = janet_malloc(sizeof(Wait));
    *wait = (Wait) {.data = data, .limit = limit};
    return wait;
}

static void wait_ends(JanetFiber *fiber, Janet value) {
    janet_schedule(fiber, value);
    janet_async_end(fiber);
}

static void mark_wait(const Wait *wait) {
    if (wait->data) janet_mark(janet_wrap_buffer(wait->data));
    if (wait->handler) janet_mark(janet_wrap_function(wait->handler));
}

static void on_readable(JanetFiber *fiber, JanetAsyncEvent event) {
    JanetStream *stream = fiber->ev_stream;
    Wait *wait = fiber->ev_state;
    if (event == JANET_ASYNC_EVENT_MARK) mark_wait(wait);
    if (event == JANET_ASYNC_EVENT_CLOSE) wait_ends(fiber, janet_ckeywordv("closed"));
    if (event != JANET_ASYNC_EVENT_INIT && event != JANET_ASYNC_EVENT_READ && event != JANET_ASYNC_EVENT_HUP
            && event != JANET_ASYNC_EVENT_ERR) return;
    janet_buffer_extra(wait->data, wait->limit);
    ssize_t count = recv(stream->handle, wait->data->data + wait->data->count, wait->limit, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count > 0) wait->data->count += count;
    Janet result = count > 0 ? janet_wrap_buffer(wait->data) : count == 0 ? janet_wrap_nil() : error_name(errno);
    if (wait->closes) {
        wait->closes = 0;
        /* Calls this function with the event CLOSE, which ends the wait and frees its state. */
        janet_stream_close(stream);
        return;
    }
    wait_ends(fiber, result);
}

static void on_writable(JanetFiber *fiber, JanetAsyncEvent event) {
    JanetStream *stream = fiber->ev_stream;
    Wait *wait = fiber->ev_state;
    if (event == JANET_ASYNC_EVENT_MARK) mark_wait(wait);
    if (event == JANET_ASYNC_EVENT_CLOSE) wait_ends(fiber, janet_ckeywordv("closed"));
    if (event == JANET_ASYNC_EVENT_HUP) wait_ends(fiber, janet_ckeywordv("hup"));
    if (event != JANET_ASYNC_EVENT_INIT && event != JANET_ASYNC_EVENT_WRITE) return;
    while (wait->done < wait->data->count) {
        const uint8_t *rest = wait->data->data + wait->done;
        ssize_t count = send(stream->handle, rest, wait->data->count - wait->done, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0) return wait_ends(fiber, error_name(errno));
        wait->done += count;
    }
    wait_ends(fiber, janet_wrap_nil());
}

static void on_connection(JanetFiber *fiber, JanetAsyncEvent event) {
    JanetStream *stream = fiber->ev_stream;
    Wait *wait = fiber->ev_state;
    if (event == JANET_ASYNC_EVENT_MARK) mark_wait(wait);
    if (event == JANET_ASYNC_EVENT_CLOSE) wait_ends(fiber, janet_ckeywordv("closed"));
    if (event != JANET_ASYNC_EVENT_INIT && event != JANET_ASYNC_EVENT_READ) return;
    /* One for each event: a level-triggered stream gets another event for the next. */
    int connection = accept4(stream->handle, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0) return;
    uint32_t flags = JANET_STREAM_READABLE | JANET_STREAM_WRITABLE | JANET_STREAM_SOCKET;
    Janet value = janet_wrap_abstract(janet_stream(connection, flags, NULL));
    if (!wait->handler) return wait_ends(fiber, value);
    janet_schedule(janet_fiber(wait->handler, 64, 1, &value), janet_wrap_nil());
    if (++wait->done == wait->limit) wait_ends(fiber, janet_wrap_integer(wait->done));
}

static Janet events_async_read(int32_t argc, Janet *argv) {
    janet_arity(argc, 2, 3);
    JanetStream *stream = stream_argument(argv, 0);
    int32_t limit = janet_getinteger(argv, 1);
    Wait *wait = new_wait(buffer_argument(argv, argc, 2), limit);
    janet_async_start(stream, JANET_ASYNC_LISTEN_READ, on_readable, wait);
}

static Janet events_async_read_fiber(int32_t argc, Janet *argv) {
    janet_arity(argc, 2, 3);
    JanetStream *stream = stream_argument(argv, 0);
    int32_t limit = janet_getinteger(argv, 1);
    Wait *wait = new_wait(buffer_argument(argv, argc, 2), limit);
    janet_async_start_fiber(janet_root_fiber(), stream, JANET_ASYNC_LISTEN_READ, on_readable, wait);
    janet_async_in_flight(janet_root_fiber());
    janet_await();
}

/* Closes the stream when there are bytes, from inside the callback. */
static Janet events_async_close(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = stream_argument(argv, 0);
    Wait *wait = new_wait(janet_buffer(10), 100);
    wait->closes = 1;
    janet_async_start(stream, JANET_ASYNC_LISTEN_BOTH, on_readable, wait);
}

static Janet events_async_write(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetStream *stream = stream_argument(argv, 0);
    Wait *wait = new_wait(janet_getbuffer(argv, 1), 0);
    janet_async_start(stream, JANET_ASYNC_LISTEN_WRITE, on_writable, wait);
}

static Janet events_async_accept(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = stream_argument(argv, 0);
    janet_async_start(stream, JANET_ASYNC_LISTEN_READ, on_connection, new_wait(NULL, 1));
}

/* (f listener handler count): each connection goes to a fiber of its own. The listener has to be level-triggered. */
static Janet events_accept_each(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 3);
    JanetStream *stream = stream_argument(argv, 0);
    janet_stream_flags(stream, JANET_STREAM_ACCEPTABLE);
    JanetFunction *handler = janet_getfunction(argv, 1);
    Wait *wait = new_wait(NULL, janet_getinteger(argv, 2));
    wait->handler = handler;
    janet_async_start(stream, JANET_ASYNC_LISTEN_READ, on_connection, wait);
}

static Janet events_accept_loop(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 3);
    janet_stream_level_triggered(stream_argument(argv, 0));
    return events_accept_each(argc, argv);
}

/* Streams. */

static Janet events_level(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_stream_level_triggered(stream_argument(argv, 0));
    return argv[0];
}

static Janet events_edge(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_stream_edge_triggered(stream_argument(argv, 0));
    return argv[0];
}

static Janet events_close(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = stream_argument(argv, 0);
    janet_stream_close(stream);
    return janet_wrap_boolean(stream->handle == -1 && (stream->flags & JANET_STREAM_CLOSED));
}

static Janet events_is_readable_stream(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_stream_flags(stream_argument(argv, 0), JANET_STREAM_READABLE);
    return janet_wrap_true();
}

static Janet events_pair(int32_t argc, Janet *argv) {
    (void) argv;
    janet_fixarity(argc, 0);
    int ends[2];
    uint32_t flags = JANET_STREAM_READABLE | JANET_STREAM_WRITABLE | JANET_STREAM_SOCKET;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) janet_panicv(janet_ev_lasterr());
    Janet streams[] = {
        janet_wrap_abstract(janet_stream(ends[0], flags, NULL)),
        janet_wrap_abstract(janet_stream_ext(ends[1], flags, NULL, sizeof(JanetStream) + 16)),
    };
    return janet_wrap_tuple(janet_tuple_n(streams, 2));
}

/* Fibers. */

static Janet events_sleep(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_sleep_await(janet_getnumber(argv, 0));
}

static Janet events_await(int32_t argc, Janet *argv) {
    (void) argv;
    janet_fixarity(argc, 0);
    janet_await();
}

static Janet events_timeout(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_addtimeout(janet_getnumber(argv, 0));
    return janet_wrap_nil();
}

static Janet events_timeout_nil(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    janet_addtimeout_nil(janet_getnumber(argv, 0));
    return janet_wrap_nil();
}

static Janet events_schedule(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 3);
    JanetFiber *fiber = janet_getfiber(argv, 0);
    const uint8_t *how = janet_getkeyword(argv, 1);
    if (!janet_cstrcmp(how, "schedule")) janet_schedule(fiber, argv[2]);
    if (!janet_cstrcmp(how, "signal")) janet_schedule_signal(fiber, argv[2], JANET_SIGNAL_OK);
    if (!janet_cstrcmp(how, "soon")) janet_schedule_soon(fiber, argv[2], JANET_SIGNAL_OK);
    if (!janet_cstrcmp(how, "error")) janet_schedule_signal(fiber, argv[2], JANET_SIGNAL_ERROR);
    if (!janet_cstrcmp(how, "cancel")) janet_cancel(fiber, argv[2]);
    return janet_wrap_nil();
}

/* Keeps the loop from ending, or no longer does. */
static Janet events_hold(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    if (janet_getboolean(argv, 0)) janet_ev_inc_refcount();
    else janet_ev_dec_refcount();
    return janet_wrap_nil();
}

/* Threads. */

/* Waits for a byte in a pipe, so that the fibers of the VM run while it does. */
static JanetEVGenericMessage on_thread(JanetEVGenericMessage message) {
    char byte;
    if (message.tag != -1 && read(message.tag, &byte, 1) != 1) message.argi = -1;
    message.argi *= 2;
    message.tag = JANET_EV_TCTAG_INTEGER;
    return message;
}

static void after_thread(JanetEVGenericMessage message) {
    janet_schedule(message.fiber, janet_wrap_integer(message.argi));
    janet_gcunroot(janet_wrap_fiber(message.fiber));
}

static Janet events_threaded_call(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetEVGenericMessage message = {.tag = janet_getinteger(argv, 0), .argi = janet_getinteger(argv, 1)};
    message.fiber = janet_root_fiber();
    janet_gcroot(janet_wrap_fiber(message.fiber));
    janet_ev_threaded_call(on_thread, message, after_thread);
    janet_await();
}

static Janet events_threaded_await(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    janet_ev_threaded_await(on_thread, janet_getinteger(argv, 0), janet_getinteger(argv, 1), NULL);
}

static void on_post(JanetEVGenericMessage message) {
    janet_ev_dec_refcount();
    after_thread(message);
}

static JanetEVGenericMessage post_from_thread(JanetEVGenericMessage message) {
    JanetVM *vm = message.argp;
    JanetEVGenericMessage inner = {.argi = message.argi + 1, .fiber = message.fiber};
    janet_ev_post_event(vm, on_post, inner);
    message.tag = JANET_EV_TCTAG_NIL;
    message.fiber = NULL;
    return message;
}

static void ignore(JanetEVGenericMessage message) {
    (void) message;
}

/* An event that another thread posts. */
static Janet events_post(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetEVGenericMessage message = {.argi = janet_getinteger(argv, 0), .argp = janet_local_vm()};
    message.fiber = janet_root_fiber();
    janet_gcroot(janet_wrap_fiber(message.fiber));
    janet_ev_inc_refcount();
    janet_ev_threaded_call(post_from_thread, message, ignore);
    janet_await();
}

/* The descriptor itself: that of a stream, or a number. */

static int descriptor_argument(const Janet *argv) {
    return janet_checktype(argv[0], JANET_NUMBER) ? janet_getinteger(argv, 0) : stream_argument(argv, 0)->handle;
}

static Janet bytes_or_error(JanetBuffer *buffer, ssize_t count) {
    if (count < 0) return error_name(errno);
    buffer->count += count;
    return janet_wrap_string(janet_string(buffer->data, buffer->count));
}

static Janet events_raw_recv(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetBuffer *buffer = janet_buffer(janet_getinteger(argv, 1));
    return bytes_or_error(buffer, recv(descriptor_argument(argv), buffer->data, buffer->capacity, 0));
}

static Janet events_raw_read(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetBuffer *buffer = janet_buffer(janet_getinteger(argv, 1));
    return bytes_or_error(buffer, read(descriptor_argument(argv), buffer->data, buffer->capacity));
}

static Janet count_or_error(ssize_t count) {
    return count < 0 ? error_name(errno) : janet_wrap_integer((int32_t) count);
}

static Janet events_raw_send(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetByteView data = janet_getbytes(argv, 1);
    return count_or_error(send(descriptor_argument(argv), data.bytes, data.len, MSG_NOSIGNAL));
}

static Janet events_raw_write(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetByteView data = janet_getbytes(argv, 1);
    return count_or_error(write(descriptor_argument(argv), data.bytes, data.len));
}

static Janet events_raw_accept(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    int connection = accept4(stream_argument(argv, 0)->handle, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0) return error_name(errno);
    uint32_t flags = JANET_STREAM_READABLE | JANET_STREAM_WRITABLE | JANET_STREAM_SOCKET;
    return janet_wrap_abstract(janet_stream(connection, flags, NULL));
}

static Janet events_is_nonblocking(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    return janet_wrap_boolean(fcntl(stream_argument(argv, 0)->handle, F_GETFL) & O_NONBLOCK);
}

static Janet events_descriptor(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    return janet_wrap_integer(stream_argument(argv, 0)->handle);
}

/* Another owner takes the descriptor: the stream has none any more, as when a library has taken it over. */
static Janet events_take_over(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = stream_argument(argv, 0);
    int descriptor = stream->handle;
    stream->handle = -1;
    return janet_wrap_integer(descriptor);
}

/* Another owner has the descriptor, too: the stream does not close it. */
static Janet events_keep_open(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = stream_argument(argv, 0);
    stream->flags |= JANET_STREAM_NOT_CLOSEABLE;
    return janet_wrap_integer(stream->handle);
}

/* A stream of the VM's with the methods of another stream, and the descriptor at its other end. */
static Janet events_like(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    int ends[2];
    uint32_t flags = JANET_STREAM_READABLE | JANET_STREAM_WRITABLE | JANET_STREAM_SOCKET;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) janet_panicv(janet_ev_lasterr());
    Janet values[] = {
        janet_wrap_abstract(janet_stream(ends[0], flags, stream_argument(argv, 0)->methods)),
        janet_wrap_integer(ends[1]),
    };
    return janet_wrap_tuple(janet_tuple_n(values, 2));
}

static Janet events_close_descriptor(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    return janet_wrap_integer(close(janet_getinteger(argv, 0)));
}

/* Blocks until there is something to read, or the end of the stream. */
static Janet events_arrived(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    struct pollfd entry = {.fd = descriptor_argument(argv), .events = POLLIN};
    if (poll(&entry, 1, 60000) != 1) janet_panic("nothing has arrived");
    return argv[0];
}

/* So that little makes a writer wait. */
static Janet events_small_buffers(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    int size_bytes = 4096, descriptor = stream_argument(argv, 0)->handle;
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size_bytes, sizeof(size_bytes));
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size_bytes, sizeof(size_bytes));
    return argv[0];
}

/* Has the next close reset the connection. */
static Janet events_reset_at_close(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    struct linger now = {.l_onoff = 1};
    setsockopt(stream_argument(argv, 0)->handle, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    return argv[0];
}

/* How many descriptors are registered with epoll instances of this process; with :closed, how many of these are closed
 * here. A forked child has its parent's instances, too, which change at any time. */
static Janet events_registrations(int32_t argc, Janet *argv) {
    janet_arity(argc, 0, 1);
    int only_closed = argc == 1 && janet_keyeq(argv[0], "closed");
    int32_t registrations = 0;
    for (int descriptor = 0; descriptor < 1024; descriptor++) {
        char path[64], line[256];
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", descriptor);
        FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file)) {
            int registered;
            if (sscanf(line, "tfd: %d", &registered) != 1) continue;
            registrations += !only_closed || fcntl(registered, F_GETFD) == -1;
        }
        if (file) fclose(file);
    }
    return janet_wrap_integer(registrations);
}

static const JanetReg functions[] = {
    {"read", events_read, ""},
    {"readchunk", events_readchunk, ""},
    {"recv", events_recv, ""},
    {"recvchunk", events_recvchunk, ""},
    {"recvfrom", events_recvfrom, ""},
    {"peek", events_peek, ""},
    {"write-buffer", events_write_buffer, ""},
    {"write-string", events_write_string, ""},
    {"send-buffer", events_send_buffer, ""},
    {"send-string", events_send_string, ""},
    {"sendto-buffer", events_sendto_buffer, ""},
    {"sendto-string", events_sendto_string, ""},
    {"async-read", events_async_read, ""},
    {"async-read-fiber", events_async_read_fiber, ""},
    {"async-close", events_async_close, ""},
    {"async-write", events_async_write, ""},
    {"async-accept", events_async_accept, ""},
    {"accept-each", events_accept_each, ""},
    {"accept-loop", events_accept_loop, ""},
    {"cfun-close", janet_cfun_stream_close, ""},
    {"cfun-read", janet_cfun_stream_read, ""},
    {"cfun-chunk", janet_cfun_stream_chunk, ""},
    {"cfun-write", janet_cfun_stream_write, ""},
    {"level", events_level, ""},
    {"edge", events_edge, ""},
    {"close", events_close, ""},
    {"readable-stream?", events_is_readable_stream, ""},
    {"pair", events_pair, ""},
    {"sleep", events_sleep, ""},
    {"await", events_await, ""},
    {"timeout", events_timeout, ""},
    {"timeout-nil", events_timeout_nil, ""},
    {"schedule", events_schedule, ""},
    {"hold", events_hold, ""},
    {"threaded-call", events_threaded_call, ""},
    {"threaded-await", events_threaded_await, ""},
    {"post", events_post, ""},
    {"raw-recv", events_raw_recv, ""},
    {"raw-read", events_raw_read, ""},
    {"raw-send", events_raw_send, ""},
    {"raw-write", events_raw_write, ""},
    {"raw-accept", events_raw_accept, ""},
    {"nonblocking?", events_is_nonblocking, ""},
    {"descriptor", events_descriptor, ""},
    {"take-over", events_take_over, ""},
    {"keep-open", events_keep_open, ""},
    {"like", events_like, ""},
    {"close-descriptor", events_close_descriptor, ""},
    {"arrived", events_arrived, ""},
    {"small-buffers", events_small_buffers, ""},
    {"reset-at-close", events_reset_at_close, ""},
    {"registrations", events_registrations, ""},
    {NULL, NULL, NULL},
};

JANET_MODULE_ENTRY(JanetTable *env) {
    /* The VM's janet_ev_write functions use write(2). */
    signal(SIGPIPE, SIG_IGN);
    janet_cfuns(env, "events", functions);
}
