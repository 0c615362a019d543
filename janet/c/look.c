/*
 * Looks of other threads into a VM that runs: which run of a fiber it is in, and that fiber's stack.
 *
 * Memory is read through the kernel, by process_vm_readv(2), as the VM may change or free it meanwhile: what is not
 * there any more is an error, and what changes during the look is nonsense at worst, whose lengths are bounded here.
 */

#include <sys/uio.h>

#define LOOK_FIBERS_MAX 64
#define LOOK_FRAMES_MAX 64
#define LOOK_SLOTS 1024
#define LOOK_TRIES 200
#define LOOK_NAME_MAX 128
#define LOOK_REGISTRY_MAX 65536

/* Copies memory of this process; 0 if not all of it is there. */
static int look_at(const void *from, void *to, size_t size) {
    struct iovec local = {to, size}, remote = {(void *) from, size};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t) size;
}

/* 0 if this process may look at itself, or else why not. */
int ringspun_vm_look_errno(void) {
    int seen, here = 0;
    return look_at(&here, &seen, sizeof(seen)) ? 0 : errno;
}

/* Copies a text that ends with a zero, or its beginning. */
static void look_at_text(const char *from, char *to) {
    size_t length = 0;
    while (length < LOOK_NAME_MAX - 1 && look_at(from + length, to + length, 1) && to[length]) length++;
    to[length] = 0;
}

typedef struct {
    char *start;
    size_t length;
    size_t size;
} LookText;

static void look_print(LookText *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = text->size - text->length;
    int printed = vsnprintf(text->start + text->length, room, format, arguments);
    if (printed > 0) text->length += (size_t) printed < room ? (size_t) printed : room - 1;
    va_end(arguments);
}

/* The name of a C function, and where it is in the sources, as far as the VM knows. */
static void look_print_cfunction(LookText *text, const JanetVM *vm, JanetCFunction function) {
    JanetVM seen;
    if (!look_at(vm, &seen, sizeof(seen)) || seen.registry_count > LOOK_REGISTRY_MAX) return;
    for (size_t i = 0; i < seen.registry_count; i++) {
        JanetCFunRegistry entry;
        char name[LOOK_NAME_MAX], prefix[LOOK_NAME_MAX], source[LOOK_NAME_MAX];
        if (!look_at(seen.registry + i, &entry, sizeof(entry))) return;
        if (entry.cfun != function || !entry.name) continue;
        look_at_text(entry.name, name);
        look_at_text(entry.name_prefix, prefix);
        look_at_text(entry.source_file, source);
        look_print(text, "%s%s%s", prefix, *prefix ? "/" : "", name);
        if (*source) look_print(text, " [%s]", source);
        if (entry.source_line > 0) look_print(text, " on line %d", (int) entry.source_line);
        return;
    }
    look_print(text, "<cfunction>");
}

static void look_print_function(LookText *text, const JanetStackFrame *frame) {
    JanetFunction function;
    JanetFuncDef def;
    JanetSourceMapping place;
    char name[LOOK_NAME_MAX], source[LOOK_NAME_MAX];
    if (!look_at(frame->func, &function, sizeof(function)) || !look_at(function.def, &def, sizeof(def))) return;
    look_at_text((const char *) def.name, name);
    look_at_text((const char *) def.source, source);
    look_print(text, "%s", *name ? name : "<anonymous>");
    if (*source) look_print(text, " [%s]", source);
    ptrdiff_t offset = frame->pc - def.bytecode;
    if (!def.sourcemap || offset < 0 || offset >= def.bytecode_length) return;
    if (!look_at(def.sourcemap + offset, &place, sizeof(place))) return;
    look_print(text, " on line %d, column %d", (int) place.line, (int) place.column);
}

/* A fiber, and its newest frames. */
typedef struct {
    JanetFiber fiber;
    /* The index of the first of the slots that follow. */
    int32_t begin;
    Janet slots[LOOK_SLOTS];
} LookFiber;

/* Whether a frame is of a function, and at an instruction of it. */
static int is_of_function(const JanetStackFrame *frame) {
    JanetFunction function;
    JanetFuncDef def;
    if (!frame->func) return frame->pc != NULL;
    if (!look_at(frame->func, &function, sizeof(function)) || !look_at(function.def, &def, sizeof(def))) return 0;
    return frame->pc >= def.bytecode && frame->pc - def.bytecode < def.bytecode_length;
}

