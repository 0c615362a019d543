/*
 * Native modules: C code that waits on streams by the VM's public functions, or that uses their descriptors.
 *
 * The VM waits for descriptors by epoll, where streams of ours are not registered. Once C code waits on one, it is
 * lent to the VM, that is, registered there; when Janet code uses it again, it is taken back.
 */

#include <link.h>

/* Whether a stream is ours, and neither closed nor without its descriptor, which C code may have taken over. */
static int is_ours_and_open(const JanetStream *stream) {
    return is_ours(stream) && !(stream->flags & JANET_STREAM_CLOSED) && stream->handle != -1;
}

static void lend(JanetStream *stream) {
    if (!is_ours_and_open(stream)) return;
    if (hooks()->lend(stream)) janet_panicv(janet_ev_lasterr());
    if (stream->index & RINGSPUN_LENT) return;
    struct epoll_event event = events_of(stream);
    if (ringspun_epoll_ctl(janet_vm.epoll, EPOLL_CTL_ADD, stream->handle, &event)) janet_panicv(janet_ev_lasterr());
    stream->index |= RINGSPUN_LENT;
}

/* Ends the waits of C code on a stream that is about to be closed, as janet_stream_close does. */
void ringspun_vm_end_waits(JanetStream *stream) {
    JanetFiber *reader = stream->read_fiber;
    JanetFiber *writer = stream->write_fiber;
    if (reader && reader->ev_callback) reader->ev_callback(reader, JANET_ASYNC_EVENT_CLOSE);
    if (writer && writer->ev_callback) writer->ev_callback(writer, JANET_ASYNC_EVENT_CLOSE);
    stream->read_fiber = NULL;
    stream->write_fiber = NULL;
}

/* What native modules meet under the public names: the VM's own functions, on a stream that is lent before. */
#define DEFINE(name, parameters, arguments) \
    JANET_API void ringspun_public_##name parameters __asm__(#name); \
    void ringspun_public_##name parameters { \
        lend(stream); \
        name arguments; \
    }
STREAM_FUNCTIONS(DEFINE)

/* Those that read find what Janet code has received and not used, such as that of a read that was cancelled. */
#define DEFINE_READ(name, parameters, arguments, flags, how) \
    JANET_API void ringspun_public_##name parameters __asm__(#name); \
    void ringspun_public_##name parameters { \
        if (is_ours_and_open(stream) && !((flags) & MSG_PEEK) \
                && hooks()->read_received(stream, buffer, count, how)) janet_await(); \
        lend(stream); \
        name arguments; \
    }
READ_FUNCTIONS(DEFINE_READ)

#define DECLARE_STATE(name) \
    JANET_API void ringspun_public_##name(JanetStream *stream) __asm__(#name);
STATE_FUNCTIONS(DECLARE_STATE)

/* Is remembered, for when the stream is lent again. */
void ringspun_public_janet_stream_level_triggered(JanetStream *stream) {
    if (is_ours_and_open(stream)) stream->index |= RINGSPUN_LEVEL;
    lend(stream);
    janet_stream_level_triggered(stream);
}

void ringspun_public_janet_stream_edge_triggered(JanetStream *stream) {
    if (is_ours_and_open(stream)) stream->index &= ~RINGSPUN_LEVEL;
    lend(stream);
    janet_stream_edge_triggered(stream);
}

void ringspun_public_janet_stream_close(JanetStream *stream) {
    if (is_ours_and_open(stream)) {
        ringspun_vm_end_waits(stream);
        /* Unless a callback has closed it. */
        if (is_ours_and_open(stream) && hooks()->close(stream)) return;
    }
    janet_stream_close(stream);
}

/* The VM closes the descriptor, unless C code has taken that over. */
static int janet_stream_gc(void *memory, size_t size_bytes) {
    JanetStream *stream = memory;
    if (is_ours(stream)) hooks()->collected(stream);
    return ringspun_vm_own_stream_gc(memory, size_bytes);
}

/* The same for functions that Janet code can call: they become the methods of the stream. */
static Janet call_method(const char *method, JanetCFunction otherwise, int32_t argc, Janet *argv) {
    JanetStream *stream = argc > 0 ? janet_checkabstract(argv[0], &janet_stream_type) : NULL;
    if (!stream || !is_ours(stream)) return otherwise(argc, argv);
    const JanetMethod *found = hooks()->methods;
    while (strcmp(found->name, method)) found++;
    return found->cfun(argc, argv);
}

#define DEFINE_METHOD(name, method) \
    JANET_API Janet ringspun_public_##name(int32_t argc, Janet *argv) __asm__(#name); \
    Janet ringspun_public_##name(int32_t argc, Janet *argv) { \
        return call_method(method, name, argc, argv); \
    }
STREAM_METHODS(DEFINE_METHOD)

/* Whether the names that a library imports or exports contain one by which C code gets at streams. */
static int names_streams(const struct link_map *library) {
    static const char *const prefixes[] = {
        "janet_stream", "janet_async_", "janet_ev_read", "janet_ev_recv", "janet_ev_write", "janet_ev_send",
    };
    const char *names = NULL;
    size_t length = 0;
    for (const ElfW(Dyn) *entry = library->l_ld; entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_STRSZ) length = entry->d_un.d_val;
        if (entry->d_tag != DT_STRTAB) continue;
        /* Relative to the library in some C libraries. */
        ElfW(Addr) address = entry->d_un.d_ptr;
        names = (const char *) (address < library->l_addr ? library->l_addr + address : address);
    }
    for (const char *name = names, *end = names + length; name && name < end; name += strlen(name) + 1) {
        for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
            if (!strncmp(name, prefixes[i], strlen(prefixes[i]))) return 1;
        }
    }
    return 0;
}

/* The VM loads a native module, or a library for the foreign function interface, which may use any descriptor. */
void *ringspun_dlopen(const char *path, int mode) {
    void *library = dlopen(path, mode);
    struct link_map *loaded = NULL;
    if (!library || !hooks()) return library;
    int may_use_streams = !dlsym(library, "_janet_init") || dlinfo(library, RTLD_DI_LINKMAP, &loaded);
    /* What the module needs has been loaded after it. */
    for (; loaded && !may_use_streams; loaded = loaded->l_next) may_use_streams = names_streams(loaded);
    if (may_use_streams) hooks()->share_streams();
    return library;
}
