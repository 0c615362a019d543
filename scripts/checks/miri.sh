# What Miri can run of the runtime: slots, timers, queues, threads, and the loop on the simulated kernel.
#
#     ./scripts/check miri
#
# Undefined behaviour, data races and leaks fail it. Miri knows neither rings nor sockets nor stack switches;
# `./scripts/check sanitize` covers those. Takes five minutes.
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

# run NAME FLAGS ARGUMENTS...: some tests, at least one of which has to be there.
run() {
    local name=$1 flags=$2
    shift 2
    echo "== $name"
    MIRIFLAGS="$common $flags" cargo +nightly miri test --quiet -p ringspun-runtime --features simulation "$@" | tee "$log"
    grep -qE '^test result: ok. [1-9]' "$log" || { say "FAILED: no test ran"; exit 1; }
}
run "slots, timers, queues, buffers" "" --lib -- --skip blocking
# A thread without work is still there when the tests end, which Miri counts among the leaks.
run "threads for calls that block, in eight orders" "-Zmiri-many-seeds=0..8 -Zmiri-ignore-leaks" --lib -- blocking
run "the loop on the simulated kernel" "" --test simulation