/* Whether each of the frames that were copied is one, and leads to an older one: not so while a call begins. */
static int has_whole_chain(const LookFiber *seen) {
    int32_t at = seen->fiber.frame;
    while (at >= seen->begin + JANET_FRAME_SIZE) {
        JanetStackFrame frame;
        memcpy(&frame, seen->slots + (at - JANET_FRAME_SIZE - seen->begin), sizeof(frame));
        if (frame.prevframe >= at || frame.prevframe < 0 || !is_of_function(&frame)) return 0;
        at = frame.prevframe;
    }
    return 1;
}

/* Copies a fiber between two of its calls, if one of some looks finds it so: 0 if it is not there. */
static int look_at_fiber(const JanetFiber *from, LookFiber *to) {
    for (int tries = 0; tries < LOOK_TRIES; tries++) {
        JanetFiber after;
        if (!look_at(from, &to->fiber, sizeof(to->fiber))) return 0;
        int32_t end = to->fiber.frame;
        if (end < 0 || end > to->fiber.capacity) continue;
        to->begin = end > LOOK_SLOTS ? end - LOOK_SLOTS : 0;
        if (!look_at(to->fiber.data + to->begin, to->slots, (size_t) (end - to->begin) * sizeof(Janet))) continue;
        if (!look_at(from, &after, sizeof(after))) return 0;
        int is_same = after.data == to->fiber.data && after.frame == end && after.child == to->fiber.child;
        if (is_same && has_whole_chain(to)) return 1;
    }
    /* It calls all the time. What is older than its newest frame may be right all the same. */
    return 1;
}

/* The frames of a fiber, the innermost first. */
static void look_print_frames(LookText *text, const JanetVM *vm, const LookFiber *seen) {
    int32_t at = seen->fiber.frame;
    for (int count = 0; count < LOOK_FRAMES_MAX && at >= JANET_FRAME_SIZE && at <= seen->fiber.capacity; count++) {
        JanetStackFrame frame;
        int32_t first = at - JANET_FRAME_SIZE;
        if (first >= seen->begin) {
            memcpy(&frame, seen->slots + (first - seen->begin), sizeof(frame));
        } else if (!look_at(seen->fiber.data + first, &frame, sizeof(frame))) {
            return;
        }
        look_print(text, "\n  in ");
        if (frame.func) {
            look_print_function(text, &frame);
        } else {
            look_print_cfunction(text, vm, (JanetCFunction) frame.pc);
        }
        if (frame.flags & JANET_STACKFRAME_TAILCALL) look_print(text, " (tail call)");
        if (frame.prevframe >= at) return;
        at = frame.prevframe;
    }
}

/*
 * The fiber that the loop of a VM runs now, and how often that fiber has been scheduled: both stay the same until the
 * loop turns. 0 if it runs none, -1 if there is no VM any more.
 */
int ringspun_vm_run(const JanetVM *vm, JanetFiber **fiber, uint32_t *schedule) {
    if (!look_at(&vm->root_fiber, fiber, sizeof(*fiber))) return -1;
    return *fiber && look_at(&(*fiber)->sched_id, schedule, sizeof(*schedule));
}

/* The stack of the fiber that the loop of a VM runs now, as `debug/stacktrace` prints it, each line after its break. */
size_t ringspun_vm_stack(const JanetVM *vm, char *to, size_t size) {
    LookText text = {to, 0, size};
    JanetFiber *fibers[LOOK_FIBERS_MAX], *next;
    int count = 0;
    LookFiber *seen = malloc(sizeof(*seen));
    if (seen && size > 0 && look_at(&vm->root_fiber, &next, sizeof(next))) {
        /* What a fiber has resumed is its child. */
        while (next && count < LOOK_FIBERS_MAX) {
            fibers[count++] = next;
            if (!look_at(&next->child, &next, sizeof(next))) break;
        }
        while (count > 0) {
            if (look_at_fiber(fibers[--count], seen)) look_print_frames(&text, vm, seen);
        }
    }
    free(seen);
    return text.length;
}
