# What each of many open connections takes, of the server and of the kernel.
#
#     ./scripts/measure scale [--sizes 1000,5000,19000] [--servers uring,poll,janet,tls-uring,tls-poll] [--json FILE]
#     ./scripts/measure scale --connections 200000 [--servers uring,poll,janet,tls-uring,tls-poll] [--json FILE]
#
# A server (`ringspun serve echo` on each backend, examples/echo.janet) holds that many connections, each of which has echoed
# three times and is then idle; tls-uring and tls-poll speak TLS 1.3, and are measured if they are asked for. Prints, in
# bytes per connection: the server's resident memory with the pages of the fibers' stacks, its page tables, and what the
# kernel holds for the socket and its armed receive, from /proc/slabinfo (root only) and /proc/net/sockstat; then what a
# waiting message adds, and how long connecting took. Both ends are on this machine: of what both have, half is the
# server's. Whatever else the machine does is in the kernel's figures, so it should be idle. docs/scale.md says what follows
# for a million connections.
#
# With --connections, so many echo at once, more than a process may have files: over as many servers as that takes, and a
# process of clients for each. All messages are sent before any answer is read.
#
# A size that the limit on open files does not allow is SKIPPED. Needs Linux, python3 and two cores.

ensure_build_tools
ensure_python
cargo build --release --quiet --bin ringspun
run_python measures/scale.py "$@"
