"""The matrix: which servers are compared, in which cells, under which load."""

import glob
import os
import re
from dataclasses import dataclass, replace

from servers import BENCHES, EXAMPLES, LOAD_CORE, RINGSPUN, SERVER_CORE, STOCK, TARGET, Server

OURS = "ringspun"
# The least that any server on io_uring can cost, written for this one purpose: shown, and no peer.
LIMITS = {"bare"}
# Ours with another choice than its default: what the choice gives or costs, and no peers either.
LATENCY, NO_SPIN, POLL = "ringspun, latency", "ringspun, no spin", "ringspun, poll"
ONE_WORKER = "ringspun, 1 worker"
# hyper on fibers: beside hyper on tokio, what a crate for futures costs here.
HYPER = "ringspun, hyper"
VARIANTS = {
    ONE_WORKER: {},
    HYPER: {},
    LATENCY: {"RINGSPUN_SPIN": "latency"},
    NO_SPIN: {"RINGSPUN_SPIN": "off"},
    POLL: {"RINGSPUN_BACKEND": "poll"},
}
FILE_SIZES = (4_096, 65_536)
# A client cannot use a port again for a minute, and an address has 28,000: churn takes several in turn.
MANY_ADDRESSES = ",".join(f"127.0.0.{last}" for last in range(2, 34))


@dataclass(frozen=True)
class Cell:
    """Servers under the same load."""

    name: str
    title: str
    group: str
    connections: int
    load: tuple
    servers: tuple
    path: str = ""
    server_cores: tuple = (SERVER_CORE,)
    load_cores: tuple = (LOAD_CORE,)


def peers(kind, buffer_bytes=None):
    """Echo servers of others: echo_NAME.rs, and beyond TCP echo_NAME_KIND.rs, or echo_NAME.rs where it tells of --KIND."""
    found = []
    for source in sorted(glob.glob("benches/src/bin/echo_*.rs")):
        program = os.path.basename(source)[:-3]
        name, _, own_kind = program.removeprefix("echo_").partition("_")
        if name == "load":
            continue
        with open(source) as file:
            text = file.read()
        command, has_flag = [f"{BENCHES}/{program}"], not own_kind and f"--{kind}" in text
        if own_kind == kind or (kind == "tcp" and not own_kind) or has_flag:
            command += [f"--{kind}"] if has_flag else []
            command += ["SOCKET"] if kind == "unix" else []
            command += ["--buffer", str(buffer_bytes)] if buffer_bytes and "--buffer" in text else []
            found.append(Server(name, tuple(command), kind))
    return found


def echo_servers(kind, buffer_bytes=None):
    place = {"tcp": "127.0.0.1:0", "udp": "127.0.0.1:0", "unix": "SOCKET", "tls": "127.0.0.1:0"}[kind]
    certificate = ("--self-signed",) if kind == "tls" else ()
    ours = (RINGSPUN, "serve", "echo", "--workers", "1", f"--{kind}", place, *certificate)
    return (Server(OURS, ours, kind), *peers(kind, buffer_bytes))


def with_variants(servers, *names):
    """The servers, and ours with other choices, right after it."""
    ours = servers[0]
    return (ours, *(replace(ours, name=name, environment=VARIANTS[name]) for name in names), *servers[1:])


def janet_servers(script, kind="tcp"):
    command = (RINGSPUN, "janet", script)
    return (
        Server(OURS, command, kind, {"RINGSPUN_NET": "ring"}),
        Server(STOCK, command, kind, {"RINGSPUN_NET": STOCK}),
    )


def http_servers():
    """Servers that say what was asked for: ours is an example, http_fibers.rs is hyper on our fibers, those of others are
    http_NAME.rs, and nginx."""
    found = [Server(OURS, (f"{EXAMPLES}/http", "127.0.0.1:0"), "http")]
    for source in sorted(glob.glob("benches/src/bin/http_*.rs")):
        program = os.path.basename(source)[:-3]
        name = HYPER if program == "http_fibers" else program.removeprefix("http_")
        found.append(Server(name, (f"{BENCHES}/{program}",), "http"))
    return (*found, Server("nginx", ("python3", "benches/nginx/http_nginx.py", "SOCKET"), "http"))


def file_servers():
    """Servers of a folder with a file for each size, named after it: our example, and nginx with sendfile(2)."""
    folder = os.path.abspath(f"{TARGET}/comparison-files")
    os.makedirs(folder, exist_ok=True)
    for size in FILE_SIZES:
        with open(f"{folder}/{size}", "wb") as file:
            file.write(b"w" * size)
    nginx = ("python3", "benches/nginx/http_nginx.py", "SOCKET", folder)
    return (Server(OURS, (f"{EXAMPLES}/http", "127.0.0.1:0", folder), "http"), Server("nginx", nginx, "http"))


def on_two_workers(servers):
    """Servers with a worker for each of two cores, and ours with one; without the bare loop, which has one."""
    ours, one_worker, *peers_and_limits = with_variants(servers, ONE_WORKER)
    ours = replace(ours, command=tuple("2" if part == "1" else part for part in ours.command))
    kept = [server for server in peers_and_limits if server.name not in LIMITS]
    return (ours, one_worker, *(replace(peer, command=(*peer.command, "--threads", "2")) for peer in kept))


