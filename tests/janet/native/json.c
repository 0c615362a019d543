/*
 * A JSON codec: encodes Janet values into a buffer, decodes text into values. It knows nothing of streams.
 */

#include <ctype.h>
#include <janet.h>
#include <stdlib.h>
#include <string.h>

static void encode_text(JanetBuffer *out, const uint8_t *bytes, int32_t length) {
    janet_buffer_push_u8(out, '"');
    for (int32_t i = 0; i < length; i++) {
        if (bytes[i] == '"' || bytes[i] == '\\') janet_buffer_push_u8(out, '\\');
        if (bytes[i] >= 32) janet_buffer_push_u8(out, bytes[i]);
        else janet_formatb(out, "\\u%04x", bytes[i]);
    }
    janet_buffer_push_u8(out, '"');
}

static void encode(JanetBuffer *out, Janet value, int depth) {
    if (depth > 100) janet_panic("too deep");
    const Janet *items;
    const JanetKV *pairs;
    const uint8_t *bytes;
    int32_t length, capacity;
    if (janet_checktype(value, JANET_NIL)) {
        janet_buffer_push_cstring(out, "null");
    } else if (janet_checktype(value, JANET_BOOLEAN)) {
        janet_buffer_push_cstring(out, janet_truthy(value) ? "true" : "false");
    } else if (janet_checktype(value, JANET_NUMBER)) {
        janet_formatb(out, "%.17g", janet_unwrap_number(value));
    } else if (janet_bytes_view(value, &bytes, &length)) {
        encode_text(out, bytes, length);
    } else if (janet_indexed_view(value, &items, &length)) {
        for (int32_t i = 0; i < length; i++) {
            janet_buffer_push_u8(out, i ? ',' : '[');
            encode(out, items[i], depth + 1);
        }
        janet_buffer_push_cstring(out, length ? "]" : "[]");
    } else if (janet_dictionary_view(value, &pairs, &length, &capacity)) {
        char separator = '{';
        for (const JanetKV *pair = NULL; (pair = janet_dictionary_next(pairs, capacity, pair)); separator = ',') {
            janet_buffer_push_u8(out, separator);
            JanetByteView key = janet_getbytes(&pair->key, 0);
            encode_text(out, key.bytes, key.len);
            janet_buffer_push_u8(out, ':');
            encode(out, pair->value, depth + 1);
        }
        janet_buffer_push_cstring(out, length ? "}" : "{}");
    } else {
        janet_panicf("%v has no JSON", value);
    }
}

static void skip_space(const char **text) {
    while (isspace((unsigned char) **text)) ++*text;
}

static int accept_word(const char **text, const char *word) {
    skip_space(text);
    if (strncmp(*text, word, strlen(word))) return 0;
    *text += strlen(word);
    return 1;
}

static Janet decode_text(const char **text) {
    JanetBuffer *out = janet_buffer(16);
    for (; **text != '"'; ++*text) {
        if (!**text) janet_panic("a string without an end");
        if (**text != '\\') {
            janet_buffer_push_u8(out, **text);
        } else if (*++*text == 'u') {
            char digits[5] = {0};
            strncpy(digits, *text + 1, 4);
            *text += strlen(digits);
            janet_buffer_push_u8(out, (uint8_t) strtol(digits, NULL, 16));
        } else if (**text) {
            janet_buffer_push_u8(out, **text);
        }
    }
    ++*text;
    return janet_stringv(out->data, out->count);
}

static Janet decode(const char **text, int depth) {
    if (depth > 100) janet_panic("too deep");
    if (accept_word(text, "null")) return janet_wrap_nil();
    if (accept_word(text, "true")) return janet_wrap_true();
    if (accept_word(text, "false")) return janet_wrap_false();
    if (accept_word(text, "\"")) return decode_text(text);
    if (accept_word(text, "[")) {
        JanetArray *array = janet_array(4);
        while (!accept_word(text, "]")) {
            if (array->count && !accept_word(text, ",")) janet_panicf("expected a comma at %s", *text);
            janet_array_push(array, decode(text, depth + 1));
        }
        return janet_wrap_array(array);
    }
    if (accept_word(text, "{")) {
        JanetTable *table = janet_table(4);
        while (!accept_word(text, "}")) {
            if (table->count && !accept_word(text, ",")) janet_panicf("expected a comma at %s", *text);
            Janet key = decode(text, depth + 1);
            if (!accept_word(text, ":")) janet_panicf("expected a colon at %s", *text);
            janet_table_put(table, key, decode(text, depth + 1));
        }
        return janet_wrap_table(table);
    }
    char *end;
    double number = strtod(*text, &end);
    if (end == *text) janet_panicf("expected a value at %s", *text);
    *text = end;
    return janet_wrap_number(number);
}

static Janet json_encode(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    JanetBuffer *out = janet_buffer(64);
    encode(out, argv[0], 0);
    return janet_wrap_buffer(out);
}

static Janet json_decode(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 1);
    const char *text = janet_getcbytes(argv, 0);
    Janet value = decode(&text, 0);
    skip_space(&text);
    if (*text) janet_panicf("more than a value: %s", text);
    return value;
}

static const JanetReg functions[] = {
    {"encode", json_encode, ""}, {"decode", json_decode, ""}, {NULL, NULL, NULL}
};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "json", functions);
}
