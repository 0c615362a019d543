# Whether a server grows over ten million connections and a hundred million echoes.
#
#     ./scripts/measure soak [--quick] [--connections 10M] [--echoes 100M] [--parts 10] [--backend uring|poll] [--json FILE]
#
# One `ringspun serve echo` serves 10 million connections that come, echo once and go, and meanwhile others that stay and
# send messages of 1 to 2,048 bytes, 8 at a time, until 100 million echoes are answered, each of which is compared. After
# each of the parts all connections are closed, and what the server still holds is printed: resident memory, page tables,
# descriptors, fibers, operations, timers and buffers. Fails if descriptors or counts are more than after the first part, or
# memory by more than 4 MiB at the end, or if anything was answered wrongly or not at all.
#
# Takes ten minutes; --quick, for 50,000 connections and 500,000 echoes, takes half a minute. Needs two cores and python3.

ensure_build_tools
ensure_python
cargo build --release --quiet --bin ringspun
run_python measures/soak.py "$@"
