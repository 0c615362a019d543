# Most tests of fibers and the net layer, and native modules of Janet, under valgrind's memcheck.
#
#     ./scripts/check valgrind
#
# Memcheck finds what AddressSanitizer does not: reads of uninitialised memory, and errors inside the system's libraries. A
# control, which reads freed memory, has to be caught first. Tests with threads run on poll only, as valgrind stops all
# threads while one waits in io_uring_enter(2). Takes six minutes.
#
# Needs valgrind; installs nothing.

expect_no_arguments "$@"
require_cargo
require valgrind "sudo apt-get install valgrind"

one_thread=(-p ringspun-fibers --test channels --test fibers --test select --test supervisor
    -p ringspun-net --test datagrams --test fairness --test flood --test full_unix --test interrupts
    --test slow_readers --test unix_paths)
threads=(-p ringspun-fibers --test blocking -p ringspun-net --test storm --test tcp --test write_behind)

# A jump of the stack pointer that is longer than a frame is a switch to another fiber: their stacks are more than 1 MiB
# apart, as there is a guard of that size between them.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind --quiet --error-exitcode=9 --max-stackframe=16384"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
export RINGSPUN_STORM=500
log=$(mktemp) memchecked=$(mktemp)
trap 'rm -f "$log" "$memchecked"' EXIT

RINGSPUN_BACKEND=poll cargo test --quiet -p ringspun-net --test storm -- \
    --ignored --exact control_a_fiber_reads_freed_memory >"$log" 2>&1 || true
grep -q '^==[0-9]*== Invalid read' "$log" || { cat "$log"; say "FAILED: the control was not noticed"; exit 1; }
echo "caught, as it must be: control_a_fiber_reads_freed_memory"

status=0
run() { # BACKEND ARGUMENTS OF cargo test
    local backend=$1
    shift
    echo "== $backend"
    RINGSPUN_BACKEND=$backend cargo test --no-fail-fast "$@" -- --test-threads=1 2>&1 | tee -a "$log" || status=1
}
: >"$log"
run poll "${one_thread[@]}" "${threads[@]}"
run uring "${one_thread[@]}"
# What the tests of native modules start, instead of the tests themselves. The tables take too long.
cargo build --quiet --bin ringspun
printf '#!/bin/sh\nexec valgrind --quiet --error-exitcode=9 --max-stackframe=16384 --suppressions="%s" "%s" "$@"\n' \
    "$PWD/scripts/checks/valgrind.supp" "$(realpath "${CARGO_TARGET_DIR:-target}/debug/ringspun")" >"$memchecked"
chmod +x "$memchecked"
export RINGSPUN_TEST_BINARY=$memchecked
unset CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER
echo "== native modules"
native=(takes_part_in_the_loop what_the_vms_own_code_loses loaded_when_streams_are_busy in_the_style_of_real_ones)
RINGSPUN_BACKEND=poll cargo test --no-fail-fast --test janet -- --test-threads=1 "${native[@]}" 2>&1 |
    tee -a "$log" || status=1
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "\n%d passed, %d failed under valgrind\n", passed, failed }' "$log"
exit "$status"
