"""Measures what a connection takes at several sizes: see scripts/measures/scale.sh, which builds all and starts this."""

import argparse
import json
import os
import platform
import re
import resource
import signal
import socket
import ssl
import struct
import sys
import time

from servers import RINGSPUN, Failure, Running, Server, raise_open_files

SERVERS = {
    # Blocking sockets that nobody waits on: what the others add to its sockets is their wait.
    "plain": Server("plain", (sys.executable, os.path.join(os.path.dirname(__file__), "plain_server.py"))),
    "uring": Server("uring", (RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "uring"}),
    "poll": Server("poll", (RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "poll"}),
    "tls-uring": Server("tls-uring", (RINGSPUN, "serve", "echo", "--workers", "1", "--tls", "127.0.0.1:0", "--self-signed"), environment={"RINGSPUN_BACKEND": "uring"}),
    "tls-poll": Server("tls-poll", (RINGSPUN, "serve", "echo", "--workers", "1", "--tls", "127.0.0.1:0", "--self-signed"), environment={"RINGSPUN_BACKEND": "poll"}),
    "janet": Server("janet", (RINGSPUN, "janet", "examples/echo.janet"), environment={"RINGSPUN_NET": "ring"}),
}
# Open before the first reading, so that what a server makes once is not in what a connection takes.
FIRST_CONNECTIONS = 10
MESSAGE, ROUNDS, SETTLE_S = b"x" * 64, 3, 0.5
# Both ends of a connection are on this machine, and each has one of these. The last is there with security modules.
PAIRED_SLABS = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_file_cache")
# What may be allocated for a connection besides, by names under which the kernel merges caches of the same size.
OTHER_SLABS = re.compile(r"io_kiocb|eventpoll|ep_head|anon_vma_chain|kmalloc-(cg-)?\d|tcp_bind")
MESSAGE_SLABS = re.compile(r"skbuff_|kmalloc-(cg-)?\d")
PORTS_PER_ADDRESS, IP_BIND_ADDRESS_NO_PORT = 5_000, 24


def read(path):
    with open(path) as file:
        return file.read()


def slab_bytes():
    """The memory of the objects of each of the kernel's caches, or nothing where that may not be read."""
    try:
        lines = read("/proc/slabinfo").splitlines()[2:]
    except PermissionError:
        return {}
    found = {}
    for line in lines:
        name, objects, _, _, objects_per_slab, pages_per_slab = line.split()[:6]
        found[name] = int(objects) * int(pages_per_slab) * resource.getpagesize() / int(objects_per_slab)
    return found


def snapshot(process):
    """What the server and the kernel hold now, in bytes."""
    status, maps = read(f"/proc/{process}/status"), read(f"/proc/{process}/smaps")
    kib = lambda name, text: sum(int(number) for number in re.findall(rf"^{name}:\s+(\d+)", text, re.M)) * 1024
    # Stacks are mapped ahead, without a reserve, as nothing else here is.
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", maps, flags=re.M)
    stacks = sum(kib("Rss", area) for area in areas if re.search(r"^VmFlags:.* nr\b", area, re.M))
    return {
        # Exact, as the sum in `status` is not.
        "resident": kib("Rss", maps),
        "stacks": stacks,
        "page_tables": kib("VmPTE", status),
        "socket_buffers": int(re.search(r"^TCP:.* mem (\d+)", read("/proc/net/sockstat"), re.M)[1]) * resource.getpagesize(),
        "slabs": slab_bytes(),
    }


def per_connection(before, after, connections):
    """Bytes per connection of the server, and of the kernel."""
    change = lambda name: (after[name] - before[name]) / connections
    slabs = {name: (after["slabs"].get(name, 0) - size) / connections for name, size in before["slabs"].items()}
    figures = {
        "resident": change("resident"),
        "stacks": change("stacks"),
        "other_resident": change("resident") - change("stacks"),
        "page_tables": change("page_tables"),
        "charged_buffers": change("socket_buffers"),
    }
    if slabs:
        figures["socket"] = sum(slabs.get(name, 0) for name in PAIRED_SLABS) / 2
        # Of both ends, until what a plain server has is taken away.
        figures["wait"] = sum(size for name, size in slabs.items() if OTHER_SLABS.match(name))
        figures["messages"] = sum(size for name, size in slabs.items() if MESSAGE_SLABS.match(name))
        figures["slabs"] = {name: round(size, 1) for name, size in slabs.items() if abs(size) >= 8}
    return figures


class Clients:
    """Connections that are driven all at once."""

    def __init__(self, address, with_tls):
        host, port = address.rsplit(":", 1)
        self.address, self.connections, self.tls = (host, int(port)), [], None
        if with_tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The server's certificate has signed itself.
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def open_up_to(self, count):
        while len(self.connections) < count:
            connection = socket.socket()
            connection.settimeout(60)
            # The kernel looks long for a free port where few are left.
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((f"127.0.0.{2 + len(self.connections) // PORTS_PER_ADDRESS}", 0))
            connection.connect(self.address)
            # Closed with a reset, so that no port is kept for a minute and the next size finds them all.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connections.append(self.tls.wrap_socket(connection) if self.tls else connection)

    def send(self):
        for connection in self.connections:
            connection.sendall(MESSAGE)

    def receive(self):
        for number, connection in enumerate(self.connections):
            received = b""
            while len(received) < len(MESSAGE):
                part = connection.recv(len(MESSAGE) - len(received))
                if not part:
                    raise Failure(f"connection {number + 1} was closed")
                received += part
            if received != MESSAGE:
                raise Failure(f"connection {number + 1} got back what it did not send")

    def echo(self):
        self.send()
        self.receive()

    def close(self):
        for connection in self.connections:
            connection.close()


