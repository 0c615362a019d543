# The orders in which threads can wake a loop and use a channel between them, by loom.
#
#     ./scripts/check loom
#
# Explores the interleavings of one or two threads that wake a loop, and of two or three that give to a channel and take
# from it, with up to three preemptions. A lost wake or value fails it. As controls, a waker with two steps swapped and a
# taker that does not pass its wake on have to lose one. Takes some minutes, most of them for a build in target/loom.

expect_no_arguments "$@"
require_cargo
# Most of the time of a release build goes into what loom does not need.
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" CARGO_PROFILE_RELEASE_LTO=off
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --quiet --release -p ringspun-runtime -p ringspun-fibers --lib -- interleavings | tee "$log"
# A filter that matches nothing succeeds, too.
for count in 3 5; do
    grep -q "^test result: ok. $count passed" "$log" || { say "FAILED: expected $count tests"; exit 1; }
done
