// A module in C++: containers, and an exception that becomes a Janet error.

#include <janet.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

static Janet sorted(const JanetView view) {
    std::vector<double> numbers;
    for (int32_t i = 0; i < view.len; i++) {
        if (!janet_checktype(view.items[i], JANET_NUMBER)) throw std::invalid_argument("expected numbers");
        numbers.push_back(janet_unwrap_number(view.items[i]));
    }
    std::sort(numbers.begin(), numbers.end());
    Janet *tuple = janet_tuple_begin(view.len);
    for (int32_t i = 0; i < view.len; i++) tuple[i] = janet_wrap_number(numbers[i]);
    return janet_wrap_tuple(janet_tuple_end(tuple));
}

static Janet sort(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetView view = janet_getindexed(argv, 0);
    Janet error;
    try {
        return sorted(view);
    } catch (const std::exception &exception) {
        error = janet_cstringv(exception.what());
    }
    janet_panicv(error);
}

static const JanetReg functions[] = {
    {"sort", sort, "(sort numbers)\n\nSorts numbers."},
    {nullptr, nullptr, nullptr},
};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "native", functions);
}
