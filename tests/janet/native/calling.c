/*
 * C code that calls functions: as a part of the fiber that runs, and as a fiber of their own.
 */

#include <janet.h>

/* (f function): what the function returns. */
static Janet calling_call(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    return janet_call(janet_getfunction(argv, 0), 0, NULL);
}

/* (f function): whether the function returned, and what. */
static Janet calling_try(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    Janet values[2];
    JanetSignal signal = janet_pcall(janet_getfunction(argv, 0), 0, NULL, &values[1], NULL);
    values[0] = janet_wrap_boolean(signal == JANET_SIGNAL_OK);
    return janet_wrap_tuple(janet_tuple_n(values, 2));
}

static const JanetReg functions[] = {{"call", calling_call, ""}, {"try", calling_try, ""}, {NULL, NULL, NULL}};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "calling", functions);
}
