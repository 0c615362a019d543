/*
 * Channels between threads: giving what cannot be copied releases the channel's lock, and what is given to a fiber
 * or a VM that no longer waits is kept.
 *
 * The VM copies a value while it holds the lock. If that fails, as it does for a stream when descriptors run out, it
 * raises an error with the lock held, and every other thread that uses the channel hangs.
 */

/* The locks that this thread holds, as far as the VM has taken them by ringspun_mutex_lock, and the last of them. */
static JANET_THREAD_LOCAL int locks_held;
static JANET_THREAD_LOCAL pthread_mutex_t *last_lock;

int ringspun_mutex_lock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_trylock(mutex);
    if (result == EBUSY) {
        flush_writes();
        result = pthread_mutex_lock(mutex);
    }
    if (!result) {
        locks_held++;
        last_lock = mutex;
    }
    return result;
}

int ringspun_mutex_unlock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_unlock(mutex);
    if (!result) locks_held--;
    return result;
}

/* Calls a function that gives to channels, and returns or raises what it does. Waiting is a signal, too. */
static Janet give_by(JanetCFunction function, int32_t argc, Janet *argv) {
    int held_before = locks_held;
    JanetTryState state;
    JanetSignal signal = janet_try(&state);
    if (signal == JANET_SIGNAL_OK) {
        Janet result = function(argc, argv);
        janet_restore(&state);
        return result;
    }
    Janet payload = state.payload;
    janet_restore(&state);
    if (signal == JANET_SIGNAL_ERROR && locks_held > held_before) ringspun_mutex_unlock(last_lock);
    janet_signalv(signal, payload);
}

static int is_between_threads(Janet value) {
    JanetChannel *channel = janet_checkabstract(value, &janet_channel_type);
    return channel && channel->is_threaded;
}

/* Whether one of the arguments is a channel between threads, or begins with one: [channel value]. */
static int uses_threads(int32_t argc, const Janet *argv) {
    for (int32_t i = 0; i < argc; i++) {
        const Janet *clause;
        int32_t length;
        int is_clause = janet_indexed_view(argv[i], &clause, &length) && length > 0;
        if (is_between_threads(is_clause ? clause[0] : argv[i])) return 1;
    }
    return 0;
}

#define DEFINE_GIVING(name) \
    Janet name(int32_t argc, Janet *argv) { \
        JanetCFunction function = ringspun_vm_own_##name; \
        return uses_threads(argc, argv) ? give_by(function, argc, argv) : function(argc, argv); \
    }
DEFINE_GIVING(cfun_channel_push)
DEFINE_GIVING(cfun_channel_choice)
DEFINE_GIVING(cfun_channel_rchoice)

/*
 * Ends a wait for a channel between threads, on the thread of the fiber that waits. If that has been cancelled
 * since, the VM sends the value on to another that waits, and drops it if there is none. Here, it goes back to the
 * front of the channel.
 */
static void janet_thread_chan_cb(JanetEVGenericMessage message) {
    JanetChannel *channel = message.argp;
    int has_value = message.tag == JANET_CP_MODE_READ || message.tag == JANET_CP_MODE_CHOICE_READ;
    janet_chan_lock(channel);
    int is_in_time = message.fiber->sched_id == (uint32_t) message.argi;
    if (has_value && !is_in_time && janet_q_count(&channel->read_pending) == 0) {
        janet_q_push_head(&channel->items, &message.argj, sizeof(Janet));
    } else {
        /* The lock is recursive. */
        ringspun_vm_own_thread_chan_cb(message);
    }
    janet_chan_unlock(channel);
}

static void remove_those_of_no_vm(JanetQueue *waits) {
    JanetChannelPending wait;
    for (int32_t left = janet_q_count(waits); left > 0; left--) {
        janet_q_pop(waits, &wait, sizeof(wait));
        if (wait.thread) janet_q_push(waits, &wait, sizeof(wait));
    }
}

/*
 * A VM that ends gives up a channel between threads. Its own waits there stay in the queue as ones of no VM, and what
 * is given to one of those is lost. Here, they are removed.
 */
static int janet_chanat_gcperthread(void *memory, size_t size_bytes) {
    JanetChannel *channel = memory;
    janet_chan_lock(channel);
    int result = ringspun_vm_own_chanat_gcperthread(memory, size_bytes);
    remove_those_of_no_vm(&channel->read_pending);
    remove_those_of_no_vm(&channel->write_pending);
    janet_chan_unlock(channel);
    return result;
}