def measure(server, count):
    """One server that holds so many connections."""
    with Running(server) as running:
        process, clients = running.process.pid, Clients(running.address, server.name.startswith("tls"))
        try:
            clients.open_up_to(FIRST_CONNECTIONS)
            clients.echo()
            time.sleep(SETTLE_S)
            before = snapshot(process)
            began = time.monotonic()
            clients.open_up_to(FIRST_CONNECTIONS + count)
            connected = time.monotonic()
            # Until the server has served each of them.
            clients.echo()
            echoed = time.monotonic()
            for _ in range(ROUNDS - 1):
                clients.echo()
            time.sleep(SETTLE_S)
            idle = snapshot(process)
            # A message waits on every connection.
            running.process.send_signal(signal.SIGSTOP)
            clients.send()
            waiting = snapshot(process)
            running.process.send_signal(signal.SIGCONT)
            clients.receive()
        finally:
            running.process.send_signal(signal.SIGCONT)
            clients.close()
    queued = per_connection(idle, waiting, len(clients.connections))
    return {
        "server": server.name,
        "connections": count,
        "resident_before_bytes": before["resident"],
        "per_connection_bytes": per_connection(before, idle, count),
        "waiting_message_bytes": {"charged": queued["charged_buffers"], "kernel": queued.get("messages")},
        "connect_s": connected - began,
        "first_echoes_s": echoed - connected,
    }


def without_plain(samples):
    """Takes from each what plain sockets of the same number have as well, the client's side among it."""
    plain = {sample["connections"]: sample["per_connection_bytes"] for sample in samples if sample["server"] == "plain"}
    for sample in samples:
        figures, other = sample["per_connection_bytes"], plain.get(sample["connections"])
        if sample["server"] != "plain" and "wait" in figures:
            figures["wait"] = figures["wait"] - other["wait"] if other else None
    return samples


ROWS = {
    "resident": "server: resident",
    "stacks": "  of that, stacks of fibers",
    "other_resident": "  of that, the rest",
    "page_tables": "kernel: page tables",
    "socket": "kernel: socket and file",
    "wait": "kernel: the armed wait",
}


def table(samples):
    for name in dict.fromkeys(sample["server"] for sample in samples if sample["server"] != "plain"):
        chosen = [sample for sample in samples if sample["server"] == name]
        row = lambda title, values: print(f"{title:36}" + "".join(f"{'-' if value is None else f'{value:,.0f}':>10}" for value in values))
        figures = [sample["per_connection_bytes"] for sample in chosen]
        print(f"\n{name}: bytes per idle connection\n")
        row("connections", [sample["connections"] for sample in chosen])
        for key, title in ROWS.items():
            row(title, [figure.get(key) for figure in figures])
        sums = [figure.get("wait") and sum(figure[key] for key in ("resident", "page_tables", "socket", "wait")) for figure in figures]
        row("all of that", sums)
        row("a message of 64 bytes that waits", [sample["waiting_message_bytes"]["kernel"] for sample in chosen])
        row("  charged against tcp_mem", [sample["waiting_message_bytes"]["charged"] for sample in chosen])
        row("connecting all, ms", [sample["connect_s"] * 1000 for sample in chosen])
        row("the first echo of all, ms", [sample["first_echoes_s"] * 1000 for sample in chosen])


def main():
    parser = argparse.ArgumentParser(prog="measure-scale", add_help=False)
    parser.add_argument("--sizes", default="1000,5000,19000")
    parser.add_argument("--servers", default="uring,poll,janet")
    parser.add_argument("--json")
    options = parser.parse_args()
    files = raise_open_files()
    samples = []
    for name in ["plain", *options.servers.split(",")]:
        if name not in SERVERS:
            sys.exit(f"--servers {name}: expected some of {','.join(SERVERS)}")
        for text in options.sizes.split(","):
            size = int(text)
            if size + FIRST_CONNECTIONS + 100 > files:
                print(f"SKIPPED {name} with {size} connections: a process may open {files} files", file=sys.stderr)
                continue
            try:
                samples.append(measure(SERVERS[name], size))
            except Failure as failure:
                sys.exit(f"{name} with {size} connections: {failure}")
    if not slab_bytes():
        print("SKIPPED the kernel's caches: only root may read /proc/slabinfo", file=sys.stderr)
    table(without_plain(samples))
    if options.json:
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], options.json), "w") as file:
            json.dump({"format": "ringspun-scale", "version": 1, "kernel": platform.release(), "samples": samples}, file, indent=1)


if __name__ == "__main__":
    main()
