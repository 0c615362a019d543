# The echo server on both backends, against one on tokio.
#
#     ./scripts/measure poll [--rounds N] [--seconds S] [--json FILE]
#
# 1. Throughput of `ringspun serve echo` on both backends and of benches/src/bin/echo_tokio.rs with 1, 64 and 1,000
#    connections, interleaved, N rounds (default 7) of S seconds (default 2), and the processor time of the server per
#    echo. The server is pinned to one core, the load generator to another.
# 2. System calls per echo with 64 connections, counted by strace.
#
# Prints medians, and medians of the rounds' ratios; --json writes every round. Needs two cores, taskset and strace, which
# are installed if they are missing.

parse_rounds 7 2 "$@"
ensure_build_tools
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun
cargo build --release --quiet --manifest-path benches/Cargo.toml --target-dir "$target/benches" --bin echo_tokio --bin echo_load
ringspun=$target/release/ringspun load=$target/benches/release/echo_load tokio=$target/benches/release/echo_tokio
prepare_measurement

for round in $(seq "$rounds"); do
    for connections in 1 64 1000; do
        for name in poll uring tokio; do
            tell "round $round of $rounds, $connections connections, $name"
            command=("$ringspun" serve echo --workers 1 --tcp 127.0.0.1:0)
            [ $name != tokio ] || command=("$tokio")
            RINGSPUN_BACKEND=$name start_server "${command[@]}"
            line=$(taskset -c 1 "$load" "$address" "$connections" "$seconds")
            microseconds=$(server_time_us)
            stop_server
            echo "$round $connections $name $(field echoes_per_second <<<"$line") $(field echoes <<<"$line") $microseconds" >>"$work/rounds"
        done
    done
done
tell
RINGSPUN_BACKEND=poll count_calls poll '^$' "$ringspun" serve echo --workers 1 --tcp 127.0.0.1:0 >>"$work/syscalls"
count_calls tokio '^$' "$tokio" >>"$work/syscalls"

echo "Echoes per second, and microseconds of the server's processor time per echo, medians of $rounds rounds of $seconds s:"
echo
awk -v rounds="$rounds" "$awk_median"'
    { rate[$2, $3, $1] = $4; time[$2, $3, $1] = $6 / $5 }
    function rate_of(name,   i, values) { for (i = 1; i <= rounds; i++) values[i] = rate[c, name, i]; return median(values, rounds) }
    function time_of(name,   i, values) { for (i = 1; i <= rounds; i++) values[i] = time[c, name, i]; return median(values, rounds) }
    function ratio(a, b,   i, values) {
        for (i = 1; i <= rounds; i++) values[i] = rate[c, a, i] / rate[c, b, i]
        return median(values, rounds)
    }
    END {
        printf "%11s %16s %16s %16s %11s %11s\n", "connections", "poll", "io_uring", "tokio", "poll/tokio", "poll/uring"
        split("1 64 1000", order, " ")
        for (n = 1; n <= 3; n++) {
            c = order[n]
            printf "%11d", c
            printf " %9d (%.2f)", rate_of("poll"), time_of("poll")
            printf " %9d (%.2f)", rate_of("uring"), time_of("uring")
            printf " %9d (%.2f)", rate_of("tokio"), time_of("tokio")
            printf " %11.3f %11.3f\n", ratio("poll", "tokio"), ratio("poll", "uring")
        }
    }' "$work/rounds"
echo
echo "System calls with 64 connections, opened and closed under strace:"
echo
awk -F'|' '{ printf "%-8s %9d echoes %8d calls %8.4f per echo   (%s)\n", $1, $2, $3, $4, $5 }' "$work/syscalls"

if [ -n "$json" ]; then
    {
        printf '{"version":1,"rounds":['
        awk '{ printf "%s{\"round\":%d,\"connections\":%d,\"server\":\"%s\",\"echoes_per_second\":%d,\"server_microseconds_per_echo\":%.3f}", (NR > 1 ? "," : ""), $1, $2, $3, $4, $6 / $5 }' "$work/rounds"
        printf '],"system_calls":['
        awk -F'|' '{ printf "%s{\"server\":\"%s\",\"echoes\":%d,\"calls\":%d,\"calls_per_echo\":%s}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }' "$work/syscalls"
        printf ']}\n'
    } >"$json"
fi
