# Shared by the scripts: where the project is, and what has to be installed before it builds.
# Sourced, not run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

# Prints the leading comment block of a script as its help.
show_help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$1"; }

# The command that installs, as arguments: packages for apt, dnf, pacman, zypper, apk and brew, in this order.
install_packages() {
    local what=$1 apt=$2 dnf=$3 pacman=$4 zypper=$5 apk=$6 brew=$7
    local -a command update=()
    if command -v apt-get >/dev/null; then
        command=(apt-get install -y -qq $apt); update=(apt-get update -qq)
    elif command -v dnf >/dev/null; then command=(dnf install -y -q $dnf)
    elif command -v pacman >/dev/null; then command=(pacman -S --noconfirm --needed $pacman)
    elif command -v zypper >/dev/null; then command=(zypper --non-interactive install $zypper)
    elif command -v apk >/dev/null; then command=(apk add $apk)
    elif command -v brew >/dev/null; then command=(brew install $brew)
    else
        say "$what is missing, and no known package manager is here to install it."
        exit 1
    fi
    local -a root=()
    if [ "$(id -u)" -ne 0 ] && [ "${command[0]}" != brew ]; then
        if sudo -n true 2>/dev/null; then root=(sudo -n); else
            say "$what is missing. Install it with:  sudo ${command[*]}"
            exit 1
        fi
    fi
    say "installing $what: ${command[*]}"
    [ ${#update[@]} -eq 0 ] || "${root[@]}" "${update[@]}" >&2
    DEBIAN_FRONTEND=noninteractive "${root[@]}" "${command[@]}" >&2
}

# Makes sure that everything the build needs is there: Rust, and a C compiler for the Janet VM.
ensure_build_tools() {
    if ! command -v cargo >/dev/null; then
        say "Rust is missing. Install it as https://rustup.rs says, then run this again."
        exit 1
    fi
    command -v cc >/dev/null || install_packages "a C compiler" "gcc libc6-dev" gcc base-devel gcc "gcc musl-dev" gcc
}

# What the scripts that measure share: a server on one core, the load on another.

# Makes the folder $work, and sees to it that no server is left behind.
prepare_measurement() {
    command -v taskset >/dev/null || install_packages taskset util-linux util-linux util-linux util-linux util-linux util-linux
    command -v strace >/dev/null || install_packages strace strace strace strace strace strace strace
    work=$(mktemp -d)
    server=
    trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
}

# Starts a server, pinned, and waits for the line with its $address.
start_server() {
    : >"$work/out"
    taskset -c 0 "$@" >"$work/out" 2>/dev/null &
    server=$!
    local tries=0
    until [ -s "$work/out" ]; do
        sleep 0.05; tries=$((tries + 1))
        [ $tries -lt 200 ] || { say "the server did not start: $*"; exit 1; }
    done
    address=$(grep -oE '[0-9.]+:[0-9]+' "$work/out" | head -1)
}

stop_server() { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; }

# Reads a number out of a line of JSON.
field() { grep -oE "\"$1\":[0-9.]+" | head -1 | cut -d: -f2; }

# Counts the system calls of a server with 64 connections, driven by $load: a line of
# NAME|ECHOES|CALLS|CALLS PER ECHO|EACH CALL|CALLS THAT MATCH FILTER.
count_calls() { # NAME FILTER COMMAND...
    local name=$1 filter=$2; shift 2
    start_server "$@"
    timeout -s INT 4 strace -f -c -o "$work/calls" -p "$server" 2>/dev/null &
    local tracer=$!
    sleep 0.5
    # Opened, driven and closed under the tracer: what a connection costs is in the count.
    local echoes
    echoes=$(taskset -c 1 "$load" "$address" 64 2 | field echoes)
    wait "$tracer" || true
    stop_server
    awk -v name="$name" -v echoes="$echoes" -v filter="$filter" '
        $1 ~ /^[0-9.]+$/ && NF >= 5 && $NF != "total" {
            calls += $4; list = list (list ? ", " : "") $NF " " $4
            if ($NF ~ filter) refused = refused " " $NF
        }
        END { printf "%s|%d|%d|%.4f|%s|%s\n", name, echoes, calls, calls / echoes, list, refused }' "$work/calls"
}
