/*
 * Questions of other threads to a VM: its event loop answers them between two fibers.
 */

static void ringspun_on_question(JanetEVGenericMessage message) {
    ((void (*)(int32_t)) message.argp)(message.tag);
}

/* Has the loop of a VM, which must not end meanwhile, call a function with a number. */
void ringspun_vm_post(void *vm, void (*call)(int32_t), int32_t number) {
    JanetEVGenericMessage message = {0};
    message.argp = (void *) call;
    message.tag = number;
    janet_ev_post_event(vm, ringspun_on_question, message);
}

/* How many fibers of the VM on this thread have not ended. */
int32_t ringspun_vm_tasks(void) {
    return janet_vm.active_tasks.count;
}
