# Whether `ringspun load` and wrk agree about the same HTTP server.
#
#     ./scripts/measure wrk [--rounds N] [--seconds S] [--json FILE]
#
# The server is tests/launchers/busy_http.rs, pinned to one core; the generators, with one thread each, to another. Both keep as many
# connections in a closed loop, interleaved, N rounds (default 5) of S seconds (default 3):
#
# 1. An answer that costs the server 20 microseconds, with 1, 8, 64 and 256 connections: the server is the bottleneck.
# 2. An answer that costs next to nothing, with 1 and 64 connections. With 64, wrk reaches its own limit before the server
#    does, and its times leave out how long a connection waits in wrk from an answer to the next request.
#
# Prints medians of throughput, p50 and p99, how busy the server and the generator were, and the medians of the rounds'
# ratios; fails if those of the first part are not within 10 %. --json writes every round. Needs two cores, taskset and
# wrk, which are installed if they are missing.

parse_rounds 5 3 "$@"
ensure_build_tools
ensure_program wrk
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun --example busy-http
ringspun=$target/release/ringspun http=$target/release/examples/busy-http
prepare_measurement

# Runs a generator, and prints its requests per second, p50 and p99 in microseconds, errors, and how busy it and the server
# were in percent.
generate() { # NAME PATH CONNECTIONS
    local TIMEFORMAT='%R %U %S' before line rate
    before=$(server_time_us)
    case $1 in
    load)
        { time taskset -c 1 "$ringspun" load "http://$address/$2" --connections "$3" --duration "${seconds}s" --json "$work/result" \
            >"$work/printed" 2>"$work/errors"; } 2>"$work/time"
        tr -d ' \n' <"$work/result" >"$work/line"
        line="$(grep -oE '"rate_per_s":[0-9.]+' "$work/line" | tail -1 | cut -d: -f2)"
        line="$line $(field p50_us <"$work/line") $(field p99_us <"$work/line") $(field total <"$work/line")" ;;
    wrk)
        { time taskset -c 1 wrk -t1 -c "$3" -d "${seconds}s" -s scripts/measures/wrk_report.lua "http://$address/$2" >"$work/printed" \
            2>"$work/errors"; } 2>"$work/time"
        line=$(awk -v a="$(field answered <"$work/printed")" -v s="$(field seconds <"$work/printed")" 'BEGIN { print a / s }')
        line="$line $(field p50_us <"$work/printed") $(field p99_us <"$work/printed") $(field errors <"$work/printed")" ;;
    esac
    [ "$(wc -w <<<"$line")" -eq 4 ] || { say "$1 with $3 connections told no figures: $(cat "$work/errors")"; exit 1; }
    awk -v line="$line" -v server="$(awk -v a="$(server_time_us)" -v b="$before" 'BEGIN { print a - b }')" \
        '{ printf "%s %.1f %.1f\n", line, 100 * ($2 + $3) / $1, server / 10000 / $1 }' "$work/time"
}

for round in $(seq "$rounds"); do
    for case in busy/20,1 busy/20,8 busy/20,64 busy/20,256 ,1 ,64; do
        path=${case%,*} connections=${case#*,}
        # Who comes first changes from round to round.
        [ $((round % 2)) -eq 0 ] && order="load wrk" || order="wrk load"
        for name in $order; do
            tell "round $round of $rounds, /$path, $connections connections, $name"
            start_server "$http" 127.0.0.1:0
            line=$(generate "$name" "$path" "$connections") || exit 1
            echo "$round $case $name $line" >>"$work/rounds"
            stop_server
        done
    done
done
tell

status=0
echo "busy-http by ringspun load and by wrk, medians of $rounds rounds of $seconds s; busy: server, generator"
echo
awk -v rounds="$rounds" "$awk_median"'
    { for (i = 4; i <= NF; i++) value[$2, $3, i, $1] = $i; errors += $7 }
    function is_apart(ratio) { return ratio < 0.9 || ratio > 1.1 }
    function of(name, column,   i, values) { for (i = 1; i <= rounds; i++) values[i] = value[c, name, column, i]; return median(values, rounds) }
    function ratio(column,   i, values) { for (i = 1; i <= rounds; i++) values[i] = value[c, "load", column, i] / value[c, "wrk", column, i]; return median(values, rounds) }
    END {
        printf "%8s %11s  %-4s %11s %9s %9s %12s   %s\n", "path", "connections", "", "requests/s", "p50 us", "p99 us", "busy", "load/wrk: rate, p50"
        count = split("busy/20,1 busy/20,8 busy/20,64 busy/20,256 ,1 ,64", order, " ")
        for (n = 1; n <= count; n++) {
            c = order[n]
            split(c, parts, ",")
            if (parts[1] != "") apart += is_apart(ratio(4)) + is_apart(ratio(5))
            printf "%-8s %11d  %-4s %11d %9d %9d %4d %% %3d %%   %.3f  %.3f\n", "/" parts[1], parts[2], "load", of("load", 4), of("load", 5), of("load", 6), of("load", 9), of("load", 8), ratio(4), ratio(5)
            printf "%8s %11s  %-4s %11d %9d %9d %4d %% %3d %%\n", "", "", "wrk", of("wrk", 4), of("wrk", 5), of("wrk", 6), of("wrk", 9), of("wrk", 8)
        }
        printf "\nerrors: %d; further apart than 10 %% where the server is what limits: %d of 8 ratios\n", errors, apart
        exit apart > 0
    }' "$work/rounds" || status=1

if [ -n "$json" ]; then
    {
        printf '{"version":1,"rounds":['
        awk '{ split($2, parts, ","); printf "%s{\"round\":%d,\"path\":\"/%s\",\"connections\":%d,\"generator\":\"%s\",\"requests_per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"errors\":%d,\"generator_busy_percent\":%.1f,\"server_busy_percent\":%.1f}", (NR > 1 ? "," : ""), $1, parts[1], parts[2], $3, $4, $5, $6, $7, $8, $9 }' "$work/rounds"
        printf ']}\n'
    } >"$json"
fi
exit $status
