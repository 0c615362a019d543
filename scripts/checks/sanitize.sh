# The storms of cancellations, the tests around them, and native modules of Janet under AddressSanitizer.
#
#     ./scripts/check sanitize [CANCELLATIONS]
#
# CANCELLATIONS is how many the storms have to hit in all; 100,000 by default. Rust and the C code of the Janet VM are both
# instrumented, leaks are looked for, and freed memory is overwritten, so that a send which the kernel reads from freed
# memory arrives wrong. Controls, programs with such an error, have to be caught first. Takes about five minutes, two of
# them for a build in target/sanitize.
#
# Needs clang or gcc besides what the build needs; installs nothing. RINGSPUN_SEED repeats a storm's choices.

case "${1:-}" in
*[!0-9]*) refuse "CANCELLATIONS is \"$1\", expected a number" ;;
esac

missing=0
need() { command -v "$1" >/dev/null || { say "$1 is missing. Install it with:  $2"; missing=1; }; }
need cargo "the command that https://rustup.rs shows"
compiler=gcc
! command -v clang >/dev/null || compiler=clang
need "$compiler" "sudo apt-get install gcc   (or your system's package manager)"
[ "$missing" -eq 0 ] || exit 1

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
*) say "Rust has no AddressSanitizer for $host with io_uring, only for Linux with glibc."; exit 1 ;;
esac

# The sanitizer is unstable in rustc; this lets the stable one have it, for this build only. With a target
# named, build scripts and macros stay as they are.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize"
export CC=$compiler CFLAGS="-O1 -g -fsanitize=address -fno-omit-frame-pointer"
export ASAN_OPTIONS="max_free_fill_size=4194304:free_fill_byte=222"
export RINGSPUN_STORM=${1:-100000}
fibers=(-p ringspun-runtime -p ringspun-fibers -p ringspun-net --features ringspun-fibers/sanitizer)
log=$(mktemp) suppressions=$(mktemp)
trap 'rm -f "$log" "$suppressions"' EXIT

# control NAME TEXT CARGO-ARGUMENTS...: a program that must fail, with that text.
control() {
    local name=$1 text=$2
    shift 2
    if cargo test --quiet --target "$host" "$@" -- --ignored --exact "$name" --nocapture >"$log" 2>&1 ||
        ! grep -q "$text" "$log"; then
        cat "$log"
        say "FAILED: $name went through, so a clean run would mean nothing."
        exit 1
    fi
    echo "caught, as it must be: $name"
}

control control_a_fiber_reads_freed_memory "heap-use-after-free" "${fibers[@]}" --test storm
control control_the_kernel_reads_freed_memory "the kernel sent freed memory" "${fibers[@]}" --test storm
control control_the_vm_writes_to_freed_memory "heap-use-after-free" -p ringspun-janet --test storm

# The modules themselves are not instrumented. Not the test of the exported names, which is about other builds.
native_modules() {
    cargo build --quiet --target "$host" --bin ringspun || return
    # The VM's own net/address leaks an address of a Unix socket.
    printf 'leak:cfun_net_sockaddr\n' >"$suppressions"
    local -x RINGSPUN_TEST_BINARY LSAN_OPTIONS=print_suppressions=0:suppressions=$suppressions
    RINGSPUN_TEST_BINARY=$(realpath "$CARGO_TARGET_DIR/$host/debug/ringspun")
    cargo test --no-fail-fast --target "$host" --test janet native:: -- \
        --skip nothing_else --skip code_loses --show-output || return
    # It forks: in a child, all that the threads of the parent hold would count as leaked.
    ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 cargo test --target "$host" --test janet native:: -- \
        --exact native::c_code_gets_what_the_vms_own_code_loses --show-output
}

status=0
{
    # Not the processes that overflow stacks or make a million fibers, which are about other things; nor Janet's `forks`,
    # as the VM itself reads freed memory in (os/exit N true), nor its `symbols`, as the sanitizer defines many.
    cargo test --no-fail-fast --target "$host" "${fibers[@]}" --lib --test fibers --test tcp --test interrupts \
        --test datagrams --test full_unix --test cancels --test blocking --test write_behind --test storm \
        --test workers --test servers --test moving --test drains \
        -- --show-output &&
        cargo test --no-fail-fast --target "$host" -p ringspun-janet --lib --test callbacks --test endings --test handing_over --test janet_vm --test storm \
            -- --show-output &&
        native_modules
} 2>&1 | tee "$log" || status=$?
awk '
    /cancellations hit$/ { hits += $1 }
    /^[0-9]+ 0$/ { hits += $1 }
    /^test result:/ { passed += $4; failed += $6 }
    END { printf "\n%d cancellations hit, %d tests passed, %d failed\n", hits, passed, failed }' "$log"
[ "$status" -eq 0 ] && echo "clean under AddressSanitizer, and every control was caught"
exit "$status"
