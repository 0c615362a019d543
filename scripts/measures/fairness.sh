# Whether one client that floods a server keeps a thousand others waiting.
#
#     ./scripts/measure fairness [--rounds N] [--seconds S] [--connections N] [--rate R] [--servers uring,poll,janet] [--json FILE]
#
# 1,000 connections have 5,000 messages of 64 bytes echoed per second (open loop), N rounds (default 7) of S seconds
# (default 3): without a flooder, with one that sends as fast as the server takes it and reads what comes back, and with
# one that does so to another server. Fails if the p99.9 with a flooder, over that without, is above 3 (the median of the
# rounds' ratios) for a server: `ringspun serve echo` on each backend, examples/echo.janet, or `stock`, the same on the VM's
# own network code.
#
# What disturbs the figure: with two cores, the server has one, and the clients share the other with the flooder. So the
# rate is far below what the clients can do, and the flooder runs in idle time (SCHED_IDLE): it is preempted when a client
# has something to do, but not within a system call, in which the kernel also delivers what it sends. The row with another
# server, which runs on the clients' core too, shows how much of the ratio is due to that. A server that the flooder keeps
# busy never sleeps, and saves the clients the time of waking it: p50 may fall.

ensure_build_tools
ensure_python
cargo build --release --quiet --bin ringspun
run_python measures/fairness.py "$@"
