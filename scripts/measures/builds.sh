# Two builds of `ringspun` in the cells of the comparison, in turn: what a change gained or cost.
#
#     ./scripts/measure builds OTHER [--rounds N] [--seconds S] [--cells PATTERN] [--json FILE]
#
# OTHER is the `ringspun` of another commit, built in release mode. Each round takes a sample of both, in turns A B, B A, with the
# server pinned to one core and the load generator of this build to another. Prints the medians of the rounds' ratios
# (this build over the other), with their range. N is 7 and S is 2 by default; PATTERN is a regular expression of the
# names that `./scripts/compare --list` tells. Needs two cores, python3 and taskset.

other=${1:?"builds: expected the path of another ringspun; see ./scripts/measure builds --help"}
shift
[ -x "$other" ] || { say "$other: expected a program"; exit 2; }
ensure_build_tools
ensure_program python3
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --quiet --bin ringspun
RINGSPUN_TARGET=$target PYTHONPATH=scripts/comparison exec python3 scripts/measures/builds.py "$(realpath "$other")" "$@"
