# Shared by the scripts: subcommands and their help, what has to be installed before the project builds, and how servers
# are started and measured. Sourced, not run. The project's folder becomes the current one.

set -euo pipefail
# Where the script was called: files that its arguments name are relative to it.
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

# Prints the leading comment block of a script as its help.
show_help() { sed -n '/^#!/d; /^$/q; s/^# \{0,1\}//p' "$1"; }

# Subcommands: `scripts/NAME WHAT ARGUMENTS` runs scripts/FOLDER/WHAT.sh, whose leading comment is its help and the first line
# of that its summary. Help is printed before anything is built or installed.
dispatch() { # NAME FOLDER ARGUMENTS...
    local name=$1 folder=scripts/$2
    shift 2
    case "${1:-}" in
    -h | --help) show_help "scripts/$name"; echo; list_subcommands "$folder"; exit 0 ;;
    "") { show_help "scripts/$name"; echo; list_subcommands "$folder"; } >&2; exit 2 ;;
    esac
    what=$1
    shift
    # A name, and no path.
    if [[ ! "$what" =~ ^[a-z]+$ ]] || [ ! -f "$folder/$what.sh" ]; then
        say "scripts/$name $what: not known; expected one of:"
        list_subcommands "$folder" >&2
        exit 2
    fi
    local argument
    for argument in "$@"; do
        case "$argument" in -h | --help) show_help "$folder/$what.sh"; exit 0 ;; esac
    done
    subcommand="./scripts/$name $what"
    . "$folder/$what.sh"
}

list_subcommands() { # FOLDER
    local file
    for file in "$1"/*.sh; do printf '  %-14s%s\n' "$(basename "$file" .sh)" "$(sed -n '1s/^# //p' "$file")"; done
}

# Refuses the arguments of a subcommand.
refuse() { say "$subcommand: $*; see $subcommand --help"; exit 2; }

expect_no_arguments() { [ $# -eq 0 ] || refuse "$1: expected no arguments"; }

# Fails unless a program is here.
require() { # PROGRAM HOW TO INSTALL IT
    command -v "$1" >/dev/null || { say "$1 is missing. Install it with:  $2"; exit 1; }
}

require_cargo() { command -v cargo >/dev/null || { say "Rust is missing. Install it as https://rustup.rs says."; exit 1; }; }

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
    require_cargo
    command -v cc >/dev/null || install_packages "a C compiler" "gcc libc6-dev" gcc base-devel gcc "gcc musl-dev" gcc
}

# Installs a program that is missing and whose package has the same name everywhere, or the name given.
ensure_program() { # PROGRAM [PACKAGE]
    local package=${2:-$1}
    command -v "$1" >/dev/null ||
        install_packages "$1" "$package" "$package" "$package" "$package" "$package" "$package"
}

ensure_python() { command -v python3 >/dev/null || install_packages python3 python3 python3 python python3 python3 python3; }

# Servers, and what is measured of them.

# Makes the folder $work, and sees to it that neither it nor a server is left behind.
prepare_servers() {
    work=$(mktemp -d)
    server= pin=()
    trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
}

# The same for measurements: servers run on one core, and load generators are to run on another.
prepare_measurement() {
    ensure_program taskset util-linux
    ensure_program strace
    prepare_servers
    pin=(taskset -c 0)
}

# Starts a server, and waits for the line with its $address.
start_server() {
    : >"$work/out"
    "${pin[@]}" "$@" >"$work/out" 2>/dev/null &
    server=$!
    local tries=0
    until grep -q : "$work/out"; do
        sleep 0.05; tries=$((tries + 1))
        [ $tries -lt 200 ] && kill -0 "$server" 2>/dev/null || { say "the server did not start: $*"; exit 1; }
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

# The processor time of the server so far, in microseconds.
server_time_us() { awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000000 / ticks }' "/proc/$server/stat"; }

# Sets $rounds, $seconds and $json from the arguments that most measurements take.
parse_rounds() { # DEFAULT ROUNDS, DEFAULT SECONDS, ARGUMENTS...
    rounds=$1 seconds=$2 json=
    shift 2
    while [ $# -gt 0 ]; do
        case "$1" in
        --rounds | --seconds)
            [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || refuse "$1 ${2:-}: expected a positive number"
            declare -g "${1#--}=$2"; shift 2 ;;
        --json)
            [ -n "${2:-}" ] || refuse "--json: expected a file"
            json=$(cd "$caller" && realpath -m "$2"); shift 2 ;;
        *) refuse "$1: unknown option" ;;
        esac
    done
}

# Tells progress on a terminal; without arguments, removes what was told.
tell() { [ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2; }

# A function of awk programs: the median of values[1] to values[count].
awk_median='function median(values, count,   i, j, moved) {
    for (i = 2; i <= count; i++)
        for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
            moved = values[j]; values[j] = values[j - 1]; values[j - 1] = moved
        }
    return values[int((count + 1) / 2)]
}'

# Runs a Python program of scripts/, which starts the servers of a release build itself.
run_python() { # PROGRAM ARGUMENTS...
    local program=scripts/$1
    shift
    exec env RINGSPUN_TARGET="$(realpath -m "${CARGO_TARGET_DIR:-target}")" RINGSPUN_CALLER="$caller" PYTHONDONTWRITEBYTECODE=1 \
        PYTHONPATH=scripts/comparison python3 "$program" "$@"
}
