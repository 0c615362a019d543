/*
 * A filter in the style of TLS libraries: it takes over the descriptor of a stream after some plain text, exchanges
 * keys, and then encrypts what is written and decrypts what is read, by system calls of its own. (The cipher is a toy.)
 * Any step may have to wait for either direction, as a library's handshake and renewals of keys do.
 */

#include <errno.h>
#include <janet.h>
#include <string.h>
#include <sys/socket.h>

#define HELLO_BYTES 8

/* A stream with a cipher on it. */
typedef struct {
    JanetStream *stream;
    uint8_t hello[HELLO_BYTES];
    uint8_t peer[HELLO_BYTES];
    int32_t hello_sent, hello_received;
    uint32_t out_position, in_position;
} Cipher;

static int mark_cipher(void *memory, size_t size_bytes) {
    (void) size_bytes;
    Cipher *cipher = memory;
    if (cipher->stream) janet_mark(janet_wrap_abstract(cipher->stream));
    return 0;
}

static const JanetAbstractType cipher_type = {"test/cipher", NULL, mark_cipher, JANET_ATEND_GCMARK};

/* What a fiber waits for. */
typedef struct {
    Cipher *cipher;
    JanetBuffer *buffer;
    /* Of the buffer, how much has been encrypted and how much of that has been sent; or how much is to be read. */
    int32_t encrypted, sent, limit;
    enum { HANDSHAKE, WRITE, READ } what;
} Step;

static void end(JanetFiber *fiber, Janet value) {
    janet_schedule(fiber, value);
    janet_async_end(fiber);
}

static void fail(JanetFiber *fiber, const char *reason) {
    janet_cancel(fiber, janet_cstringv(reason));
    janet_async_end(fiber);
}

/* Sends and receives what is left of the keys; 1 when that is done, -1 on an error. */
static int shake_hands(Cipher *cipher) {
    int descriptor = cipher->stream->handle;
    while (cipher->hello_sent < HELLO_BYTES) {
        ssize_t count = send(descriptor, cipher->hello + cipher->hello_sent, 1, MSG_NOSIGNAL);
        if (count < 0) return errno == EAGAIN ? 0 : -1;
        cipher->hello_sent += count;
    }
    while (cipher->hello_received < HELLO_BYTES) {
        int32_t rest = HELLO_BYTES - cipher->hello_received;
        ssize_t count = recv(descriptor, cipher->peer + cipher->hello_received, rest, 0);
        if (count <= 0) return count < 0 && errno == EAGAIN ? 0 : -1;
        cipher->hello_received += count;
    }
    return 1;
}

static void write_on(JanetFiber *fiber, Step *step) {
    Cipher *cipher = step->cipher;
    JanetBuffer *buffer = step->buffer;
    for (; step->encrypted < buffer->count; step->encrypted++) {
        buffer->data[step->encrypted] ^= cipher->hello[cipher->out_position++ % HELLO_BYTES];
    }
    while (step->sent < buffer->count) {
        const uint8_t *rest = buffer->data + step->sent;
        ssize_t count = send(cipher->stream->handle, rest, buffer->count - step->sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0) return fail(fiber, strerror(errno));
        step->sent += count;
    }
    end(fiber, janet_wrap_nil());
}

static void read_on(JanetFiber *fiber, Step *step) {
    Cipher *cipher = step->cipher;
    JanetBuffer *buffer = step->buffer;
    janet_buffer_extra(buffer, step->limit);
    uint8_t *place = buffer->data + buffer->count;
    ssize_t count = recv(cipher->stream->handle, place, step->limit, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) return fail(fiber, strerror(errno));
    for (ssize_t i = 0; i < count; i++) place[i] ^= cipher->peer[cipher->in_position++ % HELLO_BYTES];
    buffer->count += count;
    end(fiber, count ? janet_wrap_buffer(buffer) : janet_wrap_nil());
}

static void on_event(JanetFiber *fiber, JanetAsyncEvent event) {
    Step *step = fiber->ev_state;
    int status;
    switch (event) {
        case JANET_ASYNC_EVENT_MARK:
            janet_mark(janet_wrap_abstract(step->cipher));
            if (step->buffer) janet_mark(janet_wrap_buffer(step->buffer));
            return;
        case JANET_ASYNC_EVENT_CLOSE:
            return fail(fiber, "closed");
        case JANET_ASYNC_EVENT_INIT:
        case JANET_ASYNC_EVENT_READ:
        case JANET_ASYNC_EVENT_WRITE:
        case JANET_ASYNC_EVENT_HUP:
        case JANET_ASYNC_EVENT_ERR:
            if (step->what == WRITE) return write_on(fiber, step);
            if (step->what == READ) return read_on(fiber, step);
            status = shake_hands(step->cipher);
            if (status < 0) fail(fiber, "no handshake");
            if (status > 0) end(fiber, janet_wrap_abstract(step->cipher));
            return;
        default:
            return;
    }
}

static JANET_NO_RETURN void start(Step step, JanetAsyncMode mode) {
    Step *state = janet_malloc(sizeof(Step));
    *state = step;
    janet_async_start(step.cipher->stream, mode, on_event, state);
}

/* (f stream key): the stream with a cipher on it, once both sides have sent their keys. */
static Janet cipher_upgrade(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    JanetStream *stream = janet_getabstract(argv, 0, &janet_stream_type);
    JanetByteView key = janet_getbytes(argv, 1);
    Cipher *cipher = janet_abstract(&cipher_type, sizeof(Cipher));
    memset(cipher, 0, sizeof(Cipher));
    cipher->stream = stream;
    for (int i = 0; i < HELLO_BYTES; i++) cipher->hello[i] = key.len ? key.bytes[i % key.len] : 0;
    start((Step) {.cipher = cipher, .what = HANDSHAKE}, JANET_ASYNC_LISTEN_BOTH);
}

static Janet cipher_write(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    Cipher *cipher = janet_getabstract(argv, 0, &cipher_type);
    JanetByteView data = janet_getbytes(argv, 1);
    JanetBuffer *copy = janet_buffer(data.len);
    janet_buffer_push_bytes(copy, data.bytes, data.len);
    start((Step) {.cipher = cipher, .what = WRITE, .buffer = copy}, JANET_ASYNC_LISTEN_WRITE);
}

static Janet cipher_read(int32_t argc, Janet *argv) {
    janet_arity(argc, 2, 3);
    Cipher *cipher = janet_getabstract(argv, 0, &cipher_type);
    int32_t limit = janet_getnat(argv, 1);
    JanetBuffer *buffer = janet_optbuffer(argv, argc, 2, 10);
    start((Step) {.cipher = cipher, .what = READ, .buffer = buffer, .limit = limit}, JANET_ASYNC_LISTEN_READ);
}

static Janet cipher_close(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    Cipher *cipher = janet_getabstract(argv, 0, &cipher_type);
    janet_stream_close(cipher->stream);
    return janet_wrap_nil();
}

static const JanetReg functions[] = {
    {"upgrade", cipher_upgrade, ""},
    {"write", cipher_write, ""},
    {"read", cipher_read, ""},
    {"close", cipher_close, ""},
    {NULL, NULL, NULL},
};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_register_abstract_type(&cipher_type);
    janet_cfuns(env, "cipher", functions);
}
