# The orders in which threads can wake a loop, by loom.
#
#     ./scripts/check loom
#
# Explores the interleavings of one or two threads that wake a loop, with up to three preemptions. A lost wake fails it.
# As a control, a waker with two steps swapped has to lose one. Takes a minute, most of it for a build in target/loom.

expect_no_arguments "$@"
require_cargo
# Most of the time of a release build goes into what loom does not need.
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" CARGO_PROFILE_RELEASE_LTO=off
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --quiet --release -p ringspun-runtime --lib -- interleavings | tee "$log"
# A filter that matches nothing succeeds, too.
grep -q '^test result: ok. 3 passed' "$log" || { say "FAILED: expected 3 tests"; exit 1; }