def all_cells():
    """Every cell, in the order of the document."""
    cells = []

    def add(name, title, group, connections, servers, *load, path="", **cores):
        cells.append(Cell(name, title, group, connections, load, servers, path, **cores))

    tcp = echo_servers("tcp")
    spins, polls = with_variants(tcp, LATENCY, NO_SPIN, POLL), with_variants(tcp, POLL)
    for connections, servers in ((1, spins), (4, spins), (64, polls), (1_000, polls), (10_000, tcp)):
        add(f"tcp-echo-{connections}", f"{connections:,}", "TCP echo, 64 bytes", connections, servers)
    add("tcp-pipeline-64", "64, 16 deep", "TCP pipelining, 64 bytes", 64, tcp, "--pipeline", "16")
    # Peers that read into a buffer of a size that the program chooses get one that takes a whole message.
    large = echo_servers("tcp", buffer_bytes=65_536)
    for connections, servers in ((1, with_variants(large, POLL)), (8, large)):
        add(f"tcp-64k-{connections}", f"{connections}", "TCP echo, 64 KiB", connections, servers, "--payload", "65536")
    # With an echo, as a client that only connects runs ahead of the server until the kernel drops its connections.
    churn = ("--workload", "churn", "--payload", "64", "--bind", MANY_ADDRESSES)
    add("tcp-churn-16", "16", "TCP, connect, one echo and close", 16, tcp, *churn)
    add("udp-echo-64", "64", "UDP echo, 64 bytes", 64, echo_servers("udp"))
    add("unix-echo-64", "64", "Unix stream echo, 64 bytes", 64, echo_servers("unix"))
    tls, large_tls = echo_servers("tls"), echo_servers("tls", buffer_bytes=65_536)
    for connections in (64, 1_000):
        add(f"tls-echo-{connections}", f"{connections:,}", "TLS 1.3 echo, 64 bytes", connections, tls, "--insecure")
    add("tls-64k-8", "8", "TLS 1.3 echo, 64 KiB", 8, large_tls, "--payload", "65536", "--insecure")
    for name, title, resumes in (("full", "full", "no"), ("resumed", "resumed", "yes")):
        title = f"TLS 1.3, connect with a {title} handshake, one echo and close"
        add(f"tls-{name}-16", "16", title, 16, tls, *churn, "--insecure", "--tls-resume", resumes)
    for connections in (64, 1_000):
        add(f"http-{connections}", f"{connections:,}", "HTTP/1.1", connections, http_servers(), path="/")
        close = ("--header", "Connection: close", "--bind", MANY_ADDRESSES)
        title = "HTTP/1.1, a connection for each request"
        add(f"http-close-{connections}", f"{connections:,}", title, connections, http_servers(), *close, path="/")
    for size in FILE_SIZES:
        add(f"http-file-{size // 1024}k", "64", f"HTTP/1.1, a file of {size // 1024} KiB", 64, file_servers(), path=f"/{size}")
    for connections in (64, 1_000, 10_000):
        janet = janet_servers("examples/echo.janet")
        add(f"janet-echo-{connections}", f"{connections:,}", "Janet: TCP echo, 64 bytes", connections, janet)
    for connections in (64, 1_000, 10_000):
        janet = janet_servers("benches/janet/http.janet", "http")
        add(f"janet-http-{connections}", f"{connections:,}", "Janet: HTTP/1.1", connections, janet, path="/")
    both = {"server_cores": (SERVER_CORE, LOAD_CORE), "load_cores": (SERVER_CORE, LOAD_CORE)}
    for connections in (64, 1_000):
        title = "Two workers on two cores, with the generator: TCP echo, 64 bytes"
        add(f"cores-echo-{connections}", f"{connections:,}", title, connections, on_two_workers(tcp), **both)
    title = "Two workers on two cores, with the generator: TCP, connect, one echo and close"
    add("cores-churn-16", "16", title, 16, on_two_workers(tcp), *churn, **both)
    for connections in (64, 1_000):
        title = "Two threads on two cores, with the generator: Janet, TCP echo, 64 bytes"
        add(f"cores-janet-{connections}", f"{connections:,}", title, connections, janet_servers("benches/janet/echo_threads.janet"), **both)
    return cells


def counted_servers():
    """Servers of which instructions, system calls and memory are told: by title, as Janet's stand apart."""
    return {"echo": echo_servers("tcp"), "janet": janet_servers("examples/echo.janet")}


@dataclass(frozen=True)
class Count:
    """What is counted per request of the servers of one group, with some connections of which some are active."""

    kind: str
    group: str
    connections: int
    servers: tuple
    # For instructions only, each of which takes its time to step through.
    active: int = 0
    rounds: int = 0

    @property
    def name(self):
        return f"{self.kind}-{self.group}-{self.connections}"


def all_counts(is_quick):
    counts = []
    for group, servers in counted_servers().items():
        is_janet = group == "janet"
        # Rounds of others repeat; few of the VM's have a collection of garbage in them, which the median leaves out.
        few = 3 if is_janet else 1
        counts.append(Count("instructions", group, 64, servers, 64, 1 if is_quick else 5))
        if not is_quick:
            counts.append(Count("instructions", group, 1_000, servers, 64, few))
            # A step takes the longer the more connections there are: with 10,000, almost a millisecond.
            flat = servers[:1] if is_janet else servers
            counts.append(Count("instructions", group, 10_000, flat, 64, 1))
        counts += [Count("calls", group, connections, servers) for connections in ([64] if is_quick else [64, 1_000])]
    return counts


def matching(names, pattern):
    return [name for name in names if re.search(pattern, name)]
