/*
 * Signals: a handler of a program runs in the VM that has installed it.
 *
 * The kernel hands a signal to any thread of the process that does not block it. The VM's handler posts to the VM of
 * the thread that runs it: if that is another VM, the signal is lost, and if there is none, as in the threads that wait
 * for processes, the post is written to descriptor 0, or aborts the process.
 */

#include <sys/syscall.h>

/* What the VM has installed for each signal, and the last thread that asked for it. */
static void (*vm_handlers[NSIG])(int);
static pid_t handling_threads[NSIG];
/* The signals that the VM of this thread handles, as bits. */
static JANET_THREAD_LOCAL uint64_t handled_here;

/* Async-signal-safe, as what it calls is. */
static void hand_signal_over(int signal) {
    if (handled_here & (1ull << (signal - 1))) {
        __atomic_load_n(&vm_handlers[signal], __ATOMIC_ACQUIRE)(signal);
        return;
    }
    int errno_before = errno;
    pid_t thread = __atomic_load_n(&handling_threads[signal], __ATOMIC_ACQUIRE);
    /* This thread may have got the number of one that has ended. In a forked child, the other one does not exist. */
    if (thread != syscall(SYS_gettid)) syscall(SYS_tgkill, getpid(), thread, signal);
    errno = errno_before;
}

/* Whether the program has set a handler in this thread, and not removed it. */
static int has_handler(int signal) {
    Janet handler = janet_table_get(&janet_vm.signal_handlers, janet_wrap_integer(signal));
    return janet_checktype(handler, JANET_FUNCTION);
}

int ringspun_sigaction(int signal, const struct sigaction *action, struct sigaction *old) {
    uint64_t bit = 1ull << (signal - 1);
    pid_t thread = syscall(SYS_gettid);
    pid_t handling = __atomic_load_n(&handling_threads[signal], __ATOMIC_ACQUIRE);
    if (has_handler(signal) || !handling || handling == thread) {
        handled_here |= bit;
        __atomic_store_n(&handling_threads[signal], thread, __ATOMIC_RELEASE);
    } else {
        /* It is left to the other thread. */
        handled_here &= ~bit;
    }
    __atomic_store_n(&vm_handlers[signal], action->sa_handler, __ATOMIC_RELEASE);
    struct sigaction handing_over = *action;
    handing_over.sa_handler = hand_signal_over;
    /* Threads that run fibers have small stacks. */
    handing_over.sa_flags |= SA_ONSTACK;
    /* The VM leaves the mask to chance. */
    sigemptyset(&handing_over.sa_mask);
    return sigaction(signal, &handing_over, old);
}
