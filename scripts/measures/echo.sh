# Janet's echo on the ring and on the VM's own network code, and system calls per echo.
#
#     ./scripts/measure echo [--rounds N] [--seconds S] [--json FILE]
#
# 1. Throughput of examples/echo.janet with 64, 1,000 and 10,000 connections, on the ring and on the VM's own network
#    code (RINGSPUN_NET=stock), interleaved, N rounds (default 5) of S seconds (default 3). The server is pinned to one
#    core, the load generator to another.
# 2. System calls per echo with 64 connections, counted by strace, of `ringspun serve echo` and of examples/echo.janet.
#
# Prints tables of medians; --json writes every round. Needs two cores, taskset, and strace, which are installed if they are
# missing.

parse_rounds 5 3 "$@"
ensure_build_tools
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun
cargo build --release --quiet --manifest-path benches/Cargo.toml --target-dir "$target/benches" --bin echo_load
ringspun=$target/release/ringspun load=$target/benches/release/echo_load
prepare_measurement
for round in $(seq "$rounds"); do
    for connections in 64 1000 10000; do
        for net in ring stock; do
            tell "round $round of $rounds, $connections connections, $net"
            RINGSPUN_NET=$net start_server "$ringspun" janet examples/echo.janet
            line=$(taskset -c 1 "$load" "$address" "$connections" "$seconds")
            stop_server
            echo "$net $connections $(field echoes_per_second <<<"$line") $(field slowest_ms <<<"$line")" >>"$work/rounds"
        done
    done
done
tell

per_request='^(recvfrom|sendto|accept4|epoll_ctl)$'
count_calls "ringspun serve echo" "$per_request" "$ringspun" serve echo --workers 1 --tcp 127.0.0.1:0 >>"$work/syscalls"
count_calls "examples/echo.janet" "$per_request" "$ringspun" janet examples/echo.janet >>"$work/syscalls"

echo "Echoes per second of examples/echo.janet, medians of $rounds rounds of $seconds s:"
echo
sort -k1,1 -k2,2n -k3,3n "$work/rounds" | awk '
    { key = $1 " " $2; n[key]++; rate[key, n[key]] = $3; slow[key] = slow[key] > $4 ? slow[key] : $4 }
    function median(key) { return rate[key, int((n[key] + 1) / 2)] }
    END {
        printf "%12s %12s %12s %12s %16s %16s\n", "connections", "ring", "stock", "ring/stock", "slowest ring", "slowest stock"
        for (i = split("64 1000 10000", at, " "); i > 0; i--) order[4 - i] = at[4 - i]
        for (i = 1; i <= 3; i++) {
            c = order[i]; r = median("ring " c); s = median("stock " c)
            printf "%12d %12d %12d %12.2f %13.0f ms %13.0f ms\n", c, r, s, r / s, slow["ring " c], slow["stock " c]
        }
        printf "\nkept by the ring at 10,000 of its throughput at 64: %.2f\n", median("ring 10000") / median("ring 64")
    }'
echo
echo "System calls with 64 connections, opened and closed under strace:"
echo
awk -F'|' '{ printf "%-22s %9d echoes %7d calls %8.4f per echo   (%s)%s\n", $1, $2, $3, $4, $5, ($6 ? "   PER REQUEST:" $6 : "") }' "$work/syscalls"

if [ -n "$json" ]; then
    {
        printf '{"version":1,"rounds":['
        awk '{ printf "%s{\"net\":\"%s\",\"connections\":%d,\"echoes_per_second\":%d,\"slowest_ms\":%s}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }' "$work/rounds"
        printf '],"system_calls":['
        awk -F'|' '{ printf "%s{\"server\":\"%s\",\"echoes\":%d,\"calls\":%d,\"calls_per_echo\":%s}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }' "$work/syscalls"
        printf ']}\n'
    } >"$json"
fi
