/* A C program that embeds the VM: timers, sockets, subprocesses and threads on the VM's own loop. */

#include <janet.h>
#include <stdio.h>

static const char code[] =
    "(defn main []"
    "  (ev/sleep 0.01)"
    "  (print `slept`)"
    "  (def server (net/listen `127.0.0.1` `0`))"
    "  (def [host port] (net/localname server))"
    "  (ev/spawn (with [peer (net/accept server)] (net/write peer (net/read peer 100))))"
    "  (with [stream (net/connect host port)] (net/write stream `echoed`) (print (net/read stream 100)))"
    "  (:close server)"
    "  (def child (os/spawn [`echo` `from a child`] :p {:out :pipe}))"
    "  (prin (ev/read (child :out) :all))"
    "  (print `status ` (os/proc-wait child))"
    "  (ev/do-thread (print `from a thread`))"
    "  (print (dyn :syspath)))"
    "(ev/go main)";

int main(void) {
    janet_init();
    JanetTable *environment = janet_core_env(NULL);
    Janet value;
    int status = janet_dostring(environment, code, "embed.c", &value);
    janet_loop();
    janet_deinit();
    printf("release %s\n", JANET_VERSION);
    return status;
}
