/* Runs what pack.janet has packed, on the VM in this program. */

#include <janet.h>
#include <stdio.h>

extern const unsigned char image[];
extern const unsigned long image_size;

int main(int argc, char **argv) {
    janet_init();
    JanetTable *environment = janet_core_env(NULL);
    Janet function = janet_unmarshal(image, image_size, 0, janet_env_lookup(environment), NULL);
    if (!janet_checktype(function, JANET_FUNCTION)) {
        fprintf(stderr, "the image is not a function\n");
        return 1;
    }
    JanetArray *arguments = janet_array(argc);
    for (int i = 0; i < argc; i++) janet_array_push(arguments, janet_cstringv(argv[i]));
    JanetFiber *fiber = janet_fiber(janet_unwrap_function(function), 64, argc, arguments->data);
    fiber->env = environment;
    int status = janet_loop_fiber(fiber);
    janet_deinit();
    return status;
}
