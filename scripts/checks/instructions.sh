# That an echo takes no more user instructions and cache lines than its bounds, counted exactly.
#
#     ./scripts/check instructions [--json FILE]
#
# Counts the user instructions of `ringspun serve echo` and of `ringspun janet examples/echo.janet` (release build) per
# 64-byte echo, with 64 and with 1,000 connections, 64 of them active, on each backend, and the distinct cache lines of data
# that they touch with 1,000 (tests/launchers/count_instructions; x86-64). Counts are the same on every machine as long as the compilers are. The
# median of the rounds counts: some of Janet's have a garbage collection in them, and beside a load a round may be cut in
# two. The bounds are in the table below: lower them when the path becomes shorter. Linux only.

# server backend connections rounds bound, and that of cache lines or -
bounds="
fibers uring   64  5 1025  -
fibers uring 1000  5 1025 24
fibers poll    64  5 1100  -
fibers poll  1000  5 1100 25
janet  uring   64  5 3500  -
janet  uring 1000  5 3500 34
janet  poll    64  5 3500  -
janet  poll  1000  5 3500 34
"
json=
while [ $# -gt 0 ]; do
    case "$1" in
    --json)
        [ -n "${2:-}" ] || refuse "--json: expected a file"
        json=$(cd "$caller" && realpath -m "$2"); shift 2 ;;
    *) refuse "$1: unknown option" ;;
    esac
done
ensure_build_tools
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --example count-instructions
cargo build --quiet --release --bin ringspun
allowed=$(RINGSPUN_BACKEND= "$target/release/ringspun" doctor --json | tr -d ' \n' | grep -c '"backend":{"name":"io_uring"' || true)

is_above() { awk -v count="$1" -v bound="$2" 'BEGIN { exit !(count != "-" && count + 0 > bound + 0) }'; }

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
status=0 lines=
printf '%-8s %-8s %11s %16s %6s %11s %6s\n' server backend connections instructions bound 'cache lines' bound
while read -r server backend connections rounds bound lines_bound; do
    [ -n "$backend" ] || continue
    options=() lines_count=-
    [ "$lines_bound" = - ] || [ "$(uname -m)" != x86_64 ] || options=(--lines /dev/null)
    command=("$target/release/ringspun" serve echo --workers 1 --tcp 127.0.0.1:0)
    [ "$server" != janet ] || command=("$target/release/ringspun" janet examples/echo.janet)
    if [ "$backend" = uring ] && [ "$allowed" -eq 0 ]; then
        say "SKIPPED $backend with $connections connections: io_uring cannot be used here"
        continue
    fi
    # Whether a loop busy-polls depends on the clock, and a traced server is too slow for it: off, so that counts repeat.
    if ! line=$(RINGSPUN_BACKEND=$backend RINGSPUN_SPIN=off "$target/debug/examples/count-instructions" --connections "$connections" \
        --active 64 --rounds "$rounds" "${options[@]}" "${command[@]}" 2>"$errors"); then
        if grep -q 'cannot be traced' "$errors"; then
            say "SKIPPED $backend with $connections connections: $(cat "$errors")"
            continue
        fi
        cat "$errors" >&2
        exit 1
    fi
    count=$(field median_per_echo <<<"$line")
    [ ${#options[@]} -eq 0 ] || lines_count=$(field lines_per_echo <<<"$line")
    verdict=
    if is_above "$count" "$bound" || is_above "$lines_count" "$lines_bound"; then
        verdict="  above its bound" status=1
    fi
    printf '%-8s %-8s %11s %16s %6s %11s %6s%s\n' \
        "$server" "$backend" "$connections" "$count" "$bound" "$lines_count" "$lines_bound" "$verdict"
    lines="$lines${lines:+,}{\"server\":\"$server\",\"backend\":\"$backend\",\"bound\":$bound,${line#\{}"
done <<<"$bounds"
[ -z "$json" ] || printf '[%s]\n' "$lines" >"$json"
exit "$status"
