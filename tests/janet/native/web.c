/*
 * An HTTP server in C: its own accept loop on a listener of net/, and a state machine for each connection, with
 * keep-alive and pipelining. Answers with the path of the request.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <janet.h>
#include <string.h>
#include <sys/socket.h>

typedef struct {
    JanetBuffer *in;
    JanetBuffer *out;
    int32_t sent;
    int is_over;
} Connection;

/* Moves the answers of all complete requests to the output. */
static void answer(Connection *connection) {
    JanetBuffer *in = connection->in;
    uint8_t *end;
    while ((end = memmem(in->data, in->count, "\r\n\r\n", 4))) {
        int32_t length = (int32_t) (end - in->data) + 4;
        uint8_t *path = memchr(in->data, ' ', length);
        uint8_t *after = path ? memchr(path + 1, ' ', in->data + length - path - 1) : NULL;
        int32_t path_length = after ? (int32_t) (after - path - 1) : 0;
        janet_formatb(connection->out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", path_length);
        if (after) janet_buffer_push_bytes(connection->out, path + 1, path_length);
        memmove(in->data, in->data + length, in->count - length);
        in->count -= length;
    }
}

/* Receives and sends what is possible; 1 when the connection is over. */
static int proceed(int descriptor, Connection *connection) {
    while (!connection->is_over) {
        janet_buffer_extra(connection->in, 4096);
        ssize_t count = recv(descriptor, connection->in->data + connection->in->count, 4096, 0);
        if (count < 0 && errno == EAGAIN) break;
        if (count <= 0) connection->is_over = 1;
        else connection->in->count += count;
    }
    answer(connection);
    while (connection->sent < connection->out->count) {
        const uint8_t *rest = connection->out->data + connection->sent;
        ssize_t count = send(descriptor, rest, connection->out->count - connection->sent, MSG_NOSIGNAL);
        if (count < 0) return errno != EAGAIN;
        connection->sent += count;
    }
    connection->out->count = connection->sent = 0;
    return connection->is_over;
}

static void on_connection_event(JanetFiber *fiber, JanetAsyncEvent event) {
    Connection *connection = fiber->ev_state;
    JanetStream *stream = fiber->ev_stream;
    if (event == JANET_ASYNC_EVENT_MARK) {
        janet_mark(janet_wrap_buffer(connection->in));
        janet_mark(janet_wrap_buffer(connection->out));
    } else if (event == JANET_ASYNC_EVENT_CLOSE) {
        janet_schedule(fiber, janet_wrap_nil());
        janet_async_end(fiber);
    } else if (event != JANET_ASYNC_EVENT_DEINIT && proceed(stream->handle, connection)) {
        janet_stream_close(stream);
    }
}

static Janet web_serve(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetStream *stream = janet_getabstract(argv, 0, &janet_stream_type);
    Connection *connection = janet_malloc(sizeof(Connection));
    *connection = (Connection) {.in = janet_buffer(4096), .out = janet_buffer(4096)};
    janet_async_start(stream, JANET_ASYNC_LISTEN_BOTH, on_connection_event, connection);
}

typedef struct {
    JanetFunction *handler;
} Accepting;

static void on_listener_event(JanetFiber *fiber, JanetAsyncEvent event) {
    Accepting *accepting = fiber->ev_state;
    if (event == JANET_ASYNC_EVENT_MARK) janet_mark(janet_wrap_function(accepting->handler));
    if (event == JANET_ASYNC_EVENT_CLOSE) {
        janet_schedule(fiber, janet_wrap_nil());
        janet_async_end(fiber);
    }
    if (event != JANET_ASYNC_EVENT_INIT && event != JANET_ASYNC_EVENT_READ) return;
    int descriptor = accept4(fiber->ev_stream->handle, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0) return;
    uint32_t flags = JANET_STREAM_READABLE | JANET_STREAM_WRITABLE | JANET_STREAM_SOCKET;
    Janet stream = janet_wrap_abstract(janet_stream(descriptor, flags, NULL));
    janet_schedule(janet_fiber(accepting->handler, 64, 1, &stream), janet_wrap_nil());
}

/* (f listener handler), where the handler calls web/serve. Ends when the listener is closed. */
static Janet web_accept_loop(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetStream *stream = janet_getabstract(argv, 0, &janet_stream_type);
    Accepting *accepting = janet_malloc(sizeof(Accepting));
    accepting->handler = janet_getfunction(argv, 1);
    janet_stream_level_triggered(stream);
    janet_async_start(stream, JANET_ASYNC_LISTEN_READ, on_listener_event, accepting);
}

static const JanetReg functions[] = {
    {"serve", web_serve, ""}, {"accept-loop", web_accept_loop, ""}, {NULL, NULL, NULL}
};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "web", functions);
}
