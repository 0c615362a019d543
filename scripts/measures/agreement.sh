# Whether `ringspun load` agrees with wrk, h2load and oha about the same server.
#
#     ./scripts/measure agreement [--rounds N] [--seconds S] [--connections N] [--streams N] [--json FILE]
#
# The server is nginx with one worker, pinned to one core; the generators, with one thread each, to another. Ours and another one
# keep as many connections (default 64) in a closed loop, interleaved, N rounds (default 7) of S seconds (default 3):
#
# 1. wrk over HTTP/1.1
# 2. h2load over HTTP/2 in TLS, with so many streams on each connection (default 4)
# 3. oha over HTTP/1.1 in TLS
#
# Each with an answer that nginx compresses, which makes the server the bottleneck, and with one that costs it next to nothing,
# where a generator may reach its own limit first. Prints medians of throughput, p50, the generator's processor time per
# request, start and connecting included, and how busy server and generator were; and the medians of the rounds' ratios,
# ours over the other's. Fails if throughput or p50 is not within 10 % where the server is the bottleneck, if that was not so
# although it should have been, or if a request failed. h2load tells no p50: it is that of a run of its own, with a log.
#
# Needs two cores. nginx, openssl, wrk and h2load are installed if they are missing and a package manager can do that. oha is in few
# distributions: `cargo install oha --locked` (tried with 1.16). Pairs without a program are skipped, which a line with SKIPPED says.

ensure_build_tools
ensure_python
ensure_program nginx
ensure_program openssl
# Without them, there is something left to measure.
(ensure_program wrk) || true
command -v h2load >/dev/null || (install_packages h2load nghttp2-client nghttp2 nghttp2 nghttp2 nghttp2 nghttp2) || true
cargo build --release --quiet --bin ringspun
run_python measures/agreement.py "$@"
