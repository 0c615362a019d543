# Feeds arbitrary bytes to parsers, and calls in any order to the net layer, with libFuzzer.
#
#     ./scripts/check fuzz [--seconds N] [--jobs N] [TARGET...]
#     ./scripts/check fuzz --minimize [TARGET...]
#
#     --seconds N    how long each target runs; 60 by default
#     --jobs N       how many targets run at once; 1 by default
#     --minimize     instead of fuzzing, adds the inputs of target/fuzz/TARGET with the most coverage to
#                    tests/fuzz/corpus/TARGET: of 1 KiB at most, until it holds 20
#     TARGET         address, calls, hdr, http, options or tls; all by default
#
# Each target starts from tests/fuzz/corpus/TARGET and from what earlier runs found, in target/fuzz/TARGET. Prints a
# table of the runs. An input that breaks something is kept in target/fuzz/findings/TARGET, and printed with the command
# that reproduces it. Exit status 1 if there is one. Needs a C++ compiler, and no nightly Rust.

all=(address calls hdr http options tls)
seconds=60 jobs=1 minimize=
targets=()

while [ $# -gt 0 ]; do
    case $1 in
    --minimize) minimize=1 ;;
    --seconds | --jobs)
        case ${2:-} in
        '' | 0 | *[!0-9]*) refuse "$1 is \"${2:-}\", expected a number from 1" ;;
        esac
        if [ "$1" = --seconds ]; then seconds=$2; else jobs=$2; fi
        shift ;;
    *)
        printf '%s\n' "${all[@]}" | grep -qxF -e "$1" || refuse "$1: expected one of ${all[*]}"
        targets+=("$1") ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")

require_cargo
require c++ "sudo apt-get install g++"

work=${CARGO_TARGET_DIR:-target}/fuzz
corpus=tests/fuzz/corpus
host=$(rustc -vV | sed -n 's/^host: //p')

# What `cargo fuzz` asks of rustc for its coverage, none of which is unstable. With a target named, build scripts
# and macros stay as they are.
build_targets() {
    local flags="--cfg fuzzing -Cpasses=sancov-module" argument
    for argument in level=4 inline-8bit-counters pc-table trace-compares; do
        flags+=" -Cllvm-args=-sanitizer-coverage-$argument"
    done
    RUSTFLAGS=$flags CARGO_TARGET_DIR=$work/build cargo build --quiet --release --locked --target "$host" \
        --manifest-path tests/fuzz/Cargo.toml
}

# The longest input of a target, in bytes.
longest() {
    case $1 in
    hdr | http) echo 4096 ;;
    *) echo 1024 ;;
    esac
}

program() { echo "$work/build/$host/release/$1"; }

# The last value of a field such as cov: in a log.
field_of() { grep -aoE "$1:? +[0-9]+" "$work/$2.log" | tail -1 | grep -oE '[0-9]+$' || echo 0; }

# Runs one target, and leaves what it says in its log.
run_target() {
    local target=$1
    mkdir -p "$work/$target" "$work/findings/$target"
    RUST_BACKTRACE=0 "$(program "$target")" -max_total_time="$seconds" -max_len="$(longest "$target")" \
        -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$work/findings/$target/" \
        "$work/$target" "$corpus/$target" >"$work/$target.log" 2>&1 || touch "$work/$target.failed"
}

# Puts the smallest set of inputs that reaches as much into the committed corpus, as far as there is room.
minimize_target() {
    local target=$1 merged=$work/merged file room
    rm -rf "$merged"
    mkdir -p "$merged" "$work/$target"
    # What is committed has names that say what it is, and stays.
    cp "$corpus/$target"/* "$merged"
    RUST_BACKTRACE=0 "$(program "$target")" -merge=1 -max_len=1024 -timeout=10 -rss_limit_mb=2048 \
        "$merged" "$work/$target" >"$work/$target.log" 2>&1
    room=$((20 - $(find "$corpus/$target" -type f | wc -l)))
    # The largest reach most.
    local -a found
    mapfile -t found < <(find "$merged" -type f -size -1025c -printf '%s %p\n' | sort -rn | cut -d' ' -f2-)
    for file in "${found[@]}"; do
        if [ "$room" -gt 0 ] && [ ! -e "$corpus/$target/$(basename "$file")" ]; then
            cp "$file" "$corpus/$target/"
            room=$((room - 1))
        fi
    done
    echo "$target: $(find "$corpus/$target" -type f | wc -l) inputs in $corpus/$target"
}

build_targets
if [ -n "$minimize" ]; then
    for target in "${targets[@]}"; do minimize_target "$target"; done
    exit 0
fi

trap 'jobs -p | xargs -r kill 2>/dev/null || true' EXIT
for target in "${targets[@]}"; do
    rm -f "$work/$target.failed" "$work/$target.log"
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        tell "running $(jobs -rp | wc -l) of ${#targets[@]} targets; next is $target"
        sleep 1
    done
    run_target "$target" &
done
while [ -n "$(jobs -rp)" ]; do
    tell "running $(jobs -rp | wc -l) of ${#targets[@]} targets"
    sleep 1
done
wait
tell

status=0
printf '%-10s%14s%10s%10s%10s%10s\n' target executions seconds "each s" coverage findings
for target in "${targets[@]}"; do
    executions=$(field_of stat::number_of_executed_units "$target")
    per_second=$(field_of stat::average_exec_per_sec "$target")
    took=$(grep -aoE 'in [0-9]+ second' "$work/$target.log" | grep -oE '[0-9]+' || echo -)
    findings=$(find "$work/findings/$target" -type f | wc -l)
    printf '%-10s%14d%10s%10d%10d%10d\n' "$target" "$executions" "$took" "$per_second" \
        "$(field_of cov "$target")" "$findings"
    [ "$findings" -eq 0 ] && [ ! -e "$work/$target.failed" ] || status=1
done
for target in "${targets[@]}"; do
    for finding in "$work/findings/$target"/*; do
        [ -e "$finding" ] || continue
        printf '\n%s: this repeats it:\n  %s %s\n' "$target" "$(program "$target")" "$finding"
    done
    if [ -e "$work/$target.failed" ]; then
        grep -aE -A3 'panicked at|ERROR: libFuzzer|are asked for at once' "$work/$target.log" | head -12 ||
            tail -5 "$work/$target.log"
    fi
done
exit "$status"
