# What Miri can run of the runtime: slots, timers, queues, threads, and the loop on the simulated kernel; and what crosses threads
# in fibers: channels between threads, and tasks that are sent to a runtime.
#
#     ./scripts/check miri
#
# Undefined behaviour, data races and leaks fail it. Miri knows neither rings nor sockets nor stack switches;
# `./scripts/check sanitize` covers those. Takes eight minutes.
#
# Needs a nightly Rust with Miri; installs nothing:  rustup toolchain install nightly --component miri,rust-src

expect_no_arguments "$@"
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    say "Miri is missing. Install it with:  rustup toolchain install nightly --component miri,rust-src"
    exit 1
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
# Clocks and descriptors are those of the machine.
common=-Zmiri-disable-isolation
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run NAME FLAGS PACKAGE ARGUMENTS...: some tests, at least one of which has to be there.
run() {
    local name=$1 flags=$2 package=$3
    shift 3
    echo "== $name"
    MIRIFLAGS="$common $flags" cargo +nightly miri test --quiet -p "$package" --features simulation "$@" | tee "$log"
    grep -qE '^test result: ok. [1-9]' "$log" || { say "FAILED: no test ran"; exit 1; }
}
# The models of busy-polling are long sums, without a pointer; signals are system calls.
run "slots, timers, queues, buffers" "" ringspun-runtime --lib -- --skip blocking --skip spin_costs --skip signals
# A thread without work is still there when the tests end, which Miri counts among the leaks.
run "threads for calls that block, in eight orders" "-Zmiri-many-seeds=0..8 -Zmiri-ignore-leaks" ringspun-runtime --lib -- blocking
run "the loop on the simulated kernel" "" ringspun-runtime --test simulation
run "channels between threads, and tasks for a runtime, in eight orders" "-Zmiri-many-seeds=0..8" ringspun-fibers --lib -- shared_queue shared_channel remote::
