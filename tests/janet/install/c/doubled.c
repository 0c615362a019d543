/* A module in C: a function, and a type with a method. */

#include <janet.h>

static Janet of(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    return janet_wrap_number(2 * janet_getnumber(argv, 0));
}

typedef struct {
    double value;
} Cell;

static int get(void *cell, Janet key, Janet *out) {
    if (!janet_keyeq(key, "value")) return 0;
    *out = janet_wrap_number(((Cell *) cell)->value);
    return 1;
}

static const JanetAbstractType cell_type = {.name = "doubled/cell", .get = get};

static Janet make(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    Cell *cell = janet_abstract(&cell_type, sizeof(Cell));
    cell->value = 2 * janet_getnumber(argv, 0);
    return janet_wrap_abstract(cell);
}

static const JanetReg functions[] = {
    {"of", of, "(doubled/of number)\n\nTwice a number."},
    {"cell", make, "(doubled/cell number)\n\nHolds twice a number, as :value."},
    {NULL, NULL, NULL},
};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "doubled", functions);
}
