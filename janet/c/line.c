/*
 * The line editor's functions, which the stock shell exports with those of janet.h. They have a library of their own,
 * for programs with a shell of their own that link the VM.
 */

#include <janet.h>

/* `getline`, as Janet code calls it. */
static JanetCFunction installed_getline;

void ringspun_install_getline(JanetCFunction getline) {
    __atomic_store_n(&installed_getline, getline, __ATOMIC_RELEASE);
}

/* The terminal is prepared for each line, and restored after it. */
JANET_API void janet_line_init(void) {
}

JANET_API void janet_line_deinit(void) {
}

JANET_API Janet janet_line_getter(int32_t argc, Janet *argv) {
    return __atomic_load_n(&installed_getline, __ATOMIC_ACQUIRE)(argc, argv);
}

JANET_API void janet_line_get(const char *prompt, JanetBuffer *buffer) {
    Janet arguments[] = {janet_cstringv(prompt), janet_wrap_buffer(buffer)};
    janet_line_getter(2, arguments);
}
