# What `ringspun load` costs itself, against a bare io_uring client.
#
#     ./scripts/measure load [--rounds N] [--seconds S] [--json FILE]
#
# 64-byte echoes from `ringspun serve echo` over 64 and 1,000 connections, in a closed loop, by `ringspun load` and by
# benches/src/bin/echo_load.rs, interleaved, N rounds (default 7) of S seconds (default 3). The server is pinned to one
# core, the generators to another.
#
# Prints the processor time of each generator per echo, start and connecting included: medians, and the median of the
# rounds' ratios. --json writes every round. Needs two cores and taskset, which is installed if it is missing.

parse_rounds 7 3 "$@"
ensure_build_tools
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun
cargo build --release --quiet --manifest-path benches/Cargo.toml --target-dir "$target/benches" --bin echo_load
ringspun=$target/release/ringspun bare=$target/benches/release/echo_load
prepare_measurement

# Runs a generator, and prints its echoes and its processor time in microseconds.
generate() { # NAME CONNECTIONS
    local TIMEFORMAT='%U %S' command echoes
    case $1 in
    load) command=("$ringspun" load "tcp://$address" --connections "$2" --duration "${seconds}s" --json "$work/result") ;;
    bare) command=("$bare" "$address" "$2" "$seconds") ;;
    esac
    { time taskset -c 1 "${command[@]}" >"$work/printed" 2>"$work/errors"; } 2>"$work/time"
    case $1 in
    load) echoes=$(tr -d ' \n' <"$work/result" | field answered) ;;
    bare) echoes=$(field echoes <"$work/printed") ;;
    esac
    [ -n "$echoes" ] || { say "$1 with $2 connections told no count of echoes: $(cat "$work/errors")"; exit 1; }
    awk -v echoes="$echoes" '{ printf "%d %d\n", echoes, ($1 + $2) * 1000000 }' "$work/time"
}

for round in $(seq "$rounds"); do
    for connections in 64 1000; do
        for name in load bare; do
            tell "round $round of $rounds, $connections connections, $name"
            start_server "$ringspun" serve echo --workers 1 --tcp 127.0.0.1:0
            line=$(generate "$name" "$connections") || exit 1
            echo "$round $connections $name $line" >>"$work/rounds"
            stop_server
        done
    done
done
tell

echo "Processor time of the generator per echo in microseconds, medians of $rounds rounds of $seconds s:"
echo
awk -v rounds="$rounds" "$awk_median"'
    { time[$2, $3, $1] = $5 / $4 }
    function time_of(name,   i, values) { for (i = 1; i <= rounds; i++) values[i] = time[c, name, i]; return median(values, rounds) }
    function ratio(   i, values) { for (i = 1; i <= rounds; i++) values[i] = time[c, "load", i] / time[c, "bare", i]; return median(values, rounds) }
    END {
        printf "%11s %15s %12s %10s\n", "connections", "ringspun load", "bare client", "load/bare"
        split("64 1000", order, " ")
        for (n = 1; n <= 2; n++) { c = order[n]; printf "%11d %15.3f %12.3f %10.3f\n", c, time_of("load"), time_of("bare"), ratio() }
    }' "$work/rounds"

if [ -n "$json" ]; then
    {
        printf '{"version":1,"rounds":['
        awk '{ printf "%s{\"round\":%d,\"connections\":%d,\"generator\":\"%s\",\"echoes\":%d,\"processor_us_per_echo\":%.3f}", (NR > 1 ? "," : ""), $1, $2, $3, $4, $5 / $4 }' "$work/rounds"
        printf ']}\n'
    } >"$json"
fi
