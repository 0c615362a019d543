/*
 * A database whose queries block, so that each runs on a thread of its own: numbers by name, shared by all threads.
 */

#include <janet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char name[32]; int32_t value; } rows[NAMES_MAX];

typedef struct {
    char name[32];
    int32_t difference;
    int32_t value;
} Query;

/* On a thread. */
static JanetEVGenericMessage run_query(JanetEVGenericMessage message) {
    Query *query = message.argp;
    pthread_mutex_lock(&lock);
    int row = 0;
    while (row < NAMES_MAX && rows[row].name[0] && strcmp(rows[row].name, query->name)) row++;
    message.argi = row < NAMES_MAX;
    if (message.argi) {
        snprintf(rows[row].name, sizeof(rows[row].name), "%s", query->name);
        query->value = rows[row].value += query->difference;
    }
    pthread_mutex_unlock(&lock);
    return message;
}

/* On the loop's thread. */
static void after_query(JanetEVGenericMessage message) {
    Query *query = message.argp;
    if (message.argi) janet_schedule(message.fiber, janet_wrap_integer(query->value));
    else janet_cancel(message.fiber, janet_cstringv("the database is full"));
    janet_gcunroot(janet_wrap_fiber(message.fiber));
    free(query);
}

/* (f name difference): adds to a number, and gives what it is then. */
static Janet database_add(int32_t argc, Janet *argv) {
    janet_fixarity(argc, 2);
    const char *name = janet_getcbytes(argv, 0);
    int32_t difference = janet_getinteger(argv, 1);
    Query *query = malloc(sizeof(Query));
    *query = (Query) {.difference = difference};
    snprintf(query->name, sizeof(query->name), "%s", name);
    JanetEVGenericMessage message = {.argp = query, .fiber = janet_root_fiber()};
    janet_gcroot(janet_wrap_fiber(message.fiber));
    janet_ev_threaded_call(run_query, message, after_query);
    janet_await();
}

static const JanetReg functions[] = {{"add", database_add, ""}, {NULL, NULL, NULL}};

JANET_MODULE_ENTRY(JanetTable *env) {
    janet_cfuns(env, "database", functions);
}
