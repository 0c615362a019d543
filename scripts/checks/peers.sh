# That the echo servers of the peers, against which figures are compared, build and echo.
#
#     ./scripts/check peers [NAME...]      for instance: ./scripts/check peers tokio bare
#
# NAME is that of a program benches/src/bin/echo_NAME.rs; all by default. `ringspun load`, which compares every byte, drives
# each without an error, over TLS if its name ends with that: 64-byte messages on 1, 64, 1,000 and 10,000 connections, 16 at
# a time on 64, messages of 64 KiB on 8, and connections that are opened, used once and closed; tokio's also over UDP and a
# Unix socket. What the limit on open files does not allow is SKIPPED. Takes some minutes, nearly all of them for the build.

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for source in benches/src/bin/echo_*.rs; do
        name=$(basename "$source" .rs)
        # The client of that folder.
        [ "$name" = echo_load ] || names+=("${name#echo_}")
    done
fi
binaries=()
for name in "${names[@]}"; do
    [ -f "benches/src/bin/echo_$name.rs" ] || refuse "$name: expected the NAME of a benches/src/bin/echo_NAME.rs"
    binaries+=(--bin "echo_$name")
done
ensure_build_tools
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun
cargo build --release --quiet --manifest-path benches/Cargo.toml --target-dir "$target/benches" "${binaries[@]}"
ringspun=$target/release/ringspun
ulimit -n "$(ulimit -Hn)"
prepare_servers
failed=0

# Starts a server and waits for the $address that it prints.
start() { # ARGUMENTS OF SERVER
    : >"$work/out"
    "$target/benches/release/echo_$name" "$@" >"$work/out" 2>"$work/errors" &
    server=$!
    local tries=0
    until grep -q '^listening on ' "$work/out"; do
        sleep 0.05; tries=$((tries + 1))
        if [ $tries -ge 200 ] || ! kill -0 "$server" 2>/dev/null; then
            say "$name: did not start: $(head -1 "$work/errors")"
            failed=1; server=
            return 1
        fi
    done
    address=$(sed -n 's/^listening on \(.*\) (.*)$/\1/p' "$work/out")
}

stop() {
    kill -0 "$server" 2>/dev/null || { say "$name: ended by itself: $(head -1 "$work/errors")"; failed=1; }
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

check() { # WHAT ARGUMENTS OF ringspun load
    local what=$1; shift
    if "$ringspun" load "$@" --fail-if 'errors>0' >"$work/report" 2>&1; then
        echo "$name: $what: ok"
    else
        echo "$name: $what: FAILED"
        sed 's/^/    /' "$work/report"
        failed=1
    fi
}

for name in "${names[@]}"; do
    scheme=tcp options=()
    case "$name" in *_tls) scheme=tls options=(--insecure) ;; esac
    if start; then
        for connections in 1 64 1000 10000; do
            if [ "$(ulimit -n)" -lt $((connections + 100)) ]; then
                echo "SKIPPED $name: $connections connections: the limit on open files is $(ulimit -n)"
                continue
            fi
            check "$connections connections" "$scheme://$address" "${options[@]}" --connections "$connections" --count 50000
        done
        check "16 at a time" "$scheme://$address" "${options[@]}" --connections 64 --pipeline 16 --count 50000
        check "64 KiB" "$scheme://$address" "${options[@]}" --connections 8 --payload 64k --count 2000
        check "opened and closed" "$scheme://$address" "${options[@]}" --connections 8 --workload churn --count 5000
        check "opened, used and closed" "$scheme://$address" "${options[@]}" --connections 8 --workload churn --payload 64 --count 5000
        stop
    fi
    [ "$name" = tokio ] || continue
    if start --udp; then check "UDP" "udp://$address" --connections 8 --count 20000; stop; fi
    if start --unix "$work/socket"; then check "Unix" "unix:$address" --connections 64 --count 50000; stop; fi
done
exit "$failed"
